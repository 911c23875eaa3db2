"""Defects of a detector, found in its master dark and flat."""

from itertools import pairwise

import numpy as np
from scipy.ndimage import median_filter

from seechange_core.frames import Bool, Float32
from seechange_core.numerics.coarse_sky import coarse_sky
from seechange_core.numerics.stats import mad_sigma

Stretch = tuple[int, float, float]
"""Rows in a stretch of a column, fraction of bad pixels that condemns it, sigmas that condemn its median."""


def dark_defects(dark: Float32, sigma: Float32, hot_e_per_s: float, n_sigma: float, stretch: Stretch) -> Bool:
    """Mark hot pixels and columns.

    Parameters
    ----------
    dark, sigma
        (H, W) float32, dark current and its error, e-/s.
    hot_e_per_s, n_sigma
        Excess over the surroundings that makes a pixel hot: both must be exceeded.
    stretch
        How columns are judged.

    Returns
    -------
    ndarray
        (H, W) bool.
    """
    excess = dark - coarse_sky(dark, np.isfinite(dark)).level_rows()
    # One pixel in sixteen tells the scatter as well as all.
    noise = np.maximum(sigma, mad_sigma(excess[::4, ::4] if excess.size > 1_000_000 else excess))
    bad = (excess > hot_e_per_s) & (excess > n_sigma * noise)
    return bad | _bad_stretches(excess, bad, stretch, hot_e_per_s)


def flat_defects(
    flat: Float32, limits: tuple[float, float], column_response: float, stretch: Stretch
) -> Bool:
    """Mark pixels and columns whose response differs from that of their surroundings.

    Parameters
    ----------
    flat
        (H, W) float32, relative response.
    limits
        Lowest and highest response, relative to the surroundings, of a good pixel.
    column_response
        Least deviation of a bad stretch of a column.
    stretch
        How columns are judged.

    Returns
    -------
    ndarray
        (H, W) bool.
    """
    around = coarse_sky(flat, np.isfinite(flat) & (flat > 0)).level_rows()
    relative: Float32 = np.divide(flat, np.maximum(around, np.float32(1e-3)), dtype=np.float32)
    bad = ~((relative >= limits[0]) & (relative <= limits[1]))
    return bad | _bad_stretches(relative - 1, bad, stretch, column_response)


def _bad_stretches(deviation: Float32, bad: Bool, stretch: Stretch, least: float) -> Bool:
    """Mark stretches of columns that are off as a whole, or full of bad pixels."""
    rows, fraction, n_sigma = stretch
    height = deviation.shape[0]
    marked = np.zeros(deviation.shape, dtype=np.bool_)
    edges = np.linspace(0, height, max(1, round(height / rows)) + 1).astype(int)
    for start, stop in pairwise(edges):
        part = deviation[start:stop]
        middle: Float32 = np.median(np.where(np.isfinite(part), part, np.float32(0)), axis=0)
        # Against the columns around it: a gradient across the mesh is no defect.
        offset = np.abs(middle - median_filter(middle, size=min(31, middle.size), mode="nearest"))
        wrong = (offset > n_sigma * max(mad_sigma(offset), 1e-9)) & (offset > least)
        wrong |= bad[start:stop].mean(axis=0) > fraction
        marked[start:stop, wrong] = True
    return marked
