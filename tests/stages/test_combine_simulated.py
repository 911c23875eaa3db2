"""Masters of a simulated detector against the detector itself: defects, cosmic rays, stars, drifts."""

from types import SimpleNamespace

import numpy as np
import pytest

from seechange_core.frames import Amplifier, Box, Masters, RawFrame
from seechange_core.simulate.calibration import dark_time_s, dome_illumination, simulate_calibration
from seechange_core.simulate.camera import Camera
from seechange_core.simulate.options import SurveyOptions
from seechange_core.stages.combine import BadPixelParams, CombineParams, combine, find_bad_pixels
from seechange_core.stages.illumination import IlluminationParams, illumination_of

PARAMS = CombineParams()


@pytest.fixture(scope="module")
def night():
    """Bias, dark, dome flat and twilight flat of one section, with what was judged, and its truth."""
    options = SurveyOptions(sections=1, section_size_pix=640, seed=4, flat_gradient=0.03, flat_radial=0.02)
    camera = Camera(options)
    section = camera.sections[0]
    truth = camera.detector(section)
    areas = camera.raw_areas(section)
    amplifiers = tuple(
        Amplifier(a.name, Box(*at.data), Box(*at.overscan), Box(*at.image),
                  a.gain, a.read_noise_e, a.saturation_adu)
        for a, at in zip(truth.amplifiers, areas, strict=True)
    )  # fmt: skip

    def frames(kind, n):
        time_s = dark_time_s(camera, kind)
        return [
            RawFrame(simulate_calibration(camera, kind, i, section), amplifiers, time_s) for i in range(n)
        ]

    bias = combine("bias", frames("bias", 9), Masters(), PARAMS)
    dark = combine("dark", frames("dark", 5), Masters(bias=bias.frame), PARAMS)
    masters = Masters(bias=bias.frame, dark=dark.frame)
    flat = combine("flat", frames("flat", 7), masters, PARAMS)
    twilight = combine("twilight_flat", frames("twilight_flat", 8), masters, PARAMS)
    return SimpleNamespace(
        bias=bias, dark=dark, flat=flat, twilight=twilight, truth=truth, amplifiers=amplifiers,
        dome=dome_illumination(camera, section),
    )  # fmt: skip


def pulls(master, truth):
    return (master.data - truth) / np.sqrt(master.variance)


def test_no_good_frame_is_rejected(night):
    for made in (night.bias, night.dark, night.flat, night.twilight):
        assert [q.reason for q in made.quality] == [""] * len(made.quality)


def test_bias_and_dark(night):
    for amplifier in night.amplifiers:
        place = amplifier.image.slices
        pull = pulls(night.bias.frame, night.truth.bias_adu * amplifier.gain)[place]
        assert np.std(pull) == pytest.approx(1, abs=0.02)
        assert abs(np.mean(pull)) < 0.1
    pull = pulls(night.dark.frame, night.truth.dark_e_s)[~night.truth.bad]
    assert np.std(pull) == pytest.approx(1, abs=0.02)
    assert np.mean(np.abs(pull) > 6) < 1e-5


@pytest.mark.parametrize("kind", ["flat", "twilight"])
def test_flats(night, kind):
    light = night.dome if kind == "flat" else 1.0
    truth = night.truth.response * light
    pull = pulls(getattr(night, kind).frame, truth / np.median(truth))[~night.truth.bad]
    assert np.std(pull) == pytest.approx(1, abs=0.02)
    assert abs(np.mean(pull)) < 0.05
    assert np.mean(np.abs(pull) > 6) < 1e-5


def test_bad_pixels_are_complete_and_hardly_any_is_false(night):
    found = find_bad_pixels(night.dark.frame, night.flat.frame, BadPixelParams()).flags != 0
    bad = night.truth.bad
    assert found[bad].mean() > 0.995
    # A stretch of a column is bad as a whole, though the defect starts within it.
    columns = bad.mean(axis=0) > 0.1
    assert np.mean(found[:, ~columns] & ~bad[:, ~columns]) < 1e-5
    assert np.mean(found & ~bad) < 1e-3


def test_the_domes_light_is_corrected_to_a_thousandth(night):
    truth = 1 / night.dome
    truth /= np.median(truth)
    assert np.ptp(truth) > 0.03
    made = illumination_of(night.twilight.frame, night.flat.frame, IlluminationParams())
    assert np.abs(made.data / truth - 1).max() < 5e-4
