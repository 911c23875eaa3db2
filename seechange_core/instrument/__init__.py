"""Cameras: the contract they fulfil, their sections, and finding the right one for a file."""

from seechange_core.instrument.base import Instrument, SectionContext
from seechange_core.instrument.facts import ExposureFacts
from seechange_core.instrument.files import Paths, as_paths
from seechange_core.instrument.guess import guess_instrument
from seechange_core.instrument.header import normalize_keyword
from seechange_core.instrument.registry import (
    INSTRUMENT_INSTANCE_CACHE,
    get_code_version,
    get_instrument_instance,
    list_instruments,
)
from seechange_core.instrument.sections import Sections
from seechange_core.instrument.sensor_section import SECTION_PROPERTIES, SectionId, SensorSection

__all__ = [
    "INSTRUMENT_INSTANCE_CACHE",
    "SECTION_PROPERTIES",
    "ExposureFacts",
    "Instrument",
    "Paths",
    "SectionContext",
    "SectionId",
    "Sections",
    "SensorSection",
    "as_paths",
    "get_code_version",
    "get_instrument_instance",
    "guess_instrument",
    "list_instruments",
    "normalize_keyword",
]
