"""Which object each measurement belongs to: the one place where objects are made, moved, named and merged.

Objects are a function of all measurements there are, and of nothing else. Whenever measurements come or go,
everything around them is grouped anew, as far as one thing touches the next: so neither the order in which
sections and exposures finish nor a re-run of everything changes what the objects are.
"""

import logging
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import ColumnElement, Select, delete, select, update
from sqlalchemy.orm import Session

from seechange_core.chain.joining import grow, joining, new_members, take_sums
from seechange_core.chain.neighbourhood import Member, Places, age, counting, neighbourhood, objects_of
from seechange_core.chain.renaming import names_of, rename
from seechange_core.chain.section import Section
from seechange_core.numerics.mean_place import PlaceSums
from seechange_core.numerics.sky import separation
from seechange_core.products.base import chunks
from seechange_core.products.image import Image
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import NAME_CELL_ARCSEC, Object, ObjectAlias
from seechange_core.products.outcome import StepOutcome, made_by
from seechange_core.products.provenance import Provenance
from seechange_core.products.sighting import Sighting
from seechange_core.products.source_list import SourceList
from seechange_core.products.verdict import apply_verdicts
from seechange_core.stages.associate import AssociateParams, associate
from seechange_core.storage.engine import open_session
from seechange_core.storage.orm import new_id
from seechange_core.storage.rows import insert_or_update_many, take_turns

log = logging.getLogger(__name__)


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
        provenance_id = section.provenance_id("measurement")
        touched = _forget(session, _with_objects(section), provenance_id)
        insert_or_update_many(session, measurements, Measurement.NATURAL_KEY)
        params = section.params(AssociateParams, "associate")
        members = new_members(session, provenance_id, measurements)
        owners = joining(session, provenance_id, members, params)
        touched += [(m.ra, m.dec) for m in members if m.id not in owners]
        n_new = 0
        while touched:
            done = regroup(session, provenance_id, touched, params)
            n_new += done.n_new
            members = [m for m in members if m.id not in done.measurements]
            touched = [(m.ra, m.dec) for m in members if owners[m.id].id in done.objects]
        _join(session, owners, members)
        return n_new


def _join(session: Session, owners: Mapping[uuid.UUID, Object], members: Sequence[Member]) -> None:
    """Give objects that stay what they are the new measurements that join them."""
    gained: dict[uuid.UUID, list[Member]] = defaultdict(list)
    for member in members:
        gained[owners[member.id].id].append(member)
    grown = list({owners[m.id].id: owners[m.id] for m in members}.values())
    groups = [gained[row.id] for row in grown]
    before = [(row.ra, row.dec) for row in grown]
    _hand_over(session, grown, groups)
    grow(grown, groups)
    apply_verdicts(session, grown, before)


def regroup_exposure(session: Session, exposure_id: uuid.UUID) -> None:
    """Group anew what an exposure saw, after someone has called it bad, or good again: under all settings.

    Parameters
    ----------
    session
        An open session; nothing is committed here.
    exposure_id
        Which exposure.
    """
    take_turns(session, "objects")
    query = (
        select(Measurement.provenance_id, Measurement.ra, Measurement.dec, Measurement.is_bad)
        .join(Sighting, Sighting.id == Measurement.sighting_id)
        .join(SourceList, SourceList.id == Sighting.source_list_id)
        .join(Image, Image.id == SourceList.image_id)
        .where(Image.exposure_id == exposure_id)
    )
    places: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for provenance_id, ra, dec, is_bad in session.execute(query):
        if not is_bad:
            places[provenance_id].append((ra, dec))
    _regroup_all(session, places)


