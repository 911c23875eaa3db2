"""Master frames: one asset for each kind, by night and section."""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from seechange_assets import partitions
from seechange_assets.chain import WalkConfig, asset_key, split
from seechange_assets.checks import outcome_checks
from seechange_assets.display import about, kinds
from seechange_assets.events import Recorder
from seechange_assets.resources import Workers
from seechange_core import chain as core
from seechange_core.chain import BUILDS_ON, FLATS, Outcome, StepReport
from seechange_core.errors import NotFoundError, PipelineError, SeeChangeError
from seechange_core.provenance import ProvenanceKey
from seechange_core.settings import Settings

#: Tag of a run that failed, and would again: by what the frames are, not by a machine or a lost file.
BY_ITS_FRAMES = "seechange/failed_by_its_frames"
PASSING = (PipelineError.reason, NotFoundError.reason)
DESCRIPTIONS = {
    "bias": "Master bias: combined zero-second frames of a night, electrons.",
    "dark": "Master dark: bias-corrected dark current, electrons per second; hot pixels come from it.",
    "flat": "Master flat of a dome or lamp: relative response of the pixels in one filter, median 1.",
    "twilight_flat": "Master flat of the twilight sky, median 1; compared with a flat of the filter it also "
    "makes the illumination: the smooth response to the sky that a dome does not show.",
}


def dimension(kind: str) -> str:
    """Name the dynamic dimension of a kind: a flat has its filter with the night."""
    return "night_filter" if kind in FLATS else "night"


def partition(kind: str, night: str, band: str | None) -> str:
    """Name a master's partition in its kind's dynamic dimension."""
    return partitions.night_filter(night, band) if kind in FLATS else night


def job_name(instrument: str, kind: str) -> str:
    """Name the job that builds masters of a kind."""
    return f"{instrument}_{kind}_masters"


def run_tags(instrument: str, master: core.WantedMaster) -> dict[str, str]:
    """Return the tags that tell which master a run makes, and of what: to know later what was tried."""
    kind, night, band = master.key
    return {
        "seechange/master": f"{instrument}/{kind}/{partition(kind, night, band)}",
        "seechange/made_of": master.version,
    }


def master_assets(
    settings: Settings, instrument: str, sections: Sequence[str], provenances: Mapping[str, ProvenanceKey]
) -> list[dg.AssetsDefinition]:
    """Make an instrument's calibration assets."""
    return [_master(settings, instrument, kind, sections, provenances[kind]) for kind in BUILDS_ON]


def _master(
    own: Settings, instrument: str, kind: str, sections: Sequence[str], provenance: ProvenanceKey
) -> dg.AssetsDefinition:
    by_section = partitions.by_section(instrument, dimension(kind), sections)
    key = asset_key(instrument, kind)
    deps = [
        dg.AssetDep(asset_key(instrument, name), partition_mapping=_mapping(kind)) for name in BUILDS_ON[kind]
    ]

    @dg.multi_asset(
        name=f"{instrument}_{kind}",
        specs=[
            dg.AssetSpec(
                key,
                deps=deps,
                description=DESCRIPTIONS[kind],
                group_name=instrument,
                code_version=provenance.id,
                skippable=True,
                kinds=kinds(kind, own),
                metadata=about(provenance),
            )
        ],
        check_specs=outcome_checks([key], by_section),
        partitions_def=by_section,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def combine_frames(
        context: dg.AssetExecutionContext,
        config: WalkConfig,
        settings: dg.ResourceParam[Settings],
        workers: dg.ResourceParam[Workers],
    ) -> Iterator[dg.Output[None]]:
        tasks = {
            partition: (settings, instrument, kind, *_arguments(partition), config.redo)
            for partition in context.partition_keys
        }
        recorder = Recorder(context, {kind: key}, {}, settings.data_root)

        def crashed(partition: str, error: SeeChangeError) -> list[StepReport]:
            night, section = split(partition)
            return [StepReport(night, section, kind, Outcome.FAILED, error.reason, str(error))]

        failed: set[str] = set()
        for partition, reports, trace in workers.reports(core.build_master, tasks, crashed):
            recorder.section(partition, reports, trace)
            failed.update(report.reason for report in reports if report.outcome is Outcome.FAILED)
        if failed and not failed.intersection(PASSING):
            context.instance.add_run_tags(context.run.run_id, {BY_ITS_FRAMES: "true"})
        recorder.finish()
        yield from ()

    return combine_frames


def _arguments(partition: str) -> tuple[str, str, str | None]:
    """Take a key apart: night, section, filter."""
    first, section = split(partition)
    night, band = partitions.split_night_filter(first)
    return night, section, band


def _mapping(kind: str) -> dg.PartitionMapping | None:
    """Take the masters of every night for a flat; a dark has a night's bias at its side."""
    return partitions.same_section() if kind in FLATS else None
