"""Outcomes: what became of each step of each section, and why."""

import uuid
from datetime import datetime
from typing import Any, Self

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    Index,
    String,
    UniqueConstraint,
    and_,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from seechange_core.products.base import Detail, link, save, unindexed
from seechange_core.storage.orm import Base, JsonDict, now

STATUSES = ("done", "stopped", "failed")


class StepOutcome(Detail, Base):
    """How a step ended the last time it ran for a section."""

    __tablename__ = "step_outcomes"
    NATURAL_KEY = ("exposure_id", "section_id", "step", "provenance_id")
    __table_args__ = (
        UniqueConstraint(*NATURAL_KEY),
        Index("ix_step_outcomes_newest", "provenance_id", "is_newest", "exposure_id"),
        CheckConstraint(f"status IN {STATUSES}", name="known_status"),
    )

    exposure_id: Mapped[uuid.UUID] = link("exposures.id", "The exposure.")
    section_id: Mapped[str] = mapped_column(doc="The instrument's name for the section.")
    step: Mapped[str] = mapped_column(index=True, doc="Name of the product the step makes.")
    status: Mapped[str] = mapped_column(String(8), index=True, doc="done, stopped or failed.")
    reason: Mapped[str] = mapped_column(
        default="", doc="Of a stop or failure, one word: no_stars, file_damaged, ..."
    )
    message: Mapped[str] = mapped_column(default="", doc="Of a stop or failure, one line with the cure.")
    seconds: Mapped[float] = mapped_column(default=0.0, doc="Wall time, seconds.")
    data_version: Mapped[str] = mapped_column(default="", doc="Hash of provenance and of the rows used.")
    metrics: Mapped[JsonDict] = mapped_column(
        default=dict, doc="Quality figures by name, units in the names."
    )
    updated_at: Mapped[datetime] = mapped_column(default=now, doc="When it last ran, UTC.")

    is_newest: Mapped[bool] = mapped_column(
        default=True, doc="Whether no other version of the step ran or was found up to date since."
    )

    @classmethod
    def find(
        cls, session: Session, exposure_id: uuid.UUID, section_id: str, step: str, provenance_id: str
    ) -> Self | None:
        """Return how a step ended for a section the last time, or None if it never ran."""
        query = select(cls).where(
            cls.exposure_id == exposure_id,
            cls.section_id == section_id,
            cls.step == step,
            cls.provenance_id == provenance_id,
        )
        return session.scalar(query)


def record_outcome(session: Session, outcome: StepOutcome) -> StepOutcome:
    """Record how a step ended, in the place of how it ended before."""
    row = save(session, outcome, replace=True)
    make_newest(session, row)
    return row


def make_newest(session: Session, outcome: StepOutcome) -> None:
    """Let an outcome be the newest of its section's step, and no other version's."""
    same = (
        StepOutcome.exposure_id == outcome.exposure_id,
        StepOutcome.section_id == outcome.section_id,
        StepOutcome.step == outcome.step,
    )
    is_this = StepOutcome.provenance_id == outcome.provenance_id
    wrong = StepOutcome.is_newest.is_distinct_from(is_this)
    session.execute(update(StepOutcome).where(*same, wrong).values(is_newest=is_this))


def made_by(image: Any, product: Any, step: str) -> ColumnElement[bool]:
    """Make the condition that an outcome is the success of a step that made a product of an image's section.

    Of a product that a newer one has replaced there is none.

    Parameters
    ----------
    image, product
        Tables: `Image`, which tells the section, and the product's, which may be `Image` itself.
    step
        Name of the step.
    """
    return and_(
        StepOutcome.exposure_id == image.exposure_id,
        StepOutcome.section_id == image.section_id,
        unindexed(StepOutcome.step) == step,  # else SQLite goes through all outcomes of that step
        StepOutcome.provenance_id == product.provenance_id,
        unindexed(StepOutcome.status) == "done",
        StepOutcome.data_version == product.data_version,
    )
