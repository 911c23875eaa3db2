import numpy as np
import pytest

from seechange_core.simulate import make_world, simulate_calibration
from seechange_core.simulate.calibration import dome_illumination

HALF, OVER = 128, 24


def left(raw):
    return raw[:, :HALF].astype(float), raw[:, HALF : HALF + OVER].astype(float)


def test_bias_shows_the_fixed_pattern(options):
    camera = make_world(options()).camera
    frames = np.mean([left(simulate_calibration(camera, "bias", i, 0))[0] -
                      left(simulate_calibration(camera, "bias", i, 0))[1].mean(axis=1, keepdims=True)
                      for i in range(12)], axis=0)  # fmt: skip
    pattern = camera.detector(0).bias_adu[:, :HALF]
    assert np.corrcoef(frames.ravel(), pattern.ravel())[0, 1] > 0.7
    assert np.abs((frames - pattern).mean()) < 0.1


def test_dark_counts_the_dark_current(options):
    camera = make_world(options(dark_time_s=200.0, cosmic_rays=0.0)).camera
    detector = camera.detector(0)
    dark, bias = (left(simulate_calibration(camera, kind, 0, 0))[0] for kind in ("dark", "bias"))
    hot = detector.dark_e_s[:, :HALF] > 5
    rate = (dark - bias)[hot] * detector.amplifiers[0].gain / 200.0
    assert rate == pytest.approx(detector.dark_e_s[:, :HALF][hot], rel=0.15)


def test_flat_is_the_response_under_the_domes_light(options):
    camera = make_world(options(flat_gradient=0.01)).camera
    detector = camera.detector(0)
    data, over = left(simulate_calibration(camera, "flat", 0, 0))
    light = (data - over.mean()) * detector.amplifiers[0].gain
    expected = (detector.response * dome_illumination(camera, 0))[:, :HALF]
    ratio = light / expected
    ratio /= np.median(ratio)
    good = ~detector.bad[:, :HALF]
    assert ratio[good].std() < 1.3 / np.sqrt(0.9 * 40_000)
    assert 0.9 * 40_000 * 0.8 < light.mean() < 1.1 * 40_000 * 1.1


def test_illumination_error_spans_its_size_and_can_be_off(options):
    camera = make_world(options(flat_gradient=0.01)).camera
    span = np.ptp(dome_illumination(camera, 0))
    assert 0.006 < span < 0.0101
    assert np.ptp(dome_illumination(make_world(options(flat_gradient=0.0)).camera, 0)) == 0
