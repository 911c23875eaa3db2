"""Linear least squares as measurements need it: weighted, clipped, with an unknown extra scatter.

Terms may have a prior around 0, so that what the data cannot tell fades instead of being switched off.
One brick for zero points and for astrometric solutions; it knows neither.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpotrf, dtrtri
from scipy.optimize import brentq
from scipy.special import chdtr, chdtrc, chdtri, gammaincinv

from seechange_core.frames import Bool, Float

_DEGENERATE = 1e-4


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A fit of ``values = design @ coefficients``.

    Attributes
    ----------
    coefficients
        (n_terms, n_axes).
    covariance
        (n_terms, n_terms), the same for every axis, `scatter` and the prior included.
    residuals
        (n, n_axes) of all data, also of those not used.
    errors
        (n,) 1-sigma errors the fit used: the given ones and `scatter` in quadrature.
    scatter
        Extra scatter per axis that the given errors do not explain.
    leverage
        (n,) diagonal of the hat matrix; 0 for data not used.
    used
        (n,) False for outliers.
    prior_errors
        (n_terms,) 1-sigma of the prior of each coefficient around 0; infinite without one.
    """

    coefficients: Float
    covariance: Float
    residuals: Float
    errors: Float
    scatter: float
    leverage: Float
    used: Bool
    prior_errors: Float

    @property
    def rms(self) -> float:
        """Root mean square residual per axis of the data used."""
        return float(np.sqrt(np.mean(self.residuals[self.used] ** 2)))


def fit_linear(
    design: npt.ArrayLike,
    values: npt.ArrayLike,
    errors: npt.ArrayLike,
    *,
    clip_sigma: float = 3.5,
    max_iterations: int = 25,
    prior_errors: npt.ArrayLike | None = None,
) -> LinearFit:
    """Fit a linear model to data of which some are wrong and all scatter more than they say.

    Starts from what most data agree on, then alternates between estimating the extra scatter
    (Paule & Mandel 1982, J. Res. NBS 87, 377, eq. 11, corrected for the clipped tails), solving, and
    clipping, until the same data stay in.

    Parameters
    ----------
    design
        (n, n_terms).
    values
        (n,) or (n, n_axes); the axes share design and errors, and are clipped together.
    errors
        (n,) 1 sigma per axis.
    clip_sigma
        Data beyond this are outliers (for several axes: beyond the same probability).
    prior_errors
        (n_terms,) 1-sigma of what each coefficient may be, around 0; infinite, or None, for anything.

    Raises
    ------
    ValueError
        If there are not more data than terms without a prior.
    """
    A = np.asarray(design, float)
    sigma = np.asarray(errors, float)
    y = np.asarray(values, float).reshape(len(A), -1)
    prior = np.full(A.shape[1], np.inf) if prior_errors is None else np.asarray(prior_errors, float)
    n_free = int(np.count_nonzero(np.isinf(prior)))
    if len(A) <= n_free:
        raise ValueError(f"{len(A)} data cannot fit {n_free} terms and their scatter")
    limit = float(chdtri(y.shape[1], chdtrc(1, clip_sigma**2)))
    coefficients, scale = _robust_start(A, y, sigma, prior)
    residuals = y - A @ coefficients
    scatter = np.sqrt(max(0.0, scale**2 - float(np.median(sigma)) ** 2))
    used = _inliers(residuals, np.hypot(sigma, scatter), limit, n_free)
    n_fitted = float(A.shape[1])
    for _ in range(max_iterations):
        scatter = _extra_scatter(residuals[used], sigma[used], n_fitted, limit)
        total = np.hypot(sigma, scatter)
        coefficients, covariance = _solve(A[used], y[used], total[used], prior)
        # A term that its prior holds costs no degree of freedom: the trace of the hat matrix counts them.
        n_fitted = A.shape[1] - float(np.sum(np.diag(covariance) / prior**2))
        residuals = y - A @ coefficients
        before, used = used, _inliers(residuals, total, limit, n_free)
        if np.array_equal(before, used):
            break
    leverage = np.where(before, np.einsum("ij,jk,ik->i", A, covariance, A) / total**2, 0.0)
    return LinearFit(coefficients, covariance, residuals, total, float(scatter), leverage, before, prior)


def refit(fit: LinearFit, design: npt.ArrayLike, values: npt.ArrayLike) -> LinearFit:
    """Solve again for slightly changed values, keeping the errors and the outliers of a fit."""
    A = np.asarray(design, float)
    y = np.asarray(values, float).reshape(len(A), -1)
    coefficients, _ = _solve(A[fit.used], y[fit.used], fit.errors[fit.used], fit.prior_errors)
    return replace(fit, coefficients=coefficients, residuals=y - A @ coefficients)


