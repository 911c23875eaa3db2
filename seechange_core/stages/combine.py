"""From many calibration frames to one master: bias, dark, dome and twilight flat."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seechange_core.errors import BadDataError, DeadSection
from seechange_core.flags import PixelFlag
from seechange_core.frames import Amplifier, Box, Float, Float32, MasterFrame, Masters, RawFrame
from seechange_core.numerics import detector
from seechange_core.numerics.clipping import clipped_stack_mean, drop_sources, stack_median
from seechange_core.stages.bad_pixels import BadPixelParams, find_bad_pixels
from seechange_core.stages.frame_look import LIT, Look
from seechange_core.stages.frame_quality import Examined, FrameQuality, examine, judge_frames
from seechange_core.stages.master_recipe import CombineParams, Recipe, check_kind

CODE_VERSION = "2"

__all__ = [
    "CODE_VERSION",
    "BadPixelParams",
    "CombineParams",
    "Combined",
    "FrameQuality",
    "combine",
    "find_bad_pixels",
    "judge_frames",
]

Int32 = npt.NDArray[np.int32]

#: Noise ratios nearer to the usual one than this are the same: what is left is the error of measuring them.
_SAME_NOISE = 0.1


class Combined(NamedTuple):
    """A master frame and what was judged on the way.

    Attributes
    ----------
    frame
        The master.
    quality
        One for each frame given, in their order; `reason` is empty for those that went in.
    """

    frame: MasterFrame
    quality: list[FrameQuality]


def combine(kind: str, frames: Sequence[RawFrame], masters: Masters, params: CombineParams) -> Combined:
    """Combine calibration frames of one section into a master.

    Each frame is read out as science frames are (overscan, crosstalk, linearity, gain) and brought to
    electrons (bias), electrons per second (dark) or its own median (flats: in electrons of all amplifiers
    together, so that they do not swallow the ratio of the gains); values are clipped around the stack's
    median by their known noise and averaged with weights 1 / variance. Of twilight flats, stars are
    dropped with their wings, and how the light of each leans relative to the others' is taken out. The
    noise model is scaled by the scatter measured between frames, so the master's variance holds even
    where the header's read noise does not.

    Parameters
    ----------
    kind
        ``bias``, ``dark``, ``flat`` or ``twilight_flat``.
    frames
        May load each frame when indexed: several passes are made, in strips of rows.
    masters
        Bias for darks; bias and dark for flats; crosstalk and linearity where the parameters ask for them.
    params
        Settings.

    Returns
    -------
    Combined
        The master (NO_DATA flagged where no frame had a value), and the quality of each frame.

    Raises
    ------
    BadDataError
        If fewer than `min_frames` good frames are left, with the reason for each one rejected.
    DeadSection
        If no flat shows any light, or all amplifiers are defective.
    CalibratorMissingError
        If a calibrator that is needed does not exist and `missing_calibrator` is ``fail``.
    PixelsError
        If the masters do not fit the frames.
    """
    check_kind(kind)
    examined = examine(kind, frames, masters, params)
    recipe, looks, quality = examined.recipe, examined.looks, examined.quality
    good = [i for i, look in enumerate(looks) if not look.reason]
    if len(good) < params.min_frames:
        _check_light(examined)
        raise BadDataError(
            f"{len(good)} good {kind} frames of {len(frames)}, {params.min_frames} are needed"
            + _told(quality),
            cure=f"take more {kind} frames, or widen the night's range",
        )
    data, variance, n_used = _stack(examined, frames, good, params)
    empty = n_used == 0
    data[empty], variance[empty] = 1 if recipe.is_flat else 0, 0
    if recipe.is_flat:
        middle = np.median(data[~empty], overwrite_input=True)
        data /= middle
        variance /= middle**2
        data[empty] = 1
    flags = np.where(empty, np.uint16(PixelFlag.NO_DATA), np.uint16(0)).astype(np.uint16)
    for master in (recipe.bias, recipe.dark):
        if master is not None:
            flags |= master.flags
    frame = MasterFrame(
        kind=kind,
        data=data,
        variance=variance,
        flags=flags,
        n_frames=len(good),
        exposure_time_s=float(np.mean([looks[i].time_s for i in good])),
        holds_pedestal=recipe.holds_pedestal,
        calibration_steps=int(Masters(recipe.crosstalk, recipe.linearity).laws_applied),
    )
    return Combined(frame, quality)


def _told(quality: list[FrameQuality]) -> str:
    """List the reasons, the same one only once."""
    frames: dict[str, list[str]] = {}
    for i, q in enumerate(quality):
        if q.reason:
            frames.setdefault(q.reason, []).append(str(i))
    told = "; ".join(f"frame {', '.join(which)}: {reason}" for reason, which in frames.items())
    return f" ({told})" if told else ""


def _check_light(examined: Examined) -> None:
    """Stop where a section sees no light at all: then flats are not too faint, but impossible."""
    levels = [look.level for look in examined.looks if np.isfinite(look.level)]
    if not examined.recipe.is_flat or not levels:
        return
    if max(levels) < 5 * max(amplifier.read_noise_e for _, amplifier in examined.amplifiers):
        raise DeadSection(
            f"none of its {len(examined.looks)} flats shows any light (at most {max(levels):.1f} e-)",
            cure="the section is dead; nothing to do",
        )


def _stack(
    examined: Examined, frames: Sequence[RawFrame], good: list[int], params: CombineParams
) -> tuple[Float32, Float32, Int32]:
    """Average the good frames, amplifier by amplifier and strip by strip."""
    recipe, looks = examined.recipe, [examined.looks[i] for i in good]
    data = np.zeros(examined.shape, dtype=np.float32)
    variance = np.zeros(examined.shape, dtype=np.float32)
    n_used = np.zeros(examined.shape, dtype=np.int32)
    excess = _excess_noise(looks)
    for k, (number, amplifier) in enumerate(examined.amplifiers):
        if recipe.is_flat and np.median([look.levels[k] / look.level for look in looks]) < LIT:
            continue
        noise = _noise_model(recipe, looks, k, excess[:, k])
        height, width = amplifier.raw.shape
        # A star at the edge of a strip is seen by its neighbour too.
        margin = 2 * (params.source_patch_pix // 2) if recipe.kind == "twilight_flat" else 0
        at_once = max(1, int(params.strip_mb * 2**20 / (4 * width * len(good))) - 2 * margin)
        for start in range(0, height, at_once):
            stop = min(start + at_once, height)
            wide = slice(max(0, start - margin), min(stop + margin, height))
            stack = _strip(examined, frames, good, number, wide)
            if margin:
                drop_sources(stack, *noise, params.n_sigma, params.source_patch_pix // 2)
                stack = stack[:, start - wide.start : stop - wide.start]
            _drop_nonlinear(stack, examined, looks, k, slice(start, stop))
            box = amplifier.image
            place = Box(box.y0 + start, box.y0 + stop, box.x0, box.x1).slices
            data[place], variance[place], n_used[place] = clipped_stack_mean(
                np.ascontiguousarray(stack), *noise, params.n_sigma
            )
            variance[place] += _masters_variance(recipe, looks, noise, place)
    return data, variance, n_used


def _scale(recipe: Recipe, look: Look) -> float:
    """Return what electrons are divided by: 1, the exposure time, or the flat's own level."""
    if recipe.is_flat:
        return look.level
    return look.time_s if recipe.kind == "dark" else 1.0


