"""Migrations and models agree, up and down, on both engines."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect

from seechange_core.errors import UserError
from seechange_core.settings import Settings
from seechange_core.storage import migrate
from seechange_core.storage.engine import get_engine, open_session
from seechange_core.storage.orm import Base

ROOT = Path(__file__).parents[1]


def tables(settings: Settings) -> set[str]:
    return set(inspect(get_engine(settings)).get_table_names()) - {"alembic_version"}


def differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "compare_server_default": True}
    return compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)


def test_up_agrees_with_the_models_and_down_leaves_nothing(bare_database):
    for _ in range(2):
        migrate.upgrade(bare_database)
        assert tables(bare_database) == set(Base.metadata.tables)
        assert migrate.is_at_head(bare_database)
        migrate.check_database(bare_database)
        with get_engine(bare_database).connect() as connection:
            assert differences(connection) == []
        migrate.downgrade(bare_database, "base")
        assert tables(bare_database) == set()


def test_constraints_agree_with_the_models(bare_database):
    """What autogenerate does not compare: checks, primary keys and what happens on deletion."""
    migrate.upgrade(bare_database)
    found = inspect(get_engine(bare_database))
    for name, table in Base.metadata.tables.items():
        checks = {str(c.name) for c in table.constraints if type(c).__name__ == "CheckConstraint"}
        assert {c["name"] for c in found.get_check_constraints(name)} == checks
        assert found.get_pk_constraint(name)["constrained_columns"] == [c.name for c in table.primary_key]
        rules = {
            (c["constrained_columns"][0], c["options"].get("ondelete")) for c in found.get_foreign_keys(name)
        }
        assert rules == {(key.parent.name, key.ondelete) for key in table.foreign_keys}
    migrate.downgrade(bare_database, "base")


def test_upgrading_again_keeps_the_rows(bare_database):
    from seechange_core.products import Provenance

    migrate.upgrade(bare_database)
    with open_session(bare_database) as session:
        session.add(Provenance(id="a" * 20, process="image", code_version="1", parameters={}))
    migrate.upgrade(bare_database)
    with open_session(bare_database, read_only=True) as session:
        assert session.get(Provenance, "a" * 20) is not None
    migrate.downgrade(bare_database, "base")


CHANGE = """
import sqlalchemy as sa

from alembic import op

revision = "test2"
down_revision = "{head}"


def upgrade():
    with op.batch_alter_table("provenances") as table:
        table.add_column(sa.Column("remark", sa.String()))
        table.alter_column("code_version", new_column_name="code")
    {then}


def downgrade():
    with op.batch_alter_table("provenances") as table:
        table.alter_column("code", new_column_name="code_version")
        table.drop_column("remark")
"""


@pytest.fixture
def changed(bare_database, tmp_path, monkeypatch):
    """Give a function that adds a migration to a copy of the folder, on a database with rows that refer."""
    from seechange_core.products.provenance import record_provenance
    from seechange_core.provenance import ProvenanceKey

    migrate.upgrade(bare_database)
    with open_session(bare_database) as session:
        upstream = record_provenance(session, ProvenanceKey("image", "1"))
        record_provenance(session, ProvenanceKey("source_list", "1", upstreams=(upstream.id,)))
    folder = tmp_path / "alembic"
    shutil.copytree(ROOT / "alembic", folder)
    head = migrate._head()
    monkeypatch.setattr(migrate, "alembic_folder", lambda: folder)

    def change(then: str = "") -> Settings:
        (folder / "versions" / "0002.py").write_text(CHANGE.format(head=head, then=then))
        return bare_database

    yield change
    migrate.downgrade(bare_database, "base")


def rows(settings: Settings) -> int:
    from seechange_core.products.provenance import provenance_upstreams

    with open_session(settings, read_only=True) as session:
        return session.query(provenance_upstreams).count()


def test_altering_a_table_keeps_what_refers_to_it(changed):
    """SQLite alters by dropping, and dropping deletes what refers to it if foreign keys are on."""
    settings = changed()
    migrate.upgrade(settings)
    assert rows(settings) == 1
    with get_engine(settings).connect() as connection:
        names = [column["name"] for column in inspect(connection).get_columns("provenances")]
    assert "remark" in names
    migrate.downgrade(settings, "-1")
    assert rows(settings) == 1


def test_a_migration_that_fails_changes_nothing(changed):
    settings = changed('raise ZeroDivisionError("half way")')
    with pytest.raises(ZeroDivisionError):
        migrate.upgrade(settings)
    assert rows(settings) == 1
    names = [column["name"] for column in inspect(get_engine(settings)).get_columns("provenances")]
    assert "remark" not in names
    (migrate.alembic_folder() / "versions" / "0002.py").unlink()
    assert migrate.is_at_head(settings)


def test_a_database_that_is_not_ready_is_refused(bare_database):
    with pytest.raises(UserError, match="seechange init"):
        migrate.check_database(bare_database)
    assert not migrate.is_at_head(bare_database)


def test_upgrade_makes_the_folders(settings):
    migrate.upgrade(settings)
    assert settings.data_root.is_dir()


def test_the_folder_of_migrations_does_not_hide_the_library():
    assert not (ROOT / "alembic" / "__init__.py").exists()


def alembic(*arguments: str, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SEECHANGE_")}
    result = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_the_commands_work_from_the_root(tmp_path):
    config = tmp_path / "seechange.yaml"
    config.write_text("path: {data_root: data}\n")
    alembic("upgrade", "head", SEECHANGE_CONFIG=str(config))
    assert (tmp_path / "data" / "seechange.db").is_file()
    assert "No new upgrade operations detected" in alembic("check", SEECHANGE_CONFIG=str(config))
    assert "CREATE TABLE exposures" in alembic(
        "upgrade", "head", "--sql", SEECHANGE_DATABASE_URL="postgresql://nobody@nowhere/none"
    )  # SQLite copies tables to alter them, which needs a database
    alembic("downgrade", "base", SEECHANGE_CONFIG=str(config))


def test_every_column_says_what_it_means():
    bare = [
        f"{mapper.local_table.name}.{attribute.key}"
        for mapper in Base.registry.mappers
        for attribute in mapper.column_attrs
        if not attribute.columns[0].doc
    ]
    assert bare == []


def test_names_of_constraints_fit_postgresql():
    named = [c for t in Base.metadata.tables.values() for c in (*t.constraints, *t.indexes)]
    assert [str(c.name) for c in named if len(str(c.name)) > 63] == []
