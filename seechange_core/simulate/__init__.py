"""The sky and the camera, with truth tables: an instrument to test the pipeline with.

It knows nothing of the pipeline. `simulate_survey` writes a survey to a folder; `simulate_section` makes
one detector readout in memory; `scene.scene` and `simulate_image` make calibrated-like images for
unit tests.

The names are loaded when first asked for: the command line needs the options only, and without numerics.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seechange_core.simulate.calibration import simulate_calibration
    from seechange_core.simulate.camera import Camera
    from seechange_core.simulate.catalog import make_catalog
    from seechange_core.simulate.files import SurveyTruth, load_truth
    from seechange_core.simulate.observation import Observation, plan_observations
    from seechange_core.simulate.options import SurveyOptions
    from seechange_core.simulate.populate import make_sky
    from seechange_core.simulate.psf import PsfField
    from seechange_core.simulate.scene import Scene, make_psf_field, simulate_image
    from seechange_core.simulate.section import RawSection, simulate_section
    from seechange_core.simulate.sky import Sky
    from seechange_core.simulate.survey import World, make_world, simulate_survey
    from seechange_core.simulate.truth import (
        fringe_pattern,
        true_crosstalk,
        true_illumination,
        true_linearity,
        true_sky_e,
        true_trails_e,
        write_calibrators,
    )

__all__ = [
    "Camera",
    "Observation",
    "PsfField",
    "RawSection",
    "Scene",
    "Sky",
    "SurveyOptions",
    "SurveyTruth",
    "World",
    "fringe_pattern",
    "load_truth",
    "make_catalog",
    "make_psf_field",
    "make_sky",
    "make_world",
    "plan_observations",
    "simulate_calibration",
    "simulate_image",
    "simulate_section",
    "simulate_survey",
    "true_crosstalk",
    "true_illumination",
    "true_linearity",
    "true_sky_e",
    "true_trails_e",
    "write_calibrators",
]

_HOMES = {
    "simulate_calibration": "calibration",
    "Camera": "camera",
    "make_catalog": "catalog",
    **dict.fromkeys(("SurveyTruth", "load_truth"), "files"),
    **dict.fromkeys(("Observation", "plan_observations"), "observation"),
    "SurveyOptions": "options",
    "make_sky": "populate",
    "PsfField": "psf",
    **dict.fromkeys(("Scene", "make_psf_field", "simulate_image"), "scene"),
    **dict.fromkeys(("RawSection", "simulate_section"), "section"),
    "Sky": "sky",
    **dict.fromkeys(("World", "make_world", "simulate_survey"), "survey"),
    **dict.fromkeys(
        (
            "fringe_pattern",
            "true_crosstalk",
            "true_illumination",
            "true_linearity",
            "true_sky_e",
            "true_trails_e",
            "write_calibrators",
        ),
        "truth",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
