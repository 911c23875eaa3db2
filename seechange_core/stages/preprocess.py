"""From a raw section to a calibrated image in electrons, with its noise model and flags."""

from typing import Literal

import numpy as np

from seechange_core.errors import CalibratorMissingError, DeadSection, PixelsError
from seechange_core.flags import UNUSABLE, CalibrationStep, PixelFlag
from seechange_core.frames import Float32, ImageFrame, Masters, RawFrame
from seechange_core.numerics import detector
from seechange_core.numerics.coarse_sky import SkyMesh
from seechange_core.numerics.fringe import fit_fringes
from seechange_core.numerics.image_noise import background_variance, map_skies
from seechange_core.numerics.lacosmic import find_cosmic_rays
from seechange_core.numerics.noise_model import divide, strips
from seechange_core.numerics.star_shape import sharp_star_fwhm
from seechange_core.numerics.streaks import find_streaks
from seechange_core.numerics.working_image import WorkingImage, read_out, steps_settled
from seechange_core.stages.preprocess_params import STEPS, PreprocessParams

CODE_VERSION = "4"

__all__ = ["CODE_VERSION", "STEPS", "PreprocessParams", "preprocess", "wanted_kinds", "wanted_masters"]


def preprocess(
    raw: RawFrame, masters: Masters, params: PreprocessParams, band: str | None = None
) -> ImageFrame:
    """Calibrate a raw section.

    In this order: overscan, crosstalk and linearity per amplifier, gain (electrons from here on), bias,
    dark scaled to the exposure time, flat, fringe as strong as it is in the image, illumination, flags,
    cosmic rays, trails, weight. What `raw.prepared` says was done by others is not done again, nor is what
    had to come before it (see `numerics.working_image.steps_settled`): such steps need no master.

    The background variance is predicted (see `numerics.noise_model`), or measured where its level says
    nothing about the noise (see `numerics.image_noise`): the parameters may ask for it, the zero level may
    still be in the data, or others may have changed the sky.

    Parameters
    ----------
    raw
        As the camera wrote it, or as others prepared it.
    masters
        The calibrators that belong to it.
    params
        Which steps, and their settings.
    band
        Filter in front of the section: some steps are wanted in some filters only. None if it is not known:
        then they are wanted.

    Returns
    -------
    ImageFrame
        Electrons of a uniform detector, sky included; `calibration_steps` tells what was really done.

    Raises
    ------
    PixelsError
        If the pixels or the masters do not fit the section, or no pixel is finite.
    HeaderError
        If gain, read noise or exposure time is impossible, or a table does not know an amplifier.
    CalibratorMissingError
        If a step was asked for, its master does not exist and `missing_calibrator` is ``fail``; or if the
        flat or dark was made of frames corrected otherwise for crosstalk or non-linearity than this one.
    DeadSection
        If no amplifier gives a signal, or hardly a pixel is usable.
    """
    detector.check_raw(raw)
    _check_prepared(raw)
    masters, missing = wanted_masters(masters, params, raw, band)
    work = read_out(
        raw,
        masters,
        overscan=params.do_overscan,
        overscan_noise=params.read_noise == "overscan",
        overscan_trim_pix=params.overscan_trim_pix,
        bleed_fraction=params.bleed_fraction,
        grow_pix=params.saturated_grow_pix,
    )
    _check_missing(missing, work, masters, params, band)
    _check_alike(work, masters)
    _subtract_bias_and_dark(work, masters)
    _divide(work, "flat", masters, params.flat_min)
    _subtract_fringes(work, masters, params)
    _divide(work, "illumination", masters, params.flat_min)
    _flag_bad(work, masters, params)
    skies = map_skies(work, params.sky_cell_pix)
    variance = background_variance(
        work,
        skies,
        masters,
        measured=params.noise_model == "measured",
        holds_pedestal=_holds_pedestal(work, masters, params),
        cell_pix=params.sky_cell_pix,
        least_response=params.flat_min,
    )
    del masters  # where the caller keeps none, their memory serves the searches that follow
    _flag_passers_by(work, skies, variance, params)
    for place in work.strips():
        good = ((work.flags[place] & np.uint16(UNUSABLE)) == 0) & (variance[place] > 0)
        variance[place] = np.where(good, 1 / np.maximum(variance[place], np.float32(1e-12)), np.float32(0))
    return ImageFrame(
        data=work.data,
        weight=variance,
        flags=work.flags,
        exposure_time_s=raw.exposure_time_s,
        saturation_e=work.saturation_e,
        calibration_steps=int(work.steps),
        header=raw.header,
        fringe_scale=work.fringe.scale,
        fringe_scale_error=work.fringe.error,
    )


