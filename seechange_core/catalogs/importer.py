"""Fill the local store from any table of stars that astropy reads."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from astropy.table import Table

from seechange_core.catalogs.columns import choose_columns, in_our_units, is_magnitude, layout_called
from seechange_core.catalogs.provider import CatalogInfo
from seechange_core.catalogs.store import write_catalog
from seechange_core.errors import FileDamagedError, NotFoundError, UserError
from seechange_core.frames import Float

Columns = dict[str, npt.NDArray[Any]]

#: Errors of rows that state none, and the motion of rows that state none.
ASSUMED: dict[str, float] = {
    "position_err_mas": 100.0,
    "mag_err": 0.05,
    "motion_mas_yr": 10.0,
    "motion_err_mas_yr": 1.0,
}
_EPOCH = 2016.0
_NO_MAG = 50.0
# Of PS1, brighter in a Kron aperture than as a point source: Farrow et al. 2014, MNRAS 437, 748.
_GALAXY_MAG = 0.05
_MAG_ERR_OF_SNR = 2.5 / np.log(10.0)


def import_table(
    path: Path,
    name: str,
    store_root: Path,
    *,
    epoch: float | None = None,
    layout: str | None = None,
    mapping: Mapping[str, str] | None = None,
    default_position_err_mas: float = ASSUMED["position_err_mas"],
    default_mag_err: float = ASSUMED["mag_err"],
    default_motion_mas_yr: float = ASSUMED["motion_mas_yr"],
    default_motion_err_mas_yr: float = ASSUMED["motion_err_mas_yr"],
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
        Julian year of the positions; None takes that of a column ``ref_epoch``, the layout's, or 2016.0.
    layout
        What the table is, one of `columns.LAYOUTS`; None takes columns that have our names and guesses
        what is missing.
    mapping
        Which of the table's columns to use: our name to its name, as ``{"mag_V": "VT"}``; goes before
        `layout`. Our names, and their units, are in `catalogs.columns`; a unit that the table states is
        honoured.
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
        Of what was stored; its `columns` say which of the table's were taken. Rows without a position are
        left out.

    Raises
    ------
    FileDamagedError
        If astropy cannot read the file.
    NotFoundError
        If the file, the layout, a mapped column, or every magnitude is missing.
    UserError
        If positions or errors are impossible, or no row is left.
    """
    table = read_table(Path(path), table_format)
    columns = choose_columns(table.colnames, mapping or {}, layout, str(path))
    assumed = {
        "position_err_mas": default_position_err_mas,
        "mag_err": default_mag_err,
        "motion_mas_yr": default_motion_mas_yr,
        "motion_err_mas_yr": default_motion_err_mas_yr,
    }
    rows = rows_of(table, columns, assumed, str(path))
    if len(rows["ra"]) == 0:
        raise UserError(f"{path} has no row with a position", cure="check the columns ra and dec")
    if epoch is None:
        epoch = _stated_epoch(table) or (layout_called(layout).epoch if layout else _EPOCH)
    info = describe(name, columns, epoch=epoch, source=source or Path(path).name, assumed=assumed)
    return write_catalog(
        store_root, info.model_copy(update={"tile_order": tile_order}), rows, overwrite=overwrite
    )


def describe(
    name: str, columns: Mapping[str, str], *, epoch: float, source: str, assumed: Mapping[str, float]
) -> CatalogInfo:
    """Describe a catalog that is going to be made of some columns (our name to its name)."""
    bands = tuple(sorted(key[4:] for key in columns if is_magnitude(key)))
    return CatalogInfo(
        name=name,
        epoch=epoch,
        bands=bands,
        colors=tuple(f"{a}-{b}" for a in bands for b in bands if a != b),
        source=source,
        n_stars=0,
        checksum="",
        tile_order=5,
        assumed=dict(assumed),
        columns=dict(columns),
    )


