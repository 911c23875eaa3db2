"""What alembic runs: the models' tables, on the database of the settings or the one it is given."""

from logging.config import fileConfig
from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import JSON, Connection

import seechange_core.products  # noqa: F401 - makes the metadata complete
from seechange_core.settings import get_settings
from seechange_core.storage.engine import get_engine
from seechange_core.storage.orm import Base

config = context.config


def render_json(kind: str, item: object, autogenerate: AutogenContext) -> str | Literal[False]:
    """Write JSON columns by hand: alembic forgets an import for them. None or NULL is the models' affair."""
    if kind != "type" or not isinstance(item, JSON):
        return False
    autogenerate.imports.add("from sqlalchemy.dialects.postgresql import JSONB")
    return "sa.JSON().with_variant(JSONB(), 'postgresql')"


def configure(connection: Connection | None, url: str | None = None) -> None:
    """Tell alembic what to compare and how to run on a connection, or for a URL as SQL alone."""
    context.configure(
        connection=connection,
        url=url,
        target_metadata=Base.metadata,
        compare_type=True,
        compare_server_default=True,
        # SQLite cannot alter tables: alembic then copies them.
        render_as_batch=True,
        render_item=render_json,
        # Our transactions hold on SQLite too: a migration happens whole or not at all.
        transactional_ddl=True,
        literal_binds=connection is None,
        dialect_opts={"paramstyle": "named"},
    )


def run(connection: Connection) -> None:
    """Run the migrations on a connection.

    On SQLite a table is altered by copying and dropping it, and dropping one would delete what
    refers to it: foreign keys rest meanwhile, and are checked before the end.
    """
    configure(connection)
    if connection.dialect.name != "sqlite":
        with context.begin_transaction():
            context.run_migrations()
        return
    driver = connection.connection.dbapi_connection
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        with context.begin_transaction():
            context.run_migrations()
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
            if broken:
                raise RuntimeError(f"{len(broken)} rows would refer to nothing: {broken[:3]}")
    finally:
        driver.execute("PRAGMA foreign_keys = ON")


def main() -> None:
    """Use the connection that seechange_core.storage.migrate gives, or the settings' database."""
    given = config.attributes.get("connection")
    if given is not None:
        run(given)
        return
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    settings = get_settings()
    if context.is_offline_mode():
        configure(None, settings.database_url)
        with context.begin_transaction():
            context.run_migrations()
        return
    with get_engine(settings).connect() as connection:
        run(connection)


main()
