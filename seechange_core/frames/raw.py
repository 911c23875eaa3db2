"""A section as the camera wrote it, and the master frames that calibrate it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from seechange_core.flags import CalibrationStep
from seechange_core.frames.types import Cards, Flags, Float, Float32


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
    non_linear_adu
        Raw level (ADU, overscan included) above which the response is not known to be linear.
    mirrored
        True where each row is read from its right end: pixels of two amplifiers that are equally far
        from their own first one are read at the same moment.
    defective
        True: its pixels are no use.
    """

    name: str
    raw: Box
    overscan: Box | None
    image: Box
    gain: float
    read_noise_e: float
    saturation_adu: float
    non_linear_adu: float = np.inf
    mirrored: bool = False
    defective: bool = False


@dataclass(frozen=True, eq=False)
class Prepared:
    """What was done to a section before it came to us, by the observatory's own pipeline.

    Attributes
    ----------
    steps
        `CalibrationStep` bits of what is done already: these steps are not repeated, nor are those that
        have to come before them.
    weight
        (H, W) float32, 1 / variance in ADU^-2 of the trimmed section; None if none came with it.
    flags
        (H, W) uint16 `PixelFlag` bits; None if no mask came with it.
    """

    steps: int
    weight: Float32 | None = None
    flags: Flags | None = None


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
    prepared
        What others did to it already; None for a raw section.
    """

    data: npt.NDArray[Any]
    amplifiers: tuple[Amplifier, ...]
    exposure_time_s: float
    header: Cards = field(default_factory=dict)
    prepared: Prepared | None = None

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
        ``bias`` (electrons), ``dark`` (electrons per second), ``flat`` and ``twilight_flat`` (relative
        response, median 1), ``fringe`` (pattern per electron of flat-fielded sky, median 0),
        ``illumination`` (smooth sky response left after the flat, median 1), ``bad_pixels`` (data
        unused, see flags).
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
    calibration_steps
        `CalibrationStep` bits CROSSTALK and LINEARITY: which of them its frames were corrected for; None
        if nobody knows.
    """

    kind: str
    data: Float32
    variance: Float32
    flags: Flags
    n_frames: int
    exposure_time_s: float = np.nan
    holds_pedestal: bool = False
    calibration_steps: int | None = None


@dataclass(frozen=True, eq=False)
class LinearityLaw:
    """What the signal of each amplifier should have been: a table, straight between its points.

    Attributes
    ----------
    amplifiers
        Names.
    measured_adu, true_adu
        (n_amplifiers, n) float64, ADU above the zero level, both growing along the second axis; the
        first point is 0, 0. Beyond the last point nothing is known: such pixels are non-linear.
    """

    amplifiers: tuple[str, ...]
    measured_adu: Float
    true_adu: Float

    @property
    def has_effect(self) -> bool:
        """Whether it changes any signal."""
        return not np.array_equal(self.measured_adu, self.true_adu)


@dataclass(frozen=True, eq=False)
class Crosstalk:
    """How much of an amplifier's signal appears in the others of its section, read at the same moment.

    Attributes
    ----------
    amplifiers
        Names.
    coefficients
        (n_amplifiers, n_amplifiers) float64: ``[victim, source]``, ADU in the victim per ADU of signal in
        the source; the diagonal is 0.
    """

    amplifiers: tuple[str, ...]
    coefficients: Float

    @property
    def has_effect(self) -> bool:
        """Whether any amplifier leaves anything in another."""
        return bool(np.any(self.coefficients))


@dataclass(frozen=True)
class Masters:
    """The calibrators chosen for one section; None means there is none."""

    crosstalk: Crosstalk | None = None
    linearity: LinearityLaw | None = None
    bias: MasterFrame | None = None
    dark: MasterFrame | None = None
    flat: MasterFrame | None = None
    fringe: MasterFrame | None = None
    illumination: MasterFrame | None = None
    bad_pixels: MasterFrame | None = None

    @property
    def laws_applied(self) -> CalibrationStep:
        """Which of CROSSTALK and LINEARITY these calibrators correct for, if they are applied."""
        steps = CalibrationStep(0)
        if self.crosstalk is not None and self.crosstalk.has_effect:
            steps |= CalibrationStep.CROSSTALK
        if self.linearity is not None and self.linearity.has_effect:
            steps |= CalibrationStep.LINEARITY
        return steps
