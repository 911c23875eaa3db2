import numpy as np
import pytest

from seechange_core.numerics.psf import constant, draw
from seechange_core.numerics.psf_fit import fit
from seechange_core.numerics.scene import without_position_bias

SKY = 400.0
SIZE = 1200


def moffat(size=41, fwhm=4.0, beta=3.0, fine=5):
    """A Moffat profile integrated over pixels by oversampling."""
    steps = (np.arange(size * fine) - (size * fine - 1) / 2) / fine
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    profile = (1 + (steps[:, None] ** 2 + steps**2) / alpha**2) ** -beta
    return profile.reshape(size, fine, size, fine).mean((1, 3))


@pytest.fixture(scope="module")
def psf():
    return constant(moffat())


@pytest.fixture(scope="module")
def places():
    rng = np.random.default_rng(5)
    grid = np.arange(22, SIZE - 22, 44)
    x, y = (a.ravel() + rng.uniform(-0.5, 0.5, grid.size**2) for a in np.meshgrid(grid, grid))
    return x, y


def flux_of(snr, psf):
    area = 1 / np.sum(np.square(psf.coefficients[0], dtype=float))
    return (snr**2 + np.sqrt(snr**4 + 4 * snr**2 * SKY * area)) / 2


def observe(psf, x, y, flux, seed):
    light = draw(psf, x, y, np.broadcast_to(flux, x.shape), (SIZE, SIZE))
    return (np.random.default_rng(seed).poisson(light + SKY) - SKY).astype(np.float32)


@pytest.fixture(scope="module")
def weight():
    return np.full((SIZE, SIZE), 1 / SKY, np.float32)


@pytest.mark.parametrize("snr", [0, 3, 10, 100, 1000])
@pytest.mark.parametrize("background", [False, True])
def test_forced_fluxes_are_unbiased_with_right_errors(psf, places, weight, snr, background):
    x, y = places
    flux = flux_of(snr, psf)
    fits = fit(
        observe(psf, x, y, flux, snr), weight, psf, x, y, 0 * x, radius_pix=8, fit_background=background
    )
    pulls = (fits.flux - flux) / fits.flux_err
    n = len(x)
    assert abs(pulls.mean()) < 4 / np.sqrt(n)
    assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(2 * n))
    assert fits.chi2.mean() == pytest.approx(1, abs=0.02)
    assert np.all(fits.usable_fraction == 1)


@pytest.mark.parametrize("snr", [5, 10, 50, 500])
def test_free_positions_and_fluxes_have_right_errors(psf, places, weight, snr):
    x, y = places
    flux = flux_of(snr, psf)
    rng = np.random.default_rng(snr)
    image = observe(psf, x, y, flux, 10 + snr)
    start = x + rng.normal(0, 0.3, len(x)), y + rng.normal(0, 0.3, len(x))
    fits = fit(image, weight, psf, *start, 0 * x, radius_pix=8, free_position=True)
    pulls = (without_position_bias(fits.flux, fits.flux_err) - flux) / fits.flux_err
    assert abs(np.median(pulls)) < 0.13
    assert pulls.std() == pytest.approx(1, abs=0.1)
    for found, true, error in ((fits.x, x, fits.x_err), (fits.y, y, fits.y_err)):
        pulls = (found - true) / error
        assert abs(np.median(pulls)) < 0.15
        assert 1.4826 * np.median(np.abs(pulls)) == pytest.approx(1, abs=0.12)


def test_masked_pixels_cost_precision_not_truth(psf, places, weight):
    x, y = places
    flux = flux_of(50, psf)
    image = observe(psf, x, y, flux, 1)
    holes = np.random.default_rng(2).random(image.shape) < 0.3
    image[holes] = np.nan
    fits = fit(image, np.where(holes, 0, weight), psf, x, y, 0 * x, radius_pix=8)
    pulls = (fits.flux - flux) / fits.flux_err
    assert abs(pulls.mean()) < 4 / np.sqrt(len(x))
    assert pulls.std() == pytest.approx(1, abs=0.1)
    assert fits.usable_fraction.mean() == pytest.approx(0.7, abs=0.02)


def test_nothing_usable_is_nan(psf, weight):
    image = np.zeros((SIZE, SIZE), np.float32)
    holes = weight.copy()
    holes[80:121, 80:121] = 0
    x, y = np.array([100.0, -50.0, np.nan, 600.0]), np.array([100.0, 5.0, 5.0, 1e9])
    fits = fit(image, holes, psf, x, y, 0 * x, radius_pix=8, free_position=True)
    assert np.isnan(fits.flux).all()
    assert np.isnan(fits.flux_err).all()
    assert np.all(fits.usable_fraction == 0)
    assert fits.x[0] == 100.0


def test_no_source_noise_with_infinite_gain(psf, places, weight):
    x, y = places
    image = observe(psf, x, y, 1e5, 3)
    error = fit(image, weight, psf, x, y, 0 * x, radius_pix=8, gain=np.inf).flux_err
    core = np.hypot(*np.indices((41, 41)) - 20) <= 8
    expected = np.sqrt(SKY / np.sum(psf.coefficients[0][core].astype(float) ** 2))
    assert error.mean() == pytest.approx(expected, rel=0.01)


def test_a_start_nearly_two_pixels_off_costs_nothing(psf):
    image = draw(psf, np.array([60.2]), np.array([60.4]), np.array([1e5]), (121, 121))
    weights = np.full(image.shape, 1 / SKY, np.float32)
    start = np.array([58.3]), np.array([62.3])
    fits = fit(
        image, weights, psf, *start, np.zeros(1), radius_pix=8, gain=np.inf, free_position=True,
        max_shift_pix=2.0,
    )  # fmt: skip
    assert fits.x[0] == pytest.approx(60.2, abs=1e-3)
    assert fits.y[0] == pytest.approx(60.4, abs=1e-3)
    assert fits.flux[0] == pytest.approx(1e5, rel=1e-4)
