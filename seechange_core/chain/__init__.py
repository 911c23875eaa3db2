"""The walk from raw exposures to light curves: one step loads products, calls a stage, saves the product.

`STEPS` is the visible list. Nothing here computes: that is what `stages` are for.
"""

from seechange_core.chain.candidate_rows import CandidateRow, Selection, all_candidates, candidates
from seechange_core.chain.ensemble import EnsembleZeroPoints, ensemble_at
from seechange_core.chain.full_pictures import full_picture, picture_version, small_picture
from seechange_core.chain.incoming import (
    Arrivals,
    Arrived,
    IncomingRow,
    arrived,
    list_incoming,
    retry_incoming,
    take_in,
)
from seechange_core.chain.left_out import LeftOut, left_out
from seechange_core.chain.light_curve_table import LightCurveTable
from seechange_core.chain.light_curves import (
    object_light_curve,
    object_named,
    object_near,
    position_light_curve,
)
from seechange_core.chain.lineage import PROCESSES, check_settings, provenances
from seechange_core.chain.masters import build_master
from seechange_core.chain.night_report import WrittenReport, night_report, report_path, write_night_report
from seechange_core.chain.night_rows import NightState, last_night, recent_nights
from seechange_core.chain.outcome import Outcome, StepReport
from seechange_core.chain.outdated import OutdatedExposure, Version, outdated_exposures, versions
from seechange_core.chain.queries import exposures, known_reports, nights, nights_of, status
from seechange_core.chain.reference_flux import notes_on_references
from seechange_core.chain.reference_inputs import references_wanted
from seechange_core.chain.reference_sets import list_references, use_references
from seechange_core.chain.references import LEFT_TO_LEAVE_OUT, build_reference, reference_reports
from seechange_core.chain.seen import too_dense_sections
from seechange_core.chain.serving import master_keys, nights_serving
from seechange_core.chain.step import Step
from seechange_core.chain.steps import STEPS
from seechange_core.chain.verdicts import Marked, VerdictRow, mark, standing_verdicts, verdict_history
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
    "LEFT_TO_LEAVE_OUT",
    "PROCESSES",
    "STEPS",
    "Arrivals",
    "Arrived",
    "CandidateRow",
    "EnsembleZeroPoints",
    "IncomingRow",
    "LeftOut",
    "LightCurveTable",
    "Marked",
    "MasterKey",
    "NightState",
    "Outcome",
    "OutdatedExposure",
    "Selection",
    "Step",
    "StepReport",
    "VerdictRow",
    "Version",
    "WantedMaster",
    "WrittenReport",
    "all_candidates",
    "arrived",
    "build_master",
    "build_reference",
    "candidates",
    "check_settings",
    "ensemble_at",
    "exposures",
    "full_picture",
    "known_reports",
    "last_night",
    "left_out",
    "list_incoming",
    "list_references",
    "look_for_masters",
    "mark",
    "master_keys",
    "masters_wanted",
    "night_report",
    "nights",
    "nights_of",
    "nights_serving",
    "notes_on_references",
    "object_light_curve",
    "object_named",
    "object_near",
    "outdated_exposures",
    "picture_version",
    "position_light_curve",
    "provenances",
    "recent_nights",
    "reference_reports",
    "references_wanted",
    "report_path",
    "retry_incoming",
    "small_picture",
    "standing_verdicts",
    "status",
    "take_in",
    "too_dense_sections",
    "use_references",
    "verdict_history",
    "versions",
    "walk",
    "write_night_report",
]
