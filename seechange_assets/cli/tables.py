"""Light curves as tables, in the formats people read them with."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once
import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seechange_assets.cli.output import plain
from seechange_core.errors import UserError

if TYPE_CHECKING:
    from astropy.table import Row, Table

    from seechange_core.chain import LightCurveTable

#: Fainter than this, people are shown the upper limit (5 sigma) instead of a magnitude.
DETECTION_SIGMA = 3.0

_DAYS, _FLUXES, _MICROJANSKY = ".6f", ".2f", ".4g"
#: Every column: unit, how it is printed for people, and what it is.
COLUMNS: dict[str, tuple[str | None, str | None, str]] = {
    "exposure": (None, None, "Name of the exposure"),
    "section": (None, None, "The instrument's section (CCD)"),
    "filter": (None, None, "Short name of the filter"),
    "mjd_mid": ("d", _DAYS, "Middle of the exposure, MJD (UTC)"),
    "bjd_tdb": ("d", _DAYS, "Middle of the exposure at the solar system's barycentre, BJD (TDB)"),
    "flux": ("electron", _FLUXES, "PSF flux at the place: in the difference, or on the image"),
    "flux_err": ("electron", _FLUXES, "1-sigma error of flux"),
    "zp": ("mag", ".4f", "Magnitude of one electron there, in the catalog's band and system"),
    "zp_err": ("mag", ".4f", "1-sigma error of zp, common to all stars of the image"),
    "flags": (None, None, "Bits of pixels near the place: "),
    "quality": (None, None, "Bits of what is bad about the image or difference: "),
    "reference_flux": ("electron", _FLUXES, "PSF flux at the place in the reference that was subtracted"),
    "reference_flux_err": ("electron", _FLUXES, "1-sigma error of reference_flux"),
    "in_reference_flux": ("electron", _FLUXES, "Add it to flux: all epochs are then counted from one level"),
    "in_reference_flux_err": ("electron", _FLUXES, "1-sigma error of in_reference_flux"),
    "n_reference": (None, None, "How many exposures the reference is made of"),
    "n_reference_later": (None, None, "How many of these are from quiet_before_mjd or later"),
    "band": (None, None, "The catalog's band that zp is of"),
    "chi2": (None, ".2f", "Reduced chi square of the PSF fit"),
    "usable_fraction": (None, ".3f", "Share of the PSF's light on usable pixels"),
    "system": (None, None, "Of all magnitudes: AB, Vega, or relative to the field's own (no physical zero)"),
    "mag": ("mag", ".4f", "zp - 2.5 log10(flux + in_reference_flux)"),
    "mag_err": ("mag", ".4f", "1-sigma error of mag from flux_err and in_reference_flux_err"),
    "limiting_mag": ("mag", ".4f", "Of 5 flux_err (and in_reference_flux_err): upper limit at a known place"),
    "depth_mag": (
        "mag",
        ".4f",
        "Of depth_flux + in_reference_flux: what the search finds in half of all cases",
    ),
    "depth_flux": ("electron", _FLUXES, "Change of flux that the search finds there in half of all cases"),
    "quiet_before_mjd": ("d", _DAYS, "Before that the object is taken not to shine (in_reference_flux)"),
    "total_mag": ("mag", ".4f", "Of all light at the place: flux + reference_flux"),
    "total_mag_err": ("mag", ".4f", "1-sigma error of total_mag"),
    "flux_ujy": ("uJy", _MICROJANSKY, "flux + in_reference_flux; NaN where magnitudes are relative"),
    "flux_err_ujy": ("uJy", _MICROJANSKY, "1-sigma error of flux_ujy"),
    "total_ujy": ("uJy", _MICROJANSKY, "flux + reference_flux, calibrated"),
    "total_err_ujy": ("uJy", _MICROJANSKY, "1-sigma error of total_ujy; the reference's noise cancels"),
}
#: What people are shown on a terminal.
SHOWN = (
    *("exposure", "section", "filter", "mjd_mid", "bjd_tdb", "flux", "flux_err"),
    *("in_reference_flux", "in_reference_flux_err", "zp", "zp_err", "quality", "flags"),
    *("total_mag", "total_mag_err", "mag", "mag_err", "limiting_mag", "depth_mag"),
)
#: These are shown only where they are anything but 0.
_IF_ANY = ("in_reference_flux", "in_reference_flux_err")


class TableFormat(StrEnum):
    """How a table is written."""

    TABLE = "table"
    CSV = "csv"
    PARQUET = "parquet"
    VOTABLE = "votable"
    JSON = "json"


def to_table(curve: "LightCurveTable") -> "Table":
    """Make an astropy table with units and descriptions: the fluxes, and what follows from them."""
    from astropy.table import Table

    table = Table(curve.measured())
    for name in table.colnames:
        unit, form, _ = COLUMNS[name]
        table[name].info.unit, table[name].info.format = unit, form
        table[name].info.description = _description(name)
    return table


def _description(name: str) -> str:
    """Say what a column is; of bits, what each of them means."""
    from seechange_core.flags import PixelFlag, QualityFlag

    kinds = {"flags": PixelFlag, "quality": QualityFlag}
    bits = [f"{bit.value} {bit.name}" for bit in kinds.get(name, ())]
    return COLUMNS[name][2] + ", ".join(bits)


def write_table(
    curve: "LightCurveTable",
    kind: TableFormat,
    output: Path | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Print a light curve, or write it to a file.

    Parameters
    ----------
    curve
        The light curve.
    kind, output
        How, and where to.
    meta
        What is to be said of it as a whole: JSON, parquet and VOTable keep it. Its `notes`, lines of text,
        stand below a table for people; CSV has no place for them.

    Raises
    ------
    UserError
        If a binary format would go to a terminal.
    """
    table = to_table(curve)
    table.meta.update(meta or {})
    if kind in (TableFormat.TABLE, TableFormat.JSON, TableFormat.CSV):
        text = _text(table, kind)
        if output is None:
            typer.echo(text)
        else:
            output.write_text(f"{text}\n", encoding="utf-8")
        return
    if output is None and sys.stdout.isatty():
        raise UserError(f"{kind} is not for reading on a terminal", cure="give --output FILE")
    _write(table, kind, sys.stdout.buffer if output is None else output)


