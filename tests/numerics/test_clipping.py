import numpy as np
import pytest

from seechange_core.numerics.clipping import clipped_stack_mean, drop_sources, stack_median


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


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 9, 16, 25, 51, 130])
def test_the_median_is_numpys(n):
    rng = np.random.default_rng(n)
    stack = np.rint(rng.normal(0, 3, (n, 9, 150))).astype(np.float32)  # many ties
    stack[rng.random(stack.shape) < 0.2] = np.nan
    stack[0, 0, 0] = 1
    some = np.isfinite(stack).any(axis=0)
    median = stack_median(stack)
    np.testing.assert_array_equal(median[some], np.nanmedian(stack[:, some], axis=0))
    assert np.isnan(median[~some]).all()


@pytest.mark.parametrize("n", [3, 50])
def test_the_variance_allows_for_what_clipping_takes(n):
    rng = np.random.default_rng(n)
    stack = rng.normal(0, 2, (n, 500, 500)).astype(np.float32)
    mean, variance, used = clipped_stack_mean(stack, np.full(n, 4.0), np.zeros(n), 4.0)
    assert np.std(mean / np.sqrt(variance)) == pytest.approx(1, abs=0.006)
    assert used.mean() > 0.999 * n


def test_sources_are_dropped_with_their_wings_and_hits_and_noise_are_not():
    rng = np.random.default_rng(7)
    n, side = 6, 200
    stack = rng.normal(100, 1, (n, side, side)).astype(np.float32)
    y, x = np.mgrid[:side, :side]
    star = 60 * np.exp(-((x - 90) ** 2 + (y - 120) ** 2) / (2 * 6.0**2))
    stack[2] += star
    stack[4, 30, 40] += 1000
    stack[0, 0, 0] = np.nan
    drop_sources(stack, np.ones(n), np.zeros(n), 4.0, 2)
    dropped = ~np.isfinite(stack)
    assert dropped[2][star > 2.5].all()
    assert dropped[2][star > 1.2].mean() > 0.95
    assert dropped[2][star < 0.05].mean() < 1e-3
    assert dropped[4].mean() < 1e-3
    assert dropped[[0, 1, 3, 5]].mean() < 2e-4
