"""The files of a simulated survey: raw FITS exposures, the catalog and the truth tables."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.table import Table

from seechange_core.errors import FileDamagedError, NotFoundError, UserError
from seechange_core.simulate.cameras import Unit
from seechange_core.simulate.options import SurveyOptions

#: Raised whenever the same options give other files.
SIMULATOR_VERSION = 1


@dataclass(frozen=True, eq=False)
class SurveyTruth:
    """What is true of a simulated survey.

    Attributes
    ----------
    folder
        Where it lies: ``raw/*.fits`` (``.fits.fz``), ``catalog.ecsv``, ``truth/``.
    options
        What it was made from.
    objects
        One row per object; the columns are those of `Sky`.
    exposures
        One row per science exposure and section: file, section, mjd_mid, filter, zp, color_term,
        color_zero, seeing_fwhm_pix (before integration over pixels), e1, e2, enclosed_4arcsec,
        enclosed_8arcsec (fraction of a star's light within that radius), sky_e, airmass, night,
        ra_center, dec_center, rotation_deg.
    epochs
        One row per exposure, section and object on it: file, section, id, kind, x, y (0-based trimmed
        pixels), ra, dec (deg, at mid-exposure), flux_e, on_masked (within a pixel of a bad one),
        saturated.
    """

    folder: Path
    options: SurveyOptions
    objects: Table
    exposures: Table
    epochs: Table

    @property
    def raw_files(self) -> list[Path]:
        """All raw files, in order of time."""
        return sorted(
            path
            for path in (self.folder / "raw").iterdir()
            if path.name.endswith((".fits", ".fits.fz")) and not path.name.startswith(".")
        )


def load_truth(out: Path) -> SurveyTruth:
    """Read the truth tables of a simulated survey.

    Raises
    ------
    NotFoundError
        If there is no finished survey in the folder.
    FileDamagedError
        If a table cannot be read.
    """
    out = Path(out)
    tables = {}
    for name in ("objects", "exposures", "epochs"):
        path = out / "truth" / f"{name}.parquet"
        if not path.is_file():
            raise NotFoundError(
                f"no simulated survey in {out}: {path.name} is missing", cure="run simulate again"
            )
        try:
            tables[name] = _from_arrow(pq.read_table(path))
        except (pa.ArrowException, OSError) as error:
            raise FileDamagedError(
                f"cannot be read: {error}", cure="simulate again", file=str(path)
            ) from error
    return SurveyTruth(folder=out, options=read_plan(out), **tables)


def read_plan(out: Path) -> SurveyOptions:
    """Read the options a survey was made from (`NotFoundError` if there are none)."""
    path = out / "truth" / "plan.json"
    if not path.is_file():
        raise NotFoundError(f"no simulated survey in {out}: plan.json is missing", cure="run simulate again")
    try:
        plan = json.loads(path.read_text())
        return SurveyOptions.checked(plan["options"], str(path))
    except (ValueError, KeyError, TypeError) as error:
        raise FileDamagedError(f"cannot be read: {error}", cure="simulate again", file=str(path)) from error


def claim_folder(out: Path, options: SurveyOptions) -> None:
    """Make the survey's folders and write its plan; refuse a folder that holds something else.

    Raises
    ------
    UserError
        If the folder holds another survey, or raw files without a plan.
    """
    if (out / "truth" / "plan.json").exists():
        if read_plan(out) != options:
            raise UserError(
                f"{out} holds a survey made with other options", cure="name another folder or remove it"
            )
    elif (out / "raw").is_dir() and any((out / "raw").iterdir()):
        raise UserError(
            f"{out / 'raw'} already holds files that are no simulated survey", cure="name another folder"
        )
    (out / "raw").mkdir(parents=True, exist_ok=True)
    (out / "truth").mkdir(exist_ok=True)
    plan = {"simulator_version": SIMULATOR_VERSION, "options": options.model_dump(mode="json")}
    _write_text(out / "truth" / "plan.json", json.dumps(plan, indent=2) + "\n")


def write_raw(path: Path, primary: Mapping[str, Any], units: Iterable[Unit], *, compressed: bool) -> None:
    """Write a raw exposure: cards in the primary HDU, then image extensions.

    The file appears under its name only when it is whole.

    Parameters
    ----------
    path
        Its name.
    primary
        Cards of the primary HDU.
    units
        Pixels (uint16 or float32) and cards of each extension, taken one by one.
    compressed
        Pixels in tiles of a row each, compressed by the RICE algorithm, as fpack writes them.
    """
    part = path.with_name(f".{path.name}.part")
    first = fits.PrimaryHDU()
    for key, value in primary.items():
        first.header[key] = value
    with part.open("wb") as file:
        fits.HDUList([first]).writeto(file)
        for pixels, cards in units:
            kind = fits.CompImageHDU if compressed else fits.ImageHDU
            hdu = kind(pixels, name=cards["EXTNAME"])
            for key, value in cards.items():
                hdu.header[key] = value
            file.write(_extension_bytes(hdu))
    part.replace(path)


def _extension_bytes(hdu: Any) -> bytes:
    """Return what an extension looks like in a file."""
    buffer = BytesIO()
    empty = fits.PrimaryHDU()
    fits.HDUList([empty, hdu]).writeto(buffer)
    return buffer.getvalue()[2880:]


def write_table(table: Table, path: Path) -> None:
    """Write a table as parquet, whole or not at all."""
    columns = {name: pa.array(np.asarray(table[name])) for name in table.colnames}
    part = path.with_name(f".{path.name}.part")
    pq.write_table(pa.table(columns), part)
    part.replace(path)


def write_catalog(catalog: Table, path: Path) -> None:
    """Write the reference catalog as ECSV, with units."""
    units = {"ra": "deg", "dec": "deg", "position_err_mas": "mas"}
    units |= dict.fromkeys(("pmra", "pmdec", "pm_err"), "mas / yr")
    table = catalog.copy()
    for name in table.colnames:
        if name in units:
            table[name].unit = units[name]
        elif name.startswith("mag"):
            table[name].unit = "mag"
    table.meta = {"epoch": 2016.0, "frame": "ICRS"}
    write_ecsv(table, path)


def write_ecsv(table: Table, path: Path) -> None:
    """Write a table as ECSV, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    table.write(part, format="ascii.ecsv", overwrite=True)
    part.replace(path)


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)


def _from_arrow(table: pa.Table) -> Table:
    columns = {}
    for name in table.column_names:
        values = table[name].to_numpy()
        columns[name] = values.astype(str) if values.dtype == object else values
    return Table(columns)