def write_columns(
    columns: Mapping[str, Sequence[Any]], kind: TableFormat, output: Path | None = None
) -> None:
    """Print columns of plain values, or write them to a file.

    Raises
    ------
    UserError
        If a binary format would go to a terminal.
    """
    from astropy.table import Table

    if kind is TableFormat.CSV:
        rows = zip(*columns.values(), strict=True)
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([list(columns), *rows])
        if output is None:
            typer.echo(lines.getvalue(), nl=False)
        else:
            output.write_text(lines.getvalue(), encoding="utf-8")
        return
    if output is None and sys.stdout.isatty():
        raise UserError(f"{kind} is not for reading on a terminal", cure="give --output FILE")
    table = Table({name: _filled(values) for name, values in columns.items()})
    if kind is TableFormat.TABLE:
        text = "\n".join(table.pformat(max_lines=-1, max_width=-1)) + "\n"
        Path(str(output)).write_text(text, encoding="utf-8")
    else:
        _write(table, kind, sys.stdout.buffer if output is None else output)


def _filled(values: Sequence[Any]) -> list[Any]:
    """Put NaN where a number is missing."""
    if any(isinstance(value, float) for value in values) or (values and all(v is None for v in values)):
        return [math.nan if value is None else value for value in values]
    return list(values)


def _for_people(table: "Table") -> "Table":
    """Write upper limits in place of magnitudes that are none, and words in place of quality bits."""
    from seechange_core.flags import QualityFlag, names

    empty = {name for name in _IF_ANY if not table[name].any()}
    shown = table[[name for name in SHOWN if name in table.colnames and name not in empty]]
    shown["mag"] = [_magnitude(row, "mag") for row in table]
    shown["mag_err"] = [_magnitude(row, "mag_err") for row in table]
    shown["quality"] = [" ".join(names(int(bits), QualityFlag)) or "-" for bits in table["quality"]]
    for name in ("mag", "mag_err"):
        shown[name].info.unit = COLUMNS[name][0]
        shown[name].info.format = ">"
    return shown


def _magnitude(row: "Row", name: str) -> str:
    """Spell a magnitude or its error: below 3 sigma the limit, and where nothing was measured a dash."""
    if not math.isfinite(row["zp"]):
        return "-"
    # In electrons: magnitudes without a physical zero have no microjansky.
    snr = (row["flux"] + row["in_reference_flux"]) / math.hypot(row["flux_err"], row["in_reference_flux_err"])
    if snr <= -DETECTION_SIGMA:
        return "faded"
    if snr >= DETECTION_SIGMA:
        return format(row[name], str(COLUMNS[name][1]))
    limit = row["limiting_mag"]
    return f"> {limit:.2f}" if name == "mag" and math.isfinite(limit) else "-"


def _text(table: "Table", kind: TableFormat) -> str:
    if kind is TableFormat.TABLE:
        lines = _for_people(table).pformat(max_lines=-1, max_width=-1, show_unit=True)
        return "\n".join([*lines, *table.meta.get("notes", ())])
    rows = [{name: plain(row[name]) for name in table.colnames} for row in table]
    if kind is TableFormat.JSON:
        return json.dumps({"meta": plain(table.meta), "epochs": rows}, indent=2, allow_nan=False)
    lines = [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
    return "\n".join([",".join(table.colnames), *lines])


def _write(table: "Table", kind: TableFormat, target: Any) -> None:
    """Write a table as VOTable or parquet, with the units and descriptions that its columns have."""
    if kind is TableFormat.VOTABLE:
        from astropy.io.votable import from_table, writeto

        notes = table.meta.pop("notes", ())
        known = json.dumps(plain(table.meta))
        table.meta.clear()
        electrons = [name for name in table.colnames if str(table[name].info.unit) == "electron"]
        for name in electrons:
            table[name].info.unit = None
        made = from_table(table)
        made.description = "\n".join([*notes, known]) if notes or known != "{}" else None
        written = io.BytesIO()
        writeto(made, written)
        content = written.getvalue()
        for name in electrons:  # a unit that the standard has not stands in quotes (VOUnits 1.1, 2.12.1)
            field = f'<FIELD ID="{name}"'.encode()
            content = content.replace(field, field + b" unit=\"'electron'\"")
        if isinstance(target, Path):
            target.write_bytes(content)
        else:
            target.write(content)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(table[name].tolist()) for name in table.colnames}
    fields = [pa.field(n, column.type, metadata=_metadata(table[n].info)) for n, column in columns.items()]
    meta = {name: json.dumps(plain(value)) for name, value in table.meta.items()}
    pq.write_table(pa.table(list(columns.values()), schema=pa.schema(fields, metadata=meta)), target)


def _metadata(info: Any) -> dict[str, str]:
    """Return what a parquet file says of a column."""
    told = {"description": info.description, "unit": info.unit and str(info.unit)}
    return {key: text for key, text in told.items() if text}
