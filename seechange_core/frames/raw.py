"""A section as the camera wrote it, and the master frames that calibrate it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from seechange_core.frames.types import Cards, Flags, Float32


class Box(NamedTuple):
    """A half-open rectangle of pixels, 0-based."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index an array with it."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0


@dataclass(frozen=True)
class Amplifier:
    """One readout of a section: where its pixels are and how it responds.

    Attributes
    ----------
    name
        E.g. ``A``.
    raw, overscan
        Boxes in the raw array; `overscan` is None where the camera writes none.
    image
        Where its pixels go in the trimmed image; same shape as `raw`.
    gain
        e-/ADU.
    read_noise_e
        e- per pixel.
    saturation_adu
        Raw level (ADU, overscan included) from which a pixel counts as saturated.
    """

    name: str
    raw: Box
    overscan: Box | None
    image: Box
    gain: float
    read_noise_e: float
    saturation_adu: float


@dataclass(frozen=True, eq=False)
class RawFrame:
    """A section as the camera wrote it.

    Attributes
    ----------
    data
        (H, W) of any real dtype, ADU, overscan included.
    amplifiers
        At least one; their `image` boxes tile the trimmed image.
    exposure_time_s
        Open-shutter time (dark time for a dark).
    header
        Raw cards of this section.
    """

    data: npt.NDArray[Any]
    amplifiers: tuple[Amplifier, ...]
    exposure_time_s: float
    header: Cards = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width after trimming."""
        return max(a.image.y1 for a in self.amplifiers), max(a.image.x1 for a in self.amplifiers)


@dataclass(frozen=True, eq=False)
class MasterFrame:
    """A master calibration frame of one section, trimmed.

    Attributes
    ----------
    kind
        ``bias`` (electrons), ``dark`` (electrons per second), ``flat`` (relative response, median 1),
        ``bad_pixels`` (data unused, see flags).
    data
        (H, W) float32.
    variance
        (H, W) float32, squared units of `data`.
    flags
        (H, W) uint16 `PixelFlag` bits.
    n_frames
        How many frames went in.
    exposure_time_s
        Mean of the frames that went in; NaN if unknown.
    holds_pedestal
        True for a dark made without bias and overscan: it fits exposures of its own length only.
    """

    kind: str
    data: Float32
    variance: Float32
    flags: Flags
    n_frames: int
    exposure_time_s: float = np.nan
    holds_pedestal: bool = False


@dataclass(frozen=True)
class Masters:
    """The master frames chosen for one section; None means there is none."""

    bias: MasterFrame | None = None
    dark: MasterFrame | None = None
    flat: MasterFrame | None = None
    bad_pixels: MasterFrame | None = None
