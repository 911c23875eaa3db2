"""What a look at one calibration frame shows: its layout, level, coarse pattern and light."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from seechange_core.errors import BadDataError
from seechange_core.flags import CalibrationStep, names
from seechange_core.frames import Amplifier, Float, Float32, RawFrame
from seechange_core.numerics import detector
from seechange_core.numerics.detector import Pedestal
from seechange_core.numerics.frame_pattern import BLOCKS, block_means, finite_median
from seechange_core.numerics.linearity import table_of, true_level
from seechange_core.stages.master_recipe import CombineParams, Recipe, fits_time

#: Pixels of an amplifier that its level and pattern are measured on.
LOOKED_AT = 65_536
#: A bias frame may not have been exposed for longer.
_BIAS_TIME_MAX_S = 1.0
#: An amplifier is lit if it sees at least this fraction of the brightest one's light.
LIT = 0.05
#: Share of saturated pixels that makes a frame useless.
_FULL_MAX = 0.01
#: Share of pixels beyond the linear range that makes a flat useless; fewer are left out pixel by pixel.
_BEYOND_MAX = 0.005
#: Noise puts 1 of 700 values so many sigma above its level: what lies higher was not put there by noise.
_NOISE_SIGMA = 3.0


@dataclass(eq=False)
class Look:
    """What a look at one frame has shown; arrays hold one entry for each amplifier that is not defective.

    Attributes
    ----------
    time_s, reason
        As in `FrameQuality`.
    pedestals
        Zero levels by amplifier.
    floors
        Predicted variance without light, e-^2.
    levels, level
        Median of each amplifier and of the section, e- (per second for a dark).
    errors
        Standard errors of the levels by photon and read noise, same unit.
    blocks
        (n_amplifiers, ny, nx) clipped means of blocks, same unit.
    full
        Share of saturated pixels.
    linear_e, linear_sigma_e
        Values up to which the amplifiers are linear, e-, and the noise of values there.
    beyond
        Share of the pixels that are beyond, by more than their noise can be, and not saturated.
    sample
        Some pixels in electrons, to measure noise on; emptied once that is done.
    sample_at
        (u, v) of its columns and rows for each amplifier, -1 to 1 over the section.
    noise_ratio
        Measured over predicted scatter.
    plane
        Slopes along u and v of the light, relative to that of the other frames.
    """

    time_s: float = np.nan
    reason: str = ""
    pedestals: Mapping[str, Pedestal] = field(default_factory=dict)
    floors: Float = field(default_factory=lambda: np.empty(0))
    levels: Float = field(default_factory=lambda: np.empty(0))
    errors: Float = field(default_factory=lambda: np.empty(0))
    level: float = np.nan
    blocks: Float = field(default_factory=lambda: np.empty((0, *BLOCKS)))
    full: Float = field(default_factory=lambda: np.empty(0))
    linear_e: Float = field(default_factory=lambda: np.empty(0))
    linear_sigma_e: Float = field(default_factory=lambda: np.empty(0))
    beyond: Float = field(default_factory=lambda: np.empty(0))
    sample: list[Float32] = field(default_factory=list)
    sample_at: list[tuple[Float, Float]] = field(default_factory=list)
    noise_ratio: Float = field(default_factory=lambda: np.empty(0))
    plane: tuple[float, float] = (0.0, 0.0)

    @property
    def beyond_e(self) -> Float:
        """Values that tell of a level beyond the linear range, whatever their noise, e-."""
        return self.linear_e + _NOISE_SIGMA * self.linear_sigma_e


def common_layout(
    frames: Sequence[RawFrame], looks: list[Look]
) -> tuple[tuple[Amplifier, ...], tuple[int, int]]:
    """Return the amplifiers and the trimmed shape that most frames share; reject frames of another layout."""
    layouts: list[tuple[object, ...]] = []
    first: dict[tuple[object, ...], tuple[tuple[Amplifier, ...], tuple[int, int]]] = {}
    for look, index in zip(looks, range(len(frames)), strict=True):
        layouts.append(())
        try:
            frame = frames[index]
            detector.check_raw(frame)
        except BadDataError as error:
            look.reason = f"cannot be used: {error}"
            continue
        look.time_s = frame.exposure_time_s
        if frame.prepared is not None:
            done = ", ".join(names(frame.prepared.steps, CalibrationStep))
            look.reason = f"it is not raw: the observatory did {done or 'something to it'}"
            continue
        boxes = tuple((a.name, a.raw, a.image, a.defective) for a in frame.amplifiers)
        layouts[-1] = (frame.data.shape, boxes)
        first.setdefault(layouts[-1], (frame.amplifiers, frame.image_shape))
    if not first:
        return (), (0, 0)
    common = max(first, key=layouts.count)
    for look, layout in zip(looks, layouts, strict=True):
        if not look.reason and layout != common:
            if layout[0] != common[0]:
                look.reason = f"it has {layout[0]} pixels, the others {common[0]}"
            else:
                look.reason = f"its amplifiers lie elsewhere than the others': {layout[1]}"
    return first[common]


def time_reason(time_s: float, recipe: Recipe) -> str:
    """Return why a frame's exposure time does not do, or an empty string."""
    if recipe.kind == "bias" and time_s > _BIAS_TIME_MAX_S:
        return f"it was exposed for {time_s:g} s, a bias is not"
    if recipe.kind == "dark" and time_s <= 0:
        return "its exposure time is 0 s"
    if recipe.time_s is not None and not fits_time(time_s, recipe.time_s):
        return f"its exposure time is {time_s:g} s, only {recipe.time_s:g} s fits while the bias level is in"
    return ""


