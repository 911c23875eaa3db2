"""The robust linear fit: coefficients, errors, extra scatter and outliers against truth."""

import numpy as np
import pytest

from seechange_core.numerics.fitting import fit_linear


def _line(rng, n=80, scatter=0.0, wrong=0.0):
    x = rng.uniform(-1, 1, n)
    errors = rng.uniform(0.5, 2.0, n)
    y = 3.0 + 2.0 * x + rng.normal(0, np.hypot(errors, scatter))
    y += np.where(rng.uniform(size=n) < wrong, rng.uniform(20, 100, n), 0.0)
    return np.column_stack([np.ones(n), x]), y, errors


def test_without_surprises_it_is_weighted_least_squares():
    design, y, errors = _line(np.random.default_rng(0))
    fit = fit_linear(design, y, errors, clip_sigma=10.0)
    total = np.hypot(errors, fit.scatter)
    expected = np.linalg.lstsq(design / total[:, None], y / total, rcond=None)[0]
    assert fit.coefficients[:, 0] == pytest.approx(expected, rel=1e-10)
    assert fit.covariance == pytest.approx(np.linalg.inv((design / total[:, None] ** 2).T @ design), rel=1e-8)
    assert np.sum(fit.leverage) == pytest.approx(2.0)
    assert fit.used.all()


@pytest.mark.parametrize(("scatter", "wrong"), [(0.0, 0.0), (2.0, 0.0), (2.0, 0.2), (0.5, 0.3)])
def test_errors_are_honest_with_scatter_and_outliers(scatter, wrong):
    pulls, scatters = [], []
    for seed in range(200):
        fit = fit_linear(*_line(np.random.default_rng(seed), scatter=scatter, wrong=wrong))
        pulls.append((fit.coefficients[:, 0] - [3.0, 2.0]) / np.sqrt(np.diag(fit.covariance)))
        scatters.append(fit.scatter)
    # A scatter cannot come out negative: where there is none, errors are some per cent too large.
    width = np.std(pulls, axis=0)
    assert np.all((width > 0.82) & (width < 1.17))
    assert np.mean(pulls, axis=0) == pytest.approx([0.0, 0.0], abs=0.3)
    assert np.median(scatters) == pytest.approx(scatter, abs=0.35)


def test_axes_are_clipped_together():
    rng = np.random.default_rng(3)
    design, y, errors = _line(rng)
    both = np.column_stack([y, rng.normal(0, errors)])
    both[7, 1] += 60.0
    fit = fit_linear(design, both, errors)
    assert fit.coefficients.shape == (2, 2)
    assert not fit.used[7]
    assert np.count_nonzero(fit.used) >= 77


def test_powers_of_pixels_stay_well_conditioned():
    x = np.linspace(0, 4000, 60)
    design = np.column_stack([np.ones(60), x, x**2, x**3])
    y = 1e-9 * x**3 - 2e-6 * x**2 + 5.0
    fit = fit_linear(design, y, np.full(60, 1e-3))
    assert fit.coefficients[:, 0] == pytest.approx([5.0, 0.0, -2e-6, 1e-9], abs=1e-6)
    assert fit.coefficients[3, 0] == pytest.approx(1e-9, rel=1e-6)


def test_too_few_data_are_refused():
    with pytest.raises(ValueError, match="2 data cannot fit 2 terms"):
        fit_linear(np.eye(2), [1.0, 2.0], [1.0, 1.0])


def test_a_prior_is_one_more_datum():
    """Against the closed form of ridge regression, and its covariance."""
    design, y, errors = _line(np.random.default_rng(2))
    fit = fit_linear(design, y, errors, clip_sigma=10.0, prior_errors=[np.inf, 0.1])
    weighted = design / fit.errors[:, None]
    normal = weighted.T @ weighted + np.diag([0.0, 1 / 0.1**2])
    assert fit.coefficients[:, 0] == pytest.approx(np.linalg.solve(normal, weighted.T @ (y / fit.errors)))
    assert fit.covariance == pytest.approx(np.linalg.inv(normal))
    assert abs(fit.coefficients[1, 0]) < 2.0
    free = fit_linear(design, y, errors, clip_sigma=10.0)
    loose = fit_linear(design, y, errors, clip_sigma=10.0, prior_errors=[np.inf, 1e6])
    assert loose.coefficients == pytest.approx(free.coefficients, rel=1e-6)


def test_terms_with_a_prior_may_outnumber_the_data_but_not_the_others():
    rng = np.random.default_rng(1)
    design, y = rng.normal(size=(6, 9)), rng.normal(size=6)
    prior = np.where(np.arange(9) < 3, np.inf, 0.5)
    assert np.isfinite(fit_linear(design, y, np.ones(6), prior_errors=prior).coefficients).all()
    with pytest.raises(ValueError, match="3 data cannot fit 3 terms"):
        fit_linear(design[:3], y[:3], np.ones(3), prior_errors=prior)


def test_a_degenerate_design_gives_the_smallest_answer():
    x = np.linspace(-1, 1, 30)
    fit = fit_linear(np.column_stack([np.ones(30), x, x]), 1.0 + 2.0 * x, np.ones(30))
    assert fit.coefficients[:, 0] == pytest.approx([1.0, 1.0, 1.0])
