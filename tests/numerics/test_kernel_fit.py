import numpy as np
import pytest
from scipy.signal import fftconvolve

from seechange_core.errors import NoStars
from seechange_core.numerics.inpaint import fill_unusable
from seechange_core.numerics.kernel_basis import kernel_basis
from seechange_core.numerics.kernel_fit import fit_kernel
from seechange_core.numerics.psf import constant
from seechange_core.numerics.registration import Side

SIDE = 400
U, V = np.meshgrid(*[(np.arange(SIDE) - (SIDE - 1) / 2) / (SIDE / 2)] * 2)


def gaussian(fwhm, half=15, dx=0.0, dy=0.0, stretch=1.0):
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    s2 = (fwhm / 2.3548) ** 2
    stamp = np.exp(-(((u - dx) / stretch) ** 2 + ((v - dy) * stretch) ** 2) / 2 / s2)
    return stamp / stamp.sum()


def trefoil(fwhm):
    """Three blobs, as no model PSF has them."""
    places = [(1.6 * np.cos(a), 1.6 * np.sin(a)) for a in (0.3, 0.3 + 2.1, 0.3 + 4.3)]
    return sum(w * gaussian(fwhm, dx=x, dy=y) for w, (x, y) in zip((0.5, 0.3, 0.2), places, strict=True))


def field(rng, n=220):
    """Return point sources of which some are galaxies: clumps, that any PSF shows exactly."""
    image = np.zeros((SIDE, SIDE))
    x, y = rng.uniform(0, SIDE, (2, n))
    flux = 3e4 * (1 + rng.pareto(1.0, n)).clip(max=30)
    for a, b, f in zip(x, y, flux, strict=True):
        spread = 2.0 if rng.random() < 0.15 else 0.0
        for dx, dy in rng.normal(0, spread, (12, 2)):
            i, j = int(np.clip(a + dx, 0, SIDE - 1)), int(np.clip(b + dy, 0, SIDE - 1))
            image[j, i] += f / 12
    return image


def seen(truth, psf, rng, sky, gain=1.0):
    image = truth if psf is None else fftconvolve(truth, psf, mode="same")
    image = image + rng.normal(0, np.sqrt(sky + np.maximum(image, 0) / gain))
    return image.astype(np.float32)


def side(data, sky, fwhm, gain=1.0):
    return Side(data, np.full(data.shape, 1 / sky, np.float32), constant(gaussian(fwhm)), gain)


def test_unit_knots_hold_any_values_and_wide_ones_smooth_kernels():
    rng = np.random.default_rng(1)
    basis = kernel_basis(8.0, 1.0)
    wanted = np.zeros((2 * basis.half + 1,) * 2)
    middle = slice(basis.half - 1, basis.half + 2)
    wanted[middle, middle] = rng.normal(size=(3, 3))
    flat = basis.images().reshape(len(basis), -1).T
    found = flat @ np.linalg.lstsq(flat, wanted.ravel(), rcond=None)[0]
    assert np.abs(found.reshape(wanted.shape) - wanted)[middle, middle].max() < 0.05
    wide = kernel_basis(12.0, 1.25)
    flat = wide.images().reshape(len(wide), -1).T
    smooth = gaussian(3.2, half=wide.half).ravel()
    left = flat @ np.linalg.lstsq(flat, smooth, rcond=None)[0] - smooth
    assert np.abs(left).max() < 6e-3 * smooth.max()
    assert wide.line.sum(axis=0)[wide.half - 4 : wide.half + 5] == pytest.approx(1)


