"""What a raw section needs before any master frame: checks, overscan, electrons, saturation."""

from typing import NamedTuple

import numpy as np
from numba import njit

from seechange_core.errors import HeaderError, PixelsError
from seechange_core.frames import Amplifier, Bool, Float, Float32, RawFrame
from seechange_core.numerics.stats import MAD_TO_SIGMA


class Pedestal(NamedTuple):
    """The electronic zero level of an amplifier.

    Attributes
    ----------
    level_adu
        (rows,) float64, to be taken from each row.
    variance_adu
        Of the level in one row.
    """

    level_adu: Float
    variance_adu: float


def check_raw(raw: RawFrame) -> None:
    """Refuse a raw section whose arrays and amplifiers do not fit together.

    Raises
    ------
    PixelsError
        If the data are not a 2-d real array, hold no finite value, or an amplifier lies outside them.
    HeaderError
        If a gain, read noise or exposure time is impossible.
    """
    data = raw.data
    if data.ndim != 2 or data.dtype.kind not in "uif":
        raise PixelsError(
            f"raw data must be a 2-d array of real numbers, not {data.ndim}-d {data.dtype}",
            cure="check the instrument's load_section_image",
        )
    if data.dtype.kind == "f" and not np.isfinite(data).any():
        raise PixelsError("no pixel has a finite value", cure="the file is lost; mark the exposure bad")
    if not raw.amplifiers:
        raise PixelsError("the section has no amplifier", cure="check the instrument's description")
    if not np.isfinite(raw.exposure_time_s) or raw.exposure_time_s < 0:
        raise HeaderError(f"exposure time is {raw.exposure_time_s} s", cure="check the exposure-time card")
    for amplifier in raw.amplifiers:
        _check_amplifier(amplifier, (data.shape[0], data.shape[1]))


def _check_amplifier(amplifier: Amplifier, shape: tuple[int, int]) -> None:
    for box in (amplifier.raw, amplifier.overscan):
        if box is not None and not (0 <= box.y0 < box.y1 <= shape[0] and 0 <= box.x0 < box.x1 <= shape[1]):
            raise PixelsError(
                f"amplifier {amplifier.name} has {tuple(box)} (y0, y1, x0, x1) outside the raw {shape}",
                cure="the file is not from this camera, or its section cards are wrong",
            )
    if amplifier.raw.shape != amplifier.image.shape:
        raise PixelsError(
            f"amplifier {amplifier.name} reads {amplifier.raw.shape} pixels into {amplifier.image.shape}",
            cure="check the section cards",
        )
    if not (np.isfinite(amplifier.gain) and amplifier.gain > 0):
        raise HeaderError(f"amplifier {amplifier.name} has gain {amplifier.gain} e-/ADU", cure="set its gain")
    if not (np.isfinite(amplifier.read_noise_e) and amplifier.read_noise_e >= 0):
        raise HeaderError(
            f"amplifier {amplifier.name} has read noise {amplifier.read_noise_e} e-",
            cure="set its read noise",
        )


def overscan_pedestal(raw: RawFrame, amplifier: Amplifier) -> Pedestal:
    """Measure an amplifier's zero level, row by row, from its overscan.

    Each row's level is a clipped mean. Where rows do not jitter by more than their own error the
    levels are smoothed over 31 rows, where they do they are kept: the mix of the two is the one with
    the least error (James & Stein shrinkage towards the running mean), so quiet electronics gain
    no noise common to a row and noisy ones lose their banding.

    Parameters
    ----------
    raw
        The section.
    amplifier
        One of its amplifiers; without an overscan the level is 0.

    Returns
    -------
    Pedestal
        For the rows of `amplifier.raw`, ADU.
    """
    n_rows = amplifier.raw.shape[0]
    box = amplifier.overscan
    if box is None:
        return Pedestal(np.zeros(n_rows), 0.0)
    block = np.asarray(raw.data[box.slices], dtype=np.float64)
    if (box.y0, box.y1) != (amplifier.raw.y0, amplifier.raw.y1):
        # An overscan above or below the light-sensitive pixels knows nothing of single rows.
        block = block.reshape(1, -1)
    block = np.where(np.isfinite(block), block, np.nan)
    if not np.isfinite(block).any():
        raise PixelsError(
            f"the overscan of amplifier {amplifier.name} holds no finite value",
            cure="switch do_overscan off for this instrument, or mark the exposure bad",
        )
    level, variance = _row_levels(block)
    if level.size == 1:
        return Pedestal(np.full(n_rows, level[0]), variance)
    return _shrink(level, variance)


