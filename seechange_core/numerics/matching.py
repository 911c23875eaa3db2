"""Which point of one list is which point of another: nearest neighbours, one to one.

For lists already in a common frame. `numerics.asterism` finds the frame when it is unknown.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from seechange_core.frames import Float, Int
from seechange_core.numerics import sky


class Matches(NamedTuple):
    """Pairs of indices into two lists, and how far apart the two are.

    `distance` has the unit of the inputs for `match_plane` and is in arcseconds for `match_sky`.
    """

    first: Int
    second: Int
    distance: Float


def match_plane(
    x1: npt.ArrayLike, y1: npt.ArrayLike, x2: npt.ArrayLike, y2: npt.ArrayLike, radius: float
) -> Matches:
    """Pair points of a plane that are each other's nearest within a radius.

    Each point appears at most once. Points that are not finite match nothing.
    """
    return _mutual_nearest(_stack(x1, y1), _stack(x2, y2), radius)


def match_sky(
    ra1: npt.ArrayLike, dec1: npt.ArrayLike, ra2: npt.ArrayLike, dec2: npt.ArrayLike, radius_arcsec: float
) -> Matches:
    """Pair sky positions (deg) that are each other's nearest within a radius (arcsec).

    Each position appears at most once; right across RA 0 and at the poles. Positions that are not
    finite match nothing.
    """
    a = np.atleast_2d(sky.unit_vectors(np.atleast_1d(ra1), np.atleast_1d(dec1)))
    b = np.atleast_2d(sky.unit_vectors(np.atleast_1d(ra2), np.atleast_1d(dec2)))
    found = _mutual_nearest(a, b, float(sky.chord(radius_arcsec / 3600.0)))
    arcsec = np.rad2deg(2.0 * np.arcsin(np.minimum(found.distance / 2.0, 1.0))) * 3600.0
    return Matches(found.first, found.second, arcsec)


def neighbour_distance(x: npt.ArrayLike, y: npt.ArrayLike) -> Float:
    """Give each point's distance to the nearest other one; infinite when it is alone."""
    points = _stack(x, y)
    if len(points) < 2:
        return np.full(len(points), np.inf)
    return np.asarray(cKDTree(points).query(points, k=2)[0][:, 1], float)


def _stack(x: npt.ArrayLike, y: npt.ArrayLike) -> Float:
    return np.column_stack([np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))])


def _mutual_nearest(a: Float, b: Float, radius: float) -> Matches:
    rows_a = np.flatnonzero(np.all(np.isfinite(a), axis=1))
    rows_b = np.flatnonzero(np.all(np.isfinite(b), axis=1))
    if len(rows_a) == 0 or len(rows_b) == 0:
        nothing = np.zeros(0, np.int64)
        return Matches(nothing, nothing, np.zeros(0))
    tree_a, tree_b = cKDTree(a[rows_a]), cKDTree(b[rows_b])
    # The bound is exclusive: a point exactly at the radius still counts.
    distance, to_b = tree_b.query(a[rows_a], distance_upper_bound=np.nextafter(radius, np.inf))
    candidates = np.flatnonzero(np.isfinite(distance))
    _, back = tree_a.query(b[rows_b[to_b[candidates]]])
    keep = candidates[back == candidates]
    return Matches(rows_a[keep].astype(np.int64), rows_b[to_b[keep]].astype(np.int64), distance[keep])
