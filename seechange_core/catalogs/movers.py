"""Known minor planets, from local files of orbital elements such as the Minor Planet Center's MPCORB."""

import gzip
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.table import Table

from seechange_core.catalogs.importer import read_table
from seechange_core.catalogs.variables import choose, numbers, words
from seechange_core.errors import FileDamagedError, NotFoundError
from seechange_core.frames import Float
from seechange_core.numerics.kepler import Orbits

#: Names of a table's columns, in any case, best first: those of the MPC, of JPL's and of Lowell's tables.
COLUMNS: dict[str, tuple[str, ...]] = {
    "name": ("name", "designation", "full_name", "principal_desig", "pdes", "number", "id", "spkid"),
    "a_au": ("a", "a_au", "semimajor_axis"),
    "e": ("e", "eccentricity"),
    "incl_deg": ("i", "incl", "incl.", "inclination", "incl_deg"),
    "node_deg": ("node", "om", "node_deg", "long_asc_node"),
    "peri_deg": ("peri", "peri.", "w", "arg_peri", "argperi", "peri_deg"),
    "mean_anomaly_deg": ("ma", "m", "mean_anomaly", "mean_anomaly_deg"),
    "epoch": ("epoch", "epoch_mjd", "epoch_jd"),
    "h": ("h", "h_mag", "abs_mag"),
    "g": ("g", "g_slope", "slope"),
}
NEEDED = ("name", "a_au", "e", "incl_deg", "node_deg", "peri_deg", "mean_anomaly_deg", "epoch")
#: First and last + 1 character of each field of a line of MPCORB.DAT
#: (https://minorplanetcenter.net/iau/info/MPOrbitFormat.html).
MPCORB = {
    "h": (8, 13),
    "g": (14, 19),
    "epoch": (20, 25),
    "mean_anomaly_deg": (26, 35),
    "peri_deg": (37, 46),
    "node_deg": (48, 57),
    "incl_deg": (59, 68),
    "e": (70, 79),
    "a_au": (92, 103),
    "packed": (0, 7),
    "name": (166, 194),
}
_ELEMENTS = ("a_au", "e", "incl_deg", "node_deg", "peri_deg", "mean_anomaly_deg")
_LINE = 202
_JD_ZERO = 2400000.5
#: Of bodies of which only H is known (Bowell et al. 1989).
_USUAL_G = 0.15


@dataclass(frozen=True, eq=False)
class Movers:
    """Known minor planets.

    Attributes
    ----------
    name
        (n,) text.
    orbits
        Their orbits.
    h, g
        (n,) absolute magnitude (NaN: unknown) and slope.
    """

    name: npt.NDArray[np.str_]
    orbits: Orbits
    h: Float
    g: Float

    def __len__(self) -> int:
        return len(self.name)


def read_movers(path: Path) -> Movers:
    """Read orbital elements: the fixed-width MPCORB.DAT (.gz too), or a table with named columns.

    Tables are FITS, VOTable, ECSV, CSV or parquet by their suffix, with columns of any of the names in
    `COLUMNS`; angles in degrees of the ecliptic of J2000, epochs as JD or MJD (TT), or packed as the MPC
    does. Orbits that are not ellipses are left out. A file that did not change is read once.

    Raises
    ------
    NotFoundError
        If the file, or a column that is needed, is missing.
    FileDamagedError, UserError
        If it cannot be read, or a column is not numeric.
    """
    known = Path(path)
    if not known.is_file():
        raise NotFoundError(f"there is no file {known}", cure="check known.movers in the settings")
    state = known.stat()
    return _read(known, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int, _size: int) -> Movers:
    if path.name.lower().removesuffix(".gz").endswith((".dat", ".txt")):
        return _elliptical(_from_lines(path))
    return _elliptical(_from_table(path))


