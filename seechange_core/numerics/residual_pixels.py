"""Single pixels of a new image once the static sky is away: what no source can be, and what was lost."""

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.fft import irfft2, rfft2

from seechange_core.frames import Bool, Float, Float32

_REACH = 2
"""Lost pixels are filled from usable ones within so many rows and columns."""
_NOISE = 0.02
"""Noise of a pixel over the variance of the light, where a lost pixel is filled."""
_ASIDE = 1.4
_NOISE_BEYOND = 1.0
"""And where usable ones lie on average farther off than that: an edge, which noise is not carried over."""
_CACHED = 251
_ROUNDS = 8
_HALF = 3
_MIN_SIGMA = 6.0
_MIN_SIGMA_BESIDE = 2.5
"""Beside what is already known to be hit, less is enough."""
_WINDOW = 2
"""A point source is fitted to pixels within so many rows and columns."""
_FARTHEST = 4
"""Its place is at most a FWHM and so many pixels away."""
_FRACTIONS = 4
"""And at places so many to the pixel."""
_PSF_ERROR = 0.1
"""Of its light per pixel: of places between, of the PSF."""
_FEWEST = 3
"""Usable neighbours of a pixel beside a hit, without which nothing tells it from the hit."""
_SHARPER = 1.15
"""A hit is more significant alone than as the peak of a source, by this factor at least."""
_MODEL_ERROR = 0.06
"""Fraction of the static light of a pixel's neighbours that may be left without being a hit."""
_WING_ERROR = 0.005
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
    for place in np.flatnonzero(wanted):
        y, x = place // width, place % width
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
        aside = (np.sum(at_y[:n] - y) ** 2 + np.sum(at_x[:n] - x) ** 2) > (_ASIDE * n) ** 2
        for i in range(n):
            for j in range(i + 1):
                matrix[i, j] = covariance[at_y[i] - at_y[j] + 4, at_x[i] - at_x[j] + 4]
            matrix[i, i] += _NOISE_BEYOND if aside else _NOISE
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
    residual: Float32, variance: Float32, usable: Bool, struck: Bool, wrong: Float32, psf: Float32
) -> Bool:
    """Find pixels too sharp for a source: remains of cosmic rays that a single image could not tell.

    A pixel is one where its own significance exceeds that of the best point source next to it. A source's
    brightest pixel has P_0 / sqrt(sum P^2) of the source's significance, 0.35 with a FWHM of 3.8 pixels and
    0.7 with 1.9; a single hit pixel has the inverse. Beside a known hit, where most of what is left is of the
    same ray, pixels that stand out are hits until what remains around them may be a point source.

    Parameters
    ----------
    residual, variance
        (H, W) float32: new image minus its prediction, and its variance.
    usable
        (H, W).
    struck
        (H, W): hits that are known.
    wrong
        (H, W) float32: see `prediction_error`.
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
    order = np.argsort(-residual[y, x] / np.sqrt(variance[y, x]))
    core = _middle(psf, _HALF)
    # Of a Gaussian the peak is .88 / FWHM^2.
    reach = min(max(1, round(float(np.sqrt(0.88 / psf.max())))), _FARTHEST)
    between = _between(_middle(psf, reach + _WINDOW))
    _hits(residual, variance, usable, struck, wrong, core, between, y[order], x[order], hits)
    return hits


def _middle(psf: Float32, half: int) -> Float:
    """Return the middle of a stamp, (2 half + 1, 2 half + 1)."""
    at = psf.shape[0] // 2
    return np.ascontiguousarray(psf[at - half : at + half + 1, at - half : at + half + 1], np.float64)


@njit(cache=True, nogil=True)
def _between(psf):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return a stamp moved by fractions of a pixel in y and x (cubic convolution: Keys 1981)."""
    n, size = _FRACTIONS, psf.shape[0]
    taps = np.empty((n, 4))
    for k in range(n):
        t = k / n
        taps[k, 0] = ((2 - t) * t - 1) * t / 2
        taps[k, 1] = ((3 * t - 5) * t * t + 2) / 2
        taps[k, 2] = ((4 - 3 * t) * t + 1) * t / 2
        taps[k, 3] = (t - 1) * t * t / 2
    out = np.zeros((n, n, size, size))
    for j in range(n):
        for i in range(n):
            for y in range(size):
                for x in range(size):
                    for b in range(4):
                        for a in range(4):
                            # Moved by t to the right, a pixel is what was t further left.
                            v, u = y + 1 - b, x + 1 - a
                            if 0 <= v < size and 0 <= u < size:
                                out[j, i, y, x] += taps[j, b] * taps[i, a] * psf[v, u]
    return out


