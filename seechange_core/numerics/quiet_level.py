"""The level that something had before it began to change: from its own measurements before."""

from collections.abc import Iterator

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import gammaincc

from seechange_core.frames import Float

#: Fewer epochs tell no rise from scatter.
_MIN_EPOCHS = 3
#: What rose unseen was not found: in the last of the epochs it is of the order of so many errors.
_UNSEEN_SIGMA = 3.0
#: Of so many epochs a rise may begin at: they stand for those between, and time grows as the epochs.
_MAX_STARTS = 200
#: Less likely than that by noise alone, a scatter is real.
_BY_CHANCE = 1e-3
#: How light rises: as a line, or as a supernova's first days do.
_POWERS = (1, 2)


def quiet_level(time: Float, flux: Float, error: Float) -> tuple[float, float]:
    """Return the level that something had in the beginning, and its error, though it may have risen unseen.

    Light too faint to be found may be there long before the first detection, and noise looks like it. So
    neither is decided upon: the level is the mean over models, each weighted by its probability given the
    data (Bayesian model averaging; Hoeting et al. 1999, Statist. Sci. 14, 382): constant light with
    probability one half before the data are seen, else light that is constant up to one of the epochs, all
    alike (at most 200 of them), and from there rises or falls with the first or second power of time. By how
    much it did so at the last epoch has a Gaussian prior: of 3 errors, as more would have been found, and in
    quadrature what the first and the last epoch differ by, as of the missing light of something that is in
    its reference a rise of many errors is seen. The error is that of the mixture,
    ``(sum w (err^2 + (level - mean)^2))^1/2``, wide where the data do not tell. If the epochs scatter by more
    than their errors around the best of the models (zero points have errors, too), all errors are scaled up
    to what they show.

    Parameters
    ----------
    time, flux, error
        (n,) each, finite; errors above 0. Any units.

    Returns
    -------
    level, level_err
        NaN without an epoch.
    """
    order = np.argsort(time, kind="stable")
    time, flux, error = time[order], flux[order], error[order]
    if len(time) == 0:
        return np.nan, np.nan
    error = error * _excess(time, flux, error)
    one = np.ones((1, len(time)))
    models = [(0.5, *_posterior(flux, error, one))]
    shapes = list(_rises(time)) if len(time) >= _MIN_EPOCHS else []
    models += [(0.5 / len(shapes), *_posterior(flux, error, np.vstack([one, shape]))) for shape in shapes]
    prior, level, variance, log_evidence = np.array(models).T
    weight = prior * np.exp(log_evidence - log_evidence.max())
    weight /= weight.sum()
    mean = np.sum(weight * level)
    return float(mean), float(np.sqrt(np.sum(weight * (variance + (level - mean) ** 2))))


def _rises(time: Float) -> Iterator[Float]:
    """Yield how light may rise: 0 up to each of the epochs but the last, 1 at the last one."""
    starts = np.unique(time)[:-1]
    few = np.unique(np.linspace(0, len(starts) - 1, min(len(starts), _MAX_STARTS)).round().astype(int))
    for start in starts[few]:
        since = np.clip((time - start) / (time[-1] - start), 0, None)
        for power in _POWERS:
            yield since**power


def _posterior(flux: Float, error: Float, terms: Float) -> tuple[float, float, float]:
    """Fit a level and perhaps a rise; return level, variance, and the logarithm of the evidence.

    The prior of the level is flat, and the evidence but for a constant.
    """
    scaled, risen = terms / error, np.hypot(_UNSEEN_SIGMA * error[-1], flux[-1] - flux[0])
    normal = scaled @ scaled.T
    normal[1:, 1:] += np.eye(len(terms) - 1) / risen**2
    vector = scaled @ (flux / error)
    covariance = np.linalg.inv(normal)
    fitted = covariance @ vector
    chi2 = np.sum((flux / error) ** 2) - vector @ fitted
    occam = np.linalg.slogdet(normal)[1] + 2 * (len(terms) - 1) * np.log(risen)
    return float(fitted[0]), float(covariance[0, 0]), float(-(chi2 + occam) / 2)


def quiet_at_first(time: Float, flux: Float, error: Float) -> bool:
    """Tell whether measurements are those of light that was constant, or never fell, within their errors.

    By the chi square of the best light curve that nowhere falls (isotonic regression): False where noise
    alone makes it as large in less than 0.1 % of all cases. Of few epochs little can be told: then True.

    Parameters
    ----------
    time, flux, error
        As of `quiet_level`.
    """
    order = np.argsort(time, kind="stable")
    flux, error = flux[order], error[order]
    if len(flux) < 2:
        return True
    best = isotonic_regression(flux, weights=error**-2).x
    chi2 = np.sum(((flux - best) / error) ** 2)
    return bool(gammaincc((len(flux) - 1) / 2, chi2 / 2) > _BY_CHANCE)


def _excess(time: Float, flux: Float, error: Float) -> float:
    """Return by how much the errors are too small for the scatter around the best model, at least 1."""
    least = np.inf
    for shape in ([], *([r] for r in _rises(time))):
        terms = np.vstack([np.ones((1, len(time))), *shape]) / error
        dof = len(time) - len(terms)
        if dof > 0:
            fitted, *_ = np.linalg.lstsq(terms.T, flux / error, rcond=None)
            least = min(least, np.sum((flux / error - fitted @ terms) ** 2) / dof)
    return float(np.sqrt(max(least, 1.0))) if np.isfinite(least) else 1.0
