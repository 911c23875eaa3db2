"""Outcomes: what became of each step of each section, and why."""

import uuid
from datetime import datetime
from typing import Any, Self

from sqlalchemy import CheckConstraint, ColumnElement, String, UniqueConstraint, and_, select
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
    return save(session, outcome, replace=True)


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
