"""Catalogs on disk: one folder each, with a parquet file per HEALPix tile and ``metadata.json``.

::

    <store_root>/<name>/metadata.json
    <store_root>/<name>/tiles-<checksum>/<nested index>.parquet     sorted by HEALPix index of order 29

A cone search opens only the tiles it touches, and of those only the row groups. An imported catalog appears
or is replaced whole or not at all: its tiles are written beside their place and renamed into it, and
only then does the metadata, replaced in one step, point to them. A fetched one grows: the file of a tile
appears whole or not at all, and where it is, empty or not, the tile is known.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from seechange_core.catalogs.locks import locked
from seechange_core.catalogs.provider import CatalogInfo, columns_for, stars_at_epoch
from seechange_core.catalogs.tiles import (
    checksum_of,
    read_footer,
    read_tile,
    tile_path,
    write_tile,
    write_tiles,
)
from seechange_core.errors import ConflictError, FileDamagedError, NoCatalog, NotFoundError, UserError
from seechange_core.frames import CatalogStars, Int
from seechange_core.numerics import sky
from seechange_core.provenance import digest

_METADATA = "metadata.json"
# Stars that move into the cone between the catalog's epoch and the one asked for: fewer than one in
# a million stars moves faster than 1 arcsec a year, and most catalogs are less than 20 years away.
_MOTION_MARGIN_DEG = 10.0 / 3600


class LocalCatalog:
    """A catalog of the local store.

    Parameters
    ----------
    store_root
        Folder that holds the catalogs' folders.
    name
        Of the catalog.

    Raises
    ------
    NotFoundError
        If there is no such catalog.
    FileDamagedError
        If its metadata cannot be read.
    """

    def __init__(self, store_root: Path, name: str) -> None:
        self.folder = Path(store_root) / check_name(name)
        if not (self.folder / _METADATA).is_file():
            known = ", ".join(installed(store_root)) or "none"
            raise NotFoundError(
                f"there is no reference catalog {name!r} in {store_root} (installed: {known})",
                cure="fill the store with `seechange catalog import`, `fetch` or `bootstrap`",
            )

    @cached_property
    def info(self) -> CatalogInfo:
        """Describe the catalog."""
        path = self.folder / _METADATA
        try:
            return CatalogInfo.model_validate_json(path.read_text())
        except (ValidationError, UnicodeDecodeError) as error:
            raise FileDamagedError(
                "the catalog's metadata cannot be read",
                file=str(path),
                cure="import the catalog again with --overwrite",
            ) from error

    def query(
        self, ra: float, dec: float, radius_deg: float, band: str, color: str | None, epoch: float
    ) -> CatalogStars:
        """Return the stars in a cone at an epoch; see `Provider.query`."""
        color = self.info.color_named(color)
        columns = columns_for(self.info, band, color)
        if missing := self.missing(ra, dec, radius_deg):
            raise NoCatalog(
                f"catalog {self.info.name} has not been fetched at {ra:.4f} {dec:+.4f} "
                f"({len(missing)} tiles of {len(self._cells(ra, dec, radius_deg))} are missing)",
                cure=f"seechange catalog fetch --name {self.info.name} --ra {ra:.4f} --dec {dec:.4f} "
                f"--radius-deg {radius_deg:.3f}",
            )
        rows = self._read(ra, dec, radius_deg + _MOTION_MARGIN_DEG, columns)
        if rows is not None:
            stars = stars_at_epoch(rows, self.info, band, color, epoch)
            inside = sky.separation(ra, dec, stars.ra, stars.dec) <= radius_deg
            if np.any(inside):
                return stars.select(inside)
        raise NoCatalog(
            f"catalog {self.info.name} has no star within {radius_deg:.3f} deg of {ra:.4f} {dec:+.4f}",
            cure="import a catalog that covers this field, or correct the pointing",
        )

    def missing(self, ra: float, dec: float, radius_deg: float) -> list[int]:
        """List the tiles that a cone search needs and that were never fetched; none of a whole catalog."""
        if self.info.recipe is None:
            return []
        tiles = tiles_folder(self.folder, self.info)
        return [int(t) for t in self._cells(ra, dec, radius_deg) if not tile_path(tiles, int(t)).is_file()]

    def release(self, ra: float, dec: float, radius_deg: float) -> CatalogInfo:
        """Describe the content that a cone search sees: what is new elsewhere on the sky does not change it.

        Returns
        -------
        CatalogInfo
            Of a whole catalog, all of it. Of a growing one, `checksum` and `n_stars` are those of the tiles
            that the cone touches.
        """
        if self.info.recipe is None:
            return self.info
        tiles, found, n_stars = tiles_folder(self.folder, self.info), [self.info.checksum], 0
        for tile in self._cells(ra, dec, radius_deg):
            path = tile_path(tiles, int(tile))
            checksum, rows = read_footer(path) if path.is_file() else ("", 0)
            found.append(f"{tile} {checksum}")
            n_stars += rows
        return self.info.model_copy(update={"checksum": digest(*found), "n_stars": n_stars})

    def tiles(self) -> tuple[int, int]:
        """Count the tiles on disk and the stars in them."""
        files = list(tiles_folder(self.folder, self.info).glob("*.parquet"))
        return len(files), sum(read_footer(path)[1] for path in files)

    def _cells(self, ra: float, dec: float, radius_deg: float) -> Int:
        return cells_of_cone(ra, dec, radius_deg, self.info.tile_order)

    def _read(
        self, ra: float, dec: float, radius_deg: float, columns: list[str]
    ) -> Mapping[str, npt.NDArray[Any]] | None:
        tiles = tiles_folder(self.folder, self.info)
        if not tiles.is_dir():
            raise FileDamagedError(
                "the catalog's tiles are gone, or were replaced just now",
                file=str(tiles),
                cure="try again; if it stays, import the catalog again with --overwrite",
            )
        ranges = sky.cone_ranges(ra, dec, radius_deg)
        low, high = ranges[0][0], ranges[-1][1]
        pieces = []
        for tile in sky.cone_cells(ra, dec, radius_deg, self.info.tile_order):
            path = tile_path(tiles, int(tile))
            if path.is_file():
                pieces.append(read_tile(path, columns, low, high))
        if sum(len(piece) for piece in pieces) == 0:
            return None
        table = pa.concat_tables(pieces)
        return {name: table[name].to_numpy() for name in columns}


def cells_of_cone(ra: float, dec: float, radius_deg: float, tile_order: int) -> Int:
    """List the tiles that a cone search opens, with those from which stars may move into the cone."""
    return sky.cone_cells(ra, dec, radius_deg + _MOTION_MARGIN_DEG, tile_order)


def installed(store_root: Path) -> list[str]:
    """List the names of the catalogs in a store; what has no tile, not even an empty one, is none."""
    folders = (path.parent for path in Path(store_root).glob(f"[!.]*/{_METADATA}"))
    return sorted(folder.name for folder in folders if _has_tiles(folder))


def _has_tiles(folder: Path) -> bool:
    try:
        return any(folder.glob("tiles-*/*.parquet"))
    except FileNotFoundError:  # these were replaced by others just now
        return True


def check_name(name: str) -> str:
    """Refuse a catalog name that is not a plain word: it becomes a folder.

    Raises
    ------
    UserError
        If it has anything but letters, digits, ``_``, ``-`` and ``.``, or starts with a dot.
    """
    if not name or name.startswith(".") or not all(c.isalnum() or c in "_-." for c in name):
        raise UserError(
            f"{name!r} cannot name a catalog", cure="use letters, digits, _, - and ., not starting with a dot"
        )
    return name


def tiles_folder(folder: Path, info: CatalogInfo) -> Path:
    """Give the folder of a catalog's tiles; other content has another name."""
    return folder / f"tiles-{info.checksum[:16]}"


