"""Verdicts: what people said of exposures, sections and objects. Nothing that is made again touches them."""

import uuid
from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree
from sqlalchemy import BigInteger, CheckConstraint, ColumnElement, String, exists, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Mapped, Session, aliased, mapped_column, validates

from seechange_core.numerics.sky import bounding_cone, chord, healpix_of, unit_vectors
from seechange_core.products.base import in_cone, link
from seechange_core.products.object import Object
from seechange_core.storage.orm import Base, Identified

#: What can be said of exposures and their sections, and of objects; the last takes back what was said before.
OF_EXPOSURES, OF_OBJECTS, UNDO = ("bad", "good"), ("real", "bogus"), "undo"
WORDS = (*OF_EXPOSURES, *OF_OBJECTS, UNDO)
#: An object this near to the place that was judged is what was judged, whatever it is called by now.
SAME_PLACE_ARCSEC = 1.0
#: Names of so many objects fit into a query.
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
    """Return all that was said of an object or of its place, in the order of time."""
    near = in_cone(Verdict.healpix, found.ra, found.dec, SAME_PLACE_ARCSEC / 3600)
    query = select(Verdict).where(or_(Verdict.object_name == found.name, near))
    rows = list(session.scalars(query.order_by(Verdict.created_at, Verdict.id)))
    hits = match_verdicts(rows, [found])
    return [row for row, hit in zip(rows, hits, strict=True) if hit]


def match_verdicts(rows: Sequence[Verdict], objects: Sequence[Object]) -> list[list[int]]:
    """Return for each verdict the indices of the objects it is about: of its name, or at its place."""
    if not rows or not objects:
        return [[] for _ in rows]
    tree = cKDTree(unit_vectors([o.ra for o in objects], [o.dec for o in objects]))
    places = unit_vectors(*(np.array([getattr(row, c) for row in rows], float) for c in ("ra", "dec")))
    near = tree.query_ball_point(places, float(chord(SAME_PLACE_ARCSEC / 3600)))
    named: dict[str | None, list[int]] = {}
    for i, found in enumerate(objects):
        named.setdefault(found.name, []).append(i)
    return [sorted({*there, *named.get(row.object_name, [])}) for row, there in zip(rows, near, strict=True)]


def standing_on(session: Session, objects: Sequence[Object]) -> dict[uuid.UUID, Verdict]:
    """Return what holds of each of these objects, by its id; those that nobody judged are left out."""
    if not objects:
        return {}
    ra, dec, radius = bounding_cone([o.ra for o in objects], [o.dec for o in objects])
    query = select(Verdict).where(Verdict.counts.is_(True), Verdict.exposure_id.is_(None))
    if len(objects) <= _FEW:  # of many, all that people ever said is no more
        near = in_cone(Verdict.healpix, ra, dec, radius + SAME_PLACE_ARCSEC / 3600)
        query = query.where(or_(near, Verdict.object_name.in_([o.name for o in objects])))
    rows = list(session.scalars(query.order_by(Verdict.created_at, Verdict.id)))
    return {
        objects[i].id: row
        for row, hits in zip(rows, match_verdicts(rows, objects), strict=True)
        for i in hits
    }


def apply_verdicts(session: Session, objects: Sequence[Object]) -> None:
    """Let objects just made or moved be taken for what people said of their places."""
    said = standing_on(session, objects)
    for found in objects:
        row = said.get(found.id)
        found.is_bad = row is not None and row.word == "bogus"
        found.bad_reason = row.reason if row is not None and found.is_bad else None
