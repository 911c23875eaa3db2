"""The walk from raw exposures to light curves: one step loads products, calls a stage, saves the product.

`STEPS` is the visible list. Nothing here computes: that is what `stages` are for.
"""

from seechange_core.chain.ensemble import EnsembleZeroPoints, ensemble_at
from seechange_core.chain.light_curves import (
    LightCurveTable,
    object_light_curve,
    object_named,
    object_near,
    position_light_curve,
)
from seechange_core.chain.lineage import PROCESSES, provenances
from seechange_core.chain.masters import build_master
from seechange_core.chain.outcome import Outcome, StepReport
from seechange_core.chain.queries import candidates, exposures, list_references, status
from seechange_core.chain.references import build_reference, references_wanted
from seechange_core.chain.serving import master_keys, nights_serving
from seechange_core.chain.step import Step
from seechange_core.chain.steps import STEPS
from seechange_core.chain.walk import walk
from seechange_core.chain.wanted import (
    BUILDS_ON,
    FLATS,
    MasterKey,
    WantedMaster,
    look_for_masters,
    masters_wanted,
)

__all__ = [
    "BUILDS_ON",
    "FLATS",
    "PROCESSES",
    "STEPS",
    "EnsembleZeroPoints",
    "LightCurveTable",
    "MasterKey",
    "Outcome",
    "Step",
    "StepReport",
    "WantedMaster",
    "build_master",
    "build_reference",
    "candidates",
    "ensemble_at",
    "exposures",
    "list_references",
    "look_for_masters",
    "master_keys",
    "masters_wanted",
    "nights_serving",
    "object_light_curve",
    "object_named",
    "object_near",
    "position_light_curve",
    "provenances",
    "references_wanted",
    "status",
    "walk",
]
