"""Reading raw FITS files as cameras write them: plain, ``.gz``, ``.bz2`` or tile-compressed (``.fz``).

Pixels keep the type the camera gave them. astropy only warns about a file that was cut short, so
every unit's extent is compared with what is there before its pixels are believed.

A mosaic's file has a hundred thousand cards before its last section: to find one unit, only the cards
that say where units begin and end are looked at; astropy parses the header of the unit that is wanted.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from seechange_core.errors import FileDamagedError, PixelsError, SectionAbsent, SectionMissingError
from seechange_core.instrument.fits_units import CUT_SHORT, Extent, FitsFile
from seechange_core.storage.fits_checksums import Verdict, judge

log = logging.getLogger(__name__)

Unit = int | str | None
"""Which header-data unit: its index, its EXTNAME, or None for the first one with an image."""

_COMMENTARY = frozenset({"COMMENT", "HISTORY", ""})

#: Files that stay open until the block of `kept_open` ends.
_kept: ContextVar[dict[Path, FitsFile] | None] = ContextVar("kept_files", default=None)


@dataclass(frozen=True)
class UnitReport:
    """One header-data unit of a file.

    Attributes
    ----------
    index, name
        Position and EXTNAME in upper case (empty if it has none).
    has_image
        It holds a 2-D (or deeper) image, compressed or not.
    is_complete
        All its bytes are there.
    is_damaged
        They are not what was written, by the sums that it carries.
    n_promised
        Of the primary unit: how many extensions its header says there are, if it does.
    """

    index: int
    name: str
    has_image: bool
    is_complete: bool
    is_damaged: bool
    n_promised: int | None = None


def read_cards(path: Path, unit: Unit = 0) -> dict[str, Any]:
    """Read the header of one unit.

    Parameters
    ----------
    path
        The file.
    unit
        Which one.

    Returns
    -------
    dict
        Raw keywords with their values; None where a card has no value; the raw text where it cannot
        be parsed; COMMENT and HISTORY as lists of their lines.

    Raises
    ------
    FileDamagedError
        If the file is not FITS.
    SectionMissingError, SectionAbsent
        If it has no such unit; the latter if it holds as many as it says it does.
    """
    with _open(path) as file:
        extent = _find(file, unit, path)
        if not extent.is_compressed:
            return _cards(_header(extent))
        return _cards(_compressed(file, extent).header)


def read_pixels(path: Path, unit: Unit = None) -> npt.NDArray[Any]:
    """Read the image of one unit, in the type the camera wrote.

    Returns
    -------
    array
        (H, W); unsigned integers where BZERO says so, in native byte order.

    Raises
    ------
    FileDamagedError
        If the file is not FITS, or ends before the image does.
    SectionMissingError, SectionAbsent
        If it has no such unit; the latter if it holds as many as it says it does.
    PixelsError
        If the unit holds no 2-D image.
    """
    with _open(path) as file:
        extent = _find(file, unit, path)
        if not extent.end <= file.size_bytes:
            raise _cut_short(unit, path)
        try:
            data = _compressed(file, extent).data if extent.is_compressed else _plain(file, extent)
        except Exception as error:  # noqa: BLE001 - unpacking damaged bytes raises anything
            raise FileDamagedError(
                f"the image of {_label(unit)} cannot be read: {error}", cure=CUT_SHORT, file=str(path)
            ) from None
    return _as_image(data, unit, path)


def list_names(path: Path) -> list[str]:
    """List the names (EXTNAME, upper case) of the units of a file that hold images."""
    with _open(path) as file:
        return [extent.name for extent in file.extents() if extent.has_image and extent.name]


def list_units(path: Path) -> list[UnitReport]:
    """List the units of a file, and check them against the sums they carry (DATASUM, CHECKSUM).

    Only units with sums are read beyond their headers. A header that was edited after its sum was written
    is no damage; it is logged.

    Raises
    ------
    FileDamagedError
        If the file is not FITS.
    """
    with _open(path) as file:
        return [_report(file, extent, path) for extent in file.extents()]


def _report(file: FitsFile, extent: Extent, path: Path) -> UnitReport:
    is_complete = extent.end <= file.size_bytes
    verdict = judge(extent.header, file.pieces(extent)) if is_complete else Verdict.RIGHT
    if verdict is Verdict.HEADER_DIFFERS:
        log.info("%s: the header of unit %d was edited after its CHECKSUM", path, extent.index)
    return UnitReport(
        extent.index,
        extent.name,
        extent.has_image,
        is_complete,
        verdict is Verdict.DAMAGED,
        _promised(extent) if extent.index == 0 else None,
    )


def _promised(primary: Extent) -> int | None:
    """Return how many extensions the primary header says there are; None if it does not say."""
    value = _header(primary).get("NEXTEND")
    return value if isinstance(value, int) else None


def check_unit(reports: Sequence[UnitReport], unit: Unit, path: Path) -> None:
    """Refuse a unit that is not among those listed, has no image, is incomplete or damaged.

    Raises
    ------
    SectionMissingError, SectionAbsent, FileDamagedError
        As `read_pixels` would; it does not notice damage that leaves the image readable.
    """
    for report in reports:
        if report.has_image and _is_meant(unit, report.index, report.name):
            if not report.is_complete:
                raise _cut_short(unit, path)
            if report.is_damaged:
                raise FileDamagedError(
                    f"the data of {_label(unit)} are not what was written: the file's own sum differs",
                    cure=CUT_SHORT,
                    file=str(path),
                )
            return
    raise _missing(unit, path, is_whole=bool(reports) and reports[0].n_promised == len(reports) - 1)


@contextmanager
def kept_open() -> Iterator[None]:
    """Let what is read inside open, unpack and search each file once, however many reads there are."""
    if _kept.get() is not None:
        yield
        return
    files: dict[Path, FitsFile] = {}
    token = _kept.set(files)
    try:
        yield
    finally:
        _kept.reset(token)
        for file in files.values():
            file.close()


@contextmanager
def _open(path: Path) -> Iterator[FitsFile]:
    """Give an open file; astropy's warnings are replaced by our own checks."""
    kept = _kept.get()
    file = kept.get(path) if kept is not None else None
    if file is None:
        file = FitsFile(path)
        if kept is not None:
            kept[path] = file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield file
    finally:
        if kept is None:
            file.close()