def _excess_noise(looks: list[Look]) -> Float:
    """Return measured over predicted variance, (n, n_amplifiers); one common value where frames agree."""
    ratio = np.array([look.noise_ratio for look in looks])
    same = np.abs(ratio / np.median(ratio, axis=0) - 1) < _SAME_NOISE
    common = np.sum(np.where(same, ratio**2, 0), axis=0) / np.maximum(same.sum(axis=0), 1)
    return np.where(same, common, ratio**2)


def _noise_model(recipe: Recipe, looks: list[Look], k: int, excess: Float) -> tuple[Float, Float]:
    """Return the variance of each frame without light, and its rise per unit of the master's signal."""
    scales = np.array([_scale(recipe, look) for look in looks])
    floor = excess * np.array([look.floors[k] for look in looks]) / scales**2
    slope = np.zeros(len(looks)) if recipe.kind == "bias" or recipe.holds_pedestal else excess / scales
    return floor, slope


def _strip(
    examined: Examined, frames: Sequence[RawFrame], good: list[int], number: int, rows: slice
) -> Float32:
    """Return some rows of an amplifier of all frames in the master's units; saturated pixels are NaN.

    Only those: noise that carries a good pixel's values above the linear limit must not be cut off there.
    """
    recipe = examined.recipe
    stack: Float32 | None = None
    for k, i in enumerate(good):
        frame, look = frames[i], examined.looks[i]
        amplifier = frame.amplifiers[number]
        values = recipe.electrons(frame, amplifier, look.pedestals, rows)
        limit = detector.saturation_level_adu(frame, amplifier)
        raw = frame.data[amplifier.raw.slices][rows]
        if np.isfinite(limit):
            # Compared in the camera's own type: whole numbers are not made floats for it.
            values[raw >= (int(np.ceil(limit)) if raw.dtype.kind in "ui" else limit)] = np.nan
        values *= np.float32(1 / _scale(recipe, look))
        if look.plane != (0.0, 0.0):
            values /= _plane(look.plane, amplifier, rows, examined.shape)
        if stack is None:
            stack = np.empty((len(good), *values.shape), dtype=np.float32)
        stack[k] = values
    assert stack is not None
    return stack


