"""How the coarse pattern of a frame differs from that of others like it."""

from typing import NamedTuple

import numpy as np

from seechange_core.frames import Float, Float32
from seechange_core.numerics.stats import MAD_TO_SIGMA

#: Blocks of an amplifier, along y and x.
BLOCKS = (8, 2)


def finite_median(values: Float32) -> float:
    """Return the median of what is finite, NaN if nothing is."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else np.nan


def block_means(values: Float32) -> Float:
    """Return the clipped means of `BLOCKS` equal blocks.

    Means, because the median of whole ADU is one of them, and a block's pattern may be much less.

    Parameters
    ----------
    values
        (rows, width) float32; any rows of an amplifier, evenly spaced.

    Returns
    -------
    ndarray
        `BLOCKS` float64; that of all values where a block has none.
    """
    result = np.array(
        [
            [_clipped_mean(part) for part in np.array_split(band, BLOCKS[1], axis=1)]
            for band in np.array_split(values, BLOCKS[0], axis=0)
        ]
    )
    return np.where(np.isfinite(result), result, _clipped_mean(values))


def _clipped_mean(values: Float32) -> float:
    middle = finite_median(values)
    off = values - np.float32(middle)
    off = off[np.isfinite(off)]
    if not off.size:
        return np.nan
    size = np.abs(off)
    sigma = MAD_TO_SIGMA * float(np.median(size)) or float(np.std(off))
    return middle + float(np.mean(off[size <= 4 * sigma]))


class Departure(NamedTuple):
    """How far each of several frames is from the others.

    Attributes
    ----------
    centre
        (m,) what the frames agree on.
    deviation, tolerance
        (n, m), in the units of the values.
    """

    centre: Float
    deviation: Float
    tolerance: Float

    def worst(self, frame: int) -> int:
        """Return which of the m values of a frame is the furthest out."""
        return int(np.argmax(np.abs(self.deviation[frame]) / self.tolerance[frame]))

    def is_out(self, frame: int, share: float = 0.0) -> bool:
        """Tell whether more than this share of a frame's values lie outside."""
        within = np.abs(self.deviation[frame]) <= self.tolerance[frame]
        return bool(np.mean(~within) > share)


def departures(values: Float, units: Float, n_sigma: float, least: float, *, pooled: bool) -> Departure:
    """Compare frames with their median, robustly: up to nearly half of them may be anything.

    Parameters
    ----------
    values
        (n, m) float64, m numbers that describe each of n frames.
    units
        (n, m) float64, in which all frames should scatter alike.
    n_sigma
        Deviations tolerated, in units of the frames' own scatter.
    least
        Deviations always tolerated, in `units`.
    pooled
        The m values scatter alike: then few frames suffice to know by how much.

    Returns
    -------
    Departure
        Frames are out where the deviation exceeds the tolerance.
    """
    n = values.shape[0]
    centre = np.median(values, axis=0)
    deviation = values - centre
    off = np.abs(deviation / units)
    scatter = MAD_TO_SIGMA * np.median(off, axis=0)
    if pooled:
        # One value of an odd number is the median itself and says nothing.
        some = off[off > 0]
        common = MAD_TO_SIGMA * float(np.median(some)) if some.size else 0.0
        scatter = np.maximum(min(few_frames_factor(n), 3.0) * scatter, common)
    else:
        scatter = few_frames_factor(n) * scatter
    tolerance = np.maximum(n_sigma * scatter, least) * units
    return Departure(centre, deviation, tolerance)


def few_frames_factor(n: int) -> float:
    """Return how much wider than many frames' the limits of few must be: their MAD may be small by chance.

    With it, 6 sigma is passed by 1 good set of Gaussian values in 100 or less, for any number from 3 on.
    """
    return float(1 + 670 / n**3.28)


def fit_plane(x: Float, y: Float, values: Float) -> tuple[float, float]:
    """Fit ``values = c (1 + a x + b y)`` and return a and b; points that stand out are left out once.

    Parameters
    ----------
    x, y, values
        (m,) float64.
    """
    design = np.column_stack([np.ones_like(x), x, y])
    used = np.ones(x.size, dtype=np.bool_)
    for _ in range(2):
        c, a, b = np.linalg.lstsq(design[used], values[used], rcond=None)[0]
        rest = np.abs(values - design @ np.array([c, a, b]))
        used = rest <= 4 * MAD_TO_SIGMA * np.median(rest) + 1e-12
    return float(a / c), float(b / c)
