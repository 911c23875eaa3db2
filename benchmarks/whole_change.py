"""A raw section all the way to the measurements of what changed, reading and writing included.

The reference of each region that the section overlaps is built before, of the pair's earlier exposures.
"""

from typing import Any

from benchmarks import pairs
from benchmarks.peers import row, timed
from seechange_core import chain
from seechange_core.chain import Outcome

LAST = "measurement"
STEPS = tuple(s.name for s in chain.STEPS[: [s.name for s in chain.STEPS].index(LAST) + 1])


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Return the row of one CCD: `quality` has each step's wall-clock seconds."""
    build_references(pairs.load(kind, seed))
    seconds, cost = timed(_walk, kind, seed)
    return [row("raw section to measurements", kind, seed, cost, seconds)]


def build_references(pair: pairs.Pair) -> None:
    """Build what the new images are subtracted from, if the present code has not."""
    camera = pair.survey.options.camera
    later = pair.exposures[pairs.N_REFERENCE :]
    for region, band in chain.references_wanted(pair.settings, camera):
        for report in chain.build_reference(pair.settings, camera, region, band, without=later, use=True):
            if not report.outcome.has_product and report.outcome is not Outcome.STOPPED:
                raise RuntimeError(f"{region}: {report.step} {report.outcome}: {report.message}")


def _walk(kind: str, seed: int) -> dict[str, float]:
    pair = pairs.load(kind, seed)
    reports = chain.walk(pair.settings, pair.exposure("worse"), pair.section, STEPS, redo=True)
    for report in reports:
        if report.outcome is not Outcome.DONE:
            raise RuntimeError(f"{kind} {seed}: {report.step} {report.outcome}: {report.message}")
    return {f"{report.step}_s": report.seconds for report in reports}
