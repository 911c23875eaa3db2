"""Fit one PSF, and a positive and a negative one, to stamps of a difference image.

A star whose place or light is not quite that of the reference leaves a dipole. It is told from a source by
the chi square of ``F_a P(x - a) - F_b P(x - b)`` against that of ``F P(x - c)``, on the same pixels with the
same variances (as in Reiss & Lupton 2016, DMTN-007, section 4, on the difference alone).
"""

import math
from dataclasses import dataclass, fields

import numba as nb
import numpy as np

from seechange_core.frames import Float, Float32, PsfModel
from seechange_core.numerics.psf import local_coefficients, shifted_stamp, spline_coefficients, terms_at
from seechange_core.numerics.psf_fit import PsfFits, fit_source, invert

_DIPOLE_STEPS = 15


@dataclass(frozen=True, eq=False)
class StampFits(PsfFits):
    """Fits to stamps, (n,): those of the one PSF in pixels of the stamps, and what a second one tells.

    The reduced chi square has the errors of the PSF's shape as part of the variances.

    Attributes
    ----------
    dipole_chi2
        By how much chi square (not reduced) is lower with a second, negative PSF.
    dipole_ratio
        Weaker over stronger flux of the two, 0 to 1.
    dipole_separation_pix, dipole_angle_rad
        From the negative to the positive one; the angle from +x towards +y.
    profiles
        (n, size, size) float32: the PSF where the one was fitted.
    """

    dipole_chi2: Float
    dipole_ratio: Float
    dipole_separation_pix: Float
    dipole_angle_rad: Float
    profiles: Float32


def fit_stamps(
    data: Float32,
    weight: Float32,
    psf: PsfModel,
    place: tuple[Float, Float],
    start: tuple[Float, Float],
    *,
    radius_pix: float,
    core_pix: float,
    gain: float,
    shape_error: float,
    max_shift_pix: float,
) -> StampFits:
    """Fit stamps one by one.

    Parameters
    ----------
    data, weight
        (n, size, size) float32, sources positive; pixels of weight 0 are left out.
    psf
        Of the difference.
    place
        x and y in the image, (n,) pixels: where the PSF is taken.
    start
        x and y in the stamps, (n,) pixels.
    radius_pix
        Pixels within this distance of the start are used.
    core_pix
        Those within this distance count in the reduced chi square: there is less of what lies nearby.
    gain
        Photons per unit of flux.
    shape_error
        Relative error of the PSF's pixels: what it leaves of the flux adds to the variances of chi square.
        It is that of the geometric mean of a pixel and the brightest one that it touches: where the PSF is
        steep, a width wrong by a few per cent changes a pixel by far more than a few per cent.
    max_shift_pix
        A position never leaves its start by more than this in x or y.
    """
    n, size = len(data), data.shape[-1]
    out = np.full((12, n), np.nan)
    profiles = np.zeros((n, size, size), np.float32)
    if n:
        _fit_all(
            np.ascontiguousarray(data, np.float32), np.ascontiguousarray(weight, np.float32),
            spline_coefficients(psf.coefficients), terms_at(psf, *place), np.array(start, float),
            (radius_pix, min(core_pix, radius_pix), 1 / gain, shape_error, max_shift_pix), out, profiles,
        )  # fmt: skip
    return StampFits(**dict(zip((f.name for f in fields(StampFits)), (*out, profiles), strict=True)))