# --- Calibrators ----------------------------------------------------------------------------------


def wanted_kinds(params: PreprocessParams, raw: RawFrame, band: str | None) -> list[str]:
    """Name the calibrators that a section needs: those asked for in its filter and not settled by others."""
    settled = steps_settled(raw)
    return [kind for kind, step in STEPS.items() if params.asks_for(kind, band) and not settled & step]


def wanted_masters(
    masters: Masters, params: PreprocessParams, raw: RawFrame, band: str | None
) -> tuple[Masters, tuple[str, ...]]:
    """Return the masters that the parameters ask for, checked, and the kinds that are missing.

    Raises
    ------
    PixelsError
        If a master's shape is not the section's.
    """
    asked = wanted_kinds(params, raw, band)
    chosen = {kind: getattr(masters, kind) for kind in asked}
    for kind in ("bias", "dark", "flat", "fringe", "illumination", "bad_pixels"):
        master = chosen.get(kind)
        if master is not None and master.data.shape != raw.image_shape:
            raise PixelsError(
                f"the master {kind} is {master.data.shape} pixels, the section {raw.image_shape}",
                cure=f"rebuild the {kind} from frames of this camera and readout mode",
            )
    return Masters(**chosen), tuple(kind for kind in asked if chosen[kind] is None)


def _check_missing(
    missing: tuple[str, ...],
    work: WorkingImage,
    masters: Masters,
    params: PreprocessParams,
    band: str | None,
) -> None:
    if not missing or params.missing_calibrator == "skip":
        return
    if "flat" in missing:
        _check_light(work, masters)
    which = f"this section and date, filter {band}" if band else "this section and date"
    part = next((kind for kind in missing if kind in ("fringe", "illumination")), None)
    not_here = f"let {part}_filters name the filters that have one, " if part and band else ""
    raise CalibratorMissingError(
        f"no master {', '.join(missing)} for {which}",
        cure=f"build it, add it (seechange calibrator add), set do_{missing[0]} to false, {not_here}"
        "or set missing_calibrator to skip",
    )


def _check_alike(work: WorkingImage, masters: Masters) -> None:
    """Refuse a flat or dark whose frames were read out otherwise than this one.

    A response measured on a curve is not that of linearised signals, and a neighbour's share in it goes
    through as a step between amplifiers. A bias holds neither: its signal is the zero level. Masters of
    which nothing is known (added from files) are believed.
    """
    for kind, master in (("flat", masters.flat), ("dark", masters.dark)):
        if master is None or master.calibration_steps is None:
            continue
        for name, step in (
            ("linearity", CalibrationStep.LINEARITY),
            ("crosstalk", CalibrationStep.CROSSTALK),
        ):
            here, there = bool(work.steps & step), bool(master.calibration_steps & step)
            if here != there:
                raise CalibratorMissingError(
                    f"no {kind} that fits: this frame is {'' if here else 'not '}corrected for {name}, "
                    f"those of the {master.kind} were{'' if there else ' not'}",
                    cure=f"set combine.do_{name} as preprocess.do_{name} and build the masters again",
                )


