"""What lies in a folder or at an address: the FITS files, with what tells whether one still changes."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seechange_core.errors import NotFoundError

#: What the names of FITS files end with, and what their contents begin with.
SUFFIXES = (".fits", ".fit", ".fts", ".fz", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.bz2", ".fit.bz2")
BEGINNING = b"SIMPLE  ="


@dataclass(frozen=True)
class Listed:
    """A file as it was found.

    Attributes
    ----------
    address
        Path or URL.
    size_bytes
        None if a server does not say.
    stamp
        Differs when the file was written again: time of its last change, or what a server has for it.
    modified
        Time of its last change, seconds since 1970; None if it is not known.
    """

    address: str
    size_bytes: int | None
    stamp: str
    modified: float | None


def visible_files(folder: Path) -> list[Path]:
    """List the files in a folder and in its folders; hidden ones may be half-written.

    Raises
    ------
    NotFoundError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise NotFoundError("there is no such folder", cure="make it, or correct its path", file=str(folder))
    return list(_visible(folder))


def _visible(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def looks_like_fits(file: Path) -> bool:
    """Tell by its name, or else by its first bytes: what should be FITS and is broken must be named."""
    if named_like_fits(file.name):
        return True
    try:
        with file.open("rb") as stream:
            return stream.read(len(BEGINNING)) == BEGINNING
    except OSError:
        return False


def named_like_fits(name: str) -> bool:
    """Tell by its name whether a file is FITS, packed or not."""
    return name.lower().endswith(SUFFIXES)


def listed(file: Path) -> Listed:
    """Look at a local file.

    Raises
    ------
    OSError
        If it is gone or cannot be looked at.
    """
    status = file.stat()
    return Listed(str(file), status.st_size, str(status.st_mtime_ns), status.st_mtime)
