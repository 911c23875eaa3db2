import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from seechange_core.errors import DatabaseBusyError, SettingsError
from seechange_core.products import CatalogRelease
from seechange_core.settings import Settings
from seechange_core.storage import engine
from seechange_core.storage.engine import (
    file_system_of,
    get_engine,
    normalize_url,
    open_session,
    refuse_network_file_system,
)
from seechange_core.storage.rows import take_turns

MOUNTS = """\
/dev/vda1 / ext4 rw 0 0
nas:/home /home nfs4 rw 0 0
/dev/vdb /home/fast\\040disk ext4 rw 0 0
//win/share /mnt/win cifs rw 0 0
mgs@tcp:/lfs /scratch lustre rw 0 0
"""


@pytest.fixture
def mounts(tmp_path):
    file = tmp_path / "mounts"
    file.write_text(MOUNTS)
    return file


def release(name: str) -> CatalogRelease:
    return CatalogRelease(name=name, content_hash="0" * 64, n_stars=1, path="x", epoch=2016.0, bands=["g"])


def count(settings: Settings) -> int:
    with open_session(settings, read_only=True) as session:
        return session.query(CatalogRelease).count()


def test_network_file_systems_are_refused(tmp_path, mounts):
    from pathlib import Path

    for folder, kind in (("/home/me", "nfs4"), ("/mnt/win/x", "cifs"), ("/scratch", "lustre")):
        with pytest.raises(SettingsError, match=rf"{kind}.*database_url"):
            refuse_network_file_system(Path(folder), mounts)
    refuse_network_file_system(Path("/home/fast disk/data"), mounts)
    refuse_network_file_system(Path("/var"), mounts)
    assert file_system_of(Path("/var"), tmp_path / "none") is None


def test_postgresql_gets_the_driver_we_have():
    assert normalize_url("postgresql://a:b@c/d").drivername == "postgresql+psycopg2"
    assert normalize_url("sqlite:///x").drivername == "sqlite"


def test_sqlite_is_set_up_for_many_processes(settings):
    with get_engine(settings).connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() >= 30000


def test_one_engine_per_process_and_url(settings):
    assert get_engine(settings) is get_engine(settings.database_url)
    assert get_engine(settings) is not get_engine("sqlite:///:memory:")


def _engine_of_child(url, queue):
    engine = get_engine(url)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    queue.put(id(engine))


def test_a_forked_child_makes_its_own_engine(database):
    engine = get_engine(database)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.commit()
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_engine_of_child, args=(database.database_url, queue))
        child.start()
        other = queue.get(timeout=30)
        child.join()
        queue.close()
        assert child.exitcode == 0
        assert other != id(engine)
        # The parent's connection still works: the child did not close it.
        assert connection.execute(text("SELECT 1")).scalar() == 1


def test_sessions_commit_at_the_end_and_rows_stay_usable(database):
    with open_session(database) as session:
        row = release("a")
        session.add(row)
    assert row.name == "a"
    assert count(database) == 1


def test_sessions_roll_back_when_the_block_raises(database):
    def fail():
        with open_session(database) as session:
            session.add(release("a"))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert count(database) == 0


def test_read_only_sessions_write_nothing(database):
    with open_session(database, read_only=True) as session:
        session.add(release("a"))
        with pytest.raises(DBAPIError, match=r"readonly|read-only"):
            session.flush()
        session.rollback()
    with open_session(database) as session:
        session.add(release("a"))
    assert count(database) == 1


def test_savepoints_work(database):
    with open_session(database) as session:
        session.add(release("a"))
        session.flush()
        with session.begin_nested() as nested:
            session.add(release("b"))
            session.flush()
            nested.rollback()
    assert count(database) == 1


def test_foreign_keys_are_enforced(database):
    with pytest.raises(DBAPIError, match=r"(?i)foreign key"), open_session(database) as session:
        session.execute(text("INSERT INTO provenance_tags VALUES ('a', 'b', 'c', 'none')"))


def test_reading_does_not_wait_for_a_writer(settings):
    from seechange_core.storage.orm import Base

    Base.metadata.create_all(get_engine(settings))
    with open_session(settings) as session:
        session.add(release("a"))
        session.flush()
        assert count(settings) == 0


def test_who_cannot_write_is_told_that_others_are_in_the_way(settings, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.2)
    with open_session(settings) as first, ThreadPoolExecutor(1) as pool:
        first.execute(text("SELECT 1"))
        with pytest.raises(DatabaseBusyError, match=r"others have been writing.*run again"):
            pool.submit(_select_one, settings).result()
    _select_one(settings)


def _select_one(settings):
    with open_session(settings) as session:
        session.execute(text("SELECT 1"))


def test_of_two_that_wait_for_each_other_one_is_told_and_may_try_again(postgresql_database):
    both_wait = threading.Barrier(2)

    def write(first, second):
        with open_session(postgresql_database) as session:
            take_turns(session, first)
            both_wait.wait(timeout=30)
            take_turns(session, second)
            return "done"

    def attempt(*names):
        try:
            return write(*names)
        except DatabaseBusyError as error:
            return error.message

    with ThreadPoolExecutor(2) as pool:
        told = sorted(pool.map(attempt, "ab", "ba"))
    assert told == ["done", "this and another session waited for each other in the database"]


def test_writers_that_look_first_take_turns(database):
    """A look and a write in one session: on SQLite a plain BEGIN would fail here at once."""
    start = threading.Barrier(4)

    def add(name):
        start.wait()
        for i in range(5):
            with open_session(database) as session:
                session.query(CatalogRelease).count()
                session.add(release(f"{name}{i}"))

    threads = [threading.Thread(target=add, args=(f"t{i}_",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(database) == 20
