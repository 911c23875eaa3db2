"""One factory: an instrument's assets, from the core's list of steps.

All steps are one Dagster op, which takes any part of its assets and any range of sections: one worker
takes a section through the whole walk with its arrays in memory, and each section ends on its own.
"""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from seechange_assets import partitions
from seechange_assets.checks import outcome_checks
from seechange_assets.display import about, kinds
from seechange_assets.events import Recorder
from seechange_assets.resources import Workers
from seechange_core import chain as core
from seechange_core.chain import Outcome, StepReport
from seechange_core.errors import SeeChangeError
from seechange_core.provenance import ProvenanceKey
from seechange_core.settings import Settings

#: How the chain's partitions map to those of the assets it takes from outside.
MAPPINGS = {
    "bias": partitions.same_section,
    "dark": partitions.same_section,
    "flat": partitions.same_section,
    "twilight_flat": partitions.same_section,
    "reference": partitions.by_query,
}


class WalkConfig(dg.Config):
    """What can be asked of a run in the launchpad."""

    redo: bool = False
    """Make products again that are already there and up to date."""


def asset_key(instrument: str, name: str) -> dg.AssetKey:
    """Name an instrument's asset."""
    return dg.AssetKey([instrument, name])


def chain_assets(
    settings: Settings, instrument: str, sections: Sequence[str], provenances: Mapping[str, ProvenanceKey]
) -> dg.AssetsDefinition:
    """Make the assets of one instrument's chain.

    Parameters
    ----------
    settings
        Under which they are made.
    instrument
        Its name: the assets' group and key prefix.
    sections
        Its section ids as text.
    provenances
        By asset name.
    """
    by_section = partitions.by_section(instrument, "exposure", sections)
    keys = {step.name: asset_key(instrument, step.name) for step in core.STEPS}
    needs = {step.name: step.needs for step in core.STEPS}

    @dg.multi_asset(
        name=f"{instrument}_chain",
        specs=[_spec(settings, instrument, step, provenances[step.name]) for step in core.STEPS],
        check_specs=outcome_checks(keys.values(), by_section),
        partitions_def=by_section,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def walk_sections(
        context: dg.AssetExecutionContext,
        config: WalkConfig,
        settings: dg.ResourceParam[Settings],
        workers: dg.ResourceParam[Workers],
    ) -> Iterator[dg.Output[None]]:
        chosen = {name: key for name, key in keys.items() if key in context.selected_asset_keys}
        tasks = {
            partition: (settings, *split(partition), tuple(chosen), config.redo)
            for partition in context.partition_keys
        }
        recorder = Recorder(context, chosen, needs, settings.data_root, settings.pages_url)

        def crashed(partition: str, error: SeeChangeError) -> list[StepReport]:
            return _crashed(*split(partition), list(chosen), error)

        for partition, reports, trace in workers.reports(core.walk, tasks, crashed):
            recorder.section(partition, reports, trace)
        recorder.finish()
        yield from ()

    return walk_sections


def split(partition: str) -> tuple[str, str]:
    """Take the key of an exposure's section apart."""
    exposure, _, section = partition.rpartition("|")
    return exposure, section


def steps_through(last: str | None) -> list[str]:
    """Name the steps from the first up to and including one; all with None."""
    names = [step.name for step in core.STEPS]
    return names if last is None else names[: names.index(last) + 1]


def _spec(settings: Settings, instrument: str, step: core.Step, provenance: ProvenanceKey) -> dg.AssetSpec:
    outside = [
        dg.AssetDep(asset_key(instrument, name), partition_mapping=MAPPINGS[name]()) for name in step.external
    ]
    return dg.AssetSpec(
        asset_key(instrument, step.name),
        deps=[*(asset_key(instrument, name) for name in step.needs), *outside],
        description=step.description,
        group_name=instrument,
        code_version=provenance.id,
        skippable=True,
        kinds=kinds(step.name, settings),
        metadata=about(provenance),
    )


def _crashed(exposure: str, section: str, steps: Sequence[str], error: SeeChangeError) -> list[StepReport]:
    """Report a section whose worker died or met a bug: how far it came shows when it is run again."""
    first, *later = steps
    return [
        StepReport(exposure, section, first, Outcome.FAILED, error.reason, str(error)),
        *(StepReport(exposure, section, step, Outcome.SKIPPED) for step in later),
    ]
