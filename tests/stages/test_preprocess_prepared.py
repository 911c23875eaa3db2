"""Sections that others calibrated: nothing is done twice, and their weights and flags are kept."""

import numpy as np
import pytest

from seechange_core.errors import CalibratorMissingError, PixelsError
from seechange_core.flags import CalibrationStep, PixelFlag
from seechange_core.frames import Amplifier, Box, LinearityLaw, MasterFrame, Masters, Prepared, RawFrame
from seechange_core.numerics.working_image import steps_settled
from seechange_core.stages.preprocess import PreprocessParams, preprocess

GAIN, READ_NOISE_E, SHAPE = 3.5, 7.0, (256, 256)
BY_OTHERS = (
    CalibrationStep.OVERSCAN
    | CalibrationStep.BIAS
    | CalibrationStep.DARK
    | CalibrationStep.FLAT
    | CalibrationStep.BAD_PIXELS
)


def prepared(sky_e=900.0, *, weight=True, subtracted=False, steps=BY_OTHERS, flags=None, seed=1, sources=0.0):
    """A calibrated section in ADU, as float32, with its inverse variance in ADU^-2."""
    rng = np.random.default_rng(seed)
    response = 1 + 0.1 * np.linspace(-1, 1, SHAPE[1])
    mean = (sky_e + sources) * response
    electrons = (rng.poisson(mean, SHAPE) + rng.normal(0, READ_NOISE_E, SHAPE)) / response
    variance_e2 = (sky_e * response + READ_NOISE_E**2) / response**2 * np.ones(SHAPE)
    data = ((electrons - (sky_e if subtracted else 0)) / GAIN).astype(np.float32)
    box = Box(0, SHAPE[0], 0, SHAPE[1])
    amplifier = Amplifier("all", box, None, box, GAIN, READ_NOISE_E, 60000.0)
    given = (GAIN**2 / variance_e2).astype(np.float32) if weight else None
    return RawFrame(data, (amplifier,), 60.0, prepared=Prepared(int(steps), given, flags))


def pulls(image, truth):
    good = image.weight > 0
    return ((image.data - truth) * np.sqrt(image.weight))[good]


def test_nothing_is_done_twice_and_no_master_is_asked_for():
    raw = prepared()
    image = preprocess(raw, Masters(), PreprocessParams())
    assert CalibrationStep(image.calibration_steps) == (
        BY_OTHERS | CalibrationStep.GAIN | CalibrationStep.COSMIC_RAYS | CalibrationStep.STREAKS
    )
    good = image.flags == 0
    np.testing.assert_allclose(image.data[good], GAIN * raw.data[good], rtol=1e-6)
    np.testing.assert_allclose(image.weight[good], raw.prepared.weight[good] / GAIN**2, rtol=1e-5)
    assert image.saturation_e == pytest.approx(GAIN * 60000)
    wrong = MasterFrame("bias", np.ones(SHAPE, np.float32), np.ones(SHAPE, np.float32), image.flags, 3)
    again = preprocess(raw, Masters(bias=wrong, flat=wrong, dark=wrong), PreprocessParams())
    np.testing.assert_array_equal(again.data, image.data)
    np.testing.assert_array_equal(again.weight, image.weight)


def test_what_has_to_come_before_their_flat_is_neither_asked_for_nor_done():
    """As it comes from the Community Pipeline or from Palomar: flat-fielded, and no dark taken off."""
    steps = CalibrationStep.FLAT | CalibrationStep.BAD_PIXELS
    raw = prepared(steps=steps)
    asking = PreprocessParams(do_crosstalk=True, do_linearity=True)
    image = preprocess(raw, Masters(), asking)
    assert CalibrationStep(image.calibration_steps) == (
        steps | CalibrationStep.GAIN | CalibrationStep.COSMIC_RAYS | CalibrationStep.STREAKS
    )
    np.testing.assert_array_equal(image.data, preprocess(prepared(), Masters(), PreprocessParams()).data)
    wrong = MasterFrame("dark", np.ones(SHAPE, np.float32), np.ones(SHAPE, np.float32), image.flags, 3)
    law = LinearityLaw(("all",), np.array([[0.0, 6e4]]), np.array([[0.0, 9e4]]))
    again = preprocess(raw, Masters(bias=wrong, dark=wrong, linearity=law), asking)
    np.testing.assert_array_equal(again.data, image.data)
    np.testing.assert_array_equal(again.weight, image.weight)
    assert again.calibration_steps == image.calibration_steps


@pytest.mark.parametrize(
    ("done", "also"),
    [
        ("OVERSCAN", ""), ("CROSSTALK", ""), ("BIAS", "OVERSCAN"), ("DARK", "OVERSCAN BIAS"),
        ("LINEARITY", "OVERSCAN CROSSTALK"), ("BAD_PIXELS", ""), ("COSMIC_RAYS", ""),
        ("FLAT", "OVERSCAN CROSSTALK LINEARITY BIAS DARK"),
        ("FRINGE", "OVERSCAN CROSSTALK LINEARITY BIAS DARK FLAT"),
        ("ILLUMINATION", "OVERSCAN CROSSTALK LINEARITY BIAS DARK FLAT"),
    ],
)  # fmt: skip
def test_what_a_step_settles(done, also):
    settled = steps_settled(prepared(steps=CalibrationStep[done]))
    assert settled == sum((CalibrationStep[name] for name in [done, *also.split()]), CalibrationStep(0))


