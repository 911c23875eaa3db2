"""Errors of sources that overlap: against the scatter of joint fits, and against the whole normal matrix."""

import numpy as np
import pytest

from seechange_core.numerics.overlaps import error_growth
from seechange_core.numerics.psf import constant, draw
from seechange_core.numerics.scene import fit_scene

SIGMA, RMS = 1.7, 10.0
Y, X = np.mgrid[-15:16, -15:16]
PSF = constant(np.exp(-(X**2 + Y**2) / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2))
SHIFT_PIX = 1.6


def width(values):
    return 1.4826 * np.median(np.abs(values - np.median(values)))


@pytest.mark.parametrize("apart_fwhm", [0.8, 1.0, 1.3])
def test_pairs_scatter_by_their_errors(apart_fwhm):
    """400 pairs at random angles, fitted to the end: without the factor the pulls are 1.8, 1.2 and 1.05."""
    rng = np.random.default_rng(1)
    angle, flux = rng.uniform(0, 2 * np.pi, 400), np.repeat([4000.0, 3000.0], 400)
    grid_x, grid_y = (g.ravel() + rng.uniform(30, 31, 400) for g in np.meshgrid(*2 * [np.arange(20.0) * 40]))
    apart = apart_fwhm * PSF.fwhm_pix
    x = np.r_[grid_x, grid_x + apart * np.cos(angle)]
    y = np.r_[grid_y, grid_y + apart * np.sin(angle)]
    data = draw(PSF, x, y, flux, (850, 850)) + rng.normal(0, RMS, (850, 850)).astype(np.float32)
    weight = np.full(data.shape, RMS**-2, np.float32)
    fits = fit_scene(
        data, weight, PSF, x, y, flux, radius_pix=6.0, gain=np.inf, passes=30, max_shift_pix=SHIFT_PIX
    ).fits
    growth = error_growth(PSF, fits.x, fits.y, fits.x_err, fits.y_err, SHIFT_PIX)
    assert width((fits.flux - flux) / (fits.flux_err * growth[:, 0])) == pytest.approx(1, abs=0.12)
    assert width((fits.x - x) / (fits.x_err * growth[:, 1])) == pytest.approx(1, abs=0.1)
    assert width((fits.y - y) / (fits.y_err * growth[:, 2])) == pytest.approx(1, abs=0.1)


def test_a_crowd_agrees_with_the_whole_normal_matrix():
    rng = np.random.default_rng(2)
    x, y = rng.uniform(12, 48, (2, 25))
    far = np.hypot(x[:, None] - x, y[:, None] - y) + 99 * np.eye(25)
    keep = far.min(axis=1) > 2.5
    x, y = x[keep], y[keep]
    step = 1e-3
    shifted = [(0, 0), (step, 0), (-step, 0), (0, step), (0, -step)]
    stamps = [[draw(PSF, x[k : k + 1] + i, y[k : k + 1] + j, np.ones(1), (60, 60)).ravel().astype(float)
               for i, j in shifted] for k in range(len(x))]  # fmt: skip
    columns = [(s[0], (s[1] - s[2]) / (2 * step), (s[3] - s[4]) / (2 * step)) for s in stamps]
    design = np.array([c for three in columns for c in three])
    normal = design @ design.T
    whole = np.sqrt(np.diag(np.linalg.inv(normal)) * np.diag(normal)).reshape(-1, 3)
    growth = error_growth(PSF, x, y, np.full(len(x), 1e-9), np.full(len(x), 1e-9), SHIFT_PIX)
    assert whole.max() > 1.2
    np.testing.assert_allclose(growth, whole, rtol=0.06)


def test_alone_or_nowhere_nothing_is_lost():
    x = np.array([50.0, 100.0, np.nan, 50.0])
    y = np.array([50.0, 50.0, 50.0, 100.0])
    error = np.full(4, 0.01)
    assert np.array_equal(error_growth(PSF, x, y, error, error, SHIFT_PIX), np.ones((4, 3)))
    assert error_growth(PSF, x[:1], y[:1], error[:1], error[:1], SHIFT_PIX).shape == (1, 3)


def test_a_neighbour_that_cannot_move_takes_less():
    """One too faint to have a position of its own moved by the limit at most."""
    x, y, sharp = np.array([50.0, 53.0]), np.array([50.0, 50.0]), np.full(2, 0.01)
    free = error_growth(PSF, x, y, sharp, sharp, SHIFT_PIX)[0]
    held = error_growth(PSF, x, y, np.array([0.01, 30.0]), np.array([0.01, 30.0]), SHIFT_PIX)[0]
    assert np.all(held[:2] < free[:2])
    assert held[0] > 1.01


@pytest.mark.parametrize("apart_pix", [0.0, 1e-5, 0.1])
def test_sources_at_one_place_are_known_badly_and_not_perfectly(apart_pix):
    error = np.full(2, 0.01)
    growth = error_growth(PSF, np.array([50.0, 50.0 + apart_pix]), np.full(2, 50.0), error, error, SHIFT_PIX)
    assert np.all(growth > 5)
    assert np.all(growth < 110)