def _row_levels(block: Float) -> tuple[Float, float]:
    """Return the clipped mean of each row and the variance of one such mean."""
    usable_rows = np.isfinite(block).any(axis=1)
    median = np.full(block.shape[0], np.nanmedian(block))
    median[usable_rows] = np.nanmedian(block[usable_rows], axis=1)
    deviation = block - median[:, None]
    sigma = MAD_TO_SIGMA * float(np.nanmedian(np.abs(deviation))) or float(np.nanstd(deviation))
    kept = np.abs(deviation) <= 4 * sigma
    count = kept.sum(axis=1)
    level = median + np.where(kept, deviation, 0).sum(axis=1) / np.maximum(count, 1)
    scatter = float(np.sqrt(np.mean(deviation[kept] ** 2))) if kept.any() else 0.0
    return level, scatter**2 / max(float(np.median(count)), 1.0)


def _shrink(level: Float, variance: float) -> Pedestal:
    window = min(31, level.size)
    padded = np.pad(level, window // 2, mode="reflect", reflect_type="odd") if level.size > window else None
    if padded is None:
        return Pedestal(level, variance)
    smooth = np.convolve(padded, np.ones(window) / window, mode="valid")
    residual_variance = float(np.mean((level - smooth) ** 2)) / (1 - 1 / window)
    jitter = max(0.0, residual_variance - variance)
    # A sample variance of n rows is good to sqrt(2 / n): less than three times that is no jitter.
    if jitter < 3 * variance * np.sqrt(2 / level.size):
        return Pedestal(smooth, variance / window)
    share = jitter / (jitter + variance)
    return Pedestal(smooth + share * (level - smooth), share * variance)


def electrons(
    raw: RawFrame, amplifier: Amplifier, pedestal: Pedestal | None = None, rows: slice = slice(None)
) -> Float32:
    """Return an amplifier's pixels in electrons, above its pedestal.

    Parameters
    ----------
    raw, amplifier
        The section and one of its amplifiers.
    pedestal
        Its zero level; None to leave it in.
    rows
        Which of the amplifier's rows.

    Returns
    -------
    ndarray
        (rows, width) float32; NaN where the raw value is not finite.
    """
    pixels = np.asarray(raw.data[amplifier.raw.slices][rows], dtype=np.float32)
    if pedestal is not None:
        pixels = pixels - pedestal.level_adu[rows, None].astype(np.float32)
    return np.where(np.isfinite(pixels), pixels * np.float32(amplifier.gain), np.float32(np.nan))


def saturation_level_adu(raw: RawFrame, amplifier: Amplifier) -> float:
    """Return the raw level from which an amplifier's pixels count as saturated.

    A 16-bit converter cannot go beyond 65535, whatever the header says.
    """
    level = amplifier.saturation_adu if np.isfinite(amplifier.saturation_adu) else np.inf
    if raw.data.dtype.kind in "ui" and raw.data.dtype.itemsize <= 2:
        level = min(level, float(np.iinfo(raw.data.dtype).max))
    return level


@njit(cache=True, nogil=True)
def bleed_trails(level: Float32, saturated: Bool, fraction: float) -> Bool:
    """Mark pixels that hang on a saturated one along the column and are nearly full themselves.

    Parameters
    ----------
    level
        (H, W) float32, raw level in units of the saturation level.
    saturated
        (H, W) bool.
    fraction
        A connected pixel above this fraction of saturation belongs to the trail.

    Returns
    -------
    ndarray
        (H, W) bool, without the saturated pixels themselves.
    """
    height, width = level.shape
    trail = np.zeros((height, width), dtype=np.bool_)
    for direction in (1, -1):
        start = 0 if direction == 1 else height - 1
        # Row by row, so that memory is read in order.
        for k in range(1, height):
            y = start + direction * k
            before = y - direction
            for x in range(width):
                connected = saturated[before, x] or trail[before, x]
                if connected and not saturated[y, x] and level[y, x] >= fraction:
                    trail[y, x] = True
    return trail


@njit(cache=True, nogil=True)
def grow(mask: Bool, radius: int) -> Bool:
    """Return a mask grown by `radius` pixels in all eight directions."""
    height, width = mask.shape
    grown = mask.copy()
    for y in range(height):
        for x in range(width):
            if mask[y, x]:
                for j in range(max(0, y - radius), min(height, y + radius + 1)):
                    for i in range(max(0, x - radius), min(width, x + radius + 1)):
                        grown[j, i] = True
    return grown
