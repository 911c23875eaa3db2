"""Reports of nights as assets: made when something changed, once for each change, and shown."""

from datetime import UTC, datetime

import dagster as dg
import pytest

import seechange_core.chain
from seechange_assets.chain import asset_key
from seechange_assets.definitions import define
from seechange_assets.reports import CHECK, DIMENSION, LOOK_BACK
from seechange_assets.run import Runner
from seechange_core.chain import NightState, WrittenReport
from seechange_core.errors import PipelineError
from seechange_core.qa.night import Problem

NOW = datetime(2026, 2, 25, 9, 30, tzinfo=UTC)
KEY = asset_key("demo", "night_report")
PNG = bytes.fromhex("89504e470d0a1a0a")


class Nights:
    """Nights whose reports need no exposures."""

    def __init__(self):
        self.versions = {"2026-02-24": "v1"}
        self.failures = ()
        self.asked_since = None
        self.broken = False

    def recent(self, settings, instrument, since):
        self.asked_since = since
        return [NightState(night, version) for night, version in sorted(self.versions.items())]

    def write(self, settings, instrument, night):
        if self.broken:
            raise PipelineError("the disk is full", cure="make room")
        figures = {"seeing_arcsec": 1.1, "sections_failed": float(len(self.failures))}
        filters = ({"filter": "r", "depth_mag": 22.5, "sky_mag": None},)
        path = f"reports/{instrument}/{night}.html"
        return WrittenReport(path, self.versions[night], figures, filters, self.failures, PNG)


@pytest.fixture
def nights(monkeypatch):
    nights = Nights()
    monkeypatch.setattr(seechange_core.chain, "recent_nights", nights.recent)
    monkeypatch.setattr(seechange_core.chain, "write_night_report", nights.write)
    return nights


@pytest.fixture
def runner(settings, nights):
    with Runner(settings, jobs=1) as runner:
        yield runner


@pytest.fixture
def tick(settings, runner):
    definitions = define(settings)

    def evaluate(now=NOW):
        context = dg.build_schedule_context(
            instance=runner.instance,
            scheduled_execution_time=now,
            repository_def=definitions.get_repository_def(),
        )
        with context:
            return definitions.resolve_schedule_def("demo_report_schedule").evaluate_tick(context)

    return evaluate


def carry_out(settings, runner, request):
    """Carry a request out as the daemon has it done: by its tags and partition alone."""
    return (
        define(settings)
        .resolve_job_def("__ASSET_JOB")
        .execute_in_process(
            instance=runner.instance,
            partition_key=request.partition_key,
            tags={**request.tags, "dagster/run_key": request.run_key},
            asset_selection=list(request.asset_selection),
            raise_on_error=False,
        )
    )


def test_it_runs_without_being_asked(settings):
    schedule = define(settings).resolve_schedule_def("demo_report_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.cron_schedule == "*/30 * * * *"


def test_a_night_is_told_once_for_each_change(tick, settings, runner, nights):
    (request,) = tick().run_requests
    assert (request.partition_key, request.asset_selection) == ("2026-02-24", [KEY])
    assert nights.asked_since == NOW - LOOK_BACK
    assert carry_out(settings, runner, request).success
    assert runner.instance.get_materialized_partitions(KEY) == {"2026-02-24"}
    told = tick()
    assert told.run_requests == [] and told.skip_message == "2026-02-24 is told as it is"
    nights.versions["2026-02-24"] = "v2"
    (again,) = tick().run_requests
    assert again.run_key != request.run_key
    assert carry_out(settings, runner, again).success
    assert tick().run_requests == []


def test_nothing_new_is_said_so(tick, nights):
    nights.versions = {}
    assert tick().skip_message == f"no science exposure of demo since {NOW - LOOK_BACK:%Y-%m-%d}"


def test_one_at_a_time(tick, runner, nights):
    (request,) = tick().run_requests
    run = dg.DagsterRun("__ASSET_JOB", status=dg.DagsterRunStatus.STARTED, tags=dict(request.tags))
    runner.instance.add_run(run)
    nights.versions |= {"2026-02-24": "v2", "2026-02-25": "v1"}
    data = tick()
    assert [r.partition_key for r in data.run_requests] == ["2026-02-25"]
    del nights.versions["2026-02-25"]
    assert tick().skip_message == "2026-02-24 is being told"


def test_what_fails_is_tried_a_few_times_until_something_changes(tick, settings, runner, nights):
    nights.broken = True
    keys = set()
    for _ in range(3):
        (request,) = tick().run_requests
        keys.add(request.run_key)
        assert not carry_out(settings, runner, request).success
    assert len(keys) == 3
    assert "2026-02-24 was tried 3 times" in tick().skip_message
    nights.versions["2026-02-24"] = "v2"
    assert len(tick().run_requests) == 1


def test_the_report_is_shown_with_its_figures_and_what_failed(runner, nights):
    nights.failures = (Problem("failed", "image", "header", (("e1", "0", "e1: no gain (a cure)"),)),)
    runner.report("demo", "2026-02-24")
    assert runner.instance.get_dynamic_partitions(f"demo_{DIMENSION}s") == ["2026-02-24"]
    record = runner.instance.fetch_materializations(KEY, limit=1).records[0]
    made = record.asset_materialization
    assert made.partition == "2026-02-24" and made.tags["dagster/data_version"] == "v1"
    assert made.metadata["seeing_arcsec"].value == 1.1
    assert made.metadata["report"].path.endswith("reports/demo/2026-02-24.html")
    assert made.metadata["page"].url == "http://127.0.0.1:3001/report/demo/2026-02-24"
    assert "data:image/png;base64," in made.description
    check = dg.AssetCheckKey(KEY, CHECK)
    (evaluated,) = runner.instance.event_log_storage.get_asset_check_execution_history(check, limit=9)
    evaluation = evaluated.event.dagster_event.event_specific_data
    assert not evaluation.passed and "no gain (a cure)" in evaluation.description
    assert evaluated.partition == "2026-02-24"


def test_whatever_breaks_is_an_error_of_the_command(runner, nights):
    nights.broken = True
    with pytest.raises(PipelineError, match="the disk is full"):
        runner.report("demo", "2026-02-24")


def test_masters_and_reports_have_nights_of_their_own(settings):
    graph = define(settings).resolve_asset_graph()
    assert graph.get(KEY).partitions_def.name == "demo_science_nights"
    assert graph.get(asset_key("demo", "bias")).partitions_def.get_partitions_def_for_dimension(
        "night"
    ).name == ("demo_nights")
