"""The chain's assets: every section has its own fate, and its status says so."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from seechange_assets.chain import asset_key, split, steps_through
from seechange_assets.definitions import define
from seechange_assets.home import PROCESS_TAG, process_tag
from seechange_assets.partitions import by_section
from seechange_assets.run import Runner
from seechange_core.chain.outcome import Outcome

SECTIONS = ("0", "1", "2", "3")
PARTITIONS = by_section("demo", "exposure", SECTIONS)


def status(runner, asset):
    """Sections of e1 that are materialized, failed, and neither, as the web UI counts them."""
    key = asset_key("demo", asset)
    cache = get_and_update_asset_status_cache_value(runner.instance, key, partitions_def=PARTITIONS)
    if cache is None:  # nothing was ever planned
        return "...."
    done, failed = (
        {split(k)[1] for k in subset.get_partition_keys()} if subset else set()
        for subset in (
            cache.deserialize_materialized_partition_subsets(PARTITIONS),
            cache.deserialize_failed_partition_subsets(PARTITIONS),
        )
    )
    return "".join("+" if s in done else "!" if s in failed else "." for s in SECTIONS)


def check(runner, asset, section):
    key = dg.AssetCheckKey(asset_key("demo", asset), "outcome")
    records = runner.instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    found = [r for r in records if r.partition == f"e1|{section}" and r.event and r.event.dagster_event]
    return next((r for r in found if r.status is not AssetCheckExecutionRecordStatus.PLANNED), None)


def materialization(runner, asset, partition):
    records = runner.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key("demo", asset), asset_partitions=[partition]), limit=10
    ).records
    return [record.asset_materialization for record in records]


@pytest.fixture
def runner(settings):
    with Runner(settings, jobs=2) as runner:
        yield runner


def test_every_section_of_every_asset_is_there(runner, core):
    reports = runner.process("demo", ["e1"])
    assert len(reports) == len(SECTIONS) * len(core.STEPS)
    for step in core.STEPS:
        assert status(runner, step.name) == "++++"
        assert check(runner, step.name, "2").status is AssetCheckExecutionRecordStatus.SUCCEEDED


def test_each_section_has_its_own_versions_numbers_and_picture(runner, settings):
    runner.process("demo", ["e1"])
    (made,) = materialization(runner, "zero_point", "e1|2")
    assert made.tags["dagster/data_version"] == "zero_point-e1-2"
    assert made.tags["dagster/code_version"] == "code-zero_point"
    assert made.metadata["fwhm_pix"].value == 2.5
    assert "nothing" not in made.metadata  # a NaN
    assert made.metadata["file"].value == str(settings.data_root / "e1_2_zero_point")
    page = "http://127.0.0.1:3001/picture/demo/e1/2/zero_point.png"
    assert made.description.startswith("[![zero_point](data:image/png;base64,")
    assert made.description.endswith(f")]({page})")
    small = page.replace("picture", "thumb")
    picture = f"[![shown while seechange ui runs]({small})]({page})"
    assert made.metadata["picture"].value == f"{picture}\n\n[full size]({page})"


def test_one_run_covers_the_exposure_with_one_op(runner, settings):
    runner.process("demo", ["e1"])
    (run,) = runner.instance.get_runs()
    assert run.job_name == "demo_process"
    assert run.tags["seechange/exposure"] == "e1"
    assert run.tags["dagster/asset_partition_range_start"] == "e1|0"
    assert run.tags["dagster/asset_partition_range_end"] == "e1|3"
    assert len(define(settings).resolve_job_def("demo_process").graph.nodes) == 1


def test_the_three_outcomes(runner, plan):
    """A corrupt section, a dead CCD and a field without reference, side by side in one exposure."""
    plan(
        {"e1|0": ("failed", "image"), "e1|1": ("stopped", "source_list"), "e1|2": ("stopped", "subtraction")}
    )
    reports = runner.process("demo", ["e1"])
    fates = {(r.section, r.outcome) for r in reports}
    assert ("3", Outcome.SKIPPED) not in fates
    assert status(runner, "exposure") == "++++"
    assert status(runner, "image") == "!+++"
    assert status(runner, "source_list") == "..++"
    assert status(runner, "zero_point") == "..++"
    assert status(runner, "subtraction") == "...+"
    assert status(runner, "forced_photometry") == "...+"
    assert runner.instance.get_runs()[0].status is dg.DagsterRunStatus.FAILURE
    dead = check(runner, "source_list", "1")
    assert dead.status is AssetCheckExecutionRecordStatus.FAILED
    evaluation = dead.event.dagster_event.asset_check_evaluation_data
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert evaluation.metadata["reason"].value == "stopped_here"
    later = check(runner, "zero_point", "1").event.dagster_event.asset_check_evaluation_data
    assert later.severity is dg.AssetCheckSeverity.WARN
    assert later.metadata["outcome"].value == "skipped"


def test_a_stop_alone_lets_the_run_succeed(runner, plan):
    plan({"e1|1": ("stopped", "image")})
    runner.process("demo", ["e1"])
    assert runner.instance.get_runs()[0].status is dg.DagsterRunStatus.SUCCESS
    assert status(runner, "image") == "+.++"


@pytest.mark.parametrize(("fate", "words"), [("die", "SIGKILL"), ("bug", "ZeroDivisionError")])
def test_a_worker_that_dies_costs_its_section_only(runner, plan, fate, words):
    plan({"e1|1": (fate, "image")})
    reports = runner.process("demo", ["e1"])
    (failed,) = (r for r in reports if r.outcome is Outcome.FAILED)
    assert (failed.section, words in failed.message) == ("1", True)
    assert status(runner, "exposure") == "+!++"
    assert status(runner, "forced_photometry") == "+.++"


def test_the_run_says_what_failed(runner, plan):
    plan({"e1|0": ("failed", "image"), "e1|2": ("failed", "zero_point")})
    runner.process("demo", ["e1"])
    run = runner.instance.get_runs()[0]
    (event,) = runner.instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE
    ).records
    words = event.event_log_entry.dagster_event.step_failure_data.user_failure_data.description
    assert words.startswith("2 failed:")
    assert "e1|0 image: e1: failed (a cure)" in words
    assert "e1|2 zero_point: e1: failed (a cure)" in words


def test_a_second_run_does_what_is_missing_and_leaves_every_status_true(runner, plan):
    plan({"e1|0": ("failed", "image"), "e1|1": ("stopped", "image"), "e1|2": ("failed", "zero_point")})
    runner.process("demo", ["e1"])
    assert status(runner, "zero_point") == "..!+"
    plan({"e1|2": ("failed", "zero_point")})
    reports = runner.process("demo", ["e1"])
    outcomes = {(r.section, r.step): r.outcome for r in reports}
    assert outcomes["3", "image"] is Outcome.LOADED
    assert outcomes["0", "image"] is Outcome.DONE
    assert status(runner, "image") == "++++"
    assert status(runner, "zero_point") == "++!+"
    assert check(runner, "image", "0").status is AssetCheckExecutionRecordStatus.SUCCEEDED


def test_a_failure_that_became_a_stop_is_no_longer_red(runner, plan):
    plan({"e1|0": ("failed", "image")})
    runner.process("demo", ["e1"])
    assert status(runner, "image") == "!+++"
    plan({"e1|0": ("stopped", "image")})
    runner.process("demo", ["e1"])
    assert status(runner, "image") == ".+++"


def test_redo_makes_again(runner):
    runner.process("demo", ["e1"], sections=["1"])
    assert {r.outcome for r in runner.process("demo", ["e1"], sections=["1"])} == {Outcome.LOADED}
    assert {r.outcome for r in runner.process("demo", ["e1"], sections=["1"], redo=True)} == {Outcome.DONE}


def test_one_section_through_one_step(runner):
    reports = runner.process("demo", ["e1"], sections=["2"], through="zero_point")
    assert [r.step for r in reports] == steps_through("zero_point")
    assert status(runner, "zero_point") == "..+."
    assert status(runner, "subtraction") == "...."
    assert runner.instance.get_runs()[0].tags["dagster/partition"] == "e1|2"


def test_one_asset_of_one_section_from_python(settings, runner):
    """The same definitions, run by `dagster.materialize` with workers of its own."""
    runner.process("demo", ["e1"])
    definitions = define(settings)
    result = dg.materialize(
        list(definitions.assets),
        selection=[asset_key("demo", "measurement")],
        partition_key="e1|3",
        instance=runner.instance,
        resources=definitions.resources,
    )
    assert result.success
    # Who finds the run unfinished after a power cut can tell that nobody works on it.
    assert runner.instance.get_run_by_id(result.run_id).tags[PROCESS_TAG] == process_tag()[PROCESS_TAG]
    assert len(materialization(runner, "measurement", "e1|3")) == 2
    assert len(materialization(runner, "cutouts", "e1|3")) == 1


def test_nothing_is_stale_after_a_run_and_a_new_upstream_version_shows(runner, settings):
    runner.process("demo", ["e1"])

    def stale():
        graph = define(settings).get_repository_def().asset_graph
        resolver = CachingStaleStatusResolver(runner.instance, graph, LoadingContextForTest(runner.instance))
        return {step: resolver.get_status(asset_key("demo", step), "e1|2") for step in steps_through(None)}

    assert set(stale().values()) == {StaleStatus.FRESH}
    runner.build_masters("demo")  # a new master is the database's matter, not Dagster's
    assert set(stale().values()) == {StaleStatus.FRESH}
    new = dg.AssetMaterialization(
        asset_key("demo", "source_list"), partition="e1|2", tags={"dagster/data_version": "another"}
    )
    runner.instance.report_runless_asset_event(new)
    assert stale()["world_coordinates"] is StaleStatus.STALE
    assert stale()["image"] is StaleStatus.FRESH
