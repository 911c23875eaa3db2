"""Ensemble photometry: the zero point of every epoch from what many stars do together.

All stars of an image brighten and fade with the air and the camera; a star that varies does so alone.
The model (Honeycutt 1992, PASP 104, 435, eq. 1) is ``-2.5 log10(flux_ij) = M_i - z_j + noise`` for star i
at epoch j, and ``m_ij = z_j - 2.5 log10(flux_ij)`` is free of what the epochs do. Here the noise of each
star also has a scatter of its own, found together with the solution, so that a variable among the stars
loses its say.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2

from seechange_core.frames import Bool, Float
from seechange_core.numerics.stats import MAD_TO_SIGMA

_MAG = 2.5 / np.log(10.0)
#: A star's own scatter is believed, against the common one, beyond this probability of chance.
_ELEVATED_P = 0.01


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The solution for n stars at m epochs.

    Attributes
    ----------
    zero_point, zero_point_err
        (m,) mag: ``mag = zero_point - 2.5 log10(flux)``. The mean over the epochs is 0, and the errors are
        those against that mean. NaN where no star ties an epoch to the others.
    mean_mag, mean_mag_err
        (n,) of each star on that scale; NaN where it was never measured.
    excess_mag
        (n,) scatter beyond the given errors, 1 sigma.
    rms_mag, mad_mag
        (n,) scatter of a single measurement after the correction, as root mean square and as scaled
        median absolute deviation; both allow for what the star itself took out of it.
    residual_mag
        (n, m) measured minus model; NaN where not measured.
    common_excess_mag
        That of stars which do not vary.
    used
        (n,) False for stars that vary, or were never measured: they have no part in the zero points.
    clipped
        (n, m) single measurements far off, which have none either.
    n_stars
        (m,) stars that an epoch's zero point comes from.
    """

    zero_point: Float
    zero_point_err: Float
    mean_mag: Float
    mean_mag_err: Float
    excess_mag: Float
    rms_mag: Float
    mad_mag: Float
    residual_mag: Float
    common_excess_mag: float
    used: Bool
    clipped: Bool
    n_stars: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Solution:
    """A weighted solution for given weights; `free` is the variance of a residual over that of the noise."""

    z: Float
    covariance: Float
    mean: Float
    residual: Float
    free: Float
    weight: Float


def solve(
    flux: npt.ArrayLike,
    flux_err: npt.ArrayLike,
    *,
    clip_sigma: float = 4.5,
    variable_factor: float = 3.0,
    max_iterations: int = 40,
) -> Ensemble:
    r"""Find the zero points of epochs from the fluxes of stars they share.

    With weights ``w_ij = 1 / (sigma_ij^2 + s_i^2)``, ``sigma_ij = 1.0857 flux_err / flux``, minimises

    .. math:: \chi^2 = \sum_{ij} w_{ij} (v_{ij} - M_i + z_j)^2, \qquad v_{ij} = -2.5 \log_{10} f_{ij},

    which with the stars' means eliminated is linear in the zero points,
    ``A z = b``, ``A_jk = delta_jk sum_i w_ij - sum_i w_ij w_ik / sum_l w_il``. A is singular, as a common
    shift of all zero points and means changes nothing; its pseudo-inverse is the covariance of z where
    ``sum(z) = 0``.

    The scatter ``s_i`` makes each star's residuals as large as they must be,
    ``sum_j r_ij^2 w_ij = sum_j (1 - h_ij)`` (Paule & Mandel 1982, J. Res. NBS 87, 377, eq. 11, with the
    leverages h), but only where that is significantly above the scatter common to all stars, estimated
    likewise: a star that happens to follow the solution well must not take it over. Stars whose own
    scatter is more than `variable_factor` times what is common to all and their noise are left out.

    Parameters
    ----------
    flux, flux_err
        (n, m) any linear unit; what is not finite or not positive counts as not measured. Magnitudes are
        symmetric enough above a S/N of about 20.
    clip_sigma
        Single measurements farther off than this are left out.
    variable_factor
        See above.
    max_iterations
        Of weights and solution.

    Raises
    ------
    ValueError
        If the arrays do not fit together, or no star was measured twice.
    """
    f, err = np.asarray(flux, float), np.asarray(flux_err, float)
    if f.ndim != 2 or f.shape != err.shape:
        raise ValueError(f"fluxes of shape {f.shape} and errors of shape {err.shape} do not fit together")
    with np.errstate(invalid="ignore", divide="ignore"):
        known = np.isfinite(f) & np.isfinite(err) & (f > 0) & (err > 0)
        v = np.where(known, -2.5 * np.log10(f), 0.0)
        sigma = np.where(known, _MAG * err / f, 1.0)
    known &= (known.sum(axis=1) >= 2)[:, None]
    known = _connected(known)
    if not known.any():
        raise ValueError("no star was measured at two epochs")
    return _Solver(v, sigma, known, clip_sigma, variable_factor).run(max_iterations)


