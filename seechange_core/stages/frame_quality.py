"""Which calibration frames are fit to go into a master, and the measured reason why others are not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seechange_core.errors import BadDataError, DeadSection
from seechange_core.frames import Amplifier, Float, Masters, RawFrame
from seechange_core.numerics.frame_pattern import BLOCKS, Departure, departures, fit_plane
from seechange_core.numerics.noise import noise_ratios
from seechange_core.stages.frame_look import (
    LIT,
    LOOKED_AT,
    Look,
    common_layout,
    light_reason,
    look_at,
    time_reason,
)
from seechange_core.stages.master_recipe import CombineParams, Recipe, check_kind, make_recipe

#: Pixels kept, of all frames and each amplifier together, to measure the noise on differences.
_KEPT_OF_ALL, _KEPT_LEAST = 400_000, 2_048
#: Levels above an overscan agree to half an electron and a tenth of an ADU, whatever their noise.
_LEVEL_LEAST_E, _LEVEL_LEAST_ADU = 0.5, 0.1
#: Without an overscan the zero level is in them, which wanders by so much in a night.
_WANDER_ADU = 2.0
#: Standard errors of a level that are never a reason.
_LEVEL_ERRORS = 5.0
#: A pattern of so much of the read noise is lost in it, however quiet the frames' patterns are.
_PATTERN_LEAST = 0.2
#: Share of a twilight flat's blocks that bright stars may lighten.
_STARRY = 0.125


class FrameQuality(NamedTuple):
    """What was measured on one calibration frame before combining.

    Attributes
    ----------
    level_e
        Median over the section, electrons (per second for a dark); NaN if it was not measured.
    noise_ratio
        (n_amplifiers,) measured over predicted scatter; NaN where not measured.
    exposure_time_s
        From the frame; NaN if it cannot be read.
    reason
        Why it was rejected, with the values seen; empty if it was not.
    """

    level_e: float
    noise_ratio: Float
    exposure_time_s: float
    reason: str


@dataclass(frozen=True, eq=False)
class Examined:
    """All frames looked at and judged.

    Attributes
    ----------
    recipe
        What was done to them.
    amplifiers
        Those of the frames that fit together, defective ones left out, with their number in the frame.
    shape
        Of the trimmed image.
    looks
        One per frame.
    """

    recipe: Recipe
    amplifiers: list[tuple[int, Amplifier]]
    shape: tuple[int, int]
    looks: list[Look]

    @property
    def quality(self) -> list[FrameQuality]:
        """What the chain records of each frame."""
        return [FrameQuality(k.level, self._of_all(k.noise_ratio), k.time_s, k.reason) for k in self.looks]

    def _of_all(self, ratio: Float) -> Float:
        number = 1 + max((i for i, _ in self.amplifiers), default=-1)
        result = np.full(number, np.nan)
        if ratio.size:
            result[[i for i, _ in self.amplifiers]] = ratio
        return result


def judge_frames(
    kind: str, frames: Sequence[RawFrame], masters: Masters, params: CombineParams
) -> list[FrameQuality]:
    """Measure level, pattern and noise of each frame on some of its rows, and say which to reject and why.

    Noise is measured on differences of frames, where all fixed patterns cancel. Frames are compared with
    medians over all of them, so up to 40 % may be bad in whatever way.

    Parameters
    ----------
    kind, frames, masters, params
        As for `combine`.

    Returns
    -------
    list of FrameQuality
        One per frame.
    """
    return examine(kind, frames, masters, params).quality if frames else []


def examine(kind: str, frames: Sequence[RawFrame], masters: Masters, params: CombineParams) -> Examined:
    """Look at all frames and judge them; as `judge_frames`, with what combining needs beside.

    Raises
    ------
    DeadSection
        If all amplifiers are defective.
    CalibratorMissingError
        If a master that is needed does not exist.
    PixelsError
        If a master's shape is not the frames'.
    """
    check_kind(kind)
    looks = [Look() for _ in frames]
    amplifiers, shape = common_layout(frames, looks)
    times = [k.time_s for k in looks if not k.reason]
    recipe = make_recipe(kind, amplifiers, times, masters, params)
    alive = [(i, a) for i, a in enumerate(amplifiers) if not a.defective]
    if not times:
        return Examined(recipe, alive, shape, looks)
    if not alive:
        raise DeadSection("all its amplifiers are defective", cure="the section is dead; nothing to do")
    recipe.check_shape(shape)
    kept = int(np.clip(_KEPT_OF_ALL // len(times), _KEPT_LEAST, LOOKED_AT))
    for i, look in enumerate(looks):
        look.reason = look.reason or time_reason(look.time_s, recipe)
        if not look.reason:
            try:
                look_at(look, frames[i], recipe, [number for number, _ in alive], kept)
            except BadDataError as error:
                look.reason = f"cannot be used: {error}"
                continue
            look.reason = light_reason(look, frames[i], recipe, alive, params)
    _compare(looks, recipe, alive, shape, params)
    for look in looks:
        look.sample = []
    return Examined(recipe, alive, shape, looks)


def _compare(
    looks: list[Look],
    recipe: Recipe,
    alive: list[tuple[int, Amplifier]],
    shape: tuple[int, int],
    params: CombineParams,
) -> None:
    """Reject frames of outlying level, pattern and noise, in this order."""
    boxes = [amplifier for _, amplifier in alive]
    if not recipe.is_flat:
        _reject_levels(good := _good(looks), _units(good, recipe), recipe, boxes, params)
    if recipe.kind == "twilight_flat":
        _reject_gradients(_good(looks), boxes, shape, params)
    _reject_patterns(_good(looks), recipe, boxes, shape, params)
    if not recipe.is_flat:
        # Small differences come last: what leaks in changes the level too, and where it does tells more.
        _reject_levels(good := _good(looks), _level_allowance(good, recipe, boxes), recipe, boxes, params)
    _reject_noisy(_good(looks), recipe, boxes, params)
    good = _good(looks)
    if good:
        # Only differences are taken out: what all have in common is what the master shows.
        a, b = np.mean([k.plane for k in good], axis=0)
        for k in good:
            k.plane = (k.plane[0] - float(a), k.plane[1] - float(b))


def _good(looks: list[Look]) -> list[Look]:
    return [k for k in looks if not k.reason]


def _units(good: list[Look], recipe: Recipe) -> Float:
    """Return the read noise of each frame's amplifiers in the units of levels, (n, n_amplifiers)."""
    per = [k.time_s if recipe.kind == "dark" else 1.0 for k in good]
    return np.asarray(np.sqrt([k.floors for k in good]) / np.array(per)[:, None], dtype=np.float64)


