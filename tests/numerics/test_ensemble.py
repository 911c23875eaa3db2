"""Ensemble photometry against known zero points: pulls, variables, outliers, gaps."""

import numpy as np
import pytest

from seechange_core.numerics.ensemble import solve

VARIABLE = 3


def _observed(seed, n=40, m=30, scatter=0.0, amplitude=0.05, missing=0.1, wrong=0.01):
    """Fluxes of n stars at m epochs, of which one varies and a few single values are far off."""
    rng = np.random.default_rng(seed)
    mag, zero_point = rng.uniform(10, 13, n), rng.normal(24, 0.1, m)
    true = np.tile(mag[:, None], (1, m))
    true[VARIABLE] += amplitude * np.sin(np.arange(m) / 3)
    flux = 10 ** (-0.4 * (true + rng.normal(0, scatter, (n, m)) - zero_point))
    error = np.sqrt(flux + 200.0**2)
    flux = flux + rng.normal(0, error)
    flux[rng.uniform(size=(n, m)) < missing] = np.nan
    flux[rng.uniform(size=(n, m)) < wrong] *= 1.5
    return flux, error, mag, zero_point


@pytest.mark.parametrize("scatter", [0.0, 0.003, 0.01])
def test_zero_points_are_right_to_their_errors(scatter):
    pulls, mean_pulls, found = [], [], []
    for seed in range(60):
        flux, error, mag, zero_point = _observed(seed, scatter=scatter)
        ours = solve(flux, error)
        pulls.append((ours.zero_point - (zero_point - zero_point.mean())) / ours.zero_point_err)
        steady = np.arange(len(mag)) != VARIABLE
        mean_pulls.append(((ours.mean_mag - mag + zero_point.mean()) / ours.mean_mag_err)[steady])
        found.append(np.median(ours.excess_mag))
    assert np.std(pulls) == pytest.approx(1.0, abs=0.06)
    assert np.abs(np.mean(pulls)) < 0.01
    assert np.std(mean_pulls) == pytest.approx(1.0, abs=0.06)
    assert np.mean(found) == pytest.approx(scatter, abs=5e-4)


def test_a_variable_is_left_out_and_single_mistakes_are_clipped():
    variable, steady, clipped = 0, 0, 0
    for seed in range(20):
        flux, error, _, _ = _observed(seed, scatter=0.003, wrong=0.0)
        flux[7, 5] = flux[7, 4] * 1.3
        ours = solve(flux, error)
        variable += not ours.used[VARIABLE]
        steady += np.sum(np.delete(ours.used, VARIABLE))
        clipped += np.isnan(flux[7, 4]) or bool(ours.clipped[7, 5])
        assert ours.rms_mag[VARIABLE] == pytest.approx(0.05 / np.sqrt(2), rel=0.25) or not ours.used[VARIABLE]
    assert variable >= 19
    assert steady / (20 * 39) > 0.995
    assert clipped == 20


def test_it_is_weighted_least_squares_with_the_weights_it_found():
    flux, error, _, _ = _observed(1, n=12, m=9, scatter=0.005)
    ours = solve(flux, error)
    sigma = np.hypot(2.5 / np.log(10) * error / flux, ours.excess_mag[:, None])
    star, epoch = np.nonzero(np.isfinite(flux) & ~ours.clipped & ours.used[:, None])
    design = np.zeros((len(star), 12 + 9))
    design[np.arange(len(star)), star] = 1.0
    design[np.arange(len(star)), 12 + epoch] = -1.0
    weighted = design / sigma[star, epoch][:, None]
    seen = np.flatnonzero(np.abs(design).sum(axis=0) > 0)
    constraint = np.where(seen >= 12, 1e6, 0.0)  # the zero points' mean is 0
    full = np.vstack([weighted[:, seen], constraint])
    target = np.append(-2.5 * np.log10(flux[star, epoch]) / sigma[star, epoch], 0.0)
    solution = np.linalg.lstsq(full, target, rcond=None)[0]
    errors = np.sqrt(np.diag(np.linalg.inv(full.T @ full)))
    assert ours.zero_point == pytest.approx(solution[-9:], abs=1e-8)
    assert ours.zero_point_err == pytest.approx(errors[-9:], rel=1e-4)
    assert ours.mean_mag[ours.used] == pytest.approx(solution[:-9], abs=1e-8)


def test_the_scatter_of_a_star_is_that_of_its_single_measurements():
    rms, mad = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mag = rng.uniform(10, 12, (8, 1)) + rng.normal(0, 0.1, 30) + rng.normal(0, 0.01, (8, 30))
        flux = 10 ** (-0.4 * mag)
        ours = solve(flux, 1e-4 * flux)  # photon noise far below the scatter
        rms.append(np.mean(ours.rms_mag**2))
        mad.append(np.mean(ours.mad_mag**2))
    assert np.sqrt(np.mean(rms)) == pytest.approx(0.01, rel=0.05)
    assert np.sqrt(np.mean(mad)) == pytest.approx(0.01, rel=0.1)


def test_no_star_takes_the_solution_over():
    rng = np.random.default_rng(5)
    flux = 10 ** (-0.4 * (rng.uniform(10, 12, (10, 1)) + rng.normal(0, 0.01, (10, 25))))
    ours = solve(flux, 1e-4 * flux)
    assert np.ptp(ours.excess_mag[ours.used]) < 0.012
    assert ours.zero_point_err == pytest.approx(0.01 / np.sqrt(10), rel=0.25)
    assert np.std(ours.zero_point) == pytest.approx(0.01 / np.sqrt(10), rel=0.4)


def test_epochs_without_stars_or_apart_from_the_others_have_no_zero_point():
    flux, error, _, zero_point = _observed(2, n=10, m=12, missing=0.0, wrong=0.0)
    flux[:, 4] = np.nan
    flux[:6, 9:11] = -1.0  # clouded: only stars 6 to 9 are there, which nothing else shows
    flux[6:, [0, 1, 2, 3, 5, 6, 7, 8, 11]] = np.nan
    ours = solve(flux, error)
    known = np.isfinite(ours.zero_point)
    assert np.flatnonzero(~known).tolist() == [4, 9, 10]
    assert np.mean(ours.zero_point[known]) == pytest.approx(0.0, abs=1e-9)
    assert np.std(ours.zero_point[known] - zero_point[known]) < 0.01
    assert not ours.used[6:].any()
    assert np.isnan(ours.mean_mag[6:]).all()


@pytest.mark.parametrize("flux", [np.full((3, 4), np.nan), np.ones((3, 1)), np.zeros((3, 4))])
def test_nothing_to_solve_for(flux):
    with pytest.raises(ValueError, match="no star was measured at two epochs"):
        solve(flux, np.ones(flux.shape))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="do not fit together"):
        solve(np.ones((3, 4)), np.ones((4, 3)))
