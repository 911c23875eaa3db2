from dataclasses import replace

import numpy as np
import pytest

from seechange_core.errors import BadDataError, CalibratorMissingError, DeadSection, PixelsError, UserError
from seechange_core.flags import PixelFlag
from seechange_core.frames import Crosstalk, LinearityLaw, Masters
from seechange_core.stages import combine as stage
from seechange_core.stages.combine import (
    BadPixelParams,
    CombineParams,
    find_bad_pixels,
    judge_frames,
)

PARAMS = CombineParams()


def combine(*args):
    return stage.combine(*args).frame


def pulls(master, truth):
    return (master.data - truth) / np.sqrt(master.variance)


def calibrated_masters(camera, n=12):
    bias = combine("bias", [camera.expose() for _ in range(n)], Masters(), PARAMS)
    dark = combine("dark", [camera.expose(0, 300) for _ in range(n)], Masters(bias=bias), PARAMS)
    flats = [camera.expose(20000 + 500 * k, 3) for k in range(n)]
    flat = combine("flat", flats, Masters(bias=bias, dark=dark), PARAMS)
    return Masters(bias=bias, dark=dark, flat=flat)


def test_masters_recover_the_truth_within_their_error_bars(camera):
    masters = calibrated_masters(camera)
    truths = (camera.bias_e, camera.dark_e_per_s, camera.flat)
    for master, truth in zip((masters.bias, masters.dark, masters.flat), truths, strict=True):
        for amplifier in camera.amplifiers:
            pull = pulls(master, truth)[amplifier.image.slices]
            # Rounding to ADU adds 1/12 ADU^2, up to 1 % of this noise; it is measured, so it is included.
            assert np.std(pull) == pytest.approx(1, abs=0.03), master.kind
            assert abs(np.mean(pull)) < 0.15, master.kind
        assert master.data.dtype == master.variance.dtype == np.float32
        assert not master.flags.any()
        assert master.n_frames == 12


@pytest.mark.parametrize(("n", "seeds"), [(3, 6), (5, 3), (50, 1)])
def test_the_variance_is_right_for_few_frames_and_for_many(make_camera, n, seeds):
    """Masters made with masters of as few frames: their noise, common to all frames, is in the variance."""
    squares = {"bias": [], "dark": [], "flat": []}
    for seed in range(seeds):
        camera = make_camera(seed=100 + seed)
        masters = calibrated_masters(camera, n=n)
        truths = (camera.bias_e, camera.dark_e_per_s, camera.flat)
        for master, truth in zip((masters.bias, masters.dark, masters.flat), truths, strict=True):
            assert master.n_frames == n
            squares[master.kind].append(np.mean(pulls(master, truth) ** 2))
    for kind, found in squares.items():
        assert np.mean(found) == pytest.approx(1, abs=0.02), kind


def test_masters_noise_is_a_good_part_of_the_variance(camera):
    """Flats on a bias of two frames, at a level where its noise counts: without it the pull would be 1.4."""
    params = CombineParams(do_dark=False, min_frames=2, flat_level_min_e=100)
    bias = combine("bias", [camera.expose() for _ in range(2)], Masters(), params)
    flats = [camera.expose(200, 3) for _ in range(30)]
    flat = combine("flat", flats, Masters(bias=bias), params)
    assert np.mean(pulls(flat, camera.flat) ** 2) == pytest.approx(1, abs=0.04)
    assert np.median(bias.variance) / 200**2 > 0.5 * np.median(flat.variance)


def test_flat_does_not_swallow_gains_that_differ_by_a_fifth(make_camera):
    camera = make_camera(gains=(2.0, 2.4))
    for kind in ("flat", "twilight_flat"):
        frames = [camera.expose(20000 + 3000 * k, 3) for k in range(6)]
        bias = combine("bias", [camera.expose() for _ in range(9)], Masters(), PARAMS)
        flat = combine(kind, frames, Masters(bias=bias), CombineParams(do_dark=False))
        a, b = (np.mean((flat.data / camera.flat)[amp.image.slices]) for amp in camera.amplifiers)
        assert a / b == pytest.approx(1, abs=2e-4)
        raw = [np.median(frames[0].data[amp.raw.slices]) - 1050 for amp in camera.amplifiers]
        assert raw[0] / raw[1] == pytest.approx(1.2, abs=0.02)  # what a flat in ADU would have held


def test_flat_does_not_swallow_the_gain_ratio(camera):
    masters = calibrated_masters(camera, n=5)
    a, b = (np.median((masters.flat.data / camera.flat)[amp.image.slices]) for amp in camera.amplifiers)
    assert a / b == pytest.approx(1, abs=5e-4)
    assert np.median(masters.flat.data) == pytest.approx(1, abs=1e-6)


