import numpy as np
import pytest

from seechange_core.numerics.gaussian_fit import fit_gaussians
from seechange_core.numerics.peaks import local_maxima, merge_close, refine


def test_finds_each_peak_once_even_on_plateaus_and_orders_them():
    image = np.zeros((30, 40), np.float32)
    image[5, 6], image[10, 20:22], image[20, 33], image[0, 0] = 8, 9, 7, 50
    peaks = local_maxima(image, 5)
    assert list(zip(peaks.y, peaks.x, peaks.value, strict=True)) == [(10, 20, 9), (5, 6, 8), (20, 33, 7)]
    assert len(local_maxima(image, 5, border=8).y) == 1


def test_merging_keeps_the_first_of_neighbours():
    keep = merge_close(np.array([0.0, 1.0, 5.0]), np.array([0.0, 1.0, 5.0]), 2.0)
    assert keep.tolist() == [True, False, True]


def test_refined_positions_and_curvatures():
    y, x = np.mgrid[:41, :41]
    image = (100 * np.exp(-((x - 20.3) ** 2 + (y - 19.8) ** 2) / 2 / 3.0**2)).astype(np.float32)
    fine = refine(image, local_maxima(image, 10))
    assert (fine.x[0], fine.y[0]) == pytest.approx((20.3, 19.8), abs=0.02)
    assert fine.curvature_xx[0] == pytest.approx(100 / 9, rel=0.1)


def test_gaussians_get_their_widths_and_angles():
    rng = np.random.default_rng(1)
    n, size = 40, 31
    y, x = np.mgrid[:size, :size]
    cx, cy = rng.uniform(13, 17, (2, n))
    major, minor, angle = rng.uniform(2.2, 3.0, n), rng.uniform(1.5, 2.0, n), rng.uniform(-1.4, 1.4, n)
    dx, dy = x - cx[:, None, None], y - cy[:, None, None]
    c, s = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    along, across = c * dx + s * dy, -s * dx + c * dy
    data = 200 * np.exp(-0.5 * ((along / major[:, None, None]) ** 2 + (across / minor[:, None, None]) ** 2))
    noisy = data + rng.normal(0, 1, data.shape)
    fit = fit_gaussians(noisy, np.ones(data.shape), np.rint(cx), np.rint(cy), 4.5, 8.0)
    assert fit.good.all()
    assert np.abs(fit.x - cx).max() < 0.05
    assert np.abs(fit.fwhm_pix / (2.3548 * np.sqrt(major * minor)) - 1).max() < 0.02
    assert np.abs(fit.elongation / (major / minor) - 1).max() < 0.03
    turn = (fit.theta_rad - angle + np.pi / 2) % np.pi - np.pi / 2
    clear = major / minor > 1.3
    assert np.abs(turn[clear]).max() < 0.08


def test_noise_and_holes_do_not_break_the_fit():
    data = np.random.default_rng(2).normal(0, 1, (50, 21, 21))
    data[0] = np.nan
    weight = np.ones(data.shape)
    weight[1] = 0
    fit = fit_gaussians(data, weight, np.full(50, 10.0), np.full(50, 10.0), 4.0, 7.0)
    assert not fit.good[0]
    assert not fit.good[1]
    assert np.all(np.isnan(fit.fwhm_pix[~fit.good]))
    assert np.all(np.isfinite(fit.fwhm_pix[fit.good]))
