"""Tell which measurements are of one object, and where it is."""

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from seechange_core.frames import Float, Int
from seechange_core.numerics.sky import chord, separation, unit_vectors
from seechange_core.params import Params, param

CODE_VERSION = "2"


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


def allowed_arcsec(err_arcsec: npt.ArrayLike, params: AssociateParams) -> Float:
    """Return how far apart two positions of one place may be, by the 1-sigma error of their separation."""
    return np.clip(np.multiply(params.n_sigma, err_arcsec), params.min_radius_arcsec, params.radius_arcsec)


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
        closer = (distance <= allowed_arcsec(error, params)) & (distance < nearest[near])
        head[near[closer]], nearest[near[closer]] = k, distance[closer]
    return head
