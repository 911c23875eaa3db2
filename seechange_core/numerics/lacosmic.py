"""Cosmic rays in a single image: L.A.Cosmic, done only where it matters.

After van Dokkum (2001, PASP 113, 1420). The Laplacian of the twice-subsampled image (its equations 6 to
10) is a cheap stencil, evaluated everywhere; medians are taken only around the few pixels where it is
significant, and later rounds look only around pixels found in the round before. Two tests are added to
those of the paper, for both follow from what stars are: a peak with the shape of a star is none, and on the
flank of something bright (a saturated star) a hit stands higher above two opposite neighbours than any sum of
stars can. At last hits take in the pixels at their edges that stand out of what was not hit.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.frames import Bool, Float, Float32
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
        Significance of the Laplacian from which a pixel is looked at.
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
    _fill(clean, excluded, excluded)
    hits = np.zeros(clean.shape, dtype=np.bool_)
    significance = np.empty(clean.shape, dtype=np.float32)
    _laplacian_everywhere(clean, variance, excluded, significance)
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
    """Return a neighbour's value; of an unusable one, what the pixel and the opposite neighbour let expect.

    A defect beside a star's core would otherwise look like the core's sharp edge: towards a core a straight
    line goes on, away from it an exponential.
    """
    height, width = clean.shape
    v, u = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
    if not excluded[v, u]:
        return float(clean[v, u])
    v, u = min(max(y - dy, 0), height - 1), min(max(x - dx, 0), width - 1)
    here, there = float(clean[y, x]), float(clean[v, u])
    if excluded[v, u]:
        return here
    if there <= here:
        return 2 * here - there
    return here * here / there if here > 0 else here


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
def _laplacian_everywhere(clean: Float32, variance: Float32, excluded: Bool, significance: Float32) -> None:
    """Fill `significance` with L+ / 2 over the background noise."""
    height, width = clean.shape
    zero, two, eighth = np.float32(0), np.float32(2), np.float32(0.125)
    for y in range(height):
        row, out, noise2 = clean[y], significance[y], variance[y]
        below, above = clean[max(y - 1, 0)], clean[min(y + 1, height - 1)]
        # Simple enough for the compiler to take several pixels at a time.
        for x in range(1, width - 1):
            twice = two * row[x]
            left, right, down, up = twice - row[x - 1], twice - row[x + 1], below[x], above[x]
            total = max(left - down, zero) + max(left - up, zero)
            total += max(right - down, zero) + max(right - up, zero)
            out[x] = eighth * total / np.sqrt(noise2[x])
        for x in (0, width - 1):
            out[x] = _laplacian(clean, excluded, y, x) / np.sqrt(noise2[x])
    for y in range(height):
        for x in range(width):
            if excluded[y, x]:
                for j in range(max(0, y - 1), min(height, y + 2)):
                    for i in range(max(0, x - 1), min(width, x + 2)):
                        if j == y or i == x:
                            significance[j, i] = _laplacian(clean, excluded, j, i) / np.sqrt(variance[j, i])


@njit(cache=True, nogil=True)
def _excess(
    clean: Float32, variance: Float32, significance: Float32, y: int, x: int, scratch: Float
) -> tuple[float, float, float]:
    """Return S' (S less its 5 x 5 median, equation 13) with source noise, that noise, the light around."""
    background = np.sqrt(variance[y, x])
    # A single hit pixel raises neither median; a sharp star's core raises the smaller one.
    around = _window_median(clean, y, x, 2, scratch)
    source = max(around, _window_median(clean, y, x, 1, scratch), 0.0)
    noise = np.sqrt(variance[y, x] + source)
    smooth = _window_median(significance, y, x, 2, scratch)
    return (significance[y, x] - smooth) * background / noise, noise, around


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
        if excess <= n_sigma:
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
                median = _median(scratch, count)
                noise = np.sqrt(variance[y, x] + max(median, 0.0))
                # On a star its own slopes spread more than the noise does; hits spread only the upper half.
                spread = (median - scratch[count // 4]) / 0.67
                if data[y, x] - median <= threshold * max(noise, spread):
                    continue
                if not belongs_to_star(data, variance, excluded, y, x, templates):
                    hits[y, x] = True
                    found[total, 0] = y
                    found[total, 1] = x
                    total += 1
    return found[:total]
