"""Signals brought to what a linear detector would have given."""

from typing import NamedTuple

import numpy as np
from numba import njit

from seechange_core.errors import HeaderError, PixelsError
from seechange_core.frames import Amplifier, Float, Float32, Int, LinearityLaw


class LinearityTable(NamedTuple):
    """One amplifier's law.

    Attributes
    ----------
    measured_adu, true_adu
        (n,) float64, both growing from 0.
    """

    measured_adu: Float
    true_adu: Float

    @property
    def limit_adu(self) -> float:
        """Largest signal the law knows."""
        return float(self.measured_adu[-1])


def table_of(law: LinearityLaw, name: str) -> LinearityTable:
    """Return an amplifier's table, checked.

    Raises
    ------
    HeaderError
        If the law does not know the amplifier.
    PixelsError
        If its table does not start at 0, 0, does not grow, or holds what is not finite.
    """
    if name not in law.amplifiers:
        raise HeaderError(
            f"the linearity law has no amplifier {name}, only {', '.join(law.amplifiers)}",
            cure="name its amplifiers as the instrument does",
        )
    shapes = np.shape(law.measured_adu), np.shape(law.true_adu)
    if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][0] != len(law.amplifiers):
        raise PixelsError(
            f"the law of {len(law.amplifiers)} amplifiers has tables of {shapes[0]} and {shapes[1]}",
            cure="give one row of measured and one of true levels for each amplifier",
        )
    index = law.amplifiers.index(name)
    measured = np.ascontiguousarray(law.measured_adu[index], dtype=np.float64)
    true = np.ascontiguousarray(law.true_adu[index], dtype=np.float64)
    grows = measured.size >= 2 and bool(np.all(np.diff(measured) > 0) and np.all(np.diff(true) > 0))
    finite = bool(np.isfinite(measured).all() and np.isfinite(true).all())
    if not (grows and finite) or measured[0] != 0 or true[0] != 0:
        raise PixelsError(
            f"the linearity table of amplifier {name} does not grow from 0, 0",
            cure="sort it, give it at least two points, and start it at zero signal",
        )
    return LinearityTable(measured, true)


def linear_limit_adu(amplifier: Amplifier, law: LinearityLaw | None, zero_adu: float) -> float:
    """Return the raw level up to which an amplifier is linear: what a law covers is so after it.

    Parameters
    ----------
    amplifier
        Whose own limit holds where there is no law.
    law
        The law that is applied, if one is.
    zero_adu
        The amplifier's zero level.
    """
    return amplifier.non_linear_adu if law is None else zero_adu + table_of(law, amplifier.name).limit_adu


def linearise(signal: Float32, table: LinearityTable) -> None:
    """Replace measured signals by true ones, in place.

    Straight between the table's points; its first and last stretch go on below 0 and beyond the end.

    Parameters
    ----------
    signal
        (H, W) float32, ADU above the zero level; NaN stays NaN.
    table
        The law.
    """
    measured, true = table
    slopes = np.diff(true) / np.diff(measured)
    # A ladder of equal rungs tells where to start looking, so that long tables cost no search.
    n_rungs = 4 * measured.size
    rung = measured[-1] / n_rungs
    first = np.searchsorted(measured, np.arange(n_rungs) * rung, side="right") - 1
    _interpolate(signal, measured, true, slopes, np.minimum(first, slopes.size - 1), 1 / rung)


@njit(cache=True, nogil=True)
def _interpolate(
    signal: Float32, measured: Float, true: Float, slopes: Float, first: Int, per_adu: float
) -> None:
    last = slopes.size - 1
    for y in range(signal.shape[0]):
        for x in range(signal.shape[1]):
            value = signal[y, x]
            k = 0
            if value >= measured[last]:
                k = last
            elif value > 0:
                k = first[int(value * per_adu)]
                while value > measured[k + 1]:
                    k += 1
            signal[y, x] = true[k] + slopes[k] * (value - measured[k])


def true_level(table: LinearityTable, measured_adu: float) -> float:
    """Return the true level of one measured level, ADU; the last stretch goes on beyond the end."""
    if not np.isfinite(measured_adu):
        return measured_adu
    one = np.full((1, 1), measured_adu, dtype=np.float32)
    linearise(one, table)
    return float(one[0, 0])


def noise_slope(table: LinearityTable, true_adu: float, sigma_adu: float) -> float:
    """Return by how much the law stretches noise that was added in reading, at some true level.

    Photon noise is not stretched: it was in the charge before the detector bent it.

    Parameters
    ----------
    table
        The law.
    true_adu
        Level, ADU.
    sigma_adu
        Noise around it: the slope is the mean one over so much to both sides.

    Returns
    -------
    float
        d(true) / d(measured).
    """
    middle = float(np.interp(true_adu, table.true_adu, table.measured_adu))
    reach = max(sigma_adu, 1e-3 * table.limit_adu)
    ends = np.clip([middle - reach, middle + reach], 0, table.limit_adu)
    levels = np.interp(ends, table.measured_adu, table.true_adu)
    return float((levels[1] - levels[0]) / (ends[1] - ends[0]))
