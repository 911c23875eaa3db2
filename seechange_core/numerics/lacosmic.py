"""Cosmic rays in a single image: L.A.Cosmic, done only where it matters.

After van Dokkum (2001, PASP 113, 1420). The Laplacian of the twice-subsampled image (its equations 6 to
10) is a cheap stencil, evaluated everywhere; medians are taken only around the few pixels where it is
significant, and later rounds look only around pixels found in the round before.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.frames import Bool, Float, Float32

Index = npt.NDArray[np.int64]

#: Largest Laplacian-to-fine-structure ratio of a noiseless star (Gaussian or Moffat, any position within
#: the pixel) by its FWHM in pixels; a cosmic ray on blank sky has an unbounded one.
_STAR_FWHM_PIX = np.array([1.5, 1.8, 2.0, 2.5, 3.0, 4.0])
_STAR_RATIO = np.array([3.34, 1.69, 1.19, 0.62, 0.41, 0.21])
#: Standard deviation of the fine structure (3 x 3 minus 7 x 7 medians) of white noise of unit sigma.
_FINE_STRUCTURE_NOISE = 0.40


def star_limit(fwhm_pix: float) -> float:
    """Return the Laplacian-to-fine-structure ratio above which nothing as wide as `fwhm_pix` can lie.

    The ratio of a star, with a quarter to spare; interpolated in the logarithms, and not below 0.5,
    where noise rather than sampling sets it.
    """
    ratio = np.exp(np.interp(np.log(fwhm_pix), np.log(_STAR_FWHM_PIX), np.log(_STAR_RATIO)))
    return max(0.5, 1.25 * float(ratio))


def sharp_star_fwhm(data: Float32, variance: Float32, excluded: Bool, lowest: float = 1.5) -> float:
    """Return a FWHM (pixels) that the image's stars exceed, for `find_cosmic_rays`.

    Round peaks above 50 sigma whose eight neighbours all stand above 5 sigma are mostly stars; the
    second difference of the logarithm gives the width of a Gaussian wherever it lies within the pixel.
    Four fifths of the lower quintile leave room for galaxies (too wide) and for bright hits among
    them (too narrow, which only makes the search more careful).

    Parameters
    ----------
    data, variance, excluded
        As for `find_cosmic_rays`.
    lowest
        The answer is never below this, and is this when there are fewer than 15 such peaks; nor
        above 3 pixels, where sampling no longer matters.
    """
    inner = np.s_[1:-1, 1:-1]
    noise = np.sqrt(variance)
    rows, columns = np.nonzero((data[inner] > 50 * noise[inner]) & ~excluded[inner])
    rows, columns = rows + 1, columns + 1
    around = {(j, i): (rows + j, columns + i) for j in (-1, 0, 1) for i in (-1, 0, 1)}
    peak = data[rows, columns]
    good = np.ones(peak.size, dtype=np.bool_)
    for place in around.values():
        good &= (data[place] <= peak) & ~excluded[place] & (data[place] > 5 * noise[place])
    logs = {step: np.log(data[place][good]) for step, place in around.items()}
    along_x = np.maximum(logs[0, 0] - (logs[0, -1] + logs[0, 1]) / 2, 1e-3)
    along_y = np.maximum(logs[0, 0] - (logs[-1, 0] + logs[1, 0]) / 2, 1e-3)
    is_round = np.abs(np.log(along_x / along_y)) < np.log(1.8)
    if is_round.sum() < 15:
        return lowest
    fwhm = 2.3548 / np.sqrt(along_x + along_y)[is_round]
    return float(np.clip(0.8 * np.percentile(fwhm, 20), lowest, max(lowest, 3.0)))


def find_cosmic_rays(
    data: Float32,
    variance: Float32,
    excluded: Bool,
    *,
    n_sigma: float = 4.5,
    neighbour_sigma: float = 2.0,
    star_fwhm_pix: float = 1.5,
    iterations: int = 4,
) -> Bool:
    """Find pixels hit by cosmic rays.

    Parameters
    ----------
    data
        (H, W) float32, electrons, finite, sky subtracted.
    variance
        (H, W) float32, background variance in e-^2; the photon noise of sources is added here.
    excluded
        (H, W) bool, pixels known to be unusable: never returned. Where they are low (dead) they are
        replaced by their neighbours before looking; where high (saturated) they stay.
    n_sigma
        Significance of the Laplacian from which a pixel is looked at.
    neighbour_sigma
        The same for pixels touching one that was found.
    star_fwhm_pix
        The sharpest star there can be; anything no sharper than that is left alone.
    iterations
        Rounds; in each the hits found are replaced by their surroundings, which uncovers wider ones.

    Returns
    -------
    ndarray
        (H, W) bool.
    """
    clean = np.array(data, dtype=np.float32)
    variance = np.ascontiguousarray(variance, dtype=np.float32)
    _fill(clean, excluded, excluded)
    hits = np.zeros(clean.shape, dtype=np.bool_)
    significance = np.empty(clean.shape, dtype=np.float32)
    seeds = _laplacian_everywhere(clean, variance, excluded, significance, n_sigma)
    limit = star_limit(star_fwhm_pix)
    for _ in range(iterations):
        fresh = _judge(clean, variance, significance, excluded, hits, seeds, n_sigma, limit)
        if fresh.shape[0] == 0:
            break
        for threshold in (n_sigma, neighbour_sigma):
            fresh = _spread(clean, variance, significance, excluded, hits, fresh, threshold)
        seeds = _heal(clean, variance, significance, excluded, hits, fresh, n_sigma)
    return hits


@njit(cache=True, nogil=True)
def _median(values: Float, count: int) -> float:
    """Return the median of the first `count` values, sorting them in place."""
    for i in range(1, count):
        value = values[i]
        k = i
        while k > 0 and values[k - 1] > value:
            values[k] = values[k - 1]
            k -= 1
        values[k] = value
    return float(0.5 * (values[(count - 1) // 2] + values[count // 2]))


@njit(cache=True, nogil=True)
def _window_median(image: Float32, y: int, x: int, radius: int, scratch: Float) -> float:
    height, width = image.shape
    count = 0
    for j in range(max(0, y - radius), min(height, y + radius + 1)):
        for i in range(max(0, x - radius), min(width, x + radius + 1)):
            scratch[count] = image[j, i]
            count += 1
    return _median(scratch, count)


@njit(cache=True, nogil=True)
def _unmasked_median(image: Float32, mask: Bool, y: int, x: int, scratch: Float) -> float:
    """Median of what is not masked within 2 pixels; NaN if nothing."""
    height, width = image.shape
    count = 0
    for j in range(max(0, y - 2), min(height, y + 3)):
        for i in range(max(0, x - 2), min(width, x + 3)):
            if not mask[j, i]:
                scratch[count] = image[j, i]
                count += 1
    return _median(scratch, count) if count > 0 else np.nan


@njit(cache=True, nogil=True)
def _between(image: Float32, mask: Bool, y: int, x: int, scratch: Float) -> float:
    """Interpolate a pixel between usable neighbours on opposite sides; else take the median around it.

    Only opposite neighbours know how high the core of a star stands that a bad column runs through.
    """
    height, width = image.shape
    total = 0.0
    count = 0
    if 0 < x < width - 1 and not mask[y, x - 1] and not mask[y, x + 1]:
        total += image[y, x - 1] + image[y, x + 1]
        count += 2
    if 0 < y < height - 1 and not mask[y - 1, x] and not mask[y + 1, x]:
        total += image[y - 1, x] + image[y + 1, x]
        count += 2
    return total / count if count > 0 else _unmasked_median(image, mask, y, x, scratch)


@njit(cache=True, nogil=True)
def _fill(clean: Float32, wanted: Bool, mask: Bool) -> None:
    """Replace wanted pixels that differ from a star's plateau by what lies around them."""
    height, width = clean.shape
    scratch = np.empty(25)
    for y in range(height):
        for x in range(width):
            if wanted[y, x]:
                value = _between(clean, mask, y, x, scratch)
                # Inside a saturated star there is nothing to replace with, and its plateau is smooth.
                if np.isfinite(value) and not clean[y, x] > value:
                    clean[y, x] = value


