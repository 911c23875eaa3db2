"""Commands for reference catalogs: catalog import, fetch, bootstrap, list."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seechange_assets.cli.output import Progress, print_json, print_table
from seechange_core.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from seechange_core.catalogs import CatalogInfo
    from seechange_core.catalogs.recipe import FetchRecipe

catalog = typer.Typer(
    help="The local store of reference catalogs.", no_args_is_help=True, rich_markup_mode=None
)

Layout = Annotated[
    str | None,
    typer.Option("--as", help="Whose columns it has: gaia_dr3, tycho2, ps1, apass, refcat2; default: guess."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="Which of its columns is ours, e.g. mag_V=VTmag; repeatable."),
]
Epoch = Annotated[
    float | None,
    typer.Option("--epoch", help="Epoch of its positions, Julian year; default: as --as, or 2016."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace one of the same name.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(catalog, name="catalog")


@catalog.command("import")
def import_catalog(
    table: Annotated[Path, typer.Argument(help="A table astropy reads: ECSV, FITS, VOTable, CSV, parquet.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it; default: as --as.")] = None,
    layout: Layout = None,
    column: Columns = None,
    epoch: Epoch = None,
    overwrite: Overwrite = False,
) -> int:
    """Fill the local catalog store from a table.

    Example: seechange catalog import gaia.fits --as gaia_dr3

    Example: seechange catalog import stars.csv --name mine --column ra=RAdeg --column mag_V=Vmag --epoch 2000
    """
    from seechange_core.catalogs import import_table
    from seechange_core.settings import get_settings

    if name is None and layout is None:
        raise UserError("the catalog has no name", cure="give --name NAME")
    _check_numbers({"--epoch": epoch})
    mapping = _mapping(column or [])
    store = get_settings().data_root / "catalogs"
    info = import_table(
        table, name or layout or "", store, epoch=epoch, layout=layout, mapping=mapping, overwrite=overwrite
    )
    guessed = {o: t for o, t in info.columns.items() if o != t and o not in mapping}
    if guessed and layout is None:
        words = ", ".join(f"{ours} = {theirs.split(':')[0]}" for ours, theirs in guessed.items())
        typer.echo(f"guessed: {words} (say otherwise with --column OURS=THEIRS)")
    typer.echo(f"{info.name}: {info.n_stars} stars, {_bands(info)}, epoch {info.epoch:g}")
    _tell_which(info.name)
    return 0


@catalog.command("fetch")
def fetch(
    ra: Annotated[float | None, typer.Option("--ra", help="Of the field's centre, ICRS deg.")] = None,
    dec: Annotated[float | None, typer.Option("--dec", help="Of the field's centre, ICRS deg.")] = None,
    radius_deg: Annotated[
        float | None, typer.Option("--radius-deg", help="Of the field; default: 0.5.")
    ] = None,
    exposure: Annotated[
        list[str] | None, typer.Option("--exposure", help="The fields of this exposure; repeatable.")
    ] = None,
    service: Annotated[
        str | None, typer.Option("--service", help="By name, or URL of a TAP service; default: gaia_dr3.")
    ] = None,
    table: Annotated[str | None, typer.Option("--table", help="Of a service given by its URL.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the catalog; default: as the service.")
    ] = None,
    layout: Layout = None,
    column: Columns = None,
    epoch: Epoch = None,
    faint_limit: Annotated[
        float | None, typer.Option("--faint-limit", help="Leave out fainter stars, e.g. 19.5.")
    ] = None,
    faint_band: Annotated[
        str | None, typer.Option("--faint-band", help="Of --faint-limit; default: the first it has.")
    ] = None,
) -> int:
    """Fetch the part of a catalog that covers a field, from a service that speaks TAP; what is there is kept.

    Example: seechange catalog fetch --service gaia_dr3 --ra 150.1 --dec 2.2 --radius-deg 1

    Example: seechange catalog fetch --exposure c4d_20240101_031500_ori --service ps1
    """
    from seechange_core.catalogs.fetch import fetch_catalog
    from seechange_core.chain.catalogs import cones_of_exposure
    from seechange_core.settings import get_settings

    if radius_deg is not None and exposure and ra is None:
        raise UserError(
            "an exposure has its own fields: --radius-deg would change nothing", cure="leave it out"
        )
    field = {"--ra": ra, "--dec": dec, "--radius-deg": radius_deg}
    _check_numbers({**field, "--epoch": epoch, "--faint-limit": faint_limit})
    settings = get_settings()
    cones = [cone for own in exposure or () for cone in cones_of_exposure(settings, own)]
    if ra is not None and dec is not None:
        cones.append((ra, dec, 0.5 if radius_deg is None else radius_deg))
    if not cones or (ra is None) != (dec is None):
        raise UserError("nothing says which field", cure="give --ra and --dec, or --exposure NAME")
    store = settings.data_root / "catalogs"
    service = service or (None if name else settings.catalog_fetch or "gaia_dr3")
    recipe = _recipe(store, name, service, table, layout, column or [], epoch)
    if faint_limit is None and faint_band is not None:
        raise UserError("--faint-band alone limits nothing", cure="give --faint-limit too")
    if faint_limit is not None:
        recipe = _limited(recipe, faint_limit, faint_band)
    with Progress("tile") as progress:
        tell = _counter(progress, "tile")
        made = fetch_catalog(store, name or recipe.content, recipe, cones, tell=tell)
    tiles = f"{made.tiles} tile{'' if made.tiles == 1 else 's'} ({made.new} new)"
    typer.echo(
        f"{made.info.name}: {made.n_stars} stars in {tiles}, {_bands(made.info)}, epoch {made.info.epoch:g}"
    )
    _tell_which(made.info.name)
    return 0


@catalog.command("bootstrap")
def bootstrap(
    exposures: Annotated[
        list[str] | None, typer.Argument(help="Names of exposures; default: all science exposures.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What to call it.")] = "bootstrapped",
    overwrite: Overwrite = False,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, help="Sections worked on at once; 0: one per core.")
    ] = 0,
) -> int:
    """Make a catalog for a field that has none, of its own best image; what it calibrates is marked relative.

    Exposures are taken through source_list first.

    Example: seechange catalog bootstrap --name field1
    """
    from seechange_assets.survey import process_exposures
    from seechange_core import chain
    from seechange_core.catalogs.store import check_free
    from seechange_core.chain.bootstrap import bootstrap_catalog
    from seechange_core.settings import get_settings

    settings = get_settings()
    wanted = chain.exposures(settings, exposures or None)
    if len({row.instrument for row in wanted}) > 1:
        raise UserError("the exposures are of several instruments", cure="name those of one")
    check_free(settings.data_root / "catalogs", name, overwrite=overwrite)  # not after hours of work
    with Progress("section") as progress:
        process_exposures([row.name for row in wanted], through="source_list", jobs=jobs, progress=progress)
    with Progress("exposure") as progress:
        tell = _counter(progress, "exposure looked at")
        made = bootstrap_catalog(settings, wanted, name, overwrite=overwrite, tell=tell)
    for exposure, section, band, n_stars in made.images:
        typer.echo(f"from {exposure} {section}: {n_stars} stars in {band}")
    info = made.info
    typer.echo(f"{info.name}: {info.n_stars} stars, {_bands(info)}, epoch {info.epoch:.2f}, relative")
    _tell_which(info.name)
    return 0


@catalog.command("list")
def list_catalogs(as_json: Json = False) -> int:
    """List the catalogs in the local store.

    Example: seechange catalog list --json
    """
    from seechange_core.catalogs import LocalCatalog, installed
    from seechange_core.settings import get_settings

    store = get_settings().data_root / "catalogs"
    rows = []
    for name in installed(store):
        found = LocalCatalog(store, name)
        info, (tiles, stars) = found.info, found.tiles()
        kind = "relative" if info.relative else "growing" if info.recipe else "whole"
        facts = {"name": name, "kind": kind, "stars": stars, "tiles": tiles, "epoch": info.epoch}
        rows.append({**facts, "bands": " ".join(info.serves), "source": info.source})
    if as_json:
        print_json(rows)
    elif rows:
        print_table([{**row, "epoch": f"{row['epoch']:.2f}"} for row in rows], list(rows[0]))
    else:
        typer.echo("no catalogs yet (seechange catalog import, fetch or bootstrap)")
    return 0


_POSSIBLE = {
    "--ra": (0.0, 360.0),
    "--dec": (-90.0, 90.0),
    "--radius-deg": (0.0, 90.0),
    "--epoch": (1800.0, 2200.0),
    "--faint-limit": (-30.0, 40.0),
}


def _check_numbers(given: dict[str, float | None]) -> None:
    """Refuse what lies nowhere on the sky, and what is no number (`nan` is one to the command line)."""
    for option, value in given.items():
        low, high = _POSSIBLE[option]
        if value is not None and not low <= value <= high:  # NaN is not between any two
            raise UserError(f"{option} {value:g} is impossible", cure=f"give {low:g} to {high:g}")


def _counter(progress: Progress, words: str) -> "Callable[[int, int], None]":
    def tell(_done: int, total: int) -> None:
        progress.expect(total, in_all=True)
        progress.step(words)

    return tell


def _recipe(
    store: Path,
    name: str | None,
    service: str | None,
    table: str | None,
    layout: str | None,
    column: list[str],
    epoch: float | None,
) -> "FetchRecipe":
    """Find out what to fetch: a service known by name, any other, or what the catalog was made with."""
    from seechange_core.catalogs import LocalCatalog
    from seechange_core.catalogs.services import known_service, recipe_for
    from seechange_core.catalogs.tap import TapClient

    by_url = service is not None and "://" in service
    options = {"--table": table, "--as": layout, "--column": column or None, "--epoch": epoch}
    if not by_url and (given := [option for option, value in options.items() if value is not None]):
        what = f"service {service}" if service else f"catalog {name}"
        raise UserError(
            f"{what} has its own table and columns: {', '.join(given)} would change nothing",
            cure="leave it out, or give --service the URL of a TAP service",
        )
    if service is None:
        recipe = LocalCatalog(store, name or "").info.recipe
        if recipe is None:
            raise UserError(
                f"catalog {name} was not fetched, so it cannot grow", cure="choose another --name"
            )
        return recipe
    if not by_url:
        return known_service(service)
    if table is None or name is None:
        raise UserError("a service given by its URL needs more", cure="give --table TABLE and --name NAME")
    return recipe_for(TapClient(service), table, layout=layout, mapping=_mapping(column), epoch=epoch)


def _limited(recipe: "FetchRecipe", faint_limit: float, band: str | None) -> "FetchRecipe":
    bands = [key.removeprefix("mag_") for key in recipe.columns if key.startswith("mag_")]
    bands = [own for own in bands if not own.endswith(("_err", "_snr"))]
    if band is not None and band not in bands:
        raise NotFoundError(f"the service has no band {band}", cure=f"--faint-band can be {', '.join(bands)}")
    return recipe.model_copy(update={"faint_limit": faint_limit, "faint_band": band or bands[0]})


def _tell_which(name: str) -> None:
    """Say how this catalog is chosen where the settings leave it open or choose another one."""
    from seechange_core.catalogs import installed
    from seechange_core.chain.lineage import catalog_name
    from seechange_core.settings import get_settings

    settings = get_settings()
    names = installed(settings.data_root / "catalogs")
    if name in names and len(names) > 1 and catalog_name(settings) != name:
        typer.echo(f"there are several catalogs: to use this one, set `catalog: {name}` in the settings")


def _bands(info: "CatalogInfo") -> str:
    derived = info.serves[len(info.bands) :]
    more = f" (and by transformation {', '.join(derived)})" if derived else ""
    return f"bands {', '.join(info.bands)}{more}"


def _mapping(columns: list[str]) -> dict[str, str]:
    mapping = {}
    for text in columns:
        ours, equals, theirs = text.partition("=")
        if not (ours and equals and theirs):
            raise UserError(f"--column {text}: expected OURS=THEIRS", cure="e.g. --column mag_V=VTmag")
        if ours in mapping:
            raise UserError(f"--column {ours} is given twice", cure="give each of ours once")
        mapping[ours] = theirs
    return mapping
