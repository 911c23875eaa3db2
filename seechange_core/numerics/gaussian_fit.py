"""Fit elliptical Gaussians to stamps (Levenberg-Marquardt, Marquardt 1963, J. SIAM 11, 431)."""

import math
from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from seechange_core.frames import Bool, Float, Float32
from seechange_core.numerics.psf_fit import invert

_SIGMA_TO_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
_MAX_STEPS = 100
_TOLERANCE = 1e-4
#: 1 / sigma^2 of what is as good as one pixel; nothing sharper can be told.
_SHARPEST = 8.0


class GaussianShapes(NamedTuple):
    """Fitted Gaussians; arrays of (n,), NaN where the fit failed.

    Attributes
    ----------
    x, y
        Centre, pixels of the stamp.
    amplitude
        Height, units of the data.
    fwhm_pix
        Geometric mean of both axes.
    elongation
        Major over minor axis.
    theta_rad
        Of the major axis, from +x towards +y, in (-pi/2, pi/2].
    good
        Whether the fit converged to an ellipse.
    """

    x: Float
    y: Float
    amplitude: Float
    fwhm_pix: Float
    elongation: Float
    theta_rad: Float
    good: Bool


def fit_gaussians(
    data: npt.NDArray[np.floating],
    weight: npt.NDArray[np.floating],
    x: Float,
    y: Float,
    fwhm_pix: float,
    radius_pix: float,
) -> GaussianShapes:
    """Fit ``A exp(-(a dx^2 + 2 b dx dy + c dy^2) / 2)`` within a radius of the start.

    Parameters
    ----------
    data, weight
        (n, size, size), positive peaks, background 0; weight 0 (data then may be NaN) leaves a pixel out.
    x, y
        (n,) start, pixels of the stamp.
    fwhm_pix
        Start for the width.
    radius_pix
        Pixels farther from the start are left out.
    """
    parameters = np.empty((len(data), 6))
    done = np.zeros(len(data), np.bool_)
    start = (_SIGMA_TO_FWHM / fwhm_pix) ** 2
    usable = np.where(np.isfinite(data), weight, 0)
    images, weights = (np.ascontiguousarray(a, np.float32) for a in (np.where(usable > 0, data, 0), usable))
    _fit_all(images, weights, np.array([x, y], float), start, radius_pix, parameters, done)
    return _shapes(parameters, done, x, y, radius_pix)


@nb.njit(cache=True, nogil=True)
def _fit_all(
    data: Float32, weight: Float32, at: Float, start: float, radius: float, parameters: Float, done: Bool
) -> None:
    size = data.shape[1]
    # Columns: dx, dy, data and weight of the pixels that are used.
    pixels = np.empty((size * size, 4))
    for k in range(len(data)):
        n = 0
        peak = 0.0
        for j in range(size):
            for i in range(size):
                near = (i - at[0, k]) ** 2 + (j - at[1, k]) ** 2 <= radius * radius
                if near and weight[k, j, i] > 0:
                    pixels[n, 0], pixels[n, 1] = i - at[0, k], j - at[1, k]
                    pixels[n, 2], pixels[n, 3] = data[k, j, i], weight[k, j, i]
                    peak = max(peak, pixels[n, 2])
                    n += 1
        p = parameters[k]
        p[:] = 0.0
        p[0], p[3], p[5] = peak, start, start
        if n > 6:
            done[k] = _fit_one(pixels[:n], p)
        p[1] += at[0, k]
        p[2] += at[1, k]


@nb.njit(cache=True, nogil=True)
def _fit_one(pixels: Float, p: Float) -> bool:
    """Take damped steps until chi square stands still; True if it does."""
    normal, right, damped = np.empty((6, 6)), np.empty(6), np.empty((6, 6))
    damping = 1e-2
    chi2 = _equations(pixels, p, normal, right)
    trial = np.empty(6)
    for _ in range(_MAX_STEPS):
        damped[:] = normal
        for a in range(6):
            damped[a, a] = normal[a, a] * (1 + damping) + 1e-300
        if not invert(damped):
            return False
        for a in range(6):
            trial[a] = p[a]
            for b in range(6):
                trial[a] += damped[a, b] * right[b]
        trial[3], trial[5] = min(trial[3], _SHARPEST), min(trial[5], _SHARPEST)
        now = np.inf
        if trial[3] > 0 and trial[3] * trial[5] > trial[4] ** 2:
            now = _chi2(pixels, trial)
        if now <= chi2:
            still = chi2 - now <= _TOLERANCE * (1 + 1e-3 * chi2)
            p[:] = trial
            if still:
                return True
            chi2 = _equations(pixels, p, normal, right)
            damping = max(0.2 * damping, 1e-9)
        else:
            damping = 8 * damping
            if damping > 1e9:
                return False
    return False


@nb.njit(cache=True, nogil=True)
def _chi2(pixels: Float, p: Float) -> float:
    total = 0.0
    for k in range(len(pixels)):
        dx, dy = pixels[k, 0] - p[1], pixels[k, 1] - p[2]
        power = p[3] * dx * dx + 2 * p[4] * dx * dy + p[5] * dy * dy
        total += pixels[k, 3] * (pixels[k, 2] - p[0] * math.exp(-0.5 * power)) ** 2
    return total


@nb.njit(cache=True, nogil=True)
def _equations(pixels: Float, p: Float, normal: Float, right: Float) -> float:
    """Fill the normal equations of a step, and return chi square."""
    normal[:] = 0.0
    right[:] = 0.0
    slopes = np.empty(6)
    total = 0.0
    for k in range(len(pixels)):
        dx, dy, w = pixels[k, 0] - p[1], pixels[k, 1] - p[2], pixels[k, 3]
        shape = math.exp(-0.5 * (p[3] * dx * dx + 2 * p[4] * dx * dy + p[5] * dy * dy))
        value = p[0] * shape
        left = pixels[k, 2] - value
        slopes[0] = shape
        slopes[1] = value * (p[3] * dx + p[4] * dy)
        slopes[2] = value * (p[4] * dx + p[5] * dy)
        slopes[3] = -0.5 * value * dx * dx
        slopes[4] = -value * dx * dy
        slopes[5] = -0.5 * value * dy * dy
        total += w * left * left
        for a in range(6):
            weighted = w * slopes[a]
            right[a] += weighted * left
            for b in range(a + 1):
                normal[a, b] += weighted * slopes[b]
    for a in range(6):
        for b in range(a):
            normal[b, a] = normal[a, b]
    return total


def _shapes(p: Float, done: Bool, x: Float, y: Float, radius: float) -> GaussianShapes:
    a, b, c = p[:, 3], p[:, 4], p[:, 5]
    middle, spread = (a + c) / 2, np.hypot((a - c) / 2, b)
    small, large = middle - spread, middle + spread
    good = done & (small > 0) & (p[:, 0] > 0) & (np.hypot(p[:, 1] - x, p[:, 2] - y) <= radius)
    # Wider than the window is no fit of a peak in it.
    good &= np.sqrt(1 / np.where(small > 0, small, 1.0)) < 2 * radius
    safe_small, safe_large = np.where(good, small, np.nan), np.where(good, large, np.nan)
    theta = 0.5 * np.arctan2(-2 * b, c - a)
    return GaussianShapes(
        np.where(good, p[:, 1], np.nan), np.where(good, p[:, 2], np.nan), np.where(good, p[:, 0], np.nan),
        _SIGMA_TO_FWHM * (safe_small * safe_large) ** -0.25, np.sqrt(safe_large / safe_small),
        np.where(good, theta, np.nan), good,
    )  # fmt: skip
