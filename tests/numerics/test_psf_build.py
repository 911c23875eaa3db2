import numpy as np
import pytest

from seechange_core.numerics.psf import evaluate
from seechange_core.numerics.psf_build import build, choose_degree, cut_stars, good_stars, measure_floor
from seechange_core.numerics.psf_degree import STARS_PER_TERM, held_degree, needed_degree
from seechange_core.numerics.psf_fit import fit
from seechange_core.simulate.scene import scene


def stars(seed=0, n=120, fwhm=4.0, size=41, **options):
    s = scene((900, 900), n, seed=seed, fwhm_pix=fwhm, flux_range=(1e4, 5e5),
              min_separation_pix=60, border_pix=30, **options)  # fmt: skip
    weight = 1 / s.background_variance
    inside = np.array([s.psf(x, y, size).sum() for x, y in zip(s.x, s.y, strict=True)])
    return s, cut_stars(s.data - np.float32(s.sky_e), weight, s.x, s.y, s.flux_e * inside, size, 1.0)


@pytest.mark.parametrize(("fwhm", "worst"), [(4.0, 0.006), (2.2, 0.02)])
def test_profile_and_normalisation(fwhm, worst):
    s, cut = stars(fwhm=fwhm)
    psf = build(cut, 0, s.shape, fwhm)
    truth = s.psf(449.5, 449.5, 41, unit_sum=True)
    assert psf.coefficients[0].sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(psf.coefficients[0] - truth).max() < worst * truth.max()
    assert psf.n_stars == len(s.x)


def test_variation_is_followed():
    s, cut = stars(psf_variation=0.08)
    constant, varying = (build(cut, degree, s.shape, 4.0) for degree in (0, 2))
    x, y = np.array([60.0, 840.0, 450.0]), np.array([60.0, 840.0, 450.0])
    truth = np.array([s.psf(a, b, 41, unit_sum=True) for a, b in zip(x, y, strict=True)])
    off = [np.abs(evaluate(psf, x, y) - truth).max(axis=(1, 2)) / truth.max() for psf in (constant, varying)]
    # A quarter of the variation is no polynomial.
    assert off[1].max() < 0.035
    assert off[1].max() < 0.4 * off[0].max()
    assert varying.coefficients[1:].sum(axis=(1, 2)) == pytest.approx(0, abs=1e-5)


def test_outliers_are_named():
    s, cut = stars(n=40)
    psf = build(cut, 0, s.shape, 4.0)
    cut.data[3] += 0.2 * np.roll(cut.data[3], 4, axis=0)
    cut.variance[5, 10:] = np.inf
    good = good_stars(cut, psf, 8.0, 3.0)
    assert not good[3]
    assert not good[5]
    assert good.sum() >= len(good) - 4


@pytest.mark.parametrize("faint", [1, 2, 5])
def test_faint_stars_take_nothing_from_a_bright_one(faint):
    """A PSF of a bright star and a few faint ones is as good as one of the bright star alone."""
    s, cut = stars()
    truth = s.psf(449.5, 449.5, 41, unit_sum=True)
    order = np.argsort(-cut.flux)
    alone, together = (
        np.linalg.norm(build(cut.select(rows), 0, s.shape, 4.0).coefficients[0] - truth)
        for rows in (order[:1], np.r_[order[0], order[-faint:]])
    )
    assert together < 1.15 * alone


def test_unusable_pixels_leave_the_profile_alone():
    s, cut = stars(n=60)
    holes = np.random.default_rng(0).random(cut.data.shape) < 0.1
    cut.data[holes] = 1e6
    cut.variance[holes] = np.inf
    psf = build(cut, 0, s.shape, 4.0)
    truth = s.psf(449.5, 449.5, 41, unit_sum=True)
    assert np.abs(psf.coefficients[0] - truth).max() < 0.01 * truth.max()


def test_degree_needs_stars():
    assert [choose_degree(n, 2) for n in (5, 23, 24, 47, 48, 500)] == [0, 0, 1, 1, 2, 2]
    assert choose_degree(500, 1) == 1


@pytest.mark.parametrize(("variation", "degree"), [(0.0, 0), (0.2, 4)])
def test_stars_tell_how_fast_the_psf_varies(variation, degree):
    s, cut = stars(psf_variation=variation)
    psf = build(cut, 0, s.shape, 4.0)
    assert needed_degree(cut, psf, 8.0, 4) == degree
    assert needed_degree(cut, psf, 8.0, 0) == 0
    assert needed_degree(cut.select(np.arange(10)), psf, 8.0, 4) == 0


def test_a_degree_costs_five_stars_per_term():
    few = [choose_degree(n, 4, STARS_PER_TERM) for n in (4, 5, 15, 29, 30, 74, 75)]
    assert few == [0, 0, 1, 1, 2, 3, 4]


def test_a_cluster_holds_no_polynomial_outside_it():
    rng = np.random.default_rng(1)
    weight = np.ones((800, 900), np.float32)
    x, y = rng.uniform(0, 900, 120), rng.uniform(0, 800, 120)
    assert held_degree(x, y, weight, 4) == 4
    assert held_degree(x / 3, y / 3, weight, 4) == 0
    assert held_degree(np.r_[x / 3, 880, 20, 880], np.r_[y / 3, 20, 780, 780], weight, 4) == 1
    # Where nothing can be measured nothing needs to be held.
    weight[:, 450:] = 0
    assert held_degree(x / 2, y, weight, 4) >= 3


def test_wings_follow_the_width():
    """Light beyond 3 FWHM, of which single terms see nothing but noise, grows with the width."""
    s, cut = stars(n=160, psf_variation=0.15)
    psf = build(cut, 2, s.shape, 4.0)
    far = np.hypot(*np.indices((41, 41)) - 20)
    ring = (far > 13) & (far < 19)
    corner, middle = (evaluate(psf, at, at)[0][ring].sum() for at in (880.0, 450.0))
    true_corner, true_middle = (s.psf(at, at, 41, unit_sum=True)[ring].sum() for at in (880.0, 450.0))
    assert true_corner / true_middle > 1.15
    assert corner / middle == pytest.approx(true_corner / true_middle, rel=0.08)


def test_floor_tells_how_far_fluxes_are_off():
    s, cut = stars(psf_variation=0.15)
    psf = build(cut, 0, s.shape, 4.0)
    fits = fit(s.data - np.float32(s.sky_e), 1 / s.background_variance, psf, s.x, s.y, 0 * s.x, radius_pix=8)
    bright = cut.flux > 1e5
    ratio = (fits.flux / cut.flux)[bright]
    scatter = 1.4826 * np.median(np.abs(ratio - np.median(ratio)))
    excess = np.sqrt(scatter**2 - np.median((fits.flux_err / fits.flux)[bright]) ** 2)
    assert measure_floor(cut, psf, 8.0) == pytest.approx(excess, rel=0.5)
    s, cut = stars(psf_variation=0.0)
    assert measure_floor(cut, build(cut, 0, s.shape, 4.0), 8.0) < 0.0015
