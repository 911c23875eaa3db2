"""FITS files of arrays and tables under one header: as fast as the disk, and never silently damaged.

The primary unit holds the header cards and no data. Each array or table is an extension named in
capitals after it; images repeat all the cards, so that each can be read alone.
"""

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.io.fits.verify import VerifyError, VerifyWarning
from astropy.utils.exceptions import AstropyUserWarning

from seechange_core.errors import FileDamagedError
from seechange_core.frames import Cards, Table

Content = npt.NDArray[Any] | Table
AnyTable = TypeVar("AnyTable", bound=Table)

#: Cards that describe how one unit of one file is laid out, which must not travel to another.
STRUCTURAL = frozenset(
    (
        *(
            "SIMPLE",
            "XTENSION",
            "BITPIX",
            "NAXIS",
            "EXTEND",
            "PCOUNT",
            "GCOUNT",
            "GROUPS",
            "TFIELDS",
            "THEAP",
        ),
        *("BZERO", "BSCALE", "BLANK", "END", "EXTNAME", "EXTVER", "EXTLEVEL", "INHERIT", "NEXTEND"),
        *(
            "CHECKSUM",
            "DATASUM",
            "ZHECKSUM",
            "ZDATASUM",
            "ZIMAGE",
            "ZBITPIX",
            "ZNAXIS",
            "ZCMPTYPE",
            "ZTENSION",
        ),
        *("ZPCOUNT", "ZGCOUNT", "ZBLANK", "ZQUANTIZ", "ZDITHER0", "ZSIMPLE", "ZEXTEND"),
    )
)
_NUMBERED = frozenset(
    (
        *("NAXIS", "ZNAXIS", "ZTILE", "ZNAME", "ZVAL", "TTYPE", "TFORM", "TDIM", "TUNIT", "TNULL", "TZERO"),
        *("TSCAL", "TDISP", "TBCOL"),
    )
)


def write_fits(path: Path, contents: Mapping[str, Content], cards: Cards | None = None) -> None:
    """Write arrays and tables into one file.

    Parameters
    ----------
    path
        Overwritten if it exists.
    contents
        Images (2-D or 3-D arrays) and tables, by name.
    cards
        Header of all of them; structural cards are left out.
    """
    header = to_header(cards or {})
    units: list[Any] = [fits.PrimaryHDU(header=header)]
    for name, content in contents.items():
        if isinstance(content, Table):
            units.append(fits.BinTableHDU(_to_records(content), name=name.upper()))
        else:
            units.append(fits.ImageHDU(np.ascontiguousarray(content), header=header, name=name.upper()))
    fits.HDUList(units).writeto(path, overwrite=True)


