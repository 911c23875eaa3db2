"""The command line: `seechange`. Thin wiring over functions that scripts can call as well."""

from seechange_assets.cli.app import main, run

__all__ = ["main", "run"]
