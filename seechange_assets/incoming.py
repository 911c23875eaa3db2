"""Incoming data: a sensor for each instrument that is told where its raw files arrive, and what it shows.

Every few seconds it registers the files that are complete, adds the science exposures to the partitions and
starts a run for each; one that masters on their way will serve waits for these. What became of each file is
in the science database, so nothing is lost or done twice whenever the daemon is ended; the sensor's cursor
only says up to which arrival runs were asked for, and a run's key is that of its exposure.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from seechange_assets import partitions
from seechange_assets.calibrators import dimension, partition
from seechange_assets.chain import asset_key
from seechange_assets.display import table
from seechange_assets.partitions import quiet
from seechange_assets.schedules import LOOK_BACK, choose
from seechange_core import chain as core
from seechange_core.settings import Settings
from seechange_core.storage.orm import now

NAME = "incoming"
CHECK = "all_accepted"
EVERY_S = 10
#: A look ends so long after it began, but for the file at hand: Dagster ends a sensor after a minute.
LOOK_S = 25.0
RUN_KEY_TAG = "dagster/run_key"
#: Rows of two writers may come a little out of order.
OVERLAP = timedelta(seconds=30)
#: Runs asked for at once; the others at the next tick.
MOST_RUNS = 20
#: Keys in one question to Dagster's storage.
KEYS_AT_ONCE = 500
#: Files that were set aside, shown in the web UI.
ROWS_SHOWN = 100
LINES_SHOWN = 3


def incoming_asset(own: Settings, instrument: str) -> dg.AssetsDefinition:
    """Make the asset that stands for an instrument's incoming files: to look at, and to try again from."""
    key = asset_key(instrument, NAME)
    with quiet():
        check = dg.AssetCheckSpec(CHECK, asset=key, description="Whether no file had to be set aside.")

    @dg.multi_asset(
        name=f"{instrument}_{NAME}",
        specs=[
            dg.AssetSpec(
                key,
                description="Raw files that arrived and what became of them. Materializing it tries those "
                "again that were set aside, and looks for new ones.",
                group_name=instrument,
                kinds={"fits", "source"},
                metadata={"places": list(own.incoming[instrument].places)},
            )
        ],
        check_specs=[check],
    )
    def look_again(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        core.retry_incoming(settings, instrument)
        found = core.take_in(settings, instrument, seconds=3600)
        _show_partitions(context.instance, settings, instrument, found)
        refused = core.list_incoming(settings, instrument, ["refused"])
        check = dg.AssetCheckResult(asset_key=key, check_name=CHECK, **_verdict(refused))
        yield dg.MaterializeResult(asset_key=key, metadata=_figures(found, refused), check_results=[check])

    return look_again


def incoming_sensor(own: Settings, instrument: str, sections: Sequence[str]) -> dg.SensorDefinition:
    """Make the sensor that watches where an instrument's raw files arrive."""
    key = asset_key(instrument, NAME)

    @dg.sensor(
        name=f"{instrument}_incoming_sensor",
        job_name=f"{instrument}_process",
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Registers {instrument}'s raw files as they arrive, and starts a run for each exposure.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        found = core.take_in(own, instrument, LOOK_S)
        _show_partitions(context.instance, own, instrument, found)
        refused = core.list_incoming(own, instrument, ["refused"])
        since = datetime.fromisoformat(context.cursor) if context.cursor else now() - LOOK_BACK
        requests, cursor, waiting = _ask(context.instance, own, instrument, sections, since)
        events: list[Any] = []
        if found.registered or found.refused:
            events = [
                dg.AssetMaterialization(key, metadata=_figures(found, refused)),
                dg.AssetCheckEvaluation(asset_key=key, check_name=CHECK, **_verdict(refused)),
            ]
        result = dg.SensorResult(run_requests=requests, cursor=cursor.isoformat(), asset_events=events)
        if requests or events:
            return result
        words = _words(found, len(refused), waiting)
        return dg.SensorResult(skip_reason=words, cursor=cursor.isoformat())

    return watch


def _show_partitions(
    instance: dg.DagsterInstance, settings: Settings, instrument: str, found: core.Arrivals
) -> None:
    """Add what was registered to the partitions; of calibration frames, the masters they are for."""
    rows = [result.exposure for result in found.registered]
    science = [row.name for row in rows if row.type == "science"]
    partitions.register(instance, instrument, "exposure", science)
    if len(science) < len(rows):
        names: dict[str, list[str]] = {}
        for key in core.master_keys(settings, instrument):
            names.setdefault(dimension(key[0]), []).append(partition(*key))
        for dim, keys in names.items():
            partitions.register(instance, instrument, dim, keys)


def _ask(
    instance: dg.DagsterInstance,
    settings: Settings,
    instrument: str,
    sections: Sequence[str],
    since: datetime,
) -> tuple[list[dg.RunRequest], datetime, int]:
    """Request runs for exposures that arrived; those whose masters are on their way wait.

    Returns
    -------
    tuple
        The requests, up to when all that arrived is settled, and how many wait.
    """
    arrivals = core.arrived(settings, instrument, since - OVERLAP)
    asked = _asked(instance, arrivals)
    coming = _nights_in_the_making(instance, settings, instrument) if arrivals else set()
    requests: list[dg.RunRequest] = []
    cursor, waiting = since, 0
    for exposure in arrivals:
        if _run_key(exposure) not in asked:
            served_by = core.nights_serving(settings, instrument, [exposure.name]) if coming else ()
            if coming.intersection(served_by) or len(requests) >= MOST_RUNS:
                waiting += 1
                continue
            requests.append(_request(exposure, sections))
        if not waiting:
            cursor = max(cursor, exposure.at)
    return requests, cursor, waiting


def _run_key(exposure: core.Arrived) -> str:
    """Name the run over an exposure as it came: one that is completed later gets another."""
    return f"incoming {exposure.name} {exposure.version}"


def _asked(instance: dg.DagsterInstance, exposures: Sequence[core.Arrived]) -> set[str]:
    """Return the keys of those of some exposures' runs that were requested already."""
    keys = [_run_key(exposure) for exposure in exposures]
    asked: set[str] = set()
    for start in range(0, len(keys), KEYS_AT_ONCE):
        tags = {RUN_KEY_TAG: keys[start : start + KEYS_AT_ONCE]}
        asked |= {run.tags[RUN_KEY_TAG] for run in instance.get_runs(dg.RunsFilter(tags=tags))}
    return asked


def _nights_in_the_making(instance: dg.DagsterInstance, settings: Settings, instrument: str) -> set[str]:
    """Return the nights of masters that the schedule will build, or is building."""
    moment = now()
    wanted = list(core.look_for_masters(settings, instrument, registered_since=moment - LOOK_BACK))
    *_, pending = choose(instance, instrument, wanted, moment)
    return {master.key[1] for master in pending}


def _request(exposure: core.Arrived, sections: Sequence[str]) -> dg.RunRequest:
    first, last = (partitions.key(exposure=exposure.name, section=s) for s in (sections[0], sections[-1]))
    return dg.RunRequest(
        run_key=_run_key(exposure),
        tags={
            "seechange/exposure": exposure.name,
            partitions.RANGE_START: first,
            partitions.RANGE_END: last,
        },
    )


def _words(found: core.Arrivals, refused: int, waiting: int) -> str:
    """Say in one line why there is nothing to do."""
    words = [f"{place}: {why}" for place, why in found.silent.items()]
    if found.waiting:
        words.append(f"{found.waiting} files are not complete yet")
    if waiting:
        words.append(f"{waiting} exposures wait for their masters")
    if refused:
        words.append(f"{refused} files were set aside (seechange incoming list)")
    return "; ".join(words) or "nothing new"


def _figures(found: core.Arrivals, refused: Sequence[core.IncomingRow]) -> dict[str, Any]:
    rows = [{"file": row.address, "reason": row.reason, "message": row.message} for row in refused]
    types = [result.exposure.type for result in found.registered]
    figures = {
        "science": types.count("science"),
        "calibration": len(types) - types.count("science"),
        "waiting": found.waiting,
        "set_aside": len(refused),
    }
    return {
        **figures,
        **({"files_set_aside": table(rows[-ROWS_SHOWN:])} if rows else {}),
        **({"places_silent": dg.MetadataValue.json(found.silent)} if found.silent else {}),
    }


def _verdict(refused: Sequence[core.IncomingRow]) -> dict[str, Any]:
    return {
        "passed": not refused,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": "; ".join(row.message for row in refused[-LINES_SHOWN:]) or None,
        "metadata": {"set_aside": len(refused)},
    }
