"""Light curves as tables, in the formats people read them with."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once
import json
import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seechange_assets.cli.output import plain
from seechange_core.errors import UserError

if TYPE_CHECKING:
    from astropy.table import Row, Table

    from seechange_core.chain import LightCurveTable

#: How columns are printed for people, and their units.
FORMATS = {
    **dict.fromkeys(("mjd_mid", "bjd_tdb"), ".6f"),
    **dict.fromkeys(("flux", "flux_err"), ".2f"),
    **dict.fromkeys(("zp", "zp_err", "mag", "mag_err", "limiting_mag"), ".4f"),
}
UNITS = {
    **dict.fromkeys(("mjd_mid", "bjd_tdb"), "d"),
    **dict.fromkeys(("flux", "flux_err"), "electron"),
    **dict.fromkeys(("zp", "zp_err", "mag", "mag_err", "limiting_mag"), "mag"),
}

#: Fainter than this, people are shown the upper limit (5 sigma) instead of a magnitude.
DETECTION_SIGMA = 3.0


class TableFormat(StrEnum):
    """How a table is written."""

    TABLE = "table"
    CSV = "csv"
    PARQUET = "parquet"
    VOTABLE = "votable"
    JSON = "json"


def to_table(curve: "LightCurveTable") -> "Table":
    """Make an astropy table with units: the fluxes, and the magnitudes and limits they are."""
    from astropy.table import Table

    magnitudes = {"mag": curve.mag, "mag_err": curve.mag_err, "limiting_mag": curve.limiting_mag}
    table = Table({**curve.columns(), **magnitudes})
    for name in table.colnames:
        table[name].info.format = FORMATS.get(name)
        table[name].info.unit = UNITS.get(name)
    return table


def write_table(curve: "LightCurveTable", kind: TableFormat, output: Path | None = None) -> None:
    """Print a light curve, or write it to a file.

    Raises
    ------
    UserError
        If a binary format would go to a terminal.
    """
    table = to_table(curve)
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


def _for_people(table: "Table") -> "Table":
    """Write upper limits in place of magnitudes that are none, and words in place of quality bits."""
    from seechange_core.flags import QualityFlag, names

    shown = table.copy()
    shown["mag"] = [_magnitude(row, "mag") for row in table]
    shown["mag_err"] = [_magnitude(row, "mag_err") for row in table]
    shown["quality"] = [" ".join(names(int(bits), QualityFlag)) or "-" for bits in table["quality"]]
    for name in ("mag", "mag_err"):
        shown[name].info.unit = UNITS[name]
        shown[name].info.format = ">"
    return shown


def _magnitude(row: "Row", name: str) -> str:
    """Spell a magnitude or its error: below 3 sigma the limit, and where nothing was measured a dash."""
    if row["flux"] <= -DETECTION_SIGMA * row["flux_err"]:
        return "faded"
    if row["flux"] >= DETECTION_SIGMA * row["flux_err"]:
        return format(row[name], FORMATS[name])
    limit = row["limiting_mag"]
    return f"> {limit:.2f}" if name == "mag" and math.isfinite(limit) else "-"


def _text(table: "Table", kind: TableFormat) -> str:
    if kind is TableFormat.TABLE:
        return "\n".join(_for_people(table).pformat(max_lines=-1, max_width=-1, show_unit=True))
    rows = [{name: plain(row[name]) for name in table.colnames} for row in table]
    if kind is TableFormat.JSON:
        return json.dumps(rows, indent=2, allow_nan=False)
    lines = [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
    return "\n".join([",".join(table.colnames), *lines])


def _write(table: "Table", kind: TableFormat, target: Any) -> None:
    if kind is TableFormat.VOTABLE:
        from astropy.io.votable import from_table, writeto

        for name in ("flux", "flux_err"):  # the standard knows no electrons
            table[name].info.unit, table[name].info.description = None, "electrons"
        writeto(from_table(table), str(target) if isinstance(target, Path) else target)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: pa.array(table[name].tolist()) for name in table.colnames}), target)
