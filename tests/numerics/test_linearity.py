import numpy as np
import pytest

from seechange_core.errors import HeaderError, PixelsError
from seechange_core.frames import LinearityLaw
from seechange_core.numerics.linearity import LinearityTable, linearise, noise_slope, table_of, true_level


@pytest.mark.parametrize("n", [2, 3, 50, 5000])
def test_is_a_linear_interpolation_of_any_table(n):
    rng = np.random.default_rng(n)
    measured = np.concatenate([[0], np.cumsum(rng.exponential(1, n - 1) ** 3 + 1e-4)])
    measured *= 60000 / measured[-1]
    true = np.concatenate([[0], np.cumsum(np.diff(measured) * rng.uniform(0.5, 1.5, n - 1))])
    signal = rng.uniform(0, 60000, (40, 50)).astype(np.float32)
    signal[0, :2] = 0, measured[-1]
    expected = np.interp(signal, measured, true)
    linearise(signal, LinearityTable(measured, true))
    np.testing.assert_allclose(signal, expected, rtol=1e-6, atol=1e-2)


def test_goes_on_straight_beyond_both_ends():
    table = LinearityTable(np.array([0.0, 100, 200]), np.array([0.0, 110, 240]))
    signal = np.array([[-10, 300, np.nan, -np.inf, np.inf]], np.float32)
    linearise(signal, table)
    np.testing.assert_allclose(signal[0, :2], [-11, 370], rtol=1e-6)
    assert np.isnan(signal[0, 2])
    assert np.isinf(signal[0, 3:]).all()
    assert table.limit_adu == 200
    assert true_level(table, 300) == pytest.approx(370)
    assert true_level(table, np.inf) == np.inf


def test_slope_stretches_noise():
    measured = np.linspace(0, 50000, 400)
    table = LinearityTable(measured, measured * (1 + 0.3 * measured / 50000))
    rng = np.random.default_rng(1)
    for level in (0.0, 20000.0, 45000.0):
        noise = rng.normal(0, 20, (200, 200))
        signal = (level + noise).astype(np.float32)
        linearise(signal, table)
        slope = noise_slope(table, true_level(table, level), 20.0)
        assert np.std(signal) / np.std(noise) == pytest.approx(slope, rel=0.01)
        assert slope == pytest.approx(1 + 0.6 * level / 50000, rel=0.01)
    assert np.isfinite(noise_slope(table, 1e9, 20.0))
    assert np.isfinite(noise_slope(table, -1e9, 20.0))


def test_bad_laws_are_refused():
    good = np.array([[0.0, 1, 2]])
    assert table_of(LinearityLaw(("A",), good, good), "A").limit_adu == 2
    with pytest.raises(HeaderError, match="no amplifier B, only A"):
        table_of(LinearityLaw(("A",), good, good), "B")
    for measured, true in (
        (good[:, ::-1], good),
        (good + 1, good),
        (good, good * 0),
        (good * np.nan, good),
        (good[:, :1], good[:, :1]),
    ):
        with pytest.raises(PixelsError, match="amplifier A does not grow from 0, 0"):
            table_of(LinearityLaw(("A",), measured, true), "A")
    for measured, true in ((good, good[:, :2]), (good[0], good[0]), (np.vstack([good, good]),) * 2):
        with pytest.raises(PixelsError, match="the law of 1 amplifiers has tables of"):
            table_of(LinearityLaw(("A",), measured, true), "A")
