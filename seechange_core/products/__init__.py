"""The nouns: one file per product, with its columns, its files and their units.

Importing this package makes `Base.metadata` complete.
"""

from seechange_core.instrument.sensor_section import SensorSection
from seechange_core.products.background import Background
from seechange_core.products.calibrator import Calibrator
from seechange_core.products.catalog_release import CatalogRelease
from seechange_core.products.cutouts import Cutouts
from seechange_core.products.exposure import Exposure
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.image import Image
from seechange_core.products.incoming_file import IncomingFile
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object, ObjectAlias
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.provenance import Provenance, ProvenanceTag
from seechange_core.products.psf import Psf
from seechange_core.products.reference import Reference, ReferenceUse
from seechange_core.products.sighting import Sighting
from seechange_core.products.source_list import SourceList
from seechange_core.products.verdict import Verdict
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint

__all__ = [
    "Background",
    "Calibrator",
    "CatalogRelease",
    "Cutouts",
    "Exposure",
    "ForcedFlux",
    "Image",
    "IncomingFile",
    "Measurement",
    "Object",
    "ObjectAlias",
    "Provenance",
    "ProvenanceTag",
    "Psf",
    "Reference",
    "ReferenceUse",
    "SensorSection",
    "Sighting",
    "SourceList",
    "StepOutcome",
    "Verdict",
    "WorldCoordinates",
    "ZeroPoint",
]
