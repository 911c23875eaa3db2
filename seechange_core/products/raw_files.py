"""The raw files of one exposure: which belong together, and their place under a data root."""

import shutil
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from seechange_core.errors import ConflictError, IncompleteError, UserError
from seechange_core.instrument import get_instrument_instance, guess_instrument
from seechange_core.instrument.fits_reader import read_cards
from seechange_core.products.exposure_files import name_of
from seechange_core.storage.archive import Archive, group_checksum, sha256_of, sweep

if TYPE_CHECKING:
    from seechange_core.products.exposure import Exposure


@dataclass(frozen=True)
class RawFiles:
    """The files of one exposure, wherever they lie.

    Attributes
    ----------
    instrument
        Name of the instrument that made them.
    start
        What the paths of all of them begin with: the path of a single file.
    extensions
        What completes `start` to each of several files, the one with the global header first; None for
        a single file.
    """

    instrument: str
    start: str
    extensions: tuple[str, ...] | None = None

    @cached_property
    def paths(self) -> list[Path]:
        """The files."""
        return [Path(self.start + extension) for extension in self.extensions or ("",)]

    @cached_property
    def name(self) -> str:
        """What the exposure is called, unless one of another night or instrument is called so."""
        return name_of(self.paths[0].name)

    @cached_property
    def checksums(self) -> list[str]:
        """SHA-256 of each file, hexadecimal."""
        return [sha256_of(path) for path in self.paths]

    @property
    def checksum(self) -> str:
        """SHA-256 of a single file, or one for several: see `group_checksum`."""
        return self.checksums[0] if self.extensions is None else group_checksum(self.checksums)

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(path.stat().st_size for path in self.paths)


def find_raw_files(path: str | Path, instrument: str | None = None) -> RawFiles:
    """Find the files that make up an exposure together with a given one.

    Parameters
    ----------
    path
        Any of its files.
    instrument
        Name of the instrument; None guesses it from the file's name and header.

    Raises
    ------
    UserError
        If there is no such file, its path climbs with ``..``, or no instrument fits.
    IncompleteError
        If one of the files that belong to it is missing.
    FileDamagedError
        If it is not FITS.
    """
    if ".." in Path(path).parts:
        raise UserError("its path climbs with '..'", cure="give the path without it", file=str(path))
    source = Path(path).expanduser()
    if not source.is_file():
        what = "it is a folder" if source.is_dir() else "there is no such file"
        raise UserError(what, cure="give the path of a raw file", file=str(path))
    kind = instrument if instrument is not None else guess_instrument(source.name, read_cards(source))
    instance = get_instrument_instance(kind)
    group = instance.group_files(source)
    if group is None:
        return RawFiles(instance.name, str(source))
    common, extensions = group
    found = RawFiles(instance.name, str(source.parent / common), tuple(extensions))
    for member in found.paths:
        if not member.is_file():
            raise IncompleteError(
                f"{member.name}, which belongs to it, is not beside it",
                cure="get that file too",
                file=str(path),
            )
    return found


def place(raw: RawFiles, exposure: "Exposure", archive: Archive, known: "Exposure | None" = None) -> None:
    """Give files their place under a data root, all or none, and note it in their exposure.

    Files in a root stay where they are. Others are copied to ``raw/<instrument>/<night>/`` in the first
    root; several that belong together into a folder of their own there, named after the exposure.

    Parameters
    ----------
    raw, exposure
        The files, and the row that describes them.
    archive
        Has the roots.
    known
        The row that they complete: a single file replaces its file, several get a folder beside its own.

    Raises
    ------
    ConflictError
        If other files are in the way.
    BadDataError
        If they changed meanwhile.
    """
    exposure.filename_extensions = None if raw.extensions is None else list(raw.extensions)
    try:
        exposure.filename = _start_in_root(raw, archive)
        return
    except UserError:
        folder = f"raw/{exposure.instrument}/{exposure.night}"
    before = "" if known is None else known.filename
    if raw.extensions is None:
        exposure.filename = f"{folder}/{raw.paths[0].name}"
        _copy_one(raw, exposure.filename, archive, replace=before == exposure.filename)
    else:
        own = f"{folder}/{raw.name}"
        if before.startswith(f"{own}/"):
            own = f"{own}-{raw.checksum[:8]}"
        exposure.filename = f"{own}/{raw.start.rpartition('/')[2]}"
        _copy_group(raw, own, archive)


def restore(raw: RawFiles, exposure: "Exposure", known: "Exposure", archive: Archive) -> None:
    """Note in an exposure where its files are that are known already; bring those back that got lost."""
    exposure.filename, exposure.filename_extensions = known.filename, known.filename_extensions
    if all(archive.exists(relpath) for relpath in known.relative_paths):
        return
    try:
        exposure.filename = _start_in_root(raw, archive)
        exposure.filename_extensions = None if raw.extensions is None else list(raw.extensions)
    except UserError:
        for source, checksum, relpath in zip(raw.paths, raw.checksums, known.relative_paths, strict=True):
            archive.write(relpath, partial(shutil.copyfile, source), expected=checksum)


def _start_in_root(raw: RawFiles, archive: Archive) -> str:
    """Return what the relative paths of files in a root begin with; `UserError` if they are in none."""
    first = archive.relative(raw.paths[0])
    return first if raw.extensions is None else first.removesuffix(raw.extensions[0])


def _copy_one(raw: RawFiles, relpath: str, archive: Archive, *, replace: bool) -> None:
    sweep(archive.path(relpath).parent)
    copy = partial(shutil.copyfile, raw.paths[0])
    try:
        if archive.exists(relpath) and not replace:
            raise FileExistsError
        archive.write(relpath, copy, expected=raw.checksums[0], replace=replace)
    except FileExistsError:
        _refuse_other(raw.checksums[0], relpath, archive)


def _copy_group(raw: RawFiles, folder: str, archive: Archive) -> None:
    sources = dict(zip(raw.paths, raw.checksums, strict=True))
    sweep(archive.path(folder).parent)
    try:
        archive.copy_folder(folder, sources)
    except FileExistsError:
        # Brought here before, or by another process at this moment; whatever lacks is added.
        relpaths = {path: f"{folder}/{path.name}" for path in sources}
        for path, relpath in relpaths.items():
            if archive.exists(relpath):
                _refuse_other(sources[path], relpath, archive)
        for path, relpath in relpaths.items():
            if not archive.exists(relpath):
                archive.write(relpath, partial(shutil.copyfile, path), expected=sources[path])


def _refuse_other(checksum: str, relpath: str, archive: Archive) -> None:
    there = archive.find(relpath, download=False)
    if sha256_of(there) != checksum:
        raise ConflictError(
            f"{there} is in the data root already with other content",
            cure="rename this file if it is another exposure, or remove that one if nobody needs it",
        )
