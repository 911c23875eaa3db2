"""Files under the data roots: written whole or not at all, found locally or fetched from the server.

Every path is relative to a data root and can never leave it. Knows no product and no format.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath

from seechange_core.errors import BadDataError, FileDamagedError, PipelineError, SettingsError, UserError
from seechange_core.settings import Settings, get_settings
from seechange_core.storage.server import Server

log = logging.getLogger(__name__)

#: What the names of files begin with that are being written.
PARTIAL = ".partial-"
_ABANDONED_S = 3600.0
_LOCKS = 256


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
        self._unanswered = False

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

    def write(
        self,
        relpath: str,
        writer: Callable[[Path], object],
        *,
        expected: str | None = None,
        replace: bool = True,
    ) -> str:
        """Write a file whole or not at all, and return its SHA-256.

        Parameters
        ----------
        relpath
            Where.
        writer
            Called with a temporary path in the same folder, to which it writes.
        expected
            SHA-256 of the file that is copied.
        replace
            An older file there is replaced.

        Raises
        ------
        BadDataError
            If it is not what was expected.
        FileExistsError
            If there is one that is not to be replaced.
        """
        target = self.path(relpath)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(target)
        try:
            checksum = _written(temporary, writer, expected)
            if replace:
                temporary.replace(target)
            else:
                _take_name(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(target.parent)
        return checksum

    def copy_folder(self, relpath: str, sources: Mapping[Path, str]) -> None:
        """Copy files that belong together into a folder of their own: all at once, or none of them.

        Parameters
        ----------
        relpath
            The folder.
        sources
            SHA-256 of each file.

        Raises
        ------
        FileExistsError
            If there is such a folder with files in it; nothing is copied then.
        BadDataError
            If one of them is not what was expected.
        """
        target = self.path(relpath)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=target.parent))
        try:
            for source, checksum in sources.items():
                _written(temporary / source.name, partial(shutil.copyfile, source), checksum)
            temporary.chmod(0o777 & ~_umask())
            _sync(temporary)
            # A folder can only be renamed onto an empty one: it never hides another's files.
            try:
                temporary.rename(target)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                raise FileExistsError(error.errno, "there are files in it already", str(target)) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sync(target.parent)

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
        SettingsError, PipelineError
            If the server refuses, cannot be reached, breaks off or stalls.
        """
        return self._find([relpath], lambda paths: sha256_of(paths[0]), checksum, download)[0]

    def find_group(
        self, relpaths: Sequence[str], *, checksum: str | None = None, download: bool = True
    ) -> list[Path]:
        """Return the local paths of files that belong together; as `find`, but for the checksum.

        Parameters
        ----------
        relpaths, download
            As for `find`.
        checksum
            `group_checksum` of them all, verified if any had to be fetched. Of a group that it does not
            fit, nothing is kept that was fetched.
        """
        return self._find(
            relpaths, lambda paths: group_checksum(sha256_of(path) for path in paths), checksum, download
        )

    def _find(
        self,
        relpaths: Sequence[str],
        digest: Callable[[Sequence[Path]], str],
        checksum: str | None,
        download: bool,
    ) -> list[Path]:
        here = [self._local(relpath) for relpath in relpaths]
        lost = [relpath for relpath, path in zip(relpaths, here, strict=True) if path is None]
        if not lost:
            return [path for path in here if path is not None]
        if not download or self.server is None:
            places = ", ".join([*map(str, self.roots), *([self.server] if self.server and download else [])])
            raise FileNotFoundError(f"{lost[0]} is not in {places}")
        # Of several processes that want the same file at once, one fetches it.
        with _taking_turns(self.path(lost[0])):
            return self._fetch(relpaths, digest, checksum)

    def _local(self, relpath: str) -> Path | None:
        paths = (self.path(relpath, root) for root in self.roots)
        return next((path for path in paths if path.is_file()), None)

    def _fetch(
        self, relpaths: Sequence[str], digest: Callable[[Sequence[Path]], str], checksum: str | None
    ) -> list[Path]:
        """Fetch those of the files that are not here, all or none."""
        server = Server(str(self.server))
        fetched: dict[Path, Path] = {}
        here: list[Path] = []
        try:
            for relpath in relpaths:
                local, target = self._local(relpath), self.path(relpath)
                if local is None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    sweep(target.parent)
                    fetched[target] = _temporary(target)
                    server.fetch(relpath, fetched[target])
                here.append(local or target)
            if fetched and checksum is not None:
                found = digest([fetched.get(path, path) for path in here])
                if found != checksum:
                    raise FileDamagedError(
                        f"what {self.server} gives has the SHA-256 {found}, the database says {checksum}",
                        cure="restore the file on the server",
                        file=", ".join(relpaths),
                    )
            for target, temporary in fetched.items():
                _sync(temporary)
                temporary.replace(target)
        finally:
            for temporary in fetched.values():
                temporary.unlink(missing_ok=True)
        return here

    def is_somewhere(self, relpath: str) -> bool:
        """Tell whether a local root or the server has the file, without fetching it.

        Raises
        ------
        SettingsError, PipelineError
            If the server has to be asked, and refuses or cannot be reached.
        """
        return self.exists(relpath) or (self.server is not None and Server(self.server).has(relpath))

    def seems_to_be_somewhere(self, relpath: str) -> bool:
        """As `is_somewhere`, but what the server cannot or will not tell counts as no.

        Such a server is asked only once by this archive, without trying again, and a warning is logged.
        """
        if self.exists(relpath):
            return True
        if self.server is None or self._unanswered:
            return False
        try:
            return Server(self.server).has(relpath, patient=False)
        except (PipelineError, SettingsError) as error:
            self._unanswered = True
            log.warning("files that are not here count as lost: %s", error)
            return False

    def exists(self, relpath: str) -> bool:
        """Tell whether a local root has the file."""
        return self._local(relpath) is not None

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


