import numpy as np
import pytest

from seechange_core.numerics.star_locus import follow_locus, point_like, stellar_fwhm


def test_stars_are_found_among_galaxies_and_cosmic_rays():
    rng = np.random.default_rng(3)
    sizes = np.r_[rng.normal(3.5, 0.04, 40), rng.uniform(3.6, 10, 60), rng.uniform(0.5, 1.1, 50), np.nan]
    snr = rng.uniform(20, 500, sizes.size)
    fwhm, tolerance = stellar_fwhm(sizes, snr, 1.2)
    assert fwhm == pytest.approx(3.5, abs=0.06)
    assert 0.05 <= tolerance <= 0.12


def test_few_stars_are_found_among_many_galaxies_hardly_larger():
    rng = np.random.default_rng(4)
    star = np.arange(320) < 20
    sizes = np.where(star, rng.normal(4.0, 0.025, 320), 4.0 * np.exp(rng.gamma(4.0, 0.04, 320) + 0.05))
    snr = rng.uniform(50, 500, 320)
    fwhm, tolerance = stellar_fwhm(sizes, snr, 1.2)
    assert fwhm == pytest.approx(4.0, abs=0.04)
    chosen = np.abs(np.log(sizes / fwhm)) < tolerance
    assert chosen[star].mean() > 0.8
    assert np.count_nonzero(chosen[~star]) < 5
    # Without the gap a ripple of the galaxies' sizes is none of the stars'.
    sizes[star] = 4.0 * np.exp(rng.gamma(4.0, 0.04, 20) + 0.05)
    assert stellar_fwhm(sizes, snr, 1.2)[0] > 4.25


def test_stars_are_followed_into_corners_where_they_are_wider_and_galaxies_are_not():
    rng = np.random.default_rng(5)
    u, v = rng.uniform(-1, 1, (2, 400))
    true = 3.5 * (1 + 0.08 * (u**2 + v**2) + 0.02 * np.cos(3 * u - 2 * v))
    galaxy = np.arange(400) >= 280
    sizes = true * np.where(galaxy, rng.uniform(1.12, 2.5, 400), np.exp(rng.normal(0, 0.01, 400)))
    snr = rng.uniform(25, 500, 400)
    crowd = stellar_fwhm(sizes, snr, 1.2)
    assert np.any(np.abs(np.log(sizes[~galaxy] / crowd[0])) > crowd[1])
    local, tolerance = follow_locus(u, v, sizes, snr, crowd, np.ones(400, bool))
    assert np.abs(local / true - 1).max() < 0.03
    near = np.abs(np.log(sizes / local)) < tolerance
    assert near[~galaxy].mean() > 0.99
    assert not near[galaxy].mean() > 0.02


def test_few_stars_are_not_followed():
    rng = np.random.default_rng(6)
    u, v = rng.uniform(-1, 1, (2, 20))
    sizes, snr = 3.5 * (1 + 0.03 * u), np.full(20, 100.0)
    local, tolerance = follow_locus(u, v, sizes, snr, (3.5, 0.05), np.ones(20, bool))
    assert np.all(local == pytest.approx(3.5))
    assert tolerance == 0.05


def test_nothing_gives_nothing():
    fwhm, tolerance = stellar_fwhm(np.array([np.nan, 0.5]), np.ones(2), 1.2)
    assert np.isnan(fwhm)
    assert tolerance == 0


def test_point_like_allows_for_noise():
    found = point_like(
        np.array([3.5, 3.9, 3.9, 1.5, np.nan]), np.full(5, 3.5), np.array([500.0, 500, 10, 50, 50])
    )
    assert found.tolist() == [True, False, True, False, False]
