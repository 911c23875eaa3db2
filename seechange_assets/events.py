"""From reports of the core to events of Dagster: one place that decides what an operator sees.

A run covers many sections, and each has its own fate, so nothing is left to Dagster's own bookkeeping
of outputs: every asset and section that has its product is logged as materialized (also when it was
there already, or a failing neighbour would turn it red), with its own data version.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent
from dagster._core.storage.partition_status_cache import AssetStatusCacheValue

from seechange_assets.checks import evaluate
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
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        keys: Mapping[str, dg.AssetKey],
        needs: Mapping[str, Sequence[str]],
        root: Path,
    ) -> None:
        self._context = context
        self._keys = keys
        self._needs = needs
        self._root = root
        self._failed: list[tuple[str, StepReport]] = []
        self._missing: list[tuple[str, dg.AssetKey]] = []

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
                self._context.log_event(self._materialization(key, partition, report, versions))
            elif report.outcome is Outcome.FAILED:
                self._failed.append((partition, report))
            else:
                self._missing.append((partition, key))
            if report.outcome is not Outcome.SKIPPED:
                self._context.log_event(evaluate(key, partition, report))

    def finish(self) -> None:
        """Settle the status of what was not made; fail the run if anything failed.

        Raises
        ------
        dagster.Failure
            Listing what failed, one line each.
        """
        if self._failed:
            for partition, key in self._missing:
                self._release(partition, key)
        self._forget_old_failures()
        if not self._failed:
            return
        lines = [f"{partition} {report.step}: {report.message}" for partition, report in self._failed]
        more = f"\n... and {len(lines) - LINES_SHOWN} more" if len(lines) > LINES_SHOWN else ""
        raise dg.Failure(
            f"{len(lines)} failed:\n" + "\n".join(lines[:LINES_SHOWN]) + more, allow_retries=False
        )

    def _materialization(
        self, key: dg.AssetKey, partition: str, report: StepReport, versions: Mapping[str, str]
    ) -> dg.AssetMaterialization:
        return dg.AssetMaterialization(
            asset_key=key,
            partition=partition,
            metadata=metadata(report, self._root),
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

    def _release(self, partition: str, key: dg.AssetKey) -> None:
        """Take a partition out of this failing run: it stopped or was not tried, which is not a failure.

        Dagster marks as failed whatever a failed run had planned and did not make. A newer plan of no
        run at all makes it plainly missing.
        """
        plan = AssetMaterializationPlannedData(key, partition=partition, partitions_subset=None)
        event = DagsterEvent.build_asset_materialization_planned_event(
            self._context.run.job_name, str(self._context.op_execution_context.op_handle), plan
        )
        self._context.instance.report_dagster_event(event, run_id="")

    def _forget_old_failures(self) -> None:
        """Let go of failures of earlier runs where the section has now stopped instead.

        Dagster keeps a failed partition red until it is materialized; its cache is dropped to have it
        look again.
        """
        by_key: dict[dg.AssetKey, set[str]] = {}
        for partition, key in self._missing:
            by_key.setdefault(key, set()).add(partition)
        storage = self._context.instance.event_log_storage
        for record in storage.get_asset_records(list(by_key)) if by_key else ():
            key, cached = record.asset_entry.asset_key, record.asset_entry.cached_status
            partitions = self._context.assets_def.specs_by_key[key].partitions_def
            if not isinstance(cached, AssetStatusCacheValue) or partitions is None:
                continue
            failed = cached.deserialize_failed_partition_subsets(partitions)
            if by_key[key].intersection(failed.get_partition_keys()):
                storage.wipe_asset_cached_status(key)


def metadata(report: StepReport, root: Path) -> dict[str, Any]:
    """Show a report's numbers (so that Dagster plots them over partitions), its file and its preview."""
    shown: dict[str, Any] = {
        name: dg.MetadataValue.float(float(value))
        for name, value in report.metrics.items()
        if math.isfinite(value)
    }
    shown.setdefault("seconds", dg.MetadataValue.float(report.seconds))
    shown["outcome"] = report.outcome.value
    if report.path:
        shown["file"] = dg.MetadataValue.path(str(root / report.path))
    if report.product_id:
        shown["product"] = report.product_id
    if report.preview:
        image = base64.b64encode(report.preview).decode()
        shown["preview"] = dg.MetadataValue.md(f"![{report.step}](data:image/png;base64,{image})")
    return shown