def test_variance_follows_the_measured_noise_when_the_header_is_wrong(camera):
    frames = [camera.with_amplifiers(camera.expose(), read_noise_e=3.0) for _ in range(10)]
    master = combine("bias", frames, Masters(), PARAMS)
    for amplifier in camera.amplifiers:
        assert np.std(pulls(master, camera.bias_e)[amplifier.image.slices]) == pytest.approx(1, abs=0.04)


def test_cosmic_rays_are_clipped(camera):
    frames = [camera.expose(0, 300) for _ in range(5)]
    rng = np.random.default_rng(5)
    for frame in frames:
        y, x = rng.integers(0, 256, 200), rng.integers(0, 128, 200)
        frame.data[y, x] += 400
    bias = combine("bias", [camera.expose() for _ in range(9)], Masters(), PARAMS)
    master = combine("dark", frames, Masters(bias=bias), PARAMS)
    assert np.mean(np.abs(pulls(master, camera.dark_e_per_s)) > 6) < 1e-3


def test_strips_change_nothing(camera):
    frames = [camera.expose() for _ in range(40)]
    whole = combine("bias", frames, Masters(), PARAMS)
    strips = combine("bias", frames, Masters(), CombineParams(strip_mb=1))
    np.testing.assert_array_equal(whole.data, strips.data)


def test_bad_frames_are_rejected_with_a_reason(camera):
    frames = [camera.expose() for _ in range(6)]
    frames.append(camera.expose(extra_e=300.0))
    noisy = camera.expose()
    noisy.data[:] += np.rint(camera.rng.normal(0, 5, noisy.data.shape)).astype(np.int16).astype(np.uint16)
    frames.append(noisy)
    quality = judge_frames("bias", frames, Masters(), PARAMS)
    assert [bool(q.reason) for q in quality] == [False] * 6 + [True, True]
    assert "level" in quality[6].reason
    assert "noisier" in quality[7].reason
    assert combine("bias", frames, Masters(), PARAMS).n_frames == 6


def test_flats_too_faint_or_too_bright_are_rejected(camera):
    params = CombineParams(do_bias=False, do_dark=False)
    levels = (500, 20000, 21000, 22000, 115000)
    quality = judge_frames("flat", [camera.expose(e, 1) for e in levels], Masters(), params)
    assert [q.reason.split(":")[0] for q in quality] == ["too faint", "", "", "", "too bright"]
    with pytest.raises(BadDataError, match=r"1 good flat frames of 2.*too faint"):
        combine("flat", [camera.expose(e, 1) for e in (500, 20000)], Masters(), params)


def test_flats_of_a_dead_section_stop(camera):
    bias = combine("bias", [camera.expose() for _ in range(3)], Masters(), PARAMS)
    params = CombineParams(do_dark=False)
    with pytest.raises(DeadSection, match="none of its 4 flats"):
        combine("flat", [camera.expose(0, 5) for _ in range(4)], Masters(bias=bias), params)


def test_missing_masters_are_named(camera):
    frames = [camera.expose(0, 60) for _ in range(3)]
    with pytest.raises(CalibratorMissingError, match="no master bias"):
        combine("dark", frames, Masters(), PARAMS)
    dark = combine("dark", frames, Masters(), CombineParams(missing_calibrator="skip"))
    assert not dark.holds_pedestal  # the overscan took it


def bent_and_mixed(camera, frame, loss=0.02, share=2e-3):
    """Read a frame again with amplifiers that lose signal at 60000 ADU and hear each other."""
    data = frame.data.astype(float)
    signals = []
    for i, amplifier in enumerate(camera.amplifiers):
        zero = camera.level_adu[i] + 0.004 * np.arange(camera.height)[:, None]
        signal = data[amplifier.raw.slices] - zero
        signals.append((zero, signal * (1 - loss * np.maximum(signal, 0) / 60000)))
    for (zero, signal), (_, other), amplifier in zip(signals, signals[::-1], camera.amplifiers, strict=True):
        data[amplifier.raw.slices] = np.rint(zero + signal + share * other)
    return replace(frame, data=data.astype(np.uint16))


def test_masters_are_read_out_as_science_frames_are(camera):
    true_adu = np.linspace(0, 64000, 257)
    names = tuple(a.name for a in camera.amplifiers)
    law = LinearityLaw(
        names, np.tile(true_adu * (1 - 0.02 * true_adu / 60000), (2, 1)), np.tile(true_adu, (2, 1))
    )
    ghosts = Crosstalk(names, np.array([[0, 2e-3], [2e-3, 0]]))
    camera.flat[:, :128] *= 1.5  # so that loss and ghosts differ between the amplifiers
    camera.flat /= np.median(camera.flat)
    frames = [bent_and_mixed(camera, camera.expose(50000 + 2000 * k, 3)) for k in range(5)]
    bias = combine("bias", [camera.expose() for _ in range(9)], Masters(), PARAMS)
    masters = Masters(bias=bias, linearity=law, crosstalk=ghosts)
    off = {}
    for read in (False, True):
        params = CombineParams(do_dark=False, do_linearity=read, do_crosstalk=read)
        flat = combine("flat", frames, masters, params)
        a, b = (np.mean((flat.data / camera.flat)[amp.image.slices]) for amp in camera.amplifiers)
        off[read] = abs(a / b - 1)
    assert off[True] < 2e-4
    assert off[False] > 2e-3


