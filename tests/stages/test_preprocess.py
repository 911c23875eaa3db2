from dataclasses import replace

import numpy as np
import pytest

from seechange_core.errors import CalibratorMissingError, DeadSection, HeaderError, PixelsError
from seechange_core.flags import UNUSABLE, CalibrationStep, PixelFlag
from seechange_core.frames import MasterFrame, Masters, RawFrame
from seechange_core.stages.preprocess import PreprocessParams, preprocess

QUIET = PreprocessParams(do_cosmic_rays=False, do_bad_pixels=False)
RAW_ONLY = PreprocessParams(
    do_bias=False,
    do_dark=False,
    do_flat=False,
    do_bad_pixels=False,
    do_cosmic_rays=False,
    do_streaks=False,
)


def master(kind, data, sigma=0.0, flags=None, **more):
    data = np.asarray(data, np.float32)
    flags = np.zeros(data.shape, np.uint16) if flags is None else flags
    return MasterFrame(kind, data, np.full_like(data, sigma**2), flags, 10, **more)


def perfect(camera):
    return Masters(
        bias=master("bias", camera.bias_e),
        dark=master("dark", camera.dark_e_per_s),
        flat=master("flat", camera.flat),
        bad_pixels=master("bad_pixels", np.zeros(camera.shape)),
    )


def noise_ratios(image, truth, camera):
    """Measured over predicted scatter in each amplifier of an image of blank sky."""
    pulls = (image.data - truth) * np.sqrt(image.weight)
    return [np.std(pulls[a.image.slices][image.weight[a.image.slices] > 0]) for a in camera.amplifiers]


@pytest.mark.parametrize("sky", [0, 30, 300, 3000, 30000])
def test_recovers_electrons_and_predicts_the_noise_at_every_sky_level(camera, sky):
    image = preprocess(camera.expose(sky, 120), perfect(camera), QUIET)
    for amplifier in camera.amplifiers:
        here = amplifier.image.slices
        error = float(4 / np.sqrt(np.sum(image.weight[here])))
        # The overscan's own error is common to an amplifier.
        assert np.mean(image.data[here]) == pytest.approx(sky, abs=error + 0.2)
    for ratio in noise_ratios(image, sky, camera):
        # Rounding to ADU adds up to 0.7 % at the lowest level.
        assert ratio == pytest.approx(1, abs=0.02)


def test_noise_of_the_masters_is_included(camera):
    rng = np.random.default_rng(8)
    masters = perfect(camera)
    noisy = Masters(
        bias=master("bias", camera.bias_e + rng.normal(0, 3, camera.shape), 3),
        dark=master("dark", camera.dark_e_per_s + rng.normal(0, 0.04, camera.shape), 0.04),
        flat=master("flat", camera.flat + rng.normal(0, 0.02, camera.shape), 0.02),
        bad_pixels=masters.bad_pixels,
    )
    for sky in (20, 2000):
        image = preprocess(camera.expose(sky, 100), noisy, QUIET)
        for ratio in noise_ratios(image, sky, camera):
            assert ratio == pytest.approx(1, abs=0.02)


def test_stars_do_not_disturb_the_noise_model(camera):
    sky = 500
    stars = np.zeros(camera.shape)
    y, x = np.mgrid[:256, :256]
    for k in range(60):
        cx, cy = camera.rng.uniform(0, 256, 2)
        stars += 10 ** (2 + k / 30) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)
    image = preprocess(camera.expose(sky + stars, 60), perfect(camera), QUIET)
    blank = preprocess(camera.expose(sky, 60), perfect(camera), QUIET)
    assert np.median(image.weight / blank.weight) == pytest.approx(1, abs=0.02)
    assert np.percentile(image.weight / blank.weight, 2) > 0.9


def test_every_step_is_recorded_only_when_done(camera, make_camera):
    raw, masters = camera.expose(500, 60), perfect(camera)
    masters.bad_pixels.flags[0, 0] = PixelFlag.BAD_PIXEL
    done = CalibrationStep(preprocess(raw, masters, PreprocessParams()).calibration_steps)
    assert done == (
        CalibrationStep.OVERSCAN
        | CalibrationStep.GAIN
        | CalibrationStep.BIAS
        | CalibrationStep.DARK
        | CalibrationStep.FLAT
        | CalibrationStep.BAD_PIXELS
        | CalibrationStep.COSMIC_RAYS
        | CalibrationStep.STREAKS
    )
    assert (
        preprocess(raw, Masters(), RAW_ONLY).calibration_steps
        == CalibrationStep.OVERSCAN | CalibrationStep.GAIN
    )
    bare = make_camera(overscan=0)
    assert preprocess(bare.expose(500, 60), Masters(), RAW_ONLY).calibration_steps == CalibrationStep.GAIN
    skipping = PreprocessParams(missing_calibrator="skip")
    partly = preprocess(raw, replace(perfect(camera), dark=None), skipping)
    assert not partly.calibration_steps & CalibrationStep.DARK
    assert partly.calibration_steps & CalibrationStep.FLAT


