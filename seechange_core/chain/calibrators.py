"""What calibrators there are, what they were made from, and which ones an image was made with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session

from seechange_core.chain.choice import SLOTS
from seechange_core.chain.lineage import provenances
from seechange_core.chain.outcome import USED
from seechange_core.errors import NotFoundError, UserError
from seechange_core.numerics.timing import mjd_to_iso
from seechange_core.products.calibrator import (
    FROM_EVER,
    KINDS,
    Calibrator,
    calibrator_frames,
    mark_calibrators,
)
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image
from seechange_core.products.outcome import StepOutcome
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.engine import open_session


@dataclass(frozen=True)
class CalibratorRow:
    """One calibrator.

    Attributes
    ----------
    kind, instrument, section, filter, origin, n_frames
        As in `products.calibrator.Calibrator`.
    night
        Local date, or the date it was supplied for.
    valid_from, valid_to
        Dates (UTC); empty: no limit.
    n_rejected
        How many frames were left out.
    source
        Name of the file a supplied one came from; empty for built ones.
    file
        Its own, relative to the data root.
    is_bad
        It was marked bad: it is not used.
    provenance, current
        Id, and whether it is what the present settings make, or was supplied.
    frames
        If asked for: name of each frame, with the reason why it was left out, or ``used``.
    """

    kind: str
    instrument: str
    section: str
    filter: str
    origin: str
    night: str
    valid_from: str
    valid_to: str
    n_frames: int
    n_rejected: int
    source: str
    file: str
    is_bad: bool
    provenance: str
    current: bool
    frames: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class UsedCalibrator:
    """One calibrator of one section's present image.

    Attributes
    ----------
    exposure, section
        Of the image.
    step
        What it was used for: a name of `frames.Masters`.
    days_away
        Its date minus the exposure's, days.
    calibrator
        Which.
    """

    exposure: str
    section: str
    step: str
    days_away: float
    calibrator: CalibratorRow


def list_calibrators(
    settings: Settings,
    *,
    instrument: str | None = None,
    kinds: Sequence[str] = (),
    sections: Sequence[str] = (),
    band: str | None = None,
    with_frames: bool = False,
) -> list[CalibratorRow]:
    """List calibrators by kind, section, filter and date.

    Parameters
    ----------
    settings
        Whose.
    instrument, kinds, sections, band
        Only of these; empty and None take all.
    with_frames
        Tell the frames of each, too.
    """
    which: list[ColumnElement[bool]] = []
    for column, values in (
        (Calibrator.instrument, [instrument] if instrument is not None else []),
        (Calibrator.kind, kinds),
        (Calibrator.section_id, sections),
        (Calibrator.filter, [band] if band is not None else []),
    ):
        if values:
            which.append(column.in_(list(values)))
    query = select(Calibrator).where(*which).order_by(Calibrator.filter, Calibrator.mjd, Calibrator.id)
    with use_settings(settings), open_session(settings, read_only=True) as session:
        rows = list(session.scalars(query))
        told = _tell(session, settings, rows, which, with_frames)
    return sorted((told[row.id] for row in rows), key=lambda r: (KINDS.index(r.kind), _natural(r.section)))


def mark(
    settings: Settings,
    kind: str,
    reason: str | None,
    *,
    night: str | None = None,
    source: str | None = None,
    instrument: str | None = None,
    sections: Sequence[str] = (),
    band: str | None = None,
) -> int:
    """Call calibrators of a kind bad, for a reason, or good again (None); return how many there are.

    Bad ones are no longer used, and what was made with them is made again when it is asked for.

    Parameters
    ----------
    settings, kind, reason
        Whose; which; why.
    night, source
        Of which night they were made, or the name of the file they were supplied as: one of the two at least.
    instrument, sections, band
        Only of these.

    Raises
    ------
    UserError
        If neither night nor file is named.
    NotFoundError
        If there is none like that.
    """
    if night is None and source is None:
        raise UserError("which ones?", cure="name their night, or the file they were supplied as")
    wanted = {"kind": kind, "night": night, "source": source, "instrument": instrument, "filter": band}
    query = select(Calibrator).where(
        *(getattr(Calibrator, name) == value for name, value in wanted.items() if value is not None)
    )
    if sections:
        query = query.where(Calibrator.section_id.in_(list(sections)))
    with use_settings(settings), open_session(settings) as session:
        rows = list(session.scalars(query))
        mark_calibrators(session, rows, reason)
    if not rows:
        raise NotFoundError(f"no such {kind}", cure="see seechange calibrator list")
    return len(rows)


def count_calibrators(settings: Settings) -> int:
    """Count all calibrators there are."""
    with use_settings(settings), open_session(settings, read_only=True) as session:
        return session.scalar(select(func.count()).select_from(Calibrator)) or 0


def calibrators_used(settings: Settings, exposures: Sequence[str] | None = None) -> list[UsedCalibrator]:
    """Tell which calibrators the present images of some exposures, or of all, were made with."""
    with use_settings(settings), open_session(settings, read_only=True) as session:
        made = [(row[0], row[1]) for row in session.execute(_present_images(exposures))]
        current = _current(settings, {image.instrument for image, _ in made})
        images = [(i, e) for i, e in made if i.provenance_id == current[i.instrument]["image"]]
        ids = {getattr(image, f"{slot}_id") for image, _ in images for slot in SLOTS} - {None}
        which = Calibrator.id.in_(ids)
        rows = {row.id: row for row in session.scalars(select(Calibrator).where(which))}
        told = _tell(session, settings, rows.values(), [which], with_frames=False)
    found = []
    for image, exposure in images:
        for slot in SLOTS:
            row = rows.get(getattr(image, f"{slot}_id"))
            if row is not None:
                away = row.mjd - image.mjd_mid
                found.append(UsedCalibrator(exposure, image.section_id, slot, away, told[row.id]))
    return found


def _present_images(exposures: Sequence[str] | None) -> Select[Image, str]:
    """Select the images that the last run of their step made, with the names of their exposures."""
    made = and_(
        StepOutcome.exposure_id == Image.exposure_id,
        StepOutcome.section_id == Image.section_id,
        StepOutcome.step == "image",
        StepOutcome.data_version == Image.data_version,
    )
    query = (
        select(Image, Exposure.name)
        .join(StepOutcome, made)
        .join(Exposure, Exposure.id == Image.exposure_id)
        .where(Image.type == "science")
        .order_by(Exposure.mjd, Image.section_id)
    )
    return query if exposures is None else query.where(Exposure.name.in_(list(exposures)))


def _current(settings: Settings, instruments: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the present provenance ids by instrument and process."""
    return {
        name: {process: key.id for process, key in provenances(settings, name).items()}
        for name in instruments
    }


