"""Zero levels that saturated stars have shifted along the rows they lie on, as measured on a difference.

The output amplifier of some cameras takes its time after a saturated star, or shifts the whole row, also
before the star: a streak along x as high as its core, up to a tenth of the sky. It is not light, and is
not in the reference, whose inputs were dithered.
"""

from itertools import pairwise

import numpy as np
from scipy.ndimage import convolve1d, maximum_filter1d

from seechange_core.frames import Bool, Float, Float32, Int

_BLOCK_PIX = 128
_GROWN_PIX = 4
"""Rows next to those with saturated pixels that may have a share of it."""
_BESIDE_PIX = 8
"""Rows on either side of a band that it is compared with."""
_APART_PIX = 48
"""Around saturated pixels, columns say more of the star than of the row."""
_LEAST_PIX = 32
"""Usable pixels that a block needs."""
_LEAST_CHI2 = 2.0
"""Mean square of the blocks' levels, in units of their errors, from which a band of rows has a streak: of .16
sigma per pixel then, which is about one sigma of a point source's score."""
_MEDIAN_ERROR = 1.2533
_SIGMA_OF_MAD = 1.4826


def row_streaks(plane: Float32, usable: Bool, hot: Bool) -> Float32 | None:
    """Measure the streaks along the rows of saturated pixels.

    Levels are medians of pieces of rows against those of the rows next to the band, straight lines between.
    Nothing is said of bands of rows that do not differ from the rows next to them by more than noise, nor of
    those at the edge, which have such rows on one side only.

    Parameters
    ----------
    plane
        (H, W) float32, a difference: static light gone, noise white.
    usable, hot
        (H, W): pixels that count; saturated ones.

    Returns
    -------
    ndarray or None
        (H, W) float32 to be subtracted, 0 in all other rows; None if there is no streak.
    """
    height, width = plane.shape
    near = _grown(np.any(hot, axis=1), _GROWN_PIX)
    edges = np.linspace(0, width, max(1, round(width / _BLOCK_PIX)) + 1).astype(int)
    middles = (edges[:-1] + edges[1:] - 1) / 2
    streaks = None
    for y0, y1 in np.flatnonzero(np.diff(near, prepend=False, append=False)).reshape(-1, 2).tolist():
        if y0 < _BESIDE_PIX or y1 > height - _BESIDE_PIX:
            continue
        away = ~_grown(np.any(hot[y0:y1], axis=0), _APART_PIX)
        beside = np.r_[y0 - _BESIDE_PIX : y0, y1 : y1 + _BESIDE_PIX]
        levels, errors = _levels(plane[y0:y1], usable[y0:y1] & away, edges)
        around, _ = _levels(
            plane[beside].reshape(1, -1, width), usable[beside].reshape(1, -1, width) & away, edges
        )
        levels -= around
        known = np.isfinite(levels) & (errors > 0)
        if not known.any() or np.mean(np.square(levels[known] / errors[known])) < _LEAST_CHI2:
            continue
        if streaks is None:
            streaks = np.zeros_like(plane)
        for y in np.flatnonzero(known.any(axis=1)):
            streaks[y0 + y] = np.interp(np.arange(width), middles[known[y]], levels[y, known[y]])
    return streaks


def _grown(mask: Bool, radius: int) -> Bool:
    return np.asarray(maximum_filter1d(mask.view(np.uint8), 2 * radius + 1, mode="constant") > 0, bool)


def _levels(rows: Float32, usable: Bool, edges: Int) -> tuple[Float, Float]:
    """Return medians of pieces of rows, and their errors.

    Parameters
    ----------
    rows, usable
        (n, ..., W); what is between the first and the last axis is taken together.
    edges
        (n_blocks + 1,) columns.

    Returns
    -------
    levels, errors
        (n, n_blocks) each, NaN where too few pixels can be used.
    """
    levels = np.full((2, len(rows), len(edges) - 1), np.nan)
    for block, (x0, x1) in enumerate(pairwise(edges.tolist())):
        values = np.where(usable[..., x0:x1], rows[..., x0:x1], np.float32(np.nan)).reshape(len(rows), -1)
        number = np.count_nonzero(np.isfinite(values), axis=1)
        some = number >= _LEAST_PIX
        middle = _medians(values[some], number[some])
        spread = _medians(np.abs(values[some] - middle[:, None]), number[some])
        levels[:, some, block] = middle, _MEDIAN_ERROR * _SIGMA_OF_MAD * spread / np.sqrt(number[some])
    return levels[0], levels[1]


def _medians(values: Float32, number: Int) -> Float32:
    """Return the medians of rows of which `number` values are not NaN."""
    return np.asarray(np.take_along_axis(np.sort(values, axis=1), number[:, None] // 2, axis=1)[:, 0])


def seen_by_filter(streaks: Float32, stamps: Float32) -> Float32:
    """Return what streaks add to a matched filter, in units of what a level of 1 everywhere adds.

    Parameters
    ----------
    streaks
        (H, W) float32, varying slowly along x.
    stamps
        (n, size, size) float32: the filter's PSF at some places, each of sum 1.
    """
    across = np.asarray(stamps.mean(axis=0).sum(axis=1), np.float32)
    return np.asarray(convolve1d(streaks, across[::-1], axis=0, mode="constant"), np.float32)
