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

from seechange_core.frames import Float, Float32, PsfModel, Table
from seechange_core.numerics.psf import PAD, coefficients_at, shifted_stamp

_MAX_STEPS = 12
_CHUNK = 1000


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
    for start in range(0, len(x), _CHUNK):
        rows = slice(start, start + _CHUNK)
        begin = np.array([x[rows], y[rows], flux[rows]], float)
        _fit_all(
            image, weights, light, coefficients_at(psf, x[rows], y[rows]), begin, radius_pix, 1 / gain,
            free_position, fit_background, max_shift_pix, out[:, rows],
        )  # fmt: skip
    return PsfFits(*out)


@nb.njit(cache=True, nogil=True)
def _fit_all(
    residual: Float32,
    weight: Float32,
    light: Float32,
    coefficients: Float32,
    begin: Float,
    radius: float,
    inverse_gain: float,
    free: bool,
    constant: bool,
    max_shift: float,
    out: Float,
) -> None:
    """Fit one source after the other; `out` rows are the fields of `PsfFits`."""
    half = min(math.ceil(radius), (coefficients.shape[1] - 1) // 2 - PAD)
    side = 2 * half + 1
    stamp = np.empty((3, side, side))
    pixels = np.empty((4, side, side))
    for k in range(begin.shape[1]):
        x, y, flux = begin[0, k], begin[1, k], begin[2, k]
        out[0, k] = x
        out[1, k] = y
        out[7, k] = 0.0
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        column = math.floor(x + 0.5)
        row = math.floor(y + 0.5)
        shifted_stamp(coefficients[k], x - column, y - row, stamp)
        used = _gather(residual, weight, light, stamp[0], flux, column, row, x, y, radius, pixels)
        out[7, k] = used
        if used <= 0.0:
            continue
        if _fit_one(
            pixels, stamp, coefficients[k], x - column, y - row, flux, inverse_gain,
            free, constant, max_shift, out[:, k],
        ):  # fmt: skip
            out[0, k] += column
            out[1, k] += row


@nb.njit(cache=True, nogil=True)
def _gather(
    residual: Float32,
    weight: Float32,
    light: Float32,
    profile: Float,
    flux: float,
    column: int,
    row: int,
    x: float,
    y: float,
    radius: float,
    pixels: Float,
) -> float:
    """Fill `pixels` and return the share of the PSF on usable ones.

    Its planes: data with the source put back, background variance, the others' light, 1 where used.
    """
    side = profile.shape[0]
    half = side // 2
    height, width = residual.shape
    seen = 0.0
    total = 0.0
    pixels[:] = 0.0
    for j in range(side):
        for i in range(side):
            yy = row - half + j
            xx = column - half + i
            if (xx - x) ** 2 + (yy - y) ** 2 > radius * radius:
                continue
            total += profile[j, i]
            if yy < 0 or xx < 0 or yy >= height or xx >= width or not weight[yy, xx] > 0:
                continue
            if not math.isfinite(residual[yy, xx]):
                continue
            seen += profile[j, i]
            own = flux * profile[j, i]
            pixels[0, j, i] = residual[yy, xx] + own
            pixels[1, j, i] = 1.0 / weight[yy, xx]
            if light.size > 0:
                pixels[2, j, i] = max(light[yy, xx] - own, 0.0)
            pixels[3, j, i] = 1.0
    return min(max(seen / total, 0.0), 1.0) if total > 0 else 0.0


@nb.njit(cache=True, nogil=True)
def _fit_one(
    pixels: Float,
    stamp: Float,
    coefficients: Float32,
    dx: float,
    dy: float,
    flux: float,
    inverse_gain: float,
    free: bool,
    constant: bool,
    max_shift: float,
    out: Float,
) -> bool:
    """Fit flux (and shifts, and a constant) to one source; False if its pixels cannot tell them.

    `dx`, `dy` and the fitted position are relative to the window's centre.
    """
    start_x, start_y = dx, dy
    m = 1 + 2 * free + constant
    normal = np.empty((m, m))
    right = np.empty(m)
    solution = np.empty(m)
    level = 0.0
    for _ in range(_MAX_STEPS):
        shifted_stamp(coefficients, dx, dy, stamp)
        _normal_equations(pixels, stamp, flux, inverse_gain, free, constant, normal, right)
        if not _invert(normal):
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
            new_x = _moved(dx, solution[1] / brightness, start_x, max_shift)
            new_y = _moved(dy, solution[2] / brightness, start_y, max_shift)
            moved = max(abs(new_x - dx), abs(new_y - dy))
            step = max(step, moved * brightness / math.sqrt(max(normal[1, 1], 1e-300)))
            dx, dy = new_x, new_y
        if step < 1e-3:
            break
    error = math.sqrt(normal[0, 0])
    out[0] = dx
    out[1] = dy
    out[2] = math.sqrt(normal[1, 1]) / max(abs(flux), error) if free else 0.0
    out[3] = math.sqrt(normal[2, 2]) / max(abs(flux), error) if free else 0.0
    out[4] = flux
    out[5] = error
    out[6] = _reduced_chi2(pixels, stamp[0], flux, level, inverse_gain, m)
    return True


@nb.njit(cache=True, nogil=True)
def _moved(position: float, step: float, start: float, max_shift: float) -> float:
    """Return a position after a step of at most half a pixel, at most `max_shift` from the start."""
    after = position + min(max(step, -0.5), 0.5)
    return min(max(after, start - max_shift), start + max_shift)


@nb.njit(cache=True, nogil=True)
def _normal_equations(
    pixels: Float,
    stamp: Float,
    flux: float,
    inverse_gain: float,
    free: bool,
    constant: bool,
    normal: Float,
    right: Float,
) -> None:
    """Fill the weighted normal equations for flux, flux * shifts and a constant."""
    m = right.shape[0]
    basis = np.empty(m)
    normal[:] = 0.0
    right[:] = 0.0
    side = stamp.shape[1]
    for j in range(side):
        for i in range(side):
            if pixels[3, j, i] == 0.0:
                continue
            light = max(flux * stamp[0, j, i], 0.0) + pixels[2, j, i]
            w = 1.0 / (pixels[1, j, i] + light * inverse_gain)
            basis[0] = stamp[0, j, i]
            if free:
                basis[1] = stamp[1, j, i]
                basis[2] = stamp[2, j, i]
            if constant:
                basis[m - 1] = 1.0
            for a in range(m):
                right[a] += w * basis[a] * pixels[0, j, i]
                for b in range(a + 1):
                    normal[a, b] += w * basis[a] * basis[b]
    for a in range(m):
        for b in range(a):
            normal[b, a] = normal[a, b]


@nb.njit(cache=True, nogil=True)
def _invert(matrix: Float) -> bool:
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
    pixels: Float, profile: Float, flux: float, level: float, inverse_gain: float, m: int
) -> float:
    """Return the reduced chi square of a fit with m parameters; NaN without degrees of freedom."""
    chi2 = 0.0
    n = 0
    side = profile.shape[0]
    for j in range(side):
        for i in range(side):
            if pixels[3, j, i] > 0.0:
                light = max(flux * profile[j, i], 0.0) + pixels[2, j, i]
                difference = pixels[0, j, i] - flux * profile[j, i] - level
                chi2 += difference * difference / (pixels[1, j, i] + light * inverse_gain)
                n += 1
    return chi2 / (n - m) if n > m else np.nan
