"""Which other rows a section is processed with: its masters and its references."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from seechange_core.chain.load import CalibratedRows, rows_of_reference
from seechange_core.chain.section import Section
from seechange_core.flags import ExposureFlag
from seechange_core.products.calibrator import Calibrator, find_calibrator
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image, image_parents
from seechange_core.products.reference import Reference, find_references
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.provenance import digest
from seechange_core.storage.engine import open_session

MASTER_KINDS = ("bias", "dark", "flat", "bad_pixels")


def not_marked_bad() -> ColumnElement[bool]:
    """Make the condition that nobody called an exposure bad; one that lost some sections has others."""
    return Exposure.bitflag.bitwise_and(int(ExposureFlag.MARKED_BAD)) == 0


# --- Masters --------------------------------------------------------------------------------------


def mask_version(provenance_id: str, section: str, master: str) -> str:
    """Name the data version of the bad-pixel mask that a dark or flat of some data version implies."""
    return digest(provenance_id, section, master)


def masters_for(section: Section) -> dict[str, Calibrator]:
    """Return the rows of the masters nearest in time, by kind; kinds that have none are absent."""
    exposure = section.exposure
    found: dict[str, Calibrator] = {}
    with open_session(section.settings, read_only=True) as session:
        for kind in MASTER_KINDS:
            row = _implied_mask(session, section, found) if kind == "bad_pixels" else None
            row = row or find_calibrator(
                session,
                kind,
                instrument=exposure.instrument,
                section_id=section.section,
                mjd=exposure.mjd_mid,
                band=section.band if kind == "flat" else "",
                provenance_id=section.provenance_id(kind),
            )
            if row is not None:
                found[kind] = row
    return found


def _implied_mask(session: Session, section: Section, used: dict[str, Calibrator]) -> Calibrator | None:
    """Return the mask made with the flat that is used, or with its dark: not one of another night's dark."""
    master = used.get("flat") or used.get("dark")
    if master is None:
        return None
    version = mask_version(section.provenance_id("bad_pixels"), section.section, master.data_version)
    query = select(Calibrator).where(Calibrator.data_version == version, Calibrator.bitflag == 0)
    return session.scalar(query)


# --- References -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReferenceChoice:
    """The references of a section, one for each region of the sky it overlaps.

    Attributes
    ----------
    rows, parts
        The references, and the rows of what each consists of.
    containing
        Regions whose only references contain this very section of this exposure.
    """

    rows: tuple[Reference, ...]
    parts: tuple[CalibratedRows, ...]
    containing: tuple[str, ...]


def references_for(section: Section) -> ReferenceChoice:
    """Choose the newest reference of every overlapping region that does not contain the section."""
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
    """Return the newest reference without this section, whole or made by leaving this exposure out.

    An exposure is left out section by section, so a reference without another section of this exposure
    still holds this one: what it was made from decides.
    """
    return next(
        (
            row
            for row in rows
            if row.id not in own and row.left_out_exposure_id in (None, section.exposure.id)
        ),
        None,
    )


def _containing(session: Session, section: Section, rows: Iterable[Reference]) -> set[object]:
    """Return the ids of the references that were made with this section of this exposure."""
    query = (
        select(Reference.id)
        .join(image_parents, image_parents.c.coadd_id == Reference.image_id)
        .join(Image, Image.id == image_parents.c.parent_id)
        .where(
            Reference.id.in_([row.id for row in rows]),
            Image.exposure_id == section.exposure.id,
            Image.section_id == section.section,
        )
    )
    return set(session.scalars(query))
