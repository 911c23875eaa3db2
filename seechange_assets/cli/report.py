"""The command that makes the report of a night."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once

from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("report")(report)


def report(
    night: Annotated[
        str | None, typer.Option("--night", help="Date of its evening, YYYY-MM-DD; default: the last one.")
    ] = None,
    instrument: Annotated[
        str | None, typer.Option("--instrument", help="Default: the only one, or the first configured.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write it to this file, and nothing else is kept.")
    ] = None,
) -> int:
    """Make the report of a night, one page that opens in any browser, and print where it is.

    It is kept as reports/INSTRUMENT/NIGHT.html under the data root, and shown in the web UI as the asset
    night_report; while `seechange ui` runs it is made, and made again, without being asked for.

    Example: seechange report --night 2026-03-14
    """
    from seechange_assets.definitions import instruments_of
    from seechange_assets.survey import make_report
    from seechange_core import chain
    from seechange_core.settings import get_settings

    settings = get_settings()
    name = instrument or instruments_of(settings)[0]
    night = night or chain.last_night(settings, name)
    if out is None:
        typer.echo(make_report(name, night, settings))
    else:
        out.write_text(chain.night_report(settings, name, night), encoding="utf-8")
        typer.echo(out)
    return 0
