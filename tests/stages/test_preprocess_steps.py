"""What each correction leaves, against truth, and what is recorded about it."""

from dataclasses import replace

import numpy as np
import pytest
from true_detector import FULL_ADU, TrueDetector

from seechange_core.errors import CalibratorMissingError, DeadSection, HeaderError, PixelsError
from seechange_core.flags import CalibrationStep, PixelFlag
from seechange_core.frames import Crosstalk, LinearityLaw, Masters
from seechange_core.stages.combine import CombineParams, combine
from seechange_core.stages.preprocess import STEPS, PreprocessParams, preprocess

EVERYTHING = PreprocessParams(
    do_cosmic_rays=False, do_crosstalk=True, do_linearity=True, do_fringe=True, do_illumination=True
)


def imperfect(**more):
    settings = {
        "curvature": 0.02,
        "crosstalk": (1e-3, 2e-3),
        "fringe_rms": 0.01,
        "illumination_rms": 0.015,
        "bias_structure_adu": 3.0,
        "dark_e_s": 0.2,
    }
    return TrueDetector(**(settings | more))


def without(step):
    return EVERYTHING.model_copy(update={f"do_{step}": False})


def stars_in(detector, n=60, peak=60000.0, half=None):
    """Bright stars, on amplifier A only if `half`."""
    y, x = np.mgrid[: detector.shape[0], : detector.shape[1]]
    image = np.zeros(detector.shape)
    for _ in range(n):
        cx = detector.rng.uniform(10, (half or detector.shape[1]) - 10)
        cy = detector.rng.uniform(10, detector.height - 10)
        image += peak * detector.rng.random() * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)
    return image


def leftover(image, truth, pattern):
    """How much of a pattern (electrons) is left, and the error of that."""
    good = image.flags == 0
    w, r, p = image.weight[good], (image.data - truth)[good], pattern[good]
    p = p - np.average(p, weights=w)
    return np.sum(w * r * p) / np.sum(w * p**2), np.sum(w * p**2) ** -0.5


def gain_map(detector):
    gain = np.empty(detector.shape)
    for a in detector.amplifiers:
        gain[a.image.slices] = a.gain
    return gain


@pytest.mark.parametrize("step", [s for s in STEPS if s != "bad_pixels"])
def test_what_a_correction_leaves_is_within_its_error(step):
    detector = imperfect(seed=len(step))
    sky, time_s = 5000.0, 200.0
    sources = stars_in(detector, half=256) if step == "crosstalk" else 0.0
    # The lamp's light varies over the field, so that a law can be told from a gain.
    ramp = np.linspace(0, 80000, detector.height)[:, None] if step == "linearity" else 0.0
    truth = sky + sources + ramp
    raw, masters = detector.expose(sky, time_s, sources + ramp), detector.masters()
    light = detector.light(sky, sources + ramp)
    adu = light / gain_map(detector)
    pattern = {
        "crosstalk": -1e-3 * detector.gains[1] * adu[:, ::-1] * (np.arange(512) >= 256) * 2,
        "linearity": 0.02 * adu**2 / FULL_ADU * gain_map(detector),
        "bias": detector.bias_adu * gain_map(detector),
        "dark": detector.dark * time_s,
        "flat": sky * (detector.flat - 1),
        "fringe": sky * detector.fringe,
        "illumination": sky * (detector.illumination - 1),
    }[step]
    share, error = leftover(preprocess(raw, masters, EVERYTHING), truth, pattern)
    assert abs(share) < 4 * error + 0.004
    untreated, error = leftover(preprocess(raw, masters, without(step)), truth, pattern)
    assert abs(untreated) == pytest.approx(1, abs=0.15)
    assert abs(untreated) > 20 * error


