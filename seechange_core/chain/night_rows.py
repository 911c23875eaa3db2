"""What the database says of a night: its exposures, what became of their sections, and what changed since."""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from seechange_core.chain.lineage import provenances
from seechange_core.chain.quality import TABLES
from seechange_core.chain.steps import STEPS
from seechange_core.errors import NotFoundError
from seechange_core.flags import QUALITY_MEANINGS, QualityFlag
from seechange_core.instrument import get_instrument_instance
from seechange_core.products.base import unindexed
from seechange_core.products.exposure import Exposure
from seechange_core.products.incoming_file import IncomingFile
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.verdict import Verdict
from seechange_core.provenance import digest
from seechange_core.qa.night import Fate, NightExposure, NightSection, Number, Problem, Tile
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.engine import open_session

#: Rank of what happened to sections, worst first.
_WORST = ("failed", "stopped", "flagged")
#: Exposures registered later than this after their end were not processed as they were taken, days.
_LIVE_DAYS = 1.0


@dataclass
class _Walked:
    """One section of one exposure: the outcomes of its steps under the present settings, and their flags."""

    outcomes: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, int] = field(default_factory=dict)

    def end(self) -> tuple[Fate, Any]:
        """Return its fate, and the outcome that decided it: of the first step that was not done."""
        for step in STEPS:
            row = self.outcomes.get(step.name)
            if row is None:
                return "unfinished", None
            if row.status != "done":
                return row.status, row
        return "done", None

    def figure(self, step: str, name: str) -> Number:
        """Return a figure of a step that was done, and None of another one."""
        row = self.outcomes.get(step)
        value = row.metrics.get(name) if row is not None and row.status == "done" else None
        return None if value is None else float(value)


class NightRows(NamedTuple):
    """What there is of a night: see `Night`."""

    exposures: tuple[NightExposure, ...]
    sections: tuple[NightSection, ...]
    plane: tuple[Tile, ...]
    problems: tuple[Problem, ...]
    delay_from: str


def night_rows(settings: Settings, instrument: str, night: str) -> NightRows:
    """Return the exposures of a night, what became of their sections under the present settings, and why."""
    query = select(Exposure).where(*_of_night(instrument, night))
    with use_settings(settings), open_session(settings, read_only=True) as session:
        rows = list(session.scalars(query.order_by(Exposure.mjd, Exposure.name)))
        ids = [str(section) for section in get_instrument_instance(instrument).get_section_ids()]
        walked = _walked(session, settings, instrument, night)
        plane = _plane(rows[-1] if rows else None, ids)
        exposures = tuple(_exposure(row) for row in rows)
        live = [_days(_utc(row.created_at)) - _end(row) for row in rows]
        is_live = bool(rows) and float(np.median(live)) < _LIVE_DAYS
        sections = tuple(
            _section(walked[row.name, name], (e, s), _filter(row, name), row, is_live)
            for e, row in enumerate(rows)
            for s, name in enumerate(ids)
        )
    problems = _problems({key: walked[key] for key in ((row.name, name) for row in rows for name in ids)})
    since = "the end of the exposure" if is_live else "registration"
    return NightRows(exposures, sections, plane, problems, since)


def _science(instrument: str) -> tuple[ColumnElement[bool], ...]:
    """Make the conditions of an instrument's science exposures, beside keys: SQLite is not to go by these."""
    return unindexed(Exposure.instrument) == instrument, unindexed(Exposure.type) == "science"


def _of_night(instrument: str, night: str) -> tuple[ColumnElement[bool], ...]:
    return (Exposure.night == night, *_science(instrument))


