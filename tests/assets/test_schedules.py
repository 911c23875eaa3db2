"""The schedule that builds masters: when, in which order, and never the same thing twice."""

from dataclasses import replace
from datetime import UTC, timedelta

import dagster as dg
import pytest

import seechange_core.chain
from seechange_assets import schedules
from seechange_assets.calibrators import BY_ITS_FRAMES
from seechange_assets.chain import asset_key
from seechange_assets.definitions import define
from seechange_assets.run import Runner
from seechange_assets.schedules import LOOK_BACK, QUIET
from seechange_core.chain.outcome import Outcome
from seechange_core.errors import BadDataError, PipelineError
from seechange_core.pool import TaskResult

KINDS = ("bias", "dark", "flat", "twilight_flat")


@pytest.fixture
def runner(settings):
    with Runner(settings, jobs=2) as runner:
        yield runner


@pytest.fixture
def tick(settings, runner, core):
    """Evaluate the schedule so long after the frames were registered."""
    definitions = define(settings)

    def evaluate(after=QUIET):
        context = dg.build_schedule_context(
            instance=runner.instance,
            scheduled_execution_time=core.CAME.astimezone(UTC) + after,
            repository_def=definitions.get_repository_def(),
        )
        with context:
            return definitions.resolve_schedule_def("demo_masters_schedule").evaluate_tick(context)

    return evaluate


def run(settings, runner, request):
    """Carry a request out as the daemon has it done: by its tags alone."""
    definitions = define(settings, workers=schedule_workers(runner))
    return definitions.resolve_job_def("__ASSET_JOB").execute_in_process(
        instance=runner.instance,
        tags={**request.tags, "dagster/run_key": request.run_key},
        asset_selection=list(request.asset_selection),
        raise_on_error=False,
    )


def schedule_workers(runner):
    from seechange_assets.resources import Workers

    return Workers(runner.pool)


def kinds(data):
    return [request.asset_selection[0].path[-1] for request in data.run_requests]