def test_linearity_is_right_to_half_a_thousandth_up_to_the_end_of_the_law():
    detector = TrueDetector(
        curvature=0.02, flat_structure=False, bias_structure_adu=0, dark_e_s=0, gains=(1.1, 4.5), drift_adu=0
    )
    ends = np.array([a.gain * detector.law.true_adu[0, -1] for a in detector.amplifiers])
    charge = np.linspace(0.001, 0.999, detector.height)[:, None] * np.repeat(ends, detector.half)
    raw = detector.read(charge, 0.0, rounded=False, noise=False)
    masters = Masters(linearity=detector.law)
    params = PreprocessParams(
        do_bias=False,
        do_dark=False,
        do_flat=False,
        do_bad_pixels=False,
        do_cosmic_rays=False,
        do_linearity=True,
    )
    image = preprocess(raw, masters, params)
    assert np.abs(image.data / charge - 1).max() < 5e-4
    assert not image.flags.any()
    untreated = preprocess(raw, Masters(), params.model_copy(update={"do_linearity": False}))
    assert np.abs(untreated.data / charge - 1).max() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("dark_holds_it", [False, True])
def test_laws_count_from_the_level_of_the_bias_where_there_is_no_overscan(dark_holds_it):
    detector = imperfect(
        overscan=0,
        curvature=0.1,
        crosstalk=(5e-3, 5e-3),
        drift_adu=0.0,
        fringe_rms=0.0,
        bias_structure_adu=1.0,
    )
    sources = stars_in(detector)
    raw, masters = detector.expose(20000, 60, sources), detector.masters()
    levels = np.repeat([1000.0, 1130.0], detector.half)
    bias = ((detector.bias_adu + levels) * gain_map(detector)).astype(np.float32)
    masters = replace(masters, bias=replace(masters.bias, data=bias))
    if dark_holds_it:
        rate = bias / np.float32(60) + masters.dark.data
        dark = replace(masters.dark, data=rate, exposure_time_s=60.0, holds_pedestal=True)
        masters = replace(masters, bias=None, dark=dark)
    params = EVERYTHING.model_copy(update={"do_fringe": False, "missing_calibrator": "skip"})
    image = preprocess(raw, masters, params)
    good = image.flags == 0
    pulls = ((image.data - 20000 - sources) * np.sqrt(image.weight))[good & (sources < 10)]
    assert np.std(pulls) == pytest.approx(1, abs=0.02)
    assert np.mean(pulls) == pytest.approx(0, abs=0.15)
    bright = good & (sources > 20000)
    assert np.mean(image.data[bright] / (20000 + sources[bright])) == pytest.approx(1, abs=1e-3)
    assert not image.calibration_steps & CalibrationStep.OVERSCAN


def test_what_is_beyond_the_law_or_the_linear_range_is_flagged_and_its_saturation_follows():
    detector = TrueDetector(curvature=0.02, bias_structure_adu=0, drift_adu=0)
    sources = np.zeros(detector.shape)
    sources[100:110, 60] = 1.04 * detector.law.true_adu[0, -1] * 2.0
    raw, masters = detector.expose(100, 10, sources), detector.masters()
    image = preprocess(raw, masters, EVERYTHING)
    assert np.all(image.flags[100:110, 60] == PixelFlag.NON_LINEAR)
    assert np.sum(image.flags != 0) == 10
    assert np.all(image.weight[100:110, 60] > 0)
    # Lowest of the two: 60000 ADU less the zero level, beyond the table, brought to true electrons.
    beyond = 60000 - 1000 - FULL_ADU
    end = detector.law.true_adu[0, -1] + (1 + 2 * 0.02) * beyond
    assert image.saturation_e == pytest.approx(end * 2.0 / np.percentile(detector.flat, 99.9), rel=0.01)

    cut = replace(raw, amplifiers=tuple(replace(a, non_linear_adu=1040.0) for a in raw.amplifiers))
    assert np.sum(preprocess(cut, masters, EVERYTHING).flags != 0) == 10  # the law covers what is beyond
    image = preprocess(cut, masters, EVERYTHING.model_copy(update={"do_linearity": False}))
    np.testing.assert_array_equal(
        (image.flags[:, :256] & PixelFlag.NON_LINEAR) != 0, raw.data[raw.amplifiers[0].raw.slices] > 1040
    )


