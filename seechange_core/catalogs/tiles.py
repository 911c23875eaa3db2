"""Files of catalogs: one parquet per HEALPix tile, its rows sorted by HEALPix index of order 29.

A tile's file says the checksum of its rows in its footer, so that content can be compared without reading it.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from seechange_core.errors import FileDamagedError
from seechange_core.frames import Int
from seechange_core.numerics import sky

_ROWS_PER_GROUP = 10_000
_CHECKSUM_KEY = b"seechange_rows_sha256"
_ORPHAN_AGE_S = 3600.0
# A footer of which a byte is wrong may have names that are no text.
_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
_CURE = "fetch its part of the sky again, or import the catalog again with --overwrite"


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


def write_tile(tiles: Path, tile: int, rows: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write one tile, with no row or many, whole or not at all.

    A worker that is killed meanwhile leaves a hidden file, which is removed when it is old.
    """
    for orphan in tiles.glob(".*.draft"):
        with suppress(FileNotFoundError):  # its owner may just have finished
            if time.time() - orphan.stat().st_mtime > _ORPHAN_AGE_S:
                orphan.unlink()
    number, name = tempfile.mkstemp(prefix=f".{tile}.", suffix=".draft", dir=tiles)
    os.close(number)
    draft = Path(name)
    try:
        _write_parquet(_sorted_table(rows)[0], draft)
        draft.chmod(0o644)
        draft.replace(tile_path(tiles, tile))
    finally:
        draft.unlink(missing_ok=True)


def _sorted_table(rows: Mapping[str, npt.NDArray[Any]]) -> tuple[pa.Table, Int]:
    healpix = sky.healpix_of(rows["ra"], rows["dec"])
    by_position = np.argsort(healpix, kind="stable")
    return pa.table({"healpix": healpix, **rows}).take(pa.array(by_position)), healpix[by_position]


def write_tiles(folder: Path, order: int, rows: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write the tiles that hold any row."""
    table, healpix = _sorted_table(rows)
    tile = healpix >> (2 * (sky.HEALPIX_ORDER - order))
    starts = np.flatnonzero(np.diff(tile, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(tile)), strict=True):
        _write_parquet(table.slice(start, end - start), tile_path(folder, int(tile[start])))


def _write_parquet(table: pa.Table, path: Path) -> None:
    table = table.replace_schema_metadata({_CHECKSUM_KEY: _rows_checksum(table)})
    pq.write_table(table, path, row_group_size=_ROWS_PER_GROUP, compression="zstd")
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def is_whole(path: Path) -> bool:
    """Tell whether a tile is there and has the rows that were written."""
    try:
        table = pq.read_table(path)
        return (table.schema.metadata or {}).get(_CHECKSUM_KEY) == _rows_checksum(table).encode()
    except _UNREADABLE:
        return False


def _rows_checksum(table: pa.Table) -> str:
    """Hash names and values, whatever the file's compression and library."""
    total = hashlib.sha256()
    for name in table.column_names:
        total.update(name.encode() + np.ascontiguousarray(table[name].to_numpy()).tobytes())
    return total.hexdigest()


def read_footer(path: Path) -> tuple[str, int]:
    """Return the checksum of a tile's rows, and how many there are, without reading them."""
    try:
        footer = pq.read_metadata(path)
    except _UNREADABLE as error:
        raise FileDamagedError(
            "a tile of the reference catalog cannot be read", file=str(path), cure=_CURE
        ) from error
    return (footer.metadata or {}).get(_CHECKSUM_KEY, b"").decode(), footer.num_rows


def read_tile(path: Path, columns: list[str], low: int, high: int) -> pa.Table:
    """Read the row groups of a tile whose HEALPix indices may lie in a range."""
    try:
        with pq.ParquetFile(path) as file:
            groups = [
                i for i in range(file.num_row_groups) if _touches(file.metadata.row_group(i), low, high)
            ]
            return file.read_row_groups(groups, columns=columns)
    except _UNREADABLE as error:
        raise FileDamagedError(
            "a tile of the reference catalog cannot be read", file=str(path), cure=_CURE
        ) from error


def _touches(group: pq.RowGroupMetaData, low: int, high: int) -> bool:
    statistics = group.column(0).statistics  # column 0 is the HEALPix index
    return (
        statistics is None or not statistics.has_min_max or (statistics.max >= low and statistics.min < high)
    )
