"""Raw files as they arrive: one that grows is left alone, a finished one registered, a bad one set aside.

What became of each file is a row, written as it happens: whoever watches can be ended at any moment and begin
again, and two may watch at once. Registering the same file twice is the same exposure.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select

from seechange_core.errors import (
    BadDataError,
    FileDamagedError,
    IgnoredFile,
    IncompleteError,
    NotFoundError,
    SeeChangeError,
    SettingsError,
    UserError,
)
from seechange_core.flags import ExposureFlag
from seechange_core.products.base import chunks
from seechange_core.products.exposure import Exposure
from seechange_core.products.incoming_file import IncomingFile
from seechange_core.products.ingest import Ingested, find, register
from seechange_core.settings import IncomingSettings, Settings, use_settings
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session
from seechange_core.storage.listing import Listed, listed, named_like_fits, visible_files
from seechange_core.storage.orm import now
from seechange_core.storage.rows import get_or_insert
from seechange_core.storage.server import Server

#: These may be whole a moment later, when the rest has been written.
_MAY_COME = (FileDamagedError, IncompleteError)
#: Not looked at any more unless somebody asks.
_SETTLED = ("registered", "ignored")
#: Why an exposure that is registered is looked at all the same: the rest of it may still come.
_LOST = "sections_lost"


@dataclass(frozen=True)
class Arrivals:
    """What one look at the places of an instrument found.

    Attributes
    ----------
    registered
        What became exposures.
    refused
        Files newly set aside, with the reason.
    waiting
        Number of files that are not complete, or are left for the next look.
    silent
        Places that could not be looked at, and why.
    """

    registered: tuple[Ingested, ...] = ()
    refused: dict[str, SeeChangeError] = field(default_factory=dict)
    waiting: int = 0
    silent: dict[str, str] = field(default_factory=dict)


class IncomingRow(NamedTuple):
    """A file that arrived: columns of `IncomingFile`, with its exposure's name."""

    instrument: str
    address: str
    state: str
    reason: str
    message: str
    settled_at: datetime
    exposure: str | None


class Arrived(NamedTuple):
    """A science exposure that arrived, when, and which content it came with: it may come whole later."""

    name: str
    night: str
    at: datetime
    version: str


class _Row(NamedTuple):
    """What is known of a file; fields as in `IncomingFile`."""

    address: str
    state: str
    size_bytes: int | None
    stamp: str
    changed_at: datetime
    reason: str = ""

    @property
    def is_settled(self) -> bool:
        """Tell whether nothing more is expected of it."""
        return self.state in _SETTLED and self.reason != _LOST


class _SectionsLostError(BadDataError):
    """Some sections of an exposure are cut off, or not written yet."""

    reason = _LOST


class _Fate(NamedTuple):
    """What became of files: state, why it is not registered, the exposure, and all that share the fate."""

    state: str
    problem: SeeChangeError | OSError | None = None
    result: Ingested | None = None
    addresses: frozenset[str] | set[str] = frozenset()


class _Place(NamedTuple):
    """A place: the addresses of its files, how to look at one, and how to have it on this machine."""

    addresses: list[str]
    look: Callable[[str], Listed]
    bring: Callable[[str], Path]
    address_of: Callable[[Path], str]


def take_in(
    settings: Settings, instrument: str, seconds: float = 20.0, stopped: Callable[[], bool] = lambda: False
) -> Arrivals:
    """Look at where an instrument's raw files arrive, and register those that are complete.

    Parameters
    ----------
    settings
        `incoming` names the places.
    instrument
        Its name.
    seconds
        After so long no further file is begun; what is left is for the next look.
    stopped
        Is asked before each file whether to end now.

    Raises
    ------
    SettingsError
        If no places are named for the instrument.
    """
    own = _own(settings, instrument)
    end = time.monotonic() + seconds
    with use_settings(settings):
        places, silent = _places(settings, instrument, own.places)
        known = _known(settings, instrument, None if silent else places)
        registered: list[Ingested] = []
        refused: dict[str, SeeChangeError] = {}
        settled = {address for address, row in known.items() if row.is_settled}
        waiting = 0
        for place, address in ((p, a) for p in places for a in p.addresses):
            if address in settled:
                continue
            row = _look(settings, instrument, place, address, known.get(address))
            late = len(registered) >= own.max_files or time.monotonic() > end or stopped()
            if row is None or row.state != "waiting":
                continue
            if late or now() - row.changed_at < timedelta(seconds=own.settle_seconds):
                waiting += 1
                continue
            fate = _register(settings, instrument, place, row, own)
            if fate.result is not None:
                registered.append(fate.result)
            if fate.state == "refused" and isinstance(fate.problem, SeeChangeError):
                refused[address] = fate.problem
            waiting += fate.state == "waiting"
            settled |= fate.addresses if fate.state in _SETTLED else set()
    return Arrivals(tuple(registered), refused, waiting, silent)


