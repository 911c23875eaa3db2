"""Single pixels of a new image once the static sky is away: what no source can be, and what was lost."""

import numpy as np
from numba import njit
from scipy.fft import irfft2, rfft2

from seechange_core.frames import Bool, Float32

_REACH = 2
"""Lost pixels are filled from usable ones within so many rows and columns."""
_NOISE = 0.02
"""Noise of a pixel over the variance of the light, where a lost pixel is filled."""
_CANNOT_TELL = 2.0
"""What the pixels around say of a source is known to this many sigma."""
_CACHED = 251
_ROUNDS = 3
_HALF = 3
_MIN_SIGMA = 6.0
_MIN_SIGMA_BESIDE = 3.0
"""Beside what is already known to be hit, less is enough."""
_SHARPER = 1.15
"""A hit is more significant alone than as the peak of a source, by this factor at least."""
_MODEL_ERROR = 0.1
"""Fraction of the static light of a pixel's neighbours that may be left without being a hit."""
_WING_ERROR = 0.01
_WING = 12
"""And this fraction of the brightest static pixel within so many: the prediction rings beside stars."""


def light_covariance(psf: Float32) -> Float32:
    """Return how the light of point sources at random places is correlated, 1 at lag 0.

    Parameters
    ----------
    psf
        (size, size) stamp.

    Returns
    -------
    Float32
        (9, 9): lags of -4 to 4 pixels.
    """
    side = 2 * psf.shape[0]
    spectrum = rfft2(psf, (side, side))
    plane = np.roll(irfft2(spectrum.real**2 + spectrum.imag**2, (side, side)), (4, 4), (0, 1))[:9, :9]
    return np.ascontiguousarray(plane / plane[4, 4], np.float32)


def fill_lost(
    residual: Float32, usable: Bool, wanted: Bool, covariance: Float32, struck: Bool, hits: Bool
) -> Float32:
    """Predict lost pixels of an image of point sources from the pixels around (Wiener interpolation).

    The best linear prediction for light of the given covariance and little noise: a source on a lost pixel
    keeps its flux, as far as it reaches beyond it.

    Parameters
    ----------
    residual
        (H, W) float32; anything where not usable.
    usable, wanted
        (H, W): pixels to learn from, pixels to predict.
    covariance
        See `light_covariance`.
    struck, hits
        (H, W): nothing is learnt from these and what touches them, for it may have had part of a hit.

    Returns
    -------
    Float32
        (H, W): predictions where wanted, 0 elsewhere and where nothing usable is near.
    """
    out = np.zeros(residual.shape, np.float32)
    _predict(residual, usable, wanted, covariance.astype(np.float64), struck, hits, out)
    return out


