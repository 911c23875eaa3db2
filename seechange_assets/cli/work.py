"""Commands that make products: process, reference build."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once

from typing import Annotated

import typer

from seechange_assets.cli.output import Progress, as_dict, print_json, print_table, summarize

Jobs = Annotated[
    int, typer.Option("--jobs", "-j", min=0, help="Sections worked on at once; 0: one per core.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Redo = Annotated[bool, typer.Option("--redo", help="Make again what is there and up to date.")]
InstrumentName = Annotated[
    str | None,
    typer.Option("--instrument", help="Name of the instrument; default: the first one configured."),
]

references = typer.Typer(
    help="References for sky regions and filters.", no_args_is_help=True, rich_markup_mode=None
)


def add_to(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("process")(process)
    app.add_typer(references, name="reference")


def process(
    exposures: Annotated[
        list[str] | None, typer.Argument(help="Names of exposures; default: all science exposures.")
    ] = None,
    section: Annotated[
        list[str] | None, typer.Option("--section", help="Only this section; repeatable.")
    ] = None,
    through: Annotated[str | None, typer.Option("--through", help="Last step, e.g. zero_point.")] = None,
    redo: Redo = False,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> int:
    """Take exposures through the chain, building the master frames they need first.

    What is there and up to date is loaded, not made again; what stopped or failed is tried again.

    Example: seechange process demo_20250101_033000_sci --through zero_point --jobs 4
    """
    from seechange_assets.survey import process_exposures

    with Progress("section") as progress:
        reports = process_exposures(
            exposures, sections=section, through=through, redo=redo, jobs=jobs, progress=progress
        )
    return summarize(reports, "section", as_json)


@references.command("build")
def build(
    region: Annotated[
        list[str] | None, typer.Option("--region", help="Only this sky region; repeatable.")
    ] = None,
    band: Annotated[str | None, typer.Option("--filter", help="Only this filter.")] = None,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Also make, for each exposure, a reference without it.")
    ] = False,
    night: Annotated[
        list[str] | None, typer.Option("--night", help="Only images of this night, YYYY-MM-DD; repeatable.")
    ] = None,
    instrument: InstrumentName = None,
    redo: Redo = False,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> int:
    """Build references from the calibrated images of each sky region and filter.

    Example: seechange reference build --filter r --leave-one-out
    """
    from seechange_assets.survey import build_references

    with Progress("reference") as progress:
        reports = build_references(
            instrument=instrument, regions=region, band=band, leave_one_out=leave_one_out,
            nights=night or (), redo=redo,
            jobs=jobs, progress=progress,
        )  # fmt: skip
    return summarize(reports, "reference", as_json)


@references.command("list")
def list_references(
    instrument: Annotated[str | None, typer.Option("--instrument", help="Only of this instrument.")] = None,
    as_json: Json = False,
) -> int:
    """List the references there are.

    Example: seechange reference list --json
    """
    from seechange_core.chain.queries import list_references as made
    from seechange_core.settings import get_settings

    rows = [as_dict(row) for row in made(get_settings())]
    if instrument is not None:
        rows = [row for row in rows if row["instrument"] == instrument]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, list(rows[0]))
    else:
        typer.echo("no references yet (seechange reference build)")
    return 0
