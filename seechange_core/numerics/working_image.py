"""A section being calibrated: read out amplifier by amplifier, in electrons, with flags."""

from dataclasses import dataclass, field

import numpy as np

from seechange_core.errors import DeadSection
from seechange_core.flags import UNUSABLE, CalibrationStep, PixelFlag
from seechange_core.frames import Amplifier, Bool, Box, Flags, Float32, Masters, RawFrame
from seechange_core.numerics import detector
from seechange_core.numerics.fringe import FringeFit
from seechange_core.numerics.linearity import linear_limit_adu, table_of, true_level
from seechange_core.numerics.noise_model import strips
from seechange_core.numerics.saturation import flag_levels, flag_trails


@dataclass(eq=False)
class WorkingImage:
    """An image in electrons that calibration fills step by step, in arrays of its own.

    Attributes
    ----------
    raw
        Where it comes from; never edited.
    data, flags
        (H, W) float32, electrons, and uint16.
    steps
        What was done so far, by others too.
    saturation_e
        The lowest amplifier's saturation level above its zero level.
    read_e2, pedestal_e2
        Variances of reading and of the zero level taken off, one per amplifier, electrons^2.
    fringe
        How strong fringes were found to be.
    """

    raw: RawFrame
    data: Float32
    flags: Flags
    steps: CalibrationStep
    saturation_e: float = np.inf
    read_e2: list[float] = field(default_factory=list)
    pedestal_e2: list[float] = field(default_factory=list)
    fringe: FringeFit = field(default_factory=lambda: FringeFit(np.nan, np.nan, np.nan))

    @classmethod
    def of(cls, raw: RawFrame) -> "WorkingImage":
        """Start with what others did to the section."""
        shape = raw.image_shape
        flags = np.zeros(shape, dtype=np.uint16)
        if raw.prepared is not None and raw.prepared.flags is not None:
            flags |= raw.prepared.flags
        data = np.full(shape, np.nan, dtype=np.float32)
        return cls(raw, data, flags, steps_done(raw) | CalibrationStep.GAIN)

    def strips(self) -> list[tuple[slice, slice]]:
        """Cut the whole image into pieces that fit into a processor's cache."""
        height, width = self.data.shape
        return [place for place, _ in strips(Box(0, height, 0, width))]

    def usable(self) -> Bool:
        """Return which pixels no flag forbids."""
        usable: Bool = (self.flags & np.uint16(UNUSABLE)) == 0
        return usable


_BEFORE_FLAT = (
    CalibrationStep.OVERSCAN
    | CalibrationStep.CROSSTALK
    | CalibrationStep.LINEARITY
    | CalibrationStep.BIAS
    | CalibrationStep.DARK
)
#: What cannot be done any more after a step, whether it was done before it or left out.
_SETTLES = {
    CalibrationStep.LINEARITY: CalibrationStep.OVERSCAN | CalibrationStep.CROSSTALK,
    CalibrationStep.BIAS: CalibrationStep.OVERSCAN,
    CalibrationStep.DARK: CalibrationStep.OVERSCAN | CalibrationStep.BIAS,
    CalibrationStep.FLAT: _BEFORE_FLAT,
    CalibrationStep.FRINGE: _BEFORE_FLAT | CalibrationStep.FLAT,
    CalibrationStep.ILLUMINATION: _BEFORE_FLAT | CalibrationStep.FLAT,
}


def steps_done(raw: RawFrame) -> CalibrationStep:
    """Return what was done to a section before it came here."""
    return CalibrationStep(raw.prepared.steps if raw.prepared is not None else 0)


def steps_settled(raw: RawFrame) -> CalibrationStep:
    """Return what was done to a section before it came here, and what therefore cannot be done any more.

    Once a flat was divided by, zero levels, laws of raw signals, bias and dark come too late: whoever
    prepared the section did without them. BIAS, DARK and LINEARITY settle only the zero level and what else
    they build upon: the order of these three hardly matters, and nor does that of fringe and illumination.
    """
    done = steps_done(raw)
    settled = done
    for step, earlier in _SETTLES.items():
        if done & step:
            settled |= earlier
    return settled


