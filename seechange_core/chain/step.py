"""What a step of the walk is."""

from collections.abc import Callable
from dataclasses import dataclass, field

from seechange_core.chain.section import Section


@dataclass(frozen=True)
class Made:
    """What a step has just made.

    Attributes
    ----------
    product_id, path
        Key of the product's row, and its file relative to the data root.
    metrics
        Quality figures by name.
    preview
        PNG of at most 10 kB.
    bitflag
        `QualityFlag` bits of the product, those of what it was made from included.
    words
        What is bad about the product itself, with figures and limits; empty if nothing is.
    """

    product_id: str | None = None
    path: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    preview: bytes | None = None
    bitflag: int = 0
    words: str = ""


def _nothing(_: Section) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Step:
    """One step: load products, call the stage, save the product.

    Attributes
    ----------
    name
        Of the asset and of the process.
    description
        One sentence for the web UI.
    needs
        Steps whose products it reads.
    make
        Does it; a `Stop` or another error ends the section's walk.
    is_there
        Whether the product of the section's present data version is there to be loaded.
    uses
        Data versions of the other rows it would use now (masters, references, catalog), in a fixed order.
    external
        Assets those rows belong to.
    after
        Called when the outcome of the step has changed (made, stopped, failed, or no longer the present one)
        and is recorded, and when its product is loaded: judges what only many sections together tell.
    """

    name: str
    description: str
    needs: tuple[str, ...]
    make: Callable[[Section], Made]
    is_there: Callable[[Section], bool]
    uses: Callable[[Section], tuple[str, ...]] = _nothing
    external: tuple[str, ...] = ()
    after: Callable[[Section], None] | None = None
