"""Streaks along rows through saturated stars: known ones come back, and nothing else is taken for one."""

import numpy as np
import pytest

from seechange_core.numerics.row_streaks import row_streaks, seen_by_filter

SHAPE = 200, 640
SIGMA = 3.0


def sky(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, SIGMA, SHAPE).astype(np.float32)


def saturated(*stars: tuple[int, int]) -> np.ndarray:
    hot = np.zeros(SHAPE, bool)
    for y, x in stars:
        hot[y - 4 : y + 5, x - 4 : x + 5] = True
    return hot


@pytest.fixture
def streak() -> np.ndarray:
    """A level that differs before and after the star, and varies along the rows."""
    truth = np.zeros(SHAPE, np.float32)
    x = np.arange(SHAPE[1])
    truth[97:104] = -0.5 * SIGMA - 1.5 * SIGMA * (x / SHAPE[1])
    return truth


def test_a_streak_is_measured_to_the_noise_of_its_pixels(streak):
    hot = saturated((100, 300))
    usable = ~hot
    found = row_streaks(np.where(usable, sky() + streak, 0).astype(np.float32), usable, hot)
    rows = np.flatnonzero(np.abs(found).any(axis=1))
    assert rows.min() >= 92 and rows.max() <= 108
    # A median of 128 pixels is known to .11 sigma, and ends are extrapolated by half a piece's change.
    off = (found - streak)[92:109]
    assert np.sqrt(np.mean(off**2)) < 0.2 * SIGMA
    assert np.abs(off[:, 64:-64].mean(axis=1)).max() < 0.2 * SIGMA


def test_where_there_is_none_nothing_is_subtracted():
    hot = saturated((50, 100), (100, 300), (150, 500))
    for seed in range(5):
        assert row_streaks(sky(seed), ~hot, hot) is None
    assert row_streaks(sky(), np.ones(SHAPE, bool), np.zeros(SHAPE, bool)) is None
    assert row_streaks(sky(), np.zeros(SHAPE, bool), hot) is None


def test_sources_a_halo_and_a_slope_are_no_streak():
    hot = saturated((100, 300))
    y, x = np.indices(SHAPE)
    halo = 30 * SIGMA * np.exp(-np.hypot(y - 100, x - 300) / 12)
    sources = sum(20 * SIGMA * np.exp(-((y - 100) ** 2 + (x - x0) ** 2) / 8) for x0 in (60, 130, 420, 600))
    slope = 0.01 * SIGMA * (y - 100) + 0.005 * SIGMA * (x - 320)
    assert row_streaks((sky() + halo + sources + slope).astype(np.float32), ~hot, hot) is None


def test_a_matched_filter_sees_a_streak_as_the_sum_over_its_psf(streak):
    y, x = np.mgrid[-8:9, -8:9]
    stamp = np.exp(-(x**2 + y**2 - 0.3 * x * y + y) / 8)
    stamp = (stamp / stamp.sum()).astype(np.float32)
    seen = seen_by_filter(streak, stamp[None])
    for row in (90, 98, 100, 106):
        direct = np.sum(stamp * streak[row - 8 : row + 9, 292:309])
        assert seen[row, 300] == pytest.approx(direct, rel=0.01, abs=1e-4)
    assert seen_by_filter(np.ones(SHAPE, np.float32), stamp[None])[100, 300] == pytest.approx(1, rel=1e-5)
