"""Robust statistics: clipped means, MAD sigmas, a coarse sky mesh, and stacking with known noise."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.frames import Bool, Float, Float32

#: Sigma of a Gaussian in units of its median absolute deviation, 1 / Phi^-1(3/4).
MAD_TO_SIGMA = 1.482602218505602


class ClippedStats(NamedTuple):
    """What is left of a sample after clipping: mean, median, standard deviation and count."""

    mean: float
    median: float
    sigma: float
    n: int


def mad_sigma(values: npt.ArrayLike) -> float:
    """Return the standard deviation of a sample as its scaled median absolute deviation.

    Parameters
    ----------
    values
        Any shape; what is not finite is left out.

    Returns
    -------
    float
        NaN for an empty sample.
    """
    sample = _finite(values)
    if sample.size == 0:
        return np.nan
    return float(MAD_TO_SIGMA * np.median(np.abs(sample - np.median(sample))))


def clipped_stats(values: npt.ArrayLike, n_sigma: float = 4.0, max_iterations: int = 10) -> ClippedStats:
    """Clip a sample around its median until nothing more is clipped.

    The width to clip by starts as the MAD sigma, so that a third of bad values does no harm.

    Parameters
    ----------
    values
        Any shape; what is not finite is left out.
    n_sigma
        Half-width kept.
    max_iterations
        Stop after so many rounds even if values are still being clipped.

    Returns
    -------
    ClippedStats
        NaN and 0 for an empty sample. The sigma is not corrected for the clipped tails (0.1 % at 4 sigma).
    """
    sample = np.sort(_finite(values).astype(np.float64))
    if sample.size == 0:
        return ClippedStats(np.nan, np.nan, np.nan, 0)
    width = mad_sigma(sample) or float(np.std(sample))
    for _ in range(max_iterations):
        centre = float(np.median(sample))
        low = int(np.searchsorted(sample, centre - n_sigma * width, "left"))
        high = int(np.searchsorted(sample, centre + n_sigma * width, "right"))
        if high - low == sample.size:
            break
        sample = sample[low:high]
        width = float(np.std(sample))
    return ClippedStats(float(np.mean(sample)), float(np.median(sample)), float(np.std(sample)), sample.size)


def _finite(values: npt.ArrayLike) -> npt.NDArray[Any]:
    sample = np.asarray(values).ravel()
    finite: npt.NDArray[Any] = sample[np.isfinite(sample)]
    return finite


def coarse_sky(data: Float32, usable: Bool, cell_pix: int = 64) -> tuple[Float32, Float32]:
    """Return the sky level and scatter of a whole image from a coarse mesh, for noise models.

    Each cell gives the clipped median and sigma of its usable pixels; cells drowned in a bright
    object are replaced by the median of the 3 x 3 cells around. Good to a few per cent of the sky's
    scatter, which is plenty for a variance; photometry wants `numerics.background`.

    Parameters
    ----------
    data
        (H, W) float32.
    usable
        (H, W) bool.
    cell_pix
        Side of a cell.

    Returns
    -------
    level, sigma
        (H, W) float32 each, interpolated linearly between and beyond the centres of the cells. All NaN where
        no pixel is usable.
    """
    height, width = data.shape
    y_edges, x_edges = _edges(height, cell_pix), _edges(width, cell_pix)
    level, sigma = _mesh(data, usable & np.isfinite(data), y_edges, x_edges)
    return _spread(_smooth(level), y_edges, x_edges), _spread(_smooth(sigma), y_edges, x_edges)


def _edges(length: int, cell: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, length, max(1, round(length / cell)) + 1).astype(np.int64)


def _mesh(
    data: Float32, usable: Bool, y_edges: npt.NDArray[np.int64], x_edges: npt.NDArray[np.int64]
) -> tuple[Float, Float]:
    level = np.full((y_edges.size - 1, x_edges.size - 1), np.nan)
    sigma = level.copy()
    for j, (y0, y1) in enumerate(pairwise(y_edges)):
        for i, (x0, x1) in enumerate(pairwise(x_edges)):
            cell = data[y0:y1, x0:x1][usable[y0:y1, x0:x1]]
            # Mostly masked cells say little: their neighbours speak for them.
            if cell.size >= max(1, 0.2 * (y1 - y0) * (x1 - x0)):
                level[j, i], sigma[j, i] = _sky_of_cell(cell)
    return level, sigma


def _sky_of_cell(cell: Float32) -> tuple[float, float]:
    """Return the median and sigma of a cell's pixels after clipping at 3 sigma."""
    cell = np.sort(cell)
    low, high = 0, cell.size
    for _ in range(12):
        middle = cell[(low + high) // 2]
        # The lower half of the sky's distribution is free of stars: its width sets the clip.
        width = max(middle - cell[low + int(0.1587 * (high - low))], np.float32(1e-6))
        new_low = int(np.searchsorted(cell, middle - 3 * width))
        new_high = int(np.searchsorted(cell, middle + 3 * width, "right"))
        if (new_low, new_high) == (low, high):
            break
        low, high = new_low, new_high
    # The factor is what clipping at 3 sigma takes from a Gaussian.
    return float(cell[(low + high) // 2]), float(np.std(cell[low:high])) * 1.0134


def _smooth(mesh: Float) -> Float:
    """Replace cells that stand out, or have no value, by the median of their neighbourhood."""
    if mesh.size == 1:
        return mesh
    padded = np.pad(mesh, 1, constant_values=np.nan)
    ny, nx = mesh.shape
    stack = np.array([padded[j : j + ny, i : i + nx] for j in range(3) for i in range(3)])
    known = np.isfinite(stack)
    count = known.sum(axis=0)
    ordered = np.sort(np.where(known, stack, np.inf), axis=0)
    low = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0)[None], axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, 8)[None], axis=0)[0]
    with np.errstate(invalid="ignore"):
        smooth: Float = np.where(count > 0, (low + high) / 2, np.nan)
        ordinary = np.abs(mesh - smooth) <= 3 * mad_sigma(mesh - smooth)
    smooth[ordinary] = mesh[ordinary]
    if np.isfinite(smooth).any():
        smooth[~np.isfinite(smooth)] = np.nanmedian(smooth)
    return smooth