def test_all_that_is_missing_is_named(camera):
    flats = [camera.expose(20000, 3) for _ in range(3)]
    params = CombineParams(do_linearity=True, do_crosstalk=True)
    with pytest.raises(CalibratorMissingError) as caught:
        combine("twilight_flat", flats, Masters(), params)
    for name in ("crosstalk coefficients", "linearity law", "master bias", "master dark"):
        assert f"no {name}" in str(caught.value)
    skipping = params.model_copy(update={"missing_calibrator": "skip"})
    assert combine("twilight_flat", flats, Masters(), skipping).n_frames == 3


def test_darks_without_bias_and_overscan_remember_it(make_camera):
    camera = make_camera(overscan=0)
    params = CombineParams(do_bias=False)
    dark = combine("dark", [camera.expose(0, 60) for _ in range(5)], Masters(), params)
    assert dark.holds_pedestal
    assert dark.exposure_time_s == 60
    for i, amplifier in enumerate(camera.amplifiers):
        pedestal = (camera.level_adu[i] + 0.004 * np.arange(256)[:, None]) * camera.gains[i]
        truth = (pedestal + camera.bias_e[amplifier.image.slices]) / 60
        truth = truth + camera.dark_e_per_s[amplifier.image.slices]
        pull = (dark.data[amplifier.image.slices] - truth) / np.sqrt(dark.variance[amplifier.image.slices])
        assert np.std(pull) == pytest.approx(1, abs=0.05)
    with pytest.raises(CalibratorMissingError, match="hold the bias level"):
        combine("dark", [camera.expose(0, t) for t in (60, 60, 120)], Masters(), params)


def test_impossible_requests(camera):
    with pytest.raises(UserError, match="fringe"):
        combine("fringe", [], Masters(), PARAMS)
    with pytest.raises(BadDataError, match="0 good bias frames of 0"):
        combine("bias", [], Masters(), PARAMS)
    bias = combine("bias", [camera.expose() for _ in range(3)], Masters(), PARAMS)
    other = type(camera)(height=128)
    with pytest.raises(PixelsError, match="master bias"):
        combine("dark", [other.expose(0, 60) for _ in range(3)], Masters(bias=bias), PARAMS)
    with pytest.raises(BadDataError, match=r"2 good bias frames of 3.*\(256, 304\) pixels, the others"):
        combine("bias", [camera.expose(), other.expose(), other.expose()], Masters(), PARAMS)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_frames_without_noise_make_a_master(camera, n):
    frame = camera.with_amplifiers(camera.expose(), read_noise_e=0.0)
    master = combine("bias", [frame] * n, Masters(), CombineParams(min_frames=2))
    assert master.n_frames == n
    np.testing.assert_allclose(pulls(master, master.data), 0)
    assert (master.variance < 0.1).all()
    assert not master.flags.any()


def test_inputs_are_not_edited(camera):
    frames = [camera.expose() for _ in range(3)]
    before = [f.data.copy() for f in frames]
    combine("bias", frames, Masters(), PARAMS)
    for frame, old in zip(frames, before, strict=True):
        np.testing.assert_array_equal(frame.data, old)


def test_bad_pixels_are_found_and_good_ones_kept(camera):
    rng = np.random.default_rng(3)
    bad = np.zeros(camera.shape, bool)
    hot = (rng.integers(0, 256, 60), rng.integers(0, 256, 60))
    dead = (rng.integers(0, 256, 60), rng.integers(0, 256, 60))
    camera.dark_e_per_s[hot] += rng.uniform(2, 60, 60)
    camera.flat[dead] *= rng.uniform(0, 0.5, 60)
    camera.flat[:, 40] *= 0.8
    bad[hot] = bad[dead] = bad[:, 40] = True
    masters = calibrated_masters(camera, n=6)
    found = find_bad_pixels(masters.dark, masters.flat, BadPixelParams())
    assert found.kind == "bad_pixels"
    assert found.flags[bad].all()
    assert np.sum((found.flags != 0) & ~bad) <= 2
    assert set(np.unique(found.flags)) == {0, int(PixelFlag.BAD_PIXEL)}
    assert find_bad_pixels(None, masters.flat, BadPixelParams()).flags[dead].all()
    with pytest.raises(CalibratorMissingError):
        find_bad_pixels(None, None, BadPixelParams())
