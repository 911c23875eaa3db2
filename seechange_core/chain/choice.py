"""Which references a section is compared with."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.load import CalibratedRows, rows_of_reference
from seechange_core.chain.section import Section
from seechange_core.products.image import Image, image_parents
from seechange_core.products.reference import Reference, find_references
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.storage.engine import open_session


@dataclass(frozen=True)
class ReferenceChoice:
    """The references of a section, one for each region of the sky it overlaps.

    Attributes
    ----------
    rows, parts
        The references, and the rows of what each consists of.
    containing
        Regions whose only references contain this very exposure.
    """

    rows: tuple[Reference, ...]
    parts: tuple[CalibratedRows, ...]
    containing: tuple[str, ...]


def references_for(section: Section) -> ReferenceChoice:
    """Choose the newest reference of every overlapping region that does not contain the exposure."""
    wcs = section.needed(WorldCoordinates, "world_coordinates")
    with open_session(section.settings, read_only=True) as session:
        candidates = find_references(
            session,
            wcs.corners or [],
            instrument=section.exposure.instrument,
            band=section.band,
            provenance_id=section.provenance_id("reference"),
        )
        own = _containing(session, section, candidates)
        chosen, containing = [], []
        for region in sorted({row.region for row in candidates}):
            rows = [row for row in candidates if row.region == region]
            best = _best(section, rows, own)
            if best is None:
                containing.append(region)
            else:
                chosen.append(best)
        parts = [rows_of_reference(session, row) for row in chosen]
    return ReferenceChoice(tuple(chosen), tuple(parts), tuple(containing))


def _best(section: Section, rows: list[Reference], own: set[object]) -> Reference | None:
    """Return the newest whole reference, or the one made without this exposure if it is in that."""
    whole = [row for row in rows if row.left_out_exposure_id is None]
    if whole and whole[0].id not in own:
        return whole[0]
    without = [row for row in rows if row.left_out_exposure_id == section.exposure.id]
    return without[0] if without else None


def _containing(session: Session, section: Section, rows: Iterable[Reference]) -> set[object]:
    """Return the ids of the references that were made with this exposure."""
    query = (
        select(Reference.id)
        .join(image_parents, image_parents.c.coadd_id == Reference.image_id)
        .join(Image, Image.id == image_parents.c.parent_id)
        .where(Reference.id.in_([row.id for row in rows]), Image.exposure_id == section.exposure.id)
    )
    return set(session.scalars(query))