def _walked(
    session: Session, settings: Settings, instrument: str, night: str
) -> dict[tuple[str, str], _Walked]:
    current = [key.id for key in provenances(settings, instrument).values()]
    o = StepOutcome
    query = (
        select(Exposure.name, o.section_id, o.step, o.status, o.reason, o.message, o.seconds, o.metrics)
        .add_columns(o.updated_at, o.data_version)
        .join(o, o.exposure_id == Exposure.id)
        .where(*_of_night(instrument, night))
        .where(unindexed(o.provenance_id).in_(current))
    )
    bits = _flags(session, instrument, night)
    found: dict[tuple[str, str], _Walked] = defaultdict(_Walked)
    for row in session.execute(query):
        section = found[row.name, row.section_id]
        section.outcomes[row.step] = row
        if row.status == "done" and (flags := bits.get((row.step, row.data_version), 0)):
            section.flags[row.step] = flags
    return found


def _flags(session: Session, instrument: str, night: str) -> dict[tuple[str, str], int]:
    """Return the bits of a night's products that have any, by step and data version."""
    found: dict[tuple[str, str], int] = {}
    for step, table in TABLES.items():
        query = (
            select(table.data_version, table.bitflag)
            .join(StepOutcome, StepOutcome.data_version == table.data_version)
            .join(Exposure, Exposure.id == StepOutcome.exposure_id)
            .where(*_of_night(instrument, night))
            .where(unindexed(StepOutcome.step) == step, unindexed(table.bitflag) != 0)
        )
        found |= {(step, version): bits for version, bits in session.execute(query)}
    return found


def _exposure(row: Exposure) -> NightExposure:
    return NightExposure(
        name=row.name,
        target=row.target or "",
        filter=" ".join(row.filter_array or ()) or row.filter or "",
        mjd=row.mjd,
        exp_time_s=row.exp_time,
        airmass=row.airmass,
        bad=row.bad_reason or "",
    )


def _filter(row: Exposure, section: str) -> str:
    """Return the filter over a section."""
    if row.filter_array is None:
        return row.filter or ""
    return row.get_section_filter(get_instrument_instance(row.instrument).section_id_of(section)) or ""


def _section(
    walked: _Walked, place: tuple[int, int], band: str, exposure: Exposure, is_live: bool
) -> NightSection:
    fate, _ = walked.end()
    zp, sky, fwhm, scale = (
        walked.figure(*which)
        for which in (
            ("zero_point", "zp"),
            ("source_list", "sky_e"),
            ("source_list", "fwhm_pix"),
            ("world_coordinates", "pixel_scale_arcsec"),
        )
    )
    return NightSection(
        *place,
        filter=band,
        fate=fate,
        seeing_arcsec=None if fwhm is None or scale is None else fwhm * scale,
        sky_mag=_sky_mag(sky, scale, zp),
        zero_point_mag=None if zp is None else zp - 2.5 * float(np.log10(max(exposure.exp_time, 1e-3))),
        depth_mag=walked.figure("zero_point", "limiting_mag"),
        n_detections=walked.figure("detections", "n_detections"),
        seconds=sum(row.seconds for row in walked.outcomes.values()) if walked.outcomes else None,
        delay_min=_delay(walked, exposure, is_live),
    )


def _sky_mag(sky_e: Number, scale: Number, zp: Number) -> Number:
    """Return the sky's brightness, mag/arcsec^2; None if something is not known, or no sky was left in it."""
    if sky_e is None or scale is None or zp is None or sky_e <= 0:
        return None
    return zp - 2.5 * float(np.log10(sky_e / scale**2))


def _delay(walked: _Walked, exposure: Exposure, is_live: bool) -> Number:
    """Return the minutes until it was measured, from its end or, of an archive's, its registration."""
    measured = walked.outcomes.get("measurement")
    if measured is None or measured.status != "done":
        return None
    start = _end(exposure) if is_live else _days(_utc(exposure.created_at))
    return max(0.0, 1440 * (_days(_utc(measured.updated_at)) - start))


def _end(exposure: Exposure) -> float:
    return exposure.mjd + exposure.exp_time / 86400


def _utc(at: datetime) -> datetime:
    """SQLite keeps times without their zone."""
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _days(at: datetime) -> float:
    """Return a time as MJD."""
    return at.timestamp() / 86400 + 40587


