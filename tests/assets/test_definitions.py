"""The definitions load for every instrument, or say clearly why not; the instance is as it should be."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from seechange_assets.definitions import define, defs
from seechange_assets.home import make_home, open_instance
from seechange_core.settings import load_settings, use_settings


def load(tmp_path, config):
    file = tmp_path / "settings.yaml"
    file.write_text(config)
    program = "from seechange_assets.definitions import defs; print(len(list(defs().assets)))"
    environment = {"PATH": "/usr/bin", "SEECHANGE_CONFIG": str(file)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )


def test_wrong_settings_are_named_at_the_end(tmp_path):
    done = load(tmp_path, "extract: {treshold: 3}\n")
    assert done.returncode != 0
    assert "extract.treshold" in done.stderr.splitlines()[-1]


def test_unknown_instruments_are_named_at_the_end(tmp_path):
    done = load(tmp_path, "instruments: {nonsense: {}}\n")
    assert done.returncode != 0
    assert "nonsense" in done.stderr.splitlines()[-1]


def test_dagster_loads_the_workspace_with_nothing_set():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"]
    done = subprocess.run(
        command, cwd=root, env={"PATH": "/usr/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_each_settings_have_a_home_of_their_own(tmp_path, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    for name in ("a", "b"):
        settings = load_settings(environ={"SEECHANGE_PATH__DATA_ROOT": str(tmp_path / name)})
        make_home(settings)
        with open_instance(settings) as instance:
            assert instance.root_directory == str(tmp_path / name / "dagster")


def test_the_module_is_what_dagster_loads(tmp_path):
    settings = load_settings(environ={"SEECHANGE_PATH__DATA_ROOT": str(tmp_path)})
    with use_settings(settings):
        loaded = defs()
    dg.Definitions.validate_loadable(loaded)
    groups = {spec.group_name for spec in loaded.resolve_all_asset_specs()}
    assert groups == {"demo"}
    assert all(spec.key.path[0] == "demo" for spec in loaded.resolve_all_asset_specs())


def test_every_instrument_has_its_own_group(settings, core):
    two = settings.model_copy(update={"instruments": {"demo": {}, "other": {}}})
    specs = list(define(two).resolve_all_asset_specs())
    assert {spec.group_name for spec in specs} == {"demo", "other"}
    assert len(specs) == 2 * (len(core.STEPS) + 6)


def test_the_instance_keeps_to_its_folder_and_to_itself(settings):
    with open_instance(settings) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.run_monitoring_max_runtime_seconds > 0
        assert instance.root_directory == str(settings.data_root / "dagster")
    names = {path.name for path in (settings.data_root / "dagster").iterdir()}
    assert {"dagster.yaml", "events", "runs.db", "schedules.db", ".nux"} <= names


def test_a_home_that_is_there_is_kept(settings):
    config = settings.data_root / "dagster" / "dagster.yaml"
    config.write_text("telemetry: {enabled: false}\n")
    make_home(settings)
    assert config.read_text() == "telemetry: {enabled: false}\n"


@pytest.mark.parametrize(
    "job", ["demo_process", "demo_bias_masters", "demo_twilight_flat_masters", "demo_references"]
)
def test_jobs_resolve(settings, job):
    assert define(settings).resolve_job_def(job).partitions_def is not None