def _spread(mesh: Float, y_edges: npt.NDArray[np.int64], x_edges: npt.NDArray[np.int64]) -> Float32:
    rows = _interpolation(y_edges)
    columns = _interpolation(x_edges)
    return np.asarray(rows @ mesh @ columns.T, dtype=np.float32)


def _interpolation(edges: npt.NDArray[np.int64]) -> Float:
    """Return the (pixels, cells) matrix of linear interpolation between (and beyond) cell centres."""
    centres = (edges[:-1] + edges[1:] - 1) / 2
    pixels = np.arange(edges[-1])
    matrix = np.zeros((pixels.size, centres.size))
    if centres.size == 1:
        return matrix + 1
    left = np.clip(np.searchsorted(centres, pixels) - 1, 0, centres.size - 2)
    fraction = (pixels - centres[left]) / (centres[left + 1] - centres[left])
    matrix[pixels, left] = 1 - fraction
    matrix[pixels, left + 1] = fraction
    return matrix


@njit(cache=True, nogil=True)
def clipped_stack_mean(
    stack: Float32, floor: Float, slope: Float, n_sigma: float
) -> tuple[Float32, Float32, npt.NDArray[np.int32]]:
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
    mean = np.full((height, width), np.float32(np.nan), dtype=np.float32)
    variance = np.full((height, width), np.float32(np.inf), dtype=np.float32)
    n_used = np.zeros((height, width), dtype=np.int32)
    ordered = np.empty(n)
    for y in range(height):
        for x in range(width):
            count = 0
            for i in range(n):
                value = stack[i, y, x]
                if not np.isfinite(value):
                    continue
                k = count
                while k > 0 and ordered[k - 1] > value:
                    ordered[k] = ordered[k - 1]
                    k -= 1
                ordered[k] = value
                count += 1
            if count == 0:
                continue
            median = 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])
            positive = max(median, 0.0)
            total = 0.0
            weights = 0.0
            for i in range(n):
                value = stack[i, y, x]
                var = floor[i] + slope[i] * positive
                # The median of n values has itself a variance of about pi/2 / n.
                if np.isfinite(value) and (value - median) ** 2 <= n_sigma**2 * var * (1 + 1.57 / count):
                    total += value / var
                    weights += 1 / var
                    n_used[y, x] += 1
            if weights > 0:
                mean[y, x] = total / weights
                variance[y, x] = 1 / weights
    return mean, variance, n_used