@njit(cache=True, nogil=True)
def _predict(residual, usable, wanted, covariance, struck, hits, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0912
    height, width = residual.shape
    most = (2 * _REACH + 1) ** 2
    at_y = np.empty(most, np.int64)
    at_x = np.empty(most, np.int64)
    matrix = np.empty((most, most))
    right = np.empty(most)
    # Where the usable neighbours lie decides how they count: bad columns ask for the same again and again.
    known = np.full(_CACHED, -1, np.int64)
    weights = np.empty((_CACHED, most))
    for place in range(wanted.size):
        y, x = place // width, place % width
        if not wanted[y, x]:
            continue
        n = 0
        pattern = 0
        for v in range(max(0, y - _REACH), min(height, y + _REACH + 1)):
            for u in range(max(0, x - _REACH), min(width, x + _REACH + 1)):
                if usable[v, u] and not _beside(struck, hits, v, u):
                    at_y[n], at_x[n] = v, u
                    pattern |= 1 << ((v - y + _REACH) * (2 * _REACH + 1) + u - x + _REACH)
                    n += 1
        if n == 0:
            continue
        slot = pattern % _CACHED
        weight = weights[slot]
        if known[slot] == pattern:
            value = 0.0
            for i in range(n):
                value += weight[i] * residual[at_y[i], at_x[i]]
            out[y, x] = value
            continue
        known[slot] = pattern
        for i in range(n):
            for j in range(i + 1):
                matrix[i, j] = covariance[at_y[i] - at_y[j] + 4, at_x[i] - at_x[j] + 4]
            matrix[i, i] += _NOISE
            right[i] = covariance[at_y[i] - y + 4, at_x[i] - x + 4]
        # Cholesky, then both triangles.
        for j in range(n):
            for i in range(j, n):
                total = matrix[i, j]
                for m in range(j):
                    total -= matrix[i, m] * matrix[j, m]
                matrix[i, j] = np.sqrt(total) if i == j else total / matrix[j, j]
        for i in range(n):
            for m in range(i):
                right[i] -= matrix[i, m] * right[m]
            right[i] /= matrix[i, i]
        for i in range(n - 1, -1, -1):
            for m in range(i + 1, n):
                right[i] -= matrix[m, i] * right[m]
            right[i] /= matrix[i, i]
        value = 0.0
        for i in range(n):
            weight[i] = right[i]
            value += right[i] * residual[at_y[i], at_x[i]]
        out[y, x] = value


def find_hits(
    residual: Float32, variance: Float32, usable: Bool, struck: Bool, model: Float32, psf: Float32
) -> Bool:
    """Find pixels too sharp for a source: remains of cosmic rays that a single image could not tell.

    A pixel is one where its own significance exceeds that of the best point source next to it. A source's
    brightest pixel has P_0 / sqrt(sum P^2) of the source's significance, 0.35 with a FWHM of 3.8 pixels and
    0.7 with 1.9; a single hit pixel has the inverse. Beside a known hit a pixel is one where it is brighter
    than any source that the pixels further away allow.

    Parameters
    ----------
    residual, variance
        (H, W) float32: new image minus its prediction, and its variance.
    usable
        (H, W).
    struck
        (H, W): hits that are known.
    model
        (H, W) the prediction.
    psf
        (size, size) of the new image.

    Returns
    -------
    Bool
        (H, W).
    """
    hits = np.zeros(residual.shape, np.bool_)
    y, x = _bright(residual, variance, usable, np.float32(_MIN_SIGMA_BESIDE))
    if not len(y):
        return hits
    middle, half = psf.shape[0] // 2, _HALF
    core = psf[middle - half : middle + half + 1, middle - half : middle + half + 1]
    _hits(residual, variance, usable, struck, model, np.ascontiguousarray(core, np.float64), y, x, hits)
    return hits


@njit(cache=True, nogil=True)
def _bright(residual, variance, usable, n_sigma):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the rows and columns of usable pixels beyond so many sigma."""
    n = 0
    for y in range(residual.shape[0]):
        for x in range(residual.shape[1]):
            n += usable[y, x] and residual[y, x] > n_sigma * np.sqrt(variance[y, x])
    places = np.empty((2, n), np.int64)
    n = 0
    for y in range(residual.shape[0]):
        for x in range(residual.shape[1]):
            if usable[y, x] and residual[y, x] > n_sigma * np.sqrt(variance[y, x]):
                places[0, n], places[1, n] = y, x
                n += 1
    return places


@njit(cache=True, nogil=True)
def _hits(residual, variance, usable, struck, model, psf, rows, columns, hits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    height, width = residual.shape
    for _ in range(_ROUNDS):
        found = 0
        for k in range(len(rows)):
            y, x = rows[k], columns[k]
            if hits[y, x] or y < 1 or x < 1 or y > height - 2 or x > width - 2:
                continue
            sigma = np.sqrt(variance[y, x])
            beside = _beside(struck, hits, y, x)
            if not beside and residual[y, x] <= _MIN_SIGMA * sigma:
                continue
            left = _MODEL_ERROR * _brightest(model, y, x, 1) + _WING_ERROR * _brightest(model, y, x, _WING)
            own = (residual[y, x] - left) / sigma
            if beside:
                sharp = own - _expected(residual, sigma, usable, struck, psf, y, x, hits)
                hit = sharp > _MIN_SIGMA_BESIDE
            else:
                hit = own > _MIN_SIGMA
                hit = hit and own > _SHARPER * _best_source(residual, sigma, usable, psf, y, x, hits)
            if hit:
                hits[y, x] = True
                found += 1
        if not found:
            break


@njit(cache=True, nogil=True)
def _brightest(model, y, x, reach):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    light = 0.0
    for v in range(max(y - reach, 0), min(y + reach + 1, model.shape[0])):
        for u in range(max(x - reach, 0), min(x + reach + 1, model.shape[1])):
            light = max(light, model[v, u])
    return light


@njit(cache=True, nogil=True)
def _beside(struck, hits, y, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Tell if a pixel is one that was hit, or touches one."""
    for v in range(max(y - 1, 0), min(y + 2, hits.shape[0])):
        for u in range(max(x - 1, 0), min(x + 2, hits.shape[1])):
            if hits[v, u] or struck[v, u]:
                return True
    return False


@njit(cache=True, nogil=True)
def _expected(residual, sigma, usable, struck, psf, y, x, hits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the most that a source can give a pixel, in sigma, by the pixels around that no hit touches."""
    height, width = residual.shape
    best = 0.0
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            total = 0.0
            norm = 0.0
            for v in range(max(0, y + dy - _HALF), min(height, y + dy + _HALF + 1)):
                for u in range(max(0, x + dx - _HALF), min(width, x + dx + _HALF + 1)):
                    if usable[v, u] and not _beside(struck, hits, v, u) and not (v == y and u == x):
                        p = psf[v - y - dy + _HALF, u - x - dx + _HALF]
                        total += p * residual[v, u]
                        norm += p * p
            if norm > 0:
                at = psf[_HALF - dy, _HALF - dx]
                best = max(best, at * (total / (sigma * norm) + _CANNOT_TELL / np.sqrt(norm)))
    return best


@njit(cache=True, nogil=True)
def _best_source(residual, sigma, usable, psf, y, x, hits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the significance of the best point source within a pixel."""
    height, width = residual.shape
    best = 0.0
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            total = 0.0
            norm = 0.0
            for v in range(max(0, y + dy - _HALF), min(height, y + dy + _HALF + 1)):
                for u in range(max(0, x + dx - _HALF), min(width, x + dx + _HALF + 1)):
                    if usable[v, u] and not hits[v, u]:
                        p = psf[v - y - dy + _HALF, u - x - dx + _HALF]
                        total += p * residual[v, u]
                        norm += p * p
            if norm > 0:
                best = max(best, total / (sigma * np.sqrt(norm)))
    return best
