"""The level before a rise: unbiased with honest errors, also when it begins long before it is seen."""

import numpy as np
import pytest

from seechange_core.numerics.quiet_level import quiet_level

ERROR, LEVEL = 100.0, 5000.0
TIME = np.arange(40.0)


def pulls(own, trials=300):
    rng = np.random.default_rng(4)
    found = []
    for _ in range(trials):
        light = LEVEL + own + rng.normal(0, ERROR, len(own))
        seen = np.abs(light - LEVEL) > 5 * ERROR
        n = int(np.argmax(seen)) if seen.any() else len(own)
        if n == 0:
            continue
        level, error = quiet_level(TIME[:n], light[:n], np.full(n, ERROR))
        found.append((level - LEVEL) / error)
    return np.array(found)


def test_a_sudden_rise_leaves_all_epochs_before():
    own = np.where(TIME > 15, 2000.0, 0.0)
    found = pulls(own)
    assert abs(found.mean()) < 0.2
    assert found.std() == pytest.approx(1.1, abs=0.2)
    level, error = quiet_level(TIME[:4], np.array([1.0, 3.0, 1.0, 2.0]), np.full(4, 2.0))
    assert (level, error) == (1.75, 1.0)


@pytest.mark.parametrize("sigma_per_night", [0.15, 0.3, 1.0])
def test_a_slow_rise_has_no_part_in_it(sigma_per_night):
    """The mean of all epochs before the first detection at 5 sigma is off by 2 to 5 times its error."""
    found = pulls(np.clip(TIME - 5, 0, None) * sigma_per_night * ERROR)
    assert abs(found.mean()) < 0.5
    assert found.std() < 1.5


def test_scatter_beyond_the_errors_counts():
    rng = np.random.default_rng(5)
    light = LEVEL + rng.normal(0, 3 * ERROR, (300, len(TIME)))
    found = np.array([quiet_level(TIME, some, np.full(len(TIME), ERROR)) for some in light])
    assert np.std((found[:, 0] - LEVEL) / found[:, 1]) == pytest.approx(1.15, abs=0.2)


def test_of_few_epochs_it_is_their_mean_and_of_none_unknown():
    assert quiet_level(np.array([3.0]), np.array([7.0]), np.array([2.0])) == (7.0, 2.0)
    assert np.isnan(quiet_level(np.empty(0), np.empty(0), np.empty(0))).all()
