"""Stacking with known noise: clipped means pixel by pixel, and sources that only single frames show."""

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.frames import Float, Float32, Int

Int32 = npt.NDArray[np.int32]

#: Variance of the median of n Gaussian values, in units of that of their mean: pi / 2.
_MEDIAN_VARIANCE = 1.5708

#: Pixels of a row that go through the sorting network side by side: many for the vector unit, few enough
#: for their n values to stay in the processor's own cache.
_ABREAST = 64


@njit(cache=True, nogil=True)
def clipped_stack_mean(
    stack: Float32, floor: Float, slope: Float, n_sigma: float
) -> tuple[Float32, Float32, Int32]:
    """Average a stack pixel by pixel with known noise, clipping what lies too far from the median.

    The variance of frame i at a pixel is ``floor[i] + slope[i] * max(median, 0)``: it comes from the
    stack's median, never from the observed value, so the weighted mean is not pulled to faint values.

    Parameters
    ----------
    stack
        (n, H, W) float32; what is not finite is left out.
    floor, slope
        (n,) float64, noise model of each frame.
    n_sigma
        Clip beyond so many standard deviations (of the value and the median together).

    Returns
    -------
    mean, variance
        (H, W) float32; NaN and infinity where no value is left.
    n_used
        (H, W) int32, values that entered.
    """
    n, height, width = stack.shape
    mean = np.empty((height, width), dtype=np.float32)
    variance = np.empty((height, width), dtype=np.float32)
    n_used = np.empty((height, width), dtype=np.int32)
    pairs = _sorting_network(n)
    values = np.empty((n, _ABREAST), dtype=np.float32)
    median = np.empty(_ABREAST, dtype=np.float32)
    limit = np.empty(_ABREAST, dtype=np.float32)
    for y in range(height):
        for x0 in range(0, width, _ABREAST):
            wide = min(_ABREAST, width - x0)
            here = slice(x0, x0 + wide)
            counts = _medians(stack[:, y], x0, wide, pairs, values, median)
            for k in range(wide):
                limit[k] = n_sigma**2 * (1 + _MEDIAN_VARIANCE / max(counts[k], 1))
            filled = mean[y, here], variance[y, here], n_used[y, here]
            _clipped_means(stack[:, y, here], floor, slope, median, limit, *filled)
    return mean, variance, n_used


@njit(cache=True, nogil=True)
def _clipped_means(
    values: Float32,
    floor: Float,
    slope: Float,
    median: Float32,
    limit: Float32,
    mean: Float32,
    variance: Float32,
    n_used: Int32,
) -> None:
    """Fill in the weighted means of the values within `limit` variances of their medians."""
    n, wide = values.shape
    total = np.zeros(wide, dtype=np.float32)
    weights = np.zeros(wide, dtype=np.float32)
    n_used[:] = 0
    one, zero = np.float32(1), np.float32(0)
    for i in range(n):
        row, least, rise = values[i], np.float32(floor[i]), np.float32(slope[i])
        for k in range(wide):
            weight = one / (least + rise * max(median[k], zero))
            off = row[k] - median[k]
            kept = off * off * weight <= limit[k]  # false for NaN
            total[k] += off * weight if kept else zero
            weights[k] += weight if kept else zero
            n_used[k] += 1 if kept else 0
    for k in range(wide):
        mean[k] = median[k] + total[k] / weights[k] if n_used[k] > 0 else np.float32(np.nan)
        variance[k] = one / weights[k] if n_used[k] > 0 else np.float32(np.inf)