def _connected(known: Bool) -> Bool:
    """Keep the largest group of epochs that stars tie together."""
    n, m = known.shape
    star, epoch = np.nonzero(known)
    graph = csr_array((np.ones(len(star)), (star, n + epoch)), shape=(n + m, n + m))
    _, label = connected_components(graph, directed=False)
    largest = np.bincount(label[n + epoch], minlength=1).argmax() if len(epoch) else 0
    return np.asarray(known & (label[n:] == largest)[None, :], bool)


@dataclass
class _Solver:
    """The iteration; all arrays (n, m), `v` and `sigma` in mag."""

    v: Float
    sigma: Float
    known: Bool
    clip_sigma: float
    variable_factor: float

    def run(self, max_iterations: int) -> Ensemble:
        excess, used, clipped = self._start()
        for _ in range(max_iterations):
            solution = self._solve(excess, used, clipped)
            before = excess, used, clipped
            excess, used = self._scatter(solution, used, clipped)
            clipped = self._clip(solution, excess)
            same = np.array_equal(before[1], used) and np.array_equal(before[2], clipped)
            if same and np.allclose(before[0], excess, rtol=1e-3, atol=1e-7):
                break
        return self._result(self._solve(excess, used, clipped), excess, used, clipped)

    def _start(self) -> tuple[Float, Bool, Bool]:
        """Medians in turn, over stars and epochs: half of the data may be anything."""
        v = np.where(self.known, self.v, np.nan)
        z = np.zeros(v.shape[1])
        for _ in range(10):
            mean = _median(v + z, axis=1)
            z = -_median(v - mean[:, None], axis=0)
        residual = v - mean[:, None] + z
        spread = MAD_TO_SIGMA * _median(np.abs(residual), axis=1)
        noise = _median(np.where(self.known, self.sigma, np.nan), axis=1)
        excess = np.sqrt(np.maximum(0.0, spread**2 - noise**2))
        common = float(np.median(excess[self.known.any(axis=1)]))
        excess = np.maximum(excess, common)
        clipped = np.abs(residual) > self.clip_sigma * np.hypot(self.sigma, excess[:, None])
        return excess, np.asarray(self.known.any(axis=1), bool), np.asarray(clipped & self.known, bool)

    def _solve(self, excess: Float, used: Bool, clipped: Bool) -> _Solution:
        w = np.where(self.known & ~clipped, 1.0 / (self.sigma**2 + excess[:, None] ** 2), 0.0)
        total = w.sum(axis=1)
        share = np.divide(w, total[:, None], out=np.zeros_like(w), where=total[:, None] > 0)
        ours = np.where(used[:, None], w, 0.0)
        tied = ours.sum(axis=0) > 0
        normal = np.diag(ours.sum(axis=0)) - ours.T @ share
        right = -np.sum(ours * (self.v - np.sum(share * self.v, axis=1)[:, None]), axis=0)
        covariance = np.full(normal.shape, np.nan)
        z = np.full(len(tied), np.nan)
        size = np.mean(np.diag(normal)[tied]) / tied.sum()
        inverse = np.linalg.inv(normal[np.ix_(tied, tied)] + size) - 1.0 / (size * tied.sum() ** 2)
        covariance[np.ix_(tied, tied)] = inverse
        z[tied] = inverse @ right[tied]
        w, share = np.where(tied, w, 0.0), np.where(tied, share, 0.0)
        share = np.divide(
            share, share.sum(axis=1, keepdims=True), out=share, where=share.sum(axis=1, keepdims=True) > 0
        )
        filled = np.where(tied, z, 0.0)
        mean = np.sum(share * (self.v + filled), axis=1)
        residual = self.v - mean[:, None] + z
        c = np.where(np.isfinite(covariance), covariance, 0.0)
        # Variance of mean_i - z_j from the zero points alone; the stars' own part is `share`.
        through = share @ c
        spread = np.sum(through * share, axis=1)[:, None] - 2.0 * through + np.diag(c)
        free = 1.0 - share + np.where(used[:, None], -1.0, 1.0) * w * spread
        return _Solution(z, covariance, mean, residual, np.clip(free, 1e-3, None), w)

    def _scatter(self, solution: _Solution, used: Bool, clipped: Bool) -> tuple[Float, Bool]:
        """Return each star's excess scatter, and which stars do not vary."""
        good = (solution.weight > 0) & ~clipped
        squared = np.where(good, solution.residual, 0.0) ** 2
        # What is left of a chi square after clipping.
        tails = chi2.cdf(self.clip_sigma**2, 3) / chi2.cdf(self.clip_sigma**2, 1)
        wanted = np.where(good, solution.free, 0.0) * tails
        variance = np.where(good, self.sigma, 1.0) ** 2
        own = _paule_mandel(squared, variance, wanted)
        ordinary = used.copy()
        for _ in range(10):
            rows = ordinary if ordinary.any() else used
            common = _paule_mandel(*(a[rows].reshape(1, -1) for a in (squared, variance, wanted)))[0]
            ratio = np.sum(squared / (variance + common), axis=1)
            freedom = np.sum(wanted, axis=1)
            elevated = ratio > chi2.isf(_ELEVATED_P, np.maximum(freedom, 1e-3))
            if np.array_equal(ordinary, used & ~elevated):
                break
            ordinary = used & ~elevated
        excess2 = np.where(elevated, np.maximum(own, common), common)
        noise2 = np.divide(
            np.sum(np.where(good, variance, 0.0), axis=1),
            good.sum(axis=1),
            out=np.ones(len(own)),
            where=good.any(axis=1),
        )
        steady = excess2 <= self.variable_factor**2 * (common + noise2)
        keeps = self.known.any(axis=1) & steady
        return np.sqrt(excess2), keeps if keeps.any() else used

    def _clip(self, solution: _Solution, excess: Float) -> Bool:
        sigma = np.hypot(self.sigma, excess[:, None])
        # A clipped measurement has no part in the fit, so its residual is not shrunk by it.
        free = np.where(solution.weight > 0, solution.free, 1.0)
        far = np.abs(solution.residual) > self.clip_sigma * sigma * np.sqrt(free)
        clipped = self.known & far
        # Never below two measurements of a star: which of them is wrong nobody can tell.
        few = (self.known & ~clipped).sum(axis=1) < 2
        return np.asarray(clipped & ~few[:, None], bool)

    def _result(self, s: _Solution, excess: Float, used: Bool, clipped: Bool) -> Ensemble:
        total = s.weight.sum(axis=1)
        measured = total > 0
        c = np.where(np.isfinite(s.covariance), s.covariance, 0.0)
        share = np.divide(s.weight, total[:, None], out=np.zeros_like(s.weight), where=measured[:, None])
        own = np.divide(1.0, total, out=np.full(len(total), np.nan), where=measured)
        good = s.weight > 0
        scaled = np.where(good, s.residual / np.sqrt(s.free), np.nan)
        count = np.maximum(good.sum(axis=1), 1)
        rms = np.sqrt(np.sum(np.where(good, scaled, 0.0) ** 2, axis=1) / count)
        return Ensemble(
            zero_point=s.z,
            zero_point_err=np.sqrt(np.diag(s.covariance)),
            mean_mag=np.where(measured, s.mean, np.nan),
            mean_mag_err=np.sqrt(own + np.einsum("ij,jk,ik->i", share, c, share)),
            excess_mag=np.where(measured, excess, np.nan),
            rms_mag=np.where(measured, rms, np.nan),
            mad_mag=MAD_TO_SIGMA * _median(np.abs(scaled), axis=1),
            residual_mag=np.where(self.known, s.residual, np.nan),
            # Stars have it unless theirs is significantly larger.
            common_excess_mag=float(np.min(excess[used & measured])),
            used=used & measured,
            clipped=clipped,
            n_stars=np.sum(good & used[:, None], axis=0),
        )


def _median(values: Float, axis: int) -> Float:
    """Take the median of what is finite; 0 where nothing is."""
    ordered = np.sort(values, axis=axis)
    count = np.isfinite(ordered).sum(axis=axis)
    low = np.take_along_axis(ordered, np.expand_dims(np.maximum(count - 1, 0) // 2, axis), axis=axis)
    high = np.take_along_axis(
        ordered, np.expand_dims(count // 2, axis).clip(max=values.shape[axis] - 1), axis=axis
    )
    return np.asarray(np.where(count > 0, (low + high).squeeze(axis) / 2, 0.0), float)


def _paule_mandel(squared: Float, variance: Float, wanted: Float) -> Float:
    """Find per row the variance that makes ``sum(squared / (variance + it))`` what is wanted; 0 at least."""
    goal = wanted.sum(axis=1)
    low = np.zeros(len(goal))
    high = np.sum(squared, axis=1) / np.maximum(goal, 1e-12)
    for _ in range(60):
        middle = (low + high) / 2
        above = np.sum(squared / (variance + middle[:, None]), axis=1) > goal
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(np.where(high < 1e-16, 0.0, high), float)
