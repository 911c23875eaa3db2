"""Questions people ask of the survey: what exists, and what is outdated."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from seechange_core.chain.lineage import provenances
from seechange_core.chain.outcome import Outcome, StepReport
from seechange_core.chain.quality import flagged
from seechange_core.chain.steps import STEPS
from seechange_core.errors import NotFoundError
from seechange_core.flags import ExposureFlag, QualityFlag, names
from seechange_core.instrument import get_instrument_instance
from seechange_core.products.base import chunks
from seechange_core.products.exposure import Exposure
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.verdict import Verdict
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.judge import flags_of_stop
from seechange_core.storage.engine import open_session


def exposures(
    settings: Settings,
    names: Sequence[str] | None = None,
    instrument: str | None = None,
    *,
    night: str | None = None,
    with_bad: bool = False,
) -> list[Exposure]:
    """Return science exposures, the earliest first: without those marked bad unless they are wanted.

    Raises
    ------
    NotFoundError
        Naming an exposure asked for that does not exist, or is marked bad.
    """
    query = select(Exposure).where(Exposure.type == "science").order_by(Exposure.mjd)
    if names is not None:
        query = query.where(Exposure.name.in_(list(names)))
    if instrument is not None:
        query = query.where(Exposure.instrument == instrument)
    if night is not None:
        query = query.where(Exposure.night == night)
    with use_settings(settings), open_session(settings, read_only=True) as session:
        found = list(session.scalars(query))
    bad = [row for row in found if row.bitflag & ExposureFlag.MARKED_BAD and not with_bad]
    if bad and names is not None:
        raise NotFoundError(
            f"marked bad: {bad[0].bad_reason or 'no reason was given'}",
            exposure=", ".join(row.name for row in bad),
            cure="seechange mark NAME --as good --reason ..., if it is not",
        )
    found = [row for row in found if row not in bad]
    unknown = sorted(set(names or ()) - {row.name for row in found})
    if unknown:
        raise NotFoundError(
            "no such science exposure", exposure=", ".join(unknown), cure="`seechange show` lists them"
        )
    return found


def nights_of(settings: Settings, instrument: str, names: Sequence[str]) -> dict[str, str]:
    """Return the nights of an instrument's exposures, by name; names that are not known are left out."""
    query = select(Exposure.name, Exposure.night).where(Exposure.instrument == instrument)
    found: dict[str, str] = {}
    with use_settings(settings), open_session(settings, read_only=True) as session:
        for some in chunks(names):
            found |= {row.name: row.night for row in session.execute(query.where(Exposure.name.in_(some)))}
    return found


def known_reports(settings: Settings, exposure: str) -> list[StepReport]:
    """Return what the database knows of an exposure under the present settings, as the walk would report it.

    Raises
    ------
    NotFoundError
        If there is no such exposure.
    """
    (row,) = exposures(settings, [exposure], with_bad=True)
    present = {key.id for key in provenances(settings, row.instrument).values()}
    query = select(StepOutcome).where(
        StepOutcome.exposure_id == row.id, StepOutcome.provenance_id.in_(present)
    )
    with use_settings(settings), open_session(settings, read_only=True) as session:
        bits = flagged(session, [exposure])
        rows = list(session.scalars(query))
    order = {step.name: n for n, step in enumerate(STEPS)}
    rows.sort(key=lambda o: (o.section_id, order.get(o.step, len(order))))
    return [_report(exposure, o, bits.get((o.step, o.data_version), 0)) for o in rows if o.step in order]


def _report(exposure: str, row: StepOutcome, bits: int) -> StepReport:
    is_done = row.status == Outcome.DONE
    return StepReport(
        exposure=exposure,
        section=row.section_id,
        step=row.step,
        outcome=Outcome.LOADED if is_done else Outcome(row.status),
        reason=row.reason,
        message=row.message,
        seconds=row.seconds,
        code_version=row.provenance_id,
        data_version=row.data_version,
        metrics={k: float(v) for k, v in row.metrics.items() if v is not None},
        bitflag=bits if is_done else int(flags_of_stop(row.step, row.reason)),
    )


@dataclass(frozen=True)
class NightRow:
    """A night in which an instrument took science exposures.

    Attributes
    ----------
    night
        YYYY-MM-DD.
    n_exposures
        How many, those marked bad included.
    """

    instrument: str
    night: str
    n_exposures: int


