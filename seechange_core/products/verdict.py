"""Verdicts: what people said of exposures, sections and objects. Nothing that is made again touches them."""

import uuid
from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree
from sqlalchemy import BigInteger, CheckConstraint, ColumnElement, String, exists, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Mapped, Session, aliased, mapped_column, validates

from seechange_core.frames import Float
from seechange_core.numerics.sky import (
    bounding_cone,
    cell_ranges,
    cells_near,
    chord,
    healpix_of,
    unit_vectors,
)
from seechange_core.products.base import ids_in_ranges, in_cone, link
from seechange_core.products.object import Object
from seechange_core.storage.orm import Base, Identified

#: What can be said of exposures and their sections, and of objects; the last takes back what was said before.
OF_EXPOSURES, OF_OBJECTS, UNDO = ("bad", "good"), ("real", "bogus"), "undo"
WORDS = (*OF_EXPOSURES, *OF_OBJECTS, UNDO)
#: The object nearest to the place that was judged, and no further away than this, is what was judged:
#: whatever it is called by now.
SAME_PLACE_ARCSEC = 1.0
#: So many names or keys fit into a query.
_FEW = 500


class Verdict(Identified, Base):
    """One thing that a person said of an exposure, of a section of it, or of a place on the sky.

    Nothing is ever changed but `counts`: of all that was said of one thing, one row counts, or none.
    """

    __tablename__ = "verdicts"
    __table_args__ = (
        CheckConstraint(f"word IN {WORDS}", name="known_word"),
        CheckConstraint("(exposure_id IS NULL) <> (healpix IS NULL)", name="of_one_thing"),
    )

    exposure_id: Mapped[uuid.UUID | None] = link("exposures.id", "The exposure; NULL of an object.")
    section_id: Mapped[str] = mapped_column(
        String, default="", doc="The instrument's name for the section; empty: all of them."
    )
    object_name: Mapped[str | None] = mapped_column(index=True, doc="What the object was called then.")
    ra: Mapped[float | None] = mapped_column(doc="Where the object was then, ICRS deg.")
    dec: Mapped[float | None] = mapped_column(doc="Where the object was then, ICRS deg.")
    healpix: Mapped[int | None] = mapped_column(
        BigInteger, index=True, doc="HEALPix pixel of (ra, dec), order 29, nested."
    )
    word: Mapped[str] = mapped_column(String(8), doc="bad, good, real, bogus, or undo.")
    reason: Mapped[str] = mapped_column(doc="Why, in their words.")
    said_by: Mapped[str] = mapped_column(doc="Who.")
    counts: Mapped[bool] = mapped_column(default=True, doc="Whether it is what holds now.")

    @validates("ra", "dec")
    def _index_position(self, name: str, value: float | None) -> float | None:
        ra, dec = (value, self.dec) if name == "ra" else (self.ra, value)
        if ra is not None and dec is not None:
            self.healpix = int(healpix_of(ra, dec))
        return value


def settle_verdicts(rows: Sequence[Verdict]) -> Verdict | None:
    """Let the last word on one thing count, but for what was taken back; return it.

    Parameters
    ----------
    rows
        All that was said of it, in the order of time.
    """
    standing: list[Verdict] = []
    for row in rows:
        row.counts = False
        if row.word != UNDO:
            standing.append(row)
        elif standing:
            standing.pop()
    if not standing:
        return None
    standing[-1].counts = True
    return standing[-1]


def not_called_bad(
    exposure_id: InstrumentedAttribute[uuid.UUID] | InstrumentedAttribute[uuid.UUID | None],
    section_id: InstrumentedAttribute[str],
) -> ColumnElement[bool]:
    """Make the condition that nobody called a section bad, or the whole of its exposure.

    Parameters
    ----------
    exposure_id, section_id
        Columns of what is selected, such as `Image.exposure_id` and `Image.section_id`.
    """
    said = aliased(Verdict)
    return ~exists().where(
        said.exposure_id == exposure_id,
        or_(said.section_id == section_id, said.section_id == ""),
        said.word == "bad",
        said.counts.is_(True),
    )


def verdicts_on(session: Session, found: Object) -> list[Verdict]:
    """Return all that was said of an object, in the order of time."""
    rows = _said_near(session, [found])
    hits = judged(session, rows)
    return [row for row, objects in zip(rows, hits, strict=True) if found.id in {o.id for o in objects}]


