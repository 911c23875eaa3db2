"""SeeChange: from a survey camera's raw exposures to difference images and light curves.

The nouns can be imported from here, e.g. ``from seechange_core import Exposure``. They are loaded when
first asked for: the numerics need no database.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seechange_core.kernel_cache import choose_cache

if TYPE_CHECKING:
    from seechange_core.instrument import Instrument
    from seechange_core.products import (
        Background,
        Calibrator,
        CatalogRelease,
        Cutouts,
        Exposure,
        ForcedFlux,
        Image,
        Measurement,
        Object,
        Provenance,
        ProvenanceTag,
        Psf,
        Reference,
        SensorSection,
        Sighting,
        SourceList,
        StepOutcome,
        WorldCoordinates,
        ZeroPoint,
    )

choose_cache()

__all__ = [
    "Background",
    "Calibrator",
    "CatalogRelease",
    "Cutouts",
    "Exposure",
    "ForcedFlux",
    "Image",
    "Instrument",
    "Measurement",
    "Object",
    "Provenance",
    "ProvenanceTag",
    "Psf",
    "Reference",
    "SensorSection",
    "Sighting",
    "SourceList",
    "StepOutcome",
    "WorldCoordinates",
    "ZeroPoint",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'seechange_core' has no attribute {name!r}")
    home = "seechange_core.instrument" if name == "Instrument" else "seechange_core.products"
    return getattr(import_module(home), name)