def test_ghosts_of_saturated_stars_are_gone():
    detector = imperfect(fringe_rms=0.0, level_adu=(1000.0, 1000.0), seed=12)
    sources = np.zeros(detector.shape)
    sources[50:60, 100:110] = 1e6  # beyond what the converter can say
    charge = np.minimum(detector.rng.poisson(detector.light(300, sources) + 2), 55000 * 2.0)
    raw, masters = detector.read(charge, 10.0), detector.masters()
    ghost = np.s_[50:60, 511 - 109 : 511 - 99]
    seen = preprocess(raw, masters, without("crosstalk"))
    assert np.mean(seen.data[ghost]) == pytest.approx(300 + 2e-3 * 55000 * 2.4, rel=0.1)
    image = preprocess(raw, masters, EVERYTHING)
    error = np.sum(image.weight[ghost]) ** -0.5
    assert np.mean(image.data[ghost]) == pytest.approx(300, abs=4 * float(error) + 1)
    assert not image.flags[ghost].any()


@pytest.mark.parametrize("ratio", [1.2, 0.8])
def test_flats_made_here_do_not_swallow_the_amplifiers_gains(ratio):
    """End to end: bias, dark and flat combined by the pipeline itself."""
    detector = TrueDetector(gains=(2.0, 2.0 * ratio), half=192, height=256, seed=21)
    # No response step between the amplifiers: what the sky shows there is ours.
    biases = [detector.expose(0, 0) for _ in range(9)]
    darks = [detector.expose(0, 300) for _ in range(5)]
    flats = [detector.expose(30000, 1) for _ in range(9)]
    params = CombineParams()
    bias = combine("bias", biases, Masters(), params).frame
    dark = combine("dark", darks, Masters(bias=bias), params).frame
    flat = combine("flat", flats, Masters(bias=bias, dark=dark), params).frame
    masters = Masters(bias=bias, dark=dark, flat=flat)
    params = PreprocessParams(do_bad_pixels=False, do_cosmic_rays=False)
    image = preprocess(detector.expose(4000, 100), masters, params)
    good = image.flags == 0
    means, errors = [], []
    for columns in (np.s_[:, 152:192], np.s_[:, 192:232]):
        means.append(np.mean(image.data[columns][good[columns]]))
        errors.append(np.sum(image.weight[columns]) ** -0.5)
    # The zero levels, common to an amplifier, are good to 0.1 e-.
    assert means[0] - means[1] == pytest.approx(0, abs=4 * float(np.hypot(*errors)) + 0.3)
    assert means[0] == pytest.approx(4000, abs=4 * float(errors[0]) + 4)
    pulls = (image.data - 4000) * np.sqrt(image.weight)
    for a in detector.amplifiers:
        assert np.std(pulls[a.image.slices][good[a.image.slices]]) == pytest.approx(1, abs=0.02)


# --- Fringes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("true_scale", [0.4, 1.0, 1.7])
def test_fringe_scale_is_unbiased_and_its_error_honest(true_scale):
    pulls = []
    for seed in range(12):
        detector = imperfect(fringe_scale=true_scale, seed=seed, height=512)
        raw = detector.expose(3000, 60, stars_in(detector, 100, peak=20000))
        image = preprocess(raw, detector.masters(30), EVERYTHING)
        assert image.calibration_steps & CalibrationStep.FRINGE
        pulls.append((image.fringe_scale - true_scale) / image.fringe_scale_error)
    assert abs(np.mean(pulls)) < 1.2
    assert 0.45 < np.sqrt(np.mean(np.square(pulls))) < 1.7


def test_fringes_stronger_than_the_noise_are_not_taken_for_sources():
    detector = imperfect(fringe_rms=0.05, fringe_scale=0.8, seed=2)
    image = preprocess(detector.expose(40000, 60), detector.masters(), EVERYTHING)
    assert image.fringe_scale == pytest.approx(0.8, abs=max(4 * image.fringe_scale_error, 0.01))


