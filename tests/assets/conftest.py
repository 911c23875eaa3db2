"""The assets on a core that needs no pixels."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
import fake_core

from seechange_assets.home import make_home
from seechange_core.settings import load_settings, use_settings


@pytest.fixture
def core(monkeypatch):
    """Put the core that needs no pixels in place of the real one."""
    fake_core.put_in_place(monkeypatch.setattr)
    return fake_core


@pytest.fixture
def settings(tmp_path, core, monkeypatch):
    """Settings with a Dagster instance of their own."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    settings = load_settings(environ={"SEECHANGE_PATH__DATA_ROOT": str(tmp_path)})
    make_home(settings)
    with use_settings(settings):
        yield settings


@pytest.fixture
def plan(settings):
    """Set the fates of sections: ``plan({"e1|2": ("stopped", "image")})``."""
    return lambda fates: fake_core.make_plan(settings, fates)
