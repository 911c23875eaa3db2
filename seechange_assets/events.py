"""From reports of the core to events of Dagster: one place that decides what an operator sees.

A run covers many sections, and each has its own fate, so nothing is left to Dagster's own bookkeeping
of outputs: every asset and section that has its product is logged as materialized (also when it was
there already, or a failing neighbour would turn it red), with its own data version.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as Target,
)
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventType,
    StepMaterializationData,
)
from dagster._core.storage.partition_status_cache import AssetStatusCacheValue

from seechange_assets.checks import evaluate
from seechange_assets.display import metadata, picture, picture_page
from seechange_core.chain import Outcome, StepReport

#: Of the lines in a run's failure message; the checks have them all.
LINES_SHOWN = 20
#: Later than any event: Dagster then takes the input as unchanged.
EVER = 2**62


class Recorder:
    """Logs what became of each section of a run, and ends the run truthfully.

    Parameters
    ----------
    context
        Of the running asset.
    keys
        Asset keys by the core's step names: all that this run was asked for.
    needs
        Names of the steps that each step builds on.
    root
        Data root, to show full paths.
    pages
        Address of the server of full-size pictures; None for products that it has none of.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        keys: Mapping[str, dg.AssetKey],
        needs: Mapping[str, Sequence[str]],
        root: Path,
        pages: str | None = None,
    ) -> None:
        self._context = context
        self._keys = keys
        self._needs = needs
        self._root = root
        self._pages = pages
        self._failed: list[tuple[str, StepReport]] = []
        self._missing: list[tuple[str, StepReport]] = []

    def section(self, partition: str, reports: Sequence[StepReport], trace: str = "") -> None:
        """Log the reports of one partition."""
        if trace:
            self._context.log.error(f"{partition}\n{trace}")
        versions: dict[str, str] = {}
        for report in reports:
            if report.step not in self._keys:
                continue
            key = self._keys[report.step]
            if report.outcome.has_product:
                versions[report.step] = report.data_version
                self._materialize(key, partition, report, versions)
            elif report.outcome is Outcome.FAILED:
                self._failed.append((partition, report))
            else:
                self._missing.append((partition, report))
            if report.outcome is not Outcome.SKIPPED:
                self._check(key, partition, report)

    def finish(self) -> None:
        """Settle the status of what was not made; fail the run if anything failed.

        Raises
        ------
        dagster.Failure
            Listing what failed, one line each.
        """
        if self._failed:
            for partition, report in self._missing:
                self._release(partition, report)
        self._forget_old_failures()
        if not self._failed:
            return
        lines = [f"{partition} {report.step}: {report.message}" for partition, report in self._failed]
        more = f"\n... and {len(lines) - LINES_SHOWN} more" if len(lines) > LINES_SHOWN else ""
        raise dg.Failure(
            f"{len(lines)} failed:\n" + "\n".join(lines[:LINES_SHOWN]) + more, allow_retries=False
        )

    def _materialize(
        self, key: dg.AssetKey, partition: str, report: StepReport, versions: Mapping[str, str]
    ) -> None:
        """Log a materialization."""
        earlier = self._latest(key, partition) if report.outcome is Outcome.LOADED else None
        made = self._materialization(key, partition, report, versions, earlier)
        event = DagsterEvent.from_step(
            event_type=DagsterEventType.ASSET_MATERIALIZATION,
            step_context=self._context.get_step_execution_context(),
            event_specific_data=StepMaterializationData(made),
            message=f"{partition} {report.step}: {report.outcome} in {report.seconds:.2f} s",
        )
        # What `log_event` does, but that would repeat the description, picture and all, in the run's log.
        self._context.op_execution_context._events.append(event)

    def _check(self, key: dg.AssetKey, partition: str, report: StepReport) -> None:
        """Log a check of the latest materialization: of another one it would count as out of date."""
        latest = self._latest(key, partition)
        target = latest and Target(
            storage_id=latest.storage_id, run_id=latest.run_id, timestamp=latest.timestamp
        )
        self._context.log_event(evaluate(key, partition, report, target))

    def _latest(self, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
        wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition])
        records = self._context.instance.fetch_materializations(wanted, limit=1).records
        return records[0] if records else None

    def _materialization(
        self,
        key: dg.AssetKey,
        partition: str,
        report: StepReport,
        versions: Mapping[str, str],
        earlier: dg.EventLogRecord | None,
    ) -> dg.AssetMaterialization:
        before = earlier and earlier.asset_materialization
        page = None if self._pages is None else picture_page(self._pages, key, partition)
        return dg.AssetMaterialization(
            asset_key=key,
            partition=partition,
            description=picture(report, page),
            metadata=metadata(
                key, partition, report, self._root, self._context.run.run_id, before and before.metadata, page
            ),
            tags={
                "dagster/data_version": report.data_version,
                "dagster/data_version_is_user_provided": "true",
                "dagster/code_version": report.code_version,
                **self._input_tags(key, report, versions),
            },
        )

    def _input_tags(
        self, key: dg.AssetKey, report: StepReport, versions: Mapping[str, str]
    ) -> dict[str, str]:
        """Say what it was made from, so that Dagster can tell when that changes.

        Within the chain this is exact. A master or a reference is chosen by a query, which Dagster
        cannot follow, so those never make a section stale here: `seechange show --outdated` knows.
        """
        tags: dict[str, str] = {}
        latest = str(self._context.instance.event_log_storage.get_maximum_record_id() or 0)
        inside = {self._keys[name]: name for name in self._needs.get(report.step, ()) if name in self._keys}
        for parent in self._context.assets_def.asset_deps[key]:
            name = parent.to_user_string()
            version = versions.get(inside.get(parent, ""), report.data_version)
            tags[f"dagster/input_data_version/{name}"] = version
            tags[f"dagster/input_event_pointer/{name}"] = latest if parent in inside else str(EVER)
        return tags

    def _release(self, partition: str, report: StepReport) -> None:
        """Take a partition out of this failing run: it stopped or was not tried, which is not a failure.

        Dagster marks as failed whatever a failed run had planned and did not make, checks too. A newer
        plan of no run at all makes a partition plainly missing; its check gets a word why.
        """
        key = self._keys[report.step]
        plan = AssetMaterializationPlannedData(key, partition=partition, partitions_subset=None)
        event = DagsterEvent.build_asset_materialization_planned_event(
            self._context.run.job_name, str(self._context.op_execution_context.op_handle), plan
        )
        self._context.instance.report_dagster_event(event, run_id="")
        if report.outcome is Outcome.SKIPPED:
            self._check(key, partition, report)

    def _forget_old_failures(self) -> None:
        """Let go of failures of earlier runs where the section has now stopped instead.

        Dagster keeps a failed partition red until it is materialized; its cache is dropped to have it
        look again.
        """
        by_key: dict[dg.AssetKey, set[str]] = {}
        for partition, report in self._missing:
            by_key.setdefault(self._keys[report.step], set()).add(partition)
        storage = self._context.instance.event_log_storage
        for record in storage.get_asset_records(list(by_key)) if by_key else ():
            key, cached = record.asset_entry.asset_key, record.asset_entry.cached_status
            partitions = self._context.assets_def.specs_by_key[key].partitions_def
            if not isinstance(cached, AssetStatusCacheValue) or partitions is None:
                continue
            failed = cached.deserialize_failed_partition_subsets(partitions)
            if by_key[key].intersection(failed.get_partition_keys()):
                storage.wipe_asset_cached_status(key)
