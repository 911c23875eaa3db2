"""Exposures by their place on the sky: right across RA 0 and at the poles, on both engines."""

import numpy as np
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from seechange_core.errors import UserError
from seechange_core.numerics.sky import separation
from seechange_core.products.base import in_cone
from seechange_core.products.exposure import Exposure


def exposures_near(
    session: Session, ra: float, dec: float, radius_deg: float, query: Select[Exposure] | None = None
) -> list[Exposure]:
    """Return the exposures whose telescope pointed near a position, the nearest first.

    Parameters
    ----------
    session
        An open session.
    ra, dec, radius_deg
        Position and largest distance, ICRS deg.
    query
        Selects Exposures, e.g. of one instrument and night; None takes all.

    Raises
    ------
    UserError
        If the position is not on the sky.
    """
    _check(ra, dec, radius_deg)
    query = select(Exposure) if query is None else query
    rows = list(session.scalars(query.where(in_cone(Exposure.healpix, ra, dec, radius_deg))))
    there = np.array([(row.ra, row.dec) for row in rows], float).reshape(-1, 2)
    distance = separation(ra, dec, there[:, 0], there[:, 1])
    order = np.argsort(distance, kind="stable")
    return [rows[i] for i in order if distance[i] <= radius_deg]


def _check(ra: float, dec: float, radius_deg: float) -> None:
    if not (np.isfinite(ra) and -90.0 <= dec <= 90.0 and 0.0 <= radius_deg <= 180.0):
        raise UserError(
            f"ra = {ra}, dec = {dec}, radius = {radius_deg} deg is no cone on the sky", cure="give degrees"
        )
