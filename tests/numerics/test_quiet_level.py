"""The level before a rise: unbiased with honest errors, also when it begins long before it is seen."""

from time import process_time

import numpy as np
import pytest

from seechange_core.numerics.quiet_level import quiet_at_first, quiet_level

ERROR, LEVEL = 100.0, 5000.0
TIME = np.arange(40.0)


def levels(own, time=TIME, trials=120):
    """Return the levels before the first detection at 5 sigma, from the true one, and their pulls."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(trials):
        light = own + rng.normal(0, ERROR, len(own))
        seen = np.abs(light) > 5 * ERROR
        n = int(np.argmax(seen)) if seen.any() else len(own)
        if n:
            found.append(quiet_level(time[:n], LEVEL + light[:n], np.full(n, ERROR)))
    level, error = np.array(found).T
    return level - LEVEL, (level - LEVEL) / error


@pytest.mark.parametrize("n", [3, 4, 5, 10, 40])
def test_noise_is_not_taken_for_a_trend(n):
    """Constant light: hardly worse than its mean, and within its error as often as that says."""
    off, pull = levels(np.zeros(n), TIME[:n])
    assert np.std(off) < 1.2 * ERROR / np.sqrt(n)
    assert abs(pull.mean()) < 0.3
    assert 0.75 < pull.std() < 1.05
    assert np.mean(np.abs(pull) > 3) < 0.01


@pytest.mark.parametrize("n_quiet", [3, 4, 5])
@pytest.mark.parametrize("peak_sigma", [12, 60])
def test_a_supernova_of_few_quiet_epochs_is_counted_from_these(n_quiet, peak_sigma):
    """It rises in 18 days, by the second power, seen every third; first found one to four epochs late."""
    time = np.arange(30) * 3.0
    rise = np.clip((time - time[n_quiet - 1] - 1.5) / 18, 0, 1) ** 2
    off, pull = levels(peak_sigma * ERROR * rise, time)
    assert np.sqrt(np.mean(off**2)) < 1.25 * ERROR / np.sqrt(n_quiet)
    assert abs(pull.mean()) < 0.3
    assert 0.75 < pull.std() < 1.1


@pytest.mark.parametrize("sigma_per_night", [0.15, 0.3, 1.0])
def test_a_slow_rise_has_hardly_a_part_in_it(sigma_per_night):
    """The mean of all epochs before the first detection at 5 sigma is off by 2 to 5 times its error."""
    off, pull = levels(np.clip(TIME - 5, 0, None) * sigma_per_night * ERROR)
    assert np.sqrt(np.mean(off**2)) < 0.5 * ERROR
    assert abs(pull.mean()) < 0.7
    assert pull.std() < 1.1


def test_a_sudden_rise_leaves_all_epochs_before():
    off, pull = levels(np.where(TIME > 15, 2000.0, 0.0))
    assert np.std(off) < 1.2 * ERROR / np.sqrt(16)
    assert 0.75 < pull.std() < 1.05


def test_scatter_beyond_the_errors_counts():
    rng = np.random.default_rng(5)
    light = LEVEL + rng.normal(0, 3 * ERROR, (100, len(TIME)))
    found = np.array([quiet_level(TIME, some, np.full(len(TIME), ERROR)) for some in light])
    assert np.std((found[:, 0] - LEVEL) / found[:, 1]) == pytest.approx(1.0, abs=0.15)


def test_of_few_epochs_it_is_their_mean_and_of_none_unknown():
    assert quiet_level(np.array([3.0]), np.array([7.0]), np.array([2.0])) == (7.0, 2.0)
    assert np.isnan(quiet_level(np.empty(0), np.empty(0), np.empty(0))).all()


@pytest.mark.parametrize("n_quiet", [3, 10])
@pytest.mark.parametrize("peak_sigma", [0, 30, 60])
def test_a_rise_of_many_errors_that_a_reference_holds_leaves_the_level(n_quiet, peak_sigma):
    """By the second power over ten epochs, all of them missing from a reference that is as bright."""
    rng, found = np.random.default_rng(9), []
    time = np.arange(-n_quiet, 10.0)
    own = peak_sigma * ERROR * (np.clip(time, 0, None) / 9) ** 2
    for noise in rng.normal(0, ERROR, (80, len(own))):
        light = LEVEL + own + noise
        found += [quiet_level(time, light, np.full(len(own), ERROR))]
    level, error = np.array(found).T
    pull = (level - LEVEL) / error
    assert abs(pull.mean()) < 0.35
    assert 0.65 < pull.std() < 1.1
    assert np.mean(np.abs(pull) > 3) < 0.03


def test_thousands_of_epochs_take_no_time():
    epochs = np.sort(np.random.default_rng(10).uniform(0, 1000, 4000))
    begin = process_time()
    level, error = quiet_level(epochs, np.full(4000, 5.0), np.ones(4000))
    assert process_time() - begin < 1
    assert level == pytest.approx(5.0, abs=3 * error)


def test_what_falls_was_not_quiet():
    noise = np.random.default_rng(12).normal(0, ERROR, (200, 20))
    days = np.arange(20.0)
    for light, least, most in (
        (0 * days, 0.97, 1),
        ((days - 10) ** 2 * (days > 10) * 50, 0.97, 1),
        (days % 3 * 500, 0, 0.01),
    ):
        told = [quiet_at_first(days, light + some, np.full(20, ERROR)) for some in noise]
        assert least <= np.mean(told) <= most
