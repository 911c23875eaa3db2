"""Masters, references, and what a `Runner` does with faults that are nobody's section."""

import os
import signal
import subprocess
import sys

import dagster as dg
import pytest

from seechange_assets import survey
from seechange_assets.chain import asset_key
from seechange_assets.home import PROCESS_TAG, fail_abandoned_runs, process_tag
from seechange_assets.run import Runner, contiguous
from seechange_core import chain as core
from seechange_core.chain.outcome import Outcome
from seechange_core.errors import NotFoundError, PipelineError, SettingsError, UserError
from seechange_core.kernel_cache import FIRST_RUN

MASTERS = ("bias", "dark", "flat", "twilight_flat")


class Watched:
    def __init__(self):
        self.expected, self.heard, self.said = 0, [], []

    def expect(self, tasks):
        self.expected += tasks

    def hear(self, reports):
        self.heard.append(reports)

    def say(self, words):
        self.said.append(words)


@pytest.fixture
def runner(settings):
    with Runner(settings, jobs=2) as runner:
        yield runner


def made(runner, asset):
    return sorted(runner.instance.get_materialized_partitions(asset_key("demo", asset)))


def test_masters_are_built_in_the_order_they_need_each_other(runner):
    reports = runner.build_masters("demo")
    assert [r.step for r in reports] == [kind for kind in MASTERS for _ in range(4)]
    assert made(runner, "bias") == [f"2025-01-01|{n}" for n in range(4)]
    for kind in ("flat", "twilight_flat"):
        assert made(runner, kind) == [f"2025-01-01_r|{n}" for n in range(4)]
    assert runner.build_masters("demo") == []


def test_a_masters_frames_are_shown(runner, plan):
    """As a table, which a later run that finds the master up to date keeps."""
    plan({"bias|2": ("done", "too bright")})
    runner.build_masters("demo")
    (record,) = runner.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key("demo", "bias"), asset_partitions=["2025-01-01|2"]), limit=1
    ).records
    frames = [row.data for row in record.asset_materialization.metadata["frames"].value.records]
    assert frames == [
        {"frame": "f1", "level_e": 12.0, "noise_ratio": "1, 1.1", "verdict": "used"},
        {"frame": "f2", "level_e": "-", "noise_ratio": "nan, 1.1", "verdict": "too bright"},
    ]


def test_references_go_in_contiguous_ranges(runner):
    runner.build_references("demo", [("r1", "r"), ("r2", "r"), ("r3", "g")])
    runner.build_references("demo", [("r1", "g"), ("r3", "g")])
    assert made(runner, "reference") == ["g|r1", "g|r3", "r|r1", "r|r2"]


def test_a_reference_fails_with_any_of_its_leave_one_outs(runner, plan):
    plan({"leave_one_out": ["failed"]})
    reports = runner.build_references("demo", [("r1", "r")], leave_one_out=True)
    assert reports[-1].outcome is Outcome.FAILED
    assert made(runner, "reference") == []


def test_a_leave_one_out_that_stopped_is_a_warning_beside_the_reference(runner, plan):
    plan({"leave_one_out": ["stopped"]})
    runner.build_references("demo", [("r1", "r")], leave_one_out=True)
    assert made(runner, "reference") == ["r|r1"]
    checks = runner.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(asset_key("demo", "reference"), "outcome"), limit=5
    )
    evaluations = [record.event.dagster_event.event_specific_data for record in checks]
    assert next((e.passed, e.description) for e in evaluations) == (False, "left one out")


def test_references_are_heard_of_one_by_one(settings):
    watched = Watched()
    with Runner(settings, 2, watched) as runner:
        runner.build_references("demo", [("r1", "r")], leave_one_out=True)
    assert watched.expected == len(watched.heard) == 2


def test_contiguous():
    assert contiguous("abcdef", {"a", "b", "d", "f"}) == [("a", "b"), ("d", "d"), ("f", "f")]
    assert contiguous("ab", set()) == []


def test_the_watcher_hears_of_every_task(settings):
    watched = Watched()
    with Runner(settings, 2, watched) as runner:
        runner.build_masters("demo")
        runner.process("demo", ["e1", "e2"])
        runner.process("demo", ["e1"], sections=["1"])
        runner.build_references("demo", [("r1", "r")])
    assert watched.expected == len(watched.heard) == 16 + 8 + 1 + 1
    assert watched.said == []


def test_a_first_run_says_that_kernels_are_compiled(settings, monkeypatch):
    monkeypatch.setattr("seechange_assets.run.is_cold", lambda: True)
    watched = Watched()
    with Runner(settings, 2, watched):
        assert watched.said == [FIRST_RUN]


