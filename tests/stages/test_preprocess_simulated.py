"""A DECam section, every effect on: masters combined from raw frames, laws supplied, truth known."""

from typing import NamedTuple

import numpy as np
import pytest

from seechange_core.flags import CalibrationStep, PixelFlag
from seechange_core.frames import Amplifier, Box, Crosstalk, LinearityLaw, MasterFrame, Masters, RawFrame
from seechange_core.simulate import (
    SurveyOptions,
    fringe_pattern,
    make_world,
    simulate_calibration,
    simulate_section,
    true_crosstalk,
    true_illumination,
    true_linearity,
    true_sky_e,
)
from seechange_core.simulate.charge import bleed, read_out
from seechange_core.stages.combine import BadPixelParams, CombineParams, combine, find_bad_pixels
from seechange_core.stages.preprocess import STEPS, PreprocessParams, preprocess

SECTION = "N4"
EVERYTHING = PreprocessParams(do_crosstalk=True, do_linearity=True, do_fringe=True, do_illumination=True)


def make_options(**changes):
    empty = {"star_density": 0.0, "galaxy_density": 0.0, "transients": 0, "variables": 0, "asteroids": 0}
    rest = {"satellites": 0.0, "exposures": 1, "nights": 1, "reference_exposures": 0, "band": "z", "seed": 4}
    effects = {"nonlinearity": True, "crosstalk": 1e-3, "fringing": 0.01, "flat_radial": 0.03}
    window = {"camera": "decam", "section_names": (SECTION,), "window_pix": (512, 512)}
    return SurveyOptions(**(empty | rest | effects | window | changes))


def amplifiers_of(camera):
    detector = camera.detector(SECTION)
    return tuple(
        Amplifier(
            amplifier.name, *(Box(b.y0, b.y1, b.x0, b.x1) for b in (area.data, area.overscan, area.image)),
            amplifier.gain, amplifier.read_noise_e, amplifier.saturation_adu, mirrored=side == 1,
        )
        for side, (amplifier, area) in enumerate(zip(detector.amplifiers, detector.areas, strict=True))
    )  # fmt: skip


def supplied(kind, data):
    data = data.astype(np.float32)
    return MasterFrame(kind, data, np.zeros_like(data), np.zeros(data.shape, np.uint16), 1)


class Night(NamedTuple):
    camera: object
    masters: Masters
    observation: object
    sky: object


@pytest.fixture(scope="module")
def night():
    world = make_world(make_options())
    camera = world.camera
    names = tuple(a.name for a in amplifiers_of(camera))
    measured, true = true_linearity(camera, SECTION)
    crosstalk = Crosstalk(names, true_crosstalk(camera, SECTION))
    law = LinearityLaw(names, measured, true)
    made = {"crosstalk": crosstalk, "linearity": law}
    params = CombineParams(do_crosstalk=True, do_linearity=True)
    times = {"bias": 0.0, "dark": camera.options.dark_time_s, "flat": 5.0}
    for kind, n in (("bias", 12), ("dark", 7), ("flat", 12)):
        raws = [simulate_calibration(camera, kind, i, SECTION) for i in range(n)]
        frames = [RawFrame(raw, amplifiers_of(camera), times[kind]) for raw in raws]
        made[kind] = combine(kind, frames, Masters(**made), params).frame
    made["bad_pixels"] = find_bad_pixels(made["dark"], made["flat"], BadPixelParams())
    made["fringe"] = supplied("fringe", fringe_pattern(camera, SECTION))
    made["illumination"] = supplied("illumination", true_illumination(camera, SECTION))
    return Night(camera, Masters(**made), world.observations[0], world.sky)


def expose(night, **changes):
    options = make_options(**changes)
    world = make_world(options)
    made = simulate_section(world.camera, world.sky, world.observations[0], SECTION)
    return RawFrame(made.raw, amplifiers_of(world.camera), options.exposure_time_s), world


@pytest.mark.parametrize("time_s", [5.0, 60.0, 400.0])
def test_sky_and_noise_of_a_blank_field(night, time_s):
    raw, world = expose(night, exposure_time_s=time_s)
    image = preprocess(raw, night.masters, EVERYTHING)
    done = CalibrationStep(image.calibration_steps)
    wanted = sum(
        STEPS.values(),
        CalibrationStep.OVERSCAN
        | CalibrationStep.GAIN
        | CalibrationStep.COSMIC_RAYS
        | CalibrationStep.STREAKS,
    )
    assert done | CalibrationStep.FRINGE == wanted
    truth = true_sky_e(world.camera, world.observations[0], SECTION)
    truth = truth / (1 + fringe_pattern(world.camera, SECTION))
    good = image.weight > 0
    assert good.mean() > 0.95
    # A flat's median is that of the lamp's light, not of the sky's: one number for the whole section.
    scale = np.median(image.data[good]) / np.median(truth)
    assert scale == pytest.approx(1, abs=0.01 + 0.3 / np.median(truth))
    residual = image.data - scale * truth
    levels = []
    for amplifier in raw.amplifiers:
        here = np.zeros(good.shape, bool)
        here[amplifier.image.slices] = True
        here &= good & (np.abs(residual) < 6 / np.sqrt(np.maximum(image.weight, 1e-9)))  # faint hits
        pulls = residual[here] * np.sqrt(image.weight[here])
        assert np.std(pulls) == pytest.approx(1, abs=0.02)
        levels.append(np.mean(residual[here]))
    # The step between the amplifiers: 0.05 % of the sky, and the zero levels' errors.
    assert levels[0] - levels[1] == pytest.approx(0, abs=0.3 + 5e-4 * np.median(truth))
    if done & CalibrationStep.FRINGE:
        assert image.fringe_scale == pytest.approx(1, abs=4 * image.fringe_scale_error + 0.02)


def test_full_wells_and_their_trails_are_flagged_and_little_else(night):
    camera = night.camera
    detector = camera.detector(SECTION)
    rng = np.random.default_rng(9)
    y, x = np.mgrid[: camera.height, : camera.width]
    charge = rng.poisson(500, camera.shape).astype(np.float32)
    for cx, cy, peak in ((60, 200, 3e6), (150, 40, 4e5), (253, 300, 1e6), (400, 480, 8e6), (300, 100, 2e5)):
        charge += np.float32(peak) * (1 + ((x - cx) ** 2 + (y - cy) ** 2) / 9).astype(np.float32) ** -3
    wells = np.repeat([a.full_well_e for a in detector.amplifiers], camera.width // 2)
    above = charge > wells
    bleed(charge, detector)
    raw = RawFrame(read_out(charge, detector, rng), amplifiers_of(camera), 10.0)
    params = EVERYTHING.model_copy(update={"do_cosmic_rays": False})
    image = preprocess(raw, night.masters, params)
    spoilt = (image.flags & (PixelFlag.SATURATED | PixelFlag.BLEED)) != 0
    full = charge >= wells * (1 - 1e-6)
    assert above.sum() > 100
    assert full.sum() > above.sum()
    assert np.all(spoilt[above])
    assert np.all(spoilt[full])
    assert not image.weight[spoilt].any()
    # Ends of trails hold what was left over; saturation lies a little below the full well; one pixel around.
    nearly = charge >= 0.55 * wells
    allowed = nearly.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            allowed |= np.roll(nearly, (dy, dx), (0, 1))
    assert not np.any(spoilt & ~allowed)
    assert spoilt.sum() < 3.5 * full.sum()
    untouched = ~spoilt & (image.flags == 0) & (charge < 700)
    assert np.median(image.data[untouched]) == pytest.approx(500, rel=0.15)
