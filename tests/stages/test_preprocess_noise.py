"""The background noise predicted is the one measured, per amplifier, at all levels, against truth."""

import numpy as np
import pytest
from true_detector import TrueDetector

from seechange_core.flags import CalibrationStep
from seechange_core.frames import Masters
from seechange_core.stages.preprocess import PreprocessParams, preprocess

EVERYTHING = PreprocessParams(
    do_cosmic_rays=False, do_crosstalk=True, do_linearity=True, do_fringe=True, do_illumination=True
)
LEVELS = (0.1, 10, 100, 1000, 20000)


def ratios(image, truth, detector):
    """Measured over predicted scatter in each amplifier."""
    pulls = (image.data - truth) * np.sqrt(image.weight)
    assert np.all(image.weight[image.flags == 0] > 0)
    return [np.std(pulls[a.image.slices][image.flags[a.image.slices] == 0]) for a in detector.amplifiers]


@pytest.mark.parametrize("sky", LEVELS)
@pytest.mark.parametrize("n_frames", [3, 40])
@pytest.mark.parametrize(
    ("gains", "read_noises"),
    [
        ((0.8, 5.0), (2.0, 2.0)),
        ((0.8, 5.0), (15.0, 15.0)),
        ((2.0, 4.0), (5.0, 7.0)),
        ((3.0, 1.2), (3.0, 10.0)),
    ],
)
def test_all_steps_at_all_levels(sky, n_frames, gains, read_noises):
    detector = TrueDetector(
        gains=gains,
        read_noises=read_noises,
        curvature=0.03,
        crosstalk=(1e-3, 5e-4),
        fringe_rms=0.01,
        illumination_rms=0.015,
        seed=int(10 * sky) + n_frames,
    )
    image = preprocess(detector.expose(sky, 120), detector.masters(n_frames), EVERYTHING)
    # 80000 pixels know their scatter to 0.25 %.
    assert ratios(image, sky, detector) == pytest.approx([1, 1], abs=0.02)


@pytest.mark.parametrize("sky", LEVELS)
@pytest.mark.parametrize("overscan", [0, 40])
def test_rounding_to_whole_adu_is_noise(sky, overscan):
    detector = TrueDetector(gains=(5.0, 3.0), read_noises=(2.5, 2.0), overscan=overscan, seed=3)
    if not overscan:  # then the bias holds the zero level
        detector.bias_adu += 20.37
        detector.level_adu, detector.drift_adu = (0.0, 0.0), 0.0
    image = preprocess(
        detector.expose(sky, 100), detector.masters(50), PreprocessParams(do_cosmic_rays=False)
    )
    assert ratios(image, sky, detector) == pytest.approx([1, 1], abs=0.02)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("sky", [0.1, 30])
def test_overscan_noise_common_to_a_row(sky, jitter):
    detector = TrueDetector(row_jitter_adu=jitter, overscan=16, seed=4)
    image = preprocess(detector.expose(sky, 10), detector.masters(20), PreprocessParams(do_cosmic_rays=False))
    assert ratios(image, sky, detector) == pytest.approx([1, 1], abs=0.02)


def test_read_noise_is_what_the_overscan_shows_even_if_the_header_is_wrong():
    detector = TrueDetector(seed=5)
    raw, masters = detector.expose(0.5, 10), detector.masters()
    detector.read_noises = (3.5, 11.0)
    wrong = type(raw)(raw.data, detector.amplifiers, 10.0)
    params = PreprocessParams(do_cosmic_rays=False)
    assert ratios(preprocess(wrong, masters, params), 0.5, detector) == pytest.approx([1, 1], abs=0.02)
    trusting = preprocess(wrong, masters, params.model_copy(update={"read_noise": "header"}))
    assert ratios(trusting, 0.5, detector)[1] < 0.6


def test_a_strong_law_stretches_the_read_noise_and_not_the_photons():
    detector = TrueDetector(curvature=0.8, gains=(4.0, 4.0), read_noises=(60.0, 60.0), seed=6)
    params = PreprocessParams(do_cosmic_rays=False, do_linearity=True)
    for sky in (100, 20000, 120000):
        image = preprocess(detector.expose(sky, 1), detector.masters(50), params)
        assert ratios(image, sky, detector) == pytest.approx([1, 1], abs=0.02)


def test_the_noise_of_a_dark_does_not_enter_the_weights_of_its_pixels():
    detector = TrueDetector(dark_e_s=0.01, read_noises=(3.0, 3.0), bias_structure_adu=0.0, seed=7)
    masters = detector.masters(1)  # one dark: as noisy as the frame itself
    image = preprocess(detector.expose(1.0, 300), masters, PreprocessParams(do_cosmic_rays=False))
    assert ratios(image, 1.0, detector) == pytest.approx([1, 1], abs=0.02)
    good = image.flags == 0
    mean = np.average(image.data[good], weights=image.weight[good])
    error = np.sum(image.weight[good]) ** -0.5
    # Two amplifiers' overscan levels are good to 0.1 e-.
    assert mean == pytest.approx(1.0, abs=4 * float(error) + 0.1)


def test_stars_do_not_raise_the_noise():
    detector = TrueDetector(seed=8)
    y, x = np.mgrid[: detector.height, : 2 * detector.half]
    stars = np.zeros(detector.shape)
    for _ in range(100):
        cx, cy = detector.rng.uniform(0, 512), detector.rng.uniform(0, 320)
        stars += 10 ** detector.rng.uniform(1, 4.3) * (1 + ((x - cx) ** 2 + (y - cy) ** 2) / 6) ** -3.0
    image = preprocess(
        detector.expose(200, 60, stars), detector.masters(20), PreprocessParams(do_cosmic_rays=False)
    )
    expected = preprocess(
        detector.expose(200, 60), detector.masters(20), PreprocessParams(do_cosmic_rays=False)
    )
    good = (image.flags == 0) & (expected.flags == 0)
    assert np.median((image.weight / expected.weight)[good]) == pytest.approx(1, abs=0.02)


def test_measured_noise_is_right_where_it_has_to_be_used():
    detector = TrueDetector(flat_structure=False, bias_structure_adu=0.0, dark_e_s=0.0, seed=9)
    params = PreprocessParams(
        do_bias=False, do_dark=False, do_flat=False, do_bad_pixels=False, do_cosmic_rays=False,
        noise_model="measured",
    )  # fmt: skip
    image = preprocess(detector.expose(700, 60), Masters(), params)
    assert not image.calibration_steps & CalibrationStep.BIAS
    assert ratios(image, 700, detector) == pytest.approx([1, 1], abs=0.02)
