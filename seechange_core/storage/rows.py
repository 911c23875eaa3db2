"""Rows that are made once: insert, and handle the conflict. No table is ever locked."""

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import CursorResult, Table, func, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapper, Session

from seechange_core.errors import PipelineError
from seechange_core.storage.orm import Base

Row = TypeVar("Row", bound=Base)

#: What an update in place leaves as it was.
KEPT = frozenset({"id", "created_at"})
#: Values of so many rows fit into a statement: SQLite takes 32,766.
_ROWS_AT_ONCE = 500


def get_or_insert(session: Session, row: Row, unique: Sequence[str]) -> tuple[Row, bool]:
    """Insert a row, or return the one that is there.

    Parameters
    ----------
    session
        An open session; nothing is committed here.
    row
        A new row, not added to the session.
    unique
        The columns of the unique constraint that tells rows apart; none of them may be null.

    Returns
    -------
    tuple
        The row in the session, and whether it was inserted.
    """
    statement = _insert(session, type(row)).values(_values(row))
    result = session.execute(statement.on_conflict_do_nothing(index_elements=list(unique)))
    inserted = cast(CursorResult[Any], result).rowcount > 0
    return _present(session, row, unique), inserted


def insert_or_update(session: Session, row: Row, unique: Sequence[str]) -> Row:
    """Insert a row, or give the one that is there its values (all but id and time of making).

    Parameters are those of `get_or_insert`. Returns the row in the session.
    """
    _upsert(session, [row], unique)
    return _present(session, row, unique)


def insert_or_update_many(session: Session, rows: Sequence[Row], unique: Sequence[str]) -> None:
    """Insert rows of one table, or give those that are there their values, always in the same order.

    So two sessions that write some of the same rows wait for each other, and never each for the other.

    Parameters
    ----------
    session
        An open session; nothing is committed here.
    rows
        New rows, not added to the session, no two of which are the same.
    unique
        The columns of the unique constraint that tells rows apart; none of them may be null.
    """
    ordered = sorted(rows, key=lambda row: tuple(str(getattr(row, name)) for name in unique))
    for start in range(0, len(ordered), _ROWS_AT_ONCE):
        _upsert(session, ordered[start : start + _ROWS_AT_ONCE], unique)


def _upsert(session: Session, rows: Sequence[Row], unique: Sequence[str]) -> None:
    kind = type(rows[0])
    statement = _insert(session, kind).values([_values(row) for row in rows])
    columns = {
        c.name: statement.excluded[c.name]
        for c in _mapper(kind).local_table.columns
        if c.name not in KEPT and c.name not in unique
    }
    session.execute(
        statement.on_conflict_do_update(index_elements=list(unique), set_=columns)
        if columns
        else statement.on_conflict_do_nothing(index_elements=list(unique))
    )


def take_turns(session: Session, name: str) -> None:
    """Let one session at a time past this point, until its end, among those that give the same name.

    For a look at many rows that decides what to insert. On SQLite a session that may write is alone
    from its start.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(name))))


def find_same(session: Session, row: Row, unique: Sequence[str], *, locked: bool = False) -> Row | None:
    """Return the database's row that has the same unique columns, freshly read; None if there is none.

    Where it is locked, nobody changes it until the session ends; who refers to it need not wait.
    """
    kind = type(row)
    query = select(kind).where(*(getattr(kind, name) == getattr(row, name) for name in unique))
    if locked:
        query = query.with_for_update(key_share=True)
    return session.execute(query.execution_options(populate_existing=True)).scalar_one_or_none()


def _present(session: Session, row: Row, unique: Sequence[str]) -> Row:
    found = find_same(session, row, unique)
    if found is None:
        raise PipelineError(
            f"a row of {type(row).__tablename__} vanished as it was inserted",
            cure="run the step again",
        )
    return found


def _mapper(kind: type[Row]) -> Mapper[Row]:
    return inspect(kind)


def _insert(session: Session, kind: type[Row]) -> Any:
    dialect = session.get_bind().dialect.name
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(cast(Table, kind.__table__))


def _values(row: Base) -> dict[str, Any]:
    """Return a new row's columns; those left unset get their defaults from the insert."""
    mapper = _mapper(type(row))
    values = {p.key: getattr(row, p.key) for p in mapper.column_attrs}
    defaults = {p.key for p in mapper.column_attrs if p.columns[0].default is not None}
    return {key: value for key, value in values.items() if value is not None or key not in defaults}
