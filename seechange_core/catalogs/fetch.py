"""Fill tiles of a growing catalog from a service, whoever else is doing the same.

A worker that wants a tile takes a lock of the operating system on a file of the tile's own, which ends with
the worker; who has waited finds the tile there. Where the file system knows no locks, two workers do the same
work, and the second replaces the tile by an equal one. There is a catalog as soon as it has a tile.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seechange_core.catalogs.importer import ASSUMED, Columns, describe, rows_of
from seechange_core.catalogs.locks import locked
from seechange_core.catalogs.provider import CatalogInfo
from seechange_core.catalogs.recipe import FetchRecipe
from seechange_core.catalogs.services import quoted
from seechange_core.catalogs.store import add_tile, cells_of_cone, place_of_growing, publish_growing
from seechange_core.catalogs.tap import TapClient
from seechange_core.catalogs.tiles import is_whole, read_footer, tile_path
from seechange_core.errors import NoCatalog, NotFoundError
from seechange_core.numerics import sky

#: Rows asked for at once; a service with a lower limit of its own says that there are more.
MAX_ROWS = 200_000
#: Smaller parts of a tile (1 arcmin) are not asked for: a service that cannot give these gives nothing.
_FINEST_ORDER = 12


@dataclass(frozen=True)
class Fetched:
    """What a fetch did.

    Attributes
    ----------
    info
        The catalog.
    tiles, new
        Tiles that were wanted, and those of them that were fetched now.
    n_stars
        Stars in the tiles that were wanted.
    """

    info: CatalogInfo
    tiles: int
    new: int
    n_stars: int


def fetch_catalog(
    store_root: Path,
    name: str,
    recipe: FetchRecipe,
    cones: Iterable[tuple[float, float, float]],
    *,
    client: TapClient | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Fetched:
    """Make sure that a catalog has the tiles of some parts of the sky.

    Parameters
    ----------
    store_root
        Folder of the store.
    name
        Of the catalog; made if it is not there.
    recipe
        What to fetch.
    cones
        Those that are going to be searched: ra, dec, radius, ICRS deg.
    client
        None makes one for the recipe's service.
    tell
        Is told after each tile: how many are done, and how many there are.

    Raises
    ------
    NoCatalog
        If the service does not answer, or has too many stars there. Tiles that were complete stay; without
        any there is no catalog.
    UserError
        If it refuses, or what it gives is no catalog.
    ConflictError
        If another catalog has the name.
    """
    info = growing(name, recipe)
    tiles = place_of_growing(store_root, info)
    client = client or TapClient(recipe.url)
    cells = sorted({int(cell) for cone in cones for cell in cells_of_cone(*cone, recipe.tile_order)})
    new = n_stars = 0
    for done, tile in enumerate(cells):
        new += _fetch_tile(tiles, tile, info, recipe, client)
        if done == 0:
            publish_growing(store_root, info)
        n_stars += read_footer(tile_path(tiles, tile))[1]
        if tell is not None:
            tell(done + 1, len(cells))
    return Fetched(info, len(cells), new, n_stars)


def growing(name: str, recipe: FetchRecipe) -> CatalogInfo:
    """Describe the catalog that a recipe makes."""
    source = f"{recipe.content}: {recipe.table} of {recipe.url}"
    info = describe(name, recipe.columns, epoch=recipe.epoch, source=source, assumed=ASSUMED)
    update = {"tile_order": recipe.tile_order, "checksum": recipe.identity, "recipe": recipe}
    return info.model_copy(update=update)


def _fetch_tile(tiles: Path, tile: int, info: CatalogInfo, recipe: FetchRecipe, client: TapClient) -> bool:
    """Fetch one tile unless it is there, whole, or becomes so; tell whether it was fetched here."""
    if is_whole(tile_path(tiles, tile)):
        return False
    folder = tiles.parent  # which is made when there is a tile to put into it
    with locked(folder.with_name(f".lock-{folder.name}-{tile}")):
        if is_whole(tile_path(tiles, tile)):
            return False
        parts = list(_parts_of_cell(recipe.tile_order, tile, recipe, client))
        rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        add_tile(folder.parent, info, tile, rows)
    return True


def _parts_of_cell(order: int, cell: int, recipe: FetchRecipe, client: TapClient) -> Iterator[Columns]:
    """Ask for a HEALPix cell, or for its quarters where it is too much for the service."""
    ra, dec, radius_deg = sky.cell_cone(cell, order)
    table, complete = client.query(_adql(recipe, ra, dec, radius_deg), MAX_ROWS)
    if complete:
        wanted = [name.split(":")[0] for name in recipe.columns.values()]
        if lacking := [name for name in wanted if name not in table.colnames]:
            raise NotFoundError(
                f"{recipe.url} answers without the columns {', '.join(lacking)}",
                cure=f"say with --column which of its columns are ours; it gives {', '.join(table.colnames)}",
            )
        rows = rows_of(table, recipe.columns, ASSUMED, recipe.table)
        inside = sky.healpix_of(rows["ra"], rows["dec"], order) == cell  # the circle is larger than the cell
        yield {key: column[inside] for key, column in rows.items()}
        return
    if order >= _FINEST_ORDER:
        raise NoCatalog(
            f"{recipe.url} gives only {len(table)} stars at a time, not even all within "
            f"{radius_deg * 60:.1f} arcmin of {ra:.3f} {dec:+.3f}",
            cure="give a --faint-limit, or ask another service with --service",
        )
    for child in range(4 * cell, 4 * cell + 4):
        yield from _parts_of_cell(order + 1, child, recipe, client)


def _adql(recipe: FetchRecipe, ra: float, dec: float, radius_deg: float) -> str:
    """Ask for a circle, which every service knows."""
    names = {ours: quoted(theirs.split(":")[0]) for ours, theirs in recipe.columns.items()}
    query = (
        f"SELECT {', '.join(dict.fromkeys(names.values()))} FROM {quoted(recipe.table)} "
        f"WHERE 1 = CONTAINS(POINT('ICRS', {names['ra']}, {names['dec']}), "
        f"CIRCLE('ICRS', {ra:.9f}, {dec:.9f}, {radius_deg:.9f}))"
    )
    if recipe.faint_limit is not None:
        query += f" AND {names[f'mag_{recipe.faint_band}']} <= {recipe.faint_limit:g}"
    return query
