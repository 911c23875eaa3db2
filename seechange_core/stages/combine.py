"""From many calibration frames to one master: bias, dark, flat and bad pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from seechange_core.errors import BadDataError, CalibratorMissingError, DeadSection, PixelsError, UserError
from seechange_core.flags import PixelFlag
from seechange_core.frames import Amplifier, Box, Float, Float32, MasterFrame, Masters, RawFrame
from seechange_core.numerics import detector, stats
from seechange_core.numerics.defects import dark_defects, flat_defects
from seechange_core.numerics.noise import noise_ratios
from seechange_core.params import Params, param

CODE_VERSION = "1"

Int32 = npt.NDArray[np.int32]

KINDS = ("bias", "dark", "flat")


class CombineParams(Params):
    """How calibration frames are made into a master."""

    do_overscan: bool = param(True, "Take off each amplifier's zero level, where it has an overscan.")
    do_bias: bool = param(True, "Subtract the master bias from darks and flats.")
    do_dark: bool = param(True, "Subtract the master dark from flats.")
    missing_calibrator: Literal["fail", "skip"] = param(
        "fail", "What to do when a master that a dark or flat needs does not exist: fail, or go on without."
    )
    n_sigma: float = param(4.0, "Clip values further than this from the stack's median.", unit="sigma", gt=1)
    min_frames: int = param(3, "Fewest good frames a master can be made from.", ge=2)
    level_n_sigma: float = param(
        6.0, "Reject bias and dark frames whose level differs from the others' by more.", unit="sigma", gt=0
    )
    scatter_ratio_max: float = param(
        1.3, "Reject frames noisier than the others by more than this factor.", gt=1
    )
    flat_level_min_e: float = param(5000.0, "Reject flats fainter than this.", unit="e-", gt=0)
    flat_level_max: float = param(0.85, "Reject flats brighter than this fraction of saturation.", gt=0, le=1)
    validity_days: float = param(
        60.0, "A master serves exposures taken up to so many days before or after it.", unit="d", gt=0
    )
    strip_mb: int = param(256, "Memory for one strip of the stack.", unit="MB", ge=1, results=False)


class FrameQuality(NamedTuple):
    """What was measured on one calibration frame before combining.

    Attributes
    ----------
    level_e
        Median over the section, electrons (per second for a dark).
    noise_ratio
        (n_amplifiers,) measured over predicted scatter.
    exposure_time_s
        From the frame.
    reason
        Why it was rejected; empty if it was not.
    """

    level_e: float
    noise_ratio: Float
    exposure_time_s: float
    reason: str


@dataclass(frozen=True, eq=False)
class _Recipe:
    """How one kind of frame is brought to the units of its master, and its noise model."""

    kind: str
    bias: MasterFrame | None
    dark: MasterFrame | None
    overscan: bool
    holds_pedestal: bool

    def scale(self, quality: FrameQuality) -> float:
        """Return what electrons are divided by: 1, the exposure time, or the flat's own level."""
        if self.kind == "bias":
            return 1.0
        return quality.exposure_time_s if self.kind == "dark" else quality.level_e


def combine(kind: str, frames: Sequence[RawFrame], masters: Masters, params: CombineParams) -> MasterFrame:
    """Combine calibration frames of one section into a master.

    Each frame is brought to electrons (bias), electrons per second (dark) or its own median
    (flat, made of electrons so that it does not swallow the amplifiers' gains); values are clipped
    around the stack's median by their known noise and averaged with weights 1 / variance. The noise
    model is scaled by the scatter measured between frames, so the master's variance holds even where the
    header's read noise does not.

    Parameters
    ----------
    kind
        ``bias``, ``dark`` or ``flat``.
    frames
        May load each frame when indexed: two passes are made, in strips of rows.
    masters
        Bias for darks; bias and dark for flats.
    params
        Settings.

    Returns
    -------
    MasterFrame
        NO_DATA flagged where no frame had a value.

    Raises
    ------
    BadDataError
        If fewer than `min_frames` good frames are left, with the reason for each one rejected.
    DeadSection
        If no flat shows any light.
    CalibratorMissingError
        If a master that is needed does not exist and `missing_calibrator` is ``fail``.
    PixelsError
        If a frame does not fit the others or the masters.
    """
    if kind not in KINDS:
        raise UserError(f"cannot combine frames of kind {kind!r}", cure=f"kinds are {', '.join(KINDS)}")
    recipe = _recipe(kind, masters, params, frames)
    quality = judge_frames(kind, frames, masters, params)
    good = [i for i, q in enumerate(quality) if not q.reason]
    if len(good) < params.min_frames:
        _check_light(kind, frames, quality)
        told = "; ".join(f"frame {i}: {q.reason}" for i, q in enumerate(quality) if q.reason)
        raise BadDataError(
            f"{len(good)} good {kind} frames of {len(frames)}, {params.min_frames} are needed"
            + (f" ({told})" if told else ""),
            cure=f"take more {kind} frames, or widen the night's range",
        )
    data, variance, n_used = _stack(recipe, frames, quality, good, params)
    flags = np.where(n_used == 0, np.uint16(PixelFlag.NO_DATA), np.uint16(0)).astype(np.uint16)
    data = np.where(n_used == 0, np.float32(1 if kind == "flat" else 0), data)
    variance = np.where(n_used == 0, np.float32(0), variance)
    if kind == "flat":
        middle = float(np.median(data[n_used > 0]))
        data, variance = data / np.float32(middle), variance / np.float32(middle**2)
    return MasterFrame(
        kind=kind,
        data=data.astype(np.float32, copy=False),
        variance=variance.astype(np.float32, copy=False),
        flags=flags,
        n_frames=len(good),
        exposure_time_s=float(np.mean([quality[i].exposure_time_s for i in good])),
        holds_pedestal=recipe.holds_pedestal,
    )