def _plane(exposure: Exposure | None, ids: Sequence[str]) -> tuple[Tile, ...]:
    """Return where the sections lie; of no size where that is not known, or nothing was observed."""
    return tuple(_tile(exposure, section) for section in ids)


def _tile(exposure: Exposure | None, section: str) -> Tile:
    if exposure is not None:
        section_id = get_instrument_instance(exposure.instrument).section_id_of(section)
        names = ("offset_x", "offset_y", "size_x", "size_y")
        values = [exposure.get_property(section_id, name) for name in names]
        if None not in values:
            return Tile(section, *map(float, values))
    return Tile(section, 0.0, 0.0, 0.0, 0.0)


def _problems(walked: dict[tuple[str, str], _Walked]) -> tuple[Problem, ...]:
    groups: dict[tuple[str, str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for (exposure, section), found in walked.items():
        fate, row = found.end()
        if row is not None:
            groups[fate, row.step, row.reason].append((exposure, section, row.message))
        for step, bit in _first_flags(found):
            name = (bit.name or "").lower()
            groups["flagged", step, name].append((exposure, section, QUALITY_MEANINGS[bit]))
    order = sorted(groups, key=lambda key: (_WORST.index(key[0]), -len(groups[key]), key))
    return tuple(Problem(*key, tuple(groups[key])) for key in order)


def _first_flags(found: _Walked) -> list[tuple[str, QualityFlag]]:
    """Return what is bad about a section's products, each with the first step that it shows at."""
    seen, result = int(QualityFlag.RELATIVE), []
    for step in STEPS:
        new = found.flags.get(step.name, 0) & ~seen
        seen |= new
        result += [(step.name, bit) for bit in QUALITY_MEANINGS if new & bit]
    return result


# --- What changed ---------------------------------------------------------------------------------


def last_night(settings: Settings, instrument: str) -> str:
    """Return the date of an instrument's last night with science exposures, YYYY-MM-DD.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    query = select(Exposure.night).where(*_science(instrument)).order_by(Exposure.night.desc()).limit(1)
    with use_settings(settings), open_session(settings, read_only=True) as session:
        found = session.scalar(query)
    if found is None:
        raise NotFoundError(f"there are no science exposures of {instrument}", cure="seechange ingest FILES")
    return found


class NightState(NamedTuple):
    """A night, and a word that changes whenever anything that is told of it does."""

    night: str
    version: str


def recent_nights(settings: Settings, instrument: str, registered_since: datetime) -> list[NightState]:
    """Return the nights of science exposures registered since, the earliest first, with their states.

    It counts rows by their keys, and costs little however long the survey.
    """
    with use_settings(settings), open_session(settings, read_only=True) as session:
        query = select(Exposure.night).where(
            Exposure.id >= _first_id(registered_since),  # ids are in the order of time
            *_science(instrument),
        )
        nights = sorted(set(session.scalars(query)))
    return [NightState(night, night_version(settings, instrument, night)) for night in nights]


def night_version(settings: Settings, instrument: str, night: str) -> str:
    """Return a word that changes whenever anything that is told of a night does."""
    of_night = _of_night(instrument, night)
    queries = (
        select(func.count(), func.max(Exposure.created_at)).where(*of_night),
        select(func.count(), func.max(StepOutcome.updated_at), func.sum(StepOutcome.seconds))
        .join(Exposure, Exposure.id == StepOutcome.exposure_id)
        .where(*of_night),
        select(func.count(), func.max(Verdict.created_at)),
        select(func.count(), func.max(IncomingFile.settled_at)).where(
            IncomingFile.instrument == instrument, IncomingFile.state.in_(["waiting", "refused"])
        ),
    )
    with use_settings(settings), open_session(settings, read_only=True) as session:
        current = sorted(key.id for key in provenances(settings, instrument).values())
        counts = [list(map(str, session.execute(query).one())) for query in queries]
    return digest(current, counts)


def _first_id(moment: datetime) -> uuid.UUID:
    """Return the first id that a row made at a time can have (see `new_id`)."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)
