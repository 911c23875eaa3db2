"""Figures of merit against known truth: completeness, false detections, pulls.

Used wherever pixels were simulated. Takes plain arrays, so that it can judge any pipeline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree
from scipy.special import ndtri

#: A normal distribution's standard deviation per unit of interquartile range.
_SIGMA_PER_IQR = 0.7413


@dataclass(frozen=True)
class Pulls:
    """How honest a set of error bars is: (measured - true) / error should be a standard normal.

    Attributes
    ----------
    median, width
        0 and 1 when honest; the width is from the interquartile range.
    median_err, width_err
        Their statistical errors for `n` normal pulls.
    n
        How many.
    """

    median: float
    width: float
    median_err: float
    width_err: float
    n: int


def pulls(measured: npt.ArrayLike, error: npt.ArrayLike, true: npt.ArrayLike) -> Pulls:
    """Summarise (measured - true) / error robustly; rows with anything not finite are left out.

    Parameters
    ----------
    measured, error, true
        Of equal shape and unit.
    """
    values = (np.asarray(measured, float) - np.asarray(true, float)) / np.asarray(error, float)
    values = values[np.isfinite(values)]
    n = len(values)
    if n == 0:
        return Pulls(np.nan, np.nan, np.nan, np.nan, 0)
    low, median, high = np.percentile(values, [25, 50, 75])
    # Asymptotic errors for a normal sample: of the median sqrt(pi/2n), of the IQR width 1.17/sqrt(n).
    return Pulls(
        float(median),
        float(_SIGMA_PER_IQR * (high - low)),
        float(np.sqrt(np.pi / (2 * n))),
        float(1.17 / np.sqrt(n)),
        n,
    )


@dataclass(frozen=True)
class Fraction:
    """A counted fraction with its 68 % interval (Wilson)."""

    found: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Found over total, NaN when there is nothing to find."""
        return self.found / self.total if self.total else float("nan")


def fraction(found: int, total: int) -> Fraction:
    """Count a fraction with its 68 % Wilson interval."""
    if total == 0:
        return Fraction(0, 0, 0.0, 1.0)
    share, z2 = found / total, float(ndtri(0.5 + 0.68 / 2)) ** 2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = math.sqrt(z2 * (share * (1 - share) / total + z2 / (4 * total**2))) / (1 + z2 / total)
    return Fraction(found, total, max(centre - half, 0.0), min(centre + half, 1.0))


def completeness(snr: npt.ArrayLike, found: npt.ArrayLike, edges: Sequence[float]) -> dict[str, Fraction]:
    """Count the found fraction in bins of true signal to noise.

    Parameters
    ----------
    snr, found
        True S/N and whether it was found, one entry per injected source.
    edges
        Bin edges, ascending; the last bin is open.

    Returns
    -------
    dict
        By bin name: ``3-5``, ``5-10``, ..., ``20+``.
    """
    snr_values, is_found = np.asarray(snr, float), np.asarray(found, bool)
    result = {}
    for low, high in zip(edges, [*edges[1:], np.inf], strict=True):
        inside = (snr_values >= low) & (snr_values < high)
        name = f"{low:g}-{high:g}" if np.isfinite(high) else f"{low:g}+"
        result[name] = fraction(int(is_found[inside].sum()), int(inside.sum()))
    return result


def nearest(
    xy: npt.NDArray[np.float64], candidates: npt.NDArray[np.float64], radius: float
) -> npt.NDArray[np.int64]:
    """Find for each point the nearest candidate within a radius.

    Parameters
    ----------
    xy, candidates
        (n, 2) and (m, 2), one flat unit.
    radius
        In the same unit.

    Returns
    -------
    (n,) int
        Index into `candidates`, -1 where none is near enough.
    """
    if len(candidates) == 0 or len(xy) == 0:
        return np.full(len(xy), -1)
    distance, index = KDTree(candidates).query(xy, distance_upper_bound=radius)
    return np.where(np.isfinite(distance), index, -1).astype(np.int64)
