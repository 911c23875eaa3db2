"""Which object each measurement belongs to: the one place where objects are made and moved."""

from collections.abc import Sequence

import numpy as np
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from seechange_core.chain import load
from seechange_core.chain.section import Section
from seechange_core.numerics.sky import bounding_cone, mean_position, separation
from seechange_core.numerics.timing import decimal_year
from seechange_core.products.base import save
from seechange_core.products.image import Image
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object, find_objects, take_names
from seechange_core.products.sighting import Sighting
from seechange_core.products.source_list import SourceList
from seechange_core.stages.associate import AssociateParams, associate
from seechange_core.storage.engine import open_session
from seechange_core.storage.rows import take_turns


def assign_objects(section: Section, measurements: Sequence[Measurement]) -> int:
    """Save measurements, giving each good one its object, new where there is none.

    One transaction: two sections that see the same thing at the same moment wait for each other
    rather than make two objects of it.

    Returns
    -------
    int
        How many objects are new.
    """
    with open_session(section.settings) as session:
        take_turns(session, "objects")
        _forget_superseded(session, section)
        good = [row for row in measurements if not row.is_bad]
        known = _known_objects(session, section)
        index = _associate(section, good, known)
        first = _first_of_place(section, good, index)
        alone = [i for i, k in enumerate(index) if k < 0 and first[i] == i]
        names = take_names(session, int(decimal_year(section.exposure.mjd_mid)), len(alone))
        new = {i: _new_object(section, name, good[i]) for name, i in zip(names, alone, strict=True)}
        session.add_all(new.values())
        session.flush()
        own = [known[k] if k >= 0 else new.get(i) for i, k in enumerate(index)]
        objects = [found for i in first if (found := own[i]) is not None]
        for measured, found in zip(good, objects, strict=True):
            measured.object_id = found.id
        for measured in measurements:
            save(session, measured, replace=True)
            session.execute(
                update(Sighting)
                .where(Sighting.id == measured.sighting_id)
                .values(object_id=measured.object_id)
            )
        for found in {o.id: o for o in objects}.values():
            _settle(session, found)
    return len(new)


def _forget_superseded(session: Session, section: Section) -> None:
    """Take this section's earlier measurements out of their objects.

    They come from an older reference or master under the same provenance: the exposure must not count twice.
    """
    lists = (
        select(Sighting.id)
        .join(SourceList, SourceList.id == Sighting.source_list_id)
        .join(Image, Image.id == SourceList.image_id)
        .where(Image.exposure_id == section.exposure.id, Image.section_id == section.section)
    )
    mine = Measurement.provenance_id == section.provenance_id("measurement")
    touched = select(Measurement.object_id).where(mine, Measurement.sighting_id.in_(lists))
    ids = [i for i in session.scalars(touched) if i is not None]
    superseded = select(Measurement.sighting_id).where(mine, Measurement.sighting_id.in_(lists))
    session.execute(update(Sighting).where(Sighting.id.in_(superseded)).values(object_id=None))
    session.execute(
        update(Measurement).where(mine, Measurement.sighting_id.in_(lists)).values(object_id=None)
    )
    for found in session.scalars(select(Object).where(Object.id.in_(ids))):
        _settle(session, found)


def _known_objects(session: Session, section: Section) -> list[Object]:
    """Return the objects in and around the section, of the same provenance."""
    ra, dec, radius_deg = bounding_cone(*_corners(section))
    query = select(Object).where(Object.provenance_id == section.provenance_id("measurement"))
    radius_arcsec = radius_deg * 3600 + 30
    return [row for row, _ in find_objects(session, ra, dec, radius_arcsec, query)]


def _corners(section: Section) -> tuple[list[float], list[float]]:
    solution = load.wcs(section)
    height, width = solution.shape
    ra, dec = solution.to_sky([0, width, width, 0], [0, 0, height, height])
    return list(ra), list(dec)


def _associate(section: Section, rows: Sequence[Measurement], known: Sequence[Object]) -> np.ndarray:
    if not rows:
        return np.zeros(0, int)
    return associate(
        np.array([r.ra for r in rows]),
        np.array([r.dec for r in rows]),
        np.array([_error(r) for r in rows]),
        np.array([o.ra for o in known]),
        np.array([o.dec for o in known]),
        np.array([np.hypot(o.ra_err_arcsec, o.dec_err_arcsec) / np.sqrt(2) for o in known]),
        section.params(AssociateParams, "associate"),
    )


def _first_of_place(section: Section, rows: Sequence[Measurement], index: np.ndarray) -> list[int]:
    """Return for each row the one whose object it shares: itself, or one close by in the same image.

    The two lobes of a dipole, or the pieces of a blend, are one thing on the sky and get one object. Rows
    that are known objects come first, then the most significant.
    """
    radius = section.params(AssociateParams, "associate").radius_arcsec
    heads = [i for i in range(len(rows)) if index[i] >= 0]
    first = list(range(len(rows)))
    for i in range(len(rows)):
        if index[i] >= 0:
            continue
        near = [(separation(rows[i].ra, rows[i].dec, rows[h].ra, rows[h].dec) * 3600, h) for h in heads]
        distance, head = min(near, default=(np.inf, i))
        if distance <= radius:
            first[i] = head
        else:
            heads.append(i)
    return first


def _error(row: Measurement) -> float:
    """Return a measurement's position error, arcsec; a generous one where the fit gave none."""
    return row.position_err_arcsec if row.position_err_arcsec else 1.0


def _new_object(section: Section, name: str, row: Measurement) -> Object:
    return Object(
        name=name,
        ra=row.ra,
        dec=row.dec,
        ra_err_arcsec=_error(row),
        dec_err_arcsec=_error(row),
        provenance_id=section.provenance_id("measurement"),
    )


def _settle(session: Session, found: Object) -> None:
    """Bring an object's position, count and dates up to its measurements."""
    rows = list(session.scalars(select(Measurement).where(Measurement.object_id == found.id)))
    found.n_sightings = len(rows)
    if not rows:
        return
    weights = np.array([_error(r) ** -2 for r in rows])
    ra, dec = mean_position(np.array([r.ra for r in rows]), np.array([r.dec for r in rows]), weights)
    found.ra, found.dec = float(ra), float(dec)
    found.ra_err_arcsec = found.dec_err_arcsec = float(weights.sum() ** -0.5)
    found.first_mjd = min(r.mjd_mid for r in rows)
    found.last_mjd = max(r.mjd_mid for r in rows)