def test_fringes_that_are_not_there_are_left_alone():
    detector = imperfect(fringe_scale=0.0, fringe_rms=0.01, seed=3)
    raw, masters = detector.expose(3000, 60), detector.masters()
    image = preprocess(raw, masters, EVERYTHING)
    assert not image.calibration_steps & CalibrationStep.FRINGE
    assert abs(image.fringe_scale) < 4 * image.fringe_scale_error
    np.testing.assert_array_equal(image.data, preprocess(raw, masters, without("fringe")).data)
    # The wrong sign, or far too strong: something else looks like the pattern.
    for factor in (-1.0, 0.02):
        detector.fringe_scale = 1.0
        fringe = replace(masters.fringe, data=masters.fringe.data * np.float32(factor))
        image = preprocess(detector.expose(3000, 60), replace(masters, fringe=fringe), EVERYTHING)
        assert not image.calibration_steps & CalibrationStep.FRINGE
    dark = preprocess(detector.expose(0, 60), masters, EVERYTHING)
    assert not dark.calibration_steps & CalibrationStep.FRINGE
    assert np.isnan(preprocess(raw, masters, without("fringe")).fringe_scale)


# --- What is recorded, and what is refused --------------------------------------------------------


def test_each_bit_stands_for_something_done():
    detector = imperfect()
    raw, masters = detector.expose(3000, 60), detector.masters()
    masters.bad_pixels.flags[0, 0] = PixelFlag.BAD_PIXEL
    done = CalibrationStep(preprocess(raw, masters, EVERYTHING).calibration_steps)
    always = CalibrationStep.OVERSCAN | CalibrationStep.GAIN | CalibrationStep.STREAKS
    assert done == always | sum(STEPS.values(), CalibrationStep(0))
    for kind, step in STEPS.items():
        assert not preprocess(raw, masters, without(kind)).calibration_steps & step
        skipping = EVERYTHING.model_copy(update={"missing_calibrator": "skip"})
        image = preprocess(raw, replace(masters, **{kind: None}), skipping)
        assert CalibrationStep(image.calibration_steps) == done & ~step
    # Calibrators that change nothing.
    law = masters.linearity
    idle = {
        "crosstalk": Crosstalk(("A", "B"), np.zeros((2, 2))),
        "linearity": replace(law, true_adu=law.measured_adu.copy()),
        "dark": replace(masters.dark, data=np.zeros_like(masters.dark.data)),
        "bad_pixels": replace(masters.bad_pixels, flags=np.zeros_like(masters.bad_pixels.flags)),
    }
    for kind, calibrator in idle.items():
        image = preprocess(raw, replace(masters, **{kind: calibrator}), EVERYTHING)
        assert CalibrationStep(image.calibration_steps) == done & ~STEPS[kind]
    at_once = preprocess(detector.expose(3000, 0), masters, EVERYTHING)
    assert CalibrationStep(at_once.calibration_steps) == done & ~CalibrationStep.DARK


def test_fringes_and_illumination_can_be_wanted_in_some_filters_only():
    detector = imperfect()
    raw, masters = detector.expose(3000, 60), detector.masters()
    params = EVERYTHING.model_copy(update={"fringe_filters": ("z", "Y"), "illumination_filters": ("r",)})
    both = CalibrationStep.FRINGE | CalibrationStep.ILLUMINATION
    done = {
        band: CalibrationStep(preprocess(raw, masters, params, band).calibration_steps) & both
        for band in ("z", "r", None)
    }
    assert done == {"z": CalibrationStep.FRINGE, "r": CalibrationStep.ILLUMINATION, None: both}
    bare = replace(masters, fringe=None, illumination=None)
    with pytest.raises(CalibratorMissingError, match=r"no master fringe for .*filter z \(.*fringe_filters"):
        preprocess(raw, bare, params, "z")
    with pytest.raises(CalibratorMissingError, match=r"no master illumination for .*filter r "):
        preprocess(raw, bare, params, "r")
    wanted = preprocess(raw, bare, params, "g")
    np.testing.assert_array_equal(wanted.data, preprocess(raw, masters, params, "g").data)