def _drop_nonlinear(stack: Float32, examined: Examined, looks: list[Look], k: int, rows: slice) -> None:
    """Set to NaN, in place, values of pixels whose expected level is beyond an amplifier's linear range.

    What is expected of a pixel is the stack's median times the frame's level. The values themselves have no
    say: without those that noise has put above a limit, the mean of the others would be too low.
    """
    recipe, amplifier = examined.recipe, examined.amplifiers[k][1]
    suspect = np.zeros(stack.shape[1:], dtype=np.bool_)
    for values, look in zip(stack, looks, strict=True):
        if np.isfinite(look.linear_e[k]):
            # Generous: what noise has put below the limit, or a light that leans, is looked at too.
            least = (look.linear_e[k] - 3 * look.linear_sigma_e[k]) / (
                1 + abs(look.plane[0]) + abs(look.plane[1])
            )
            suspect |= values > least / _scale(recipe, look)
    if not suspect.any():
        return
    usual = stack_median(np.ascontiguousarray(stack[:, suspect])[:, None])[0]
    for values, look in zip(stack, looks, strict=True):
        expected = usual * np.float32(_scale(recipe, look))
        if look.plane != (0.0, 0.0):
            expected *= _plane(look.plane, amplifier, rows, examined.shape)[suspect]
        values[suspect] = np.where(expected > look.beyond_e[k], np.nan, values[suspect])


def _plane(slopes: tuple[float, float], amplifier: Amplifier, rows: slice, shape: tuple[int, int]) -> Float32:
    """Return how the light of a frame leans, relative to that of the others."""
    box = amplifier.image
    u = 2 * (np.arange(box.x0, box.x1) + 0.5) / shape[1] - 1
    v = 2 * (np.arange(box.y0, box.y1)[rows] + 0.5) / shape[0] - 1
    return np.asarray((1 + slopes[1] * v)[:, None] + slopes[0] * u, dtype=np.float32)


def _masters_variance(
    recipe: Recipe, looks: list[Look], noise: tuple[Float, Float], place: tuple[slice, slice]
) -> Float32:
    """Return the variance that the subtracted masters, common to all frames, leave in the mean."""
    scales = np.array([_scale(recipe, look) for look in looks])
    times = np.array([look.time_s for look in looks])
    weights = 1 / (noise[0] + noise[1]) if recipe.is_flat else 1 / noise[0]
    weights /= weights.sum()
    total = np.zeros((1, 1), dtype=np.float32)
    if recipe.bias is not None:
        total = total + recipe.bias.variance[place] * np.float32(np.sum(weights / scales) ** 2)
    if recipe.dark is not None:
        total = total + recipe.dark.variance[place] * np.float32(np.sum(weights * times / scales) ** 2)
    return total