def nights(settings: Settings) -> list[NightRow]:
    """List the nights of which there are science exposures, the last first."""
    query = (
        select(Exposure.instrument, Exposure.night, func.count())
        .where(Exposure.type == "science")
        .group_by(Exposure.instrument, Exposure.night)
        .order_by(Exposure.night.desc(), Exposure.instrument)
    )
    with use_settings(settings), open_session(settings, read_only=True) as session:
        return [NightRow(*row) for row in session.execute(query)]


@dataclass(frozen=True)
class StatusRow:
    """What became of one step of one section under one provenance.

    Attributes
    ----------
    outdated
        It was made, and the present settings would make it differently and have not done so yet; never of a
        section that the camera no longer has.
    current
        Made under the present settings.
    quality
        Names of the `QualityFlag` bits of its product, or of those that the reason of a stop stands for; of
        the step ``exposure``, ``marked_bad`` where a person called the section or the exposure bad.
    """

    exposure: str
    section: str
    step: str
    status: str
    reason: str
    message: str
    provenance: str
    outdated: bool
    current: bool
    metrics: dict[str, float] = field(default_factory=dict)
    quality: tuple[str, ...] = ()


def status(settings: Settings, exposures: Sequence[str] | None = None) -> list[StatusRow]:
    """Tell what exists, by exposure, section and step, one row for each provenance that made it."""
    query = (
        select(Exposure.name, Exposure.instrument, StepOutcome)
        .join(StepOutcome, StepOutcome.exposure_id == Exposure.id)
        .order_by(Exposure.mjd, StepOutcome.section_id, StepOutcome.id)
    )
    if exposures is not None:
        query = query.where(Exposure.name.in_(list(exposures)))
    with use_settings(settings), open_session(settings, read_only=True) as session:
        rows = list(session.execute(query))
        bits = flagged(session, exposures)
        bits |= {("exposure", version): int(QualityFlag.MARKED_BAD) for version in _called_bad(session, rows)}
        current = {
            instrument: {name: key.id for name, key in provenances(settings, instrument).items()}
            for instrument in {row[1] for row in rows}
        }
        sections = {i: {str(s) for s in get_instrument_instance(i).get_section_ids()} for i in current}
    made = {(n, o.section_id, o.step) for n, i, o in rows if current[i].get(o.step) == o.provenance_id}
    order = {step.name: n for n, step in enumerate(STEPS)}
    settled = made | {(n, o.section_id, o.step) for n, i, o in rows if o.section_id not in sections[i]}
    result = [_status_row(name, o, current[instrument], settled, bits) for name, instrument, o in rows]
    rank = {name: n for n, name in enumerate(dict.fromkeys(row.exposure for row in result))}
    return sorted(result, key=lambda r: (rank[r.exposure], r.section, order.get(r.step, len(order))))


def _called_bad(session: Session, rows: Sequence[Row[str, str, StepOutcome]]) -> set[str]:
    """Return the data versions of the exposures' sections that a person called bad."""
    said = select(Verdict.exposure_id, Verdict.section_id)
    said = said.where(Verdict.word == "bad", Verdict.counts.is_(True), Verdict.exposure_id.is_not(None))
    bad = {(exposure_id, section) for exposure_id, section in session.execute(said)}
    return {
        o.data_version
        for *_, o in rows
        if o.step == "exposure" and not bad.isdisjoint({(o.exposure_id, ""), (o.exposure_id, o.section_id)})
    }


def _status_row(
    name: str,
    row: StepOutcome,
    current: dict[str, str],
    settled: set[tuple[str, str, str]],
    bits: dict[tuple[str, str], int],
) -> StatusRow:
    is_current = current.get(row.step) == row.provenance_id
    own = bits.get((row.step, row.data_version), 0) if row.status == "done" else 0
    flags = own or flags_of_stop(row.step, row.reason)
    return StatusRow(
        exposure=name,
        section=row.section_id,
        step=row.step,
        status=row.status,
        reason=row.reason,
        message=row.message,
        provenance=row.provenance_id,
        outdated=not is_current and (name, row.section_id, row.step) not in settled,
        current=is_current,
        metrics={k: float(v) for k, v in row.metrics.items() if v is not None},
        quality=tuple(names(flags, QualityFlag)),
    )