def test_missing_masters_are_all_named(camera):
    with pytest.raises(CalibratorMissingError, match="no master bias, flat, bad_pixels"):
        preprocess(camera.expose(10, 1), replace(Masters(), dark=perfect(camera).dark), PreprocessParams())


def test_gain_ratio_and_flat(camera):
    image = preprocess(camera.expose(5000, 10), perfect(camera), QUIET)
    left, right = (np.mean(image.data[a.image.slices]) for a in camera.amplifiers)
    assert left / right == pytest.approx(1, abs=4e-4)


def test_row_jitter_is_removed_and_quiet_rows_gain_no_noise(make_camera):
    for jitter in (0.0, 3.0):
        camera = make_camera(row_jitter_adu=jitter)
        image = preprocess(camera.expose(0, 0), perfect(camera), QUIET)
        for amplifier, ratio in zip(camera.amplifiers, noise_ratios(image, 0, camera), strict=True):
            assert ratio == pytest.approx(1, abs=0.02)
            rows = np.mean(image.data[amplifier.image.slices], axis=1)
            ideal = amplifier.read_noise_e / np.sqrt(camera.half)
            per_row = amplifier.read_noise_e / np.sqrt(camera.overscan)
            expected = np.hypot(ideal, per_row) if jitter else ideal
            assert np.std(rows) == pytest.approx(expected, rel=0.2)


def test_saturation_is_judged_on_raw_levels_and_trails_are_flagged(camera):
    raw = camera.expose(300, 30)
    raw.data[100:120, 50] = 60000  # a bled column of amplifier A
    raw.data[120:124, 50] = 45000  # its half-full end
    raw.data[40, 90] = 59999  # bright, and not saturated
    image = preprocess(raw, perfect(camera), QUIET)
    assert np.all(image.flags[100:120, 50] == PixelFlag.SATURATED)
    assert np.all(image.flags[120:124, 50] == PixelFlag.BLEED)
    assert np.all(image.flags[99:125, [49, 51]] == PixelFlag.BLEED)
    assert np.sum(image.flags != 0) == 3 * 26
    assert image.flags[40, 90] == 0
    assert not image.weight[99:125, 49:52].any()
    assert image.saturation_e == pytest.approx(59000 * 2.0 / camera.flat.max(), rel=0.03)


def test_converter_limit_counts_as_saturation(camera):
    raw = camera.with_amplifiers(camera.expose(300, 30), saturation_adu=np.inf)
    raw.data[10, 10] = 65535
    assert preprocess(raw, perfect(camera), QUIET).flags[10, 10] & PixelFlag.SATURATED


def test_what_is_not_finite_is_flagged_and_filled(camera):
    raw = camera.expose(300, 30, rounded=False)
    raw.data[5:9, 7] = np.nan
    raw.data[20, 20] = np.inf
    image = preprocess(raw, perfect(camera), QUIET)
    assert np.all(image.flags[5:9, 7] == PixelFlag.NO_DATA)
    assert image.flags[20, 20] & PixelFlag.NO_DATA
    assert np.isfinite(image.data).all()
    assert np.isfinite(image.weight).all()
    assert image.data[6, 7] == pytest.approx(300, abs=30)
    assert not image.weight[5:9, 7].any()


def test_masters_flags_and_dark_corners(camera):
    flags = np.zeros(camera.shape, np.uint16)
    flags[3, 4] = PixelFlag.BAD_PIXEL
    camera.flat[200:, 200:] = 0.05
    masters = replace(perfect(camera), bad_pixels=master("bad_pixels", np.zeros(camera.shape), flags=flags))
    image = preprocess(camera.expose(400, 30), masters, PreprocessParams())
    assert image.flags[3, 4] & PixelFlag.BAD_PIXEL
    assert np.all(image.flags[200:, 200:] & PixelFlag.BAD_PIXEL)
    assert np.all((image.weight == 0) == ((image.flags & UNUSABLE) != 0))


def test_cosmic_rays_are_flagged(camera):
    raw = camera.expose(300, 60)
    raw.data[30, 30:36] += 400
    image = preprocess(raw, perfect(camera), PreprocessParams())
    assert np.all(image.flags[30, 30:36] & PixelFlag.COSMIC_RAY)
    assert np.sum(image.flags != 0) <= 10


def test_dark_that_holds_the_pedestal(make_camera):
    camera = make_camera(overscan=0)
    level = np.concatenate([np.full((256, 128), a) for a in (2000.0, 2530.0)], axis=1)
    level += 0.004 * np.arange(256)[:, None] * np.repeat(camera.gains, 128)
    dark = master(
        "dark",
        (level + camera.bias_e) / 60 + camera.dark_e_per_s,
        exposure_time_s=60.0,
        holds_pedestal=True,
    )
    masters = replace(perfect(camera), dark=dark)
    image = preprocess(camera.expose(800, 60), masters, QUIET)
    assert np.median(image.data) == pytest.approx(800, abs=1)
    for ratio in noise_ratios(image, 800, camera):
        assert ratio == pytest.approx(1, abs=0.02)
    with pytest.raises(CalibratorMissingError, match=r"holds the bias level.*60 s.*30 s"):
        preprocess(camera.expose(800, 30), masters, QUIET)


