"""Reading raw FITS files as cameras write them: plain, ``.gz``, ``.bz2`` or tile-compressed (``.fz``).

Pixels keep the type the camera gave them. astropy only warns about a file that was cut short, so
every unit's extent is compared with what is there before its pixels are believed.
"""

import bz2
import gzip
import io
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from seechange_core.errors import FileDamagedError, PixelsError, SectionMissingError

Unit = int | str | None
"""Which header-data unit: its index, its EXTNAME, or None for the first one with an image."""

_CUT_SHORT = "copy it again from where it came from"
_COMMENTARY = frozenset({"COMMENT", "HISTORY", ""})
_BROKEN = (OSError, VerifyError, ValueError, TypeError, KeyError, IndexError, EOFError)


class _OpenFile(NamedTuple):
    units: Any  # astropy's HDUList
    size_bytes: int  # of the uncompressed content


@dataclass(frozen=True)
class UnitReport:
    """One header-data unit of a file.

    Attributes
    ----------
    index, name
        Position and EXTNAME (empty if it has none).
    has_image
        It holds a 2-D (or deeper) image, compressed or not.
    is_complete
        All its bytes are there.
    """

    index: int
    name: str
    has_image: bool
    is_complete: bool


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
    SectionMissingError
        If it has no such unit.
    """
    with _open(path) as file:
        return _cards(_find(file, unit, path).header)


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
    SectionMissingError
        If it has no such unit.
    PixelsError
        If the unit holds no 2-D image.
    """
    with _open(path) as file:
        hdu = _find(file, unit, path)
        if not _is_complete(hdu, file.size_bytes):
            raise _cut_short(unit, path)
        try:
            data = hdu.data
        except (*_BROKEN, RuntimeError, zlib.error) as error:
            raise FileDamagedError(
                f"the image of {_label(unit)} cannot be read: {error}", cure=_CUT_SHORT, file=str(path)
            ) from None
    return _plain_image(data, unit, path)


def list_units(path: Path) -> list[UnitReport]:
    """List the units of a file, reading headers only.

    Raises
    ------
    FileDamagedError
        If the file is not FITS.
    """
    with _open(path) as file:
        return [
            UnitReport(index, hdu.name if index else "", _has_image(hdu), _is_complete(hdu, file.size_bytes))
            for index, hdu in enumerate(_all_units(file, path))
        ]


def check_unit(reports: Sequence[UnitReport], unit: Unit, path: Path) -> None:
    """Refuse a unit that is not among those listed, has no image or is incomplete.

    Raises
    ------
    SectionMissingError, FileDamagedError
        As `read_pixels` would.
    """
    for report in reports:
        if report.has_image and unit in {None, report.index, report.name}:
            if report.is_complete:
                return
            raise _cut_short(unit, path)
    raise _missing(unit, path)


@contextmanager
def _open(path: Path) -> Iterator[_OpenFile]:
    """Open a FITS file whatever its compression; astropy's warnings are replaced by our own checks."""
    with path.open("rb") as raw, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream, size = _uncompressed(raw, path)
        try:
            units = fits.open(stream, mode="readonly", memmap=False, lazy_load_hdus=True, cache=False)
            units[0].header  # noqa: B018 (reads it: a broken primary header must fail here)
        except _BROKEN as error:
            words = " ".join(str(error).split())
            raise FileDamagedError(
                f"not a readable FITS file: {words}", cure="give the camera's own file", file=str(path)
            ) from None
        try:
            yield _OpenFile(units, size)
        finally:
            units.close()


def _uncompressed(raw: Any, path: Path) -> tuple[Any, int]:
    """Return a stream of the uncompressed bytes, as far as they go, and their number."""
    magic = raw.read(3)
    raw.seek(0)
    if not magic.startswith((b"\x1f\x8b", b"BZh")):
        return raw, path.stat().st_size
    packed = gzip.GzipFile(fileobj=raw) if magic.startswith(b"\x1f\x8b") else bz2.BZ2File(raw)
    content = io.BytesIO()
    try:
        # Where it was cut short, keep what there is: the units' extents tell which images are lost.
        with suppress(EOFError, zlib.error):
            while piece := packed.read1(1 << 20):
                content.write(piece)
    except OSError as error:
        raise FileDamagedError(f"damaged compression: {error}", cure=_CUT_SHORT, file=str(path)) from None
    content.seek(0)
    return content, content.getbuffer().nbytes


def _all_units(file: _OpenFile, path: Path) -> list[Any]:
    try:
        return list(file.units)
    except _BROKEN as error:
        raise FileDamagedError(
            f"a header inside the file is broken: {error}", cure=_CUT_SHORT, file=str(path)
        ) from None


def _find(file: _OpenFile, unit: Unit, path: Path) -> Any:
    try:
        if unit is None:
            return next(hdu for hdu in file.units if _has_image(hdu))
        return file.units[unit]
    except (StopIteration, *_BROKEN):
        raise _missing(unit, path) from None


def _missing(unit: Unit, path: Path) -> SectionMissingError:
    return SectionMissingError(
        f"the file has no {_label(unit)}",
        cure="see whether it was cut short or comes from another camera",
        file=str(path),
    )


def _cut_short(unit: Unit, path: Path) -> FileDamagedError:
    return FileDamagedError(
        f"the file ends before the image of {_label(unit)} does", cure=_CUT_SHORT, file=str(path)
    )


def _label(unit: Unit) -> str:
    if unit is None:
        return "image"
    return f"extension {unit!r}" if isinstance(unit, str) else f"unit {unit}"


def _has_image(hdu: Any) -> bool:
    header = hdu.header
    return bool(hdu.is_image) and header.get("NAXIS", 0) >= 2 and header.get("NAXIS1", 0) > 0


def _is_complete(hdu: Any, size_bytes: int) -> bool:
    """Tell whether the file reaches to the end of a unit's data; the padding after them may lack."""
    place = hdu.fileinfo()
    if place is None:
        return True
    table = getattr(hdu, "_bintable", None)  # the bytes of a tile-compressed image lie in a table
    return int(place["datLoc"]) + int((table if table is not None else hdu).size) <= size_bytes


def _plain_image(data: Any, unit: Unit, path: Path) -> npt.NDArray[Any]:
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
