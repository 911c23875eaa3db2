"""Files under the data roots: written whole or not at all, found locally or fetched from the server.

Every path is relative to a data root and can never leave it. Knows no product and no format.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from seechange_core.errors import FileDamagedError, PipelineError, SettingsError, UserError
from seechange_core.settings import Settings, get_settings


class Archive:
    """The files of one installation.

    Parameters
    ----------
    settings
        Whose roots to use; None takes the process's settings.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings if settings is not None else get_settings()
        self.roots = self.settings.path.data_root
        self.server = self.settings.path.server_data

    def path(self, relpath: str, root: Path | None = None) -> Path:
        """Return the full path of a file, there or not, in the first root unless another is given.

        Raises
        ------
        UserError
            If the path would leave the root.
        """
        root = self.roots[0] if root is None else root
        check_relative(relpath)
        full = root / relpath
        if not full.resolve().is_relative_to(root.resolve()):
            raise UserError(
                f"the path leaves the data root {root} through a link",
                cure="use a path inside the data root",
                file=relpath,
            )
        return full

    def relative(self, path: str | Path) -> str:
        """Return the path, relative to the data root it lies in, of a file named in any way.

        Raises
        ------
        UserError
            If it lies in none of the roots.
        """
        full = Path(os.path.normpath(Path.cwd() / Path(path).expanduser()))
        for root in self.roots:
            for inside, base in ((full, root), (full.resolve(), root.resolve())):
                if inside.is_relative_to(base):
                    return inside.relative_to(base).as_posix()
        raise UserError(
            f"not inside a data root ({', '.join(map(str, self.roots))})",
            cure="move it there, or add its folder to path.data_root",
            file=str(path),
        )

    def write(self, relpath: str, writer: Callable[[Path], None]) -> str:
        """Write a file whole or not at all, and return its SHA-256.

        Parameters
        ----------
        relpath
            Where; an older file there is replaced.
        writer
            Called with a temporary path in the same folder, to which it writes.
        """
        target = self.path(relpath)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(target)
        try:
            writer(temporary)
            _sync(temporary)
            checksum = sha256_of(temporary)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(target.parent)
        return checksum

    def find(self, relpath: str, *, checksum: str | None = None, download: bool = True) -> Path:
        """Return the local path of a file, fetching it from the server if no root has it.

        Parameters
        ----------
        relpath
            Relative to a root.
        checksum
            SHA-256 to verify what is fetched against; a local file is verified by `verify`.
        download
            False looks on this machine only.

        Raises
        ------
        FileNotFoundError
            If it is nowhere.
        FileDamagedError
            If what came from the server is not what the checksum says.
        """
        for root in self.roots:
            full = self.path(relpath, root)
            if full.is_file():
                return full
        if download and self.server is not None:
            return self._fetch(relpath, checksum)
        places = ", ".join([*map(str, self.roots), *([self.server] if self.server and download else [])])
        raise FileNotFoundError(f"{relpath} is not in {places}")

    def exists(self, relpath: str) -> bool:
        """Tell whether a local root has the file."""
        return any(self.path(relpath, root).is_file() for root in self.roots)

    def verify(self, relpath: str, checksum: str) -> Path:
        """Return the local path of a file after checking that it is what its checksum says.

        Raises
        ------
        FileDamagedError
            If it is not.
        """
        full = self.find(relpath, checksum=checksum)
        found = sha256_of(full)
        if found != checksum:
            raise FileDamagedError(
                f"its SHA-256 is {found[:12]}..., the database says {checksum[:12]}...",
                cure="remove it, and make it again or let it be fetched",
                file=str(full),
            )
        return full

    def remove(self, relpath: str) -> None:
        """Delete a file from all local roots; it need not be there."""
        for root in self.roots:
            self.path(relpath, root).unlink(missing_ok=True)

    def _fetch(self, relpath: str, checksum: str | None) -> Path:
        address = f"{str(self.server).rstrip('/')}/{relpath}"
        target = self.path(relpath)
        files, place = _server(address)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(target)
        try:
            _download(files, place, address, temporary)
            found = sha256_of(temporary) if checksum is not None else None
            if found != checksum:
                raise FileDamagedError(
                    f"what {address} gives has the SHA-256 {found}, the database says {checksum}",
                    cure="restore the file on the server",
                    file=relpath,
                )
            _sync(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return target


def check_relative(relpath: str) -> None:
    """Refuse a path that is not plainly inside the folder it is relative to.

    Raises
    ------
    UserError
        If it is empty or absolute, or climbs with ``..``.
    """
    pure = PurePosixPath(relpath)
    if (
        not relpath
        or pure.is_absolute()
        or ".." in pure.parts
        or "\0" in relpath
        or pure == PurePosixPath(".")
    ):
        raise UserError(
            "not a path inside the data root",
            cure="use a relative path without '..'",
            file=relpath or "(empty)",
        )


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(target: Path) -> Path:
    """Make an empty hidden file beside the target, that keeps its suffixes: writers go by them."""
    handle, name = tempfile.mkstemp(prefix=".partial-", suffix=f"-{target.name}"[-100:], dir=target.parent)
    os.close(handle)
    # mkstemp makes files for the owner alone; a product is as readable as any other new file.
    umask = os.umask(0)
    os.umask(umask)
    path = Path(name)
    path.chmod(0o666 & ~umask)
    return path


def _sync(path: Path) -> None:
    """Make sure that a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _server(address: str) -> tuple[Any, str]:
    try:
        files, place = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise SettingsError(
            f"path.server_data: cannot use {address}: {error}", cure="install what it names, or correct it"
        ) from None
    return files, place


def _download(files: Any, place: str, address: str, temporary: Path) -> None:
    try:
        files.get_file(place, str(temporary))
    except FileNotFoundError:
        raise FileNotFoundError(f"{address} does not exist, nor is it in a data root") from None
    except Exception as error:
        raise PipelineError(
            f"could not fetch {address}: {type(error).__name__}: {error}",
            cure="see whether the server is up and try again",
        ) from error
