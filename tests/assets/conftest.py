"""The assets on a core that needs no pixels."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).parent))
import fake_core

import seechange_core.chain
from seechange_assets.home import make_home
from seechange_core.settings import load_settings, use_settings

FAKED = (
    *("STEPS", "walk", "provenances", "look_for_masters", "build_master", "reference_reports"),
    *("exposures", "references_wanted", "master_keys", "nights_serving", "standing_verdicts"),
)


@pytest.fixture
def core(monkeypatch):
    """Put the core that needs no pixels in place of the real one."""
    for name in FAKED:
        monkeypatch.setattr(seechange_core.chain, name, getattr(fake_core, name))
    monkeypatch.setattr("seechange_assets.run.is_cold", lambda: False)
    camera = SimpleNamespace(get_section_ids=lambda: [0, 1, 2, 3])
    monkeypatch.setattr("seechange_assets.definitions.get_instrument_instance", lambda name: camera)
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