@njit(cache=True, nogil=True)
def _medians(
    rows: Float32, x0: int, wide: int, pairs: Int, values: Float32, median: Float32
) -> npt.NDArray[np.int64]:
    """Fill in the medians of the finite values at `wide` pixels from `x0` on; return how many there are."""
    n = rows.shape[0]
    counts = np.zeros(wide, dtype=np.int64)
    for i in range(n):
        for k in range(wide):
            value = rows[i, x0 + k]
            finite = np.isfinite(value)
            # What is not finite is sorted behind everything else.
            values[i, k] = value if finite else np.float32(np.inf)
            counts[k] += 1 if finite else 0
    for c in range(pairs.shape[0]):
        lower, upper = values[pairs[c, 0]], values[pairs[c, 1]]
        for k in range(_ABREAST):
            a, b = lower[k], upper[k]
            lower[k] = a if a < b else b
            upper[k] = b if a < b else a
    for k in range(wide):
        if counts[k] > 0:
            middle = np.float64(values[(counts[k] - 1) // 2, k]) + np.float64(values[counts[k] // 2, k])
            median[k] = np.float32(0.5 * middle)
        else:
            median[k] = np.float32(np.nan)
    return counts


@njit(cache=True, nogil=True)
def _sorting_network(n: int) -> Int:
    """Return which pairs to compare and exchange, in turn, to sort n values (Batcher's merge exchange)."""
    top, powers = 1, 0
    while top < n:
        top *= 2
        powers += 1
    pairs = np.empty((n * (powers * (powers + 1) // 4 + 1), 2), dtype=np.int64)
    used = 0
    p = top // 2
    while p > 0:
        q, r, d = top // 2, 0, p
        while True:
            for i in range(n - d):
                if i & p == r:
                    pairs[used] = i, i + d
                    used += 1
            if q == p:
                break
            d, r = q - p, p
            q //= 2
        p //= 2
    return pairs[:used].copy()


@njit(cache=True, nogil=True)
def stack_median(stack: Float32) -> Float32:
    """Return the median of a stack's finite values, pixel by pixel.

    Parameters
    ----------
    stack
        (n, H, W) float32.

    Returns
    -------
    ndarray
        (H, W) float32; NaN where no value is finite.
    """
    n, height, width = stack.shape
    result = np.empty((height, width), dtype=np.float32)
    pairs = _sorting_network(n)
    values = np.empty((n, _ABREAST), dtype=np.float32)
    for y in range(height):
        for x0 in range(0, width, _ABREAST):
            wide = min(_ABREAST, width - x0)
            _medians(stack[:, y], x0, wide, pairs, values, result[y, x0 : x0 + wide])
    return result


@njit(cache=True, nogil=True)
def drop_sources(stack: Float32, floor: Float, slope: Float, n_sigma: float, half: int) -> None:
    """Set to NaN, in place, what is brighter than the stack's median over a patch of pixels: stars.

    The wings of a star are below the noise of one pixel and would pass a clip pixel by pixel; the
    mean over a patch shows them where they are a part of it.

    Parameters
    ----------
    stack, floor, slope
        As for `clipped_stack_mean`.
    n_sigma
        Drop a patch when its mean is so many of its standard deviations too bright.
    half
        The patch is ``2 half + 1`` pixels wide and high.
    """
    n, height, width = stack.shape
    median = stack_median(stack)
    threshold = n_sigma * np.sqrt(1 + _MEDIAN_VARIANCE / n)
    excess = np.empty((height, width), dtype=np.float32)
    for i in range(n):
        _significance(stack[i], median, floor[i], slope[i], excess)
        _drop_patches(stack[i], excess, threshold, half)


@njit(cache=True, nogil=True)
def _significance(plane: Float32, median: Float32, floor: float, slope: float, excess: Float32) -> None:
    """Fill in the deviation from the median in sigma; bounded, so that a hit in one pixel stays one."""
    height, width = plane.shape
    for y in range(height):
        for x in range(width):
            sigma = np.sqrt(floor + slope * max(median[y, x], np.float32(0)))
            off = (plane[y, x] - median[y, x]) / sigma
            excess[y, x] = min(max(off, -5.0), 5.0) if np.isfinite(off) else 0.0


@njit(cache=True, nogil=True)
def _drop_patches(plane: Float32, excess: Float32, threshold: float, half: int) -> None:
    height, width = plane.shape
    side = 2 * half + 1
    columns = np.zeros(width)
    for y in range(-half, height):
        # Running sums over the rows y - half ... y + half of every column.
        for row, sign in ((y + half, 1.0), (y - half - 1, -1.0)):
            if 0 <= row < height:
                for x in range(width):
                    columns[x] += sign * excess[row, x]
        if y < 0:
            continue
        total = columns[: min(half, width)].sum()
        for x in range(width):
            if x + half < width:
                total += columns[x + half]
            if x - half - 1 >= 0:
                total -= columns[x - half - 1]
            # The sum of `side^2` values has a standard deviation of `side`.
            if total > threshold * side:
                plane[y, x] = np.nan
