"""The visible list of steps, in the order of the walk."""

from seechange_core.chain.step import Step
from seechange_core.chain.steps_change import CHANGE_STEPS
from seechange_core.chain.steps_force import FORCE_STEP
from seechange_core.chain.steps_image import IMAGE_STEPS

STEPS: tuple[Step, ...] = (*IMAGE_STEPS, *CHANGE_STEPS, FORCE_STEP)
