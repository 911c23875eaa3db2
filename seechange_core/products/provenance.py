"""Provenance rows: which code, with which parameters and on top of what, made a product; and their tags."""

from datetime import datetime

from sqlalchemy import Column, ForeignKey, String, Table, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from seechange_core.errors import NotFoundError
from seechange_core.provenance import ProvenanceKey
from seechange_core.storage.orm import Base, JsonDict, now
from seechange_core.storage.rows import get_or_insert, insert_or_update

provenance_upstreams = Table(
    "provenance_upstreams",
    Base.metadata,
    Column("provenance_id", ForeignKey("provenances.id", ondelete="CASCADE"), primary_key=True),
    Column("upstream_id", ForeignKey("provenances.id"), primary_key=True, index=True),
)


class Provenance(Base):
    """One version of one process."""

    __tablename__ = "provenances"

    id: Mapped[str] = mapped_column(
        String(20), primary_key=True, doc="Hash of process, code version, parameters and upstreams."
    )
    process: Mapped[str] = mapped_column(index=True, doc="Name of the product it makes.")
    code_version: Mapped[str] = mapped_column(doc="Version of the stage's code.")
    parameters: Mapped[JsonDict] = mapped_column(doc="The parameters that can change results.")
    is_testing: Mapped[bool] = mapped_column(default=False, doc="Made by a test: may be deleted at any time.")
    created_at: Mapped[datetime] = mapped_column(default=now, doc="When the row was made, UTC.")


class ProvenanceTag(Base):
    """A name for one version of each process, such as ``current`` or ``paper1``."""

    __tablename__ = "provenance_tags"

    tag: Mapped[str] = mapped_column(primary_key=True, doc="The name.")
    instrument: Mapped[str] = mapped_column(
        primary_key=True, doc="Whose processing it names: instruments may have parameters of their own."
    )
    process: Mapped[str] = mapped_column(primary_key=True, doc="Name of the product.")
    provenance_id: Mapped[str] = mapped_column(
        ForeignKey("provenances.id"), index=True, doc="The version that carries the tag."
    )


def record_provenance(session: Session, key: ProvenanceKey, *, is_testing: bool = False) -> Provenance:
    """Return the row of a provenance, made if need be; its upstreams must have been recorded before.

    Raises
    ------
    NotFoundError
        If an upstream is unknown.
    """
    known = set(session.scalars(select(Provenance.id).where(Provenance.id.in_(key.upstreams))))
    unknown = [upstream for upstream in key.upstreams if upstream not in known]
    if unknown:
        raise NotFoundError(
            f"the provenance of {key.process} builds on {', '.join(unknown)}, not in the database",
            cure="record the upstream provenances first",
        )
    row = Provenance(
        id=key.id,
        process=key.process,
        code_version=key.code_version,
        parameters=key.parameters,
        is_testing=is_testing,
    )
    found, inserted = get_or_insert(session, row, ["id"])
    if inserted and key.upstreams:
        pairs = [
            {"provenance_id": key.id, "upstream_id": upstream} for upstream in sorted(set(key.upstreams))
        ]
        session.execute(provenance_upstreams.insert(), pairs)
    return found


def upstream_ids(session: Session, provenance_id: str) -> tuple[str, ...]:
    """Return the ids of what a provenance directly builds on, sorted."""
    columns = provenance_upstreams.c
    query = select(columns.upstream_id).where(columns.provenance_id == provenance_id)
    return tuple(sorted(session.scalars(query)))


def set_tag(session: Session, tag: str, provenance: Provenance, instrument: str) -> None:
    """Let a tag name this provenance, and no other of the same process and instrument."""
    row = ProvenanceTag(
        tag=tag, instrument=instrument, process=provenance.process, provenance_id=provenance.id
    )
    insert_or_update(session, row, ["tag", "instrument", "process"])


def tagged(session: Session, tag: str, instrument: str) -> dict[str, str]:
    """Return the provenance ids that a tag names, by process."""
    query = select(ProvenanceTag).where(ProvenanceTag.tag == tag, ProvenanceTag.instrument == instrument)
    return {row.process: row.provenance_id for row in session.scalars(query)}