def _level_allowance(good: list[Look], recipe: Recipe, amplifiers: list[Amplifier]) -> Float:
    """Return differences of level that are no reason to reject a frame, (n, n_amplifiers), units of levels.

    They are far below the read noise: a level is the mean of some ten thousand pixels. Zero levels that
    wander by more than this in a night without an overscan show in the frames' own scatter as long as they
    do so gradually; of two groups of frames further apart the smaller one is rejected.
    """
    allowed = _LEVEL_ERRORS * np.array([k.errors for k in good])
    for look, row in zip(good, allowed, strict=True):
        per = look.time_s if recipe.kind == "dark" else 1.0
        for k, amplifier in enumerate(amplifiers):
            if amplifier.name in look.pedestals:
                least_e = max(_LEVEL_LEAST_E, _LEVEL_LEAST_ADU * amplifier.gain)
            else:
                least_e = _WANDER_ADU * amplifier.gain
            row[k] += least_e / per
    return allowed


def _reject_levels(
    good: list[Look], allowed: Float, recipe: Recipe, amplifiers: list[Amplifier], params: CombineParams
) -> None:
    """Reject frames of outlying level; differences of what is `allowed`, (n, m), are never a reason."""
    if len(good) < 2:
        return
    levels = np.array([k.levels for k in good])
    found = departures(levels, allowed, params.level_n_sigma, 1.0, pooled=False)
    unit = "e-/s" if recipe.kind == "dark" else "e-"
    for i, look in enumerate(good):
        if found.is_out(i):
            a = found.worst(i)
            look.reason = (
                f"level of amplifier {amplifiers[a].name} {levels[i, a]:.4g} {unit}, the others' "
                f"{found.centre[a]:.4g} +- {found.tolerance[i, a]:.2g}"
            )


def _block_centres(amplifiers: list[Amplifier]) -> tuple[Float, Float]:
    """Return x and y of the blocks of all amplifiers, (n_amplifiers * n_blocks,) in image pixels."""
    x, y = [], []
    for amplifier in amplifiers:
        box, (ny, nx) = amplifier.image, BLOCKS
        along_y = box.y0 + (np.arange(ny) + 0.5) * (box.y1 - box.y0) / ny
        along_x = box.x0 + (np.arange(nx) + 0.5) * (box.x1 - box.x0) / nx
        x.append(np.tile(along_x, ny))
        y.append(np.repeat(along_y, nx))
    return np.concatenate(x), np.concatenate(y)


