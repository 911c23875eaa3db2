"""What there is around some places on the sky: measurements as far as one touches the next, and objects."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from seechange_core.numerics.mean_place import Place
from seechange_core.numerics.sky import cell_ranges, cells_near, chord, unit_vectors
from seechange_core.products.base import chunks, ids_in_ranges, unindexed
from seechange_core.products.image import Image
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object
from seechange_core.products.outcome import StepOutcome, made_by
from seechange_core.products.sighting import Sighting
from seechange_core.products.source_list import SourceList, not_too_dense
from seechange_core.products.verdict import not_called_bad

#: Taken where a fit gave no error of the position.
_UNKNOWN_ERR_ARCSEC = 1.0

Places = Sequence[tuple[float, float]]
"""Positions (ra, dec), ICRS deg."""


@dataclass(frozen=True)
class Member:
    """What grouping needs to know of a measurement."""

    id: uuid.UUID
    sighting_id: uuid.UUID
    object_id: uuid.UUID | None
    ra: float
    dec: float
    err_arcsec: float
    mjd: float

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.ra, self.dec, self.err_arcsec)


def neighbourhood(session: Session, provenance_id: str, places: Places, link_arcsec: float) -> list[Member]:
    """Return the measurements near some places, those near these, and so on: in an order of their own."""
    reach = float(chord(link_arcsec / 3600)) * (1 + 1e-9)
    known: dict[uuid.UUID, Member] = {}
    inside: dict[uuid.UUID, Member] = {}
    asked = np.empty(0, np.int64)
    frontier = np.array(places, float)
    while len(frontier):
        cells, order = cells_near(frontier[:, 0], frontier[:, 1], link_arcsec / 3600)
        for row in _measured_in(session, provenance_id, cell_ranges(np.setdiff1d(cells, asked), order)):
            known[row.id] = row
        asked = np.union1d(asked, cells)
        left = [m for m in known.values() if m.id not in inside]
        near = _near(left, frontier, reach)
        inside |= {m.id: m for m in near}
        frontier = np.array([(m.ra, m.dec) for m in near], float)
    return sorted(inside.values(), key=age)


def _near(rows: Sequence[Member], places: np.ndarray, reach: float) -> list[Member]:
    if not rows:
        return []
    tree = cKDTree(unit_vectors(places[:, 0], places[:, 1]))
    distance, _ = tree.query(unit_vectors([m.ra for m in rows], [m.dec for m in rows]))
    return [row for row, d in zip(rows, distance.tolist(), strict=True) if d <= reach]


def age(row: Member) -> tuple[float, float, float]:
    """Order measurements by what they are: the first seen first."""
    return (row.mjd, row.ra, row.dec)


def _measured_in(session: Session, provenance_id: str, ranges: Sequence[tuple[int, int]]) -> Iterable[Member]:
    """Yield the measurements that count in ranges of the sky."""
    return counting(session, provenance_id, Measurement.id, ids_in_ranges(session, Measurement, ranges))


def counting(
    session: Session,
    provenance_id: str,
    key: InstrumentedAttribute[uuid.UUID] | InstrumentedAttribute[uuid.UUID | None],
    keys: Sequence[uuid.UUID],
) -> Iterable[Member]:
    """Yield the good measurements that count, by some key of theirs.

    Those of lists that a newer one of the same section has replaced do not, nor those of exposures that
    someone called bad, nor those of lists so dense that most must be false.
    """
    m = Measurement
    for some in chunks(keys):
        query = (
            select(m.id, m.sighting_id, m.object_id, m.ra, m.dec, m.position_err_arcsec, m.mjd_mid)
            .join(Sighting, Sighting.id == Measurement.sighting_id)
            .join(SourceList, SourceList.id == Sighting.source_list_id)
            .join(Image, Image.id == SourceList.image_id)
            .join(StepOutcome, made_by(Image, SourceList, "detections"))
            .where(
                key.in_(some),
                unindexed(Measurement.provenance_id) == provenance_id,
                unindexed(Measurement.is_bad).is_(False),
                not_called_bad(Image.exposure_id, Image.section_id),
                not_too_dense(),
            )
        )
        for row, sighting, owner, ra, dec, err, mjd in session.execute(query):
            yield Member(row, sighting, owner, ra, dec, err or _UNKNOWN_ERR_ARCSEC, mjd)


def objects_of(
    session: Session, provenance_id: str, members: Sequence[Member], places: Places, link_arcsec: float
) -> list[Object]:
    """Return the objects that these measurements belong to until now, and those without any around them.

    What no longer counts is none: the objects that only a section that is walked again had are free.
    """
    wanted = {m.object_id for m in members if m.object_id is not None}
    ra, dec = np.array(places, float).T
    ranges = cell_ranges(*cells_near(ra, dec, link_arcsec / 3600))
    rows = objects_with(session, provenance_id, sorted(wanted | set(ids_in_ranges(session, Object, ranges))))
    others = [row.id for row in rows if row.id not in wanted]
    seen = {m.object_id for m in counting(session, provenance_id, Measurement.object_id, others)}
    return [row for row in rows if row.id not in seen]


def objects_with(session: Session, provenance_id: str, ids: Sequence[uuid.UUID]) -> list[Object]:
    """Return those of some objects that are of one provenance."""
    rows: list[Object] = []
    for some in chunks(ids):
        query = select(Object).where(Object.id.in_(some), unindexed(Object.provenance_id) == provenance_id)
        rows += session.scalars(query)
    return rows
