"""The files of a simulated survey: raw FITS exposures, the catalog and the truth tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.table import Table

from seechange_core.errors import FileDamagedError, NotFoundError, UserError
from seechange_core.simulate.options import SurveyOptions

#: Raised whenever the same options give other files.
SIMULATOR_VERSION = 1
FILE_KINDS = {"science": "sci", "bias": "bias", "dark": "dark", "flat": "flat"}


@dataclass(frozen=True, eq=False)
class SurveyTruth:
    """What is true of a simulated survey.

    Attributes
    ----------
    folder
        Where it lies: ``raw/*.fits``, ``catalog.ecsv``, ``truth/``.
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
        return sorted((self.folder / "raw").glob("*.fits"))

    @property
    def catalog_file(self) -> Path:
        """The reference catalog."""
        return self.folder / "catalog.ecsv"


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


def utc_of(mjd: float) -> datetime:
    """Return a UTC MJD as a datetime, to the millisecond."""
    return datetime(1858, 11, 17, tzinfo=UTC) + timedelta(milliseconds=round(mjd * 86_400_000))


def file_name(kind: str, mjd_start: float) -> str:
    """Return a raw file's name, ``demo_YYYYMMDD_HHMMSS_<sci|bias|dark|flat>.fits``."""
    return f"demo_{utc_of(mjd_start):%Y%m%d_%H%M%S}_{FILE_KINDS[kind]}.fits"


def write_raw(
    path: Path,
    primary: Mapping[str, Any],
    sections: Sequence[tuple[npt.NDArray[np.uint16], Mapping[str, Any]]],
) -> None:
    """Write a raw exposure: cards in the primary HDU, one image extension per section.

    The file appears under its name only when it is whole.
    """
    hdus = fits.HDUList([fits.PrimaryHDU()])
    for key, value in primary.items():
        hdus[0].header[key] = value
    for raw, cards in sections:
        hdu = fits.ImageHDU(raw, name=cards["EXTNAME"])
        for key, value in cards.items():
            hdu.header[key] = value
        hdus.append(hdu)
    part = path.with_name(f".{path.name}.part")
    hdus.writeto(part, overwrite=True)
    part.replace(path)


def primary_cards(
    options: SurveyOptions,
    kind: str,
    mjd_start: float,
    exposure_time_s: float,
    ra: float,
    dec: float,
    airmass: float,
) -> dict[str, Any]:
    """Return the cards of the primary HDU."""
    start = utc_of(mjd_start)
    return {
        "TELESCOP": "DemoScope",
        "INSTRUME": "DemoCam",
        "OBSTYPE": kind,
        "DATE-OBS": start.replace(tzinfo=None).isoformat(timespec="milliseconds"),
        "MJD-OBS": round(mjd_start, 8),
        "EXPTIME": exposure_time_s,
        "FILTER": options.band,
        "OBJECT": "demo-field" if kind == "science" else kind,
        "PROPID": "DEMO-2026A",
        "RA": round(ra, 7),
        "DEC": round(dec, 7),
        "AIRMASS": round(airmass, 4),
        "SITELAT": options.site_latitude_deg,
        "SITELONG": options.site_longitude_deg,
        "SITEELEV": options.site_elevation_m,
        "NEXTEND": options.sections,
    }


def write_table(table: Table, path: Path) -> None:
    """Write a table as parquet, whole or not at all."""
    columns = {name: pa.array(np.asarray(table[name])) for name in table.colnames}
    part = path.with_name(f".{path.name}.part")
    pq.write_table(pa.table(columns), part)
    part.replace(path)


def write_catalog(catalog: Table, path: Path) -> None:
    """Write the reference catalog as ECSV, with units."""
    units = {"ra": "deg", "dec": "deg", "pmra": "mas / yr", "pmdec": "mas / yr", "position_err_mas": "mas"}
    table = catalog.copy()
    for name in table.colnames:
        if name in units:
            table[name].unit = units[name]
        elif name.startswith("mag"):
            table[name].unit = "mag"
    table.meta = {"epoch": 2016.0, "frame": "ICRS"}
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
