"""The night at a glance: a page of each night, made again when something of the night has changed.

A schedule looks every half hour at the nights whose exposures were registered of late. What a report was made
of is its data version, so a question to the database tells whether there is anything new to say; while a
night is being observed and processed its report grows, and in the morning it is that of the whole night.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

from seechange_assets import partitions
from seechange_assets.chain import asset_key
from seechange_assets.display import DIGITS, embedded, table
from seechange_assets.partitions import quiet
from seechange_assets.schedules import ATTEMPTS, FINISHED, UNFINISHED
from seechange_core import chain as core
from seechange_core.settings import Settings

NAME = "night_report"
CHECK = "night_complete"
#: The dynamic set of a report's partitions: nights of science exposures; masters have nights of their own.
DIMENSION = "science_night"
#: Whose products a report tells of.
NEEDS = ("zero_point", "measurement", "forced_photometry")
EVERY = "*/30 * * * *"
#: Nights of which nothing was registered for so long are left alone; `seechange report` makes any.
LOOK_BACK = timedelta(days=3)
TAG, VERSION_TAG = "seechange/night_report", "dagster/data_version"
LINES_SHOWN = 20


def report_asset(instrument: str) -> dg.AssetsDefinition:
    """Make the asset that is an instrument's reports, one for each night."""
    key = asset_key(instrument, NAME)
    nights = partitions.by_night(instrument, DIMENSION)
    with quiet():
        check = dg.AssetCheckSpec(
            CHECK, asset=key, partitions_def=nights, description="Whether no section of the night failed."
        )

    @dg.multi_asset(
        name=f"{instrument}_{NAME}",
        specs=[
            dg.AssetSpec(
                key,
                deps=[
                    dg.AssetDep(asset_key(instrument, name), partition_mapping=partitions.by_query())
                    for name in NEEDS
                ],
                description="The night at a glance: trends, focal plane, what failed and why, and what "
                "changed, on one page that opens anywhere.",
                group_name=instrument,
                skippable=True,
                kinds={"html"},
            )
        ],
        check_specs=[check],
        partitions_def=nights,
    )
    def report_night(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.AssetCheckResult]:
        night = context.partition_key
        made = core.write_night_report(settings, instrument, night)
        # Logged, not returned: only so can it have a description, where the web UI shows pictures unasked.
        context.log_event(
            dg.AssetMaterialization(
                asset_key=key,
                partition=night,
                description=embedded(made.picture, "seeing and depth") if made.picture else None,
                metadata=_metadata(settings, instrument, night, made),
                tags={VERSION_TAG: made.version, f"{VERSION_TAG}_is_user_provided": "true"},
            )
        )
        yield _verdict(key, made)

    return report_night


def report_schedule(own: Settings, instrument: str) -> dg.ScheduleDefinition:
    """Make the schedule that keeps the reports of an instrument's latest nights up to date."""

    @dg.schedule(
        name=f"{instrument}_report_schedule",
        cron_schedule=EVERY,
        job_name=IMPLICIT_ASSET_JOB_NAME,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Makes the report of {instrument}'s last night, and again while anything changes.",
    )
    def report_nights(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        since = context.scheduled_execution_time - LOOK_BACK
        recent = core.recent_nights(own, instrument, since)
        wanted, waiting = choose(context.instance, instrument, recent)
        for state, attempt in wanted:
            partitions.register(context.instance, instrument, DIMENSION, [state.night])
            yield _request(instrument, state, attempt)
        if not wanted:
            yield dg.SkipReason(
                "; ".join(waiting) or f"no science exposure of {instrument} since {since:%Y-%m-%d}"
            )

    return report_nights


def choose(
    instance: dg.DagsterInstance, instrument: str, recent: Sequence[core.NightState]
) -> tuple[list[tuple[core.NightState, int]], list[str]]:
    """Choose the reports to make now.

    Parameters
    ----------
    instance
        Knows which there are, and which are being made.
    instrument, recent
        Nights, with what is to be told of them.

    Returns
    -------
    tuple
        The nights and the number of the attempt; and why the others have to wait, a line for each.
    """
    wanted: list[tuple[core.NightState, int]] = []
    waiting: list[str] = []
    for state in recent:
        tags = {TAG: f"{instrument}/{state.night}"}
        tried = instance.get_runs(
            dg.RunsFilter(tags={**tags, "seechange/version": state.version}, statuses=list(FINISHED))
        )
        if _told(instance, instrument, state.night) == state.version:
            waiting.append(f"{state.night} is told as it is")
        elif instance.get_runs_count(dg.RunsFilter(tags=tags, statuses=UNFINISHED)):
            waiting.append(f"{state.night} is being told")
        elif len(tried) >= ATTEMPTS:
            waiting.append(f"{state.night} was tried {len(tried)} times, and nothing has changed since")
        else:
            wanted.append((state, 1 + len(tried)))
    return wanted, waiting


def _told(instance: dg.DagsterInstance, instrument: str, night: str) -> str | None:
    """Return what the latest report of a night was made of."""
    which = dg.AssetRecordsFilter(asset_key=asset_key(instrument, NAME), asset_partitions=[night])
    records = instance.fetch_materializations(which, limit=1).records
    made = records[0].asset_materialization if records else None
    return None if made is None or made.tags is None else made.tags.get(VERSION_TAG)


def _request(instrument: str, state: core.NightState, attempt: int) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{NAME} {instrument} {state.night} {state.version} {attempt}",
        asset_selection=[asset_key(instrument, NAME)],
        partition_key=state.night,
        tags={TAG: f"{instrument}/{state.night}", "seechange/version": state.version},
    )


def _metadata(settings: Settings, instrument: str, night: str, made: core.WrittenReport) -> dict[str, Any]:
    """Show the headline, so that Dagster plots it over nights, and where the page is."""
    return {
        **{name: dg.MetadataValue.float(float(f"{v:.{DIGITS}g}")) for name, v in made.figures.items()},
        "page": dg.MetadataValue.url(f"{settings.pages_url}/report/{instrument}/{night}"),
        "report": dg.MetadataValue.path(str(settings.data_root / made.path)),
        "filters": table(made.filters),
    }


def _verdict(key: dg.AssetKey, made: core.WrittenReport) -> dg.AssetCheckResult:
    lines = [
        f"{problem.step}, {problem.reason}: {len(problem.places)} sections; the first: {problem.places[0][2]}"
        for problem in made.failures
    ]
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=CHECK,
        passed=not made.failures,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join(lines[:LINES_SHOWN]) or None,
        metadata={name: value for name, value in made.figures.items() if name.startswith("sections_")},
    )
