"""Cosmic rays in a single image: L.A.Cosmic, done only where it matters.

After van Dokkum (2001, PASP 113, 1420). The Laplacian of the twice-subsampled image (its equations 6 to
10) is a cheap stencil, evaluated everywhere; medians are taken only around the few pixels where it is
significant, and later rounds look only around pixels found in the round before. Two tests are added to
those of the paper, for both follow from what stars are: a peak with the shape of a star is none, and on the
flank of something bright (a saturated star) a hit stands higher above two opposite neighbours than any sum of
stars can. At last hits take in the pixels at their edges that stand out of what was not hit. Thresholds rise
where electrons are few, for counts of photons stray upwards more often than a Gaussian does.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.frames import Bool, Float, Float32
from seechange_core.numerics.laplacian import (
    fill,
    laplacian,
    laplacian_everywhere,
    median,
    unmasked_median,
    window_median,
)
from seechange_core.numerics.star_shape import PIXEL_FWHM2, belongs_to_star, star_templates

Index = npt.NDArray[np.int64]

#: Largest Laplacian-to-fine-structure ratio of a noiseless star (Gaussian or Moffat, any position within
#: the pixel) by its FWHM in pixels; a cosmic ray on blank sky has an unbounded one.
_STAR_FWHM_PIX = np.array([1.5, 1.8, 2.0, 2.5, 3.0, 4.0])
_STAR_RATIO = np.array([3.34, 1.69, 1.19, 0.62, 0.41, 0.21])
#: Standard deviation of the fine structure (3 x 3 minus 7 x 7 medians) of white noise of unit sigma.
_FINE_STRUCTURE_NOISE = 0.40
#: Rounds in which hits take in the pixels at their edges.
_EDGE_ROUNDS = 3
#: A pixel whose surroundings are this bright, as a share of its own, may lie on the flank of something.
_FLANK = 0.25


def star_limit(fwhm_pix: float) -> float:
    """Return the Laplacian-to-fine-structure ratio above which nothing as wide as `fwhm_pix` can lie.

    The ratio of a star, with a quarter to spare; interpolated in the logarithms, and not below 0.5,
    where noise rather than sampling sets it.
    """
    ratio = np.exp(np.interp(np.log(fwhm_pix), np.log(_STAR_FWHM_PIX), np.log(_STAR_RATIO)))
    return max(0.5, 1.25 * float(ratio))


def find_cosmic_rays(
    data: Float32,
    variance: Float32,
    excluded: Bool,
    *,
    n_sigma: float = 4.5,
    neighbour_sigma: float = 3.0,
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
        Significance of the Laplacian from which a pixel is looked at; more where electrons are few (4.5
        becomes 4.6 at a background variance of 200 e-^2, 5.4 at 5 e-^2).
    neighbour_sigma
        The same for pixels touching one that was found; at the end, what they must stand above the median of
        the pixels around that were not hit.
    star_fwhm_pix
        The sharpest star there can be (see `numerics.star_shape.sharp_star_fwhm`); anything no sharper than
        that is left alone, and so is what has the shape of such a star.
    iterations
        Rounds; in each the hits found are replaced by their surroundings, which uncovers wider ones.

    Returns
    -------
    ndarray
        (H, W) bool.
    """
    clean = np.array(data, dtype=np.float32, order="C")
    variance = np.ascontiguousarray(variance, dtype=np.float32)
    fill(clean, excluded, excluded)
    hits = np.zeros(clean.shape, dtype=np.bool_)
    significance = np.empty(clean.shape, dtype=np.float32)
    laplacian_everywhere(clean, variance, excluded, significance)
    seeds = np.argwhere(significance > n_sigma)
    limit, templates = star_limit(star_fwhm_pix), star_templates(star_fwhm_pix)
    steepest = 1.1 * float(np.exp(4 * np.log(2) / (star_fwhm_pix**2 + PIXEL_FWHM2)))
    everything = []
    for _ in range(iterations):
        fresh = _judge(
            clean, variance, significance, excluded, hits, seeds, n_sigma, limit, steepest, templates
        )
        if fresh.shape[0] == 0:
            break
        for threshold in (n_sigma, neighbour_sigma):
            fresh = _spread(clean, variance, significance, excluded, hits, fresh, threshold)
        seeds = _heal(clean, variance, significance, excluded, hits, fresh, n_sigma)
        everything.append(fresh)
    edge = np.concatenate([np.empty((0, 2), dtype=np.int64), *everything])
    for _ in range(_EDGE_ROUNDS):
        edge = _take_edges(data, variance, excluded, hits, edge, neighbour_sigma, templates)
    return hits


@njit(cache=True, nogil=True)
def _excess(
    clean: Float32, variance: Float32, significance: Float32, y: int, x: int, scratch: Float
) -> tuple[float, float, float]:
    """Return S' (S less its 5 x 5 median, equation 13) with source noise, that noise, the light around."""
    background = np.sqrt(variance[y, x])
    # A single hit pixel raises neither median; a sharp star's core raises the smaller one.
    around = window_median(clean, y, x, 2, scratch)
    source = max(around, window_median(clean, y, x, 1, scratch), 0.0)
    noise = np.sqrt(variance[y, x] + source)
    smooth = window_median(significance, y, x, 2, scratch)
    return (significance[y, x] - smooth) * background / noise, noise, around


