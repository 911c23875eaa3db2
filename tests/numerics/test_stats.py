import numpy as np
import pytest

from seechange_core.numerics.stats import clipped_stack_mean, clipped_stats, coarse_sky, mad_sigma


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


def test_coarse_sky_follows_a_gradient_under_stars():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:300, :400]
    truth = 1000 + 0.5 * x - 0.2 * y
    data = (truth + rng.normal(0, 30, truth.shape)).astype(np.float32)
    stars = rng.random(truth.shape) > 0.95
    data[stars] += 5000
    data[100:103] = np.nan
    level, sigma = coarse_sky(data, np.isfinite(data))
    assert np.abs(level - truth).max() < 20
    assert np.median(level - truth) == pytest.approx(0, abs=3)
    assert np.median(sigma) == pytest.approx(30, rel=0.1)


def test_coarse_sky_fills_masked_cells_and_knows_when_it_knows_nothing():
    data = np.full((256, 256), 7, np.float32)
    usable = np.ones(data.shape, bool)
    usable[:130] = False
    assert np.all(coarse_sky(data, usable)[0] == 7)
    assert np.isnan(coarse_sky(data, ~usable & usable)[0]).all()
    assert coarse_sky(data[:5, :3], usable[200:205, :3])[0].shape == (5, 3)


def test_stack_mean_is_the_weighted_mean_with_its_variance():
    rng = np.random.default_rng(4)
    floor = np.array([4.0, 9.0, 25.0, 4.0, 4.0])
    stack = rng.normal(100, np.sqrt(floor + 100)[:, None, None], (5, 200, 200)).astype(np.float32)
    stack[0, :50] = 1e5
    stack[1, 60] = np.nan
    mean, variance, used = clipped_stack_mean(stack, floor, np.ones(5), 5.0)
    pulls = (mean - 100) / np.sqrt(variance)
    assert np.std(pulls) == pytest.approx(1, abs=0.02)
    assert abs(np.mean(pulls)) < 0.03
    assert np.all(used[:50] <= 4)
    assert np.all(used[60] <= 4)
    assert mean.dtype == variance.dtype == np.float32


def test_stack_mean_without_values():
    stack = np.full((3, 2, 2), np.nan, np.float32)
    stack[:, 0, 0] = [1, 2, 3]
    mean, variance, used = clipped_stack_mean(stack, np.ones(3), np.zeros(3), 4.0)
    assert mean[0, 0] == 2
    assert variance[0, 0] == pytest.approx(1 / 3)
    assert np.isnan(mean[1, 1])
    assert np.isinf(variance[1, 1])
    assert used.tolist() == [[3, 0], [0, 0]]
