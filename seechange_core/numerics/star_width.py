"""How wide the stars of an image are, before anything is known of it."""

import numpy as np
from numba import njit

from seechange_core.frames import Bool, Float, Float32


def star_fwhm(data: Float32, variance: Float32, excluded: Bool, otherwise: float = 3.0) -> float:
    """Return the FWHM (pixels) of an image's sharper sources: the lower quartile at peaks above 50 sigma.

    Parameters
    ----------
    data, variance, excluded
        As for `find_streaks`.
    otherwise
        The answer where there are fewer than 5 such peaks.
    """
    widths = _peak_widths(data, variance, excluded)
    return float(np.percentile(widths, 25)) if widths.size >= 5 else otherwise


@njit(cache=True, nogil=True)
def _peak_widths(data: Float32, variance: Float32, excluded: Bool) -> Float:
    """Return the mean full width at half maximum, along x and y, of each clean peak above 50 sigma."""
    height, width = data.shape
    widths = np.empty(20000)
    count = 0
    for y in range(2, height - 2):
        for x in range(2, width - 2):
            peak = data[y, x]
            if not peak * peak > 2500.0 * variance[y, x] or peak <= 0 or count == widths.size:
                continue
            best = True
            for j in range(y - 1, y + 2):
                for i in range(x - 1, x + 2):
                    if data[j, i] > peak or excluded[j, i]:
                        best = False
            if best:
                across = _half_width(data, excluded, y, x, 0, 1) + _half_width(data, excluded, y, x, 0, -1)
                down = _half_width(data, excluded, y, x, 1, 0) + _half_width(data, excluded, y, x, -1, 0)
                if np.isfinite(across + down):
                    widths[count] = np.sqrt(across * down)
                    count += 1
    return widths[:count]


@njit(cache=True, nogil=True)
def _half_width(data: Float32, excluded: Bool, y: int, x: int, dy: int, dx: int) -> float:
    """Walk from a peak to half of it, at most 30 pixels; NaN if that is not reached."""
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
    return np.nan
