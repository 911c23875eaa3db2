"""The window: which exposures Dagster holds. The science database and the files keep all of them.

Dagster's pages get slow far beyond 100,000 partitions, so old nights are retired: their exposures leave the
partitions, and with them go the runs and events that were about them alone. `reopen` brings an exposure
back, with its statuses as the database has them.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

from seechange_assets import partitions
from seechange_assets.chain import asset_key, split
from seechange_assets.checks import evaluate
from seechange_assets.display import metadata
from seechange_assets.event_log import forget_runs
from seechange_assets.home import fail_abandoned_runs
from seechange_assets.schedules import FINISHED, UNFINISHED
from seechange_core import chain as core
from seechange_core.chain import StepReport
from seechange_core.settings import Settings

EVERY = "0 * * * *"
#: Runs of nothing in the window are kept so long, to be looked at.
KEEP_RUNS = timedelta(days=30)
#: Tags that say which partitions a run was over.
OVER = (partitions.RANGE_START, partitions.RANGE_END, "dagster/partition")
#: Runs looked at with one question.
RUNS_AT_ONCE = 500


def window_schedule(own: Settings, instrument: str, sections: Sequence[str]) -> dg.ScheduleDefinition:
    """Make the schedule that retires an instrument's old nights and forgets old runs; it starts none."""

    @dg.schedule(
        name=f"{instrument}_window_schedule",
        cron_schedule=EVERY,
        job_name=IMPLICIT_ASSET_JOB_NAME,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Retires {instrument}'s old nights from the web UI (settings: window), and forgets the "
        "runs that were about them. The database keeps everything; `seechange reopen` shows it again.",
    )
    def retire_nights(context: dg.ScheduleEvaluationContext) -> dg.SkipReason:
        fail_abandoned_runs(context.instance)
        names = retire(context.instance, own, instrument, len(sections))
        n_runs = purge(context.instance, instrument)
        return dg.SkipReason(f"{len(names)} exposures retired, {n_runs} old runs forgotten")

    return retire_nights


def in_window(instance: dg.DagsterInstance, instrument: str) -> list[str]:
    """Name the exposures that Dagster holds."""
    return list(instance.get_dynamic_partitions(partitions.set_name(instrument, "exposure")))


def retire(
    instance: dg.DagsterInstance,
    settings: Settings,
    instrument: str,
    n_sections: int,
    before: str | None = None,
) -> list[str]:
    """Take old exposures out of the partitions, and what Dagster knows of them; those being worked on stay.

    Parameters
    ----------
    instance, settings, instrument
        Whose.
    n_sections
        How many sections each exposure has.
    before
        Nights before this one (YYYY-MM-DD) are old; None goes by the settings' `window`.

    Returns
    -------
    list of str
        Names of the exposures that were retired.
    """
    names = in_window(instance, instrument)
    nights = core.nights_of(settings, instrument, names)
    if before is None:
        before = _first_night(nights.values(), settings, n_sections)
    busy = _in_progress(instance)
    # What the database does not know was registered in another one: nobody can work on it.
    old = [name for name in names if nights.get(name, "") < before and name not in busy]
    if old:
        forget_runs(instance, [run.run_id for run in _runs_over(instance, old)])
        for name in old:
            instance.delete_dynamic_partition(partitions.set_name(instrument, "exposure"), name)
        _look_again(instance, instrument)
    return old


def reopen(
    instance: dg.DagsterInstance, settings: Settings, instrument: str, names: Sequence[str]
) -> list[StepReport]:
    """Bring exposures back into the partitions, with what became of each section as the database has it.

    Raises
    ------
    NotFoundError
        If there is no such exposure.
    """
    reports = [report for name in names for report in core.known_reports(settings, name)]
    partitions.register(instance, instrument, "exposure", names)
    for report in reports:
        key = asset_key(instrument, report.step)
        partition = str(partitions.key(exposure=report.exposure, section=report.section))
        if report.outcome.has_product:
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    key,
                    partition=partition,
                    metadata=metadata(key, partition, report, settings.data_root, ""),
                    tags={
                        "dagster/data_version": report.data_version,
                        "dagster/data_version_is_user_provided": "true",
                        "dagster/code_version": report.code_version,
                    },
                )
            )
        instance.report_runless_asset_event(evaluate(key, partition, report, None))
    return reports


def purge(instance: dg.DagsterInstance, instrument: str, older: timedelta = KEEP_RUNS) -> int:
    """Forget finished runs that are old and about nothing in the window, and return how many.

    Runs over exposures in the window stay: their events are what tells these exposures' statuses.
    """
    shown = set(in_window(instance, instrument))
    filters = dg.RunsFilter(statuses=list(FINISHED), created_before=datetime.now(UTC) - older)
    forgotten, cursor = 0, None
    while runs := instance.get_runs(filters, cursor=cursor, limit=RUNS_AT_ONCE):
        old = [run.run_id for run in runs if _is_of(run, instrument) and not shown.intersection(_over(run))]
        # A cursor must name a run that stays.
        cursor = next((run.run_id for run in reversed(runs) if run.run_id not in old), cursor)
        forget_runs(instance, old)
        forgotten += len(old)
    return forgotten


def _first_night(nights: Iterable[str], settings: Settings, n_sections: int) -> str:
    """Return the first night that stays."""
    counts: dict[str, int] = {}
    for night in nights:
        counts[night] = counts.get(night, 0) + n_sections
    if not counts:
        return ""
    latest = max(counts)
    first = (date.fromisoformat(latest) - timedelta(days=settings.window.nights - 1)).isoformat()
    total = 0
    for night in sorted(counts, reverse=True):
        total += counts[night]
        if night < first or (total > settings.window.max_partitions and night < latest):
            break
        last_that_stays = night
    return last_that_stays


def _in_progress(instance: dg.DagsterInstance) -> set[str]:
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    return {name for run in runs for name in _over(run)}


def _over(run: dg.DagsterRun) -> set[str]:
    """Return the first dimensions' keys, such as exposures, of the partitions that a run was over."""
    return {split(run.tags[tag])[0] for tag in OVER if tag in run.tags}


def _is_of(run: dg.DagsterRun, instrument: str) -> bool:
    if run.asset_selection:
        return all(key.path[0] == instrument for key in run.asset_selection)
    return run.job_name.startswith(f"{instrument}_")


def _runs_over(instance: dg.DagsterInstance, names: Sequence[str]) -> list[dg.DagsterRun]:
    """Return the finished runs that were over some exposures alone."""
    wanted, found = set(names), []
    filters = dg.RunsFilter(statuses=list(FINISHED))
    cursor = None
    while runs := instance.get_runs(filters, cursor=cursor, limit=RUNS_AT_ONCE):
        cursor = runs[-1].run_id
        found += [run for run in runs if _over(run) and _over(run) <= wanted]
    return found


def _look_again(instance: dg.DagsterInstance, instrument: str) -> None:
    """Have Dagster work out anew which partitions of the chain's assets there are."""
    for step in core.STEPS:
        instance.event_log_storage.wipe_asset_cached_status(asset_key(instrument, step.name))
