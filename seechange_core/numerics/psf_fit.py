"""Weighted least-squares photometry with a known PSF, of many sources at once.

Every pixel counts with its *model* variance, ``1 / weight + model light / gain``: weighting by the observed
pixel gives the pixels that fluctuated low too much say, and every flux comes out low. The fit is
``flux = sum(P d / V) / sum(P^2 / V)`` with variance ``1 / sum(P^2 / V)`` (Naylor 1998, MNRAS 296, 339,
eq. 12), extended by Gauss-Newton steps in position and, when asked, by a constant background.
"""

import math
from dataclasses import dataclass

import numba as nb
import numpy as np

from seechange_core.frames import Float, Float32, Int, PsfModel, Table
from seechange_core.numerics.psf import PAD, local_coefficients, shifted_stamp, spline_coefficients, terms_at

_MAX_STEPS = 12
#: A fit has converged when a step is below this share of the errors.
_STEP_SIGMA = 1e-3


@dataclass(frozen=True, eq=False)
class PsfFits(Table):
    """Results of PSF fits, one entry per source; NaN where nothing could be fitted.

    Attributes
    ----------
    x, y, x_err, y_err
        Position and its error, pixels; errors 0 where the position was fixed.
    flux, flux_err
        In the units of the image; `flux_err` is the noise alone, without the model's floor.
    chi2
        Reduced chi square within the fit radius.
    usable_fraction
        Of the PSF's light within the fit radius that fell on usable pixels.
    """

    x: Float
    y: Float
    x_err: Float
    y_err: Float
    flux: Float
    flux_err: Float
    chi2: Float
    usable_fraction: Float


def fit(
    residual: Float32,
    weight: Float32,
    psf: PsfModel,
    x: Float,
    y: Float,
    flux: Float,
    *,
    radius_pix: float,
    gain: float = 1.0,
    model: Float32 | None = None,
    free_position: bool = False,
    fit_background: bool = False,
    max_shift_pix: float = 2.0,
) -> PsfFits:
    """Fit the PSF to each source, given what is left after all other sources were subtracted.

    Parameters
    ----------
    residual
        (H, W) float32: the image minus its background and minus `model`.
    weight
        (H, W) float32, 1 / background variance; 0 where a pixel must not be used.
    psf
        Sums to 1, so fluxes are in its total-flux system.
    x, y, flux
        (n,) where the sources are and the fluxes with which they are in `model` (0: they are not).
    radius_pix
        Pixels within this distance are used.
    gain
        Photons per unit of flux; infinite if `weight` already has the sources' noise.
    model
        (H, W) float32, the sources that were subtracted; its light adds to the variance. None: none were.
    free_position
        Fit the positions as well, starting from the given ones.
    fit_background
        Fit a constant under each source as well.
    max_shift_pix
        A fitted position never leaves its start by more than this in x or y.

    Returns
    -------
    PsfFits
        With n entries.
    """
    # One memory layout for the compiled kernel, whatever the caller has.
    image, weights = (np.ascontiguousarray(a, np.float32) for a in (residual, weight))
    light = np.zeros((0, 0), np.float32) if model is None else np.ascontiguousarray(model, np.float32)
    out = np.full((8, len(x)), np.nan)
    _fit_all(
        image, weights, light, spline_coefficients(psf.coefficients), terms_at(psf, x, y),
        np.array([x, y, flux], float), radius_pix, 1 / gain, free_position, fit_background, max_shift_pix,
        out,
    )  # fmt: skip
    return PsfFits(*out)