def write_catalog(
    store_root: Path,
    info: CatalogInfo,
    rows: Mapping[str, npt.NDArray[Any]],
    *,
    overwrite: bool = False,
) -> CatalogInfo:
    """Write a catalog, whole or not at all.

    Parameters
    ----------
    store_root
        Folder of the store; made if missing.
    info
        `n_stars` and `checksum` are filled in here.
    rows
        The columns that `stars_at_epoch` needs.
    overwrite
        Replace one of the same name.

    Raises
    ------
    ConflictError
        If the name is taken and `overwrite` is false.
    """
    root = Path(store_root)
    check_free(root, info.name, overwrite=overwrite)
    root.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".building.{info.name}.", dir=root))
    try:
        write_tiles(building, info.tile_order, rows)
        known = {"n_stars": len(rows["ra"]), "checksum": checksum_of(building)}
        complete = info.model_copy(update=known)
        with _writing(root, info.name):
            check_free(root, info.name, overwrite=overwrite)  # it may have been taken meanwhile
            _publish(building, root / info.name, complete)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return complete


def check_free(store_root: Path, name: str, *, overwrite: bool = False) -> None:
    """Refuse a name that cannot be given to a new catalog.

    Raises
    ------
    ConflictError
        If the name is taken and `overwrite` is false.
    UserError
        If it cannot be a name; see `check_name`.
    """
    if check_name(name) in installed(store_root) and not overwrite:
        raise ConflictError(
            f"catalog {name!r} is already in {store_root}",
            cure="choose another name, or ask to overwrite it",
        )