def _check_light(work: WorkingImage, masters: Masters) -> None:
    """Stop where neither flats nor this frame ever saw light; elsewhere the flat is simply missing."""
    raw = work.raw
    dark = detector.sampled(work.data).copy()
    for master, factor in ((masters.bias, 1.0), (masters.dark, raw.exposure_time_s)):
        if master is not None:
            dark -= detector.sampled(master.data) * np.float32(factor)
    level = float(np.median(dark[np.isfinite(dark)])) if np.isfinite(dark).any() else np.nan
    read_noise = float(np.mean([amplifier.read_noise_e for amplifier in raw.amplifiers]))
    if raw.exposure_time_s > 0 and level < 0.2 * read_noise:
        raise DeadSection(
            f"it has no flat, and the frame shows no light (median {level:.2f} e-)",
            cure="the section is dead; nothing to do",
        )


def _check_prepared(raw: RawFrame) -> None:
    if raw.prepared is None:
        return
    for name in ("weight", "flags"):
        array = getattr(raw.prepared, name)
        if array is not None and array.shape != raw.image_shape:
            raise PixelsError(
                f"the {name} that came with the section are {array.shape} pixels, it is {raw.image_shape}",
                cure="give the files that belong together",
            )


# --- Masters --------------------------------------------------------------------------------------


def _subtract_bias_and_dark(work: WorkingImage, masters: Masters) -> None:
    bias, dark, time_s = masters.bias, masters.dark, work.raw.exposure_time_s
    if dark is not None:
        if dark.holds_pedestal:
            bias = None  # it is in the dark already
            if abs(time_s - dark.exposure_time_s) > 0.01 * dark.exposure_time_s:
                raise CalibratorMissingError(
                    f"the dark holds the bias level and was exposed {dark.exposure_time_s:g} s, "
                    f"this frame {time_s:g} s",
                    cure="take bias frames and rebuild the dark, or take darks of this exposure time",
                )
        if time_s > 0 and np.any(dark.data):
            work.steps |= CalibrationStep.DARK
        work.flags |= dark.flags
        for place in work.strips():
            work.data[place] -= dark.data[place] * np.float32(time_s)
    if bias is not None:
        work.steps |= CalibrationStep.BIAS
        work.flags |= bias.flags
        work.data -= bias.data


def _divide(
    work: WorkingImage, kind: Literal["flat", "illumination"], masters: Masters, least: float
) -> None:
    """Divide by a response, in place; where there is hardly any, flag and leave as it is."""
    master = masters.flat if kind == "flat" else masters.illumination
    if master is None:
        return
    for place in work.strips():
        work.flags[place][~(master.data[place] >= least)] |= np.uint16(PixelFlag.BAD_PIXEL)
        divide(work.data[place], master.data[place], least)
    work.flags |= master.flags
    work.steps |= STEPS[kind]
    sample = detector.sampled(master.data)
    if np.any(sample >= least):
        work.saturation_e /= float(np.percentile(sample[sample >= least], 99.9))


def _subtract_fringes(work: WorkingImage, masters: Masters, params: PreprocessParams) -> None:
    """Subtract the pattern times its strength and the sky, if it is surely there.

    What is not significant cannot do harm either: three times its error is far below the noise.
    """
    pattern = masters.fringe
    if pattern is None:
        return
    usable = work.usable() & (pattern.flags == 0)
    boxes = [amplifier.image for amplifier in work.raw.amplifiers]
    fit = fit_fringes(work.data, usable, pattern.data, pattern.variance, boxes, params.fringe_cell_pix)
    work.fringe = fit
    if not params.fringe_min_sigma * fit.error < fit.scale <= params.fringe_scale_max:
        return
    for place in work.strips():
        unknown = ~np.isfinite(pattern.data[place])
        work.flags[place][unknown] |= np.uint16(PixelFlag.BAD_PIXEL)
        work.data[place] -= np.where(unknown, 0, pattern.data[place]) * np.float32(fit.scale * fit.sky_e)
    work.flags |= pattern.flags
    work.steps |= CalibrationStep.FRINGE


