"""Fill the local store from any table of stars that astropy reads."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from astropy.table import Table

from seechange_core.catalogs.provider import CatalogInfo
from seechange_core.catalogs.store import write_catalog
from seechange_core.errors import FileDamagedError, NotFoundError, UserError
from seechange_core.frames import Float

Columns = dict[str, npt.NDArray[Any]]

_OPTIONAL = ("pmra", "pmdec", "pm_err", "pmra_err", "pmdec_err", "position_err_mas", "is_star")


def import_table(
    path: Path,
    name: str,
    store_root: Path,
    *,
    epoch: float,
    mapping: Mapping[str, str] | None = None,
    default_position_err_mas: float = 100.0,
    default_mag_err: float = 0.05,
    default_motion_mas_yr: float = 10.0,
    default_motion_err_mas_yr: float = 1.0,
    tile_order: int = 5,
    source: str = "",
    table_format: str | None = None,
    overwrite: bool = False,
) -> CatalogInfo:
    """Import a table as a reference catalog.

    Parameters
    ----------
    path
        ECSV, FITS, VOTable, CSV or parquet.
    name
        Of the catalog.
    store_root
        Folder of the store.
    epoch
        Decimal year of the positions.
    mapping
        Which of the table's columns to use: our name to its name, as ``{"mag_V": "VT"}``. Ours are
        ``ra dec`` (ICRS deg), and optionally ``pmra pmdec`` (mas/yr, pmra includes cos dec), ``pm_err``
        or ``pmra_err pmdec_err`` (mas/yr), ``position_err_mas``, ``is_star``, ``mag_<band>``,
        ``mag_<band>_err``.
        Names already ours need no mapping.
    default_position_err_mas, default_mag_err
        Errors of rows that have none.
    default_motion_mas_yr
        Typical motion of rows that have none: they stay in place, with an error that grows so fast.
    default_motion_err_mas_yr
        Error of motions that have none.
    tile_order
        HEALPix order of the files; 5 makes tiles of 1.8 degrees.
    source
        Where it came from; the file's name if empty.
    table_format
        Astropy's name of the format, when the file's name does not tell.
    overwrite
        Replace a catalog of the same name.

    Returns
    -------
    CatalogInfo
        Of what was stored. Rows without a position are left out.

    Raises
    ------
    FileDamagedError
        If astropy cannot read the file.
    NotFoundError
        If the file, a mapped column, or every magnitude is missing.
    UserError
        If positions or errors are impossible, or no row is left.
    """
    table = _read(Path(path), table_format)
    columns = _rename(table, mapping or {}, Path(path))
    known = np.isfinite(columns["ra"]) & np.isfinite(columns["dec"])
    if not np.any(known):
        raise UserError(f"{path} has no row with a position", cure="check the columns ra and dec")
    columns = {key: column[known] for key, column in columns.items()}
    if np.any(np.abs(columns["dec"]) > 90) or np.any((columns["ra"] < -180) | (columns["ra"] > 360)):
        raise UserError(f"{path} has positions outside the sky", cure="ra and dec must be in degrees")
    assumed = {
        "position_err_mas": default_position_err_mas,
        "mag_err": default_mag_err,
        "motion_mas_yr": default_motion_mas_yr,
        "motion_err_mas_yr": default_motion_err_mas_yr,
    }
    bands = tuple(sorted(key[4:] for key in columns if key.startswith("mag_") and not key.endswith("_err")))
    info = CatalogInfo(
        name=name,
        epoch=epoch,
        bands=bands,
        colors=tuple(f"{a}-{b}" for a in bands for b in bands if a != b),
        source=source or Path(path).name,
        n_stars=0,
        checksum="",
        tile_order=tile_order,
        assumed=assumed,
    )
    return write_catalog(store_root, info, _complete(columns, bands, assumed), overwrite=overwrite)


def _read(path: Path, table_format: str | None) -> Table:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", cure="check the path of the table")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd units in a header do not matter here
            if path.suffix == ".parquet" and table_format is None:
                columns = pq.read_table(path)  # astropy would want pandas for it
                return Table({key: columns[key].to_numpy() for key in columns.column_names})
            return Table.read(path, format=table_format)
    except Exception as error:  # astropy's readers raise anything on a bad file
        raise FileDamagedError(
            f"astropy cannot read it as a table: {type(error).__name__}: {str(error).splitlines()[0][:120]}",
            file=str(path),
            cure="use ECSV, FITS, VOTable, CSV or parquet, and name the format if the suffix does not",
        ) from error


def _rename(table: Table, mapping: Mapping[str, str], path: Path) -> Columns:
    """Pick the columns we know, by the user's mapping first and by our own names else."""
    missing = [theirs for theirs in mapping.values() if theirs not in table.colnames]
    names = {key: key for key in table.colnames if key in ("ra", "dec", *_OPTIONAL) or key.startswith("mag_")}
    names |= mapping
    missing += [ours for ours in ("ra", "dec") if ours not in names]
    if not any(ours.startswith("mag_") and not ours.endswith("_err") for ours in names):
        missing.append("mag_<band>")
    unknown = [o for o in mapping if o not in ("ra", "dec", *_OPTIONAL) and not o.startswith("mag_")]
    if missing or unknown:
        raise NotFoundError(
            f"{path} lacks the columns {', '.join(missing)}"
            if missing
            else f"no such columns: {', '.join(unknown)}",
            cure=f"map ra, dec, mag_<band> to the table's columns, which are {', '.join(table.colnames)}",
        )
    return {ours: _plain(table[theirs], theirs, path) for ours, theirs in names.items()}


