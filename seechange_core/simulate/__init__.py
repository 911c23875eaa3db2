"""The sky and the camera, with truth tables: an instrument to test the pipeline with.

It knows nothing of the pipeline. `simulate_survey` writes a survey to a folder; `simulate_section` makes
one detector readout in memory; `scene` and `simulate_image` make calibrated-like images for unit tests.
"""

from seechange_core.simulate.calibration import simulate_calibration
from seechange_core.simulate.camera import Camera
from seechange_core.simulate.catalog import make_catalog
from seechange_core.simulate.files import SurveyTruth, load_truth
from seechange_core.simulate.observation import Observation, plan_observations
from seechange_core.simulate.options import SurveyOptions
from seechange_core.simulate.populate import make_sky
from seechange_core.simulate.psf import PsfField
from seechange_core.simulate.scene import Scene, make_psf_field, scene, simulate_image
from seechange_core.simulate.section import RawSection, simulate_section
from seechange_core.simulate.sky import Sky
from seechange_core.simulate.survey import World, make_world, simulate_survey

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
    "load_truth",
    "make_catalog",
    "make_psf_field",
    "make_sky",
    "make_world",
    "plan_observations",
    "scene",
    "simulate_calibration",
    "simulate_image",
    "simulate_section",
    "simulate_survey",
]
