"""Tell which measurements are of one object, and where it is."""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from seechange_core.frames import Float, Int
from seechange_core.numerics.sky import chord, mean_position, separation, unit_vectors
from seechange_core.params import Params, param

CODE_VERSION = "2"

#: Scatter beyond what the errors let expect by so many of its own standard deviations is believed.
_SCATTER_SIGMA = 3.0


class AssociateParams(Params):
    """Parameters of the association."""

    radius_arcsec: float = param(1.0, "Never match beyond this separation", unit="arcsec", gt=0)
    n_sigma: float = param(
        5.0, "Nor beyond so many standard deviations of both positions", unit="sigma", gt=0
    )
    min_radius_arcsec: float = param(
        0.3, "Closer than this always counts as the same place, whatever the errors say", unit="arcsec", ge=0
    )
    name_pattern: str = param(
        "obj%Y%a",
        "Names of objects, by first sighting: %Y or %y its year, %m month, %d day (UTC), its place as "
        "%a nine letters or %J sexagesimal coordinates",
        pattern=r"^[A-Za-z0-9._+\- ]*(%[YymdaJ][A-Za-z0-9._+\- ]*)*%[aJ](%[YymdaJ]|[A-Za-z0-9._+\- ])*$",
    )


def associate(ra: Float, dec: Float, err_arcsec: Float, params: AssociateParams) -> Int:
    """Group measurements by place: each belongs to the nearest of those that are the best of their place.

    In the order of precision, a measurement that matches none of the objects before it is the head of a new
    one; at the end each belongs to the nearest head that it matches. Within the limits of `AssociateParams`
    this is nearest-neighbour association of everything with the best-placed sighting of each object, and it
    depends on what was measured alone: not on the order in which it came. Nothing is assumed to move: what
    does so by more than the limits, before or after its best-placed sighting, is several objects.

    Parameters
    ----------
    ra, dec
        (n,) ICRS deg.
    err_arcsec
        (n,) 1-sigma errors per axis.
    params
        Parameters.

    Returns
    -------
    Int
        (n,) index of the head of each measurement's object. A measurement further than `radius_arcsec` from
        all that it is, directly or through others, that near to does not change its answer.
    """
    head = np.full(len(ra), -1, np.int64)
    if not len(ra):
        return head
    vectors = unit_vectors(ra, dec)
    tree = cKDTree(vectors)
    reach = float(chord(params.radius_arcsec / 3600)) * (1 + 1e-9)
    nearest = np.full(len(ra), np.inf)
    for k in np.lexsort((dec, ra, err_arcsec)):
        if head[k] >= 0:
            continue
        near = np.array(tree.query_ball_point(vectors[k], reach), np.int64)
        distance = separation(ra[k], dec[k], ra[near], dec[near]) * 3600
        error = np.hypot(err_arcsec[k], err_arcsec[near])
        allowed = np.clip(params.n_sigma * error, params.min_radius_arcsec, params.radius_arcsec)
        closer = (distance <= allowed) & (distance < nearest[near])
        head[near[closer]], nearest[near[closer]] = k, distance[closer]
    return head


class MeanPlace(NamedTuple):
    """Where an object is: ICRS deg, and 1-sigma errors on the sky towards east and north, arcsec."""

    ra: float
    dec: float
    ra_err_arcsec: float
    dec_err_arcsec: float


def mean_place(ra: Float, dec: Float, err_arcsec: Float) -> MeanPlace:
    """Average the positions of an object, each weighted by its error.

    The error is that of the weighted mean, ``(sum 1 / err^2)^-1/2``. Where the positions scatter by far more
    than their errors say (beyond 3 sigma of chi square), it grows with the scatter: times
    ``(chi^2 / dof)^1/2`` (Birge 1932, Phys. Rev. 40, 207), towards east and north each on its own.

    Parameters
    ----------
    ra, dec, err_arcsec
        (n,) positions, ICRS deg, and their errors per axis; n > 0.
    """
    order = np.lexsort((dec, ra, err_arcsec))  # the sums are the same to the last bit in any order
    ra, dec, weight = ra[order], dec[order], err_arcsec[order] ** -2.0
    mean_ra, mean_dec = mean_position(ra, dec, weight)
    lon, lat = np.deg2rad(mean_ra), np.deg2rad(mean_dec)
    east = np.array([-np.sin(lon), np.cos(lon), 0.0])
    north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    shift = np.rad2deg(unit_vectors(ra, dec) - unit_vectors(mean_ra, mean_dec)) * 3600
    formal = float(np.sum(weight) ** -0.5)
    errors = [formal * _scatter(shift @ axis, weight) for axis in (east, north)]
    return MeanPlace(mean_ra, mean_dec, *errors)


def _scatter(shift: Float, weight: Float) -> float:
    """Return by how much errors are too small for the scatter; 1 where that may be chance."""
    dof = len(shift) - 1
    chi2 = float(np.sum(weight * shift**2))
    return float(np.sqrt(chi2 / dof)) if chi2 > dof + _SCATTER_SIGMA * np.sqrt(2 * dof) and dof else 1.0
