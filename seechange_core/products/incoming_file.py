"""Incoming files: every file that arrived where raw files arrive, and what became of it."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core.products.base import link
from seechange_core.storage.orm import Base, Identified, now

#: Not complete yet; an exposure, or part of one; set aside, with a reason; no exposure to work on.
STATES = ("waiting", "registered", "refused", "ignored")


class IncomingFile(Identified, Base):
    """One file that arrived. What became of it is exact whenever the program that watches ends."""

    __tablename__ = "incoming_files"
    __table_args__ = (
        UniqueConstraint("address"),
        CheckConstraint(f"state IN {STATES}", name="known_state"),
        Index("ix_incoming_files_instrument_state", "instrument", "state", "settled_at"),
    )

    instrument: Mapped[str] = mapped_column(doc="Name of the instrument whose place it arrived at.")
    address: Mapped[str] = mapped_column(doc="Path or URL.")
    size_bytes: Mapped[int | None] = mapped_column(BigInteger, doc="When it was last looked at.")
    stamp: Mapped[str] = mapped_column(default="", doc="Tells two contents of the same file apart.")
    changed_at: Mapped[datetime] = mapped_column(doc="When it was last seen to change, UTC.")
    state: Mapped[str] = mapped_column(
        String(10), default="waiting", doc="waiting, registered, refused or ignored."
    )
    reason: Mapped[str] = mapped_column(default="", doc="One word: why it waits or was set aside.")
    message: Mapped[str] = mapped_column(default="", doc="The same in one line, with the cure.")
    settled_at: Mapped[datetime] = mapped_column(default=now, doc="When its state last changed, UTC.")
    exposure_id: Mapped[uuid.UUID | None] = link("exposures.id", "The exposure it became.")
