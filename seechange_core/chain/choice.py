"""Which other rows a section is processed with: its calibrators and its references."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from seechange_core.chain.load import CalibratedRows, rows_of_reference
from seechange_core.chain.section import Section
from seechange_core.flags import ExposureFlag
from seechange_core.frames import Masters
from seechange_core.products.calibrator import Calibrator
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image, image_parents
from seechange_core.products.reference import Reference, find_references, references_used
from seechange_core.products.shelf import Known, Shelf
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.provenance import digest
from seechange_core.stages.preprocess import PreprocessParams
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

#: What a section can be calibrated with, by the names of `frames.Masters`.
SLOTS = tuple(field.name for field in fields(Masters))
#: Kinds that we build ourselves.
BUILT = ("bias", "dark", "flat", "twilight_flat", "illumination", "bad_pixels")


def not_marked_bad() -> ColumnElement[bool]:
    """Make the condition that nobody called an exposure bad; one that lost some sections has others."""
    return Exposure.bitflag.bitwise_and(int(ExposureFlag.MARKED_BAD)) == 0


# --- Calibrators ----------------------------------------------------------------------------------


def mask_version(provenance_id: str, section: str, master: str) -> str:
    """Name the data version of the bad-pixel mask that a dark or flat of some data version implies."""
    return digest(provenance_id, section, master)


def illumination_version(provenance_id: str, section: str, twilight: str, flat: str) -> str:
    """Name the data version of the illumination that a twilight flat and a flat imply."""
    return digest(provenance_id, section, twilight, flat)


def shelf_of(
    session: Session,
    instrument: str,
    provenances: Mapping[str, str],
    mjds: Iterable[float],
    sections: Sequence[str] | None = None,
) -> Shelf:
    """Make the shelf of an instrument's calibrators around some times under the present provenances."""
    return Shelf(session, instrument, [provenances[kind] for kind in BUILT], mjds, sections)


def masters_for(section: Section) -> dict[str, Calibrator]:
    """Return the rows of the calibrators that a section is preprocessed with.

    Those nearest in time for every step that is asked for in the section's filter. What belongs to a flat
    follows the flat that is used: the bad-pixel mask found in it and the illumination it was compared with
    twilight flats for, unless others were supplied: a person's word counts more.

    Returns
    -------
    dict
        By the names of `frames.Masters`; what there is none of is absent. The ``flat`` is the first of
        `flat_kinds` there is.
    """
    params = section.params(PreprocessParams, "preprocess")
    with open_session(section.settings, read_only=True) as session:
        ids = {kind: section.provenance_id(kind) for kind in BUILT}
        exposure = section.exposure
        shelf = shelf_of(session, exposure.instrument, ids, [exposure.mjd_mid], [section.section])
        chosen = _Choice(shelf, section.section, exposure.mjd_mid, section.band, ids, params)
        asked = [slot for slot in SLOTS if params.asks_for(slot, section.band)]
        found = {slot: getattr(chosen, slot)() for slot in asked}
        return shelf.rows({slot: known for slot, known in found.items() if known is not None})


def read_masters(rows: Mapping[str, Calibrator], archive: Archive) -> Masters:
    """Read the calibrators that were chosen, by the names of `frames.Masters`."""
    contents: dict[str, Any] = {name: row.read(archive) for name, row in rows.items()}
    return Masters(**contents)


