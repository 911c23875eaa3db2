"""Take one section of one exposure through the steps, and say truly what became of each."""

import logging
import resource
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import delete

from seechange_core.chain.lineage import record_provenances
from seechange_core.chain.objects import release_replaced
from seechange_core.chain.outcome import Outcome, StepReport
from seechange_core.chain.pictures import preview_path, read_preview, write_preview
from seechange_core.chain.quality import bits_of
from seechange_core.chain.section import Section
from seechange_core.chain.step import Made, Step
from seechange_core.chain.steps import STEPS
from seechange_core.errors import (
    DatabaseBusyError,
    NotFoundError,
    PipelineError,
    SeeChangeError,
    Stop,
    UserError,
)
from seechange_core.kernel_cache import mark_warm
from seechange_core.products.outcome import StepOutcome, make_newest, record_outcome
from seechange_core.provenance import digest
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.judge import flags_of_stop
from seechange_core.storage.engine import open_session

log = logging.getLogger(__name__)
T = TypeVar("T")
#: So often is done again what others were in the way of in the database.
_ATTEMPTS = 3


def walk(
    settings: Settings,
    exposure_name: str,
    section_id: str,
    steps: Sequence[str] | None = None,
    redo: bool = False,
) -> list[StepReport]:
    """Walk one section through the chain.

    A step whose product is there and whose inputs have not changed is loaded, not made again. The
    first step that stops or fails ends the walk: later ones are reported as skipped. Nothing that
    goes wrong in one section leaves this function as an exception, so that its neighbours go on.

    Parameters
    ----------
    settings
        Sent along to worker processes.
    exposure_name, section_id
        Which section.
    steps
        Names of the steps to run; None for all. Those before them must have been made.
    redo
        Make the named steps again even if nothing changed.

    Returns
    -------
    list of StepReport
        One for each step asked for, in the order of the chain.
    """
    wanted = [step for step in STEPS if steps is None or step.name in steps]
    with use_settings(settings):
        try:
            section = Section.open(settings, exposure_name, section_id)
            _patient(lambda: record_provenances(settings, section.exposure.instrument))
        except Exception as error:  # noqa: BLE001 - the neighbours of a broken section must go on
            return _nothing_ran(exposure_name, section_id, wanted, error)
        reports = _walk(section, wanted, redo)
        if reports and (reports[-1].step, reports[-1].outcome) == (STEPS[-1].name, Outcome.DONE):
            mark_warm()
        try:
            _patient(lambda: release_replaced(section))
        except Exception:  # the next walk of the section tries again
            log.exception("objects keep what %s/%s no longer shows", exposure_name, section_id)
        return reports


def _walk(section: Section, wanted: list[Step], redo: bool) -> list[StepReport]:
    reports: list[StepReport] = []
    for step in STEPS[: STEPS.index(wanted[-1]) + 1] if wanted else ():
        report = _run(section, step, redo=redo and step in wanted, only_load=step not in wanted)
        if step in wanted:
            reports.append(report)
        if not report.outcome.has_product:
            done = {r.step for r in reports}
            left = [s for s in wanted if s.name not in done]
            if step not in wanted and report.outcome is Outcome.FAILED:
                # What was asked for cannot be had, and nobody else will say so.
                reports.append(replace(report, step=left.pop(0).name, code_version="", data_version=""))
            reports += [_skipped(section, s, report) for s in left]
            break
    return reports


