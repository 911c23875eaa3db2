"""New measurements of objects that are known already: these only grow, and nothing around them changes.

Objects are made of best-placed sightings, their heads (`stages.associate`). A measurement that matches the
head of an object and is less precise than it can be no head itself: it changes nothing but the object that
it joins. Nearly all measurements are such ones, and the sums that objects keep are all that is needed for
them: what a section costs does not grow with the number of times that its objects have been seen. Only what
is better placed than all that it matches, or earlier than all of its object, has to be grouped anew with
everything around it. So has what comes near an object whose head does not count now: while a section is
walked again, nobody knows whether it will be there afterwards.
"""

import uuid
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.spatial import cKDTree
from sqlalchemy.orm import Session

from seechange_core.chain.neighbourhood import Member, counting, objects_with
from seechange_core.numerics.mean_place import PlaceSums
from seechange_core.numerics.sky import cell_ranges, cells_near, chord, separation, unit_vectors
from seechange_core.products.base import ids_in_ranges
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object
from seechange_core.stages.associate import AssociateParams, allowed_arcsec


def new_members(session: Session, provenance_id: str, rows: Sequence[Measurement]) -> list[Member]:
    """Return those of measurements just saved that count."""
    keys = [row.cutouts_id for row in rows if not row.is_bad]
    return list(counting(session, provenance_id, Measurement.cutouts_id, keys))


def joining(
    session: Session, provenance_id: str, members: Sequence[Member], params: AssociateParams
) -> dict[uuid.UUID, Object]:
    """Return the objects that new measurements join, by the measurements' ids; the others are left out.

    Parameters
    ----------
    session, provenance_id
        An open session, that has the turn named ``objects``, and of what measurements.
    members
        The new ones; none of them is counted by an object yet.
    params
        Of the association.
    """
    objects = _objects_near(session, provenance_id, members, params)
    sums = _known(session, provenance_id, objects)
    if not sums:
        return {}
    known = [row for row in objects if row.id in sums]
    unknown = [row for row in objects if row.id not in sums]
    heads = [sums[row.id].head for row in known]
    places = np.array([*heads, *((row.ra, row.dec, 1.0) for row in unknown)], float)
    tree = cKDTree(unit_vectors(places[:, 0], places[:, 1]))
    found = {}
    for member, near in zip(members, _around(tree, members, 2 * params.radius_arcsec), strict=True):
        if not len(near) or near.max() >= len(known):
            continue  # the head of an object nearby is not known
        k, is_better = _nearest_match(member, places[near], params)
        is_later = member.mjd > (known[near[k]].first_mjd or np.inf)
        if is_better and is_later and member.object_id is None:
            found[member.id] = known[near[k]]
    return found


def _known(session: Session, provenance_id: str, objects: Sequence[Object]) -> dict[uuid.UUID, PlaceSums]:
    """Return the sums of the objects that know them, and whose head is theirs and counts."""
    kept = {
        row.id: (uuid.UUID(row.place_sums["head_id"]), PlaceSums.from_plain(row.place_sums))
        for row in objects
        if row.place_sums and row.place_sums.get("head_id")
    }
    counts = {row.id: row.n_sightings for row in objects}
    heads = counting(session, provenance_id, Measurement.id, [head for head, _ in kept.values()])
    owners = {head.id: head.object_id for head in heads}
    return {
        key: sums
        for key, (head, sums) in kept.items()
        if owners.get(head) == key and sums.sums[0] == counts[key]
    }


def _objects_near(
    session: Session, provenance_id: str, members: Sequence[Member], params: AssociateParams
) -> list[Object]:
    """Return the objects that may have their heads within the limits: none is further from its mean place."""
    if not members:
        return []
    ra, dec = np.array([(m.ra, m.dec) for m in members], float).T
    ranges = cell_ranges(*cells_near(ra, dec, 2 * params.radius_arcsec / 3600))
    rows = objects_with(session, provenance_id, ids_in_ranges(session, Object, ranges))
    return [row for row in rows if row.n_sightings]


def _around(tree: cKDTree, members: Sequence[Member], radius_arcsec: float) -> Iterator[np.ndarray]:
    """Yield what a tree has near each measurement, in its order."""
    vectors = unit_vectors([m.ra for m in members], [m.dec for m in members])
    reach = float(chord(radius_arcsec / 3600)) * (1 + 1e-9)
    for near in tree.query_ball_point(vectors, reach, return_sorted=True):
        yield np.array(near, np.int64)


def _nearest_match(member: Member, heads: np.ndarray, params: AssociateParams) -> tuple[int, bool]:
    """Return which head a measurement belongs to, and whether one that it matches is more precise."""
    ra, dec, err = heads.T
    distance = separation(ra, dec, member.ra, member.dec) * 3600
    allowed = allowed_arcsec(np.hypot(err, member.err_arcsec), params)
    matches = np.flatnonzero(distance <= allowed).tolist()
    order = sorted(matches, key=lambda k: (distance[k], err[k], ra[k], dec[k]))
    own = member.place.precision
    return (order[0] if order else 0), any((err[k], ra[k], dec[k]) < own for k in matches)


def grow(objects: Sequence[Object], groups: Sequence[Sequence[Member]]) -> None:
    """Add measurements to the objects that they join: to their counts, dates and sums; places follow."""
    for row, group in zip(objects, groups, strict=True):
        kept = row.place_sums or {}
        sums = PlaceSums.from_plain(kept).plus(m.place for m in group)
        row.n_sightings += len(group)
        row.last_mjd = max(*(m.mjd for m in group), row.last_mjd or -np.inf)
        take_sums(row, sums, uuid.UUID(kept["head_id"]))


def take_sums(row: Object, sums: PlaceSums, head_id: uuid.UUID) -> None:
    """Let an object keep sums over its sightings and which measurement is its head, and be where they say."""
    place = sums.mean()
    row.ra, row.dec = place.ra, place.dec
    row.ra_err_arcsec, row.dec_err_arcsec = place.ra_err_arcsec, place.dec_err_arcsec
    row.place_sums = sums.plain() | {"head_id": head_id.hex}