def look_at(look: Look, frame: RawFrame, recipe: Recipe, alive: list[int], kept: int) -> None:
    """Fill in what can be measured on a frame by itself."""
    look.pedestals = recipe.pedestals(frame)
    height, width = frame.image_shape
    per = look.time_s if recipe.kind == "dark" else 1.0
    floors, levels, errors, blocks, full, linear, beyond = [], [], [], [], [], [], []
    for number in alive:
        amplifier = frame.amplifiers[number]
        n_rows, n_columns = amplifier.raw.shape
        step = max(1, n_rows * n_columns // LOOKED_AT)
        rows = slice(step // 2, None, step)
        values = recipe.electrons(frame, amplifier, look.pedestals, rows)
        limit = detector.saturation_level_adu(frame, amplifier)
        is_full = frame.data[amplifier.raw.slices][rows] >= limit
        full.append(float(np.mean(is_full)))
        floors.append(recipe.floor_e2(amplifier, look.pedestals))
        linear.append(_linear_e(look, amplifier, recipe))
        sigma_e = np.sqrt(floors[-1] + max(linear[-1], 0.0))
        is_beyond = values > linear[-1] + _NOISE_SIGMA * sigma_e
        beyond.append(float(np.mean(is_beyond & ~is_full)))
        blocks.append(block_means(values) / per)
        # Of frames without light the median is a whole ADU; of those with, stars have no say in it.
        levels.append(finite_median(values) / per if recipe.is_flat else float(np.mean(blocks[-1])))
        errors.append(_level_error_e(look, amplifier, floors[-1], levels[-1] * per, values.size) / per)
        thin = max(1, values.size // kept)
        look.sample.append(values[::thin].copy())
        box = amplifier.image
        v = 2 * (np.arange(box.y0, box.y1)[rows][::thin] + 0.5) / height - 1
        look.sample_at.append((2 * (np.arange(box.x0, box.x1) + 0.5) / width - 1, v))
    look.floors, look.levels, look.blocks = np.array(floors), np.array(levels), np.array(blocks)
    look.errors, look.full, look.beyond = np.array(errors), np.array(full), np.array(beyond)
    look.linear_e = np.array(linear)
    look.linear_sigma_e = np.sqrt(look.floors + np.maximum(look.linear_e, 0.0))
    lit = look.levels > LIT * np.max(look.levels) if recipe.is_flat else np.isfinite(look.levels)
    seen = [s.ravel() for s, is_lit in zip(look.sample, lit, strict=True) if is_lit]
    look.level = finite_median(np.concatenate(seen)) / per if seen else float(np.max(look.levels))


def _zero_adu(look: Look, amplifier: Amplifier) -> float:
    zero = look.pedestals.get(amplifier.name)
    return 0.0 if zero is None else float(np.mean(zero.level_adu))


def _masters_level_e(look: Look, amplifier: Amplifier, recipe: Recipe) -> float:
    """Return what the masters take off an amplifier: without an overscan, the zero level is in them."""
    level_e = 0.0
    for master, times in ((recipe.bias, 1.0), (recipe.dark, look.time_s)):
        if master is not None:
            level_e += times * finite_median(detector.sampled(master.data[amplifier.image.slices]))
    return level_e


def _linear_e(look: Look, amplifier: Amplifier, recipe: Recipe) -> float:
    """Return the value up to which an amplifier is linear, electrons as `Recipe.electrons` returns."""
    signal_adu = recipe.linear_limit_adu(amplifier, look.pedestals) - _zero_adu(look, amplifier)
    if recipe.linearity is not None:
        signal_adu = true_level(table_of(recipe.linearity, amplifier.name), signal_adu)
    return signal_adu * amplifier.gain - _masters_level_e(look, amplifier, recipe)


def _level_error_e(look: Look, amplifier: Amplifier, floor_e2: float, level_e: float, n_pixels: int) -> float:
    """Return the standard error that photon and read noise give a level measured on so many pixels."""
    variance = (floor_e2 + max(level_e, 0.0)) / n_pixels
    zero = look.pedestals.get(amplifier.name)
    if zero is not None and zero.n_pixels > 0 and np.isfinite(zero.noise_adu):
        # All pixels share the error of the zero level's mean.
        variance += (zero.noise_adu * amplifier.gain) ** 2 / zero.n_pixels
    return float(np.sqrt(variance))


def light_reason(
    look: Look, frame: RawFrame, recipe: Recipe, alive: list[tuple[int, Amplifier]], params: CombineParams
) -> str:
    """Judge a frame's light by itself: saturation, and whether a flat is bright enough but not too bright."""
    if not np.isfinite(look.levels).all():
        return "an amplifier has no finite pixel"
    if recipe.is_flat:
        return _faint_reason(look, alive, params) or _bright_reason(look, frame, recipe, alive, params)
    worst = int(np.argmax(look.full))
    if look.full[worst] > _FULL_MAX:
        return f"{look.full[worst]:.1%} of amplifier {alive[worst][1].name} is saturated"
    return ""


def _faint_reason(look: Look, alive: list[tuple[int, Amplifier]], params: CombineParams) -> str:
    if look.level < 5 * max(a.read_noise_e for _, a in alive):
        return f"no light: {look.level:.1f} e-"
    if look.level < params.flat_level_min_e:
        return f"too faint: {look.level:.0f} e-, {params.flat_level_min_e:.0f} are needed"
    return ""


def _bright_reason(
    look: Look, frame: RawFrame, recipe: Recipe, alive: list[tuple[int, Amplifier]], params: CombineParams
) -> str:
    for k, (number, _) in enumerate(alive):
        amplifier, linear = frame.amplifiers[number], look.linear_e[k]
        saturation_adu = detector.saturation_level_adu(frame, amplifier) - _zero_adu(look, amplifier)
        saturation = saturation_adu * amplifier.gain - _masters_level_e(look, amplifier, recipe)
        told = f"amplifier {amplifier.name} has {look.levels[k]:.0f} e-"
        if look.levels[k] > params.flat_level_max * saturation:
            return f"too bright: {told}, it saturates at {saturation:.0f}"
        if look.levels[k] > linear:
            return f"too bright: {told}, it is linear up to {linear:.0f}"
        if look.full[k] > _FULL_MAX:
            return f"too bright: {look.full[k]:.1%} of amplifier {amplifier.name} is saturated"
        if look.beyond[k] > _BEYOND_MAX:
            return (
                f"too bright: {look.beyond[k]:.1%} of amplifier {amplifier.name} is beyond the {linear:.0f} "
                f"e- up to which it is linear, {_BEYOND_MAX:.1%} allowed"
            )
    return ""