def read_fits(
    path: Path,
    names: Collection[str] | None = None,
    rows: slice | None = None,
    columns: Collection[str] | None = None,
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read arrays and tables from a file.

    Parameters
    ----------
    path
        Written by `write_fits`.
    names
        Which ones; None reads all.
    rows
        Read only these of each array, along its first axis, and nothing else of the file; None reads all.
    columns
        Of tables, decode only these, as far as they are there; None decodes all.

    Returns
    -------
    tuple
        Arrays in the machine's byte order by lower-case name (tables as structured arrays: see
        `to_table`), and the header cards.

    Raises
    ------
    FileDamagedError
        If the file is truncated, no FITS, or lacks one of the names.
    """
    with _opened(path) as units:
        cards = from_header(units[0].header)
        present = {unit.name.lower(): unit for unit in units[1:]}
        wanted = list(present) if names is None else [name.lower() for name in names]
        for name in wanted:
            if name not in present:
                raise FileDamagedError(
                    f"it has no extension {name.upper()}, only {', '.join(present).upper() or 'none'}",
                    cure="remove it and make it again",
                    file=str(path),
                )
        return {
            name: _native(present[name].data if rows is None else present[name].section[rows], columns)
            for name in wanted
        }, cards


def read_cards(path: Path) -> dict[str, Any]:
    """Read the header cards alone. Raises `FileDamagedError` as `read_fits` does."""
    with _opened(path) as units:
        return from_header(units[0].header)


def to_table(kind: type[AnyTable], records: npt.NDArray[Any], path: Path | None = None) -> AnyTable:
    """Make a table of a structured array, each column contiguous and of its own.

    Raises
    ------
    FileDamagedError
        If a column is missing.
    """
    names = [field.name for field in fields(kind)]
    missing = sorted(set(names) - set(records.dtype.names or ()))
    if missing:
        raise FileDamagedError(
            f"the table has no column {', '.join(missing)}",
            cure="remove it and make it again",
            file=None if path is None else str(path),
        )
    return kind(**{name: np.ascontiguousarray(records[name]) for name in names})


def to_header(cards: Cards) -> fits.Header:
    """Make a FITS header of cards: long keywords as HIERARCH, values that FITS cannot hold as undefined."""
    header = fits.Header()
    for raw, value in cards.items():
        key = str(raw).upper()
        if is_structural(key):
            continue
        if key in {"COMMENT", "HISTORY"}:
            for line in value if isinstance(value, list | tuple) else [value]:
                header.add_history(_text(line)) if key == "HISTORY" else header.add_comment(_text(line))
            continue
        long = len(key) > 8 or " " in key
        header.append((f"HIERARCH {key}" if long else key, _card_value(value)))
    return header


def from_header(header: fits.Header) -> dict[str, Any]:
    """Return a header's cards by upper-case keyword, structural ones left out; several comments as a list."""
    cards: dict[str, Any] = {}
    for key in dict.fromkeys(header.keys()):
        if not key or is_structural(key):
            continue
        if key in {"COMMENT", "HISTORY"}:
            cards[key] = [str(line) for line in header[key]]
            continue
        value = header[key]
        cards[key.upper()] = None if isinstance(value, fits.card.Undefined) else value
    return cards


def is_structural(keyword: str) -> bool:
    """Tell whether a keyword describes the layout of one unit of a file."""
    stem = keyword.rstrip("0123456789")
    return keyword in STRUCTURAL or (stem != keyword and stem in _NUMBERED)


def _card_value(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else _text(value)


def _text(value: Any) -> str:
    """Return what FITS can hold of a text: printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in str(value))


def _to_records(table: Table) -> npt.NDArray[Any]:
    columns = table.columns()
    kinds = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
    records = np.empty(len(table), dtype=kinds)
    for name, column in columns.items():
        records[name] = column
    return records


def _native(data: Any, columns: Collection[str] | None = None) -> npt.NDArray[Any]:
    if data is None:
        return np.zeros(0)
    array = np.asarray(data)
    if array.dtype.names is not None:
        names = [name for name in array.dtype.names if columns is None or name in columns]
        kinds = [(n, data[n].dtype.newbyteorder("="), data[n].shape[1:]) for n in names]
        records = np.empty(len(array), dtype=kinds)
        for name in names:
            # By the column's name from the FITS record: logical and unsigned columns are decoded there.
            records[name] = data[name]
        return records
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


@contextmanager
def _opened(path: Path) -> Iterator[fits.HDUList]:
    """Open a file, turning all that astropy says of a damaged one into one error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VerifyWarning)
            warnings.filterwarnings("error", message=".*truncated.*", category=AstropyUserWarning)
            # The file is opened here and not by astropy, which leaves a damaged one open.
            with path.open("rb") as file, fits.open(file, memmap=False, lazy_load_hdus=False) as units:
                _check_length(path, units)
                yield units
    except FileNotFoundError:
        raise
    except (OSError, AstropyUserWarning, VerifyError, TypeError, ValueError, EOFError) as error:
        raise FileDamagedError(
            f"not a whole FITS file: {' '.join(str(error).split())}",
            cure="remove it, and make it again or fetch it",
            file=str(path),
        ) from error


def _check_length(path: Path, units: fits.HDUList) -> None:
    size = path.stat().st_size
    end = max(unit.fileinfo()["datLoc"] + unit.fileinfo()["datSpan"] for unit in units)
    if end > size:
        raise FileDamagedError(
            f"truncated: {size} bytes of {end}",
            cure="remove it, and make it again or fetch it",
            file=str(path),
        )