@dataclass(frozen=True)
class _Choice:
    """Chooses for one section: a method for each name of `frames.Masters`."""

    shelf: Shelf
    section: str
    mjd: float
    band: str
    ids: Mapping[str, str]
    params: PreprocessParams

    def _nearest(self, kind: str, band: str = "") -> Known | None:
        return self.shelf.nearest(kind, self.section, self.mjd, band)

    def _supplied(self, kind: str, band: str = "") -> Known | None:
        rows = self.shelf.by_nearness(kind, self.section, self.mjd, band)
        return next((row for row in rows if row.origin == "supplied"), None)

    def crosstalk(self) -> Known | None:
        return self._nearest("crosstalk")

    def linearity(self) -> Known | None:
        return self._nearest("linearity")

    def bias(self) -> Known | None:
        return self._nearest("bias")

    def dark(self) -> Known | None:
        return self._nearest("dark")

    def flat(self) -> Known | None:
        found = (self._nearest(kind, self.band) for kind in self.params.flat_kinds)
        return next((known for known in found if known is not None), None)

    def fringe(self) -> Known | None:
        return self._nearest("fringe", self.band)

    def illumination(self) -> Known | None:
        """Take one supplied, else the flat's own, else the nearest of another flat: lamps hardly change.

        What was found by comparing a dome with the sky says nothing of a twilight flat.
        """
        if (supplied := self._supplied("illumination", self.band)) is not None:
            return supplied
        flat = self.flat()
        if flat is None or flat.kind != "flat":
            return None
        where = (self.section, self.mjd, self.band)
        own = {
            illumination_version(
                self.ids["illumination"], self.section, twilight.data_version, flat.data_version
            )
            for twilight in self.shelf.by_nearness("twilight_flat", *where)
        }
        rows = self.shelf.by_nearness("illumination", *where)
        return next((row for row in rows if row.data_version in own), next(iter(rows), None))

    def bad_pixels(self) -> Known | None:
        """Take one supplied, else the one that the flat used implies, or the dark, else the nearest."""
        if (supplied := self._supplied("bad_pixels")) is not None:
            return supplied
        for master in (self.flat(), self.dark()):
            if master is not None:
                version = mask_version(self.ids["bad_pixels"], self.section, master.data_version)
                mask = self.shelf.version(version)
                if mask is not None and not mask.bitflag:
                    return mask
        return self._nearest("bad_pixels")


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
    """Choose, for every overlapping region, the version of its reference that is used.

    Where that one contains the section, the one made from it by leaving this exposure out, else the version
    used before it: an exposure that went into a newer version keeps the older one. What was built and never
    put to use is not looked at.
    """
    wcs = section.needed(WorldCoordinates, "world_coordinates")
    provenance_id = section.provenance_id("reference")
    with open_session(section.settings, read_only=True) as session:
        candidates = find_references(
            session,
            wcs.corners or [],
            instrument=section.exposure.instrument,
            band=section.band,
            provenance_id=provenance_id,
        )
        exposure_id = section.exposure.id
        regions = sorted({row.region for row in candidates})
        used = references_used(session, provenance_id, regions, section.band)
        chosen, containing = [], []
        for region in regions:
            rows = [row for row in candidates if row.region == region]
            best = reference_without(session, rows, used, exposure_id, section.section)
            if best is not None:
                chosen.append(best)
            elif _ranked(rows, used, exposure_id):
                containing.append(region)
        parts = [rows_of_reference(session, row) for row in chosen]
    return ReferenceChoice(tuple(chosen), tuple(parts), tuple(containing))


def reference_without(
    session: Session,
    rows: Sequence[Reference],
    used: Sequence[uuid.UUID],
    exposure_id: uuid.UUID,
    section_id: str,
) -> Reference | None:
    """Return which of a region's good references a section is subtracted from; None if all contain it.

    Parameters
    ----------
    session
        An open session.
    rows, used
        The references, and the ids of those that are used or were, the last one first.
    exposure_id, section_id
        The section.
    """
    own = _containing(session, exposure_id, section_id, rows)
    return next((row for row in _ranked(rows, used, exposure_id) if row.id not in own), None)


def _ranked(rows: Sequence[Reference], used: Sequence[uuid.UUID], exposure_id: uuid.UUID) -> list[Reference]:
    """Return the references of a region that may be subtracted from an exposure, the one to take first.

    An exposure is left out section by section, so a reference without another section of this exposure
    still holds this one: what it was made from decides in the end.
    """
    by_id = {row.id: row for row in rows}
    without: dict[uuid.UUID | None, list[Reference]] = {}
    for row in rows:
        if row.left_out_exposure_id == exposure_id:
            without.setdefault(row.whole_id, []).append(row)
    return [row for i in used if i in by_id for row in (by_id[i], *without.get(i, ()))]


def _containing(
    session: Session, exposure_id: uuid.UUID, section_id: str, rows: Iterable[Reference]
) -> set[uuid.UUID]:
    """Return the ids of the references that were made with a section of an exposure."""
    query = (
        select(Reference.id)
        .join(image_parents, image_parents.c.coadd_id == Reference.image_id)
        .join(Image, Image.id == image_parents.c.parent_id)
        .where(
            Reference.id.in_([row.id for row in rows]),
            Image.exposure_id == exposure_id,
            Image.section_id == section_id,
        )
    )
    return set(session.scalars(query))