def delete_sightings(session: Session, which: ColumnElement[bool]) -> None:
    """Delete sightings with all that was measured of them, and group anew what is left around these.

    Parameters
    ----------
    session
        An open session; nothing is committed here.
    which
        A condition on `Sighting`.
    """
    query = (
        select(Measurement.provenance_id, Measurement.ra, Measurement.dec)
        .join(Sighting, Sighting.id == Measurement.sighting_id)
        .where(which, Measurement.object_id.is_not(None))
    )
    if session.execute(query.limit(1)).first() is not None:
        take_turns(session, "objects")
    places: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for provenance_id, ra, dec in session.execute(query):
        places[provenance_id].append((ra, dec))
    session.execute(delete(Sighting).where(which))
    _regroup_all(session, places)


def _regroup_all(session: Session, places: Mapping[str, Places]) -> None:
    """Group anew what there is around places of several provenances, each by its own parameters."""
    for provenance_id, some in places.items():
        given = session.get_one(Provenance, provenance_id).parameters.get("associate", {})
        params = {name: value for name, value in given.items() if name in AssociateParams.model_fields}
        regroup(session, provenance_id, some, AssociateParams(**params))


def release_replaced(section: Section) -> None:
    """Take out of objects what a section's present detections no longer show, or what it has none of now.

    A newer reference or master leaves measurements behind; whether new ones are made is another matter: the
    difference may show nothing, stop, or fail.
    """
    stale = _with_objects(section).outerjoin(StepOutcome, made_by(Image, SourceList, "detections"))
    stale = stale.where(StepOutcome.id.is_(None))
    provenance_id = section.provenance_id("measurement")
    with open_session(section.settings, read_only=True) as session:
        if not any(row[0] == provenance_id for row in session.execute(stale)):
            return
    with open_session(section.settings) as session:
        take_turns(session, "objects")
        params = section.params(AssociateParams, "associate")
        regroup(session, provenance_id, _forget(session, stale, provenance_id), params)


def _with_objects(section: Section) -> Select[*tuple[Any, ...]]:
    """Select a section's measurements that objects have: provenance, keys of it and its sighting, and place.

    Those of all provenances: SQLite, which has no statistics of a table, would rather go through all that one
    provenance has than through the section.
    """
    m = Measurement
    return (
        select(m.provenance_id, m.id, m.sighting_id, m.ra, m.dec)
        .join(Sighting, Sighting.id == m.sighting_id)
        .join(SourceList, SourceList.id == Sighting.source_list_id)
        .join(Image, Image.id == SourceList.image_id)
        .where(
            Image.exposure_id == section.exposure.id,
            Image.section_id == section.section,
            m.object_id.is_not(None),
        )
    )


def _forget(
    session: Session, query: Select[*tuple[Any, ...]], provenance_id: str
) -> list[tuple[float, float]]:
    """Take earlier measurements of one provenance out of their objects; return where they were.

    They are made again, or come from an older reference or master: the exposure must not count twice.
    """
    rows = [row[1:] for row in session.execute(query) if row[0] == provenance_id]
    _point(session, [row[0] for row in rows], [row[1] for row in rows], None)
    return [(ra, dec) for *_, ra, dec in rows]


class Regrouped(NamedTuple):
    """What became of the measurements around some places.

    Attributes
    ----------
    n_new
        How many objects are new.
    measurements, objects
        The ids of all measurements that were grouped, and of all objects that they belonged to or do now.
    """

    n_new: int
    measurements: set[uuid.UUID]
    objects: set[uuid.UUID]


def regroup(session: Session, provenance_id: str, places: Places, params: AssociateParams) -> Regrouped:
    """Bring the objects around some places up to the measurements that there are now.

    The caller holds the turn named ``objects`` and calls this once for all measurements that came or went.
    """
    done = Regrouped(0, set(), set())
    while places:
        more, places = _regroup(session, provenance_id, places, params)
        done = Regrouped(
            done.n_new + more.n_new, done.measurements | more.measurements, done.objects | more.objects
        )
    return done