def judged(session: Session, rows: Sequence[Verdict]) -> list[list[Object]]:
    """Return for each verdict the objects that it is about, one of each processing at most.

    That is the nearest one to the place that was judged, one without a sighting only if no other is there;
    if none is there at all, the one of the name.
    """
    ra, dec = (np.array([getattr(row, c) for row in rows], float) for c in ("ra", "dec"))
    return _nearest(rows, ra, dec, _around(session, rows))


def _around(session: Session, rows: Sequence[Verdict]) -> list[Object]:
    """Return all objects that verdicts may be about: those at their places, and those of their names."""
    if not rows:
        return []
    radius_deg = SAME_PLACE_ARCSEC / 3600
    ra, dec = (np.array([getattr(row, c) for row in rows], float) for c in ("ra", "dec"))
    ids = ids_in_ranges(session, Object, cell_ranges(*cells_near(ra, dec, radius_deg)))
    names = sorted({row.object_name for row in rows if row.object_name is not None})
    objects: dict[uuid.UUID, Object] = {}
    for column, values in ((Object.id, ids), (Object.name, names)):
        for start in range(0, len(values), _FEW):
            some = session.scalars(select(Object).where(column.in_(values[start : start + _FEW])))
            objects |= {row.id: row for row in some}
    return list(objects.values())


def _nearest(rows: Sequence[Verdict], ra: Float, dec: Float, objects: Sequence[Object]) -> list[list[Object]]:
    if not objects:
        return [[] for _ in rows]
    tree = cKDTree(unit_vectors([o.ra for o in objects], [o.dec for o in objects]))
    places = unit_vectors(ra, dec)
    near = tree.query_ball_point(places, float(chord(SAME_PLACE_ARCSEC / 3600)))
    named: dict[str | None, list[Object]] = {}
    for found in objects:
        named.setdefault(found.name, []).append(found)
    hits = []
    for row, place, there in zip(rows, places, near, strict=True):
        there.sort(
            key=lambda i: (
                not objects[i].n_sightings,
                float(np.sum((tree.data[i] - place) ** 2)),
                str(objects[i].id),
            )
        )
        chosen: dict[str, Object] = {}
        for found in (*(objects[i] for i in there), *named.get(row.object_name, ())):
            chosen.setdefault(found.provenance_id, found)
        hits.append(list(chosen.values()))
    return hits


def _said_near(
    session: Session,
    objects: Sequence[Object],
    *conditions: ColumnElement[bool],
    before: Sequence[tuple[float, float]] = (),
) -> list[Verdict]:
    """Return what was said of the places and names of objects, or of places, in the order of time."""
    places = [*((o.ra, o.dec) for o in objects), *before]
    ra, dec, radius = bounding_cone(*zip(*places, strict=True))
    query = select(Verdict).where(Verdict.exposure_id.is_(None), *conditions)
    if len(objects) <= _FEW:  # of many, all that people ever said is no more
        near = in_cone(Verdict.healpix, ra, dec, radius + SAME_PLACE_ARCSEC / 3600)
        query = query.where(or_(near, Verdict.object_name.in_([o.name for o in objects])))
    return list(session.scalars(query.order_by(Verdict.created_at, Verdict.id)))


def standing_on(session: Session, objects: Sequence[Object]) -> dict[uuid.UUID, Verdict]:
    """Return what holds of each of these objects, by its id; those that nobody judged are left out."""
    if not objects:
        return {}
    rows = _said_near(session, objects, Verdict.counts.is_(True))
    wanted = {o.id for o in objects}
    hits = zip(rows, judged(session, rows), strict=True)
    return {found.id: row for row, about in hits for found in about if found.id in wanted}


def apply_verdicts(
    session: Session, objects: Sequence[Object], before: Sequence[tuple[float, float]] = ()
) -> None:
    """Let objects just made or moved be taken for what people said of their places.

    So are their neighbours: which object is nearest to what was judged may be another one now.

    Parameters
    ----------
    session
        An open session.
    objects
        Those just made or moved.
    before
        Where they, and others that are gone, were until now: (ra, dec), ICRS deg.
    """
    if not objects and not before:
        return
    rows = _said_near(session, objects, Verdict.counts.is_(True), before=before)
    around = {o.id: o for o in (*objects, *_around(session, rows))}
    # Most often nobody said anything there.
    said = standing_on(session, list(around.values())) if rows else {}
    for found in around.values():
        row = said.get(found.id)
        found.is_bad = row is not None and row.word == "bogus"
        found.bad_reason = row.reason if row is not None and found.is_bad else None