def _from_table(path: Path) -> Movers:
    table = read_table(path)
    names = choose(table, COLUMNS, NEEDED, str(path))
    elements = {column: numbers(table, names[column], str(path)) for column in _ELEMENTS}
    nothing = np.full(len(table), np.nan)
    h, g = (numbers(table, names[c], str(path)) if c in names else nothing for c in ("h", "g"))
    orbits = Orbits(**elements, epoch_mjd=_epochs(table, names["epoch"], str(path)))
    return Movers(words(table, names["name"]), orbits, h, np.where(np.isfinite(g), g, _USUAL_G))


def _epochs(table: Table, name: str, label: str) -> Float:
    """Read epochs as MJD, JD or packed dates."""
    text = words(table, name)
    if any(value[:1].isalpha() for value in text[:1]):
        return _unpacked(text.astype("S5"))
    found = numbers(table, name, label)
    return np.where(found > _JD_ZERO / 2, found - _JD_ZERO, found)


def _from_lines(path: Path) -> Movers:
    """Read MPCORB.DAT: a header that ends with a line of dashes, if there is one, and a line for each."""
    try:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise FileDamagedError(f"cannot be read: {error}", file=str(path), cure="fetch it again") from error
    dashes = next((i for i, line in enumerate(lines[:200]) if line.startswith(b"-----")), -1)
    orbits = [line for line in lines[dashes + 1 :] if len(line) > MPCORB["a_au"][0]]
    if not orbits:
        raise FileDamagedError(
            "no line of it is an orbit", file=str(path), cure="give MPCORB.DAT, or a table with named columns"
        )
    block = np.array(orbits, dtype=f"S{_LINE}").view("S1").reshape(len(orbits), _LINE)

    def field(name: str) -> npt.NDArray[np.bytes_]:
        first, last = MPCORB[name]
        return np.char.strip(np.ascontiguousarray(block[:, first:last]).view(f"S{last - first}").ravel())

    def figures(name: str) -> Float:
        text = field(name)
        return np.where(text == b"", b"nan", text).astype(np.float64)

    try:
        elements = {name: figures(name) for name in _ELEMENTS}
        orbit = Orbits(**elements, epoch_mjd=_unpacked(field("epoch")))
        h, g = figures("h"), figures("g")
    except (ValueError, IndexError) as error:
        raise FileDamagedError(
            f"not the fixed columns of MPCORB: {str(error)[:80]}",
            file=str(path),
            cure="give MPCORB.DAT as it is, or a table with named columns",
        ) from error
    name = field("name")
    name = np.where(name == b"", field("packed"), name)
    return Movers(np.char.decode(name, "ascii", "replace"), orbit, h, np.where(np.isfinite(g), g, _USUAL_G))


def _unpacked(packed: npt.NDArray[np.bytes_]) -> Float:
    """Turn dates as the MPC packs them (K2555 is 2025 May 5) into MJD; few differ, so each is read once."""
    values, inverse = np.unique(packed, return_inverse=True)
    found = [np.datetime64(_date(value.decode("ascii", "replace"))) for value in values]
    days = (np.array(found) - np.datetime64("1858-11-17")).astype(np.float64)
    return np.asarray(days[inverse])


def _date(packed: str) -> str:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
    if len(packed) != 5 or packed[0] not in "IJK":
        raise ValueError(f"{packed!r} is no packed date")
    year = 100 * (ord(packed[0]) - ord("I") + 18) + int(packed[1:3])
    return f"{year:04d}-{digits.index(packed[3]):02d}-{digits.index(packed[4]):02d}"


def _elliptical(movers: Movers) -> Movers:
    """Leave out what is no complete ellipse."""
    orbits = movers.orbits
    every = (orbits.a_au, orbits.incl_deg, orbits.node_deg, orbits.peri_deg, orbits.mean_anomaly_deg)
    good = np.isfinite(orbits.epoch_mjd) & (orbits.e >= 0) & (orbits.e < 1) & (orbits.a_au > 0)
    for values in every:
        good &= np.isfinite(values)
    return Movers(movers.name[good], orbits.take(good), movers.h[good], movers.g[good])
