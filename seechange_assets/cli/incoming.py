"""Commands about raw files that arrive where the settings say: list, look, retry."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once

from typing import Annotated

import typer

from seechange_assets.cli.output import as_dict, print_json, print_table

InstrumentName = Annotated[
    str | None, typer.Option("--instrument", help="Only of this instrument; default: all.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

app_incoming = typer.Typer(
    help="Raw files that arrive where the settings say (incoming: {decam: /data/raw}).",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(app_incoming, name="incoming")


@app_incoming.command("list")
def list_files(
    instrument: InstrumentName = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that were registered.")] = False,
    as_json: Json = False,
) -> int:
    """List the files that are waited for and those that were set aside, with the reason.

    Example: seechange incoming list --instrument decam
    """
    from seechange_core.chain import list_incoming
    from seechange_core.products.incoming_file import STATES
    from seechange_core.settings import get_settings

    states = STATES if every else ("waiting", "refused")
    rows = [as_dict(row) for row in list_incoming(get_settings(), instrument, states)]
    if as_json:
        print_json([{**row, "settled_at": row["settled_at"].isoformat()} for row in rows])
        return 0
    for row in rows:
        row["file"], row["message"] = row["address"].rpartition("/")[2], row["message"] or "-"
    columns = ["state", "file", "reason", "message"]
    print_table(rows, ["exposure", *columns] if every else columns)
    if not rows:
        typer.echo("no file is waited for, and none was set aside")
    return 0


@app_incoming.command("look")
def look(instrument: InstrumentName = None, as_json: Json = False) -> int:
    """Look for new files now, and register those that are complete: what the web UI's sensor does.

    Example: seechange incoming look
    """
    from seechange_assets.survey import register_exposures
    from seechange_core.chain import take_in
    from seechange_core.errors import SettingsError
    from seechange_core.settings import get_settings

    settings = get_settings()
    names = [instrument] if instrument is not None else list(settings.incoming)
    if not names:
        raise SettingsError(
            "incoming names no place where files arrive", cure="add it: incoming: {decam: /data/raw}"
        )
    looks = {name: take_in(settings, name, seconds=float("inf")) for name in names}
    for name, found in looks.items():
        rows = [result.exposure for result in found.registered]
        register_exposures([row.name for row in rows if row.type == "science"], [name], settings)
        if not as_json:
            typer.echo(
                f"{name}: {len(rows)} registered, {found.waiting} not complete yet, "
                f"{len(found.refused)} set aside"
            )
            for words in (*map(str, found.refused.values()), *(f"{p}: {w}" for p, w in found.silent.items())):
                typer.echo(words, err=True)
    if as_json:
        print_json({
            name: {
                "registered": [result.exposure.name for result in found.registered],
                "waiting": found.waiting,
                "set_aside": {file: str(error) for file, error in found.refused.items()},
                "silent": found.silent,
            }
            for name, found in looks.items()
        })  # fmt: skip
    return int(any(found.refused or found.silent for found in looks.values()))


@app_incoming.command("retry")
def retry(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Names or addresses; default: all that were set aside."),
    ] = None,
    instrument: InstrumentName = None,
) -> int:
    """Have files that were set aside tried again: at the sensor's next look, or by `incoming look`.

    Example: seechange incoming retry c4d_260211_031500_ori.fits.fz
    """
    from seechange_core.chain import retry_incoming
    from seechange_core.settings import get_settings

    again = retry_incoming(get_settings(), instrument, files or None)
    for address in again:
        typer.echo(address)
    typer.echo(f"{len(again)} to be tried again")
    return 0