def read_out(
    raw: RawFrame,
    masters: Masters,
    *,
    overscan: bool,
    overscan_noise: bool,
    overscan_trim_pix: int = 0,
    bleed_fraction: float,
    grow_pix: int,
) -> WorkingImage:
    """Trim, take off zero levels and crosstalk, linearise, convert to electrons, flag levels and silence.

    Parameters
    ----------
    raw
        The section.
    masters
        Crosstalk and linearity are applied; bias and dark may tell a zero level.
    overscan
        Whether to take off the zero levels that overscans show.
    overscan_noise
        Whether to believe the read noise that they show.
    overscan_trim_pix
        Columns of each overscan to leave out on the side of the image.
    bleed_fraction
        A pixel above this fraction of saturation may belong to a bleed trail.
    grow_pix
        Pixels to grow saturation and trails by.

    Raises
    ------
    DeadSection
        If all amplifiers are defective or silent.
    """
    work = WorkingImage.of(raw)
    pedestals = zero_levels(raw, masters, overscan=overscan, trim_pix=overscan_trim_pix)
    nearly_full = []
    silent = 0
    for amplifier in raw.amplifiers:
        place = amplifier.image.slices
        pedestal = pedestals.get(amplifier.name)
        work.data[place] = detector.signal_electrons(
            raw, amplifier, pedestals=pedestals, crosstalk=masters.crosstalk, linearity=masters.linearity
        )
        measured = pedestal if overscan_noise else None
        work.read_e2.append(detector.read_variance_e2(raw, amplifier, measured))
        work.pedestal_e2.append(0.0 if pedestal is None else pedestal.variance_adu * amplifier.gain**2)
        if pedestal is not None and pedestal.n_pixels > 0:
            work.steps |= CalibrationStep.OVERSCAN
        if pedestal is not None and pedestal.spoiled is not None:
            # Not BLEED: that stands for a saturated star nearby, and these rows span the amplifier.
            work.flags[place][pedestal.spoiled] |= np.uint16(PixelFlag.BAD_PIXEL)
        nearly_full.append(_flag_levels(work, amplifier, pedestal, masters, bleed_fraction))
        if amplifier.defective or detector.is_silent(raw, amplifier):
            work.flags[place] |= np.uint16(PixelFlag.BAD_PIXEL)
            silent += 1
    if silent == len(raw.amplifiers):
        raise DeadSection(
            "no amplifier shows even its read noise, or all are defective",
            cure="the section is dead; nothing to do",
        )
    flag_trails(work.flags, raw, nearly_full, grow_pix)
    work.steps |= masters.laws_applied
    return work


def zero_levels(
    raw: RawFrame, masters: Masters, *, overscan: bool, trim_pix: int = 0
) -> dict[str, detector.Pedestal]:
    """Return the zero levels that are known, by amplifier.

    They are 0 where somebody took them off already, or did what can only be done without them; from the
    overscan where there is one; where the camera has none the median of the bias, or of a dark that holds
    the zero level: such a level stays in until that master is subtracted. An overscan that is there and not
    used leaves the level unknown, for nobody can say whether the masters hold it.

    Parameters
    ----------
    raw
        The section.
    masters
        Bias and dark are looked at.
    overscan
        Whether to use overscans.
    trim_pix
        Columns of each overscan to leave out on the side of the image.
    """
    if steps_settled(raw) & (CalibrationStep.OVERSCAN | CalibrationStep.BIAS):
        return {a.name: detector.Pedestal(np.zeros(a.raw.shape[0]), 0.0) for a in raw.amplifiers}
    known = detector.overscan_pedestals(raw, trim_pix) if overscan else {}
    holding, factor = masters.bias, 1.0
    if masters.dark is not None and masters.dark.holds_pedestal:
        holding, factor = masters.dark, raw.exposure_time_s
    for amplifier in raw.amplifiers:
        if amplifier.overscan is None and holding is not None:
            sample = detector.sampled(holding.data[amplifier.image.slices])
            known_values = sample[np.isfinite(sample)]
            level = factor * float(np.median(known_values)) / amplifier.gain if known_values.size else 0.0
            rows = np.full(amplifier.raw.shape[0], level)
            known[amplifier.name] = detector.Pedestal(rows, 0.0, kept=True)
    return known


def _flag_levels(
    work: WorkingImage,
    amplifier: Amplifier,
    pedestal: detector.Pedestal | None,
    masters: Masters,
    bleed_fraction: float,
) -> float:
    """Flag saturated and non-linear pixels; return the raw level from which they may be bleed trails."""
    raw = work.raw
    zero = 0.0 if pedestal is None else float(np.mean(pedestal.level_adu))
    level = detector.saturation_level_adu(raw, amplifier)
    full_adu, non_linear = level - zero, linear_limit_adu(amplifier, masters.linearity, zero)
    if masters.linearity is not None:
        full_adu = true_level(table_of(masters.linearity, amplifier.name), full_adu)
    if amplifier.defective:
        return np.inf  # its levels mean nothing, and must not grow into its neighbours
    work.saturation_e = min(work.saturation_e, full_adu * amplifier.gain)
    flag_levels(work.flags[amplifier.image.slices], raw.data[amplifier.raw.slices], level, non_linear)
    return zero + bleed_fraction * (level - zero)
