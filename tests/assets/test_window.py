"""The window: old nights leave Dagster with all it knew of them, and come back as the database has them."""

from datetime import timedelta

import dagster as dg
import pytest
from fake_core import walk

import seechange_core.chain
from seechange_assets import window
from seechange_assets.chain import asset_key
from seechange_assets.definitions import define
from seechange_assets.run import Runner
from seechange_core.settings import Settings

NIGHTS = {"e1": "2026-01-01", "e2": "2026-01-20"}
IMAGE = asset_key("demo", "image")


@pytest.fixture
def runner(settings, monkeypatch):
    def nights_of(settings, instrument, names):
        return {name: NIGHTS[name] for name in names if name in NIGHTS}

    def known_reports(settings, exposure):
        return [report for section in "0123" for report in walk(settings, exposure, section)]

    monkeypatch.setattr(seechange_core.chain, "nights_of", nights_of)
    monkeypatch.setattr(seechange_core.chain, "known_reports", known_reports)
    with Runner(settings, jobs=2) as runner:
        yield runner


@pytest.fixture
def processed(runner):
    for name in NIGHTS:
        runner.process("demo", [name])
    return runner


def statuses(instance, settings):
    """What the web UI shows of the images: materialized and failed sections."""
    definition = define(settings).resolve_asset_graph().get(IMAGE).partitions_def
    from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

    value = get_and_update_asset_status_cache_value(instance, IMAGE, definition)
    made = value.deserialize_materialized_partition_subsets(definition)
    failed = value.deserialize_failed_partition_subsets(definition)
    return tuple(sorted(set(map(str, subset.get_partition_keys()))) for subset in (made, failed))


def sections(*names):
    return [f"{name}|{n}" for name in names for n in range(4)]


def retire(runner, settings, **options):
    return window.retire(runner.instance, settings, "demo", 4, **options)


def test_a_retired_exposure_is_gone_with_its_runs_and_events(processed, settings):
    instance = processed.instance
    assert statuses(instance, settings) == (sections("e1", "e2"), [])
    (run,) = [r for r in instance.get_runs() if window._over(r) == {"e1"}]
    files = list((settings.data_root / "dagster").rglob(f"{run.run_id}.db*"))
    assert files
    assert retire(processed, settings, before="2026-01-10") == ["e1"]
    assert window.in_window(instance, "demo") == ["e2"]
    assert statuses(instance, settings) == (sections("e2"), [])
    assert instance.get_run_by_id(run.run_id) is None
    assert not any(file.exists() for file in files)
    assert instance.get_materialized_partitions(IMAGE) == set(sections("e2"))


def test_it_comes_back_with_its_statuses_from_the_database(processed, settings):
    retire(processed, settings, before="2026-01-10")
    reports = window.reopen(processed.instance, settings, "demo", ["e1"])
    assert len(reports) == 4 * len(seechange_core.chain.STEPS)
    assert statuses(processed.instance, settings) == (sections("e1", "e2"), [])
    wanted = dg.AssetRecordsFilter(asset_key=IMAGE, asset_partitions=["e1|2"])
    (record,) = processed.instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization.tags["dagster/data_version"] == "image-e1-2"
    assert record.asset_materialization.metadata["fwhm_pix"].value == 2.5
    # And is an exposure like any other: processed again, retired again.
    assert {str(r.outcome) for r in processed.process("demo", ["e1"])} == {"loaded"}
    assert retire(processed, settings, before="2026-01-10") == ["e1"]
    assert statuses(processed.instance, settings) == (sections("e2"), [])


def test_what_stopped_or_failed_is_shown_so_again(processed, settings, plan):
    retire(processed, settings, before="2026-01-10")
    for name in ("image", "source_list"):
        for path in settings.data_root.glob(f"e1_2_{name}"):
            path.unlink()
    plan({"e1|2": ("stopped", "source_list")})
    window.reopen(processed.instance, settings, "demo", ["e1"])
    made, _ = statuses(processed.instance, settings)
    assert made == sections("e1", "e2")
    key = dg.AssetCheckKey(asset_key("demo", "source_list"), "outcome")
    records = processed.instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    told = [record.event.dagster_event.event_specific_data for record in records]
    assert {check.partition: check.passed for check in told if check.partition.startswith("e1")} == {
        "e1|0": True, "e1|1": True, "e1|2": False, "e1|3": True,
    }  # fmt: skip


def test_nights_are_retired_by_the_settings_and_never_the_latest(processed, settings):
    def limited(**values):
        return Settings.model_validate({**settings.model_dump(), "window": values})

    assert retire(processed, settings) == []  # nineteen nights: within thirty
    assert retire(processed, limited(nights=20)) == []
    assert retire(processed, limited(nights=19)) == ["e1"]
    window.reopen(processed.instance, settings, "demo", ["e1"])
    many = limited(max_partitions=100)
    assert window.retire(processed.instance, many, "demo", 50) == []
    assert window.retire(processed.instance, many, "demo", 51) == ["e1"]
    assert window.retire(processed.instance, many, "demo", 101) == []


def test_an_exposure_that_is_being_worked_on_stays(processed, settings):
    (run,) = [r for r in processed.instance.get_runs() if window._over(r) == {"e1"}]
    job = define(settings).resolve_job_def("demo_process")
    again = processed.instance.create_run_for_job(job, tags=run.tags)
    assert retire(processed, settings, before="2026-02-01") == ["e2"]
    processed.instance.report_run_failed(again)
    assert retire(processed, settings, before="2026-02-01") == ["e1"]


def test_purging_leaves_what_the_window_shows(processed, settings):
    processed.build_masters("demo")
    instance = processed.instance
    n_runs = len(instance.get_runs())
    assert window.purge(instance, "demo") == 0  # none is old
    assert window.purge(instance, "demo", timedelta(seconds=-1)) == n_runs - 2
    assert window.purge(instance, "demo", timedelta(seconds=-1)) == 0
    assert statuses(instance, settings) == (sections("e1", "e2"), [])


def test_the_schedule_does_both_and_starts_nothing(processed, settings):
    old = Settings.model_validate({**settings.model_dump(), "window": {"nights": 5}})
    definitions = define(old)
    schedule = definitions.resolve_schedule_def("demo_window_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(
        instance=processed.instance, repository_def=definitions.get_repository_def()
    )
    with context:
        data = schedule.evaluate_tick(context)
    assert data.run_requests == []
    assert data.skip_message == "1 exposures retired, 0 old runs forgotten"