@njit(cache=True, nogil=True)
def _upwards(n_sigma: float, noise: float, of_laplacian: bool) -> float:
    """Return the threshold that Poisson counts pass as rarely upwards as Gaussian noise passes `n_sigma`.

    The first term of Cornish & Fisher (1938), with the skewness 1 / noise of mere photons (readout noise,
    which has none, only lowers it). The Laplacian is a pixel less the mean of four: its variance is 1.25 and
    its third moment 0.94 of the pixel's. (The next terms, of skewness and kurtosis, cancel for it.)
    """
    if of_laplacian:
        return n_sigma + max(n_sigma**2 / 1.25 - 1, 0.0) / 8 / noise
    return n_sigma + max(n_sigma**2 - 1, 0.0) / 6 / noise


@njit(cache=True, nogil=True)
def _fine_structure(clean: Float32, y: int, x: int, scratch: Float) -> float:
    """Return the 3 x 3 median less the 7 x 7 median of 3 x 3 medians (equation 14)."""
    height, width = clean.shape
    medians = np.empty(49)
    count = 0
    for j in range(max(0, y - 3), min(height, y + 4)):
        for i in range(max(0, x - 3), min(width, x + 4)):
            medians[count] = window_median(clean, j, i, 1, scratch)
            count += 1
    return window_median(clean, y, x, 1, scratch) - median(medians, count)


@njit(cache=True, nogil=True)
def _steep(clean: Float32, excluded: Bool, y: int, x: int, noise: float, steepest: float) -> bool:
    """Tell whether a pixel stands higher above two opposite neighbours than any sum of stars can.

    Of a star, a pixel is at most `steepest` times the mean of its neighbours left and right (along the
    diagonal: the square of this), and so of any sum of stars, the flank of a saturated one among them.
    """
    height, width = clean.shape
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        if not (y - dy >= 0 and y + dy < height and abs(dx) <= x < width - abs(dx)):
            continue
        if excluded[y - dy, x - dx] or excluded[y + dy, x + dx]:
            continue
        factor = steepest if dy * dx == 0 else steepest**2
        most = factor * (clean[y - dy, x - dx] + clean[y + dy, x + dx]) / 2
        if clean[y, x] - most > 2.5 * noise * np.sqrt(1 + factor**2 / 2):
            return True
    return False


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
    steepest: float,
    templates: Float,
) -> Index:
    """Keep the seeds that are significant and sharper than any star; mark them as hits."""
    scratch = np.empty(49)
    fresh = np.empty_like(seeds)
    count = 0
    for k in range(seeds.shape[0]):
        y, x = seeds[k, 0], seeds[k, 1]
        if excluded[y, x] or hits[y, x]:
            continue
        excess, noise, around = _excess(clean, variance, significance, y, x, scratch)
        if excess <= _upwards(n_sigma, noise, True):
            continue
        # The fine structure may have come out low by chance: faint stars get the benefit of the doubt.
        structure = max(_fine_structure(clean, y, x, scratch) / noise, 0.0)
        if excess <= limit * (structure + _FINE_STRUCTURE_NOISE):
            continue
        if around > _FLANK * clean[y, x] and not _steep(clean, excluded, y, x, noise, steepest):
            continue
        if not belongs_to_star(clean, variance, excluded, y, x, templates):
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
                excess, noise, _ = _excess(clean, variance, significance, y, x, scratch)
                if excess > _upwards(threshold, noise, True):
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
        value = unmasked_median(clean, hits, fresh[k, 0], fresh[k, 1], scratch)
        clean[fresh[k, 0], fresh[k, 1]] = value if np.isfinite(value) else 0.0
    seeds = np.empty((fresh.shape[0] * 25, 2), dtype=np.int64)
    count = 0
    for k in range(fresh.shape[0]):
        for y in range(max(0, fresh[k, 0] - 2), min(height, fresh[k, 0] + 3)):
            for x in range(max(0, fresh[k, 1] - 2), min(width, fresh[k, 1] + 3)):
                significance[y, x] = laplacian(clean, excluded, y, x) / np.sqrt(variance[y, x])
                if significance[y, x] > n_sigma and not excluded[y, x] and not hits[y, x]:
                    seeds[count, 0] = y
                    seeds[count, 1] = x
                    count += 1
    return seeds[:count]


@njit(cache=True, nogil=True)
def _take_edges(
    data: Float32,
    variance: Float32,
    excluded: Bool,
    hits: Bool,
    places: Index,
    threshold: float,
    templates: Float,
) -> Index:
    """Add to hits the pixels around them that stand out of the median of what was not hit."""
    height, width = data.shape
    scratch = np.empty(25)
    found = np.empty((places.shape[0] * 8, 2), dtype=np.int64)
    total = 0
    for k in range(places.shape[0]):
        for y in range(max(0, places[k, 0] - 1), min(height, places[k, 0] + 2)):
            for x in range(max(0, places[k, 1] - 1), min(width, places[k, 1] + 2)):
                if hits[y, x] or excluded[y, x]:
                    continue
                count = 0
                for j in range(max(0, y - 2), min(height, y + 3)):
                    for i in range(max(0, x - 2), min(width, x + 3)):
                        if not hits[j, i] and not excluded[j, i]:
                            scratch[count] = data[j, i]
                            count += 1
                middle = median(scratch, count)
                noise = np.sqrt(variance[y, x] + max(middle, 0.0))
                # On a star its own slopes spread more than the noise does; hits spread only the upper half.
                spread = (middle - scratch[count // 4]) / 0.67
                if data[y, x] - middle <= _upwards(threshold, noise, False) * max(noise, spread):
                    continue
                if not belongs_to_star(data, variance, excluded, y, x, templates):
                    hits[y, x] = True
                    found[total, 0] = y
                    found[total, 1] = x
                    total += 1
    return found[:total]