def test_what_others_left_out_is_asked_for_and_done():
    raw = prepared(steps=BY_OTHERS & ~CalibrationStep.FLAT)
    with pytest.raises(CalibratorMissingError, match="no master flat for"):
        preprocess(raw, Masters(), PreprocessParams())
    rng = np.random.default_rng(2)
    response = np.float32(1) + np.float32(0.2) * np.linspace(-1, 1, 256, dtype=np.float32)[:, None]
    response = np.broadcast_to(response, SHAPE) * (1 + 0.01 * rng.normal(size=SHAPE)).astype(np.float32)
    blank = np.zeros(SHAPE, np.float32)
    flat = MasterFrame("flat", response, blank, np.zeros(SHAPE, np.uint16), 9)
    bent = RawFrame(
        (raw.data * response).astype(np.float32),
        raw.amplifiers,
        60.0,
        prepared=Prepared(raw.prepared.steps, raw.prepared.weight / response**2),
    )
    image = preprocess(bent, Masters(flat=flat), PreprocessParams(do_cosmic_rays=False))
    assert image.calibration_steps & CalibrationStep.FLAT
    np.testing.assert_allclose(image.data, GAIN * raw.data, rtol=1e-5)
    np.testing.assert_allclose(image.weight, raw.prepared.weight / GAIN**2, rtol=1e-4)
    assert np.std(pulls(image, 900)) == pytest.approx(1, abs=0.02)


def test_flags_and_weights_of_others_are_kept():
    flags = np.zeros(SHAPE, np.uint16)
    flags[3, 5], flags[4, 5] = PixelFlag.COSMIC_RAY, PixelFlag.INTERPOLATED
    raw = prepared(flags=flags, steps=BY_OTHERS | CalibrationStep.COSMIC_RAYS)
    raw.prepared.weight[10, :4] = [0, -1, np.nan, np.inf]
    raw.data[50, 50] += 3000  # a hit that others have not found
    raw.data[60, 60] = np.nan
    image = preprocess(raw, Masters(), PreprocessParams())
    assert image.flags[3, 5] == PixelFlag.COSMIC_RAY
    assert image.flags[4, 5] == PixelFlag.INTERPOLATED
    assert image.weight[4, 5] > 0
    assert np.all(image.flags[10, :4] == PixelFlag.BAD_PIXEL)
    assert image.flags[60, 60] & PixelFlag.NO_DATA
    assert image.flags[50, 50] == 0
    assert np.sum(image.flags != 0) == 7
    assert np.all((image.weight == 0) == ((image.flags & ~np.uint16(PixelFlag.INTERPOLATED)) != 0))
    assert np.isfinite(image.data).all()
    assert np.isfinite(image.weight).all()


@pytest.mark.parametrize("sky_e", [0.5, 50.0, 5000.0])
def test_without_weights_the_noise_is_predicted(sky_e):
    image = preprocess(prepared(sky_e, weight=False), Masters(), PreprocessParams(do_cosmic_rays=False))
    # What the flat did to the read noise is not known.
    assert np.std(pulls(image, sky_e)) == pytest.approx(1, abs=0.03)
    assert np.std(1 / image.weight) < 0.1 * np.mean(1 / image.weight)


@pytest.mark.parametrize("sky_e", [400.0, 9000.0])
def test_a_sky_that_was_subtracted_is_noticed(sky_e):
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:256, :256]
    stars = sum(2e4 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8) for cx, cy in rng.uniform(0, 256, (20, 2)))
    raw = prepared(sky_e, weight=False, subtracted=True, sources=stars)
    image = preprocess(raw, Masters(), PreprocessParams(do_cosmic_rays=False))
    blank = stars < 0.05
    assert np.std(((image.data) * np.sqrt(image.weight))[blank]) == pytest.approx(1, abs=0.05)
    # With weights there is nothing to notice.
    raw = prepared(sky_e, subtracted=True, sources=stars)
    image = preprocess(raw, Masters(), PreprocessParams(do_cosmic_rays=False))
    assert np.std(((image.data) * np.sqrt(image.weight))[blank]) == pytest.approx(1, abs=0.02)


def test_measured_noise_can_be_asked_for():
    raw = prepared(900.0)
    raw.prepared.weight[:] *= 9
    image = preprocess(raw, Masters(), PreprocessParams(do_cosmic_rays=False, noise_model="measured"))
    assert np.std(pulls(image, 900)) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", ["weight", "flags"])
def test_arrays_that_do_not_belong_together_are_refused(name):
    raw = prepared()
    arrays = {"weight": raw.prepared.weight, "flags": np.zeros(SHAPE, np.uint16)}
    arrays[name] = arrays[name][:-1]
    with pytest.raises(PixelsError, match=f"{name} that came with the section"):
        preprocess(
            RawFrame(raw.data, raw.amplifiers, 60.0, prepared=Prepared(int(BY_OTHERS), **arrays)),
            Masters(),
            PreprocessParams(),
        )