@pytest.mark.parametrize("params", [RAW_ONLY.model_copy(update={"noise_model": "measured"}), RAW_ONLY])
def test_measured_noise_where_the_sky_level_means_nothing(make_camera, params):
    camera = make_camera(overscan=0, level_adu=(3000.0, 3000.0))
    camera.bias_e[:] = 0
    camera.flat[:] = 1
    image = preprocess(camera.expose(400, 0), Masters(), params)
    if params.noise_model == "predicted":
        # When nobody asked for a pedestal to be taken off, what is there is sky.
        trusting = preprocess(
            camera.expose(400, 0), Masters(), params.model_copy(update={"do_overscan": False})
        )
        assert 1 / np.median(trusting.weight[:, :128]) == pytest.approx(6000 + 400 + 25, rel=0.02)
    for amplifier in camera.amplifiers:
        expected = 1 / (400 + amplifier.read_noise_e**2)
        assert np.median(image.weight[amplifier.image.slices]) == pytest.approx(expected, rel=0.05)


def test_dead_sections_stop_and_a_dead_amplifier_is_flagged(camera):
    raw = camera.expose(300, 30)
    flat_line = replace(raw, data=np.full_like(raw.data, 1000))
    with pytest.raises(DeadSection, match="read noise"):
        preprocess(flat_line, perfect(camera), QUIET)
    with pytest.raises(DeadSection):
        preprocess(replace(raw, data=np.full_like(raw.data, 65535)), perfect(camera), QUIET)
    half = raw.data.copy()
    half[camera.amplifiers[1].raw.slices] = 1100
    image = preprocess(replace(raw, data=half), perfect(camera), QUIET)
    assert np.all(image.flags[camera.amplifiers[1].image.slices] & PixelFlag.BAD_PIXEL)
    assert not image.flags[camera.amplifiers[0].image.slices].any()
    full = raw.data.copy()
    full[camera.rng.random(full.shape) > 0.03] = 60000
    full[::2] += 50
    with pytest.raises(DeadSection, match="usable"):
        preprocess(replace(raw, data=full), perfect(camera), QUIET)


def test_a_section_that_never_saw_light_is_dead_and_not_in_want_of_a_flat(camera):
    masters = replace(perfect(camera), flat=None)
    with pytest.raises(DeadSection, match="no light"):
        preprocess(camera.expose(0, 60), masters, QUIET)
    with pytest.raises(CalibratorMissingError, match="flat"):
        preprocess(camera.expose(20, 60), masters, QUIET)
    preprocess(camera.expose(0, 60), perfect(camera), QUIET)


def test_bad_input_is_refused_by_name(camera):
    raw = camera.expose(300, 30)
    with pytest.raises(PixelsError, match="no pixel has a finite value"):
        preprocess(replace(raw, data=np.full(raw.data.shape, np.nan)), perfect(camera), QUIET)
    with pytest.raises(PixelsError, match="amplifier B"):
        preprocess(replace(raw, data=raw.data[:, :-5]), perfect(camera), QUIET)
    with pytest.raises(PixelsError, match="3-d"):
        preprocess(replace(raw, data=raw.data[None]), perfect(camera), QUIET)
    with pytest.raises(PixelsError, match="complex"):
        preprocess(replace(raw, data=raw.data.astype(complex)), perfect(camera), QUIET)
    with pytest.raises(HeaderError, match="gain 0"):
        preprocess(camera.with_amplifiers(raw, gain=0), perfect(camera), QUIET)
    with pytest.raises(HeaderError, match="exposure time"):
        preprocess(replace(raw, exposure_time_s=np.nan), perfect(camera), QUIET)
    with pytest.raises(PixelsError, match="no amplifier"):
        preprocess(RawFrame(raw.data, (), 30.0), perfect(camera), QUIET)
    with pytest.raises(PixelsError, match="master flat"):
        wrong = replace(perfect(camera), flat=master("flat", np.ones((9, 9))))
        preprocess(raw, wrong, QUIET)


def test_inputs_are_not_edited(camera):
    raw, masters = camera.expose(300, 30), perfect(camera)
    raw.data[10, 10] = 65535
    kept = raw.data.copy()
    arrays = [
        (m.data, m.flags, m.variance) for m in (masters.bias, masters.dark, masters.flat, masters.bad_pixels)
    ]
    copies = [tuple(a.copy() for a in group) for group in arrays]
    image = preprocess(raw, masters, PreprocessParams())
    np.testing.assert_array_equal(raw.data, kept)
    for group, copy in zip(arrays, copies, strict=True):
        for array, old in zip(group, copy, strict=True):
            np.testing.assert_array_equal(array, old)
    assert image.data.dtype == image.weight.dtype == np.float32
    assert image.flags.dtype == np.uint16
    assert image.header == {"OBJECT": "test"}
    assert not np.shares_memory(image.flags, masters.bad_pixels.flags)
