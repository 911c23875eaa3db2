"""Reference sets: the versions there are of each reference, and which of them is used.

A set is a name in the settings. In every region and filter it has versions, counted from 1 as they are built
from other images. The first is used at once; which one is used later changes only when someone says so.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import and_, not_, select
from sqlalchemy.orm import Session

from seechange_core.chain.choice import not_marked_bad
from seechange_core.chain.lineage import provenances
from seechange_core.errors import NotFoundError
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image, image_parents
from seechange_core.products.reference import Reference, references_used, use_reference
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
        called it so).
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
        Exposures that stay on the one before: they are in the version used now, and it was not built without
        them.
    """

    region: str
    filter: str
    version: int
    before: int | None
    staying: tuple[str, ...] = ()


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
        versions, states = _versions(rows), _states(session, rows)
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
    from this one by leaving it out.

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
        staying=_staying(session, wanted, old) if old and old is not wanted else (),
    )


def _staying(session: Session, wanted: Reference, old: Reference) -> tuple[str, ...]:
    """Return the exposures that the reference used before can still be subtracted from, but not this one."""

    def inputs(row: Reference) -> dict[uuid.UUID, str]:
        query = (
            select(Exposure.id, Exposure.name)
            .join(Image, Image.exposure_id == Exposure.id)
            .join(image_parents, image_parents.c.parent_id == Image.id)
            .where(image_parents.c.coadd_id == row.image_id)
        )
        return dict(session.execute(query).tuples())

    without = set(
        session.scalars(
            select(Reference.left_out_exposure_id).where(
                Reference.whole_id == wanted.id, Reference.bitflag == 0
            )
        )
    )
    left = inputs(wanted).items()
    held = set(inputs(old)) | without
    return tuple(sorted(name for key, name in left if key not in held))


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


def _states(session: Session, rows: Sequence[Reference]) -> dict[uuid.UUID, str]:
    used = [i for p in {row.provenance_id for row in rows} for i in references_used(session, p)]
    by_id = {row.id: row for row in rows}
    now: dict[tuple[str, str, str], Reference] = {}
    for row in (by_id[i] for i in used if i in by_id and not by_id[i].bitflag):
        now.setdefault((row.provenance_id, row.region, row.filter), row)
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