def arrived(settings: Settings, instrument: str, since: datetime) -> list[Arrived]:
    """Return the science exposures that arrived from some time on, in the order of their arrival."""
    query = (
        select(Exposure.name, Exposure.night, IncomingFile.settled_at, Exposure.checksum)
        .join(IncomingFile, IncomingFile.exposure_id == Exposure.id)
        .where(
            IncomingFile.instrument == instrument,
            IncomingFile.state == "registered",
            IncomingFile.settled_at >= since,
            Exposure.type == "science",
        )
        .order_by(IncomingFile.settled_at)
    )
    with use_settings(settings), open_session(settings, read_only=True) as session:
        rows = [Arrived(name, night, _utc(at), f"{of}"[:8]) for name, night, at, of in session.execute(query)]
    return list({row.name: row for row in reversed(rows)}.values())[::-1]


def list_incoming(
    settings: Settings, instrument: str | None = None, states: Sequence[str] = ("waiting", "refused")
) -> list[IncomingRow]:
    """Return what is known of the files that arrived, the latest last."""
    names = [name for name in IncomingRow._fields if name != "exposure"]
    query = (
        select(*(getattr(IncomingFile, name) for name in names), Exposure.name)
        .join(Exposure, Exposure.id == IncomingFile.exposure_id, isouter=True)
        .where(IncomingFile.state.in_(list(states)))
        .order_by(IncomingFile.settled_at, IncomingFile.address)
    )
    if instrument is not None:
        query = query.where(IncomingFile.instrument == instrument)
    with use_settings(settings), open_session(settings, read_only=True) as session:
        return [IncomingRow._make(row) for row in session.execute(query)]


def retry_incoming(
    settings: Settings, instrument: str | None = None, files: Sequence[str] | None = None
) -> list[str]:
    """Have files that were set aside tried again at the next look, and return their addresses.

    Parameters
    ----------
    settings, instrument
        Whose; None takes all instruments.
    files
        Their addresses, or the last parts of them; None takes all.

    Raises
    ------
    NotFoundError
        If one of the files was not set aside.
    """
    query = select(IncomingFile).where(IncomingFile.state == "refused")
    if instrument is not None:
        query = query.where(IncomingFile.instrument == instrument)
    with use_settings(settings), open_session(settings) as session:
        rows = list(session.scalars(query.order_by(IncomingFile.address)))
        for file in files or ():
            if not any(_is_called(row.address, file) for row in rows):
                raise NotFoundError(
                    "it was not set aside", cure="`seechange incoming` lists those", file=file
                )
        chosen = [row for row in rows if files is None or any(_is_called(row.address, f) for f in files)]
        for row in chosen:
            row.state, row.settled_at = "waiting", now()
        return [row.address for row in chosen]


def _is_called(address: str, name: str) -> bool:
    return address == name or address.endswith(f"/{name}")


def _own(settings: Settings, instrument: str) -> IncomingSettings:
    if instrument not in settings.incoming:
        raise SettingsError(
            f"incoming names no place where files of {instrument} arrive",
            cure=f"add it: incoming: {{{instrument}: /folder/of/raw/files}}",
        )
    return settings.incoming[instrument]


def _utc(at: datetime) -> datetime:
    """SQLite keeps times without their zone."""
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _places(settings: Settings, instrument: str, names: Iterable[str]) -> tuple[list[_Place], dict[str, str]]:
    """List what there is at each place, and say which could not be listed."""
    found: list[_Place] = []
    silent: dict[str, str] = {}
    for name in names:
        try:
            found.append(_remote(settings, instrument, name) if "://" in name else _local(Path(name)))
        except (SeeChangeError, OSError) as error:
            silent[name] = str(error)
    return found, silent


def _local(folder: Path) -> _Place:
    names = [str(path) for path in visible_files(folder) if named_like_fits(path.name)]
    return _Place(names, lambda address: listed(Path(address)), Path, str)