def _regroup(
    session: Session, provenance_id: str, places: Places, params: AssociateParams
) -> tuple[Regrouped, Places]:
    """Do so once; return what was done, and the places of measurements that it left without an object.

    These were in one object with others only by a head between them that does not count now.
    """
    link_arcsec = max(params.radius_arcsec, NAME_CELL_ARCSEC)
    members = neighbourhood(session, provenance_id, places, link_arcsec)
    everywhere = [*places, *((m.ra, m.dec) for m in members)]
    objects = objects_of(session, provenance_id, members, everywhere, link_arcsec)
    before = [(row.ra, row.dec) for row in objects]
    known = {row.id for row in objects}
    groups, heads = _groups(members, params)
    owners, n_new = _owners(session, provenance_id, groups, objects)
    _hand_over(session, owners, groups)
    for found, group, head in zip(owners, groups, heads, strict=True):
        _settle(found, group, head)
    known |= {row.id for row in owners}
    left = _release(session, provenance_id, sorted(known), {m.id for m in members})
    _retire(session, objects, owners, groups)
    rename(session, objects, owners, names_of([g[0] for g in groups], params.name_pattern))
    apply_verdicts(session, owners, before)
    session.flush()
    return Regrouped(n_new, {m.id for m in members}, known), left


# --- What it is to be -----------------------------------------------------------------------------


def _groups(members: Sequence[Member], params: AssociateParams) -> tuple[list[list[Member]], list[Member]]:
    """Group measurements, members and groups in the order of time; return the head of each group, too."""
    ra, dec, err = (np.array([getattr(m, n) for m in members], float) for n in ("ra", "dec", "err_arcsec"))
    heads = associate(ra, dec, err, params)
    groups: dict[int, list[Member]] = defaultdict(list)
    for head, member in zip(heads.tolist(), members, strict=True):
        groups[head].append(member)
    order = sorted(groups, key=lambda head: age(groups[head][0]))
    return [groups[head] for head in order], [members[head] for head in order]


def _owners(
    session: Session, provenance_id: str, groups: Sequence[list[Member]], objects: Sequence[Object]
) -> tuple[list[Object], int]:
    """Find each group its row: the one most of it belongs to until now, else an empty one, else a new one.

    Only the key of the row depends on what was before.
    """
    shared = {
        (g, o): n
        for g, group in enumerate(groups)
        for o, n in Counter(m.object_id for m in group if m.object_id is not None).items()
    }
    rows = {row.id: row for row in objects}
    pairs = sorted(shared, key=lambda pair: (-shared[pair], pair[0], pair[1]))
    empty = [row for row in objects if not any(row.id == o for _, o in pairs)]
    pairs += [(g, o) for _, g, o in sorted(_near(empty, groups))]
    owner: dict[int, Object] = {}
    taken: set[uuid.UUID] = set()
    for g, o in pairs:
        if g not in owner and o not in taken and o in rows:
            owner[g] = rows[o]
            taken.add(o)
    n_new = 0
    for g, group in enumerate(groups):
        if g not in owner:
            owner[g] = _new_object(session, provenance_id, group)
            n_new += 1
    return [owner[g] for g in range(len(groups))], n_new


def _near(rows: Sequence[Object], groups: Sequence[list[Member]]) -> Iterator[tuple[float, int, uuid.UUID]]:
    """Yield what lies within a cell of a name of each other: distance in arcsec, group, key of the row."""
    if not groups:
        return
    first = np.cumsum([0, *(len(group) for group in groups[:-1])])
    ra, dec = ([getattr(m, name) for group in groups for m in group] for name in ("ra", "dec"))
    for row in rows:
        distance = np.minimum.reduceat(separation(row.ra, row.dec, ra, dec), first) * 3600
        for g in np.flatnonzero(distance <= NAME_CELL_ARCSEC).tolist():
            yield float(distance[g]), g, row.id


