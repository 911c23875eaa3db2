"""Commands that make products: process, reference build."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once

from typing import Annotated

import typer

from seechange_assets.cli.output import Progress, as_dict, check_night, print_json, print_table, summarize

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
    outdated: Annotated[
        bool, typer.Option("--outdated", help="Only those that the present settings would make differently.")
    ] = False,
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
            exposures, sections=section, through=through, outdated=outdated, redo=redo, jobs=jobs,
            progress=progress,
        )  # fmt: skip
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
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Leave out this exposure; repeatable.")
    ] = None,
    use: Annotated[
        bool, typer.Option("--use", help="Use them from now on, whatever was used before.")
    ] = False,
    instrument: InstrumentName = None,
    redo: Redo = False,
    jobs: Jobs = 0,
    as_json: Json = False,
) -> int:
    """Build references from the best calibrated images of each sky region and filter.

    The first version of a reference is used at once. A later one, of other images, is a proposal: no exposure
    is subtracted from it until `reference use`.

    Example: seechange reference build --filter r --leave-one-out
    """
    from seechange_assets.survey import build_references
    from seechange_core import chain
    from seechange_core.settings import get_settings

    for one in night or ():
        check_night(one, {row.night for row in chain.exposures(get_settings())})
    with Progress("reference") as progress:
        reports = build_references(
            instrument=instrument, regions=region, band=band, leave_one_out=leave_one_out,
            nights=night or (), without=without or (), use=use, redo=redo,
            jobs=jobs, progress=progress,
        )  # fmt: skip
    return summarize(reports, "reference", as_json)


@references.command("use")
def use_references(
    region: Annotated[
        list[str] | None, typer.Option("--region", help="Only this sky region; repeatable.")
    ] = None,
    band: Annotated[str | None, typer.Option("--filter", help="Only this filter.")] = None,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Which; default: the newest that is not bad.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; it is kept.")] = None,
    instrument: InstrumentName = None,
    as_json: Json = False,
) -> int:
    """Use other versions of references from now on: nothing else ever changes what a survey is compared with.

    Sections that are processed again then get new differences beside the old ones. Exposures that are in the
    new version stay on the one before, unless it was also built without them (`reference build
    --leave-one-out`): which these are is told.

    Example: seechange reference use --region r0481_0021 --filter r --version 2 --reason "deeper by 0.4 mag"
    """
    from seechange_assets.definitions import instruments_of
    from seechange_core.chain import use_references as use
    from seechange_core.settings import get_settings

    settings = get_settings()
    name = instrument or instruments_of(settings)[0]
    rows = use(settings, name, region or (), band, version, reason)
    if as_json:
        print_json([as_dict(row) for row in rows])
    else:
        print_table([as_dict(row) for row in rows], ["region", "filter", "before", "version"])
        typer.echo(f"{sum(row.before != row.version for row in rows)} changed")
        for row in rows:
            for other in sorted(set(row.staying.values()), key=lambda v: v or 0):
                names = [name for name, v in row.staying.items() if v == other]
                instead = f"stay on version {other}" if other else "have none: build it with --leave-one-out"
                typer.echo(
                    f"{row.region} in {row.filter}: {len(names)} sections are in version "
                    f"{row.version} and {instead}: {', '.join(names)}"
                )
    return 0


@references.command("list")
def list_references(
    region: Annotated[
        list[str] | None, typer.Option("--region", help="Only this sky region; repeatable.")
    ] = None,
    band: Annotated[str | None, typer.Option("--filter", help="Only this filter.")] = None,
    instrument: Annotated[str | None, typer.Option("--instrument", help="Only of this instrument.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also those that leave an exposure out, and of other settings.")
    ] = False,
    as_json: Json = False,
) -> int:
    """List the versions of references: which is used, which are proposed, which hold exposures now bad.

    Outdated is what was used until code or parameters changed: nothing is subtracted from it now, and nothing
    of the present ones is in its place yet (`reference build --use`).

    Example: seechange reference list --filter r
    """
    from seechange_core.chain import list_references as made
    from seechange_core.settings import get_settings

    rows = [as_dict(row) for row in made(get_settings())]
    wanted = {"instrument": instrument, "filter": band}
    rows = [
        row
        for row in rows
        if all(value in (None, row[name]) for name, value in wanted.items())
        and (not region or row["region"] in region)
        and (every or (row["left_out"] is None and (row["current"] or row["state"] == "outdated")))
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, list(rows[0]))
    else:
        typer.echo("no references yet (seechange reference build)")
    return 0
