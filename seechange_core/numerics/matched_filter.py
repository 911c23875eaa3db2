"""The signal-to-noise of a Gaussian at every pixel of an image, by separable sums along columns and rows."""

import numba as nb
import numpy as np

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.frames import Float32

#: Cut at this many sigma the filter loses 1e-3 of a star's S/N.
_REACH = 2.5
#: Of the Gaussian that must lie on usable pixels.
_MIN_SHARE = 0.1


def gaussian_taps(fwhm_pix: float) -> Float32:
    """Return samples of a Gaussian, odd in number, of sum 1."""
    sigma = fwhm_pix / FWHM_PER_SIGMA
    half = max(1, int(np.ceil(_REACH * sigma)))
    steps = np.arange(-half, half + 1)
    row = np.exp(-0.5 * (steps / sigma) ** 2)
    taps: Float32 = (row / row.sum()).astype(np.float32)
    return taps


def matched_filter(data: Float32, weight: Float32, fwhm_pix: float) -> tuple[Float32, Float32]:
    """Filter an image with a Gaussian, pixels without weight left out.

    Parameters
    ----------
    data
        (H, W) float32, background removed; anything where there is no weight.
    weight
        (H, W) float32, 1 / variance per pixel; 0 where unusable.
    fwhm_pix
        Of the Gaussian: of stars, as they are on the pixels.

    Returns
    -------
    smooth
        (H, W) float32, the weighted mean of the data under the Gaussian; 0 where no pixel is usable.
    noise
        (H, W) float32, 1 sigma of `smooth`; infinite where hardly any pixel under the Gaussian is usable.
        ``smooth / noise`` is the S/N of a source there (Zackay & Ofek 2017, ApJ 836, 187, eq. 15).
    """
    taps = gaussian_taps(fwhm_pix)
    smooth = np.empty(data.shape, np.float32)
    noise = np.empty(data.shape, np.float32)
    sample = weight[::8, ::8]
    sample = sample[sample > 0] if np.any(sample > 0) else weight[weight > 0]
    least = np.float32(_MIN_SHARE * np.median(sample)) if sample.size else np.float32(0)
    _filter(np.ascontiguousarray(data), np.ascontiguousarray(weight), taps, least, smooth, noise)
    return smooth, noise


@nb.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _filter(
    data: Float32, weight: Float32, taps: Float32, least: np.float32, smooth: Float32, noise: Float32
) -> None:
    """Fill `smooth` and `noise`, one row after the other: sums down the columns first, then along the row.

    Taps are symmetric: what lies at the same distance on both sides is added first.
    """
    height, width = data.shape
    half = len(taps) // 2
    # What lies beyond the rim has no weight.
    signal = np.zeros(width + 2 * half, np.float32)
    total = np.zeros(width + 2 * half, np.float32)
    square = np.zeros(width + 2 * half, np.float32)
    s_row = np.empty(width, np.float32)
    w_row = np.empty(width, np.float32)
    v_row = np.empty(width, np.float32)
    nothing = np.zeros(width, np.float32)
    for y in range(height):
        for k in range(half + 1):
            tap = taps[half + k]
            tap2 = tap * tap
            above, below = y - k, y + k
            w_above = weight[above] if above >= 0 else nothing
            d_above = data[above] if above >= 0 else nothing
            w_below = weight[below] if k > 0 and below < height else nothing
            d_below = data[below] if k > 0 and below < height else nothing
            keep = np.float32(k > 0)
            for x in range(width):
                w_a, w_b = w_above[x], w_below[x]
                light = w_a * d_above[x] if w_a > 0 else np.float32(0)
                light += w_b * d_below[x] if w_b > 0 else np.float32(0)
                total[half + x] = keep * total[half + x] + tap * (w_a + w_b)
                square[half + x] = keep * square[half + x] + tap2 * (w_a + w_b)
                signal[half + x] = keep * signal[half + x] + tap * light
        middle = taps[half]
        for x in range(width):
            s_row[x] = middle * signal[half + x]
            w_row[x] = middle * total[half + x]
            v_row[x] = middle * middle * square[half + x]
        for k in range(1, half + 1):
            tap = taps[half + k]
            tap2 = tap * tap
            left, right = half - k, half + k
            for x in range(width):
                s_row[x] += tap * (signal[left + x] + signal[right + x])
                w_row[x] += tap * (total[left + x] + total[right + x])
                v_row[x] += tap2 * (square[left + x] + square[right + x])
        for x in range(width):
            w = w_row[x]
            smooth[y, x] = s_row[x] / w if w > least else np.float32(0)
            noise[y, x] = np.sqrt(v_row[x]) / w if w > least else np.float32(np.inf)