def _written(path: Path, writer: Callable[[Path], object], expected: str | None) -> str:
    """Write a file, see it safe on the disk, and return its SHA-256."""
    writer(path)
    _sync(path)
    checksum = sha256_of(path)
    if expected not in {None, checksum}:
        raise BadDataError("it changed while it was copied", cure="copy it when it is complete")
    return checksum


def _take_name(path: Path, target: Path) -> None:
    """Rename a file to a name that nobody else may have taken, not even in this moment."""
    try:
        target.hardlink_to(path)
    except OSError:
        if target.exists():
            raise FileExistsError(errno.EEXIST, "there is such a file already", str(target)) from None
        path.replace(target)  # a file system without hard links: a look must do
    else:
        path.unlink()


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def group_checksum(checksums: Iterable[str]) -> str:
    """Return one SHA-256 for files that belong together: of their own, hexadecimal, in turn."""
    return hashlib.sha256("".join(checksums).encode()).hexdigest()


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left half-written in a folder.

    Whoever still writes does so at least once a minute, or has given up.
    """
    for path in folder.glob(f"{PARTIAL}*"):
        with suppress(FileNotFoundError):  # another process sweeps too
            if time.time() - max(p.stat().st_mtime for p in (path, *path.glob("*"))) > _ABANDONED_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _temporary(target: Path) -> Path:
    """Make an empty hidden file beside the target, that keeps its suffixes: writers go by them."""
    handle, name = tempfile.mkstemp(prefix=PARTIAL, suffix=f"-{target.name}"[-100:], dir=target.parent)
    os.close(handle)
    # mkstemp makes files for the owner alone; a product is as readable as any other new file.
    path = Path(name)
    path.chmod(0o666 & ~_umask())
    return path


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@contextmanager
def _taking_turns(target: Path) -> Iterator[None]:
    """Let one process or thread of this machine at a time past this point, for the same target.

    The kernel ends the lock of a process that dies. Between machines there is none: each fetches the
    file, and the last one to finish replaces it by the same. The locks are few files, never removed;
    targets that share one wait for each other.
    """
    folder = Path(tempfile.gettempdir()) / f"seechange-locks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():  # somebody else's: go on without, as between machines
        yield
        return
    number = int(hashlib.sha256(os.fsencode(target)).hexdigest(), 16) % _LOCKS
    with (folder / str(number)).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sync(path: Path) -> None:
    """Make sure that a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
