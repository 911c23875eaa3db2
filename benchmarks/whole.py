"""A raw section all the way to its zero point: everything together, reading and writing included."""

from typing import Any

from benchmarks import ccds
from benchmarks.peers import row, timed
from seechange_core import chain
from seechange_core.chain import Outcome

STEPS = ("exposure", "image", "source_list", "world_coordinates", "zero_point")


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Return the row of one CCD: `quality` has each step's wall-clock seconds."""
    ccds.load(kind, seed)
    seconds, cost = timed(_walk, kind, seed)
    return [row("raw section to zero point", kind, seed, cost, seconds)]


def _walk(kind: str, seed: int) -> dict[str, float]:
    ccd = ccds.load(kind, seed)
    reports = chain.walk(ccd.settings, ccd.exposure, ccd.section, STEPS, redo=True)
    for report in reports:
        if report.outcome is not Outcome.DONE:
            raise RuntimeError(f"{kind} {seed}: {report.step} {report.outcome}: {report.message}")
    return {f"{report.step}_s": report.seconds for report in reports}