def judge_frames(
    kind: str, frames: Sequence[RawFrame], masters: Masters, params: CombineParams
) -> list[FrameQuality]:
    """Measure level and noise of each frame on a subset of rows, and say which to reject and why.

    Noise is measured on differences of frames, where all fixed patterns cancel.

    Parameters
    ----------
    kind, frames, masters, params
        As for `combine`.

    Returns
    -------
    list of FrameQuality
        One per frame.
    """
    if not frames:
        return []
    recipe = _recipe(kind, masters, params, frames)
    samples = [_sample(recipe, frame) for frame in frames]
    times = [frame.exposure_time_s for frame in frames]
    levels = np.array([float(np.nanmedian(np.concatenate([a.ravel() for a in s.pixels]))) for s in samples])
    ratios = noise_ratios(
        [sample.pixels for sample in samples],
        np.array([sample.floors for sample in samples]),
        levels if kind == "flat" else np.ones(len(samples)),
        photon_noise=kind == "flat" or (kind == "dark" and not recipe.holds_pedestal),
    )
    reasons = [""] * len(frames)
    for i, sample in enumerate(samples):
        if kind == "flat":
            reasons[i] = _flat_reason(sample, levels[i], params)
        elif kind == "dark" and times[i] <= 0:
            reasons[i] = "its exposure time is 0 s"
    read_noise = float(np.sqrt(np.mean(samples[0].floors)))
    if kind == "dark":
        levels = levels / np.where(np.array(times) > 0, times, np.nan)
        read_noise /= max(float(np.median(times)), 1e-6)
    if kind != "flat":
        _reject_levels(reasons, levels, read_noise, params)
    _reject_noisy(reasons, ratios, params)
    return [FrameQuality(*row) for row in zip(levels.tolist(), ratios, times, reasons, strict=True)]


def _recipe(kind: str, masters: Masters, params: CombineParams, frames: Sequence[RawFrame]) -> _Recipe:
    needed = {"bias": (), "dark": ("bias",), "flat": ("bias", "dark")}[kind]
    chosen: dict[str, MasterFrame | None] = {"bias": None, "dark": None}
    for name in needed:
        if not getattr(params, f"do_{name}"):
            continue
        chosen[name] = getattr(masters, name)
        if chosen[name] is None and params.missing_calibrator == "fail":
            raise CalibratorMissingError(
                f"no master {name} for combining {kind} frames",
                cure=f"build it first, set do_{name} to false, or set missing_calibrator to skip",
            )
    dark = chosen["dark"]
    if dark is not None and dark.holds_pedestal:
        chosen["bias"] = None
    has_overscan = params.do_overscan and bool(frames) and any(a.overscan for a in frames[0].amplifiers)
    holds = kind == "dark" and chosen["bias"] is None and not has_overscan
    times = [frame.exposure_time_s for frame in frames]
    if holds and times and max(times) > 1.01 * min(times):
        raise CalibratorMissingError(
            f"darks of {min(times):g} to {max(times):g} s cannot be combined while they hold the bias level",
            cure="build a master bias first, or combine darks of one exposure time",
        )
    return _Recipe(kind, chosen["bias"], dark, params.do_overscan, holds)


@dataclass(frozen=True, eq=False)
class _Sample:
    """Some rows of a frame: electrons and noise model per amplifier."""

    pixels: list[Float32]
    floors: list[float]
    saturated_fraction: float
    saturation_e: float


