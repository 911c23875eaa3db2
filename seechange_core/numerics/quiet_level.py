"""The level that something had before it began to change: from its own measurements before."""

import numpy as np

from seechange_core.frames import Float

#: Fewer epochs show no trend.
_MIN_EPOCHS = 3


def quiet_level(time: Float, flux: Float, error: Float) -> tuple[float, float]:
    """Return the mean of the earliest epochs that show no trend, and its error.

    Light too faint to be found may be there long before the first detection. So, as long as a line through
    the epochs rises or falls by more than its error, the later half of them is left out; what such a line
    cannot show is of the size of the error of the mean. If the epochs that are left scatter by more than
    their errors (zero points have errors, too), the mean's error is scaled up to what they show.

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
    time, flux, weight = time[order], flux[order], error[order] ** -2.0
    n = len(time)
    if n == 0:
        return np.nan, np.nan
    while n >= _MIN_EPOCHS and _trend_sigma(time[:n], flux[:n], weight[:n]) > 1:
        n = (n + 1) // 2
    flux, weight = flux[:n], weight[:n]
    level = np.sum(weight * flux) / np.sum(weight)
    chi2 = np.sum(weight * (flux - level) ** 2) / max(n - 1, 1)
    return float(level), float(np.sqrt(max(chi2, 1.0) / np.sum(weight)))


def _trend_sigma(time: Float, flux: Float, weight: Float) -> float:
    """Return the size of the slope of a line in units of its error; 0 for a single moment."""
    since = time - np.sum(weight * time) / np.sum(weight)
    spread = np.sum(weight * since**2)
    if not spread > 0:
        return 0.0
    rest = flux - np.sum(weight * flux) / np.sum(weight)
    slope = np.sum(weight * since * rest) / spread
    chi2 = np.sum(weight * (rest - slope * since) ** 2) / max(len(flux) - 2, 1)
    return float(abs(slope) * np.sqrt(spread / max(chi2, 1.0)))