def _find(file: FitsFile, unit: Unit, path: Path) -> Extent:
    for extent in file.extents():
        if _is_meant(unit, extent.index, extent.name) and (unit is not None or extent.has_image):
            return extent
    extents = list(file.extents())
    raise _missing(unit, path, is_whole=_promised(extents[0]) == len(extents) - 1)


def _is_meant(unit: Unit, index: int, name: str) -> bool:
    if isinstance(unit, str):
        return unit.strip().upper() == (name or ("PRIMARY" if index == 0 else ""))
    return unit is None or unit == index


def _header(extent: Extent) -> fits.Header:
    return fits.Header.fromstring(extent.header)


def _compressed(file: FitsFile, extent: Extent) -> Any:
    """Return astropy's view of a tile-compressed image, whose header is that of the image."""
    table = fits.BinTableHDU.readfrom(file.window(extent))
    return fits.CompImageHDU(bintable=table)


def _plain(file: FitsFile, extent: Extent) -> Any:
    """Read an uncompressed image, turning bytes in place where no scaling needs floating point."""
    if not extent.has_image:
        return None
    header = _header(extent)
    bits, zero = int(header["BITPIX"]), header.get("BZERO", 0)
    half = 2 ** (bits - 1) if bits > 8 else -1
    if header.get("BSCALE", 1) != 1 or zero not in {0, half} or "BLANK" in header:
        kind = fits.ImageHDU if extent.index else fits.PrimaryHDU
        return kind.readfrom(file.window(extent)).data
    letter = "f" if bits < 0 else ("u" if bits == 8 else "i")
    raw = np.frombuffer(file.read_data(extent), np.dtype(f">{letter}{abs(bits) // 8}"))
    data = raw.byteswap(inplace=True).view(raw.dtype.newbyteorder("="))
    if zero == half:
        # What FITS has no type for is stored shifted by half its range: one bit turned over.
        data = data.view(f"u{bits // 8}")
        data ^= data.dtype.type(half)
    return data.reshape(extent.shape)


def _as_image(data: Any, unit: Unit, path: Path) -> npt.NDArray[Any]:
    """Return a 2-D native array; axes of length one that some software adds are dropped."""
    image = None if data is None else np.asarray(data)
    if image is not None and image.ndim > 2:
        image = image.reshape([n for n in image.shape if n != 1] if image.size else image.shape)
    if image is None or image.ndim != 2 or image.dtype.kind not in "uif":
        seen = "no array" if image is None else f"a {image.ndim}-d {image.dtype} array"
        raise PixelsError(
            f"{_label(unit)} holds {seen}, not an image", cure="give a 2-d image", file=str(path)
        )
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _missing(unit: Unit, path: Path, *, is_whole: bool) -> SectionMissingError | SectionAbsent:
    """Make the error of a unit that is not there: by intent where the file holds all it says it does."""
    if is_whole:
        return SectionAbsent("the camera wrote the file without it")
    return SectionMissingError(
        f"the file has no {_label(unit)}",
        cure="see whether it was cut short or comes from another camera",
        file=str(path),
    )


def _cut_short(unit: Unit, path: Path) -> FileDamagedError:
    return FileDamagedError(
        f"the file ends before the image of {_label(unit)} does", cure=CUT_SHORT, file=str(path)
    )


def _label(unit: Unit) -> str:
    if unit is None:
        return "image"
    return f"extension {unit!r}" if isinstance(unit, str) else f"unit {unit}"


def _cards(header: fits.Header) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for card in header.cards:
        key = card.keyword.upper()
        try:
            value = card.value
        except VerifyError:
            value = card.image.partition("=")[2].partition("/")[0].strip("' ")
        if isinstance(value, fits.card.Undefined):
            value = None
        if key in _COMMENTARY:
            if key:
                found.setdefault(key, []).append(str(value))
            continue
        found[key] = value
    return found