def _writing(store_root: Path, name: str) -> AbstractContextManager[None]:
    """Keep others from changing what a catalog is."""
    return locked(Path(store_root) / f".writing-{name}")


def place_of_growing(store_root: Path, info: CatalogInfo) -> Path:
    """Give the place of a catalog that is filled tile by tile, which nothing else may have.

    Returns
    -------
    Path
        The folder of the tiles, which need not be there.

    Raises
    ------
    ConflictError
        If another catalog has the name.
    """
    folder = Path(store_root) / check_name(info.name)
    if (folder / _METADATA).exists():
        there = LocalCatalog(store_root, info.name)
        if there.info.checksum != info.checksum and there.tiles()[0] > 0:
            what = "fetched otherwise" if there.info.recipe else "not fetched but imported or bootstrapped"
            raise ConflictError(
                f"catalog {info.name!r} is already there, and was {what} ({there.info.source})",
                cure="choose another name with --name, or fetch more of it as it was: --name alone",
            )
    return tiles_folder(folder, info)


def add_tile(store_root: Path, info: CatalogInfo, tile: int, rows: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a tile of a growing catalog.

    Raises
    ------
    ConflictError
        If another catalog has got the name meanwhile.
    """
    with _writing(store_root, info.name):
        tiles = place_of_growing(store_root, info)
        tiles.mkdir(parents=True, exist_ok=True)
        write_tile(tiles, tile, rows)


def publish_growing(store_root: Path, info: CatalogInfo) -> None:
    """Make a catalog that has its first tile known, unless it is.

    Raises
    ------
    ConflictError
        If another catalog has got the name meanwhile.
    """
    with _writing(store_root, info.name):
        folder = place_of_growing(store_root, info).parent
        is_there = (folder / _METADATA).exists()
        if not is_there or LocalCatalog(store_root, info.name).info.checksum != info.checksum:
            _write_metadata(folder, info)


def _publish(building: Path, final: Path, info: CatalogInfo) -> None:
    """Move the tiles into place, point the metadata to them in one step, and drop older tiles.

    One by one: if this content is there already, its tiles may be damaged, and others may be reading them.
    """
    tiles = tiles_folder(final, info)
    tiles.mkdir(parents=True, exist_ok=True)
    for path in building.iterdir():
        path.replace(tile_path(tiles, int(path.stem)))
    _write_metadata(final, info)
    for older in final.glob("tiles-*"):
        if older != tiles:
            shutil.rmtree(older)


def _write_metadata(folder: Path, info: CatalogInfo) -> None:
    draft = folder / f".{_METADATA}.{os.getpid()}.{threading.get_ident()}"
    with draft.open("w") as stream:
        stream.write(info.model_dump_json(indent=2) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(folder / _METADATA)