def _run(section: Section, step: Step, *, redo: bool, only_load: bool) -> StepReport:
    """Run one step, or load what it made before; record the outcome."""
    start = time.perf_counter()
    version, past = "", None
    section.redo = redo
    try:
        past = _past(section, step)
        version = section.versions[step.name] = data_version(section, step)
        if past is not None and past.data_version == version and not redo:
            if not past.is_newest:
                _patient(lambda: _prefer(section, past))
            if past.status == Outcome.STOPPED:
                return _again(section, step, past)
            if past.status == Outcome.DONE and step.is_there(section):
                return _judged(section, step, _again(section, step, past), {step.name})
        if only_load:
            raise NotFoundError(
                f"its {step.name} has not been made under the present settings",
                cure=f"process it through {step.name} first",
            )
        made = _patient(lambda: step.make(section))
        return _done(section, step, made, version, start, past)
    except Exception as error:
        outcome = Outcome.STOPPED if isinstance(error, Stop) else Outcome.FAILED
        if not isinstance(error, SeeChangeError | FileNotFoundError):
            log.exception("%s of %s/%s", step.name, section.exposure.name, section.section)
        report = _ended(section, step, outcome, error, version, time.perf_counter() - start)
        # Settings that leave open what to use say nothing of what is there.
        undecided = not version and isinstance(error, UserError)
        if not only_load and not (undecided and past is not None):
            try:
                _judged(section, step, report, _patient(lambda: _record(section, report, past)))
            except Exception:  # the report says what went wrong first
                log.exception("the outcome of %s/%s", section.exposure.name, section.section)
        return report


def data_version(section: Section, step: Step) -> str:
    """Hash a step's provenance, the products it reads and the other rows it would use."""
    return digest(
        section.provenance_id(step.name),
        section.exposure.name,
        section.exposure.checksum,
        section.section,
        [section.versions[name] for name in step.needs],
        list(step.uses(section)),
    )