def _flag_bad(work: WorkingImage, masters: Masters, params: PreprocessParams) -> None:
    """Flag what the mask says and what is no number; stop if hardly anything is left."""
    if masters.bad_pixels is not None:
        work.flags |= masters.bad_pixels.flags
        if np.any(masters.bad_pixels.flags):
            work.steps |= CalibrationStep.BAD_PIXELS
    given = work.raw.prepared.weight if work.raw.prepared is not None else None
    usable = 0
    for place in work.strips():
        work.flags[place][~np.isfinite(work.data[place])] |= np.uint16(PixelFlag.NO_DATA)
        if given is not None:
            weighed = (given[place] > 0) & (given[place] < np.inf)
            work.flags[place][~weighed] |= np.uint16(PixelFlag.BAD_PIXEL)
        usable += int(np.count_nonzero((work.flags[place] & np.uint16(UNUSABLE)) == 0))
    fraction = usable / work.flags.size
    if fraction < params.min_usable_fraction:
        raise DeadSection(
            f"only {fraction:.1%} of the pixels are usable",
            cure="look at the raw data, at the saturation level and at the masters' flags",
        )


# --- Noise ----------------------------------------------------------------------------------------


def _holds_pedestal(work: WorkingImage, masters: Masters, params: PreprocessParams) -> bool:
    """Tell whether the electronic zero level, which has no photon noise, is still in the data."""
    asked = params.do_overscan or params.do_bias
    taken = masters.dark is not None and masters.dark.holds_pedestal
    taken |= bool(work.steps & (CalibrationStep.OVERSCAN | CalibrationStep.BIAS))
    return asked and not taken and work.raw.prepared is None


# --- Cosmic rays, satellites and asteroids --------------------------------------------------------


def _flag_passers_by(
    work: WorkingImage, skies: list[SkyMesh], variance: Float32, params: PreprocessParams
) -> None:
    """Flag cosmic rays and trails, where that is asked for and not done yet."""
    cosmic_rays = params.do_cosmic_rays and not work.steps & CalibrationStep.COSMIC_RAYS
    streaks = params.do_streaks and not work.steps & CalibrationStep.STREAKS
    if not cosmic_rays and not streaks:
        return
    light = work.data.copy()
    for amplifier, mesh in zip(work.raw.amplifiers, skies, strict=True):
        for place, rows in strips(amplifier.image):
            light[place] -= mesh.level_rows(rows)
    noise = np.nan_to_num(variance, nan=1e-6, posinf=float(np.finfo(np.float32).max))
    np.maximum(noise, np.float32(1e-6), out=noise)
    if cosmic_rays:
        _flag_cosmic_rays(work, light, noise, params)
    if streaks:
        found = find_streaks(
            light,
            noise,
            ~work.usable(),
            min_snr=params.streak_min_snr,
            min_length_fwhm=params.streak_min_length_fwhm,
        )
        work.flags[found.mask] |= np.uint16(PixelFlag.STREAK)
        work.steps |= CalibrationStep.STREAKS


def _flag_cosmic_rays(work: WorkingImage, light: Float32, noise: Float32, params: PreprocessParams) -> None:
    pixels = (light, noise, ~work.usable())
    hits = find_cosmic_rays(
        *pixels,
        n_sigma=params.cosmic_ray_sigma,
        neighbour_sigma=params.cosmic_ray_neighbour_sigma,
        star_fwhm_pix=sharp_star_fwhm(*pixels, params.cosmic_ray_star_fwhm_pix),
        iterations=params.cosmic_ray_iterations,
    )
    work.flags[hits] |= np.uint16(PixelFlag.COSMIC_RAY)
    work.steps |= CalibrationStep.COSMIC_RAYS
