"""Choose what a convolution kernel is fitted on: bright sources, evenly spread, on good pixels."""

import numpy as np
from scipy.ndimage import maximum_filter, uniform_filter

from seechange_core.frames import Bool, Float, Float32, Int
from seechange_core.numerics.peaks import local_maxima, merge_close
from seechange_core.numerics.registration import Side

_MAX_STARS = 250
_CELLS = 8
"""Along the longer side; of each cell the brightest sources are taken, so that no corner goes without."""
_MIN_USABLE = 0.85


def choose_stars(source: Side, target: Side, half: int, margin: int, min_snr: float) -> tuple[Int, Int]:
    """Find bright sources with good pixels around, whatever their shape: a kernel carries galaxies as well.

    Parameters
    ----------
    source, target
        The image to be convolved and the one it should then look like.
    half
        Half-size of the stamp that will be cut.
    margin
        Pixels that the stamp needs around it.
    min_snr
        A star's, in the target.

    Returns
    -------
    y, x
        (n,) the middle pixels, brightest first within each cell, at most 250.
    """
    usable = (source.weight > 0) & (target.weight > 0)
    if not usable.any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    peaks = local_maxima(
        np.where(usable, target.data, np.float32(0)), _least_peak(target, min_snr), half + margin + 1
    )
    keep = merge_close(peaks.y, peaks.x, float(half))
    y, x = peaks.y[keep], peaks.x[keep]
    good = _is_clean(usable, y, x, half, round(1.2 * max(source.psf.fwhm_pix, target.psf.fwhm_pix)))
    y, x = y[good], x[good]
    chosen = _spread(y, x, usable.shape)
    return y[chosen], x[chosen]


def _least_peak(target: Side, min_snr: float) -> float:
    """Return the height of a star of the given S/N."""
    middle = target.psf.coefficients[0].astype(float)
    area = 1 / float(np.sum(middle**2))
    sky = area / typical_weight(target)
    photons = min_snr**2 / target.gain
    return float(0.5 * (photons + np.sqrt(photons**2 + 4 * min_snr**2 * sky)) * middle.max())


def _is_clean(usable: Bool, y: Int, x: Int, half: int, core: int) -> Bool:
    """Tell where all pixels near the middle are usable, and most of the stamp's."""
    boxes = (usable[j - half : j + half + 1, i - half : i + half + 1] for j, i in zip(y, x, strict=True))
    inner = slice(half - core, half + core + 1)
    return np.array([box[inner, inner].all() and box.mean() > _MIN_USABLE for box in boxes], bool)


def _spread(y: Int, x: Int, shape: tuple[int, ...]) -> Int:
    """Return the rows of the brightest of each cell; they come brightest first."""
    side = max(shape) / _CELLS
    cell = (y / side).astype(int) * _CELLS + (x / side).astype(int)
    order = np.argsort(cell, kind="stable")
    first = np.searchsorted(cell[order], cell[order])
    rank = np.empty(len(y), int)
    rank[order] = np.arange(len(y)) - first
    return np.sort(np.argsort(rank, kind="stable")[:_MAX_STARS])


def stamp_weights(source: Side, target: Side, y: Int, x: Int, half: int, spread: float) -> Float:
    """Return 1 / variance of target minus convolved source around positions, 0 where either is unusable.

    Parameters
    ----------
    source, target
        The images.
    y, x, half
        Of the stamps, one pixel away from the rim at least.
    spread
        Sum of the squared kernel: what convolution leaves of white noise.

    Returns
    -------
    (n, 2 half + 1, 2 half + 1) float64.
    """
    inner = slice(1, -1)
    known = cut_stamps(target.weight, y, x, half)
    bad = cut_stamps(source.weight, y, x, half + 1) <= 0
    near = maximum_filter(bad.astype(np.uint8), (1, 3, 3), mode="nearest")[:, inner, inner] > 0
    usable = (known > 0) & ~near
    # Smoothed light: weights that follow a pixel's own noise would pull every fit to faint values.
    light = cut_stamps(target.data, y, x, half + 1)
    light = uniform_filter(light, (1, 3, 3), mode="nearest")[:, inner, inner]
    variance = 1 / np.where(usable, known, 1.0) + spread / typical_weight(source)
    variance += np.maximum(light, 0) * (1 / target.gain + spread / source.gain)
    return np.where(usable, 1 / variance, 0.0)


def typical_weight(side: Side) -> float:
    """Return the median weight of the usable pixels, of which there is at least one."""
    some = side.weight[::8, ::8]
    some = some[some > 0]
    return float(np.median(some if some.size else side.weight[side.weight > 0]))


def cut_stamps(image: Float32, y: Int, x: Int, half: int) -> Float:
    """Return (n, 2 half + 1, 2 half + 1) float64 pixels around whole positions, all inside the image."""
    steps = np.arange(-half, half + 1)
    return np.asarray(image[y[:, None, None] + steps[:, None], x[:, None, None] + steps], float)
