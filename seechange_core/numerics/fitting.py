"""Linear least squares as measurements need it: weighted, clipped, with an unknown extra scatter.

One brick for zero points and for astrometric solutions; it knows neither.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import chdtr, chdtrc, chdtri, gammaincinv

from seechange_core.frames import Bool, Float


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A fit of ``values = design @ coefficients``.

    Attributes
    ----------
    coefficients
        (n_terms, n_axes).
    covariance
        (n_terms, n_terms), the same for every axis, `scatter` included.
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
    """

    coefficients: Float
    covariance: Float
    residuals: Float
    errors: Float
    scatter: float
    leverage: Float
    used: Bool

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

    Raises
    ------
    ValueError
        If there are not more data than terms.
    """
    A = np.asarray(design, float)
    sigma = np.asarray(errors, float)
    y = np.asarray(values, float).reshape(len(A), -1)
    if len(A) <= A.shape[1]:
        raise ValueError(f"{len(A)} data cannot fit {A.shape[1]} terms and their scatter")
    limit = float(chdtri(y.shape[1], chdtrc(1, clip_sigma**2)))
    coefficients, scale = _robust_start(A, y, sigma)
    residuals = y - A @ coefficients
    scatter = np.sqrt(max(0.0, scale**2 - float(np.median(sigma)) ** 2))
    used = _inliers(residuals, np.hypot(sigma, scatter), limit, A.shape[1])
    for _ in range(max_iterations):
        scatter = _extra_scatter(residuals[used], sigma[used], A.shape[1], limit)
        total = np.hypot(sigma, scatter)
        coefficients, covariance = _solve(A[used], y[used], total[used])
        residuals = y - A @ coefficients
        before, used = used, _inliers(residuals, total, limit, A.shape[1])
        if np.array_equal(before, used):
            break
    leverage = np.where(before, np.einsum("ij,jk,ik->i", A, covariance, A) / total**2, 0.0)
    return LinearFit(coefficients, covariance, residuals, total, float(scatter), leverage, before)


def refit(fit: LinearFit, design: npt.ArrayLike, values: npt.ArrayLike) -> LinearFit:
    """Solve again for slightly changed values, keeping the errors and the outliers of a fit."""
    A = np.asarray(design, float)
    y = np.asarray(values, float).reshape(len(A), -1)
    coefficients, _ = _solve(A[fit.used], y[fit.used], fit.errors[fit.used])
    return replace(fit, coefficients=coefficients, residuals=y - A @ coefficients)


def _solve(A: Float, y: Float, sigma: Float) -> tuple[Float, Float]:
    """Weighted least squares; columns are scaled first, so that powers of pixels stay well conditioned."""
    weighted = A / sigma[:, None]
    norms = np.linalg.norm(weighted, axis=0)
    norms[norms == 0] = 1.0
    u, s, vt = np.linalg.svd(weighted / norms, full_matrices=False)
    inverse = np.where(s > s[0] * 1e-13, 1.0 / s, 0.0)
    right = (vt.T * inverse) / norms[:, None]
    return right @ (u.T @ (y / sigma[:, None])), right @ right.T


def _robust_start(A: Float, y: Float, sigma: Float, iterations: int = 10) -> tuple[Float, float]:
    """Fit what most data agree on; return the coefficients and the scale of that majority.

    Least absolute residuals first (by reweighting: no scale needed, which outliers would spoil), then
    concentration steps towards least trimmed squares (Rousseeuw & Van Driessen 2006), which a few data
    far out in the design cannot tilt.
    """
    weight = np.ones(len(A))
    for _ in range(iterations):
        coefficients, _ = _solve(A, y, sigma / np.sqrt(weight))
        distance = np.linalg.norm(y - A @ coefficients, axis=1)
        median = max(float(np.median(distance)), 1e-300)
        weight = median / np.maximum(distance, 0.1 * median)
    majority = min(len(A), (len(A) + A.shape[1] + 1) // 2)
    for _ in range(iterations):
        nearest = np.argpartition(distance, majority - 1)[:majority]
        coefficients, _ = _solve(A[nearest], y[nearest], sigma[nearest])
        distance = np.linalg.norm(y - A @ coefficients, axis=1)
    normal_median = float(np.sqrt(2 * gammaincinv(y.shape[1] / 2, 0.5)))
    return coefficients, float(np.median(distance)) / normal_median


def _inliers(residuals: Float, sigma: Float, limit: float, n_terms: int) -> Bool:
    distance = np.sum((residuals / sigma[:, None]) ** 2, axis=1)
    fewest = min(len(distance), n_terms + 1)
    # Never clip below what the fit needs: the nearest ones stay.
    return np.asarray(distance <= max(limit, float(np.partition(distance, fewest - 1)[fewest - 1])), bool)


def _extra_scatter(residuals: Float, sigma: Float, n_terms: int, limit: float) -> float:
    """Find the scatter that, added in quadrature, makes chi square what its degrees of freedom say."""
    n, n_axes = residuals.shape
    tails = chdtr(n_axes + 2, limit) / chdtr(n_axes, limit)
    wanted = max(n - n_terms, 1) * n_axes * tails
    squared = np.sum(residuals**2, axis=1)

    def excess(variance: float) -> float:
        return float(np.sum(squared / (sigma**2 + variance)) - wanted)

    if excess(0.0) <= 0.0:
        return 0.0
    return float(np.sqrt(brentq(excess, 0.0, float(np.sum(squared) / wanted) * 1.01 + 1e-300, rtol=1e-6)))