def test_wrong_parameters_are_told_before_any_work(settings):
    wrong = settings.model_copy(update={"reference": {"min_input": 2}})
    with pytest.raises(SettingsError, match="min_input"), Runner(wrong, 2):
        pass


def test_one_pool_serves_all_runs(settings):
    with Runner(settings, 2) as runner:
        pool = runner.pool
        runner.process("demo", ["e1"])
        first = {worker.process.pid for worker in pool._workers}
        runner.process("demo", ["e2"])
        assert {worker.process.pid for worker in pool._workers} == first
    assert pool._workers == []


def test_a_bug_between_dagster_and_us_is_raised(runner, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("seechange_assets.events.metadata", broken)
    with pytest.raises(PipelineError, match="ZeroDivisionError: division by zero"):
        runner.process("demo", ["e1"])


def test_ctrl_c_cancels_the_run(settings):
    class Impatient(Watched):
        def hear(self, reports):
            os.kill(os.getpid(), signal.SIGINT)

    with Runner(settings, 2, Impatient()) as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.process("demo", ["e1"])
        assert runner.instance.get_runs()[0].status is dg.DagsterRunStatus.CANCELED
        assert runner.pool._workers == []


def test_runs_of_dead_processes_are_ended(runner):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    host = process_tag()[PROCESS_TAG].rpartition(":")[0]
    for pid in (child.pid, os.getpid()):
        run = dg.DagsterRun("job", status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: f"{host}:{pid}"})
        runner.instance.add_run(run)
    fail_abandoned_runs(runner.instance)
    status = {run.tags[PROCESS_TAG]: run.status for run in runner.instance.get_runs()}
    assert status[f"{host}:{child.pid}"] is dg.DagsterRunStatus.FAILURE
    assert status[f"{host}:{os.getpid()}"] is dg.DagsterRunStatus.STARTED


def test_no_instance_has_a_cure(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="seechange init"), Runner(settings):
        pass


def test_processing_builds_the_masters_first(settings):
    reports = survey.process_exposures(["e1"], through="image", jobs=2)
    assert [r.step for r in reports][:16] == [kind for kind in MASTERS for _ in range(4)]
    assert len(reports) == 16 + 4 * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"names": ["e9"]}, "exposure e9: not in the database"),
        ({"names": ["e1"], "sections": ["7"]}, "demo has no section '7' .*0, 1, 2, 3"),
        ({"through": "nonsense"}, "no step 'nonsense' .*forced_photometry"),
    ],
)
def test_what_is_not_there_is_refused_by_name(settings, arguments, words):
    with pytest.raises(NotFoundError, match=words):
        survey.process_exposures(**arguments)


def test_references_by_region_and_filter(settings):
    def built(**wanted):
        return sorted((r.exposure, r.section) for r in survey.build_references(jobs=2, **wanted))

    assert built() == [("r1", "r"), ("r2", "g"), ("r2", "r")]
    assert built(band="g") == [("r2", "g")]
    assert built(regions=["r1"]) == [("r1", "r")]
    with pytest.raises(NotFoundError, match=r"reference of r7 .*r1 in r, r2 in r"):
        built(regions=["r7"])
    with pytest.raises(NotFoundError, match="'decam' is not among those in use: demo"):
        built(instrument="decam")


def test_chosen_sections_that_lie_together_are_one_run(runner):
    runner.process("demo", ["e1"], sections=["3", "0", "1", "0"], through="image")
    assert len(runner.instance.get_runs()) == 2
    assert made(runner, "image") == ["e1|0", "e1|1", "e1|3"]
    runner.build_masters("demo", sections=["1", "2"])
    assert len(runner.instance.get_runs()) == 2 + len(MASTERS)
    assert made(runner, "bias") == ["2025-01-01|1", "2025-01-01|2"]


def test_only_masters_that_serve_are_built(settings, monkeypatch):
    asked = []
    monkeypatch.setattr(
        core, "nights_serving", lambda s, i, names: asked.append((i, names)) or ["2025-01-01"]
    )
    look = core.look_for_masters
    monkeypatch.setattr(
        core, "look_for_masters", lambda s, i, nights=None, *a: asked.append(nights) or look(s, i, nights, *a)
    )
    survey.process_exposures(["e1"], through="exposure", jobs=2)
    assert asked[0] == ("demo", ["e1"])
    assert set(map(tuple, asked[1:])) == {("2025-01-01",)}


def test_the_web_interface_is_told_of_the_nights_of_masters(runner):
    runner.register_masters("demo")
    assert runner.instance.get_dynamic_partitions("demo_nights") == ["2025-01-01"]
    assert runner.instance.get_dynamic_partitions("demo_night_filters") == ["2025-01-01_r"]