@pytest.mark.parametrize("convolves_new", [False, True])
def test_finds_a_varying_kernel_its_flux_ratio_and_background(convolves_new):
    rng = np.random.default_rng(2)
    truth = field(rng)
    sharp = fftconvolve(truth, gaussian(3.2), mode="same")
    narrow, wide = gaussian(2.8, dx=0.3), gaussian(3.6, dx=-0.2, stretch=1.1)
    share, ratio, level = 0.5 + 0.4 * U, 1.05 + 0.03 * U - 0.02 * V * V, 4.0 + 3 * U * V
    first, second = (fftconvolve(sharp, k, mode="same") for k in (narrow, wide))
    dull = ratio * ((1 - share) * first + share * second)
    source = side(seen(sharp, None, rng, 100.0), 100.0, 3.2)
    target = side(seen(dull, None, rng, 100.0) + level.astype(np.float32), 100.0, 4.6)
    fitted = fit_kernel(source, target, 2) if convolves_new else fit_kernel(target, source, 2)
    assert fitted.convolves_new == convolves_new
    assert fitted.degree == 2
    assert fitted.n_stars > 100
    rows, columns = np.array([100, 199, 300]), np.array([60, 199, 340])
    kernels = fitted.at(columns.astype(float), rows.astype(float))
    assert kernels.sum((1, 2)) == pytest.approx(ratio[rows, columns], rel=2e-3)
    inner = slice(kernels.shape[1] // 2 - 4, kernels.shape[1] // 2 + 5)
    for kernel, j, i in zip(kernels, rows, columns, strict=True):
        known = ratio[j, i] * ((1 - share[j, i]) * narrow + share[j, i] * wide)[11:20, 11:20]
        # What no star shows is free, so kernels are compared as the sharper image's PSF sees them.
        blurred = [fftconvolve(k, gaussian(3.2), mode="same") for k in (kernel[inner, inner], known)]
        assert np.abs(blurred[0] - blurred[1]).max() < 0.02 * blurred[1].max()
    assert fitted.background_map((SIDE, SIDE))[rows, columns] == pytest.approx(level[rows, columns], abs=1.5)


def test_fits_psfs_that_no_model_follows():
    """The models passed in are round Gaussians; the images are not."""
    rng = np.random.default_rng(3)
    truth = field(rng)
    new, ref = trefoil(4.0), gaussian(3.0, stretch=1.15)
    target, source = seen(truth, new, rng, 900.0), seen(truth, ref, rng, 100.0, gain=5.0)
    fitted = fit_kernel(side(target, 900.0, 5.0), side(source, 100.0, 3.0, gain=5.0), 1)
    kernel = fitted.at(np.array([200.0]), np.array([200.0]))[0]
    left = target - fftconvolve(source, kernel, mode="same")
    light = fftconvolve(truth, new, mode="same")
    variance = 900 + light + fftconvolve(100 + np.maximum(source, 0) / 5, kernel**2, mode="same")
    inner = slice(30, -30)
    bright = light[inner, inner] > 300
    assert bright.sum() > 3000
    assert np.std((left / np.sqrt(variance))[inner, inner][bright]) == pytest.approx(1, abs=0.05)


def test_variable_stars_are_left_out():
    rng = np.random.default_rng(4)
    truth = field(rng)
    changed = truth.copy()
    for _ in range(12):
        j, i = rng.integers(40, SIDE - 40, 2)
        changed[j, i] += 4e5
        truth[j, i] += 3e5
    target, source = seen(changed, gaussian(4.5), rng, 400.0), seen(truth, gaussian(3.5), rng, 100.0)
    fitted = fit_kernel(side(target, 400.0, 4.5), side(source, 100.0, 3.5), 2)
    assert fitted.n_clipped >= 8
    assert fitted.at(np.array([200.0]), np.array([200.0]))[0].sum() == pytest.approx(1, abs=2e-3)


def test_bad_pixels_do_no_harm_and_too_few_stars_are_a_stop():
    rng = np.random.default_rng(5)
    truth = field(rng)
    target, source = seen(truth, gaussian(4.5), rng, 400.0), seen(truth, gaussian(3.5), rng, 100.0)
    a, b = side(target, 400.0, 4.5), side(source, 100.0, 3.5)
    for plane in (a, b):
        holes = rng.random(target.shape) < 0.001
        plane.data[:] = fill_unusable(plane.data, ~holes)
        plane.weight[holes] = 0
    kernel = fit_kernel(a, b, 2).at(np.array([200.0]), np.array([200.0]))[0]
    assert kernel.sum() == pytest.approx(1, abs=5e-3)
    empty = side(seen(np.zeros((SIDE, SIDE)), None, rng, 400.0), 400.0, 4.5)
    with pytest.raises(NoStars, match=r"0 sources above S/N 30 .* 8 needed .*zogy"):
        fit_kernel(empty, b, 2)
    a.weight[:] = 0
    with pytest.raises(NoStars):
        fit_kernel(a, b, 2)
