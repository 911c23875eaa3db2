"""References: coadds of many exposures, by sky region and filter."""

from collections.abc import Iterator, Sequence

import dagster as dg
from pydantic import Field

from seechange_assets import partitions
from seechange_assets.chain import asset_key
from seechange_assets.checks import outcome_checks
from seechange_assets.display import about, kinds
from seechange_assets.events import Recorder
from seechange_assets.resources import Workers
from seechange_core import chain as core
from seechange_core.chain import Outcome, StepReport
from seechange_core.errors import SeeChangeError
from seechange_core.provenance import ProvenanceKey
from seechange_core.settings import Settings

NAME = "reference"
#: The chain's assets a reference is made from.
NEEDS = ("image", "source_list", "world_coordinates", "zero_point")


class ReferenceConfig(dg.Config):
    """What can be asked of a run in the launchpad."""

    redo: bool = False
    """Make references again that are already there and up to date."""
    leave_one_out: bool = False
    """Also make, for each exposure that goes in, the reference without it."""
    nights: list[str] = Field(default_factory=list)
    """Only images of these nights (YYYY-MM-DD); empty takes all."""
    without: list[str] = Field(default_factory=list)
    """Names of exposures not to take."""
    use: bool = False
    """Use what is made from now on; else it is a proposal wherever there is a reference already."""


def reference_asset(own: Settings, instrument: str, provenance: ProvenanceKey) -> dg.AssetsDefinition:
    """Make an instrument's reference asset."""
    by_region = partitions.by_region(instrument)
    key = asset_key(instrument, NAME)
    everything = [
        dg.AssetDep(asset_key(instrument, name), partition_mapping=partitions.by_query()) for name in NEEDS
    ]

    @dg.multi_asset(
        name=f"{instrument}_{NAME}",
        specs=[
            dg.AssetSpec(
                key,
                deps=everything,
                description="Reference: a coadd of the best calibrated images of one sky region in one "
                "filter. The first version is used at once, later ones are proposals until "
                "`seechange reference use`.",
                group_name=instrument,
                code_version=provenance.id,
                skippable=True,
                kinds=kinds(NAME, own),
                metadata=about(provenance),
            )
        ],
        check_specs=outcome_checks([key], by_region),
        partitions_def=by_region,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def build_references(
        context: dg.AssetExecutionContext,
        config: ReferenceConfig,
        settings: dg.ResourceParam[Settings],
        workers: dg.ResourceParam[Workers],
    ) -> Iterator[dg.Output[None]]:
        options = (config.leave_one_out, config.redo, config.nights or None, config.without, config.use)
        tasks = {
            partition: (settings, instrument, *split(partition), *options)
            for partition in context.partition_keys
        }
        recorder = Recorder(context, {NAME: key}, {}, settings.data_root)

        def crashed(partition: str, error: SeeChangeError) -> list[StepReport]:
            region, band = split(partition)
            return [StepReport(region, band, NAME, Outcome.FAILED, error.reason, str(error))]

        for partition, reports, trace in workers.reports(core.reference_reports, tasks, crashed):
            recorder.section(partition, _fates(reports), trace)
        recorder.finish()
        yield from ()

    return build_references


def _fates(reports: Sequence[StepReport]) -> list[StepReport]:
    """Choose the reports that speak for the partition.

    A failure if there is one; else the full coadd's, and after it the first of those without an image that
    stopped, whose warning then stands beside the coadd.
    """
    failed = [report for report in reports if report.outcome is Outcome.FAILED]
    stopped = [report for report in reports[1:] if report.outcome is Outcome.STOPPED]
    return failed[:1] or [reports[0], *stopped[:1]]


def split(partition: str) -> tuple[str, str]:
    """Take a key apart: region, filter (Dagster joins them the other way round)."""
    band, _, region = partition.partition("|")
    return region, band