def _plain(column: Any, name: str, path: Path) -> Float:
    """Turn a column, masked or with units, into float64 with NaN for what is missing."""
    try:
        values = np.ma.asarray(getattr(column, "value", column))
        return np.asarray(np.ma.filled(values.astype(np.float64), np.nan))
    except (TypeError, ValueError) as error:
        raise UserError(f"column {name} of {path} is not numeric", cure="map another column") from error


def _complete(columns: Columns, bands: Iterable[str], assumed: Mapping[str, float]) -> Columns:
    """Fill in what the table does not say: every column the store wants, in the store's types."""
    n = len(columns["ra"])
    nothing = np.full(n, np.nan)
    moves = np.isfinite(columns.get("pmra", nothing)) & np.isfinite(columns.get("pmdec", nothing))
    motion_err = columns.get("pm_err")
    if motion_err is None:
        each = columns.get("pmra_err", nothing), columns.get("pmdec_err", nothing)
        motion_err = np.sqrt((each[0] ** 2 + each[1] ** 2) / 2)
    motion_err = np.where(moves, _or(motion_err, assumed["motion_err_mas_yr"]), assumed["motion_mas_yr"])
    rows: Columns = {
        "ra": columns["ra"] % 360.0,
        "dec": columns["dec"],
        "pmra": np.where(moves, columns.get("pmra", nothing), 0.0),
        "pmdec": np.where(moves, columns.get("pmdec", nothing), 0.0),
        "pm_err": motion_err.astype(np.float32),
        "position_err_mas": _or(columns.get("position_err_mas", nothing), assumed["position_err_mas"]),
        "is_star": np.nan_to_num(columns.get("is_star", np.ones(n)), nan=1.0) > 0.5,
    }
    for band in bands:
        mag = columns[f"mag_{band}"]
        usable = np.isfinite(mag) & (np.abs(mag) < 50)  # many tables write 99 or -999 for none
        rows[f"mag_{band}"] = np.where(usable, mag, np.nan).astype(np.float32)
        error = _or(columns.get(f"mag_{band}_err", nothing), assumed["mag_err"])
        rows[f"mag_{band}_err"] = np.where(usable, error, np.nan).astype(np.float32)
    return rows


def _or(values: npt.NDArray[Any], default: float) -> Float:
    """Replace what is missing or not positive."""
    return np.where(np.isfinite(values) & (values > 0), values, default)