def _remote(settings: Settings, instrument: str, address: str) -> _Place:
    """Files at an address are brought into the first data root, where they stay."""
    server, archive = Server(address, f"incoming.{instrument}"), Archive(settings)
    start, folder = f"{server.address}/", f"raw/{instrument}/fetched"

    def bring(name: str) -> Path:
        relpath = f"{folder}/{name.removeprefix(start)}"
        archive.write(relpath, lambda target: server.fetch(name.removeprefix(start), target))
        return archive.path(relpath)

    return _Place(
        [start + name for name in server.names() if named_like_fits(name)],
        lambda name: server.look(name.removeprefix(start)),
        bring,
        lambda path: start + path.relative_to(archive.path(folder)).as_posix(),
    )


def _known(settings: Settings, instrument: str, places: Sequence[_Place] | None) -> dict[str, _Row]:
    """Return what is known of an instrument's files.

    Those that wait or were set aside, and are no longer there, are forgotten if all places were listed.
    """
    columns = [getattr(IncomingFile, name) for name in _Row._fields]
    with open_session(settings, read_only=True) as session:
        rows = [
            _Row(*r) for r in session.execute(select(*columns).where(IncomingFile.instrument == instrument))
        ]
    known = {row.address: row._replace(changed_at=_utc(row.changed_at)) for row in rows}
    if places is None:
        return known
    here = {address for place in places for address in place.addresses}
    gone = [row.address for row in known.values() if row.state not in _SETTLED and row.address not in here]
    if gone:
        with open_session(settings) as session:
            for some in chunks(gone):
                for row in session.scalars(select(IncomingFile).where(IncomingFile.address.in_(some))):
                    session.delete(row)
    return {address: row for address, row in known.items() if address not in set(gone)}


def _look(settings: Settings, instrument: str, place: _Place, address: str, row: _Row | None) -> _Row | None:
    """Look at a file and note whether it has changed; None if it is gone."""
    try:
        seen = place.look(address)
    except (OSError, SeeChangeError):  # taken away at this moment, or the server fell silent: next time
        return None
    if row is not None and (row.size_bytes, row.stamp) == (seen.size_bytes, seen.stamp):
        return row
    changed = now() if seen.modified is None else min(now(), datetime.fromtimestamp(seen.modified, UTC))
    new = _Row(address, "waiting", seen.size_bytes, seen.stamp, changed if row is None else now())
    with open_session(settings) as session:
        fresh = IncomingFile(instrument=instrument, **new._asdict())
        there, is_new = get_or_insert(session, fresh, ["address"])
        if not is_new:
            for name, value in new._asdict().items():
                setattr(there, name, value)
    return new


def _register(settings: Settings, instrument: str, place: _Place, row: _Row, own: IncomingSettings) -> _Fate:
    """Register a complete file, and note what became of it and of those that belong to it."""
    fresh = now() - row.changed_at < timedelta(seconds=own.patience_seconds)
    paths: list[Path] = []
    try:
        raw = find(place.bring(row.address), instrument)
        paths = raw.paths
        fate = _Fate("registered", None, register(raw, settings))
    except IgnoredFile as error:
        fate = _Fate("ignored", error)
    except (BadDataError, UserError) as error:
        fate = _Fate("waiting" if fresh and isinstance(error, _MAY_COME) else "refused", error)
    except (SeeChangeError, OSError) as error:  # a busy database, a silent server, a full disk: try again
        fate = _Fate("waiting", error)
    except Exception as error:  # noqa: BLE001 - a file that meets a bug must not stop those behind it
        fate = _Fate("refused", BadDataError(f"bug: {type(error).__name__}: {error}", cure="report it"))
    if fate.result is not None and fate.result.exposure.bitflag & ExposureFlag.SECTIONS_LOST:
        lost = fate.result.exposure.unreadable_sections or {}
        words = f"{len(lost)} sections cannot be read, the first is {next(iter(lost), '')}"
        problem = _SectionsLostError(words)
        fate = _Fate("waiting", problem) if fresh else fate._replace(problem=problem)
    fate = fate._replace(addresses={row.address, *(place.address_of(path) for path in paths)})
    _settle(settings, fate)
    return fate


def _settle(settings: Settings, fate: _Fate) -> None:
    """Note what became of files."""
    problem = fate.problem
    with open_session(settings) as session:
        query = select(IncomingFile).where(IncomingFile.address.in_(sorted(fate.addresses)))
        for row in session.scalars(query):
            row.state, row.settled_at = fate.state, now()
            row.reason = "" if problem is None else getattr(problem, "reason", "machine")
            row.message = "" if problem is None else " ".join(str(problem).split())
            row.exposure_id = None if fate.result is None else fate.result.exposure.id
