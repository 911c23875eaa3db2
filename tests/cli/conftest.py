"""The commands on the core that needs no pixels, which the tests of the assets keep."""

import importlib.util
import sys
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
sys.path.append(str(ASSETS))
_spec = importlib.util.spec_from_file_location("assets_fixtures", ASSETS / "conftest.py")
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)

core = _fixtures.core
settings = _fixtures.settings
plan = _fixtures.plan
