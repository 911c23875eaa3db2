"""Where the header-data units of a FITS file begin and end, found without parsing their headers."""

import bz2
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from seechange_core.errors import FileDamagedError

CUT_SHORT = "copy it again from where it came from"

_BLOCK = 2880
_CARD = 80
_READ = 8 * _BLOCK  # a section's header as a rule
_PIECE = 1024 * _BLOCK
_TEXT = re.compile(r"'((?:[^']|'')*)'")  # a quote inside is written twice


@dataclass(frozen=True)
class Extent:
    """One header-data unit and its place in the uncompressed file.

    Attributes
    ----------
    index
        Position in the file.
    header
        Its blocks, to the one with END.
    start, data_start, end
        Offsets, bytes: of the header, of the data and of what follows their last byte (padding is not
        counted).
    """

    index: int
    header: bytes
    start: int
    data_start: int
    end: int

    @cached_property
    def _structure(self) -> dict[bytes, bytes]:
        return _structure(self.header)

    @property
    def name(self) -> str:
        """EXTNAME in upper case; empty if it has none."""
        match = _TEXT.match(self._structure.get(b"EXTNAME", b"").decode("latin-1"))
        return match[1].replace("''", "'").strip().upper() if match else ""

    @property
    def is_compressed(self) -> bool:
        """It is a table that holds a tile-compressed image."""
        return self._structure.get(b"ZIMAGE") == b"T"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array, in numpy's order; of the table of a compressed image."""
        return _shape(self._structure)

    @property
    def has_image(self) -> bool:
        """It holds an array of two axes or more."""
        if self.is_compressed:
            return int(self._structure.get(b"ZNAXIS", b"0")) >= 2
        is_array = self._structure.get(b"XTENSION", b"'IMAGE").startswith(b"'IMAGE")
        return is_array and len(self.shape) >= 2 and self.shape[-1] > 0


class FitsFile:
    """A FITS file that is open for reading; what is found in it is remembered.

    Parameters
    ----------
    path
        The file: plain, gzip or bzip2.

    Raises
    ------
    FileDamagedError
        If it is not FITS.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw = path.open("rb")
        self._found: list[Extent] = []
        self._at_end = False
        try:
            self._stream, self.size_bytes = _uncompressed(self._raw, path)
            self._find_first()
        except BaseException:
            self._raw.close()
            raise

    def close(self) -> None:
        """Close it."""
        self._raw.close()

    def extents(self) -> Iterator[Extent]:
        """Go through its units; those not yet known are looked for on the way."""
        index = 0
        while index < len(self._found) or self._find_next():
            yield self._found[index]
            index += 1

    def read_data(self, extent: Extent) -> bytearray:
        """Read a unit's data, without their padding."""
        data = bytearray(extent.end - extent.data_start)
        self._stream.seek(extent.data_start)
        if self._stream.readinto(data) != len(data):
            raise EOFError("the file has become shorter")
        return data

    def pieces(self, extent: Extent) -> Iterator[bytes]:
        """Read a unit's data with their padding, as far as it goes, a few MB at a time."""
        at, end = extent.data_start, extent.data_start + _padded(extent.end - extent.data_start)
        while at < end:
            piece = self._peek(at, min(_PIECE, end - at))
            if not piece:
                return
            # Where padding lacks, zeros stand for it.
            yield piece + bytes(-len(piece) % _BLOCK)
            at += len(piece)

    def window(self, extent: Extent) -> "_Window":
        """Return a unit as a file of its own."""
        return _Window(self._stream, extent.start, self.size_bytes)

    def _find_first(self) -> None:
        if self._peek(0, 9) != b"SIMPLE  =":
            raise _no_fits(self._path, "it does not begin with SIMPLE")
        if not self._find_next():
            raise _no_fits(self._path, "its primary header has no end")

    def _find_next(self) -> bool:
        """Find one unit more; False if there is none."""
        if self._at_end:
            return False
        start = 0
        if self._found:
            start = self._found[-1].data_start + _padded(self._found[-1].end - self._found[-1].data_start)
        # What follows the last unit and is none itself is no concern of ours, nor is half a header.
        header = self._read_header(start) if not start or self._peek(start, 8) == b"XTENSION" else b""
        if not header:
            self._at_end = True
            return False
        try:
            size = _data_size(_structure(header))
        except ValueError as error:
            raise FileDamagedError(
                f"the header of unit {len(self._found)} is broken: {error}",
                cure=CUT_SHORT,
                file=str(self._path),
            ) from None
        data_start = start + len(header)
        self._found.append(Extent(len(self._found), header, start, data_start, data_start + size))
        return True

    def _peek(self, start: int, size: int) -> bytes:
        self._stream.seek(start)
        found: bytes = self._stream.read(size)
        return found

    def _read_header(self, start: int) -> bytes:
        """Return a header's blocks to the one with END; empty if the file ends before that one does."""
        self._stream.seek(start)
        content, seen = b"", 0
        while piece := self._stream.read(_READ):
            content += bytes(piece)
            for card in range(seen, len(content) - _CARD + 1, _CARD):
                if content[card : card + 8] == b"END     ":
                    end = _padded(card + _CARD)
                    return content[:end] if len(content) >= end else b""
            seen = len(content) // _CARD * _CARD
        return b""