def left_out_loss(fit: LinearFit, errors: Float, clip_sigma: float) -> Float:
    """Give each datum's squared distance, in sigma, from the fit to the others.

    Parameters
    ----------
    fit
        The fit.
    errors
        (n,) 1 sigma, the same for all fits to be compared.
    clip_sigma
        Distances are cut at ``sqrt(2)`` times this: an outlier costs the same whatever the fit.

    Returns
    -------
    (n,) float64.
    """
    left_out = fit.residuals / (1 - np.minimum(fit.leverage, 0.99))[:, None]
    squared = np.sum((left_out / errors[:, None]) ** 2, axis=1)
    return np.asarray(np.minimum(squared, 2 * clip_sigma**2), float)


def _solve(A: Float, y: Float, sigma: Float, prior: Float) -> tuple[Float, Float]:
    """Weighted least squares; columns are scaled first, so that powers of pixels stay well conditioned."""
    held = np.isfinite(prior)
    if held.any():  # a prior is one more datum: the coefficient itself, measured as 0
        A = np.concatenate([A, np.eye(A.shape[1])[held]])
        y = np.concatenate([y, np.zeros((int(held.sum()), y.shape[1]))])
        sigma = np.concatenate([sigma, prior[held]])
    weighted, wanted = A / sigma[:, None], y / sigma[:, None]
    norms = np.sqrt(np.einsum("ij,ij->j", weighted, weighted))
    norms[norms == 0] = 1.0
    weighted = weighted / norms
    # The normal equations lose half of the digits: only what is far from degenerate goes through them.
    lower, failed = dpotrf(weighted.T @ weighted, lower=1)
    if failed or np.min(np.diag(lower)) < _DEGENERATE:
        u, s, vt = np.linalg.svd(weighted, full_matrices=False)
        right = vt.T * np.where(s > s[0] * 1e-13, 1.0 / s, 0.0) / norms[:, None]
        return right @ (u.T @ wanted), right @ right.T
    inverse, _ = dtrtri(lower, lower=1)
    right = np.tril(inverse).T / norms[:, None]
    covariance = right @ right.T
    return covariance @ (norms[:, None] * (weighted.T @ wanted)), covariance


def _robust_start(
    A: Float, y: Float, sigma: Float, prior: Float, iterations: int = 10
) -> tuple[Float, float]:
    """Fit what most data agree on; return the coefficients and the scale of that majority.

    Least absolute residuals first (by reweighting: no scale needed, which outliers would spoil), then
    concentration steps towards least trimmed squares (Rousseeuw & Van Driessen 2006), which a few data
    far out in the design cannot tilt.
    """
    weight = np.ones(len(A))
    median = float(np.median(np.linalg.norm(y - np.median(y, axis=0), axis=1)))
    for _ in range(iterations):
        # With the scatter seen so far, no outlier with a small error outweighs all others and the prior.
        coefficients, _ = _solve(A, y, np.hypot(sigma, median) / np.sqrt(weight), prior)
        distance = np.linalg.norm(y - A @ coefficients, axis=1)
        median = max(float(np.median(distance)), 1e-300)
        weight = median / np.maximum(distance, 0.1 * median)
    n_free = int(np.count_nonzero(np.isinf(prior)))
    majority = min(len(A), (len(A) + n_free + 1) // 2)
    for _ in range(iterations):
        nearest = np.argpartition(distance, majority - 1)[:majority]
        coefficients, _ = _solve(A[nearest], y[nearest], sigma[nearest], prior)
        distance = np.linalg.norm(y - A @ coefficients, axis=1)
    normal_median = float(np.sqrt(2 * gammaincinv(y.shape[1] / 2, 0.5)))
    return coefficients, float(np.median(distance)) / normal_median


def _inliers(residuals: Float, sigma: Float, limit: float, n_free: int) -> Bool:
    distance = np.sum((residuals / sigma[:, None]) ** 2, axis=1)
    fewest = min(len(distance), n_free + 1)
    # Never clip below what the fit needs: the nearest ones stay.
    return np.asarray(distance <= max(limit, float(np.partition(distance, fewest - 1)[fewest - 1])), bool)


def _extra_scatter(residuals: Float, sigma: Float, n_fitted: float, limit: float) -> float:
    """Find the scatter that, added in quadrature, makes chi square what its degrees of freedom say."""
    n, n_axes = residuals.shape
    tails = chdtr(n_axes + 2, limit) / chdtr(n_axes, limit)
    wanted = max(n - n_fitted, 1.0) * n_axes * tails
    squared = np.sum(residuals**2, axis=1)

    def excess(variance: float) -> float:
        return float(np.sum(squared / (sigma**2 + variance)) - wanted)

    if excess(0.0) <= 0.0:
        return 0.0
    return float(np.sqrt(brentq(excess, 0.0, float(np.sum(squared) / wanted) * 1.01 + 1e-300, rtol=1e-6)))
