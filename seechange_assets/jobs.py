"""Jobs: what an operator starts by name. Each covers assets that are partitioned alike."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from seechange_assets.calibrators import job_name
from seechange_assets.chain import asset_key
from seechange_assets.references import NAME as REFERENCE
from seechange_assets.reports import NAME as REPORT
from seechange_core import chain as core
from seechange_core.chain import BUILDS_ON as MASTERS


def instrument_jobs(instrument: str) -> list[UnresolvedAssetJobDefinition]:
    """Define an instrument's jobs: walk, masters, references and reports."""
    masters = [_job(instrument, job_name(instrument, kind), [kind]) for kind in MASTERS]
    return [
        _job(instrument, f"{instrument}_process", [step.name for step in core.STEPS]),
        *masters,
        _job(instrument, f"{instrument}_references", [REFERENCE]),
        _job(instrument, f"{instrument}_reports", [REPORT]),
    ]


def _job(instrument: str, name: str, assets: list[str]) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name, selection=dg.AssetSelection.assets(*(asset_key(instrument, a) for a in assets))
    )
