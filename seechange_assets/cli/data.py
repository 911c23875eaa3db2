"""Commands that bring data in: simulate, ingest, catalog import."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from seechange_assets.cli.options import with_options
from seechange_assets.cli.output import Progress, print_json
from seechange_core.errors import BadDataError, NotFoundError, SeeChangeError, UserError
from seechange_core.simulate.options import SurveyOptions

catalog = typer.Typer(
    help="The local store of reference catalogs.", no_args_is_help=True, rich_markup_mode=None
)


def add_to(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("simulate")(with_options(simulate, SurveyOptions))
    app.command("ingest")(ingest)
    app.add_typer(catalog, name="catalog")


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write to: raw/, truth/, catalog.ecsv.")],
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, help="Files made at once; 0: one per core.")
    ] = 0,
    **options: Any,
) -> int:
    """Simulate a survey: raw exposures, calibration frames, a reference catalog, and the truth about them.

    Example: seechange simulate demo/survey --exposures 12 --sections 4 --seed 7
    """
    from seechange_core.pool import available_cores
    from seechange_core.simulate import simulate_survey

    survey = SurveyOptions.checked(options, "simulate")
    with Progress("file") as progress:

        def tell(_done: int, total: int, name: str) -> None:
            progress.expect(total, in_all=True)
            progress.step(name)

        simulate_survey(out, survey, tell, jobs=jobs or available_cores())
    files = len(list((out / "raw").iterdir()))
    typer.echo(
        f"{files} raw files in {out / 'raw'}, truth in {out / 'truth'}, catalog {out / 'catalog.ecsv'}"
    )
    camera = {name: getattr(survey, name) for name in ("sections", "section_size_pix", "gap_pix", "parity")}
    usual = SurveyOptions()
    if own := {name: value for name, value in camera.items() if value != getattr(usual, name)}:
        words = ", ".join(f"{name}: {value}" for name, value in own.items())
        typer.echo(f"to process it, say in the settings: instruments: {{demo: {{{words}}}}}")
    return 0


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Raw files, or folders of them.")],
    instrument: Annotated[
        str | None, typer.Option("--instrument", help="Name of the instrument; default: told from the files.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Register raw exposures: science, bias, dark and flat. What cannot be used is refused by name.

    Example: seechange ingest demo/survey/raw
    """
    from seechange_assets.survey import register_exposures
    from seechange_core.products.ingest import ingest as ingest_file
    from seechange_core.settings import get_settings

    settings = get_settings()
    # What a shell makes of a path with '..' is meant; ingest itself refuses names that climb.
    files = _files([Path(os.path.abspath(path)) for path in paths])  # noqa: PTH100 - resolve() follows links
    rows, refused = [], []
    with Progress("file") as progress:
        progress.expect(len(files))
        for file in files:
            try:
                row = ingest_file(file, settings, instrument=instrument)
            except (BadDataError, UserError) as error:
                refused.append((file, error))
                progress.step(f"refused: {_place(file, error)}")
            else:
                rows.append(row)
                progress.step(f"{row.name}: {row.type}")
    science = [row.name for row in rows if row.type == "science"]
    register_exposures(science, list(dict.fromkeys(row.instrument for row in rows)), settings)
    if as_json:
        print_json(
            [{"file": str(f), "refused": str(e), "reason": e.reason} for f, e in refused]
            + [{"name": r.name, "type": r.type, "instrument": r.instrument, "night": r.night} for r in rows]
        )
    else:
        kinds = [row.type for row in rows]
        words = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        typer.echo(f"{len(rows)} exposures: {words}" if rows else "no exposures")
    for file, error in refused:
        typer.echo(f"refused: {_place(file, error)}", err=True)
    return 1 if refused else 0


@catalog.command("import")
def import_catalog(
    table: Annotated[Path, typer.Argument(help="A table astropy reads: ECSV, FITS, VOTable, CSV.")],
    name: Annotated[str, typer.Option("--name", help="What to call it.")],
    epoch: Annotated[float, typer.Option("--epoch", help="Epoch of its positions, Julian year.")] = 2016.0,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Which of its columns is ours, e.g. mag_V=VTmag; repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace one of the same name.")] = False,
) -> int:
    """Fill the local catalog store from a table.

    Example: seechange catalog import demo/survey/catalog.ecsv --name demo
    """
    from seechange_core.catalogs import import_table
    from seechange_core.settings import get_settings

    store = get_settings().data_root / "catalogs"
    info = import_table(table, name, store, epoch=epoch, mapping=_mapping(column or []), overwrite=overwrite)
    typer.echo(f"{info.name}: {info.n_stars} stars, bands {', '.join(info.bands)}, epoch {info.epoch}")
    return 0


def _files(paths: list[Path]) -> list[Path]:
    """List raw files, the visible ones of a folder in the order of their names."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))
            if not inside:
                raise NotFoundError("the folder has no files", file=str(path))
            files += inside
        else:
            files.append(path)
    return files


def _place(file: Path, error: SeeChangeError) -> str:
    return str(error) if error.file else f"{file}: {error}"


def _mapping(columns: list[str]) -> dict[str, str]:
    mapping = {}
    for text in columns:
        ours, equals, theirs = text.partition("=")
        if not (ours and equals and theirs):
            raise UserError(f"--column {text}: expected OURS=THEIRS", cure="e.g. --column mag_V=VTmag")
        mapping[ours] = theirs
    return mapping