def rows_of(table: Table, columns: Mapping[str, str], assumed: Mapping[str, float], label: str) -> Columns:
    """Turn a table into rows of the store.

    Parameters
    ----------
    table
        As it was read.
    columns
        Our name to its name, as `columns.choose_columns` gives them.
    assumed
        What stands in for what is missing, as `ASSUMED`.
    label
        What to call the table in errors.

    Returns
    -------
    dict
        Columns of the store; rows without a position are left out.

    Raises
    ------
    UserError
        If a column is not numeric or in a strange unit, or positions are outside the sky.
    """
    found = {
        ours: in_our_units(table[theirs.split(":")[0]], ours, theirs, label)
        for ours, theirs in columns.items()
    }
    known = np.isfinite(found["ra"]) & np.isfinite(found["dec"])
    found = {key: column[known] for key, column in found.items()}
    if np.any(np.abs(found["dec"]) > 90) or np.any((found["ra"] < -180) | (found["ra"] > 360)):
        raise UserError(
            f"{label} has positions outside the sky",
            cure="ra and dec must be in degrees, or state their unit",
        )
    bands = sorted(key[4:] for key in found if is_magnitude(key))
    return _complete(found, bands, assumed)


def read_table(path: Path, table_format: str | None = None) -> Table:
    """Read ECSV, FITS, VOTable, CSV or parquet.

    Raises
    ------
    FileDamagedError, NotFoundError
        If astropy cannot read the file, or there is none.
    """
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


def _stated_epoch(table: Table) -> float | None:
    """Return the epoch that a table of Gaia states in each row, if it does."""
    if "ref_epoch" not in table.colnames or len(table) == 0:
        return None
    stated = np.ma.filled(np.ma.asarray(table["ref_epoch"]).astype(np.float64), np.nan)
    known = stated[np.isfinite(stated)]
    return float(np.median(known)) if len(known) else None


def _complete(columns: Columns, bands: Iterable[str], assumed: Mapping[str, float]) -> Columns:
    """Fill in what the table does not say: every column the store wants, in the store's types."""
    n = len(columns["ra"])
    nothing = np.full(n, np.nan)
    moves = np.isfinite(columns.get("pmra", nothing)) & np.isfinite(columns.get("pmdec", nothing))
    motion_err = columns.get("pm_err", _rms(columns, "pmra_err", "pmdec_err"))
    position_err = columns.get("position_err_mas", _rms(columns, "ra_err", "dec_err"))
    motion_err = np.where(moves, _or(motion_err, assumed["motion_err_mas_yr"]), assumed["motion_mas_yr"])
    rows: Columns = {
        "ra": columns["ra"] % 360.0,
        "dec": columns["dec"],
        "pmra": np.where(moves, columns.get("pmra", nothing), 0.0),
        "pmdec": np.where(moves, columns.get("pmdec", nothing), 0.0),
        "pm_err": motion_err.astype(np.float32),
        "position_err_mas": _or(position_err, assumed["position_err_mas"]),
        "is_star": _is_star(columns),
    }
    for band in bands:
        mag = columns[f"mag_{band}"]
        usable = np.isfinite(mag) & (np.abs(mag) < _NO_MAG)  # many tables write 99 or -999 for none
        rows[f"mag_{band}"] = np.where(usable, mag, np.nan).astype(np.float32)
        snr = columns.get(f"mag_{band}_snr", nothing)
        error = columns.get(f"mag_{band}_err", _MAG_ERR_OF_SNR / np.where(snr > 0, snr, np.nan))
        error = _or(error, assumed["mag_err"])
        rows[f"mag_{band}_err"] = np.where(usable, error, np.nan).astype(np.float32)
    return rows


def _is_star(columns: Columns) -> npt.NDArray[np.bool_]:
    """Tell stars from galaxies; what nothing is known of is a star."""
    if "is_star" in columns:
        return np.nan_to_num(columns["is_star"], nan=1.0) > 0.5
    nothing = np.full(len(columns["ra"]), np.nan)
    mag, kron = columns.get("mag_i", nothing), columns.get("kron_i", nothing)
    return ~((np.abs(kron) < _NO_MAG) & (np.abs(mag) < _NO_MAG) & (mag - kron > _GALAXY_MAG))


def _rms(columns: Columns, first: str, second: str) -> Float:
    """Combine errors along both axes into one; NaN where either is missing."""
    nothing = np.full(len(columns["ra"]), np.nan)
    a, b = columns.get(first, nothing), columns.get(second, nothing)
    return np.asarray(np.sqrt((a**2 + b**2) / 2))


def _or(values: npt.NDArray[Any], default: float) -> Float:
    """Replace what is missing or not positive."""
    return np.where(np.isfinite(values) & (values > 0), values, default)
