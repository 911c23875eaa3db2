"""Engines and sessions: SQLite by default, PostgreSQL by URL, the same behaviour on both.

An engine belongs to one process and one URL. Sessions are short: none is held while computing.
"""

import atexit
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateSchema

from seechange_core.errors import DatabaseBusyError, SettingsError
from seechange_core.settings import Settings, get_settings

BUSY_TIMEOUT_S = 60.0
#: PostgreSQL's codes of a session that was ended because it and others waited for each other.
_GAVE_WAY = frozenset(("40P01", "40001"))
#: File systems whose locks SQLite's write-ahead log cannot rely on.
NETWORK_FILE_SYSTEMS = frozenset(
    (
        *("afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs"),
        *("smb3", "smbfs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs"),
    )
)

# Engines of a parent process stay listed after a fork, under its process id: were they collected
# in the child, closing them would end the parent's connections.
_engines: dict[tuple[int, str], Engine] = {}
_lock = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))


def get_engine(settings: Settings | str | None = None) -> Engine:
    """Return this process's engine of a database.

    Parameters
    ----------
    settings
        Settings or a database URL; None takes the process's settings.

    Raises
    ------
    SettingsError
        If an SQLite file would lie on a network file system.
    """
    if settings is None:
        settings = get_settings()
    url = settings if isinstance(settings, str) else settings.database_url
    key = (os.getpid(), url)
    with _lock:
        if key not in _engines:
            _engines[key] = _make_engine(normalize_url(url))
        return _engines[key]


def normalize_url(url: str) -> URL:
    """Return a URL with the driver named: ``postgresql://`` alone means another one to SQLAlchemy 2.1."""
    parsed = make_url(url)
    return parsed.set(drivername="postgresql+psycopg2") if parsed.drivername == "postgresql" else parsed


def own_schema(url: str, name: str) -> str:
    """Return the URL of a schema of its own in a PostgreSQL database, made if it is not there.

    Another program's tables can then live beside ours, whatever both call them.
    """
    with get_engine(url).begin() as connection:
        connection.execute(CreateSchema(name, if_not_exists=True))
    full = normalize_url(url).update_query_dict({"options": f"-csearch_path={name}"})
    return full.render_as_string(hide_password=False)


@contextmanager
def open_session(settings: Settings | str | None = None, *, read_only: bool = False) -> Iterator[Session]:
    """Open a session that commits at the end of the block, or rolls back if it raises.

    What is called in the block may commit earlier. Rows stay usable after the block: nothing expires,
    nothing loads behind one's back.

    Parameters
    ----------
    settings
        Settings or a database URL; None takes the process's settings.
    read_only
        Refuse writes. On SQLite, only such a session leaves writers alone: any other takes the
        write lock from its first statement, so that it can never be overtaken between a look and a write.

    Raises
    ------
    DatabaseBusyError
        If others wrote all the time, or two waited for each other and this one gave way: what the block did
        is rolled back and may be done again.
    """
    engine = get_engine(settings)
    if read_only:
        engine = engine.execution_options(postgresql_readonly=True, read_only=True)
    try:
        with Session(engine, expire_on_commit=False) as session:
            yield session
            session.commit()
    except OperationalError as error:
        if not (words := _in_the_way(error.orig)):
            raise
        raise DatabaseBusyError(words, cure="run again, with fewer --jobs if it stays so") from error


def _in_the_way(error: BaseException | None) -> str:
    """Say what others did so that this session could not go on; empty if it was something else."""
    if isinstance(error, sqlite3.OperationalError):
        busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        return f"others have been writing to the database for {BUSY_TIMEOUT_S:.0f} s" if busy else ""
    if getattr(error, "pgcode", None) in _GAVE_WAY:
        return "this and another session waited for each other in the database"
    return ""


def dispose_engines() -> None:
    """Close all connections of this process."""
    with _lock:
        for key in [key for key in _engines if key[0] == os.getpid()]:
            _engines.pop(key).dispose()


atexit.register(dispose_engines)


def _make_engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_size=2, max_overflow=10, pool_pre_ping=True)
    if url.database and url.database != ":memory:":
        folder = Path(url.database).absolute().parent
        refuse_network_file_system(folder)
        folder.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    # Transactions are begun by _on_sqlite_begin, not by the driver: its own rules break savepoints.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_sqlite_begin(connection: Connection) -> None:
    read_only = bool(connection.get_execution_options().get("read_only"))
    connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
    # A transaction that reads first and writes later fails at once, whatever the timeout, if
    # another one wrote in between: take the write lock from the start.
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def refuse_network_file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """Raise if a folder lies on a network file system, as far as the machine's list of mounts tells.

    Raises
    ------
    SettingsError
        Naming the folder, the file system and the cures.
    """
    kind = file_system_of(folder, mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise SettingsError(
            f"an SQLite database in {folder} would be lost on its network file system ({kind})",
            cure="set database_url to a file on a local disk, or to a PostgreSQL server",
        )


def file_system_of(folder: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Return the type of the file system a folder is on, or None where there is no list of mounts."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place = folder.resolve()
    kind, depth = None, -1
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        # Of two mounts at one place the later one hides the earlier.
        if place.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = fields[2], len(point.parts)
    return kind
