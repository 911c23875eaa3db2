import numpy as np
import pytest

from seechange_core.numerics.background import estimate, level_map, without_background
from seechange_core.numerics.wings import fit_wings, subtract_wings

SHAPE = (800, 1000)


def field_with_wings(seed=0, n=60, stamp=20):
    """Noise of 30, a tilted sky, and wings falling as r^-2.5 outside the stamps of sources."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(SHAPE)
    sky = 900 + 0.02 * x - 0.01 * y
    at_x, at_y = rng.uniform(0, SHAPE[1], n), rng.uniform(0, SHAPE[0], n)
    flux = 10 ** rng.uniform(5, 6.7, n)
    wings = np.zeros(SHAPE)
    for sx, sy, f in zip(at_x, at_y, flux, strict=True):
        r = np.hypot(x - sx, y - sy)
        wings += np.where((r > stamp) & (r < 120), f * 3e-6 * (r / stamp) ** -2.5, 0)
    data = (sky + wings + rng.normal(0, 30, SHAPE)).astype(np.float32)
    return data, sky, wings, (at_x, at_y, flux)


def test_wings_are_told_from_the_sky():
    data, sky, wings, sources = field_with_wings()
    weight, flags = np.full(SHAPE, 1 / 900, np.float32), np.zeros(SHAPE, np.uint16)
    found = fit_wings(data, weight, *sources, 20)
    drawn = np.zeros(SHAPE, np.float32)
    subtract_wings(drawn, found)
    assert np.corrcoef(-drawn.ravel(), wings.ravel())[0, 1] > 0.9
    before = level_map(estimate(data, weight, flags)) - sky
    subtract_wings(data, found)
    after = estimate(data, weight, flags)
    assert before.mean() > 0.02 * 30
    assert abs((level_map(after) - sky).mean()) < 0.01 * 30
    assert without_background(data, after).mean() == pytest.approx(0, abs=0.3)


def test_a_field_without_wings_gets_hardly_any():
    rng = np.random.default_rng(1)
    data = rng.normal(500, 20, SHAPE).astype(np.float32)
    x, y, flux = rng.uniform(0, 1000, 40), rng.uniform(0, 800, 40), np.full(40, 1e5)
    assert fit_wings(data, np.ones(SHAPE, np.float32), x, y, flux, 15).mean() < 0.3


def test_too_small_to_tell_or_no_source():
    data, weight = np.ones((40, 30), np.float32), np.ones((40, 30), np.float32)
    one = np.array([15.0])
    assert not fit_wings(data, weight, one, one, np.array([1e6]), 10).any()
    big = np.ones(SHAPE, np.float32)
    assert not fit_wings(big, big, one[:0], one[:0], one[:0], 10).any()
    left = data.copy()
    subtract_wings(left, np.full((5, 4), 0.25, np.float32))
    assert left == pytest.approx(0.75)
