"""Catalogs on disk: one folder each, with a parquet file per HEALPix tile and ``metadata.json``.

::

    <store_root>/<name>/metadata.json
    <store_root>/<name>/tiles-<checksum>/<nested index>.parquet     sorted by HEALPix index of order 29

A cone search opens only the tiles it touches, and of those only the row groups. A catalog appears
or is replaced whole or not at all: its tiles are written beside their place and renamed into it, and
only then does the metadata, replaced in one step, point to them.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from seechange_core.catalogs.provider import CatalogInfo, bands_of, check_bands, stars_at_epoch
from seechange_core.errors import ConflictError, FileDamagedError, NoCatalog, NotFoundError, UserError
from seechange_core.frames import CatalogStars
from seechange_core.numerics import sky

_METADATA = "metadata.json"
_ROWS_PER_GROUP = 10_000
_BASE_COLUMNS = ("healpix", "ra", "dec", "pmra", "pmdec", "pm_err", "position_err_mas", "is_star")
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
                cure="fill the store with `seechange catalog import`",
            )

    @cached_property
    def info(self) -> CatalogInfo:
        """Describe the catalog."""
        path = self.folder / _METADATA
        try:
            return CatalogInfo.model_validate_json(path.read_text())
        except (ValidationError, UnicodeDecodeError) as error:
            raise FileDamagedError(
                "the catalog's metadata cannot be read", file=str(path), cure="import the catalog again"
            ) from error

    def query(
        self, ra: float, dec: float, radius_deg: float, band: str, color: str | None, epoch: float
    ) -> CatalogStars:
        """Return the stars in a cone at an epoch; see `Provider.query`."""
        check_bands(self.info, band, color)
        wanted = dict.fromkeys((band, *(bands_of(color) if color else ())))
        columns = [*_BASE_COLUMNS, *(f"mag_{b}" for b in wanted), f"mag_{band}_err"]
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

    def verify(self) -> None:
        """Read every file and compare with the checksum.

        Raises
        ------
        FileDamagedError
            If anything differs from what was imported.
        """
        if checksum_of(tiles_folder(self.folder, self.info)) != self.info.checksum:
            raise FileDamagedError(
                "the catalog's files are not what was imported",
                file=str(self.folder),
                cure="import the catalog again with overwrite",
            )

    def _read(
        self, ra: float, dec: float, radius_deg: float, columns: list[str]
    ) -> Mapping[str, npt.NDArray[Any]] | None:
        tiles = tiles_folder(self.folder, self.info)
        if not tiles.is_dir():
            raise FileDamagedError(
                "the catalog's tiles are gone, or were replaced just now",
                file=str(tiles),
                cure="try again; if it stays, import the catalog again with overwrite",
            )
        ranges = sky.cone_ranges(ra, dec, radius_deg)
        low, high = ranges[0][0], ranges[-1][1]
        pieces = []
        for tile in sky.cone_cells(ra, dec, radius_deg, self.info.tile_order):
            path = tile_path(tiles, int(tile))
            if path.is_file():
                pieces.append(_read_tile(path, columns, low, high))
        if sum(len(piece) for piece in pieces) == 0:
            return None
        table = pa.concat_tables(pieces)
        return {name: table[name].to_numpy() for name in columns}


def installed(store_root: Path) -> list[str]:
    """List the names of the catalogs in a store."""
    return sorted(path.parent.name for path in Path(store_root).glob(f"[!.]*/{_METADATA}"))


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


def tile_path(tiles: Path, tile: int) -> Path:
    """Give the file of one tile."""
    return tiles / f"{tile}.parquet"


def checksum_of(tiles: Path) -> str:
    """Hash all tiles, names and bytes, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(tiles.glob("*.parquet")):
        with path.open("rb") as stream:
            total.update(f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


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
    final = root / check_name(info.name)
    if (final / _METADATA).exists() and not overwrite:
        raise ConflictError(
            f"catalog {info.name!r} is already in {root}", cure="choose another name, or ask to overwrite it"
        )
    final.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building.", dir=final))
    try:
        _write_tiles(building, info.tile_order, rows)
        known = {"n_stars": len(rows["ra"]), "checksum": checksum_of(building)}
        complete = info.model_copy(update=known)
        _publish(building, final, complete)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        if not any(final.iterdir()):
            final.rmdir()
    return complete


def _write_tiles(folder: Path, order: int, rows: Mapping[str, npt.NDArray[Any]]) -> None:
    healpix = sky.healpix_of(rows["ra"], rows["dec"])
    by_position = np.argsort(healpix, kind="stable")
    table = pa.table({"healpix": healpix, **rows}).take(pa.array(by_position))
    tile = healpix[by_position] >> (2 * (sky.HEALPIX_ORDER - order))
    starts = np.flatnonzero(np.diff(tile, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(tile)), strict=True):
        path = tile_path(folder, int(tile[start]))
        pq.write_table(
            table.slice(start, end - start), path, row_group_size=_ROWS_PER_GROUP, compression="zstd"
        )
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _publish(building: Path, final: Path, info: CatalogInfo) -> None:
    """Move the tiles into place, point the metadata to them in one step, and drop older tiles."""
    tiles = tiles_folder(final, info)
    if not tiles.exists():
        building.chmod(0o755)
        building.rename(tiles)
    draft = final / f".{_METADATA}.{os.getpid()}"
    with draft.open("w") as stream:
        stream.write(info.model_dump_json(indent=2) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(final / _METADATA)
    for older in final.glob("tiles-*"):
        if older != tiles:
            shutil.rmtree(older)


def _read_tile(path: Path, columns: list[str], low: int, high: int) -> pa.Table:
    """Read the row groups of a tile whose HEALPix indices may lie in a range."""
    try:
        with pq.ParquetFile(path) as file:
            groups = [
                i for i in range(file.num_row_groups) if _touches(file.metadata.row_group(i), low, high)
            ]
            return file.read_row_groups(groups, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise FileDamagedError(
            "a tile of the reference catalog cannot be read", file=str(path), cure="import the catalog again"
        ) from error


def _touches(group: pq.RowGroupMetaData, low: int, high: int) -> bool:
    statistics = group.column(0).statistics  # column 0 is the HEALPix index
    return (
        statistics is None or not statistics.has_min_max or (statistics.max >= low and statistics.min < high)
    )