def _bright(
    residual: Float32, variance: Float32, usable: Bool, n_sigma: np.float32
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows and columns of usable pixels beyond so many sigma."""
    beyond = np.empty(residual.shape, np.bool_)
    _beyond(residual.ravel(), variance.ravel(), n_sigma, beyond.ravel())
    beyond &= usable
    at = np.flatnonzero(beyond)
    return at // residual.shape[1], at % residual.shape[1]


@njit(cache=True, nogil=True)
def _beyond(residual, variance, n_sigma, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for k in range(len(out)):
        out[k] = (residual[k] > 0) & (residual[k] * residual[k] > n_sigma * n_sigma * variance[k])


@njit(cache=True, nogil=True)
def _hits(residual, variance, usable, struck, wrong, psf, between, rows, columns, hits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    height, width = residual.shape
    found_y, found_x, found = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64), 0
    looked = np.full(len(rows), -1, np.int64)
    for _ in range(_ROUNDS):
        before = found
        for k in range(len(rows)):
            y, x = rows[k], columns[k]
            if hits[y, x] or y < 1 or x < 1 or y > height - 2 or x > width - 2:
                continue
            # Nothing is different unless there is another hit since, as near as anything counts.
            news = looked[k] < 0
            for n in range(max(looked[k], 0), found):
                news |= abs(found_y[n] - y) <= _HALF + 1 and abs(found_x[n] - x) <= _HALF + 1
            looked[k] = found
            if not news:
                continue
            sigma = np.sqrt(variance[y, x])
            own = (residual[y, x] - wrong[y, x]) / sigma
            if _beside(struck, hits, y, x):
                hit = own > _MIN_SIGMA_BESIDE
                hit = hit and _stands_out(residual, variance, usable, wrong, between, y, x, hits)
            else:
                hit = own > _MIN_SIGMA
                hit = hit and not _is_source(own / _SHARPER, residual, sigma, usable, psf, y, x, hits)
            if hit:
                hits[y, x] = True
                found_y[found], found_x[found] = y, x
                found += 1
        if found == before:
            break


@njit(cache=True, nogil=True)
def _window(residual, variance, usable, wrong, y, x, hits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return data and variance around a pixel, how many are usable, and how many of those touch it."""
    side = 2 * _WINDOW + 1
    data, var = np.zeros((side, side)), np.full((side, side), np.inf)
    n, near = 0, -1
    for v in range(max(0, y - _WINDOW), min(residual.shape[0], y + _WINDOW + 1)):
        for u in range(max(0, x - _WINDOW), min(residual.shape[1], x + _WINDOW + 1)):
            if usable[v, u] and not hits[v, u]:
                j, i = v - y + _WINDOW, u - x + _WINDOW
                data[j, i] = residual[v, u]
                var[j, i] = variance[v, u] + wrong[v, u] ** 2
                n += 1
                near += abs(v - y) < 2 and abs(u - x) < 2
    return data, var, n, near


@njit(cache=True, nogil=True)
def _stands_out(residual, variance, usable, wrong, between, y, x, hits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Tell if no point source near fits what is around a pixel, and if the pixel is above the best one."""
    data, var, n, near = _window(residual, variance, usable, wrong, y, x, hits)
    weight = 1 / var
    side = len(data)
    reach = between.shape[2] // 2 - _WINDOW
    if near < _FEWEST:
        return True
    best, above = np.sum(data**2 * weight), data[_WINDOW, _WINDOW]
    middle = between.shape[2] // 2
    # From the middle outwards: most often a source that fits is near, and then no other is looked at.
    for j in range(1, 2 * reach * _FRACTIONS + 2):
        dy = j // 2 if j % 2 else -(j // 2)
        for i in range(1, 2 * reach * _FRACTIONS + 2):
            if best <= n:
                return False
            dx = i // 2 if i % 2 else -(i // 2)
            stamp = between[dy % _FRACTIONS, dx % _FRACTIONS]
            top, left = middle - _WINDOW - dy // _FRACTIONS, middle - _WINDOW - dx // _FRACTIONS
            total, norm = 0.0, 1e-30
            for v in range(side):
                for u in range(side):
                    p = stamp[top + v, left + u]
                    total += p * data[v, u] * weight[v, u]
                    norm += p * p * weight[v, u]
            flux = max(total / norm, 0.0)
            chi2 = 0.0
            for v in range(side):
                if chi2 >= best:
                    break
                for u in range(side):
                    p = flux * stamp[top + v, left + u]
                    chi2 += (data[v, u] - p) ** 2 / (var[v, u] + (_PSF_ERROR * p) ** 2)
            if chi2 < best:
                best = chi2
                above = data[_WINDOW, _WINDOW] - flux * stamp[top + _WINDOW, left + _WINDOW]
    return best > n and above > np.sqrt(variance[y, x])


def prediction_error(model: Float32) -> Float32:
    """Return how wrong a prediction of the static light, (H, W) float32, may be at each pixel."""
    wrong = np.zeros(model.shape, np.float32)
    _add_brightest(model, 1, np.float32(_MODEL_ERROR), wrong)
    _add_brightest(model, _WING, np.float32(_WING_ERROR), wrong)
    return wrong


@njit(cache=True, nogil=True)
def _add_brightest(plane: Float32, reach: int, factor: np.float32, out: Float32) -> None:
    """Add the highest value within so many rows and columns times a factor; 0 beyond the edge."""
    (height, width), wide = plane.shape, plane.shape[1] + 2 * reach
    highest = np.zeros((height + 2 * reach) * wide, np.float32)
    spare = highest.copy()
    for y in range(height):
        highest[(reach + y) * wide + reach :][:width] = plane[y]
    for stride in (1, wide):
        # The highest of 1, 2, 4, ... neighbours. What goes from one row to the next is not read.
        seen = 1
        while seen < 2 * reach + 1:
            step = min(seen, 2 * reach + 1 - seen)
            _higher(highest, highest[step * stride :], spare)
            highest, spare = spare, highest
            seen += step
    for y in range(height):
        line = highest[y * wide :][:width]
        for x in range(width):
            out[y, x] += factor * line[x]


@njit(cache=True, nogil=True)
def _higher(a: Float32, b: Float32, out: Float32) -> None:
    for j in range(len(b)):
        out[j] = a[j] if a[j] > b[j] else b[j]


@njit(cache=True, nogil=True)
def _beside(struck, hits, y, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Tell if a pixel is one that was hit, or touches one."""
    for v in range(max(y - 1, 0), min(y + 2, hits.shape[0])):
        for u in range(max(x - 1, 0), min(x + 2, hits.shape[1])):
            if hits[v, u] or struck[v, u]:
                return True
    return False


@njit(cache=True, nogil=True)
def _is_source(least, residual, sigma, usable, psf, y, x, hits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Tell if a point source within a pixel is as significant as that, at least."""
    height, width = residual.shape
    for dy in (0, -1, 1):
        for dx in (0, -1, 1):
            total = 0.0
            norm = 0.0
            for v in range(max(0, y + dy - _HALF), min(height, y + dy + _HALF + 1)):
                for u in range(max(0, x + dx - _HALF), min(width, x + dx + _HALF + 1)):
                    if usable[v, u] and not hits[v, u]:
                        p = psf[v - y - dy + _HALF, u - x - dx + _HALF]
                        total += p * residual[v, u]
                        norm += p * p
            if norm > 0 and total >= least * sigma * np.sqrt(norm):
                return True
    return False
