"""Reference sets: the versions there are of each reference, and which of them is used.

A set is a name in the settings. In every region and filter it has versions, counted from 1 as they are built
from other images. The first is used at once; which one is used later changes only when someone says so.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import and_, not_, select
from sqlalchemy.orm import Session

from seechange_core.chain.choice import not_marked_bad, reference_without
from seechange_core.chain.lineage import provenances
from seechange_core.errors import NotFoundError
from seechange_core.products.base import Corners
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image, image_parents
from seechange_core.products.reference import Reference, find_references, references_used, use_reference
from seechange_core.products.verdict import not_called_bad
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.engine import open_session


@dataclass(frozen=True)
class ReferenceRow:
    """One version of a reference, or one that leaves an image out of it.

    Attributes
    ----------
    region, filter, ref_set, instrument
        Which.
    version
        Counted from 1; None if it leaves out an image of a version that is not there.
    state
        ``used``, ``proposed`` (newer than the one used), ``earlier`` (older than it), ``bad`` (a person
        called it so), ``outdated`` (used under other code or parameters, where the present ones use none).
    n_images
        Exposures in it.
    fwhm_arcsec, limiting_mag
        As measured on it.
    left_out
        The exposure that it leaves out.
    bad_inputs
        Exposures in it that someone called bad since.
    provenance, current
        What it was made with, and whether the present settings ask for the same.
    """

    region: str
    filter: str
    ref_set: str
    instrument: str
    version: int | None
    state: str
    n_images: int
    fwhm_arcsec: float | None
    limiting_mag: float | None
    left_out: str | None
    bad_inputs: str
    provenance: str
    current: bool


class UsedNow(NamedTuple):
    """What came of a wish to use a version: it was another one before, or the same.

    Attributes
    ----------
    region, filter
        Where.
    version, before
        Used from now on, and used until now; None if there was none.
    staying
        The sections that are in the version used now, which was not built without them, as exposure/section:
        by what they are subtracted from instead. That is a version used earlier, or one made from it by
        leaving the exposure out; None is nothing, until one of this version is built.
    """

    region: str
    filter: str
    version: int
    before: int | None
    staying: dict[str, int | None]


def list_references(settings: Settings) -> list[ReferenceRow]:
    """List all references, those of the present settings marked: by place, the newest version first."""
    query = (
        select(Reference, Image.fwhm_pix, WorldCoordinates.pixel_scale_arcsec, ZeroPoint.limiting_mag)
        .add_columns(Exposure.name)
        .join(Image, Image.id == Reference.image_id)
        .join(WorldCoordinates, WorldCoordinates.id == Reference.world_coordinates_id)
        .join(ZeroPoint, ZeroPoint.id == Reference.zero_point_id)
        .outerjoin(Exposure, Exposure.id == Reference.left_out_exposure_id)
        .order_by(Reference.region, Reference.filter, Reference.id.desc())
    )
    with use_settings(settings), open_session(settings, read_only=True) as session:
        found = list(session.execute(query))
        rows = [one[0] for one in found]
        current = {provenances(settings, i)["reference"].id for i in {row.instrument for row in rows}}
        versions, states = _versions(rows), _states(session, rows, current)
        bad = _bad_inputs(session, [row.image_id for row in rows])
    return [
        ReferenceRow(
            region=row.region,
            filter=row.filter,
            ref_set=row.ref_set,
            instrument=row.instrument,
            version=versions.get(row.whole_id or row.id),
            state=states[row.id],
            n_images=row.n_images,
            fwhm_arcsec=None if fwhm_pix is None else fwhm_pix * scale,
            limiting_mag=limit,
            left_out=left_out,
            bad_inputs=" ".join(bad.get(row.image_id, ())),
            provenance=row.provenance_id,
            current=row.provenance_id in current,
        )
        for row, fwhm_pix, scale, limit, left_out in found
    ]


def outdated_references(
    session: Session, corners: Corners, instrument: str, band: str, provenance_id: str
) -> list[str]:
    """Name what is used at a piece of sky under other code or parameters, where the present ones use nothing.

    Of each region the version made last, as in ``version 2 of r0481_0021``. Those called bad don't count.
    """
    good = find_references(session, corners, instrument=instrument, band=band)
    whole = {row.id: row for row in good if row.left_out_exposure_id is None}
    used = {i: whole[i] for i in _used(session, whole.values()) if i in whole}
    present = {row.region for row in used.values() if row.provenance_id == provenance_id}
    last: dict[str, Reference] = {}
    for row in sorted(used.values(), key=lambda row: row.id):
        if row.region not in present:
            last[row.region] = row
    names = []
    for region, row in sorted(last.items()):
        same = select(Reference).where(
            Reference.provenance_id == row.provenance_id, Reference.region == region, Reference.filter == band
        )
        names.append(f"version {_versions(session.scalars(same))[row.id]} of {region}")
    return names


def use_references(
    settings: Settings,
    instrument: str,
    regions: Sequence[str] = (),
    band: str | None = None,
    version: int | None = None,
    reason: str | None = None,
) -> list[UsedNow]:
    """Use a version of the references under the present settings from now on.

    Differences that were made with another one are made again when their sections are processed again, beside
    the old ones. An exposure that is in the version used keeps the one used before, or takes what was made
    from one of them by leaving it out.

    Parameters
    ----------
    settings, instrument
        Whose.
    regions, band
        Where and in which filter; none given means all.
    version
        Which; None takes the newest one that nobody called bad.

    Raises
    ------
    NotFoundError
        If there is no such reference in one of the regions, or none at all.
    """
    with use_settings(settings), open_session(settings) as session:
        provenance_id = provenances(settings, instrument)["reference"].id
        query = select(Reference).where(Reference.provenance_id == provenance_id).order_by(Reference.id)
        whole: dict[tuple[str, str], list[Reference]] = defaultdict(list)
        for row in session.scalars(query.where(Reference.left_out_exposure_id.is_(None))):
            if band in (None, row.filter) and (not regions or row.region in regions):
                whole[row.region, row.filter].append(row)
        missing = sorted(set(regions) - {region for region, _ in whole})
        if missing or not whole:
            raise NotFoundError(
                f"no reference of {', '.join(missing) or 'any region'} under these settings",
                cure="`seechange reference list` shows those there are, `reference build` makes more",
            )
        chosen = {key: _pick(key, rows, version) for key, rows in sorted(whole.items())}
        return [
            _use(session, whole[key], wanted, reason) for key, wanted in chosen.items() if wanted is not None
        ]


def _pick(key: tuple[str, str], rows: list[Reference], version: int | None) -> Reference | None:
    """Return the version asked for, or the newest good one; None if all are bad."""
    if version is None:
        return next((row for row in reversed(rows) if not row.bitflag), None)
    if not 1 <= version <= len(rows):
        raise NotFoundError(
            f"there is no version {version} of {' in '.join(key)}, only 1 to {len(rows)}",
            cure="name the region, or leave the version out to take the newest",
        )
    return rows[version - 1]


def _use(session: Session, rows: list[Reference], wanted: Reference, reason: str | None) -> UsedNow:
    versions = {row.id: number for number, row in enumerate(rows, 1)}
    before = references_used(session, wanted.provenance_id, [wanted.region], wanted.filter)
    use_reference(session, wanted, reason or "asked for")
    old = next((row for row in rows if before and row.id == before[0]), None)
    return UsedNow(
        region=wanted.region,
        filter=wanted.filter,
        version=versions[wanted.id],
        before=versions[old.id] if old else None,
        staying=_staying(session, wanted, versions) if old and old is not wanted else {},
    )


def _staying(session: Session, wanted: Reference, versions: Mapping[uuid.UUID, int]) -> dict[str, int | None]:
    """Return which versions the sections in a reference put to use are subtracted from, if not from it."""
    place = Reference.region == wanted.region, Reference.filter == wanted.filter
    of_region = select(Reference).where(
        Reference.provenance_id == wanted.provenance_id, *place, Reference.bitflag == 0
    )
    rows = list(session.scalars(of_region.order_by(Reference.id.desc())))
    used = references_used(session, wanted.provenance_id, [wanted.region], wanted.filter)
    inputs = (
        select(Exposure.id, Exposure.name, Image.section_id)
        .join(Image, Image.exposure_id == Exposure.id)
        .join(image_parents, image_parents.c.parent_id == Image.id)
        .where(image_parents.c.coadd_id == wanted.image_id)
        .order_by(Exposure.name, Image.section_id)
    )
    found: dict[str, int | None] = {}
    for exposure_id, name, section_id in session.execute(inputs):
        row = reference_without(session, rows, used, exposure_id, section_id)
        version = None if row is None else versions[row.whole_id or row.id]
        if version != versions[wanted.id]:
            found[f"{name}/{section_id}"] = version
    return found


def _versions(rows: Iterable[Reference]) -> dict[uuid.UUID, int]:
    """Count the versions of each region, filter and set; those that leave an image out are none."""
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    versions = {}
    for row in sorted(rows, key=lambda row: row.id):
        if row.left_out_exposure_id is None:
            key = row.provenance_id, row.region, row.filter
            counts[key] += 1
            versions[row.id] = counts[key]
    return versions


def _used(session: Session, rows: Iterable[Reference]) -> list[uuid.UUID]:
    """Return the ids of all that is used or was under the provenances of some references."""
    return [i for p in {row.provenance_id for row in rows} for i in references_used(session, p)]


def _states(session: Session, rows: Sequence[Reference], current: set[str]) -> dict[uuid.UUID, str]:
    used = _used(session, rows)
    by_id = {row.id: row for row in rows}
    now: dict[tuple[str, str, str], Reference] = {}
    for row in (by_id[i] for i in used if i in by_id and not by_id[i].bitflag):
        now.setdefault((row.provenance_id, row.region, row.filter), row)
    covered = {(r.instrument, r.region, r.filter) for r in now.values() if r.provenance_id in current}
    states = {}
    for row in rows:
        whole = by_id.get(row.whole_id, row) if row.whole_id else row
        chosen = now.get((row.provenance_id, row.region, row.filter))
        if row.bitflag:
            states[row.id] = "bad"
        elif chosen is None or whole.id > chosen.id:
            states[row.id] = "proposed"
        else:
            states[row.id] = "used" if whole.id == chosen.id else "earlier"
            outdated = row.provenance_id not in current
            if (
                whole is row is chosen
                and outdated
                and (row.instrument, row.region, row.filter) not in covered
            ):
                states[row.id] = "outdated"
    return states


def _bad_inputs(session: Session, coadds: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[str]]:
    """Return the names of the exposures in coadds that someone called bad."""
    columns = image_parents.c
    good = and_(not_marked_bad(), not_called_bad(Image.exposure_id, Image.section_id))
    query = (
        select(columns.coadd_id, Exposure.name)
        .join(Image, Image.id == columns.parent_id)
        .join(Exposure, Exposure.id == Image.exposure_id)
        .where(columns.coadd_id.in_(coadds), not_(good))
        .distinct()
        .order_by(Exposure.name)
    )
    found: dict[uuid.UUID, list[str]] = defaultdict(list)
    for coadd_id, name in session.execute(query):
        found[coadd_id].append(name)
    return found
