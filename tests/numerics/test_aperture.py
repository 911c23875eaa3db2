import numpy as np
import pytest
import sep

from seechange_core.numerics.aperture import adaptive_moments, overlap, sum_circles
from seechange_core.simulate.scene import make_psf_field, scene, simulate_image


def test_overlap_sums_to_the_circles_area():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y, r = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.05, 6)
        steps = range(-8, 9)
        assert sum(overlap(i - x, j - y, r) for i in steps for j in steps) == pytest.approx(
            np.pi * r**2, rel=1e-9
        )


def test_overlap_is_the_share_of_a_fine_grid():
    fine = (np.arange(1000) + 0.5) / 1000 - 0.5
    for dx, dy, r in (
        (3.3, -2.1, 3.9),
        (0.3, 4.8, 5.0),
        (-0.1, 0.2, 0.6),
        (0.2, -0.3, 0.3),
        (-17.4, 17.9, 25.0),
    ):
        inside = np.hypot(*np.meshgrid(dx + fine, dy + fine)) <= r
        assert overlap(dx, dy, r) == pytest.approx(inside.mean(), abs=2e-4)


def test_sums_and_errors_agree_with_sep():
    s = scene((300, 300), 60, seed=2, border_pix=25)
    data = s.data - np.float32(s.sky_e)
    radii = [2.0, 4.3, 8.0, 20.0]
    flux, error, usable = sum_circles(data, 1 / s.background_variance, s.x, s.y, radii)
    for k, radius in enumerate(radii):
        peer, peer_error, _ = sep.sum_circle(data, s.x, s.y, radius, var=s.background_variance, subpix=0)
        assert flux[:, k] == pytest.approx(peer, rel=1e-5, abs=0.05)
        assert error[:, k] == pytest.approx(peer_error, rel=1e-5)
    assert usable == pytest.approx(1)


def test_edges_and_nothing_usable():
    data, weight = np.ones((50, 50), np.float32), np.ones((50, 50), np.float32)
    weight[:, 30:] = 0
    x, y = np.array([0.0, 29.5, 45.0, -30.0, np.nan]), np.array([25.0, 25.0, 25.0, 25.0, 1.0])
    flux, error, usable = sum_circles(data, weight, x, y, [5.0])
    assert usable[1, 0] == pytest.approx(0.5)
    assert flux[1, 0] == pytest.approx(0.5 * np.pi * 25)
    assert usable[0, 0] == pytest.approx(0.5 + 5 / (np.pi * 25), abs=0.01)
    assert np.isnan(flux[2:, 0]).all()
    assert np.isnan(error[2:, 0]).all()


def test_moments_recover_size_and_angle():
    field = make_psf_field((200, 200), 5.0, ellipticity=0.1)
    s = simulate_image((200, 200), [60.3, 140.8], [60.9, 120.2], [1e6, 2e4], psf_field=field)
    found = adaptive_moments(s.data - np.float32(s.sky_e), 1 / s.background_variance, s.x, s.y, 3.5)
    assert found.fwhm_pix[1] == pytest.approx(found.fwhm_pix[0], rel=0.03)
    assert found.theta_rad == pytest.approx(np.deg2rad(30), abs=0.2)
    assert found.theta_rad[0] == pytest.approx(np.deg2rad(30), abs=0.02)
    assert found.elongation[0] == pytest.approx(1.1 / 0.9, abs=0.03)


def test_moments_of_faint_stars_converge():
    # S/N about 8: without damping every sixth of them swings between two sizes.
    x, y = (a.ravel().astype(float) for a in np.meshgrid(np.arange(30, 600, 40), np.arange(30, 600, 40)))
    s = simulate_image((600, 600), x, y, np.full(len(x), 1400.0), psf_field=make_psf_field((600, 600), 5.0))
    found = adaptive_moments(s.data - np.float32(s.sky_e), 1 / s.background_variance, x, y, 5.0)
    known = np.isfinite(found.fwhm_pix)
    assert known.mean() > 0.95
    assert np.median(found.fwhm_pix[known]) == pytest.approx(5.3, abs=0.4)


def test_moments_of_noise_are_nan_or_finite_but_never_raise():
    noise = np.random.default_rng(0).normal(0, 1, (100, 100)).astype(np.float32)
    x = np.linspace(-5, 105, 40)
    found = adaptive_moments(noise, np.ones_like(noise), x, x, 3.0)
    assert not np.isinf(found.fwhm_pix).any()