@nb.njit(cache=True, nogil=True)
def window_half(radius: float, size: int) -> int:
    """Return half the side of the square that is fitted: the radius, but not beyond a stamp of `size`."""
    return min(math.ceil(radius), size // 2)


@nb.njit(cache=True, nogil=True)
def _fit_all(
    residual: Float32,
    weight: Float32,
    light: Float32,
    splines: Float32,
    terms: Float,
    begin: Float,
    radius: float,
    inverse_gain: float,
    free: bool,
    constant: bool,
    max_shift: float,
    out: Float,
) -> None:
    """Fit one source after the other; `out` rows are the fields of `PsfFits`."""
    half = window_half(radius, splines.shape[1] - 2 * PAD)
    reach = half + 4 + (math.ceil(max_shift) if free else 0)
    coefficients = np.empty((2 * reach + 1, 2 * reach + 1), np.float32)
    work = np.empty((6, 2 * half + 1, 2 * half + 1), np.float32)
    found = np.empty(8)
    for k in range(begin.shape[1]):
        x, y, flux = begin[0, k], begin[1, k], begin[2, k]
        if math.isfinite(x) and math.isfinite(y):
            local_coefficients(splines, terms[k], coefficients)
        low_x, high_x, low_y, high_y = x - max_shift, x + max_shift, y - max_shift, y + max_shift
        fit_source(
            residual, weight, light, coefficients, x, y, flux, (low_x, high_x, low_y, high_y), radius,
            inverse_gain, free, constant, work, found,
        )  # fmt: skip
        out[:, k] = found


@nb.njit(cache=True, nogil=True)
def fit_source(
    residual: Float32,
    weight: Float32,
    light: Float32,
    coefficients: Float32,
    x: float,
    y: float,
    flux: float,
    limits: tuple[float, float, float, float],
    radius: float,
    inverse_gain: float,
    free: bool,
    constant: bool,
    work: Float32,
    found: Float,
) -> None:
    """Fit one source, given its spline coefficients, and fill `found` with the fields of `PsfFits`.

    `limits` are the least and greatest x and y; `work` is (6, side, side) for the square that is fitted, and
    `coefficients` must reach beyond it by 4 pixels and the way to the limits.
    """
    found[:] = np.nan
    found[0], found[1], found[7] = x, y, 0.0
    # Positions far off the image would overflow an integer.
    if not (abs(x) < 1e6 and abs(y) < 1e6):
        return
    column, row = math.floor(x + 0.5), math.floor(y + 0.5)
    pixels, stamp = work[:2], work[2:]
    shifted_stamp(coefficients, x - column, y - row, stamp[:1])
    found[7] = _gather(residual, weight, light, stamp[0], flux, x, y, radius, inverse_gain, pixels)
    if found[7] <= 0.0:
        return
    box = limits[0] - column, limits[1] - column, limits[2] - row, limits[3] - row
    if _fit_one(
        pixels, stamp, coefficients, x - column, y - row, flux, inverse_gain, free, constant, box, found
    ):
        found[0] += column
        found[1] += row


@nb.njit(cache=True, nogil=True)
def _gather(
    residual: Float32,
    weight: Float32,
    light: Float32,
    profile: Float32,
    flux: float,
    x: float,
    y: float,
    radius: float,
    inverse_gain: float,
    pixels: Float32,
) -> float:
    """Fill `pixels` and return the share of the PSF on usable ones.

    Its planes: data with the source put back; variance of the background and of the others' light, infinite
    where unusable.
    """
    side = profile.shape[0]
    height, width = residual.shape
    left, low = math.floor(x + 0.5) - side // 2, math.floor(y + 0.5) - side // 2
    seen = 0.0
    total = 0.0
    pixels[0] = 0.0
    pixels[1] = np.inf
    for j in range(side):
        yy = low + j
        reach = math.sqrt(max(radius * radius - (yy - y) ** 2, 0.0))
        if abs(yy - y) > radius:
            continue
        for i in range(max(0, math.ceil(x - reach) - left), min(side, math.floor(x + reach) - left + 1)):
            xx = left + i
            total += profile[j, i]
            if yy < 0 or xx < 0 or yy >= height or xx >= width or not weight[yy, xx] > 0:
                continue
            if not math.isfinite(residual[yy, xx]):
                continue
            seen += profile[j, i]
            own = flux * profile[j, i]
            pixels[0, j, i] = residual[yy, xx] + own
            others = max(light[yy, xx] - own, 0.0) if light.size > 0 else 0.0
            pixels[1, j, i] = 1.0 / weight[yy, xx] + others * inverse_gain
    return min(max(seen / total, 0.0), 1.0) if total > 0 else 0.0


@nb.njit(cache=True, nogil=True)
def _fit_one(
    pixels: Float32,
    stamp: Float32,
    coefficients: Float32,
    dx: float,
    dy: float,
    flux: float,
    inverse_gain: float,
    free: bool,
    constant: bool,
    box: tuple[float, float, float, float],
    found: Float,
) -> bool:
    """Fit flux (and shifts, and a constant) to one source; False if its pixels cannot tell them.

    `dx`, `dy`, their limits `box` and the fitted position are relative to the window's centre. Planes 0 to 2
    of `stamp` are the PSF and its slopes, which planes 1 and 2 of the fit follow; plane 3 is the constant.
    """
    m = 1 + 2 * free + constant
    normal = np.empty((m, m))
    right = np.empty(m)
    solution = np.empty(m)
    stamp[3] = 1.0
    basis = np.zeros(m, np.int64)
    for a in range(m):
        basis[a] = a
    if constant:
        basis[m - 1] = 3
    level = 0.0
    for _ in range(_MAX_STEPS):
        if free:
            shifted_stamp(coefficients, dx, dy, stamp[:3])
        _normal_equations(pixels, stamp, basis, flux, inverse_gain, normal, right)
        if not invert(normal):
            return False
        for a in range(m):
            solution[a] = 0.0
            for b in range(m):
                solution[a] += normal[a, b] * right[b]
        step = abs(solution[0] - flux) / max(math.sqrt(normal[0, 0]), 1e-300)
        flux = solution[0]
        level = solution[m - 1] if constant else 0.0
        if free:
            brightness = max(abs(flux), math.sqrt(normal[0, 0]))
            new_x = _moved(dx, solution[1] / brightness, box[0], box[1])
            new_y = _moved(dy, solution[2] / brightness, box[2], box[3])
            moved = max(abs(new_x - dx), abs(new_y - dy))
            step = max(step, moved * brightness / math.sqrt(max(normal[1, 1], 1e-300)))
            dx, dy = new_x, new_y
        if step < _STEP_SIGMA:
            break
    error = math.sqrt(normal[0, 0])
    found[0] = dx
    found[1] = dy
    found[2] = math.sqrt(normal[1, 1]) / max(abs(flux), error) if free else 0.0
    found[3] = math.sqrt(normal[2, 2]) / max(abs(flux), error) if free else 0.0
    found[4] = flux
    found[5] = error
    found[6] = _reduced_chi2(pixels, stamp[0], flux, level, inverse_gain, m)
    return True


@nb.njit(cache=True, nogil=True)
def _moved(position: float, step: float, low: float, high: float) -> float:
    """Return a position after a step of at most half a pixel, within limits."""
    return min(max(position + min(max(step, -0.5), 0.5), low), high)


# Sums may be taken in any order: that is what makes them fast.
@nb.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _normal_equations(
    pixels: Float32,
    stamp: Float32,
    basis: Int,
    flux: float,
    inverse_gain: float,
    normal: Float,
    right: Float,
) -> None:
    """Fill the weighted normal equations for the planes `basis` of `stamp`."""
    n = stamp.shape[1] * stamp.shape[2]
    planes = stamp.reshape(stamp.shape[0], n)
    data, variance = pixels[0].reshape(n), pixels[1].reshape(n)
    profile = planes[0]
    weighted = np.empty(n, np.float32)
    bright, scale, nothing, one = np.float32(flux), np.float32(inverse_gain), np.float32(0), np.float32(1)
    weights = np.empty(n, np.float32)
    for i in range(n):
        weights[i] = one / (variance[i] + max(bright * profile[i], nothing) * scale)
    for a in range(len(basis)):
        plane = planes[basis[a]]
        total = 0.0
        for i in range(n):
            weighted[i] = weights[i] * plane[i]
            total += weighted[i] * data[i]
        right[a] = total
        for b in range(a + 1):
            other = planes[basis[b]]
            total = 0.0
            for i in range(n):
                total += weighted[i] * other[i]
            normal[a, b] = total
            normal[b, a] = total


@nb.njit(cache=True, nogil=True)
def invert(matrix: Float) -> bool:
    """Invert a small symmetric positive matrix in place (Gauss-Jordan); False if it is singular."""
    m = matrix.shape[0]
    scale = np.empty(m)
    for a in range(m):
        if not matrix[a, a] > 0:
            return False
        scale[a] = 1.0 / math.sqrt(matrix[a, a])
    for a in range(m):
        for b in range(m):
            matrix[a, b] *= scale[a] * scale[b]
    for p in range(m):
        pivot = matrix[p, p]
        if not pivot > 1e-10:
            return False
        matrix[p, p] = 1.0
        for b in range(m):
            matrix[p, b] /= pivot
        for a in range(m):
            if a != p:
                factor = matrix[a, p]
                matrix[a, p] = 0.0
                for b in range(m):
                    matrix[a, b] -= factor * matrix[p, b]
    for a in range(m):
        for b in range(m):
            matrix[a, b] *= scale[a] * scale[b]
    return True


@nb.njit(cache=True, nogil=True)
def _reduced_chi2(
    pixels: Float32, profile: Float32, flux: float, level: float, inverse_gain: float, m: int
) -> float:
    """Return the reduced chi square of a fit with m parameters; NaN without degrees of freedom."""
    chi2 = 0.0
    n = 0
    side = profile.shape[0]
    for j in range(side):
        for i in range(side):
            if pixels[1, j, i] < np.inf:
                light = max(flux * profile[j, i], 0.0)
                difference = pixels[0, j, i] - flux * profile[j, i] - level
                chi2 += difference * difference / (pixels[1, j, i] + light * inverse_gain)
                n += 1
    return chi2 / (n - m) if n > m else np.nan
