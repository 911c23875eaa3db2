"""Asset checks: what became of each section, and why.

Every asset has the check ``outcome``, evaluated for each section by itself. It passes when the product
is there and nothing is bad about it, warns when it was flagged (or what it was made from), when the section
*stopped* for a reason that is nobody's bug or was not attempted because an earlier step stopped or failed,
and fails on an error.
"""

from collections.abc import Iterable

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from seechange_assets.partitions import quiet
from seechange_core.chain import Outcome, StepReport
from seechange_core.chain.quality import meanings
from seechange_core.flags import QualityFlag

OUTCOME = "outcome"
SEVERITY = {
    Outcome.DONE: dg.AssetCheckSeverity.WARN,
    Outcome.LOADED: dg.AssetCheckSeverity.WARN,
    Outcome.STOPPED: dg.AssetCheckSeverity.WARN,
    Outcome.SKIPPED: dg.AssetCheckSeverity.WARN,
    Outcome.FAILED: dg.AssetCheckSeverity.ERROR,
}


def outcome_checks(
    keys: Iterable[dg.AssetKey], partitions: dg.PartitionsDefinition
) -> list[dg.AssetCheckSpec]:
    """Declare the outcome check of some assets."""
    with quiet():
        return [
            dg.AssetCheckSpec(
                OUTCOME,
                asset=key,
                partitions_def=partitions,
                description="Whether the section has this product, and if not, why.",
            )
            for key in keys
        ]


def evaluate(
    key: dg.AssetKey,
    partition: str,
    report: StepReport,
    target: AssetCheckEvaluationTargetMaterializationData | None,
) -> dg.AssetCheckEvaluation:
    """Turn a step's report into the evaluation of its outcome check, on a materialization if there is one."""
    metadata = {"outcome": report.outcome.value}
    if report.reason:
        metadata["reason"] = report.reason
    if report.bitflag:
        metadata["quality"] = meanings(report.bitflag)
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=OUTCOME,
        partition=partition,
        passed=report.outcome.has_product and not report.bitflag & ~QualityFlag.RELATIVE,
        severity=SEVERITY.get(report.outcome, dg.AssetCheckSeverity.ERROR),
        description=report.message or metadata.get("quality"),
        metadata=metadata,
        target_materialization_data=target,
    )
