"""Commands about what the web UI holds: retire, reopen, purge. The database and the files keep everything."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once

from collections import Counter
from datetime import timedelta
from typing import Annotated

import typer

from seechange_assets.cli.output import check_date

InstrumentName = Annotated[
    str | None, typer.Option("--instrument", help="Only of this instrument; default: of all in use.")
]


def add_to(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("retire")(retire)
    app.command("reopen")(reopen)
    app.command("purge")(purge)


def _instruments(name: str | None) -> list[str]:
    from seechange_assets.definitions import instruments_of
    from seechange_core.errors import NotFoundError
    from seechange_core.settings import get_settings

    known = instruments_of(get_settings())
    if name is not None and name not in known:
        raise NotFoundError(
            f"instrument {name!r} is not among those in use", cure=f"these are: {', '.join(known)}"
        )
    return known if name is None else [name]


def retire(
    before: Annotated[
        str | None,
        typer.Option("--before", help="Retire the nights before this one, YYYY-MM-DD; default: by `window`."),
    ] = None,
    instrument: InstrumentName = None,
) -> int:
    """Take old nights out of the web UI, which serves some 100,000 sections well; the database keeps them.

    A schedule does so by itself while `seechange ui` runs, as the settings say (window: {nights: 30}).

    Example: seechange retire --before 2026-02-01
    """
    from seechange_assets.definitions import sections_of
    from seechange_assets.home import open_instance
    from seechange_assets.window import retire as retire_exposures
    from seechange_core.settings import get_settings

    settings = get_settings()
    if before is not None:
        check_date(before, "--before")
    with open_instance(settings) as instance:
        for name in _instruments(instrument):
            n_sections = len(sections_of(name))
            names = retire_exposures(instance, settings, name, n_sections, before)
            typer.echo(f"{name}: {len(names)} exposures retired (seechange reopen NAME shows one again)")
    return 0


def reopen(
    exposures: Annotated[list[str], typer.Argument(help="Names of exposures.")],
) -> int:
    """Show exposures in the web UI again that were retired, with what became of each section.

    Example: seechange reopen c4d_260211_031500_ori
    """
    from seechange_assets.home import open_instance
    from seechange_assets.window import reopen as reopen_exposures
    from seechange_core import chain
    from seechange_core.settings import get_settings

    settings = get_settings()
    by_instrument: dict[str, list[str]] = {}
    for row in chain.exposures(settings, exposures, with_bad=True):
        by_instrument.setdefault(row.instrument, []).append(row.name)
    with open_instance(settings) as instance:
        for instrument, names in by_instrument.items():
            reports = reopen_exposures(instance, settings, instrument, names)
            fates = Counter(str(report.outcome) for report in reports if report.step == chain.STEPS[-1].name)
            words = ", ".join(f"{n} sections {fate}" for fate, n in fates.items()) or "no section to the end"
            typer.echo(f"{instrument}: {len(names)} exposures shown again; {words}")
    return 0


def purge(
    days: Annotated[float, typer.Option("--days", min=0, help="Forget runs that are older than this.")] = 30,
    instrument: InstrumentName = None,
) -> int:
    """Forget finished runs that are old and about nothing that the web UI shows, which frees their space.

    Example: seechange purge --days 7
    """
    from seechange_assets.home import open_instance
    from seechange_assets.window import purge as purge_runs
    from seechange_core.settings import get_settings

    with open_instance(get_settings()) as instance:
        for name in _instruments(instrument):
            n_runs = purge_runs(instance, name, timedelta(days=days))
            typer.echo(f"{name}: {n_runs} runs forgotten")
    return 0