def _relative_blocks(good: list[Look]) -> Float:
    """Return the blocks of flats relative to the frame's level, (n, m)."""
    relative: Float = np.array([k.blocks.ravel() for k in good])
    relative /= np.array([[k.level] for k in good])
    return relative


def _reject_gradients(
    good: list[Look], amplifiers: list[Amplifier], shape: tuple[int, int], params: CombineParams
) -> None:
    """Measure how each frame's light leans relative to the others', and reject what leans too much."""
    if len(good) < 2:
        return
    x, y = _block_centres(amplifiers)
    u, v = 2 * x / shape[1] - 1, 2 * y / shape[0] - 1
    blocks = _relative_blocks(good)
    centre = np.median(blocks, axis=0)
    lit = centre > LIT
    for i, look in enumerate(good):
        look.plane = fit_plane(u[lit], v[lit], blocks[i, lit] / centre[lit])
        across = 2 * float(np.hypot(*look.plane))
        if across > params.twilight_gradient_max:
            look.reason = (
                f"its light changes by {across:.1%} from edge to edge relative to the others', "
                f"{params.twilight_gradient_max:.1%} allowed"
            )


def _reject_patterns(
    good: list[Look],
    recipe: Recipe,
    amplifiers: list[Amplifier],
    shape: tuple[int, int],
    params: CombineParams,
) -> None:
    """Reject frames whose blocks of pixels stand out: light leaks, jumps within an amplifier, clouds."""
    if len(good) < 3:
        return
    x, y = _block_centres(amplifiers)
    if recipe.is_flat:
        u, v = 2 * x / shape[1] - 1, 2 * y / shape[0] - 1
        planes = np.array([1 + k.plane[0] * u + k.plane[1] * v for k in good])
        values = _relative_blocks(good) / planes
        units, least = np.ones(values.shape), params.flat_pattern_min
    else:
        middle = [k.blocks.mean(axis=(1, 2), keepdims=True) for k in good]
        values = np.array([(k.blocks - m).ravel() for k, m in zip(good, middle, strict=True)])
        units, least = np.repeat(_units(good, recipe), BLOCKS[0] * BLOCKS[1], axis=1), _PATTERN_LEAST
    found = departures(values, units, params.level_n_sigma, least, pooled=True)
    # A bright star spoils a few blocks of one twilight flat, where it is dropped; a cloud spoils many.
    share = _STARRY if recipe.kind == "twilight_flat" else 0.0
    for i, look in enumerate(good):
        if found.is_out(i, share):
            b = found.worst(i)
            look.reason = _pattern_reason(found, i, b, recipe, f"around x {x[b]:.0f}, y {y[b]:.0f}")


def _pattern_reason(found: Departure, i: int, b: int, recipe: Recipe, where: str) -> str:
    off, allowed = found.deviation[i, b], found.tolerance[i, b]
    side = "brighter" if off > 0 else "fainter"
    if recipe.is_flat:
        return f"{abs(off):.2%} {side} {where} than the others, {allowed:.2%} allowed"
    unit = "e-/s" if recipe.kind == "dark" else "e-"
    return f"{abs(off):.3g} {unit} {side} {where} than the others, {allowed:.2g} allowed"


def _reject_noisy(
    good: list[Look], recipe: Recipe, amplifiers: list[Amplifier], params: CombineParams
) -> None:
    """Measure the noise of frames, and reject the noisier and (electronics that freeze) the quieter ones."""
    if not good:
        return
    samples = [
        [
            (s / (1 + look.plane[0] * u + look.plane[1] * v[:, None])).astype(np.float32)
            if recipe.kind == "twilight_flat" else s
            for s, (u, v) in zip(look.sample, look.sample_at, strict=True)
        ]
        for look in good
    ]  # fmt: skip
    levels = np.array([k.level for k in good]) if recipe.is_flat else np.ones(len(good))
    ratios = noise_ratios(
        samples,
        np.array([k.floors for k in good]),
        levels,
        photon_noise=recipe.is_flat or (recipe.kind == "dark" and not recipe.holds_pedestal),
    )
    usual = np.maximum(np.median(ratios, axis=0), 1e-6)
    for look, ratio in zip(good, ratios, strict=True):
        look.noise_ratio = ratio
        relative = ratio / usual
        a = int(np.argmax(np.abs(np.log(np.maximum(relative, 1e-3)))))
        name = f"amplifier {amplifiers[a].name}"
        limit = params.scatter_ratio_max
        if relative[a] > limit:
            look.reason = f"{name} is {relative[a]:.2f} times noisier than the others', {limit:g} allowed"
        elif relative[a] < 1 / limit:
            look.reason = f"{name} has {relative[a]:.2f} times the others' noise, {1 / limit:.2g} at least"