def _new_object(session: Session, provenance_id: str, group: Sequence[Member]) -> Object:
    place = group[0]
    key = new_id()
    row = Object(
        id=key,
        name=key.hex,  # until it is named
        ra=place.ra,
        dec=place.dec,
        ra_err_arcsec=place.err_arcsec,
        dec_err_arcsec=place.err_arcsec,
        provenance_id=provenance_id,
    )
    session.add(row)
    session.flush()
    return row


def _hand_over(session: Session, owners: Sequence[Object], groups: Sequence[list[Member]]) -> None:
    """Give objects the measurements and sightings that are theirs now and were not: all at once, by keys."""
    pairs = [(m, o.id) for o, group in zip(owners, groups, strict=True) for m in group if m.object_id != o.id]
    if pairs:
        session.execute(update(Measurement), [{"id": m.id, "object_id": owner} for m, owner in pairs])
        session.execute(update(Sighting), [{"id": m.sighting_id, "object_id": owner} for m, owner in pairs])


def _settle(found: Object, group: Sequence[Member], head: Member) -> None:
    """Bring an object's position, count and dates up to its measurements."""
    take_sums(found, PlaceSums(head.place).plus(m.place for m in group), head.id)
    found.n_sightings = len(group)
    found.first_mjd, found.last_mjd = group[0].mjd, group[-1].mjd


def _point(
    session: Session,
    measurements: Sequence[uuid.UUID],
    sightings: Sequence[uuid.UUID],
    object_id: uuid.UUID | None,
) -> None:
    """Let measurements and sightings refer to an object, or to none."""
    for kind, ids in ((Measurement, measurements), (Sighting, sightings)):
        for some in chunks(ids):
            session.execute(
                update(kind).where(kind.id.in_(some)).values(object_id=object_id),
                execution_options={"synchronize_session": False},
            )


def _release(
    session: Session, provenance_id: str, ids: Sequence[uuid.UUID], kept: Collection[uuid.UUID]
) -> Places:
    """Take all but some measurements out of objects; return where those are that count nevertheless.

    Most do not: someone called the exposure bad, or the section is being walked again.
    """
    gone: list[tuple[uuid.UUID, uuid.UUID]] = []
    for some in chunks(ids):
        query = select(Measurement.id, Measurement.sighting_id).where(Measurement.object_id.in_(some))
        gone += [row for row in session.execute(query) if row[0] not in kept]
    keys = [row[0] for row in gone]
    _point(session, keys, [row[1] for row in gone], None)
    return [(m.ra, m.dec) for m in counting(session, provenance_id, Measurement.id, keys)]


def _retire(
    session: Session, objects: Sequence[Object], owners: Sequence[Object], groups: Sequence[list[Member]]
) -> None:
    """Merge objects whose measurements now belong to others into these; the others are left empty.

    An empty one keeps its name and what people said of it, for the case that it is seen again.
    """
    owning = {row.id for row in owners}
    heirs: dict[uuid.UUID, Counter[int]] = defaultdict(Counter)
    for g, group in enumerate(groups):
        for member in group:
            if member.object_id is not None and member.object_id not in owning:
                heirs[member.object_id][g] += 1
    for row in objects:
        if row.id in heirs:
            g = min(heirs[row.id], key=lambda g: (-heirs[row.id][g], g))
            _merge(session, row, owners[g])
        elif row.id not in owning:
            row.n_sightings, row.place_sums = 0, None


def _merge(session: Session, row: Object, heir: Object) -> None:
    """Let everything that refers to an object refer to its heir, and remember what it was called."""
    session.flush()
    for kind in (Measurement, Sighting, ObjectAlias):
        session.execute(
            update(kind).where(kind.object_id == row.id).values(object_id=heir.id),
            execution_options={"synchronize_session": False},
        )
    session.add(ObjectAlias(object_id=heir.id, name=row.name, how="merged"))
    session.execute(delete(Object).where(Object.id == row.id))
    log.info("object %s was merged into %s", row.name, heir.name)
