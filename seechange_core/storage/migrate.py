"""Bring a database to the present schema, from whatever folder one is in."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from seechange_core.errors import PipelineError, UserError
from seechange_core.settings import Settings
from seechange_core.storage.engine import get_engine, open_session

HEAD = "head"


def upgrade(settings: Settings, revision: str = HEAD) -> None:
    """Make the data roots and bring the database to a revision.

    Parameters
    ----------
    settings
        Whose database.
    revision
        Alembic's name of it; the newest by default.
    """
    for root in settings.path.data_root:
        root.mkdir(parents=True, exist_ok=True)
    with get_engine(settings).connect() as connection:
        command.upgrade(_config(connection), revision)


def downgrade(settings: Settings, revision: str) -> None:
    """Bring the database back to a revision; ``base`` removes all tables."""
    with get_engine(settings).connect() as connection:
        command.downgrade(_config(connection), revision)


def is_at_head(settings: Settings) -> bool:
    """Tell whether the database has the present schema."""
    return _revision(settings) == _head()


def check_database(settings: Settings) -> None:
    """Refuse a database that does not have the present schema.

    Raises
    ------
    UserError
        Naming the cure.
    """
    found = _revision(settings)
    if found is None:
        raise UserError("the database has no tables yet", cure="run `seechange init`")
    if found != _head():
        raise UserError(
            f"the database is at revision {found}, this code needs {_head()}",
            cure="run `seechange init`, which keeps all rows",
        )


def alembic_folder() -> Path:
    """Return the folder of the migrations, beside the package.

    Raises
    ------
    PipelineError
        If the package was installed without it.
    """
    folder = Path(__file__).resolve().parents[2] / "alembic"
    if not (folder / "env.py").is_file():
        raise PipelineError(
            f"the migrations are not in {folder}", cure="install from a checkout: pip install -e FOLDER"
        )
    return folder


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(alembic_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _head() -> str | None:
    return ScriptDirectory.from_config(_config(None)).get_current_head()


def _revision(settings: Settings) -> str | None:
    with open_session(settings, read_only=True) as session:
        return MigrationContext.configure(session.connection()).get_current_revision()
