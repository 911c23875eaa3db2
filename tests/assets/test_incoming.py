"""The sensor of incoming data: one run for each exposure, never two, whenever it is ended."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from fake_core import Exposure

import seechange_core.chain
from seechange_assets.chain import asset_key
from seechange_assets.definitions import define
from seechange_assets.home import open_instance
from seechange_assets.incoming import MOST_RUNS
from seechange_assets.schedules import QUIET
from seechange_core.chain import Arrivals, Arrived, IncomingRow
from seechange_core.errors import HeaderError, SettingsError
from seechange_core.products.ingest import Ingested
from seechange_core.settings import Settings

START = datetime.now(UTC)


@dataclass
class Night:
    """What arrived, in a core that needs no files."""

    there: list = field(default_factory=list)
    fresh: list = field(default_factory=list)
    refused: list = field(default_factory=list)
    newly: dict = field(default_factory=dict)
    retried: int = 0

    def arrive(self, *names, night="2025-02-01", kind="science", version="1"):
        for name in names:
            self.fresh.append(Ingested(Exposure(name, night=night, type=kind), "new"))
            if kind == "science":
                self.there.append(Arrived(name, night, START + timedelta(seconds=len(self.there)), version))

    def set_aside(self, name):
        self.newly[name] = HeaderError("no date")
        self.refused.append(IncomingRow("demo", name, "refused", "header", f"{name}: no date", START, None))

    def take_in(self, settings, instrument, seconds=20.0):
        fresh, self.fresh = self.fresh, []
        newly, self.newly = self.newly, {}
        return Arrivals(tuple(fresh), newly)

    def retry(self, settings, instrument):
        self.retried += 1
        self.refused = []

    def arrived(self, settings, instrument, since):
        return [row for row in self.there if row.at >= since]


@pytest.fixture
def night(monkeypatch):
    night = Night()
    monkeypatch.setattr(seechange_core.chain, "take_in", night.take_in)
    monkeypatch.setattr(seechange_core.chain, "arrived", night.arrived)
    monkeypatch.setattr(seechange_core.chain, "retry_incoming", night.retry)
    monkeypatch.setattr(seechange_core.chain, "list_incoming", lambda *_: list(night.refused))
    return night


@pytest.fixture
def watched(settings, night, tmp_path):
    return Settings.model_validate({**settings.model_dump(), "incoming": {"demo": str(tmp_path)}})


@pytest.fixture
def instance(settings):
    with open_instance(settings) as instance:
        yield instance


@pytest.fixture
def tick(watched, instance):
    """Evaluate the sensor, and start the runs it asks for as the daemon does: each key once."""
    cursor = [None]

    def evaluate(start=True):
        definitions = define(watched)
        sensor = definitions.resolve_sensor_def("demo_incoming_sensor")
        context = dg.build_sensor_context(
            instance=instance, cursor=cursor[0], repository_def=definitions.get_repository_def()
        )
        with context:
            data = sensor.evaluate_tick(context)
        for request in data.run_requests if start else ():
            job = definitions.resolve_job_def("demo_process")
            tags = {**request.tags, "dagster/run_key": request.run_key}
            instance.create_run_for_job(job_def=job, tags=tags)
        if start:
            cursor[0] = data.cursor
        return data

    return evaluate


def asked(data):
    return [request.tags["seechange/exposure"] for request in data.run_requests]


def test_without_places_there_is_no_sensor(settings):
    definitions = define(settings)
    assert not definitions.sensors
    assert asset_key("demo", "incoming") not in definitions.resolve_asset_graph().get_all_asset_keys()


def test_it_runs_without_being_asked(watched):
    sensor = define(watched).resolve_sensor_def("demo_incoming_sensor")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds <= 15
    assert sensor.job_name == "demo_process"


def test_each_science_exposure_gets_a_partition_and_one_run_over_its_sections(night, tick, instance):
    night.arrive("e1", "e2")
    first = tick()
    assert asked(first) == ["e1", "e2"]
    assert instance.get_dynamic_partitions("demo_exposures") == ["e1", "e2"]
    tags = first.run_requests[0].tags
    assert tags["dagster/asset_partition_range_start"] == "e1|0"
    assert tags["dagster/asset_partition_range_end"] == "e1|3"
    assert asked(tick()) == []
    night.arrive("e3")
    assert asked(tick()) == ["e3"]
    assert tick().skip_message == "nothing new"


def test_an_exposure_that_comes_whole_later_is_processed_again(night, tick):
    night.arrive("e1")
    assert asked(tick()) == ["e1"]
    night.there = []
    night.arrive("e1", version="2")
    assert asked(tick()) == ["e1"]
    assert asked(tick()) == []


def test_ended_before_its_runs_began_it_asks_again(night, tick):
    night.arrive("e1")
    assert asked(tick(start=False)) == ["e1"]
    assert asked(tick()) == ["e1"]
    assert asked(tick()) == []


def test_an_exposure_waits_for_masters_that_will_serve_it_and_no_other_does(
    night, tick, core, settings, monkeypatch
):
    monkeypatch.setattr(core, "CAME", datetime.now(UTC) - QUIET / 2)
    serving = {"e1": ["2025-01-01"], "e2": ["2025-01-30"]}
    monkeypatch.setattr(seechange_core.chain, "nights_serving", lambda *a: serving[a[-1][0]])
    night.arrive("e1", "e2")
    assert asked(tick()) == ["e2"]
    assert "1 exposures wait for their masters" in tick().skip_message
    for kind in ("bias", "dark", "flat", "twilight_flat"):
        (settings.data_root / f"master_{kind}").touch()
    assert asked(tick()) == ["e1"]
    assert asked(tick()) == []


def test_calibration_frames_add_their_masters_partitions_and_start_nothing(night, tick, instance):
    night.arrive("b1", kind="bias")
    assert asked(tick()) == []
    assert instance.get_dynamic_partitions("demo_nights") == ["2025-01-01"]
    assert instance.get_dynamic_partitions("demo_night_filters") == ["2025-01-01_r"]
    assert instance.get_dynamic_partitions("demo_exposures") == []


def test_a_flood_is_taken_in_portions(night, tick):
    night.arrive(*(f"e{n}" for n in range(2 * MOST_RUNS + 3)))
    portions = [asked(tick()) for _ in range(4)]
    assert [len(portion) for portion in portions] == [MOST_RUNS, MOST_RUNS, 3, 0]
    assert len({name for portion in portions for name in portion}) == 2 * MOST_RUNS + 3


def test_what_was_set_aside_is_shown_with_its_reason(night, tick):
    night.arrive("e1")
    night.set_aside("/raw/bad.fits")
    made, check = tick().asset_events
    assert made.asset_key == check.asset_key == asset_key("demo", "incoming")
    assert made.metadata["science"].value == 1
    assert made.metadata["set_aside"].value == 1
    (row,) = made.metadata["files_set_aside"].records
    assert row.data["file"] == "/raw/bad.fits"
    assert not check.passed
    assert "no date" in check.description
    assert tick().skip_message == "1 files were set aside (seechange incoming list)"


def test_materializing_it_tries_again(night, watched, instance):
    night.set_aside("/raw/bad.fits")
    night.arrive("e1")
    definitions = define(watched)
    (asset,) = [a for a in definitions.assets if asset_key("demo", "incoming") in a.keys]
    result = dg.materialize([asset], instance=instance, resources=definitions.resources)
    assert result.success
    assert night.retried == 1
    (event,) = result.asset_materializations_for_node("demo_incoming")
    assert event.metadata["science"].value == 1
    (check,) = result.get_asset_check_evaluations()
    assert check.passed


def test_places_of_a_camera_that_is_not_in_use_are_refused(settings, night):
    values = {**settings.model_dump(), "instruments": {"demo": {}}, "incoming": {"decam": "raw"}}
    with pytest.raises(SettingsError, match=r"incoming\.decam"):
        define(Settings.model_validate(values))