def _patient(work: Callable[[], T]) -> T:
    """Do what writes to the database, and do it again if others were in its way."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return work()
        except DatabaseBusyError as error:
            log.warning("trying again: %s", error.message)
    return work()


def _past(section: Section, step: Step) -> StepOutcome | None:
    with open_session(section.settings, read_only=True) as session:
        return StepOutcome.find(
            session, section.exposure.id, section.section, step.name, section.provenance_id(step.name)
        )


def _prefer(section: Section, past: StepOutcome) -> None:
    """Note that an older version is the one in use again: the settings are as they were."""
    with open_session(section.settings) as session:
        make_newest(session, past)


def _done(
    section: Section, step: Step, made: Made, version: str, start: float, past: StepOutcome | None
) -> StepReport:
    seconds = time.perf_counter() - start
    metrics = {**made.metrics, "seconds": round(seconds, 3), "peak_mb": round(peak_mb(), 1)}
    if made.preview is not None:
        write_preview(section.archive, preview_path(section, step.name, version), made.preview)
    report = StepReport(
        exposure=section.exposure.name,
        section=section.section,
        step=step.name,
        outcome=Outcome.DONE,
        message=made.words,
        seconds=seconds,
        code_version=section.provenance_id(step.name),
        data_version=version,
        metrics=metrics,
        preview=made.preview,
        product_id=made.product_id,
        path=made.path,
        bitflag=made.bitflag,
    )
    changed = _patient(lambda: _record(section, report, past))
    return _judged(section, step, report, changed)


def _judged(section: Section, step: Step, report: StepReport, changed: set[str]) -> StepReport:
    """Let who judges many sections together do so, and complete the report of a product by that.

    A judgement that fails leaves the product good and its outcome as recorded: when the step is loaded next,
    it is judged again.
    """
    try:
        for judge in STEPS:
            if judge.after is not None and judge.name in changed:
                judge.after(section)
        if step.after is None or not report.outcome.has_product:
            return report
        now = _past(section, step)
        with open_session(section.settings, read_only=True) as session:
            bits = bits_of(session, step.name, report.data_version)
    except Exception as error:
        known = placed(error, section.exposure.name, section.section)
        log.exception("%s is kept, but was not judged with its night: %s", step.name, known)
        return report
    if now is None:
        return replace(report, bitflag=bits)
    # What was recorded, and what the judges have added to it or taken away.
    return replace(report, metrics={k: v for k, v in now.metrics.items() if v is not None}, bitflag=bits)


def _again(section: Section, step: Step, past: StepOutcome) -> StepReport:
    """Report what the database knows of a step that need not run again."""
    if past.status == Outcome.DONE:
        with open_session(section.settings, read_only=True) as session:
            bits = bits_of(session, step.name, past.data_version)
    else:
        bits = int(flags_of_stop(step.name, past.reason))
    return StepReport(
        exposure=section.exposure.name,
        section=section.section,
        step=step.name,
        outcome=Outcome.LOADED if past.status == Outcome.DONE else Outcome.STOPPED,
        reason=past.reason,
        message=past.message,
        code_version=past.provenance_id,
        data_version=past.data_version,
        metrics={k: float(v) for k, v in past.metrics.items() if v is not None},
        preview=read_preview(section.archive, preview_path(section, step.name, past.data_version)),
        bitflag=bits,
    )


def _ended(
    section: Section, step: Step, outcome: Outcome, error: Exception, version: str, seconds: float
) -> StepReport:
    """Report a stop or a failure."""
    error = placed(error, section.exposure.name, section.section)
    return StepReport(
        exposure=section.exposure.name,
        section=section.section,
        step=step.name,
        outcome=outcome,
        reason=error.reason,
        message=str(error),
        seconds=seconds,
        code_version=section.provenance_id(step.name),
        data_version=version,
        bitflag=int(flags_of_stop(step.name, error.reason)),
    )


def _record(section: Section, report: StepReport, past: StepOutcome | None) -> set[str]:
    """Record an outcome; what was made from another version of this product is no longer the present one.

    Those later steps have no outcome until they have run again, however this walk may end. Returns the
    names of the steps whose outcome is another now. Who judges many sections together does so when all this
    is in the database: of two at once, the later one sees both.
    """
    row = StepOutcome(
        exposure_id=section.exposure.id,
        section_id=section.section,
        step=report.step,
        provenance_id=report.code_version,
        status=report.outcome.value,
        reason=report.reason,
        message=report.message,
        seconds=report.seconds,
        data_version=report.data_version,
        metrics=report.metrics,
    )
    changed = {report.step}
    with open_session(section.settings) as session:
        record_outcome(session, row)
        if past is not None and past.data_version != report.data_version:
            changed |= _later(report.step)
            session.execute(
                delete(StepOutcome).where(
                    StepOutcome.exposure_id == section.exposure.id,
                    StepOutcome.section_id == section.section,
                    StepOutcome.provenance_id.in_([section.provenance_id(s) for s in _later(report.step)]),
                )
            )
    return changed


def _later(name: str) -> set[str]:
    """Name the steps that build on a step, directly or not."""
    later = {name}
    for step in STEPS:
        if later.intersection(step.needs):
            later.add(step.name)
    return later - {name}


def placed(error: Exception, exposure: str, section: str | None) -> SeeChangeError:
    """Return an error of ours that names the exposure and section, also for a foreign one."""
    if not isinstance(error, SeeChangeError):
        kind = type(error).__name__
        lost = isinstance(error, FileNotFoundError)
        error = (NotFoundError if lost else PipelineError)(
            f"{kind}: {textwrap.shorten(str(error).partition('[SQL')[0], 300)}",
            cure="restore the file, or process again" if lost else "run again with --debug and report it",
        )
    if error.exposure is None:
        error.exposure = exposure
    if error.section is None:
        error.section = section
    return error


def _skipped(section: Section, step: Step, because: StepReport) -> StepReport:
    return StepReport(
        exposure=section.exposure.name,
        section=section.section,
        step=step.name,
        outcome=Outcome.SKIPPED,
        reason=because.reason,
        message=f"not attempted: its {because.step} {because.outcome}",
    )


def _nothing_ran(exposure: str, section: str, steps: Sequence[Step], error: Exception) -> list[StepReport]:
    """Report a section that could not even be opened: the first step failed, the others were not tried."""
    known = placed(error, exposure, section)
    return [
        StepReport(
            exposure=exposure,
            section=section,
            step=step.name,
            outcome=Outcome.SKIPPED if n else Outcome.FAILED,
            reason=known.reason,
            message=f"not attempted: its {steps[0].name} failed" if n else str(known),
        )
        for n, step in enumerate(steps)
    ]


def peak_mb() -> float:
    """Return the largest memory this process has used, MB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1024 if sys.platform != "darwin" else 1024**2)