def _sample(recipe: _Recipe, frame: RawFrame) -> _Sample:
    detector.check_raw(frame)
    pixels, floors, full, levels = [], [], [], []
    for amplifier in frame.amplifiers:
        step = max(1, amplifier.raw.shape[0] * amplifier.raw.shape[1] // 100_000)
        values, floor = _calibrated(recipe, frame, amplifier, slice(None, None, step))
        pixels.append(values)
        floors.append(floor)
        level = detector.saturation_level_adu(frame, amplifier)
        full.append(float(np.mean(frame.data[amplifier.raw.slices][::step] >= level)))
        levels.append(level * amplifier.gain)
    return _Sample(pixels, floors, float(np.mean(full)), min(levels))


def _calibrated(recipe: _Recipe, frame: RawFrame, amplifier: Amplifier, rows: slice) -> tuple[Float32, float]:
    """Return some rows of an amplifier in electrons, masters subtracted, and their noise floor (e-^2)."""
    pedestal = detector.overscan_pedestal(frame, amplifier) if recipe.overscan else None
    values = detector.electrons(frame, amplifier, pedestal, rows)
    floor = amplifier.read_noise_e**2 + (pedestal.variance_adu * amplifier.gain**2 if pedestal else 0.0)
    for master, factor in ((recipe.bias, 1.0), (recipe.dark, frame.exposure_time_s)):
        if master is None:
            continue
        if master.data.shape != frame.image_shape:
            raise PixelsError(
                f"the master {master.kind} is {master.data.shape} pixels, the frame {frame.image_shape}",
                cure=f"rebuild the {master.kind} from frames of this camera and readout mode",
            )
        values = values - master.data[amplifier.image.slices][rows] * np.float32(factor)
        # The master's own noise is common to all frames: it is added after averaging, not here.
    return values, max(floor, 1e-6)


def _check_light(kind: str, frames: Sequence[RawFrame], quality: list[FrameQuality]) -> None:
    """Stop where a section sees no light at all: then flats are not too faint, but impossible."""
    if kind != "flat" or not frames:
        return
    brightest = max(q.level_e for q in quality)
    if brightest < 5 * max(amplifier.read_noise_e for amplifier in frames[0].amplifiers):
        raise DeadSection(
            f"none of its {len(frames)} flats shows any light (at most {brightest:.1f} e-)",
            cure="the section is dead; nothing to do",
        )


def _flat_reason(sample: _Sample, level_e: float, params: CombineParams) -> str:
    if not level_e >= params.flat_level_min_e:
        return f"too faint: {level_e:.0f} e-, {params.flat_level_min_e:.0f} are needed"
    if level_e > params.flat_level_max * sample.saturation_e or sample.saturated_fraction > 0.01:
        return f"too bright: {level_e:.0f} e- of {sample.saturation_e:.0f}"
    return ""


def _reject_levels(reasons: list[str], levels: Float, read_noise: float, params: CombineParams) -> None:
    """Reject frames of outlying level; differences below the read noise are never a reason."""
    centre = float(np.nanmedian(levels))
    tolerance = max(params.level_n_sigma * stats.mad_sigma(levels), read_noise)
    for i, level in enumerate(levels):
        if not reasons[i] and not abs(level - centre) <= tolerance:
            reasons[i] = (
                f"level {level:.3g}, the others {centre:.3g} +- {tolerance:.2g} (e-, or e-/s for a dark)"
            )


def _reject_noisy(reasons: list[str], ratios: Float, params: CombineParams) -> None:
    usual = np.median(ratios, axis=0)
    for i, ratio in enumerate(ratios):
        worst = float(np.max(ratio / np.maximum(usual, 1e-6)))
        if not reasons[i] and not worst <= params.scatter_ratio_max:
            reasons[i] = f"{worst:.2f} times noisier than the others"


def _stack(
    recipe: _Recipe,
    frames: Sequence[RawFrame],
    quality: list[FrameQuality],
    good: list[int],
    params: CombineParams,
) -> tuple[Float32, Float32, Int32]:
    """Average the good frames, amplifier by amplifier and strip by strip."""
    first = frames[good[0]]
    data = np.full(first.image_shape, np.nan, dtype=np.float32)
    variance = np.zeros(first.image_shape, dtype=np.float32)
    n_used = np.zeros(first.image_shape, dtype=np.int32)
    for index, amplifier in enumerate(first.amplifiers):
        height, width = amplifier.raw.shape
        rows_at_once = max(1, int(params.strip_mb * 2**20 / (4 * width * len(good))))
        for start in range(0, height, rows_at_once):
            rows = slice(start, min(start + rows_at_once, height))
            box = amplifier.image
            place = Box(box.y0 + rows.start, box.y0 + rows.stop, box.x0, box.x1).slices
            data[place], variance[place], n_used[place] = _strip(
                recipe, frames, quality, good, index, rows, params.n_sigma
            )
            variance[place] += _masters_variance(recipe, [quality[i] for i in good], place)
    return data, variance, n_used


def _strip(
    recipe: _Recipe,
    frames: Sequence[RawFrame],
    quality: list[FrameQuality],
    good: list[int],
    index: int,
    rows: slice,
    n_sigma: float,
) -> tuple[Float32, Float32, Int32]:
    planes, floor, slope = [], [], []
    for i in good:
        frame = frames[i]
        amplifier = frame.amplifiers[index]
        values, floor_e = _calibrated(recipe, frame, amplifier, rows)
        full = frame.data[amplifier.raw.slices][rows] >= detector.saturation_level_adu(frame, amplifier)
        scale = recipe.scale(quality[i])
        planes.append(np.where(full, np.float32(np.nan), values / np.float32(scale)))
        excess = quality[i].noise_ratio[index] ** 2
        floor.append(excess * floor_e / scale**2)
        slope.append(0.0 if recipe.kind == "bias" or recipe.holds_pedestal else excess / scale)
    return stats.clipped_stack_mean(np.stack(planes), np.array(floor), np.array(slope), n_sigma)


def _masters_variance(recipe: _Recipe, quality: list[FrameQuality], place: tuple[slice, slice]) -> Float32:
    """Return the variance that the subtracted masters, common to all frames, leave in the mean."""
    scales = np.array([recipe.scale(q) for q in quality])
    times = np.array([q.exposure_time_s for q in quality])
    total = np.zeros((1, 1), dtype=np.float32)
    if recipe.bias is not None:
        total = total + recipe.bias.variance[place] * np.float32(np.mean(1 / scales) ** 2)
    if recipe.dark is not None:
        total = total + recipe.dark.variance[place] * np.float32(np.mean(times / scales) ** 2)
    return total


class BadPixelParams(Params):
    """What makes a pixel bad."""

    hot_e_per_s: float = param(
        1.0, "A pixel is hot when its dark current exceeds its surroundings' by this ...", unit="e-/s", gt=0
    )
    hot_n_sigma: float = param(8.0, "... and by this many standard deviations.", unit="sigma", gt=0)
    response_min: float = param(
        0.6, "A pixel is dead below this response relative to its surroundings.", gt=0
    )
    response_max: float = param(1.5, "A pixel is bad above this response relative to its surroundings.", gt=1)
    column_n_sigma: float = param(
        7.0, "A stretch of a column is bad when its median is off by more than this ...", unit="sigma", gt=0
    )
    column_response: float = param(0.05, "... and its response by more than this fraction.", gt=0, lt=1)
    column_rows: int = param(128, "Length of the stretches that columns are judged by.", unit="pix", ge=8)
    column_fraction: float = param(
        0.3, "A stretch with more bad pixels than this fraction is bad as a whole.", gt=0, le=1
    )


def find_bad_pixels(
    dark: MasterFrame | None, flat: MasterFrame | None, params: BadPixelParams
) -> MasterFrame:
    """Find hot pixels in a dark, dead and deviant ones in a flat, and bad columns in both.

    Everything is judged against the pixel's surroundings, so vignetting and glow do no harm.

    Parameters
    ----------
    dark, flat
        Master frames of one section; at least one.
    params
        Settings.

    Returns
    -------
    MasterFrame
        Of kind ``bad_pixels``: BAD_PIXEL in `flags`, data and variance 0.

    Raises
    ------
    CalibratorMissingError
        If there is neither.
    """
    masters = [m for m in (dark, flat) if m is not None]
    if not masters:
        raise CalibratorMissingError(
            "neither a dark nor a flat to find bad pixels in", cure="build a master dark or flat first"
        )
    bad = np.zeros(masters[0].data.shape, dtype=np.bool_)
    stretch = (params.column_rows, params.column_fraction, params.column_n_sigma)
    if dark is not None:
        sigma = np.sqrt(dark.variance)
        bad |= dark_defects(dark.data, sigma, params.hot_e_per_s, params.hot_n_sigma, stretch)
    if flat is not None:
        bad |= flat_defects(
            flat.data, (params.response_min, params.response_max), params.column_response, stretch
        )
    for master in masters:
        bad |= master.flags != 0
    blank = np.zeros(bad.shape, dtype=np.float32)
    flags = np.where(bad, np.uint16(PixelFlag.BAD_PIXEL), np.uint16(0)).astype(np.uint16)
    return MasterFrame("bad_pixels", blank, blank.copy(), flags, min(m.n_frames for m in masters))
