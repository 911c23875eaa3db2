"""What became of a step: three honest outcomes, and two ways of not having run it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a step of one section ended.

    ``DONE``, ``STOPPED`` and ``FAILED`` are recorded in the database. ``LOADED`` means that the product
    was there already and nothing it depends on has changed; ``SKIPPED`` that an earlier step of the
    section stopped or failed, so this one was not attempted.
    """

    DONE = "done"
    LOADED = "loaded"
    STOPPED = "stopped"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def has_product(self) -> bool:
        """True if the product exists and is current."""
        return self in (Outcome.DONE, Outcome.LOADED)


#: Verdict on a frame that went into a master.
USED = "used"


@dataclass(frozen=True)
class StepReport:
    """What one step did for one section; small, and fit to cross process borders.

    Attributes
    ----------
    exposure, section, step
        Exposure name, section id as text, asset name.
    outcome
        How it ended.
    reason
        Slug of the stop or error, e.g. ``no_reference``.
    message
        One line for a person: the thing, the value seen, the cure. Of a product, what was found bad about it.
    seconds
        Wall time of the step.
    code_version, data_version
        Provenance id; hash of the provenance and of all rows used.
    metrics
        Quality figures by name, units in the names.
    preview
        PNG of at most 10 kB, if the product can be looked at.
    product_id
        Key of the product's row.
    path
        Of its file, relative to the data root.
    table
        Rows of a table that belongs to it: of a master, its frames with what was measured on each.
    bitflag
        `QualityFlag` bits of the product, or those that the reason of a stop stands for.
    """

    exposure: str
    section: str
    step: str
    outcome: Outcome
    reason: str = ""
    message: str = ""
    seconds: float = 0.0
    code_version: str = ""
    data_version: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    preview: bytes | None = None
    product_id: str | None = None
    path: str | None = None
    table: tuple[dict[str, Any], ...] = ()
    bitflag: int = 0
