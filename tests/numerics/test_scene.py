import numpy as np
import pytest

from seechange_core.numerics.psf import constant, draw
from seechange_core.numerics.scene import apertures, fit_scene, without_position_bias
from seechange_core.numerics.scene_shapes import psf_moments, shapes
from seechange_core.simulate.scene import make_psf_field

SKY = 400.0
SIZE = 900


@pytest.fixture(scope="module")
def psf():
    return constant(make_psf_field((41, 41), 4.0).stamp(20.0, 20.0, 41))


@pytest.fixture(scope="module")
def pairs(psf):
    """Pairs six pixels apart, five to one, and their fit."""
    rng = np.random.default_rng(7)
    grid = np.arange(30, SIZE - 30, 60)
    x1, y1 = (a.ravel() + rng.uniform(-0.5, 0.5, grid.size**2) for a in np.meshgrid(grid, grid))
    angle = rng.uniform(0, 2 * np.pi, x1.size)
    x, y = np.r_[x1, x1 + 6 * np.cos(angle)], np.r_[y1, y1 + 6 * np.sin(angle)]
    flux = np.r_[np.full(x1.size, 5e4), np.full(x1.size, 1e4)]
    image = (rng.poisson(draw(psf, x, y, flux, (SIZE, SIZE)) + SKY) - SKY).astype(np.float32)
    weight = np.full(image.shape, 1 / SKY, np.float32)
    found = fit_scene(image, weight, psf, x, y, 0.8 * flux, radius_pix=8, gain=1, passes=8, max_shift_pix=2)
    return flux, weight, found


def test_neighbours_are_separated(pairs):
    flux, _, found = pairs
    ratio = found.fits.flux / flux
    n = len(flux) // 2
    assert np.median(ratio[:n]) == pytest.approx(1, abs=0.002)
    assert np.median(ratio[n:]) == pytest.approx(1, abs=0.01)
    assert abs(np.median(found.residual)) < 0.5
    assert found.fits.chi2.mean() == pytest.approx(1, abs=0.03)


def test_apertures_hold_one_source_only(pairs, psf):
    flux, weight, found = pairs
    sums, errors = apertures(found, weight, psf, np.array([4.0, 8.0, 20.0]), 1.0)
    pulls = (sums[:, 2] - flux) / errors[:, 2]
    assert abs(np.median(pulls)) < 0.3
    assert np.all(np.diff(np.median(sums / flux[:, None], axis=0)) > 0)


def test_unusable_pixels_in_an_aperture_are_filled_by_the_model(psf):
    image = draw(psf, np.array([50.2]), np.array([50.4]), np.array([1e5]), (101, 101))
    weight = np.full(image.shape, 1 / SKY, np.float32)
    weight[52:54] = 0
    found = fit_scene(image, weight, psf, *np.array([[50.0], [50.0], [9e4]]), radius_pix=8, gain=1, passes=3,
                      max_shift_pix=2)  # fmt: skip
    sums, _ = apertures(found, weight, psf, np.array([20.0]), 1.0)
    assert sums[0, 0] == pytest.approx(1e5, rel=2e-3)


def test_moments_of_the_psf_do_not_depend_on_its_phase(psf):
    x = np.linspace(10, 11, 9)
    seen, centre = psf_moments(psf, x, x)
    assert seen.fwhm_pix == pytest.approx(seen.fwhm_pix[0], rel=2e-3)
    assert centre.max() == centre[0]


@pytest.mark.parametrize("blur_pix", [0.0, 0.8])
def test_a_neighbour_does_not_change_the_shape(psf, pairs, blur_pix):
    """Six pixels from one five times as bright: alone it has the PSF's shape, with it half as much again."""
    flux, weight, found = pairs
    left = found.residual.copy()
    seen = shapes(found, weight, psf, blur_pix)
    model, _ = psf_moments(psf, found.fits.x, found.fits.y, blur_pix)
    for bright in (flux > 2e4, flux < 2e4):
        ratio = seen.fwhm_pix[bright] / model.fwhm_pix[bright]
        assert np.median(ratio) == pytest.approx(1, abs=0.01)
        assert np.median(seen.elongation[bright]) < 1.1
    assert np.array_equal(found.residual, left)


def test_bias_is_a_small_correction():
    assert without_position_bias(np.array([10.0, 1.0, -5.0]), np.ones(3)).tolist() == [9.9, 0.5, -5.0]


def test_stars_one_fwhm_apart_are_separated(psf):
    x, y = np.array([60.0, 64.0, 140.3]), np.array([60.3, 60.1, 60.0])
    flux = np.array([1e5, 6e4, 2e4])
    image = draw(psf, x, y, flux, (121, 201))
    weight = np.full(image.shape, 1 / SKY, np.float32)
    found = fit_scene(
        image, weight, psf, x + 0.3, y - 0.3, 0.7 * flux, radius_pix=8, gain=1, passes=12, max_shift_pix=1.6
    )
    assert np.abs(found.fits.flux - flux).max() < 0.15 * found.fits.flux_err.min()
    # The model and what is left of the image were kept up to date source by source.
    assert found.model + found.residual == pytest.approx(image, abs=0.05)
    drawn = draw(psf, found.fits.x, found.fits.y, found.fits.flux, image.shape)
    assert found.model == pytest.approx(drawn, abs=0.05)