def test_a_flat_of_curved_signals_is_refused_for_linearised_science():
    """Its amplifiers, of unlike levels in ADU, stand unlike far off the law: a step that nobody sees."""
    detector = TrueDetector(gains=(1.2, 2.4), curvature=0.04, dark_e_s=0.0, seed=31)
    bias = detector.masters().bias
    flats = [detector.expose(40000, 1) for _ in range(7)]
    laws = Masters(linearity=detector.law, crosstalk=detector.crosstalk_table, bias=bias)
    made = {
        on: combine("flat", flats, laws, CombineParams(do_dark=False, do_linearity=on)).frame
        for on in (False, True)
    }
    assert [made[on].calibration_steps for on in (False, True)] == [0, CalibrationStep.LINEARITY]
    raw = detector.expose(5000, 60)
    steps = {
        on: PreprocessParams(do_linearity=on, do_dark=False, do_bad_pixels=False, do_cosmic_rays=False)
        for on in (False, True)
    }

    def step_between_amplifiers(flat):
        image = preprocess(raw, replace(laws, flat=flat), steps[True])
        left, right = (np.mean(image.data[a.image.slices]) for a in detector.amplifiers)
        return left / right - 1

    assert abs(step_between_amplifiers(made[True])) < 1.5e-3
    # What the refusal is for: of such a flat of unknown origin.
    assert abs(step_between_amplifiers(replace(made[False], calibration_steps=None))) > 8e-3
    for on in (False, True):
        with pytest.raises(
            CalibratorMissingError, match=r"no flat that fits.*for linearity.*combine.do_linearity"
        ):
            preprocess(raw, replace(laws, flat=made[not on]), steps[on])
        preprocess(raw, replace(laws, flat=made[on]), steps[on])


@pytest.mark.parametrize("step", [CalibrationStep.CROSSTALK, CalibrationStep.LINEARITY])
def test_masters_of_frames_read_out_otherwise_are_refused(step):
    detector = imperfect(seed=13)
    raw, masters = detector.expose(3000, 60), detector.masters()
    alike = int(CalibrationStep.CROSSTALK | CalibrationStep.LINEARITY)
    for kind in ("flat", "dark"):
        own = replace(getattr(masters, kind), calibration_steps=alike)
        preprocess(raw, replace(masters, **{kind: own}), EVERYTHING)
        other = replace(own, calibration_steps=alike & ~int(step))
        with pytest.raises(
            CalibratorMissingError, match=f"no {kind} that fits.*set combine.do_{step.name.lower()}"
        ):
            preprocess(raw, replace(masters, **{kind: other}), EVERYTHING)
    # There is no signal in a bias that either could change.
    preprocess(raw, replace(masters, bias=replace(masters.bias, calibration_steps=0)), EVERYTHING)


def test_all_that_is_missing_is_named():
    raw = imperfect().expose(3000, 60)
    with pytest.raises(
        CalibratorMissingError,
        match="no master crosstalk, linearity, bias, dark, flat, fringe, illumination, bad_pixels for",
    ):
        preprocess(raw, Masters(), EVERYTHING)


def test_tables_must_know_the_amplifiers():
    detector = imperfect()
    raw, masters = detector.expose(3000, 60), detector.masters()
    other = LinearityLaw(("A", "C"), detector.law.measured_adu, detector.law.true_adu)
    with pytest.raises(HeaderError, match="no amplifier B, only A, C"):
        preprocess(raw, replace(masters, linearity=other), EVERYTHING)
    table = detector.crosstalk_table.coefficients
    with pytest.raises(HeaderError, match=r"hears C.*only A, B"):
        preprocess(raw, replace(masters, crosstalk=Crosstalk(("A", "C"), table)), EVERYTHING)
    with pytest.raises(PixelsError, match="crosstalk table of 2"):
        preprocess(raw, replace(masters, crosstalk=Crosstalk(("A", "B"), np.eye(2))), EVERYTHING)
    falling = LinearityLaw(("A", "B"), detector.law.measured_adu, detector.law.true_adu[:, ::-1])
    with pytest.raises(PixelsError, match="does not grow"):
        preprocess(raw, replace(masters, linearity=falling), EVERYTHING)
    with pytest.raises(HeaderError, match=r"zero level of amplifier .*neither an overscan nor a bias"):
        preprocess(raw, masters, without("overscan"))
    with pytest.raises(PixelsError, match="master illumination"):
        wrong = replace(masters.illumination, data=np.ones((3, 3), np.float32))
        preprocess(raw, replace(masters, illumination=wrong), EVERYTHING)


