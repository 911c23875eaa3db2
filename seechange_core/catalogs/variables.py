"""Known variable stars, from local tables such as the AAVSO's International Variable Star Index (VSX)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.spatial import cKDTree

from seechange_core.catalogs.columns import in_our_units
from seechange_core.catalogs.importer import read_table
from seechange_core.errors import NotFoundError, UserError
from seechange_core.frames import Float, Int
from seechange_core.numerics.sky import chord, separation, unit_vectors

#: Names of the columns, in any case, best first; of those after `dec` a table may lack any.
COLUMNS: dict[str, tuple[str, ...]] = {
    "name": ("name", "main_id", "designation", "id", "oid"),
    "ra": ("ra", "raj2000", "ra_icrs", "radeg", "_raj2000", "ra_deg"),
    "dec": ("dec", "dej2000", "de_icrs", "dedeg", "_dej2000", "dec_deg", "decj2000"),
    "kind": ("type", "var_type", "vartype", "class", "variability_type"),
    "period_d": ("period", "period_d", "per"),
    "mag_bright": ("max", "maxmag", "mag_max", "mag_bright"),
    "mag_faint": ("min", "minmag", "mag_min", "mag_faint"),
    "status": ("v",),
}
NEEDED = ("name", "ra", "dec")
#: VSX's `V` of what proved constant, or was somebody else's star.
_NOT_VARIABLE = 2


@dataclass(frozen=True, eq=False)
class Variables:
    """Known variables, one entry each.

    Attributes
    ----------
    name, kind
        (n,) text; the type of variability, empty where unknown.
    ra, dec
        (n,) ICRS deg.
    period_d, mag_bright, mag_faint
        (n,) days and magnitudes; NaN where unknown.
    """

    name: npt.NDArray[np.str_]
    kind: npt.NDArray[np.str_]
    ra: Float
    dec: Float
    period_d: Float
    mag_bright: Float
    mag_faint: Float

    def __len__(self) -> int:
        return len(self.ra)

    def nearest(self, ra: Float, dec: Float, radius_arcsec: float) -> tuple[Int, Float]:
        """Find for each position the nearest of these.

        Returns
        -------
        index, distance
            (m,) -1 where none is within the radius; arcsec, infinite there.
        """
        index = np.full(len(ra), -1, np.int64)
        near = self._around(ra, dec, radius_arcsec)
        if len(near) and len(ra):
            tree = cKDTree(unit_vectors(self.ra[near], self.dec[near]))
            bound = float(chord(radius_arcsec / 3600)) * (1 + 1e-9)
            distance, hit = tree.query(unit_vectors(ra, dec), distance_upper_bound=bound)
            found = np.isfinite(distance)
            index[found] = near[hit[found]]
        apart = np.full(len(ra), np.inf)
        there = index >= 0
        apart[there] = 3600 * separation(ra[there], dec[there], self.ra[index[there]], self.dec[index[there]])
        return index, apart

    def _around(self, ra: Float, dec: Float, radius_arcsec: float) -> Int:
        """Return which have a declination near one of some positions: no tree is made of the whole sky."""
        if not len(ra):
            return np.zeros(0, np.int64)
        cells = np.unique(np.floor(dec))
        margin = radius_arcsec / 3600
        near = np.zeros(len(self), bool)
        for cell in cells:
            near |= (self.dec >= cell - margin) & (self.dec <= cell + 1 + margin)
        return np.flatnonzero(near)

    def words(self, i: int) -> str:
        """Say what one is: its name, type, period and range."""
        parts = [self.name[i], self.kind[i]]
        if np.isfinite(self.period_d[i]) and self.period_d[i] > 0:
            parts.append(f"P {self.period_d[i]:.4g} d")
        if np.isfinite(self.mag_bright[i]) and np.isfinite(self.mag_faint[i]):
            parts.append(f"{self.mag_bright[i]:.1f}-{self.mag_faint[i]:.1f}")
        return " ".join(part for part in parts if part)


def read_variables(path: Path) -> Variables:
    """Read a table of variables: FITS, VOTable, ECSV, CSV or parquet, as it is known by its suffix.

    The columns may have any of the names in `COLUMNS`; positions in degrees (J2000 or ICRS), or sexagesimal
    text with hours. A file that did not change is read once.

    Raises
    ------
    NotFoundError
        If the file, or a column that is needed, is missing.
    FileDamagedError, UserError
        If it cannot be read, or a column is not what it should be.
    """
    known = Path(path)
    if not known.is_file():
        raise NotFoundError(f"there is no file {known}", cure="check known.variables in the settings")
    state = known.stat()
    return _read(known, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int, _size: int) -> Variables:
    table = read_table(path)
    names = choose(table, COLUMNS, NEEDED, str(path))
    ra, dec = (in_our_units(table[names[c]], c, names[c], str(path)) for c in ("ra", "dec"))
    good = np.isfinite(ra) & np.isfinite(dec)
    if "status" in names:
        good &= numbers(table, names["status"], str(path)) != _NOT_VARIABLE
    empty = np.full(len(table), np.nan)
    figures = {
        column: numbers(table, names[column], str(path))[good] if column in names else empty[good]
        for column in ("period_d", "mag_bright", "mag_faint")
    }
    kind = words(table, names["kind"]) if "kind" in names else np.full(len(table), "")
    return Variables(words(table, names["name"])[good], kind[good], ra[good] % 360, dec[good], **figures)


def choose(
    table: Table, columns: dict[str, tuple[str, ...]], needed: Sequence[str], label: str
) -> dict[str, str]:
    """Choose a table's columns by the names they may have, in any case.

    Raises
    ------
    NotFoundError
        Naming what is missing, and what it could be called.
    """
    there = {name.lower(): name for name in reversed(table.colnames)}
    found = {
        ours: there[next(name for name in theirs if name in there)]
        for ours, theirs in columns.items()
        if any(name in there for name in theirs)
    }
    missing = [f"{name} ({', '.join(columns[name])})" for name in needed if name not in found]
    if missing:
        raise NotFoundError(
            f"{label} lacks the columns {'; '.join(missing)}",
            cure=f"rename its columns: they are {', '.join(table.colnames)}",
        )
    return found


def numbers(table: Table, name: str, label: str) -> Float:
    """Return a column as float64, NaN for what is missing.

    Raises
    ------
    UserError
        If it is not numeric.
    """
    values = np.ma.asarray(getattr(table[name], "value", table[name]))
    try:
        if values.dtype.kind in "SUO":
            text = np.ma.filled(values, "").astype(str)
            return np.where(np.char.strip(text) == "", "nan", text).astype(np.float64)
        return np.asarray(np.ma.filled(values.astype(np.float64), np.nan))
    except (TypeError, ValueError) as error:
        raise UserError(f"column {name} of {label} is not numeric", cure="correct or remove it") from error


def words(table: Table, name: str) -> npt.NDArray[Any]:
    """Return a column as stripped text, empty for what is missing."""
    values = np.ma.asarray(getattr(table[name], "value", table[name]))
    if values.dtype.kind == "S":
        values = np.ma.array(np.char.decode(np.ma.getdata(values), "utf-8", "replace"), mask=values.mask)
    text = np.where(np.ma.getmaskarray(values), "", np.ma.getdata(values).astype(str))
    return np.char.strip(text)
