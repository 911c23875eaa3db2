"""Fit elliptical Gaussians to many stamps at once (Levenberg-Marquardt, vectorised over the stamps)."""

from typing import NamedTuple

import numpy as np

from seechange_core.frames import Bool, Float

_SIGMA_TO_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
_MAX_STEPS = 30
_TOLERANCE = 1e-4


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
    data: Float, weight: Float, x: Float, y: Float, fwhm_pix: float, radius_pix: float
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
    n, size = len(data), data.shape[-1]
    if not n:
        none = np.zeros(0)
        return GaussianShapes(none, none, none, none, none, none, np.zeros(0, bool))
    grid_y, grid_x = np.mgrid[:size, :size].astype(float)
    near = np.hypot(grid_x - x[:, None, None], grid_y - y[:, None, None]) <= radius_pix
    w = np.where(near & np.isfinite(data), weight, 0.0).reshape(n, -1).astype(float)
    d = np.where(w > 0, data.reshape(n, -1), 0.0)
    start = (_SIGMA_TO_FWHM / fwhm_pix) ** 2
    peak = np.max(np.where(w > 0, d, -np.inf), axis=1)
    p = np.stack(
        [np.where(np.isfinite(peak), peak, 0.0), x, y, np.full(n, start), np.zeros(n), np.full(n, start)], 1
    )
    # A step too far overflows, makes chi square infinite or NaN, and is taken back with more damping.
    with np.errstate(over="ignore", invalid="ignore"):
        p, done = _iterate(p, d, w, grid_x.ravel(), grid_y.ravel())
    return _shapes(p, done, x, y, radius_pix)


def _model(p: Float, gx: Float, gy: Float) -> tuple[Float, Float]:
    """Return the Gaussians (n, m) and their derivatives (n, 6, m)."""
    amplitude, x, y, a, b, c = (p[:, k, None] for k in range(6))
    dx, dy = gx - x, gy - y
    shape = np.exp(-0.5 * np.clip(a * dx * dx + 2 * b * dx * dy + c * dy * dy, -20, 700))
    value = amplitude * shape
    slopes = [
        shape, value * (a * dx + b * dy), value * (b * dx + c * dy),
        -0.5 * value * dx * dx, -value * dx * dy, -0.5 * value * dy * dy,
    ]  # fmt: skip
    return value, np.stack(slopes, axis=1)


def _iterate(p: Float, d: Float, w: Float, gx: Float, gy: Float) -> tuple[Float, Bool]:
    """Take damped Gauss-Newton steps until chi square stands still."""
    n = len(p)
    damping = np.full(n, 1e-2)
    done = np.zeros(n, bool)
    value, slopes = _model(p, gx, gy)
    chi2 = np.sum(w * (d - value) ** 2, axis=1)
    for _ in range(_MAX_STEPS):
        weighted = slopes * w[:, None, :]
        normal = weighted @ slopes.transpose(0, 2, 1)
        right = np.einsum("nkm,nm->nk", weighted, d - value)
        diagonal = np.einsum("nkk->nk", normal)
        scale = 1 / np.sqrt(np.maximum(diagonal, 1e-300))
        matrix = normal * scale[:, :, None] * scale[:, None, :]
        matrix += np.eye(6) * (damping[:, None, None] + 1e-9)
        step = np.linalg.solve(matrix, (right * scale)[..., None])[..., 0] * scale
        trial = p + np.where(done[:, None], 0.0, step)
        trial_value, trial_slopes = _model(trial, gx, gy)
        trial_chi2 = np.sum(w * (d - trial_value) ** 2, axis=1)
        better = (trial_chi2 <= chi2) & (trial[:, 3] * trial[:, 5] > trial[:, 4] ** 2) & (trial[:, 3] > 0)
        still = better & (chi2 - trial_chi2 <= _TOLERANCE * (1 + 1e-3 * chi2))
        p = np.where(better[:, None], trial, p)
        value = np.where(better[:, None], trial_value, value)
        slopes = np.where(better[:, None, None], trial_slopes, slopes)
        chi2 = np.where(better, trial_chi2, chi2)
        damping = np.clip(np.where(better, damping * 0.2, damping * 8), 1e-9, 1e9)
        done |= still
        if done.all():
            break
    return p, done


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