def test_it_runs_without_being_asked(settings):
    schedule = define(settings).resolve_schedule_def("demo_masters_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.cron_schedule == "*/2 * * * *"


def test_it_waits_until_the_nights_frames_are_in(tick):
    early = tick(QUIET - timedelta(minutes=1))
    assert early.run_requests == []
    assert "bias 2025-01-01 waits until its night's frames are in" in early.skip_message
    assert kinds(tick()) == ["bias"]
    assert tick(LOOK_BACK + timedelta(minutes=1)).run_requests == []


def test_one_kind_after_the_other_until_all_are_there(tick, settings, runner):
    for kind in KINDS:
        (request,) = tick().run_requests
        assert request.asset_selection == [asset_key("demo", kind)]
        assert run(settings, runner, request).success
        first = "2025-01-01" if kind in ("bias", "dark") else "2025-01-01_r"
        made = runner.instance.get_materialized_partitions(asset_key("demo", kind))
        assert made == {f"{first}|{n}" for n in range(4)}
    done = tick()
    assert done.run_requests == [] and "every master" in done.skip_message


def test_what_the_schedule_asks_for_is_what_the_command_line_runs(tick, runner):
    (request,) = tick().run_requests
    runner.build_masters("demo")
    ours = [r for r in runner.instance.get_runs() if r.tags["seechange/master"] == "demo/bias/2025-01-01"]
    assert {name: value for name, value in request.tags.items() if name in ours[0].tags} == {
        name: value for name, value in request.tags.items() if name != "dagster/schedule_name"
    }


@pytest.mark.parametrize("who", ["schedule", "job", "another night"])
def test_nothing_is_requested_that_is_being_built(tick, runner, who):
    (request,) = tick().run_requests
    tags = dict(request.tags)
    if who == "another night":
        tags |= {name: "2025-01-07|0" for name in tags if "range" in name}
    run = dg.DagsterRun(
        "demo_bias_masters" if who == "job" else "__ASSET_JOB",
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=None if who == "job" else frozenset(request.asset_selection),
        tags=tags,
    )
    runner.instance.add_run(run)
    again = tick()
    assert kinds(again) == (["bias"] if who == "another night" else [])
    if who != "another night":
        assert "bias 2025-01-01 is being built; dark 2025-01-01 waits for bias" in again.skip_message


def test_a_failure_is_tried_again_only_when_its_frames_change(
    tick, settings, runner, plan, core, monkeypatch
):
    plan({f"bias|{n}": ("failed", "too few frames") for n in range(4)})
    (request,) = tick().run_requests
    assert not run(settings, runner, request).success
    (ended_run,) = runner.instance.get_runs()
    assert BY_ITS_FRAMES in ended_run.tags
    # What cannot be had is not waited for: the dark says itself what it lacks.
    after = tick()
    assert kinds(after) == ["dark"]
    more = [
        replace(master, version="of-more") if master.key.kind == "bias" else master
        for master in core.look_for_masters(settings, "demo")
    ]
    monkeypatch.setattr(seechange_core.chain, "look_for_masters", lambda *_, **__: more)
    (again,) = tick().run_requests
    assert again.asset_selection == [asset_key("demo", "bias")]
    assert again.run_key != request.run_key


def test_masters_of_other_nights_wait_only_where_they_have_none_else(settings, runner, core):
    """A night without bias frames: its dark takes the nearest bias, and waits if there is none yet."""
    bias, dark, *_ = core.look_for_masters(settings, "demo")
    dark = replace(dark, key=dark.key._replace(night="2025-01-02"))
    now = core.CAME + QUIET
    assert schedules.choose(runner.instance, "demo", [bias, dark], now)[0] == [bias, dark]
    lacking = replace(dark, lacking=frozenset({"bias"}))
    requests, waiting, _ = schedules.choose(runner.instance, "demo", [bias, lacking], now)
    assert requests == [bias]
    assert waiting == ["dark 2025-01-02 waits for bias 2025-01-01"]
    flat, twilight = core.look_for_masters(settings, "demo")[2:]
    other = replace(twilight, key=twilight.key._replace(filter="g"))
    assert schedules.choose(runner.instance, "demo", [flat, other], now)[0] == [flat, other]
    assert schedules.choose(runner.instance, "demo", [flat, twilight], now)[0] == [flat]


def ended(runner, request, status):
    run = dg.DagsterRun("__ASSET_JOB", status=status, tags=request.tags)
    runner.instance.add_run(run)


@pytest.mark.parametrize("status", ["CANCELED", "FAILURE"])
def test_what_failed_for_a_passing_reason_is_tried_three_times(tick, runner, status):
    keys = []
    for _ in range(schedules.ATTEMPTS):
        (request,) = tick().run_requests
        assert request.asset_selection == [asset_key("demo", "bias")]
        keys.append(request.run_key)
        ended(runner, request, dg.DagsterRunStatus[status])
    assert len(set(keys)) == schedules.ATTEMPTS
    assert kinds(tick()) == ["dark"]


def test_what_was_made_is_not_made_again(tick, runner):
    (request,) = tick().run_requests
    ended(runner, request, dg.DagsterRunStatus.SUCCESS)
    assert kinds(tick()) == ["dark"]


def test_a_killed_worker_is_no_verdict_on_the_frames(tick, settings, runner, monkeypatch, core):
    """As on a machine without memory; or with a full disk, which the core reports in the same way."""

    def broken(settings, instrument, kind, night, section, band=None, redo=False):
        return replace(core.build_master(settings, instrument, kind, night, section), **fate)

    monkeypatch.setattr(runner.pool, "run", lambda _, tasks: map(result, enumerate(tasks)))

    def result(task):
        return TaskResult(task[0], broken(*task[1]))

    fate = {"outcome": Outcome.FAILED, "reason": PipelineError.reason, "message": "No space left on device"}
    (request,) = tick().run_requests
    assert not run(settings, runner, request).success
    (settings.data_root / "master_bias").unlink()
    (again,) = tick().run_requests
    assert again.asset_selection == request.asset_selection and again.run_key != request.run_key
    fate = {"outcome": Outcome.FAILED, "reason": BadDataError.reason, "message": "too few frames"}
    assert not run(settings, runner, again).success
    (settings.data_root / "master_bias").unlink()
    assert kinds(tick()) == ["dark"]
