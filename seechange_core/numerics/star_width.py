"""How wide the stars of an image are, before anything is known of it."""

import numpy as np
from numba import njit

from seechange_core.frames import Bool, Float, Float32

#: Fewest peaks that tell a width.
_FEWEST_PEAKS = 5
#: Ratio of the widest and the narrowest of four sections through a round peak; of a trail it is above 2.4.
_ROUND = 1.8


def star_fwhm(data: Float32, variance: Float32, excluded: Bool, otherwise: float = 3.0) -> float:
    """Return the FWHM (pixels) of an image's sharper sources: the lower quartile at peaks above 50 sigma.

    Round peaks count, for there may be more peaks of noise on a bright trail than stars. Where there are
    fewer than 5 of those, all count, each by its narrowest section: through a trail at most 8% too wide.

    Parameters
    ----------
    data, variance, excluded
        As for `find_streaks`.
    otherwise
        The answer where there are fewer than 5 such peaks.
    """
    widths = _peak_widths(data, variance, excluded)
    if widths.shape[0] < _FEWEST_PEAKS:
        return otherwise
    narrowest = widths.min(axis=1)
    is_round = widths.max(axis=1) < _ROUND * narrowest
    if np.count_nonzero(is_round) < _FEWEST_PEAKS:
        return float(np.percentile(narrowest, 25))
    return float(np.percentile(np.sqrt(widths[is_round, 0] * widths[is_round, 1]), 25))


@njit(cache=True, nogil=True)
def _peak_widths(data: Float32, variance: Float32, excluded: Bool) -> Float:
    """Return full widths at half maximum of clean peaks above 50 sigma: (n, 4), along x, y and the diagonals.

    Infinite (up to three of them) where half of the peak is not reached.
    """
    height, width = data.shape
    widths = np.empty((20000, 4))
    count = 0
    for y in range(2, height - 2):
        for x in range(2, width - 2):
            peak = data[y, x]
            if not peak * peak > 2500.0 * variance[y, x] or peak <= 0 or count == widths.shape[0]:
                continue
            best = True
            for j in range(y - 1, y + 2):
                for i in range(x - 1, x + 2):
                    if data[j, i] > peak or excluded[j, i]:
                        best = False
            if best:
                row = widths[count]
                for k, (dy, dx) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
                    steps = _half_width(data, excluded, y, x, dy, dx)
                    steps += _half_width(data, excluded, y, x, -dy, -dx)
                    row[k] = steps * np.sqrt(dy * dy + dx * dx)
                if not np.any(np.isnan(row)) and row.min() < np.inf:
                    count += 1
    return widths[:count]


@njit(cache=True, nogil=True)
def _half_width(data: Float32, excluded: Bool, y: int, x: int, dy: int, dx: int) -> float:
    """Walk from a peak to half of it: at most 30 steps, else infinite; NaN where something is in the way."""
    half = 0.5 * data[y, x]
    before = data[y, x]
    for k in range(1, 31):
        j, i = y + k * dy, x + k * dx
        if not (0 <= j < data.shape[0] and 0 <= i < data.shape[1]) or excluded[j, i]:
            return np.nan
        value = data[j, i]
        if value < half:
            return float(k - 1 + (before - half) / (before - value))
        before = value
    return np.inf