@njit(cache=True, nogil=True)
def _beyond(clean: Float32, excluded: Bool, y: int, x: int, dy: int, dx: int) -> float:
    """Return a neighbour's value; of an unusable one, what a straight line through the pixel gives there.

    A defect beside a star's core would otherwise look like the core's sharp edge.
    """
    height, width = clean.shape
    v, u = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
    if not excluded[v, u]:
        return float(clean[v, u])
    v, u = min(max(y - dy, 0), height - 1), min(max(x - dx, 0), width - 1)
    if not excluded[v, u]:
        return float(2 * clean[y, x] - clean[v, u])
    return float(clean[y, x])


@njit(cache=True, nogil=True)
def _laplacian(clean: Float32, excluded: Bool, y: int, x: int) -> float:
    """Return L+ / 2 of one pixel: an isolated pixel of height A on a flat sky gives A.

    Each of the four subpixels has two neighbours in its own pixel and two in adjacent ones;
    negative second derivatives of each are dropped before averaging.
    """
    twice = 2 * clean[y, x]
    left, right = _beyond(clean, excluded, y, x, 0, -1), _beyond(clean, excluded, y, x, 0, 1)
    down, up = _beyond(clean, excluded, y, x, -1, 0), _beyond(clean, excluded, y, x, 1, 0)
    total: float = (
        max(twice - left - down, 0.0)
        + max(twice - left - up, 0.0)
        + max(twice - right - down, 0.0)
        + max(twice - right - up, 0.0)
    )
    return 0.125 * total


@njit(cache=True, nogil=True)
def _laplacian_everywhere(
    clean: Float32, variance: Float32, excluded: Bool, significance: Float32, threshold: float
) -> Index:
    """Fill `significance` with L+ / 2 over the background noise; return where it exceeds `threshold`."""
    height, width = clean.shape
    count = 0
    for y in range(height):
        for x in range(width):
            value = _laplacian(clean, excluded, y, x) / np.sqrt(variance[y, x])
            significance[y, x] = value
            if value > threshold:
                count += 1
    seeds = np.empty((count, 2), dtype=np.int64)
    count = 0
    for y in range(height):
        for x in range(width):
            if significance[y, x] > threshold:
                seeds[count, 0] = y
                seeds[count, 1] = x
                count += 1
    return seeds


