import numpy as np
import pytest

from seechange_core.numerics.stats import clipped_stats, mad_sigma


def test_mad_sigma_of_gaussian_and_outliers():
    values = np.random.default_rng(1).normal(5, 3, 20000)
    values[:2000] = 1e6
    assert mad_sigma(values) == pytest.approx(3.0, rel=0.2)
    assert mad_sigma(values[2000:]) == pytest.approx(3.0, rel=0.03)
    assert np.isnan(mad_sigma([np.nan, np.inf]))


def test_clipped_stats_forget_outliers_and_survive_edge_cases():
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(10, 2, 50000), rng.uniform(100, 1000, 500), [np.nan]])
    result = clipped_stats(values)
    assert result.mean == pytest.approx(10, abs=0.04)
    assert result.sigma == pytest.approx(2, rel=0.01)
    assert 49900 < result.n <= 50000
    assert clipped_stats([]).n == 0
    assert clipped_stats([4.0, 4.0, 4.0]) == (4.0, 4.0, 0.0, 3)
