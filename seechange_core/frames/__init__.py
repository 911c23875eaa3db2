"""What goes between stages: frozen dataclasses of arrays.

They hold pixels, tables and solutions, and know nothing of files, rows or settings.

Conventions, everywhere: arrays are ``[y, x]``; pixel centres are 0-based integers; images are in
electrons; ``weight`` is 1 / background variance (sky, dark, read noise) and 0 where unusable;
sky positions are ICRS degrees; ``mag = zp - 2.5 log10(flux)``.
A stage returns new frames and never edits the arrays it was given.
"""

from seechange_core.frames.depth import Depth
from seechange_core.frames.image import (
    Background,
    CalibratedImage,
    CommonStars,
    ImageFrame,
    PsfModel,
    Stamps,
    SubtractionFrame,
)
from seechange_core.frames.raw import (
    Amplifier,
    Box,
    Crosstalk,
    LinearityLaw,
    MasterFrame,
    Masters,
    Prepared,
    RawFrame,
)
from seechange_core.frames.solutions import PointingHint, WcsSolution, ZeroPointSolution
from seechange_core.frames.tables import (
    CatalogStars,
    Detections,
    ForcedFluxes,
    Measurements,
    Sources,
    StaticSources,
    Table,
)
from seechange_core.frames.types import Bool, Cards, Flags, Float, Float32, Int

__all__ = [
    "Amplifier",
    "Background",
    "Bool",
    "Box",
    "CalibratedImage",
    "Cards",
    "CatalogStars",
    "CommonStars",
    "Crosstalk",
    "Depth",
    "Detections",
    "Flags",
    "Float",
    "Float32",
    "ForcedFluxes",
    "ImageFrame",
    "Int",
    "LinearityLaw",
    "MasterFrame",
    "Masters",
    "Measurements",
    "PointingHint",
    "Prepared",
    "PsfModel",
    "RawFrame",
    "Sources",
    "Stamps",
    "StaticSources",
    "SubtractionFrame",
    "Table",
    "WcsSolution",
    "ZeroPointSolution",
]
