import numpy as np
import pytest

from seechange_core.numerics.star_locus import point_like, stellar_fwhm


def test_stars_are_found_among_galaxies_and_cosmic_rays():
    rng = np.random.default_rng(3)
    sizes = np.r_[rng.normal(3.5, 0.04, 40), rng.uniform(3.6, 10, 60), rng.uniform(0.5, 1.1, 50), np.nan]
    snr = rng.uniform(20, 500, sizes.size)
    fwhm, tolerance = stellar_fwhm(sizes, snr, 1.2)
    assert fwhm == pytest.approx(3.5, abs=0.06)
    assert 0.05 <= tolerance <= 0.12


def test_nothing_gives_nothing():
    fwhm, tolerance = stellar_fwhm(np.array([np.nan, 0.5]), np.ones(2), 1.2)
    assert np.isnan(fwhm)
    assert tolerance == 0


def test_point_like_allows_for_noise():
    found = point_like(
        np.array([3.5, 3.9, 3.9, 1.5, np.nan]), np.full(5, 3.5), np.array([500.0, 500, 10, 50, 50])
    )
    assert found.tolist() == [True, False, True, False, False]