def _tell(
    session: Session,
    settings: Settings,
    rows: Iterable[Calibrator],
    which: Sequence[ColumnElement[bool]],
    with_frames: bool,
) -> dict[Any, CalibratorRow]:
    """Describe rows, by their ids; `which` are the conditions that selected them."""
    rows = list(rows)
    current = _current(settings, {row.instrument for row in rows})
    rejected = _rejected(session, which)
    frames = _frames(session, which) if with_frames else {}
    return {
        row.id: CalibratorRow(
            kind=row.kind,
            instrument=row.instrument,
            section=row.section_id,
            filter=row.filter,
            origin=row.origin,
            night=row.night,
            valid_from=_date(row.validity_start),
            valid_to=_date(row.validity_end),
            n_frames=row.n_frames,
            n_rejected=rejected.get(row.id, 0),
            source=row.source or "",
            file=row.filepath or "",
            is_bad=bool(row.bitflag),
            provenance=row.provenance_id,
            current=row.origin == "supplied" or row.provenance_id == current[row.instrument].get(row.kind),
            frames=tuple(frames.get(row.id, ())),
        )
        for row in rows
    }


def _rejected(session: Session, which: Sequence[ColumnElement[bool]]) -> Mapping[Any, int]:
    columns = calibrator_frames.c
    query = (
        select(columns.calibrator_id, func.count())
        .join(Calibrator, Calibrator.id == columns.calibrator_id)
        .where(columns.rejected_because != "", *which)
    )
    return {row[0]: row[1] for row in session.execute(query.group_by(columns.calibrator_id))}


def _frames(session: Session, which: Sequence[ColumnElement[bool]]) -> Mapping[Any, list[tuple[str, str]]]:
    columns = calibrator_frames.c
    query = (
        select(columns.calibrator_id, Exposure.name, columns.rejected_because)
        .join(Exposure, Exposure.id == columns.exposure_id)
        .join(Calibrator, Calibrator.id == columns.calibrator_id)
        .where(*which)
        .order_by(Exposure.mjd)
    )
    found: dict[Any, list[tuple[str, str]]] = {}
    for key, name, reason in session.execute(query):
        found.setdefault(key, []).append((name, reason or USED))
    return found


def _date(mjd: float | None) -> str:
    return "" if mjd is None or mjd == FROM_EVER else mjd_to_iso(mjd)[:10]


def _natural(section: str) -> tuple[int, int, str]:
    """Sort 2 before 10."""
    return (0, int(section), "") if section.isdigit() else (1, 0, section)
