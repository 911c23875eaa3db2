"""Dagster on PostgreSQL, beside the survey's own tables: the same everything, written by several at once."""

import os
import subprocess
import sys

import fake_core
import pytest
from sqlalchemy import inspect

from seechange_assets import window
from seechange_assets.chain import asset_key
from seechange_assets.home import make_home, open_instance
from seechange_assets.run import Runner
from seechange_core.settings import load_settings, use_settings
from seechange_core.storage.engine import get_engine
from seechange_core.storage.migrate import upgrade

NAMES = ("e1", "e2")


@pytest.fixture
def postgresql(postgresql_database, tmp_path, core, monkeypatch):
    """Settings whose database is an empty PostgreSQL one, made ready as `seechange init` does."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    environ = {
        "SEECHANGE_PATH__DATA_ROOT": str(tmp_path),
        "SEECHANGE_DATABASE_URL": postgresql_database,
    }
    settings = load_settings(environ=environ)
    upgrade(settings)
    make_home(settings)
    with use_settings(settings):
        yield settings


def process(settings, name):
    with Runner(settings, jobs=1) as runner:
        runner.process("demo", [name])


def test_several_processes_write_at_once(postgresql):
    environ = {
        **os.environ,
        "SEECHANGE_PATH__DATA_ROOT": str(postgresql.data_root),
        "SEECHANGE_DATABASE_URL": postgresql.database_url,
    }
    workers = [subprocess.Popen([sys.executable, fake_core.__file__, name], env=environ) for name in NAMES]
    assert [worker.wait() for worker in workers] == [0, 0]
    with open_instance(postgresql) as instance:
        for step in fake_core.STEPS:
            made = instance.get_materialized_partitions(asset_key("demo", step.name))
            assert sorted(made) == [f"{name}|{section}" for name in NAMES for section in range(4)]
        assert {run.status.value for run in instance.get_runs()} == {"SUCCESS"}
    tables = inspect(get_engine(postgresql))
    assert "exposures" in tables.get_table_names()
    assert "runs" not in tables.get_table_names()
    assert "runs" in tables.get_table_names(schema="dagster")


def test_nights_are_retired_and_runs_forgotten(postgresql, monkeypatch):
    monkeypatch.setattr("seechange_core.chain.nights_of", lambda *_: {"e1": "2026-01-01", "e2": "2026-02-01"})
    for name in NAMES:
        process(postgresql, name)
    with open_instance(postgresql) as instance:
        assert window.retire(instance, postgresql, "demo", 4, before="2026-01-15") == ["e1"]
        assert window.in_window(instance, "demo") == ["e2"]
        assert len(instance.get_runs()) == 1
        made = instance.get_materialized_partitions(asset_key("demo", "image"))
        assert sorted(made) == [f"e2|{section}" for section in range(4)]
