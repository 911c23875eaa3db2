"""The judge must be right before it judges."""

import numpy as np
import pytest

from seechange_core.qa.score import completeness, fraction, nearest, pulls


def test_pulls_of_honest_errors_are_standard_normal():
    rng = np.random.default_rng(1)
    true = rng.uniform(0, 100, 20000)
    error = rng.uniform(1, 3, 20000)
    result = pulls(true + error * rng.standard_normal(20000), error, true)
    assert abs(result.median) < 4 * result.median_err
    assert abs(result.width - 1) < 4 * result.width_err


def test_pulls_see_a_bias_and_errors_too_small():
    rng = np.random.default_rng(2)
    noise = 2 * rng.standard_normal(20000) + 0.5
    result = pulls(noise, np.ones(20000), np.zeros(20000))
    assert result.median == pytest.approx(0.5, abs=0.08)
    assert result.width == pytest.approx(2.0, abs=0.08)


def test_errors_of_pulls_are_their_scatter():
    rng = np.random.default_rng(3)
    many = [pulls(rng.standard_normal(200), np.ones(200), np.zeros(200)) for _ in range(2000)]
    assert np.std([p.median for p in many]) == pytest.approx(many[0].median_err, rel=0.1)
    assert np.std([p.width for p in many]) == pytest.approx(many[0].width_err, rel=0.1)


def test_pulls_leave_out_what_was_not_measured():
    assert pulls([np.nan, 1.0], [1.0, 1.0], [0.0, 1.0]).n == 1
    assert pulls([], [], []).n == 0


def test_completeness_counts_each_bin():
    bins = completeness([3, 4, 6, 12, 50], [False, True, True, True, True], [3, 5, 10, 20])
    assert {name: (b.found, b.total) for name, b in bins.items()} == {
        "3-5": (1, 2),
        "5-10": (1, 1),
        "10-20": (1, 1),
        "20+": (1, 1),
    }
    assert np.isnan(completeness([], [], [3])["3+"].value)


def test_fraction_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(4)
    counted = [fraction(int(k), 50) for k in rng.binomial(50, 0.8, 500)]
    covered = np.mean([f.low <= 0.8 <= f.high for f in counted])
    assert 0.6 < covered < 0.78


def test_nearest_takes_the_nearest_within_the_radius():
    candidates = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    assert list(nearest(np.array([[0.8, 0.0], [5.0, 5.0]]), candidates, 1.0)) == [1, -1]
    assert list(nearest(np.array([[0.8, 0.0]]), np.empty((0, 2)), 1.0)) == [-1]