class _Window(io.RawIOBase):
    """A part of a stream, as a file that begins at 0."""

    def __init__(self, stream: Any, start: int, end: int) -> None:
        self._stream, self._start, self._size = stream, start, end - start
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        self._stream.seek(self._start + self._position)
        found = bytes(self._stream.read(wanted))
        self._position += len(found)
        return found


def _structure(header: bytes) -> dict[bytes, bytes]:
    """Return the cards that tell what a unit is and how long, as raw values without comments."""
    found: dict[bytes, bytes] = {}
    for start in range(0, len(header), _CARD):
        keyword = header[start : start + 8].rstrip()
        if keyword == b"END":
            break
        if keyword in _STRUCTURAL or keyword.startswith(b"NAXIS"):
            value = header[start + 10 : start + _CARD].strip()
            if not value.startswith(b"'"):
                value = value.partition(b"/")[0].strip()
            found.setdefault(keyword, value)
    return found


_STRUCTURAL = frozenset(
    (b"XTENSION", b"BITPIX", b"PCOUNT", b"GCOUNT", b"EXTNAME", b"ZIMAGE", b"ZNAXIS"),
)


def _shape(structure: dict[bytes, bytes]) -> tuple[int, ...]:
    axes = int(structure[b"NAXIS"]) if b"NAXIS" in structure else 0
    return tuple(int(structure.get(b"NAXIS%d" % n, b"-1")) for n in range(axes, 0, -1))


def _data_size(structure: dict[bytes, bytes]) -> int:
    """Return the number of bytes of a unit's data.

    Raises
    ------
    ValueError
        If its cards do not tell.
    """
    if b"BITPIX" not in structure or b"NAXIS" not in structure:
        raise ValueError("it lacks BITPIX or NAXIS")
    shape = _shape(structure)
    if min(shape, default=0) < 0:
        raise ValueError(f"its axes are {shape}")
    if not shape:
        return 0
    groups, extra = int(structure.get(b"GCOUNT", b"1")), int(structure.get(b"PCOUNT", b"0"))
    return abs(int(structure[b"BITPIX"])) // 8 * groups * (extra + prod(shape))


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _no_fits(path: Path, why: str) -> FileDamagedError:
    return FileDamagedError(
        f"not a readable FITS file: {why}", cure="give the camera's own file", file=str(path)
    )


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
        with suppress(EOFError):
            while piece := packed.read1(1 << 20):
                content.write(piece)
    except (OSError, zlib.error) as error:
        # Damage shows long after the first wrong byte, or at the end: nothing can be believed.
        raise FileDamagedError(f"damaged compression: {error}", cure=CUT_SHORT, file=str(path)) from None
    content.seek(0)
    return content, content.getbuffer().nbytes
