"""Registering raw files: each exposure is looked at, given a place under the data root, and gets its row."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from seechange_core.errors import (
    ConflictError,
    FileDamagedError,
    SectionMissingError,
    SeeChangeError,
    Stop,
    UserError,
)
from seechange_core.flags import ExposureFlag
from seechange_core.instrument import Instrument, SectionId, get_instrument_instance
from seechange_core.products.calibrator import calibrator_frames
from seechange_core.products.exposure import Exposure
from seechange_core.products.exposure_files import name_of, possible_names
from seechange_core.products.exposure_save import FACTS
from seechange_core.products.image import Image
from seechange_core.products.raw_files import RawFiles, find_raw_files, place, restore
from seechange_core.settings import Settings, get_settings, use_settings
from seechange_core.storage.archive import Archive, sha256_of
from seechange_core.storage.engine import open_session
from seechange_core.storage.rows import get_or_insert

log = logging.getLogger(__name__)

OpenSession = Callable[[], AbstractContextManager[Session]]

#: How often a name is chosen anew because another process took it meanwhile.
_TRIES = 5
#: Where the files are.
_PLACE = ("filename", "filename_extensions")
#: What another reading of the same files may change.
_READ = ("instrument", *FACTS, "footprint", "unreadable_sections")


@dataclass(frozen=True)
class Ingested:
    """What became of raw files that were registered.

    Attributes
    ----------
    exposure
        Its row, committed and in no session.
    outcome
        ``new``; ``known`` already; ``changed``: known, and its header is read in another way now;
        ``completed``: known with fewer of its sections or files.
    changes
        Column by column, what was believed before and what is now.
    """

    exposure: Exposure
    outcome: Literal["new", "known", "changed", "completed"]
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)


def ingest(
    path: str | Path,
    settings: Settings | None = None,
    session_factory: OpenSession | None = None,
    instrument: str | None = None,
) -> Exposure:
    """Register a raw exposure and return its row: `register` of the files that `path` is one of.

    What changed in a row that was there is logged.
    """
    with use_settings(settings if settings is not None else get_settings()) as chosen:
        result = register(find(path, instrument), chosen, session_factory)
    if result.changes:
        log.warning("%s: %s", result.exposure.name, describe_changes(result.changes))
    return result.exposure


def find(path: str | Path, instrument: str | None = None) -> RawFiles:
    """Find the files of an exposure by any of them; as `find_raw_files`, every error naming the file."""
    try:
        return find_raw_files(path, instrument)
    except SeeChangeError as error:
        raise _about(error, str(path)) from error
    except OSError as error:
        raise UserError(
            f"it cannot be read: {error.strerror}", cure="see its permissions", file=str(path)
        ) from error


def register(
    raw: RawFiles, settings: Settings | None = None, session_factory: OpenSession | None = None
) -> Ingested:
    """Register a raw exposure: science, bias, dark, flat or twilight flat.

    Files under a data root are used where they are; others are copied there, whole or not at all. The
    same files given again are the same exposure: its row takes over what the header says when it is
    read as it is now (the products made from other facts are outdated then), and files that got lost
    are back. The name is that of the file; many cameras begin to count anew every night, so where an
    exposure of another night or instrument has it already, the night is added (``flat-001_2012-06-18``),
    then the instrument. So which of them goes without depends on which came first; a name once given
    stays. Files that came without some of the sections are replaced when the same exposure comes
    with more of them.

    Parameters
    ----------
    raw
        The files.
    settings
        None takes the process's settings.
    session_factory
        Makes the sessions, each committed at its end; None takes the settings' database.

    Returns
    -------
    Ingested
        With the row. Sections that cannot be read are named in its `unreadable_sections`; the others
        can be processed.

    Raises
    ------
    IgnoredFile
        If it is a file of a kind that needs no processing: focus, pointing, test.
    FileDamagedError
        If a file is not FITS or was cut short before its first section's end.
    HeaderError
        If a needed card is missing or cannot be read.
    SectionMissingError
        If none of the instrument's sections is there.
    ConflictError
        If the name is known already with other content of the same night and instrument, or the content as
        that of another instrument.
    """
    chosen = settings if settings is not None else get_settings()
    sessions = session_factory if session_factory is not None else lambda: open_session(chosen)
    with use_settings(chosen):
        archive = Archive(chosen)
        try:
            exposure = _describe(raw)
            known = _look(sessions, exposure, raw)
            if known is None:
                place(raw, exposure, archive)
                return _insert(sessions, exposure, raw)
            if known.checksum == exposure.checksum:
                restore(raw, exposure, known, archive)
                return _read_anew(sessions, known, exposure)
            return _other_files(sessions, known, exposure, raw, archive)
        except SeeChangeError as error:
            raise _about(error, str(raw.paths[0]), raw.paths) from error


def _about(error: SeeChangeError, path: str, members: Sequence[Path] = ()) -> SeeChangeError:
    """Return an error that names the file it is about: the one given, or another one of its group."""
    file = error.file if error.file in [str(member) for member in members] else path
    return type(error)(
        error.message, cure=error.cure, exposure=error.exposure, section=error.section, file=file
    )


def _without_any(instance: Instrument, lost: Mapping[SectionId, SeeChangeError]) -> SeeChangeError:
    """Make the error of a file that holds no section, by what is wrong with it: damaged, or another's."""
    damaged = [error for error in lost.values() if isinstance(error, FileDamagedError)]
    if damaged:
        return damaged[0]
    first = next(iter(lost.values()))
    return SectionMissingError(
        f"it holds none of the {len(lost)} sections of {instance.name}: {first.message}",
        cure="see whether it was cut short, or name the camera that made it",
    )