@nb.njit(cache=True, nogil=True)
def _fit_all(
    data: Float32,
    weight: Float32,
    splines: Float32,
    terms: Float,
    start: Float,
    how: tuple[float, float, float, float, float],
    out: Float,
    profiles: Float32,
) -> None:
    radius, core, inverse_gain, shape_error, most = how
    size = data.shape[1]
    half = min(math.ceil(radius), size // 2)
    reach = size + math.ceil(most) + 8
    coefficients = np.empty((2 * reach + 1, 2 * reach + 1), np.float32)
    work = np.empty((6, 2 * half + 1, 2 * half + 1), np.float32)
    planes = np.empty((2, 3, size, size), np.float32)
    variance = np.empty((size, size))
    no_light = np.zeros((0, 0), np.float32)
    found = np.empty(8)
    for k in range(len(data)):
        x, y = start[0, k], start[1, k]
        local_coefficients(splines, terms[k], coefficients)
        limits = (x - most, x + most, y - most, y + most)
        fit_source(
            data[k], weight[k], no_light, coefficients, x, y, 0.0, limits, radius, inverse_gain, True, False,
            work, found,
        )  # fmt: skip
        out[:8, k] = found
        if not math.isfinite(found[4]):
            continue
        middle = size // 2
        shifted_stamp(coefficients, found[0] - middle, found[1] - middle, planes[0])
        profiles[k] = planes[0, 0]
        # What is filled in for missing pixels before an image is filtered spoils those around them as well.
        off = shape_error + min(1.5 * (1 - found[7]), 1.0)
        n = _variances(weight[k], planes[0, 0], found[4], x, y, core, inverse_gain, off, variance)
        single = _chi2(data[k], planes[0, 0], found[4], planes[0, 0], 0.0, variance)
        out[6, k] = single / (n - 3) if n > 3 else np.nan
        _variances(weight[k], planes[0, 0], found[4], x, y, radius, inverse_gain, off, variance)
        single = _chi2(data[k], planes[0, 0], found[4], planes[0, 0], 0.0, variance)
        _dipole(data[k], coefficients, found, single, variance, (x, y, radius), planes, out[8:, k])


@nb.njit(cache=True, nogil=True)
def _variances(
    weight: Float32,
    profile: Float32,
    flux: float,
    x: float,
    y: float,
    radius: float,
    inverse_gain: float,
    shape_error: float,
    variance: Float,
) -> int:
    """Fill `variance`, infinite where a pixel is not used, and return how many are."""
    used = 0
    for j in range(len(weight)):
        for i in range(len(weight)):
            variance[j, i] = np.inf
            if weight[j, i] > 0 and (i - x) ** 2 + (j - y) ** 2 <= radius * radius:
                most = flux * profile[max(j - 1, 0) : j + 2, max(i - 1, 0) : i + 2].max()
                light = max(flux * profile[j, i], 0.0)
                variance[j, i] = 1 / weight[j, i] + light * inverse_gain + shape_error**2 * light * most
                used += 1
    return used


@nb.njit(cache=True, nogil=True)
def _chi2(data: Float32, one: Float32, flux: float, other: Float32, minus: float, variance: Float) -> float:
    total = 0.0
    for j in range(len(data)):
        for i in range(len(data)):
            if variance[j, i] < np.inf:
                total += (data[j, i] - flux * one[j, i] + minus * other[j, i]) ** 2 / variance[j, i]
    return total


@nb.njit(cache=True, nogil=True)
def _lowest(data: Float32, variance: Float, peak: tuple[float, float], near: float) -> tuple[int, int, float]:
    """Return where 3 x 3 used pixels are lowest, `near` pixels from the peak at least, and their mean."""
    best = (-1, -1, 0.0)
    for j in range(1, len(data) - 1):
        for i in range(1, len(data) - 1):
            if not variance[j, i] < np.inf or (i - peak[0]) ** 2 + (j - peak[1]) ** 2 < near * near:
                continue
            total = 0.0
            for b in range(-1, 2):
                for a in range(-1, 2):
                    total += data[j + b, i + a] if variance[j + b, i + a] < np.inf else 0.0
            if total / 9 < best[2]:
                best = (i, j, total / 9)
    return best


@nb.njit(cache=True, nogil=True)
def _dipole(  # noqa: PLR0912 - one loop of Levenberg-Marquardt
    data: Float32,
    coefficients: Float32,
    found: Float,
    single: float,
    variance: Float,
    window: tuple[float, float, float],
    planes: Float32,
    out: Float,
) -> None:
    """Fill `out` with the gain in chi square, the ratio, the separation and the angle."""
    middle = len(data) // 2
    x0, y0, radius = window
    out[0], out[1], out[2], out[3] = 0.0, 0.0, 0.0, 0.0
    column, row, depth = _lowest(data, variance, (found[0], found[1]), 1.0)
    if column < 0 or not found[4] > 0:
        return
    top = max(float(planes[0, 0].max()), 1e-12)
    p = np.array(
        [found[4], found[0], found[1], max(-depth / top, 0.05 * found[4]), float(column), float(row)]
    )
    trial = p.copy()
    normal, right, damped = np.empty((6, 6)), np.empty(6), np.empty((6, 6))
    chi2, damping = np.inf, 1e-2
    basis = np.empty(6)
    for _ in range(_DIPOLE_STEPS):
        shifted_stamp(coefficients, trial[1] - middle, trial[2] - middle, planes[0])
        shifted_stamp(coefficients, trial[4] - middle, trial[5] - middle, planes[1])
        now = _chi2(data, planes[0, 0], trial[0], planes[1, 0], trial[3], variance)
        if now < chi2:
            done = chi2 - now < 1e-3
            p[:], chi2 = trial, now
            damping = max(0.2 * damping, 1e-6)
            if done:
                break
            _dipole_equations(data, planes, p, variance, basis, normal, right)
        else:
            damping = 8 * damping
            if damping > 1e6:
                break
        damped[:] = normal
        for a in range(6):
            damped[a, a] *= 1 + damping
            damped[a, a] += 1e-12
        if not invert(damped):
            break
        for a in range(6):
            trial[a] = p[a]
            for b in range(6):
                trial[a] += damped[a, b] * right[b]
        for a in (0, 3):
            trial[a] = max(trial[a], 1e-3 * found[4])
        for a, at in ((1, x0), (4, x0), (2, y0), (5, y0)):
            trial[a] = min(max(trial[a], at - radius), at + radius)
    if chi2 < single:
        out[0] = single - chi2
        out[1] = min(p[0], p[3]) / max(p[0], p[3])
        out[2] = math.hypot(p[1] - p[4], p[2] - p[5])
        out[3] = math.atan2(p[2] - p[5], p[1] - p[4])


@nb.njit(cache=True, nogil=True)
def _dipole_equations(
    data: Float32, planes: Float32, p: Float, variance: Float, basis: Float, normal: Float, right: Float
) -> None:
    """Fill the normal equations of a step of both PSFs."""
    normal[:] = 0.0
    right[:] = 0.0
    for j in range(len(data)):
        for i in range(len(data)):
            if not variance[j, i] < np.inf:
                continue
            basis[0], basis[1], basis[2] = (
                planes[0, 0, j, i], p[0] * planes[0, 1, j, i], p[0] * planes[0, 2, j, i],
            )  # fmt: skip
            basis[3], basis[4], basis[5] = (
                -planes[1, 0, j, i], -p[3] * planes[1, 1, j, i], -p[3] * planes[1, 2, j, i],
            )  # fmt: skip
            left = data[j, i] - p[0] * planes[0, 0, j, i] + p[3] * planes[1, 0, j, i]
            for a in range(6):
                scaled = basis[a] / variance[j, i]
                right[a] += scaled * left
                for b in range(a + 1):
                    normal[a, b] += scaled * basis[b]
    for a in range(6):
        for b in range(a):
            normal[b, a] = normal[a, b]