@njit(cache=True, nogil=True)
def _excess(
    clean: Float32, variance: Float32, significance: Float32, y: int, x: int, scratch: Float
) -> tuple[float, float]:
    """Return S' (S less its 5 x 5 median, equation 13) with source noise, and that noise."""
    background = np.sqrt(variance[y, x])
    # A single hit pixel raises neither median; a sharp star's core raises the smaller one.
    source = max(_window_median(clean, y, x, 2, scratch), _window_median(clean, y, x, 1, scratch), 0.0)
    noise = np.sqrt(variance[y, x] + source)
    smooth = _window_median(significance, y, x, 2, scratch)
    return (significance[y, x] - smooth) * background / noise, noise


@njit(cache=True, nogil=True)
def _fine_structure(clean: Float32, y: int, x: int, scratch: Float) -> float:
    """Return the 3 x 3 median less the 7 x 7 median of 3 x 3 medians (equation 14)."""
    height, width = clean.shape
    medians = np.empty(49)
    count = 0
    for j in range(max(0, y - 3), min(height, y + 4)):
        for i in range(max(0, x - 3), min(width, x + 4)):
            medians[count] = _window_median(clean, j, i, 1, scratch)
            count += 1
    return _window_median(clean, y, x, 1, scratch) - _median(medians, count)


@njit(cache=True, nogil=True)
def _judge(
    clean: Float32,
    variance: Float32,
    significance: Float32,
    excluded: Bool,
    hits: Bool,
    seeds: Index,
    n_sigma: float,
    limit: float,
) -> Index:
    """Keep the seeds that are significant and sharper than any star; mark them as hits."""
    scratch = np.empty(49)
    fresh = np.empty_like(seeds)
    count = 0
    for k in range(seeds.shape[0]):
        y, x = seeds[k, 0], seeds[k, 1]
        if excluded[y, x] or hits[y, x]:
            continue
        excess, noise = _excess(clean, variance, significance, y, x, scratch)
        if excess <= n_sigma:
            continue
        # The fine structure may have come out low by chance: faint stars get the benefit of the doubt.
        fine = max(_fine_structure(clean, y, x, scratch) / noise, 0.0) + _FINE_STRUCTURE_NOISE
        if excess > limit * fine:
            hits[y, x] = True
            fresh[count, 0] = y
            fresh[count, 1] = x
            count += 1
    return fresh[:count]


@njit(cache=True, nogil=True)
def _spread(
    clean: Float32,
    variance: Float32,
    significance: Float32,
    excluded: Bool,
    hits: Bool,
    fresh: Index,
    threshold: float,
) -> Index:
    """Add to new hits their direct neighbours above the threshold, however smooth."""
    height, width = clean.shape
    scratch = np.empty(49)
    total = fresh.shape[0]
    found = np.empty((total * 9, 2), dtype=np.int64)
    for k in range(total):  # not a slice assignment, which takes 3 s to compile
        found[k, 0] = fresh[k, 0]
        found[k, 1] = fresh[k, 1]
    for k in range(fresh.shape[0]):
        for y in range(max(0, found[k, 0] - 1), min(height, found[k, 0] + 2)):
            for x in range(max(0, found[k, 1] - 1), min(width, found[k, 1] + 2)):
                if hits[y, x] or excluded[y, x] or significance[y, x] <= threshold:
                    continue
                if _excess(clean, variance, significance, y, x, scratch)[0] > threshold:
                    hits[y, x] = True
                    found[total, 0] = y
                    found[total, 1] = x
                    total += 1
    return found[:total]


@njit(cache=True, nogil=True)
def _heal(
    clean: Float32,
    variance: Float32,
    significance: Float32,
    excluded: Bool,
    hits: Bool,
    fresh: Index,
    n_sigma: float,
) -> Index:
    """Replace new hits by their surroundings; return where to look next, some places twice."""
    height, width = clean.shape
    scratch = np.empty(25)
    for k in range(fresh.shape[0]):
        value = _unmasked_median(clean, hits, fresh[k, 0], fresh[k, 1], scratch)
        clean[fresh[k, 0], fresh[k, 1]] = value if np.isfinite(value) else 0.0
    seeds = np.empty((fresh.shape[0] * 25, 2), dtype=np.int64)
    count = 0
    for k in range(fresh.shape[0]):
        for y in range(max(0, fresh[k, 0] - 2), min(height, fresh[k, 0] + 3)):
            for x in range(max(0, fresh[k, 1] - 2), min(width, fresh[k, 1] + 3)):
                significance[y, x] = _laplacian(clean, excluded, y, x) / np.sqrt(variance[y, x])
                if significance[y, x] > n_sigma and not excluded[y, x] and not hits[y, x]:
                    seeds[count, 0] = y
                    seeds[count, 1] = x
                    count += 1
    return seeds[:count]
