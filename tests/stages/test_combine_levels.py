"""Flats near the end of the linear range, and frames of nearly the same level."""

from dataclasses import replace

import numpy as np
import pytest

from seechange_core.flags import PixelFlag
from seechange_core.frames import Masters
from seechange_core.stages.combine import CombineParams, combine, judge_frames

PARAMS = CombineParams(do_bias=False, do_dark=False)
LIMIT_ADU = 30000.0
#: Of the left amplifier: zero level 1000.5 ADU, gain 2.
LIMIT_E = 57999.0


@pytest.fixture
def smooth(make_camera):
    """A camera of pixels that differ by 1 %, nothing else."""
    camera = make_camera()
    camera.bias_e = np.zeros(camera.shape)
    camera.flat = 1 + np.random.default_rng(2).normal(0, 0.01, camera.shape)
    camera.flat /= np.median(camera.flat)
    return camera


def flats(camera, *levels_e):
    """Expose; beyond the linear limit only half of the light counts."""
    frames = []
    for level_e in levels_e:
        frame = camera.with_amplifiers(camera.expose(level_e, 3), non_linear_adu=LIMIT_ADU)
        over = np.maximum(frame.data.astype(np.float64) - LIMIT_ADU - 300, 0)
        frames.append(replace(frame, data=np.rint(frame.data - over / 2).astype(np.uint16)))
    return frames


@pytest.mark.parametrize("share", [0.9, 0.94, 0.97, 0.98])
def test_noise_is_not_cut_off_at_the_linear_limit(smooth, share):
    made = combine("flat", flats(smooth, *[share * LIMIT_E] * 8), Masters(), PARAMS)
    assert made.frame.n_frames == 8
    # What is flagged is beyond the limit in truth.
    usable = made.frame.flags == 0
    assert usable[share * smooth.flat < 1].all()
    left = usable & (np.arange(256) < 128)
    slope = np.polyfit(smooth.flat[left] - 1, made.frame.data[left] - 1, 1)[0]
    assert slope == pytest.approx(1, abs=0.005)
    pull = (made.frame.data - smooth.flat)[usable] / np.sqrt(made.frame.variance[usable])
    assert np.std(pull) == pytest.approx(1, abs=0.02)


def test_flats_that_go_beyond_it_somewhere_are_rejected(smooth):
    x = np.linspace(-1, 1, 256)
    smooth.flat = smooth.flat * (1 - 0.05 * x)
    good = flats(smooth, *[0.93 * LIMIT_E] * 3)
    found = [q.reason for q in judge_frames("flat", good + flats(smooth, 0.96 * LIMIT_E), Masters(), PARAMS)]
    assert found[:3] == [""] * 3
    assert "of amplifier A is beyond the 5799" in found[3]
    found = [q.reason for q in judge_frames("flat", flats(smooth, 1.01 * LIMIT_E), Masters(), PARAMS)]
    assert found[0].startswith("too bright")


def test_single_pixels_beyond_it_count_only_where_they_are_not(smooth):
    """Twenty pixels see a third more light: beyond the limit in the brighter frames."""
    bright = (np.arange(20, 220, 10), np.arange(10, 110, 5))
    smooth.flat[bright] = 1.3
    mixed = combine("flat", flats(smooth, *[0.9 * LIMIT_E, 0.5 * LIMIT_E] * 4), Masters(), PARAMS).frame
    assert not mixed.flags.any()
    pull = (mixed.data[bright] - 1.3) / np.sqrt(mixed.variance[bright])
    assert abs(np.mean(pull)) < 3 / np.sqrt(20)
    assert np.std(pull) == pytest.approx(1, abs=0.5)
    all_bright = combine("flat", flats(smooth, *[0.9 * LIMIT_E] * 4), Masters(), PARAMS).frame
    expected = np.zeros(smooth.shape, dtype=np.uint16)
    expected[bright] = PixelFlag.NO_DATA
    np.testing.assert_array_equal(all_bright.flags, expected)


def test_without_an_overscan_the_limit_counts_from_the_bias(make_camera):
    camera = make_camera(overscan=0)
    camera.flat = np.ones(camera.shape)
    params = CombineParams(do_dark=False)
    bias = combine("bias", [camera.expose() for _ in range(5)], Masters(), params).frame
    frames = flats(camera, 0.99 * LIMIT_E, 0.99 * LIMIT_E, 0.99 * LIMIT_E, 1.01 * LIMIT_E)
    found = [q.reason for q in judge_frames("flat", frames, Masters(bias=bias), params)]
    assert found[:3] == [""] * 3
    assert "it is linear up to 579" in found[3] or "it is linear up to 580" in found[3]


def drifts_adu(way, n, rng):
    t = np.arange(n)
    return {
        "none": np.zeros(n),
        "scatter": rng.normal(0, 3, n),
        "trend": t / n * rng.uniform(1, 6),
        "walk": np.cumsum(rng.normal(0, 0.7, n)),
        "evening and morning": np.where(t < 0.6 * n, 0.0, 1.9),
    }[way]


@pytest.mark.parametrize("way", ["none", "scatter", "trend", "walk", "evening and morning"])
@pytest.mark.parametrize("overscan", [0, 24])
def test_levels_that_drift_are_no_reason(make_camera, way, overscan):
    """Fewer than 1 % of the frames of 50 good sets are rejected, whatever their zero levels do."""
    rejected = total = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        n = (5, 8, 12)[seed % 3]
        camera = make_camera(seed=seed, overscan=overscan, height=64, half=32)
        frames = []
        for off in drifts_adu(way, n, rng):
            camera.level_adu = (1000.3 + off, 1100.7 + off)
            frames.append(camera.expose())
        rejected += sum(bool(q.reason) for q in judge_frames("bias", frames, Masters(), PARAMS))
        total += n
    assert rejected < 0.01 * total


@pytest.mark.parametrize("overscan", [0, 24])
@pytest.mark.parametrize(("kind", "time_s", "more_e"), [("bias", 0, 8.0), ("dark", 60, 8.0)])
def test_levels_apart_by_less_than_the_read_noise(make_camera, overscan, kind, time_s, more_e):
    """Of a set of two levels, as two temperatures make them, the smaller part is left out."""
    camera = make_camera(overscan=overscan, read_noises=(12.0, 12.0))
    frames = [camera.expose(0, time_s, extra_e=more_e * (k % 2)) for k in range(9)]
    quality = judge_frames(kind, frames, Masters(), PARAMS)
    assert [bool(q.reason) for q in quality] == [bool(k % 2) for k in range(9)]
    assert all(q.reason.startswith("level of amplifier") for q in quality if q.reason)
