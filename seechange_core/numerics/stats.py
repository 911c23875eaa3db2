"""Robust statistics: clipped means and MAD sigmas."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

#: Sigma of a Gaussian in units of its median absolute deviation, 1 / Phi^-1(3/4).
MAD_TO_SIGMA = 1.482602218505602


class ClippedStats(NamedTuple):
    """What is left of a sample after clipping: mean, median, standard deviation and count."""

    mean: float
    median: float
    sigma: float
    n: int


def mad_sigma(values: npt.ArrayLike) -> float:
    """Return the standard deviation of a sample as its scaled median absolute deviation.

    Parameters
    ----------
    values
        Any shape; what is not finite is left out.

    Returns
    -------
    float
        NaN for an empty sample.
    """
    sample = _finite(values)
    if sample.size == 0:
        return np.nan
    return float(MAD_TO_SIGMA * np.median(np.abs(sample - np.median(sample))))


def clipped_stats(values: npt.ArrayLike, n_sigma: float = 4.0, max_iterations: int = 10) -> ClippedStats:
    """Clip a sample around its median until nothing more is clipped.

    The width to clip by starts as the MAD sigma, so that a third of bad values does no harm.

    Parameters
    ----------
    values
        Any shape; what is not finite is left out.
    n_sigma
        Half-width kept.
    max_iterations
        Stop after so many rounds even if values are still being clipped.

    Returns
    -------
    ClippedStats
        NaN and 0 for an empty sample. The sigma is not corrected for the clipped tails (0.1 % at 4 sigma).
    """
    sample = np.sort(_finite(values).astype(np.float64))
    if sample.size == 0:
        return ClippedStats(np.nan, np.nan, np.nan, 0)
    width = mad_sigma(sample) or float(np.std(sample))
    for _ in range(max_iterations):
        centre = float(np.median(sample))
        low = int(np.searchsorted(sample, centre - n_sigma * width, "left"))
        high = int(np.searchsorted(sample, centre + n_sigma * width, "right"))
        if high - low == sample.size:
            break
        sample = sample[low:high]
        width = float(np.std(sample))
    return ClippedStats(float(np.mean(sample)), float(np.median(sample)), float(np.std(sample)), sample.size)


def _finite(values: npt.ArrayLike) -> npt.NDArray[Any]:
    sample = np.asarray(values).ravel()
    finite: npt.NDArray[Any] = sample[np.isfinite(sample)]
    return finite
