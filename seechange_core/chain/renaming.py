"""What objects are called: after their first sightings, whatever they were called before."""

import logging
from collections import Counter
from collections.abc import Sequence

from sqlalchemy import delete
from sqlalchemy.orm import Session

from seechange_core.chain.neighbourhood import Member
from seechange_core.products.object import Object, ObjectAlias, object_name

log = logging.getLogger(__name__)


def names_of(first: Sequence[Member], pattern: str) -> list[str]:
    """Name objects by their first sightings; of two whose places spell alike, the later seen has a suffix."""
    given: Counter[str] = Counter()
    names = []
    for seen in first:
        name = object_name(pattern, seen.ra, seen.dec, seen.mjd)
        names.append(name if not given[name] else f"{name}.{given[name] + 1}")
        given[name] += 1
    return names


def rename(
    session: Session, objects: Sequence[Object], owners: Sequence[Object], names: Sequence[str]
) -> None:
    """Give objects their names, remembering the earlier ones; an empty one there of that name gives it up."""
    owning = {row.id for row in owners}
    changed = [(row, name) for row, name in zip(owners, names, strict=True) if row.name != name]
    if not changed:
        return
    blocked = [row for row in objects if row.id not in owning and row.name in {n for _, n in changed}]
    session.flush()
    session.execute(delete(Object).where(Object.id.in_([row.id for row in blocked])))
    for row, name in changed:
        if row.name != row.id.hex:
            session.add(ObjectAlias(object_id=row.id, name=row.name, how="renamed"))
            log.info("object %s is named %s: an earlier sighting of it came in", row.name, name)
        row.name = row.id.hex
    session.flush()  # two may have exchanged names
    for row, name in changed:
        row.name = name
