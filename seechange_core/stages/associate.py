"""Recognise known objects among new positions."""

import numpy as np
from scipy.spatial import cKDTree

from seechange_core.frames import Float, Int
from seechange_core.numerics.sky import chord, separation, unit_vectors
from seechange_core.params import Params, param

CODE_VERSION = "1"


class AssociateParams(Params):
    """Parameters of the association."""

    radius_arcsec: float = param(1.0, "Never match beyond this separation", unit="arcsec", gt=0)
    n_sigma: float = param(
        5.0, "Nor beyond so many standard deviations of both positions", unit="sigma", gt=0
    )
    min_radius_arcsec: float = param(
        0.3, "Closer than this always counts as the same place, whatever the errors say", unit="arcsec", ge=0
    )


def associate(
    ra: Float,
    dec: Float,
    err_arcsec: Float,
    known_ra: Float,
    known_dec: Float,
    known_err_arcsec: Float,
    params: AssociateParams,
) -> Int:
    """Match new positions to known objects, nearest pairs first, each at most once.

    Parameters
    ----------
    ra, dec, err_arcsec
        (n,) new positions, ICRS deg, and their 1-sigma errors per axis.
    known_ra, known_dec, known_err_arcsec
        (m,) known objects.
    params
        Parameters.

    Returns
    -------
    Int
        (n,) index of the known object, -1 for a new one. It depends on the positions only, not on
        the order in which they come, as long as no two pairs are equally far apart.
    """
    out = np.full(len(ra), -1, np.int64)
    if not len(ra) or not len(known_ra):
        return out
    new_tree, known_tree = cKDTree(unit_vectors(ra, dec)), cKDTree(unit_vectors(known_ra, known_dec))
    pairs = new_tree.query_ball_tree(known_tree, float(chord(params.radius_arcsec / 3600)) * (1 + 1e-9))
    first = np.repeat(np.arange(len(ra)), [len(p) for p in pairs])
    second = np.array([j for p in pairs for j in p], dtype=np.int64)
    distance = separation(ra[first], dec[first], known_ra[second], known_dec[second]) * 3600
    error = np.hypot(err_arcsec[first], known_err_arcsec[second])
    allowed = np.minimum(np.maximum(params.n_sigma * error, params.min_radius_arcsec), params.radius_arcsec)
    taken = np.zeros(len(known_ra), bool)
    close = np.flatnonzero(distance <= allowed)
    for k in close[np.lexsort((second[close], first[close], distance[close]))]:
        if out[first[k]] < 0 and not taken[second[k]]:
            out[first[k]] = second[k]
            taken[second[k]] = True
    return out
