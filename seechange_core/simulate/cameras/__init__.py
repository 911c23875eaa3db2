"""The cameras that can be simulated: how each is laid out and how it writes its files.

A camera is a module with `layout`, `section_ids`, `file_name`, `primary_cards`, `units` and
`COMPRESSED`. What it says of a real camera is written down from public facts, apart from what the
pipeline's instruments say: each is a test of the other.
"""

from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from seechange_core.simulate.cameras.layout import CameraLayout, SectionId

if TYPE_CHECKING:
    from seechange_core.simulate.camera import Camera
    from seechange_core.simulate.options import SurveyOptions

NAMES = ("demo", "decam", "ls4")

#: Pixels and cards of one extension.
Unit = tuple[Any, dict[str, Any]]


class Frame(NamedTuple):
    """What a file's global header tells: one exposure as the telescope knows it.

    Attributes
    ----------
    kind
        science, bias, dark, flat or twilight_flat.
    number
        In the order of time over the whole survey, from 0.
    mjd_start, exposure_time_s
        Start (UTC) and open-shutter or dark time.
    ra, dec
        Where the telescope believes it points, deg.
    airmass
        At mid-exposure.
    """

    kind: str
    number: int
    mjd_start: float
    exposure_time_s: float
    ra: float
    dec: float
    airmass: float


class CameraFormat(Protocol):
    """What a module of this package has."""

    COMPRESSED: bool

    def layout(self, options: "SurveyOptions") -> CameraLayout:
        """Return the mosaic."""

    def section_ids(self, options: "SurveyOptions") -> list[Any]:
        """Return the names of all CCDs."""

    def file_name(self, frame: Frame) -> str:
        """Return a raw file's name."""

    def primary_cards(self, camera: "Camera", frame: Frame) -> dict[str, Any]:
        """Return the cards of the primary HDU."""

    def section_cards(self, camera: "Camera", section: Any) -> dict[str, Any]:
        """Return what the cards of a section say about its amplifiers."""

    def units(self, camera: "Camera", frame: Frame, section: Any, raw: Any) -> Iterator[Unit]:
        """Cut a section's raw array into extensions."""


def format_of(name: str) -> CameraFormat:
    """Return a camera's module."""
    return cast("CameraFormat", import_module(f"{__name__}.{name}"))


@lru_cache(maxsize=8)
def layout_of(options: "SurveyOptions") -> CameraLayout:
    """Return the mosaic that options ask for."""
    return format_of(options.camera).layout(options)


def chosen_sections(options: "SurveyOptions") -> tuple[SectionId, ...]:
    """Return the sections that are in the files: those named, in the camera's order, or all.

    Raises
    ------
    ValueError
        If a name is not one of the camera's.
    """
    known = {str(section): section for section in format_of(options.camera).section_ids(options)}
    wanted = options.section_names or tuple(known)
    strange = [name for name in (*wanted, *options.dead_sections) if name not in known]
    if strange:
        names = list(known) if len(known) < 6 else [*list(known)[:4], "...", list(known)[-1]]
        raise ValueError(f"{options.camera} has no section {', '.join(strange)}: it has {', '.join(names)}")
    return tuple(known[name] for name in known if name in wanted)