def _describe(raw: RawFiles) -> Exposure:
    """Make the row of files that need not be under a data root."""
    instance = get_instrument_instance(raw.instrument)
    exposure = Exposure(nofile=True, instrument=instance.name, name=raw.name)
    exposure.read_from(raw.paths)
    lost = instance.find_unreadable_sections(raw.paths)
    if len(lost) == len(instance.get_section_ids()):
        raise _without_any(instance, lost)
    if lost:
        exposure.unreadable_sections = {str(s): error.message for s, error in lost.items()}
        if any(not isinstance(error, Stop) for error in lost.values()):
            exposure.bitflag |= ExposureFlag.SECTIONS_LOST
    exposure.checksum = raw.checksum
    exposure.size_bytes = raw.size_bytes
    return exposure


def _look(sessions: OpenSession, exposure: Exposure, raw: RawFiles) -> Exposure | None:
    """Return the row that has this content, or a part of it, or else the one of files called like these.

    Also gives the exposure a name that no other has, its instrument's sections for its date, and the
    footprint they make.
    """
    names = possible_names(raw.name, exposure.night, exposure.instrument)
    same = or_(Exposure.checksum.in_([exposure.checksum, *raw.checksums]), Exposure.name.in_(names))
    with sessions() as session:
        rows = session.scalars(select(Exposure).where(same)).all()
        exposure.update_instrument(session)
        session.expunge_all()
    exposure.footprint = get_instrument_instance(exposure.instrument).get_footprint(
        exposure.ra, exposure.dec, exposure.sections
    )
    taken = {row.name for row in rows}
    exposure.name = next((name for name in names if name not in taken), names[-1])
    same_content = [row for row in rows if row.checksum == exposure.checksum]
    same_part = [row for row in rows if row.checksum in raw.checksums]
    return next(iter([*same_content, *same_part, *(row for row in rows if _is_of(row, exposure, raw))]), None)


def _is_of(row: Exposure, exposure: Exposure, raw: RawFiles) -> bool:
    """Tell whether a row is of files that are called like these, of the same night and instrument."""
    if (row.night, row.instrument) != (exposure.night, exposure.instrument):
        return False
    return row.name == raw.name or name_of(row.relative_paths[0]) == raw.name


def _other_files(
    sessions: OpenSession, known: Exposure, exposure: Exposure, raw: RawFiles, archive: Archive
) -> Ingested:
    """Register files that are not those of the exposure of their name: more of it, less of it, or another."""
    mine, theirs = Counter(raw.checksums), _checksums(known, archive)
    if mine < theirs:
        return Ingested(known, "known")
    if not (theirs and theirs < mine) and not _has_more(exposure, known):
        raise _conflict(known)
    place(raw, exposure, archive, known)
    columns = (*_PLACE, "checksum", "size_bytes", *_READ)
    return Ingested(_give(sessions, known, exposure, columns), "completed")


