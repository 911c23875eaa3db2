"""Schedules: what is made without anybody asking.

Each instrument's schedule looks every two minutes for masters that new calibration frames allow, and
requests one run for each kind, night and filter, over all sections. It waits until the night's frames
have stopped coming, and builds on what is there: bias before dark before flats, one tick after another.
What failed by what its frames are is not tried again as long as they are the same; what failed for
another reason (a full disk, a worker that was killed, a run that was cancelled) is, a few times.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

from seechange_assets import partitions
from seechange_assets.calibrators import BY_ITS_FRAMES, dimension, job_name, partition, run_tags
from seechange_assets.chain import asset_key, split
from seechange_core import chain as core
from seechange_core.settings import Settings

EVERY = "*/2 * * * *"
#: A night's frames are in when none of its calibration frames was registered for so long.
QUIET = timedelta(minutes=15)
#: Nights of which nothing was registered for so long are left alone: new settings are no reason to make
#: the masters of years again; `seechange process` makes what it needs.
LOOK_BACK = timedelta(days=10)

#: Runs for the same master in the same state: what failed for a passing reason, or was ended by a person,
#: is tried so often.
ATTEMPTS = 3

FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in FINISHED]


def masters_schedule(own: Settings, instrument: str, sections: Sequence[str]) -> dg.ScheduleDefinition:
    """Make the schedule that builds an instrument's masters when a night's frames are in."""

    @dg.schedule(
        name=f"{instrument}_masters_schedule",
        cron_schedule=EVERY,
        # A job of its own could not have assets that are partitioned differently.
        job_name=IMPLICIT_ASSET_JOB_NAME,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Builds {instrument}'s master frames when the calibration frames of a night are in.",
    )
    def build_masters(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        now = context.scheduled_execution_time
        wanted = core.look_for_masters(own, instrument, registered_since=now - LOOK_BACK)
        requests, waiting, _ = choose(context.instance, instrument, wanted, now)
        for master in requests:
            attempt = 1 + len(_attempts(context.instance, instrument, master))
            name = partition(*master.key)
            partitions.register(context.instance, instrument, dimension(master.key[0]), [name])
            yield _request(instrument, master, sections, attempt)
        if not requests:
            yield dg.SkipReason(
                "; ".join(waiting) or "every master that the registered frames allow is there"
            )

    return build_masters


def choose(
    instance: dg.DagsterInstance, instrument: str, wanted: Iterable[core.WantedMaster], now: datetime
) -> tuple[list[core.WantedMaster], list[str], list[core.WantedMaster]]:
    """Choose the masters to build now.

    Parameters
    ----------
    instance
        Knows which runs there are.
    instrument, wanted
        The masters that are not there.
    now
        Time of the tick.

    Returns
    -------
    tuple
        Those to build; why the others have to wait, a line for each; and all that need only time: those to
        build, those being built, and those that wait for their turn.
    """
    busy = _being_made(instance, instrument)
    requests, waiting = [], []
    pending: list[core.WantedMaster] = []
    for master in wanted:
        kind, label = master.key[0], partition(*master.key)
        if (kind, label) in busy:
            reason = "is being built"
        elif tried := _was_tried(instance, instrument, master):
            waiting.append(f"{kind} {label} was tried{tried}, and its frames have not changed")
            continue  # nothing waits for it
        elif now - master.frames_since < QUIET:
            reason = (
                f"waits until its night's frames are in: the last came at {master.frames_since:%H:%M} UTC"
            )
        elif before := next((p for p in pending if _builds_on(master, p)), None):
            reason = f"waits for {before.key[0]} {partition(*before.key)}"
        else:
            requests.append(master)
            pending.append(master)
            continue
        waiting.append(f"{kind} {label} {reason}")
        pending.append(master)
    return requests, waiting, pending


def _builds_on(master: core.WantedMaster, other: core.WantedMaster) -> bool:
    """Tell whether a master should wait for another one that is not there yet."""
    kind, night, band = master.key
    if other.key[0] not in core.BUILDS_ON[kind]:
        return False
    same = other.key[1] == night and other.key[2] in (None, band)
    return same or other.key[0] in master.lacking


def _being_made(instance: dg.DagsterInstance, instrument: str) -> set[tuple[str, str]]:
    """Return kind and partition of the masters that some unfinished run, of whoever asked, is making."""
    found: set[tuple[str, str]] = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        first = run.tags.get(partitions.RANGE_START) or run.tags.get("dagster/partition")
        for kind in core.BUILDS_ON if first else ():
            chosen = run.asset_selection
            if (
                asset_key(instrument, kind) in chosen
                if chosen
                else run.job_name == job_name(instrument, kind)
            ):
                found.add((kind, split(first or "")[0]))
    return found


def _was_tried(instance: dg.DagsterInstance, instrument: str, master: core.WantedMaster) -> str:
    """Tell whether another run would be in vain, by a word on how often it was tried; else empty.

    One run is enough that made all there was to make, or failed by what its frames are.
    """
    runs = _attempts(instance, instrument, master)
    judged = [run for run in runs if run.status is dg.DagsterRunStatus.SUCCESS or BY_ITS_FRAMES in run.tags]
    if judged:
        return " already"
    return f" {len(runs)} times" if len(runs) >= ATTEMPTS else ""


def _attempts(
    instance: dg.DagsterInstance, instrument: str, master: core.WantedMaster
) -> Sequence[dg.DagsterRun]:
    """Return the runs that have ended and were to make this master from this state."""
    tags = run_tags(instrument, master)
    return instance.get_runs(dg.RunsFilter(tags=tags, statuses=list(FINISHED)))


def _request(
    instrument: str, master: core.WantedMaster, sections: Sequence[str], attempt: int
) -> dg.RunRequest:
    kind, name = master.key[0], partition(*master.key)
    first, last = (
        partitions.key(**{dimension(kind): name, "section": section})
        for section in (sections[0], sections[-1])
    )
    return dg.RunRequest(
        run_key=f"{kind} {name} {master.version} {attempt}",
        asset_selection=[asset_key(instrument, kind)],
        tags={
            **run_tags(instrument, master),
            f"seechange/{dimension(kind)}": name,
            partitions.RANGE_START: first,
            partitions.RANGE_END: last,
        },
    )
