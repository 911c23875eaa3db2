"""Registering raw files: each is looked at, given a place under the data root, and gets its row."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from seechange_core.errors import BadDataError, ConflictError, SeeChangeError, UserError
from seechange_core.flags import ExposureFlag
from seechange_core.instrument import get_instrument_instance, guess_instrument
from seechange_core.instrument.fits_reader import read_cards
from seechange_core.products.exposure import Exposure, name_of
from seechange_core.settings import Settings, get_settings, use_settings
from seechange_core.storage.archive import Archive, sha256_of
from seechange_core.storage.engine import open_session
from seechange_core.storage.rows import get_or_insert

OpenSession = Callable[[], AbstractContextManager[Session]]


def ingest(
    path: str | Path,
    settings: Settings | None = None,
    session_factory: OpenSession | None = None,
    instrument: str | None = None,
) -> Exposure:
    """Register a raw file: science, bias, dark or flat.

    A file under a data root is used where it is; any other is copied to
    ``raw/<instrument>/<night>/<name>`` under the first root, whole or not at all. The same file
    given again is the same exposure; one that came without some of its sections is replaced when
    the same exposure comes with more of them.

    Parameters
    ----------
    path
        The file.
    settings
        None takes the process's settings.
    session_factory
        Makes the sessions, each committed at its end; None takes the settings' database.
    instrument
        Name of the instrument; None guesses it from the file's name and header.

    Returns
    -------
    Exposure
        Its row, committed and in no session. Sections that cannot be read are named in
        `unreadable_sections`; the others can be processed.

    Raises
    ------
    UserError
        If there is no such file, its path climbs with ``..``, or no instrument fits.
    FileDamagedError
        If it is not FITS or was cut short before its first section's end.
    HeaderError
        If a needed card is missing or cannot be read.
    SectionMissingError
        If it holds none of the instrument's sections.
    ConflictError
        If the name is known already with other content.
    """
    chosen = settings if settings is not None else get_settings()
    sessions = session_factory if session_factory is not None else lambda: open_session(chosen)
    source = _existing_file(path)
    with use_settings(chosen):
        archive = Archive(chosen)
        try:
            kind = instrument if instrument is not None else guess_instrument(source.name, read_cards(source))
            exposure = _describe(source, kind)
            known = _find_known(sessions, exposure)
            if known is not None and known.checksum == exposure.checksum:
                return known
            exposure.filename = _place(source, exposure, archive, known)
        except SeeChangeError as error:
            raise type(error)(error.message, cure=error.cure, file=str(path)) from error
        return _insert(sessions, exposure) if known is None else _complete(sessions, known, exposure)


def _existing_file(path: str | Path) -> Path:
    if ".." in Path(path).parts:
        raise UserError("its path climbs with '..'", cure="give the path without it", file=str(path))
    source = Path(path).expanduser()
    if not source.is_file():
        what = "it is a folder" if source.is_dir() else "there is no such file"
        raise UserError(what, cure="give the path of a raw file", file=str(path))
    return source


def _describe(source: Path, kind: str) -> Exposure:
    """Make the row of a file that need not be under a data root."""
    instance = get_instrument_instance(kind)
    exposure = Exposure(nofile=True, instrument=instance.name, name=name_of(source.name))
    exposure.read_from([source])
    lost = instance.find_unreadable_sections([source])
    if len(lost) == len(instance.get_section_ids()):
        raise next(iter(lost.values()))
    if lost:
        exposure.unreadable_sections = {str(s): error.message for s, error in lost.items()}
        exposure.bitflag |= ExposureFlag.SECTIONS_LOST
    exposure.checksum = sha256_of(source)
    exposure.size_bytes = source.stat().st_size
    return exposure


def _find_known(sessions: OpenSession, exposure: Exposure) -> Exposure | None:
    """Return the row that has this content, or the one it completes; refuse another content."""
    same = or_(Exposure.checksum == exposure.checksum, Exposure.name == exposure.name)
    with sessions() as session:
        rows = session.scalars(select(Exposure).where(same)).all()
        session.expunge_all()
    for row in rows:
        if row.checksum == exposure.checksum:
            return row
    if rows and not _completes(exposure, rows[0]):
        raise _conflict(rows[0])
    return rows[0] if rows else None


def _completes(exposure: Exposure, known: Exposure) -> bool:
    """Tell whether a file is the same exposure as a known one, with sections that one lacks."""
    lost, still_lost = (set(e.unreadable_sections or ()) for e in (known, exposure))
    same = (exposure.instrument, exposure.type, exposure.mjd) == (known.instrument, known.type, known.mjd)
    return same and still_lost < lost


def _complete(sessions: OpenSession, known: Exposure, exposure: Exposure) -> Exposure:
    """Let a known exposure have the file that has more of its sections."""
    with sessions() as session:
        row = session.get_one(Exposure, known.id)
        for name in ("filename", "checksum", "size_bytes", "unreadable_sections"):
            setattr(row, name, getattr(exposure, name))
        row.bitflag = (row.bitflag & ~ExposureFlag.SECTIONS_LOST) | exposure.bitflag
        session.flush()
        session.expunge(row)
    return row


def _conflict(row: Exposure) -> ConflictError:
    return ConflictError(
        f"an exposure {row.name} with other content is known already, from {row.filename}",
        cure="rename this file if it is another exposure",
    )


def _place(source: Path, exposure: Exposure, archive: Archive, known: Exposure | None) -> str:
    """Return the file's path relative to a data root, after copying it there if it is in none."""
    try:
        return archive.relative(source)
    except UserError:
        relpath = f"raw/{exposure.instrument}/{exposure.night}/{source.name}"
    taken = archive.exists(relpath) and (known is None or known.filename != relpath)
    if taken and sha256_of(archive.find(relpath, download=False)) != exposure.checksum:
        raise ConflictError(
            f"{relpath} is in the data root already with other content",
            cure="rename this file if it is another exposure",
        )

    def copy(target: Path) -> None:
        shutil.copyfile(source, target)

    found = archive.write(relpath, copy)
    if found != exposure.checksum:
        raise BadDataError("it changed while it was copied", cure="ingest it when it is complete")
    return relpath


def _insert(sessions: OpenSession, exposure: Exposure) -> Exposure:
    try:
        with sessions() as session:
            row, _ = get_or_insert(session, exposure, ["name"])
            session.expunge(row)
    except IntegrityError:
        # Another process registered the same content under another name in this moment.
        known = _find_known(sessions, exposure)
        if known is None:
            raise
        return known
    if row.checksum != exposure.checksum:
        raise _conflict(row)
    return row