def _checksums(exposure: Exposure, archive: Archive) -> Counter[str]:
    """Return the SHA-256 of each of an exposure's files; none if they are several and not all here."""
    if exposure.filename_extensions is None:
        return Counter([str(exposure.checksum)])
    here = all(archive.exists(relpath) for relpath in exposure.relative_paths)
    relpaths = exposure.relative_paths if here else []
    return Counter(sha256_of(archive.find(relpath)) for relpath in relpaths)


def _has_more(exposure: Exposure, known: Exposure) -> bool:
    """Tell whether files are the same exposure as a known one, with sections that one lacks."""
    lost, still_lost = (set(e.unreadable_sections or ()) for e in (known, exposure))
    same = (exposure.instrument, exposure.type, exposure.mjd) == (known.instrument, known.type, known.mjd)
    return same and still_lost < lost


def _read_anew(sessions: OpenSession, known: Exposure, exposure: Exposure) -> Ingested:
    """Let a known exposure have the facts as its header is read now, and its files where they are now."""
    columns = [name for name in (*_PLACE, *_READ) if getattr(known, name) != getattr(exposure, name)]
    if not columns:
        return Ingested(known, "known")
    if "instrument" in columns:
        _refuse_if_used(sessions, known, exposure.instrument)
    changes = {name: (getattr(known, name), getattr(exposure, name)) for name in columns}
    return Ingested(_give(sessions, known, exposure, columns), "changed", changes)


def describe_changes(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Say in one line what changed, e.g. ``exp_time 30.0 -> 60.0``."""
    return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changes.items())


def _refuse_if_used(sessions: OpenSession, known: Exposure, instrument: str) -> None:
    """Refuse another instrument for an exposure of which products were made as one of its first."""
    with sessions() as session:
        used = session.scalar(select(Image.id).where(Image.exposure_id == known.id).limit(1))
        frames = calibrator_frames.c.exposure_id
        used = used or session.scalar(select(frames).where(frames == known.id).limit(1))
    if used:
        raise ConflictError(
            f"it is registered as an exposure of {known.instrument}, and products were made from it; "
            f"now it looks like one of {instrument}",
            cure=f"name the instrument {known.instrument}, or register it in another database",
        )


def _give(sessions: OpenSession, known: Exposure, exposure: Exposure, columns: Iterable[str]) -> Exposure:
    """Give a known row columns of another, and the bit that says whether sections are lost."""
    with sessions() as session:
        row = session.get_one(Exposure, known.id)
        for name in columns:
            setattr(row, name, getattr(exposure, name))
        row.bitflag = (row.bitflag & ~ExposureFlag.SECTIONS_LOST) | exposure.bitflag
        row.update_instrument(session)
        session.flush()
        session.expunge_all()
    return row


def _insert(sessions: OpenSession, exposure: Exposure, raw: RawFiles) -> Ingested:
    for _ in range(_TRIES):
        row: Exposure | None = None
        try:
            with sessions() as session:
                row, is_new = get_or_insert(session, exposure, ["name"])
                session.expunge(row)
            if row.checksum == exposure.checksum:
                return Ingested(row, "new" if is_new else "known")
        except IntegrityError:
            # The same content has another name, or files that begin like these are another exposure.
            log.debug("%s is known by something other than its name", exposure.filename)
        # Another process was faster: with the same files, or with another night's of the same name.
        known = _look(sessions, exposure, raw)
        if known is not None and known.checksum == exposure.checksum:
            return Ingested(known, "known")
        if known is not None or row is None:
            raise _conflict(known) if known is not None else _filename_taken(exposure)
    raise _conflict(row) if row is not None else _filename_taken(exposure)


def _conflict(row: Exposure) -> ConflictError:
    files = [Archive().path(relpath) for relpath in row.relative_paths]
    return ConflictError(
        f"an exposure {row.name} with other content is known already, from {', '.join(map(str, files))}",
        cure="rename this file if it is another exposure; leave it if it is a worse copy of the same",
    )


def _filename_taken(exposure: Exposure) -> ConflictError:
    if exposure.filename_extensions is None:
        return ConflictError(
            f"{exposure.filename} was registered with other content, of another night or instrument",
            cure="put that file back in its place, and this one into a folder of its own",
        )
    return ConflictError(
        f"files that begin with {exposure.filename} are known already as another exposure",
        cure="put these into a folder of their own",
    )