def test_a_defective_amplifier_is_flagged_and_disturbs_nothing():
    detector = imperfect(seed=5)
    raw, masters = detector.expose(3000, 60), detector.masters()
    rubbish = raw.data.copy()
    rubbish[raw.amplifiers[1].raw.slices] = detector.rng.integers(0, 65535, raw.amplifiers[1].raw.shape)
    amplifiers = raw.amplifiers[0], replace(raw.amplifiers[1], defective=True)
    image = preprocess(replace(raw, data=rubbish, amplifiers=amplifiers), masters, EVERYTHING)
    assert np.all(image.flags[:, 256:] & PixelFlag.BAD_PIXEL)
    assert not image.weight[:, 256:].any()
    here = np.s_[:, :256]
    assert not image.flags[here].any()
    assert np.mean(image.data[here]) == pytest.approx(3000, abs=3)
    pulls = ((image.data - 3000) * np.sqrt(image.weight))[here]
    assert np.std(pulls) == pytest.approx(1, abs=0.02)
    with pytest.raises(DeadSection, match="defective"):
        both = tuple(replace(a, defective=True) for a in raw.amplifiers)
        preprocess(replace(raw, amplifiers=both), masters, EVERYTHING)


def test_holes_in_masters_are_flagged():
    detector = imperfect(seed=6)
    raw, masters = detector.expose(3000, 60), detector.masters(10)
    for k, kind in enumerate(("bias", "dark", "flat", "fringe", "illumination")):
        getattr(masters, kind).data[10 * k, 7] = np.nan
        getattr(masters, kind).variance[10 * k + 1, 7] = np.nan
    image = preprocess(raw, masters, EVERYTHING)
    assert np.all((image.flags[0:50:10, 7] & (PixelFlag.NO_DATA | PixelFlag.BAD_PIXEL)) != 0)
    assert np.sum(image.flags != 0) == 5
    assert np.isfinite(image.data).all()
    assert np.isfinite(image.weight).all()
    assert np.all(image.weight[1:51:10, 7] > 0)
    assert 1e5 < image.saturation_e < 1.4e5


def test_no_input_is_edited_by_any_step():
    detector = imperfect(seed=7)
    raw, masters = detector.expose(3000, 60, stars_in(detector, peak=3e5)), detector.masters(10)
    arrays = {"raw": raw.data, "crosstalk": masters.crosstalk.coefficients}
    arrays |= {f"law {n}": getattr(masters.linearity, n) for n in ("measured_adu", "true_adu")}
    for kind in ("bias", "dark", "flat", "fringe", "illumination", "bad_pixels"):
        arrays |= {f"{kind} {n}": getattr(getattr(masters, kind), n) for n in ("data", "variance", "flags")}
    copies = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    image = preprocess(raw, masters, EVERYTHING.model_copy(update={"do_cosmic_rays": True}))
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, copies[name])
        for mine in (image.data, image.weight, image.flags):
            assert not np.shares_memory(mine, array)


def test_pixels_that_no_amplifier_reads_are_no_data():
    detector = imperfect(seed=9)
    raw, masters = detector.expose(3000, 60), detector.masters()
    first = raw.amplifiers[0]
    lower = replace(first, raw=first.raw._replace(y1=300), image=first.image._replace(y1=300), overscan=None)
    params = PreprocessParams(do_cosmic_rays=True)
    image = preprocess(replace(raw, amplifiers=(raw.amplifiers[1], lower)), masters, params)
    assert np.all(image.flags[300:, :256] == PixelFlag.NO_DATA)
    assert np.all(image.weight[300:, :256] == 0)
    assert np.isfinite(image.data).all()


@pytest.mark.parametrize("dtype", [">i2", "<u2", ">f4", "<f8", "<i4"])
def test_raw_data_of_any_type(dtype):
    detector = imperfect(seed=8)
    raw, masters = detector.expose(300, 60), detector.masters()
    other = replace(raw, data=raw.data.astype(dtype))
    expected, image = (preprocess(r, masters, EVERYTHING) for r in (raw, other))
    np.testing.assert_array_equal(image.flags, expected.flags)
    np.testing.assert_allclose(image.data, expected.data, rtol=1e-5)
    np.testing.assert_allclose(image.weight, expected.weight, rtol=1e-5)
