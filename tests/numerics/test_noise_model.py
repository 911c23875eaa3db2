import numpy as np
import pytest

from seechange_core.frames import Box, MasterFrame, Masters
from seechange_core.numerics.noise_model import DarkCharge, NoiseModel, divide, strips

SHAPE = (200, 128)
BOX = Box(0, 200, 0, 128)


def master(kind, data, variance=0.0, **more):
    data = np.broadcast_to(np.asarray(data, np.float32), SHAPE).copy()
    variance = np.broadcast_to(np.asarray(variance, np.float32), SHAPE).copy()
    return MasterFrame(kind, data, variance, np.zeros(SHAPE, np.uint16), 9, **more)


def whole(model, sky, given=None):
    out = np.empty(SHAPE, np.float32)
    for place, rows in strips(BOX):
        level = np.full(out[place].shape, sky, np.float32)
        out[place] = model.variance(place, rows, level, None if given is None else given[place])
    return out


def test_strips_fill_a_box():
    seen = np.zeros((300, 50), int)
    for place, rows in strips(Box(10, 290, 5, 40)):
        seen[place] += 1
        assert (place[0].start - 10, place[0].stop - 10) == (rows.start, rows.stop)
    assert seen[10:290, 5:40].min() == seen.max() == 1
    assert seen.sum() == 280 * 35


def test_terms_add_up_as_the_formula_says():
    response = np.linspace(0.6, 1.3, 128)[None, :]
    smooth = np.linspace(0.9, 1.1, 200)[:, None]
    masters = Masters(
        bias=master("bias", 0, 3.0),
        dark=master("dark", 0.5, 0.0004),
        flat=master("flat", response, 0.0009),
        illumination=master("illumination", smooth, 0.0001),
        fringe=master("fringe", 0.02, 1e-4),
    )
    dark = DarkCharge.of(masters.dark, np.ones(SHAPE, bool), BOX, 100.0, 64)
    model = NoiseModel(masters, 100.0, 30.0, dark, 500.0, 0.2)
    total = response * smooth
    light = 1000 + 500 * 0.02
    expected = (30 + light * total + 50 + 3 + 0.0004 * 1e4) / total**2
    expected = expected + light**2 * (0.0009 / response**2 + 0.0001 / smooth**2) + 500**2 * 1e-4
    np.testing.assert_allclose(whole(model, 1000.0), expected, rtol=1e-4)
    given = np.full(SHAPE, 77.0, np.float32)
    expected += (77 - 30 - light * total - 50) / total**2
    np.testing.assert_allclose(whole(model, 1000.0, given), expected, rtol=1e-4)
    assert np.all(given == 77)
    bare = NoiseModel(Masters(), 100.0, 30.0, None, 0.0, 0.2)
    assert np.all(whole(bare, 12.0) == 42)
    assert np.all(whole(bare, -5.0) == 30)


def test_only_what_stands_out_of_a_dark_speaks_for_itself():
    rng = np.random.default_rng(1)
    rate = 0.02 + 0.03 * np.linspace(0, 1, 200)[:, None] * np.ones(SHAPE)
    noisy = rate + rng.normal(0, 0.02, SHAPE)
    noisy[20, 30] = 5.0
    dark = master("dark", noisy, 4e-4)
    charge = DarkCharge.of(dark, np.ones(SHAPE, bool), BOX, 100.0, 32)
    got = np.concatenate([charge.rows(place, rows) for place, rows in strips(BOX)])
    assert got[20, 30] == pytest.approx(500, rel=0.01)
    others = np.ones(SHAPE, bool)
    others[20, 30] = False
    np.testing.assert_allclose(got[others], 100 * rate[others], atol=0.8)
    assert abs(np.corrcoef(got[others], (noisy - rate)[others])[0, 1]) < 0.05

    held = master("dark", noisy + 40.0, 4e-4, exposure_time_s=100.0, holds_pedestal=True)
    charge = DarkCharge.of(held, np.ones(SHAPE, bool), BOX, 100.0, 32)
    got = np.concatenate([charge.rows(place, rows) for place, rows in strips(BOX)])
    assert np.median(got) < 2
    assert got[20, 30] == pytest.approx(500, rel=0.02)


def test_division_leaves_what_has_no_response():
    data = np.full((2, 3), 10, np.float32)
    divide(data, np.array([[2, 0.1, np.nan], [0.5, 0.2, -3]], np.float32), 0.2)
    np.testing.assert_allclose(data, [[5, 10, 10], [20, 50, 10]])
