"""Twilight flats: light that changes by factors and leans, and stars in it."""

import numpy as np
import pytest

from seechange_core.frames import Masters
from seechange_core.stages.combine import CombineParams, combine

PARAMS = CombineParams(do_bias=False, do_dark=False)
LEVELS_E = (9000, 14000, 30000, 22000, 50000, 12000, 60000, 38000)


@pytest.fixture
def wide(make_camera):
    camera = make_camera(height=400, half=200)
    # Nothing but the response matters here: a bias pattern would need its master.
    camera.bias_e = np.zeros(camera.shape)
    return camera


def slopes(n):
    """Leans of the light that add up to none."""
    rng = np.random.default_rng(7)
    found = rng.uniform(-0.006, 0.006, (n, 2))
    return found - found.mean(axis=0)


def stars(shape, seed, level_e, fwhm=4.5):
    """Stars as the sky has them: few bright ones, their light in units of the sky's; wings of a Moffat."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    radius = fwhm / 2 / np.sqrt(2 ** (1 / 3) - 1)
    for _ in range(6):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        peak_e = min(300 * (1 + rng.pareto(0.6)), 40000)
        image += peak_e * (1 + ((x - cx) ** 2 + (y - cy) ** 2) / radius**2) ** -3
    return image / level_e


def twilight(camera, n=8, *, with_stars=True, leaning=True):
    """Expose at levels of all kinds; return the frames and how much light of stars fell on each pixel."""
    h, w = camera.shape
    y, x = np.mgrid[:h, :w]
    u, v = 2 * (x + 0.5) / w - 1, 2 * (y + 0.5) / h - 1
    flat, frames, light = camera.flat, [], np.zeros(camera.shape)
    for k, (a, b) in enumerate(slopes(n) if leaning else np.zeros((n, 2))):
        level = LEVELS_E[k % len(LEVELS_E)]
        extra = stars(camera.shape, 50 + k, level) if with_stars else 0.0
        camera.flat = flat * (1 + a * u + b * v + extra)
        frames.append(camera.expose(level, 2.0 + k))
        light += extra
    camera.flat = flat
    return frames, light


def pulls_of(camera, master):
    truth = camera.flat / np.median(camera.flat)
    return (master.data - truth) / np.sqrt(master.variance)


def test_levels_by_factors_and_light_that_leans(wide):
    made = combine("twilight_flat", twilight(wide, with_stars=False)[0], Masters(), PARAMS)
    assert made.frame.kind == "twilight_flat"
    assert made.frame.n_frames == 8
    pull = pulls_of(wide, made.frame)
    assert np.std(pull) == pytest.approx(1, abs=0.02)
    # Neither half nor quarter is off: the differences of the light are gone, not only clipped.
    for part in (pull[:200], pull[200:], pull[:, :200], pull[:, 200:]):
        assert abs(part.mean()) < 0.05
    assert [round(q.level_e, -2) for q in made.quality] == pytest.approx(LEVELS_E, rel=0.02)


def test_stars_vanish_with_their_wings(wide):
    frames, light = twilight(wide)
    made = combine("twilight_flat", frames, Masters(), PARAMS)
    assert made.frame.n_frames == 8
    assert not made.frame.flags.any()
    pull = pulls_of(wide, made.frame)
    near = light > 0.002
    assert 0.01 < near.mean() < 0.3
    assert np.std(pull) == pytest.approx(1, abs=0.02)
    assert abs(pull[near].mean()) < 0.15
    assert np.mean(np.abs(pull[near]) > 4) < 2e-3


def test_a_star_across_the_edge_of_a_strip_vanishes_too(wide):
    frames, _ = twilight(wide)
    whole = combine("twilight_flat", frames, Masters(), PARAMS).frame
    strips = combine(
        "twilight_flat", frames, Masters(), CombineParams(do_bias=False, do_dark=False, strip_mb=1)
    )
    np.testing.assert_array_equal(whole.data, strips.frame.data)
    np.testing.assert_array_equal(whole.variance, strips.frame.variance)


def test_what_all_frames_share_is_kept(wide):
    """A lean common to all is response, as far as these frames can tell."""
    w = wide.shape[1]
    wide.flat = wide.flat * (1 + 0.01 * (2 * (np.arange(w) + 0.5) / w - 1))
    made = combine("twilight_flat", twilight(wide, with_stars=False)[0], Masters(), PARAMS)
    assert np.std(pulls_of(wide, made.frame)) == pytest.approx(1, abs=0.02)


def test_bright_and_faint_ones_are_left_out_and_told(wide):
    frames, _ = twilight(wide, n=4)
    frames += [wide.expose(500, 1), wide.expose(118000, 40), wide.expose(10, 0.1)]
    made = combine("twilight_flat", frames, Masters(), PARAMS)
    told = [q.reason.split(":")[0] for q in made.quality]
    assert told == ["", "", "", "", "too faint", "too bright", "no light"]
    assert made.frame.n_frames == 4
