"""From a raw section to a calibrated image in electrons, with its noise model and flags."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from seechange_core.errors import CalibratorMissingError, DeadSection, PixelsError
from seechange_core.flags import UNUSABLE, CalibrationStep, PixelFlag
from seechange_core.frames import Amplifier, Bool, Flags, Float32, ImageFrame, MasterFrame, Masters, RawFrame
from seechange_core.numerics import detector, stats
from seechange_core.numerics.lacosmic import find_cosmic_rays, sharp_star_fwhm
from seechange_core.params import Params, param

CODE_VERSION = "1"


class PreprocessParams(Params):
    """What to do to a raw section, and how."""

    do_overscan: bool = param(True, "Take off each amplifier's zero level, where it has an overscan.")
    do_bias: bool = param(True, "Subtract the master bias.")
    do_dark: bool = param(True, "Subtract the master dark, scaled to the exposure time.")
    do_flat: bool = param(True, "Divide by the master flat.")
    do_bad_pixels: bool = param(True, "Flag the pixels of the bad-pixel mask.")
    do_cosmic_rays: bool = param(True, "Find and flag cosmic rays.")
    missing_calibrator: Literal["fail", "skip"] = param(
        "fail", "What to do when a step is asked for and its master does not exist: fail, or skip the step."
    )
    noise_model: Literal["predicted", "measured"] = param(
        "predicted",
        "Background variance from gain, read noise and sky level, or (for images whose sky or pedestal "
        "was changed before they came here) from the scatter of the sky.",
    )
    flat_min: float = param(0.2, "Pixels with less response than this are bad.", gt=0, lt=1)
    bleed_fraction: float = param(
        0.6,
        "Pixels on a saturated one along the column are a bleed trail above this fraction of saturation.",
        gt=0,
        le=1,
    )
    saturated_grow_pix: int = param(
        1, "Grow saturated pixels and bleed trails by this much.", unit="pix", ge=0
    )
    sky_cell_pix: int = param(64, "Mesh of the sky level in the noise model.", unit="pix", ge=16)
    cosmic_ray_sigma: float = param(4.5, "Significance of a cosmic-ray pixel.", unit="sigma", gt=0)
    cosmic_ray_neighbour_sigma: float = param(
        2.0, "Significance of pixels touching a cosmic-ray pixel.", unit="sigma", gt=0
    )
    cosmic_ray_star_fwhm_pix: float = param(
        1.5,
        "Sharpest star this camera can see: the image's own stars can raise the limit, never lower it.",
        unit="pix",
        ge=1.5,
    )
    cosmic_ray_iterations: int = param(4, "Rounds of the cosmic-ray search.", ge=1)
    min_usable_fraction: float = param(
        0.05, "A section with less usable pixels than this is dead.", gt=0, lt=1
    )


@dataclass(eq=False)
class _Work:
    """Arrays of this module's own, filled step by step.

    `data` is in electrons, `variance` the detector's own noise before the flat (e-^2), `saturation_e` the
    lowest amplifier's saturation level above its pedestal.
    """

    data: Float32
    variance: Float32
    flags: Flags
    steps: CalibrationStep
    saturation_e: float = np.inf

    def flag(self, where: Bool, bit: PixelFlag) -> None:
        self.flags[where] |= np.uint16(bit)


def preprocess(raw: RawFrame, masters: Masters, params: PreprocessParams) -> ImageFrame:
    """Calibrate a raw section.

    Overscan, gain (electrons from here on), bias, dark, flat, flags, cosmic rays, weight, in this order.
    The variance of a pixel is (dark current + sky before the flat + read noise^2 + the masters' own
    variance) / flat^2 + sky^2 var(flat) / flat^2, with the sky from a coarse robust mesh.

    Parameters
    ----------
    raw
        As the camera wrote it.
    masters
        The master frames that belong to it.
    params
        Which steps, and their settings.

    Returns
    -------
    ImageFrame
        Electrons of a uniform detector, sky included; `calibration_steps` tells what was really done.

    Raises
    ------
    PixelsError
        If the pixels or the masters do not fit the section, or no pixel is finite.
    CalibratorMissingError
        If a step was asked for, its master does not exist and `missing_calibrator` is ``fail``.
    DeadSection
        If no amplifier gives a signal, or hardly a pixel is usable.
    """
    detector.check_raw(raw)
    work = _read_out(raw, params)
    if params.do_flat and masters.flat is None and params.missing_calibrator == "fail":
        _check_light(work.data, masters, raw)
    masters = wanted_masters(masters, params, raw.image_shape)
    dark_e = _subtract_bias_and_dark(work, masters, raw)
    flat = _divide_by_flat(work, masters, params)
    if masters.bad_pixels is not None:
        work.flags |= masters.bad_pixels.flags
    usable = (work.flags & UNUSABLE) == 0
    if usable.mean() < params.min_usable_fraction:
        raise DeadSection(
            f"only {usable.mean():.1%} of the pixels are usable",
            cure="look at the raw data, at the saturation level and at the masters' flags",
        )
    sky, scatter = _sky(work.data, usable, raw.amplifiers, params.sky_cell_pix)
    pedestal_left = params.noise_model == "predicted" and _pedestal_left(work.steps, masters, params)
    if params.noise_model == "measured" or pedestal_left:
        variance = scatter**2
    else:
        variance = _predicted_variance(work.variance, sky, dark_e, flat, masters.flat)
    work.data[~np.isfinite(work.data)] = sky[~np.isfinite(work.data)]
    if params.do_cosmic_rays:
        _flag_cosmic_rays(work, sky, variance, params)
    usable = (work.flags & UNUSABLE) == 0
    weight = np.where(usable & (variance > 0), 1 / np.maximum(variance, np.float32(1e-12)), np.float32(0))
    return ImageFrame(
        data=work.data,
        weight=weight.astype(np.float32, copy=False),
        flags=work.flags,
        exposure_time_s=raw.exposure_time_s,
        saturation_e=work.saturation_e,
        calibration_steps=int(work.steps),
        header=raw.header,
    )


def wanted_masters(masters: Masters, params: PreprocessParams, shape: tuple[int, int]) -> Masters:
    """Return the masters that the parameters ask for, checked.

    Raises
    ------
    CalibratorMissingError
        Naming every master that is asked for and does not exist, unless told to skip such steps.
    PixelsError
        If a master's shape is not the section's.
    """
    chosen: dict[str, MasterFrame | None] = {}
    missing = []
    for kind in ("bias", "dark", "flat", "bad_pixels"):
        master: MasterFrame | None = getattr(masters, kind) if getattr(params, f"do_{kind}") else None
        if master is None and getattr(params, f"do_{kind}"):
            missing.append(kind)
        if master is not None and master.data.shape != shape:
            raise PixelsError(
                f"the master {kind} is {master.data.shape} pixels, the section {shape}",
                cure=f"rebuild the {kind} from frames of this camera and readout mode",
            )
        chosen[kind] = master
    if missing and params.missing_calibrator == "fail":
        raise CalibratorMissingError(
            f"no master {', '.join(missing)} for this section and date",
            cure=f"build it, set do_{missing[0]} to false, or set missing_calibrator to skip",
        )
    return Masters(**chosen)


def _read_out(raw: RawFrame, params: PreprocessParams) -> _Work:
    """Trim, take off the overscan level, convert to electrons, flag saturation and silence."""
    shape = raw.image_shape
    work = _Work(
        data=np.full(shape, np.nan, dtype=np.float32),
        variance=np.zeros(shape, dtype=np.float32),
        flags=np.zeros(shape, dtype=np.uint16),
        steps=CalibrationStep.GAIN,
    )
    alive = 0
    for amplifier in raw.amplifiers:
        place = amplifier.image.slices
        pedestal = detector.overscan_pedestal(raw, amplifier) if params.do_overscan else None
        if pedestal is not None and amplifier.overscan is not None:
            work.steps |= CalibrationStep.OVERSCAN
            work.variance[place] += pedestal.variance_adu * amplifier.gain**2
        work.data[place] = detector.electrons(raw, amplifier, pedestal)
        work.variance[place] += amplifier.read_noise_e**2
        zero_adu = 0.0 if pedestal is None else float(np.mean(pedestal.level_adu))
        level = detector.saturation_level_adu(raw, amplifier)
        work.saturation_e = min(work.saturation_e, (level - zero_adu) * amplifier.gain)
        work.flags[place] |= _saturation_flags(raw, amplifier, level, zero_adu, params)
        if _is_silent(raw, amplifier):
            work.flag(_box_mask(shape, amplifier), PixelFlag.BAD_PIXEL)
        else:
            alive += 1
    if alive == 0:
        raise DeadSection("no amplifier shows even its read noise", cure="the section is dead; nothing to do")
    work.flag(~np.isfinite(work.data), PixelFlag.NO_DATA)
    _grow_saturation(work, params.saturated_grow_pix)
    return work


def _box_mask(shape: tuple[int, int], amplifier: Amplifier) -> Bool:
    mask = np.zeros(shape, dtype=np.bool_)
    mask[amplifier.image.slices] = True
    return mask


def _is_silent(raw: RawFrame, amplifier: Amplifier) -> bool:
    """Tell whether an amplifier is quieter than electronics can be: constant, or nearly so."""
    pixels = raw.data[amplifier.raw.slices]
    finite = pixels[np.isfinite(pixels)].astype(np.float32)
    if finite.size == 0:
        return True
    # Rounding to ADU hides a read noise far below one of them, so that alone is no sign of death.
    quiet_adu = 0.2 * min(amplifier.read_noise_e / amplifier.gain, 1.0)
    core = finite[np.abs(finite - np.median(finite)) < 100]
    return bool(core.size > finite.size / 2 and np.std(core) <= quiet_adu)


def _check_light(data: Float32, masters: Masters, raw: RawFrame) -> None:
    """Stop where neither flats nor this frame ever saw light; elsewhere the flat is simply missing."""
    dark = data
    for master, factor in ((masters.bias, 1.0), (masters.dark, raw.exposure_time_s)):
        if master is not None and master.data.shape == data.shape:
            dark = dark - master.data * np.float32(factor)
    level = float(np.nanmedian(dark))
    read_noise = float(np.mean([amplifier.read_noise_e for amplifier in raw.amplifiers]))
    if raw.exposure_time_s > 0 and level < 0.2 * read_noise:
        raise DeadSection(
            f"it has no flat, and the frame shows no light (median {level:.2f} e-)",
            cure="the section is dead; nothing to do",
        )


def _saturation_flags(
    raw: RawFrame, amplifier: Amplifier, level_adu: float, zero_adu: float, params: PreprocessParams
) -> Flags:
    pixels = raw.data[amplifier.raw.slices]
    flags = np.zeros(pixels.shape, dtype=np.uint16)
    saturated = pixels >= level_adu
    if saturated.any():
        fullness = ((pixels - zero_adu) / (level_adu - zero_adu)).astype(np.float32)
        trail = detector.bleed_trails(fullness, saturated, params.bleed_fraction)
        flags[trail] = PixelFlag.BLEED
        flags[saturated] = PixelFlag.SATURATED
    return flags


def _grow_saturation(work: _Work, radius: int) -> None:
    full = (work.flags & (PixelFlag.SATURATED | PixelFlag.BLEED)) != 0
    if radius > 0 and full.any():
        work.flag(detector.grow(full, radius) & ~full, PixelFlag.BLEED)


def _subtract_bias_and_dark(work: _Work, masters: Masters, raw: RawFrame) -> Float32 | None:
    """Subtract both, in place; return the dark charge whose photon-like noise remains."""
    bias, dark = masters.bias, masters.dark
    if dark is not None and dark.holds_pedestal:
        bias = None  # it is in the dark already
    if bias is not None:
        work.data -= bias.data
        work.variance += bias.variance
        work.flags |= bias.flags
        work.steps |= CalibrationStep.BIAS
    if dark is None:
        return None
    _check_dark_time(dark, raw.exposure_time_s)
    dark_e: Float32 = dark.data * np.float32(raw.exposure_time_s)
    work.data -= dark_e
    work.variance += dark.variance * np.float32(raw.exposure_time_s**2)
    work.flags |= dark.flags
    work.steps |= CalibrationStep.DARK
    if dark.holds_pedestal:
        for amplifier in raw.amplifiers:
            dark_e[amplifier.image.slices] -= np.median(dark_e[amplifier.image.slices])
    return np.maximum(dark_e, np.float32(0))


def _check_dark_time(dark: MasterFrame, exposure_time_s: float) -> None:
    """Refuse to scale a dark that still holds the bias level."""
    if dark.holds_pedestal and abs(exposure_time_s - dark.exposure_time_s) > 0.01 * dark.exposure_time_s:
        raise CalibratorMissingError(
            f"the dark holds the bias level and was exposed {dark.exposure_time_s:g} s, "
            f"this frame {exposure_time_s:g} s",
            cure="take bias frames and rebuild the dark, or take darks of this exposure time",
        )


def _divide_by_flat(work: _Work, masters: Masters, params: PreprocessParams) -> Float32 | None:
    """Divide in place; return what was divided by."""
    if masters.flat is None:
        return None
    flat: Float32 = masters.flat.data
    dark_corner = ~(flat >= params.flat_min)  # catches NaN
    work.flag(dark_corner, PixelFlag.BAD_PIXEL)
    work.flags |= masters.flat.flags
    divisor = np.where(dark_corner, np.float32(1), flat)
    work.data /= divisor
    work.steps |= CalibrationStep.FLAT
    if np.isfinite(work.saturation_e):
        work.saturation_e = float(work.saturation_e / np.percentile(divisor, 99.9))
    return divisor


def _sky(
    data: Float32, usable: Bool, amplifiers: tuple[Amplifier, ...], cell_pix: int
) -> tuple[Float32, Float32]:
    """Map sky level and scatter, each amplifier by itself (their levels may differ)."""
    level = np.empty_like(data)
    scatter = np.empty_like(data)
    for amplifier in amplifiers:
        place = amplifier.image.slices
        level[place], scatter[place] = stats.coarse_sky(data[place], usable[place], cell_pix)
    known = np.isfinite(level)
    if not known.all():
        level[~known] = np.median(level[known])
        scatter[~known] = np.median(scatter[known])
    return level, scatter


def _pedestal_left(steps: CalibrationStep, masters: Masters, params: PreprocessParams) -> bool:
    """Tell whether the electronic zero level, which has no photon noise, is still in the data."""
    asked = params.do_overscan or params.do_bias
    holds = masters.dark is not None and masters.dark.holds_pedestal
    return asked and not holds and not steps & (CalibrationStep.OVERSCAN | CalibrationStep.BIAS)


def _predicted_variance(
    detector_variance: Float32,
    sky: Float32,
    dark_e: Float32 | None,
    flat: Float32 | None,
    flat_master: MasterFrame | None,
) -> Float32:
    positive: Float32 = np.maximum(sky, np.float32(0))
    if flat is None or flat_master is None:
        variance = detector_variance + positive
        return variance if dark_e is None else variance + dark_e
    variance = detector_variance + positive * flat
    if dark_e is not None:
        variance += dark_e
    flat_variance = np.where(np.isfinite(flat_master.variance), flat_master.variance, np.float32(0))
    return np.asarray((variance + positive**2 * flat_variance) / flat**2, dtype=np.float32)


def _flag_cosmic_rays(work: _Work, sky: Float32, variance: Float32, params: PreprocessParams) -> None:
    pixels = (work.data - sky, np.maximum(variance, np.float32(1e-6)), (work.flags & UNUSABLE) != 0)
    hits = find_cosmic_rays(
        *pixels,
        n_sigma=params.cosmic_ray_sigma,
        neighbour_sigma=params.cosmic_ray_neighbour_sigma,
        star_fwhm_pix=sharp_star_fwhm(*pixels, params.cosmic_ray_star_fwhm_pix),
        iterations=params.cosmic_ray_iterations,
    )
    work.flag(hits, PixelFlag.COSMIC_RAY)
    work.steps |= CalibrationStep.COSMIC_RAYS
