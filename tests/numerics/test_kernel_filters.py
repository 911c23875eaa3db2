import numpy as np
import pytest

from seechange_core.numerics.kernel_filters import kernel_filters
from seechange_core.numerics.zogy import Noise, make_kernels, stamp_of, subtract_patch, transfer

SIDE = 192
FLAT = np.ones((SIDE, SIDE // 2 + 1), np.float32)


def gaussian(fwhm, half=15):
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    stamp = np.exp(-(u**2 + v**2) / 2 / (fwhm / 2.3548) ** 2)
    return (stamp / stamp.sum()).astype(np.float32)


def filters(convolves_new, var_new=900.0, var_ref=200.0, power=FLAT, ratio=1.0):
    """Widths 3 and 5, so that the exact kernel is 4 wide; the sharper image is the one convolved."""
    new, ref = (3.0, 5.0) if convolves_new else (5.0, 3.0)
    noise = Noise(var_new, var_ref, power)
    psfs = transfer(gaussian(new), SIDE), transfer(gaussian(ref), SIDE)
    made = kernel_filters(np.float32(ratio) * gaussian(4.0), *psfs, noise, SIDE, convolves_new)
    return made, noise, psfs, (gaussian(new), gaussian(ref))


def put(image, stamp, y, x, flux):
    half = stamp.shape[0] // 2
    image[y - half : y + half + 1, x - half : x + half + 1] += flux * stamp


@pytest.mark.parametrize("convolves_new", [False, True])
def test_with_the_exact_kernel_it_is_proper_subtraction(convolves_new):
    rng = np.random.default_rng(1)
    k, noise, psfs, stamps = filters(convolves_new)
    z = make_kernels(*psfs, noise, SIDE)
    n, r = (
        rng.normal(0, 30, (SIDE, SIDE)).astype(np.float32),
        rng.normal(0, 14, (SIDE, SIDE)).astype(np.float32),
    )
    put(n, stamps[0], 96, 96, 3000.0)
    variances = np.full((2, SIDE, SIDE), [[[900.0]], [[200.0]]], np.float32)
    ours, theirs = (subtract_patch(n, r, *variances, f, noise, (0, 0)) for f in (k, z))
    assert k.flux_of_score == pytest.approx(z.flux_of_score, rel=1e-3)
    assert k.variance == pytest.approx(z.variance, rel=1e-4)
    assert np.std(ours.score - theirs.score) < 0.02
    # Where a PSF passes nothing, proper subtraction has the noise of one image and this of the other.
    assert np.std(ours.flux_variance / theirs.flux_variance - 1) < 2e-3


@pytest.mark.parametrize("convolves_new", [False, True])
def test_noise_is_white_and_score_has_unit_width(convolves_new):
    rng = np.random.default_rng(2)
    colour = (1 - 0.7 * np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))).astype(np.float32)
    k, noise, _, _ = filters(convolves_new, power=colour)
    variances = np.full((2, SIDE, SIDE), [[[900.0]], [[200.0]]], np.float32)
    patches = []
    for _ in range(6):
        n = rng.normal(0, 30, (SIDE, SIDE)).astype(np.float32)
        r = np.fft.irfft2(np.fft.rfft2(rng.normal(0, 200**0.5, (SIDE, SIDE))) * np.sqrt(colour), (SIDE, SIDE))
        patches.append(subtract_patch(n, r.astype(np.float32), *variances, k, noise, (0, 0)))
    assert np.std([p.score for p in patches]) == pytest.approx(1, abs=0.03)
    spectra = [np.abs(np.fft.rfft2(p.difference)) ** 2 for p in patches]
    power = np.mean(spectra, axis=0) / SIDE**2 / k.variance
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    for low in (0.02, 0.1, 0.2, 0.3, 0.4):
        assert power[(frequency >= low) & (frequency < low + 0.1)].mean() == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("convolves_new", [False, True])
def test_stars_vanish_at_any_flux_ratio_and_new_ones_keep_their_flux(convolves_new):
    ratio = 1.3
    k, noise, _, (new, ref) = filters(convolves_new, ratio=ratio)
    n, r = np.zeros((2, SIDE, SIDE), np.float32)
    put(n, new, 60, 70, 5e5)
    put(r, ref, 60, 70, 5e5 * ratio if convolves_new else 5e5 / ratio)
    put(n, new, 130, 120, 2000.0)
    variances = np.full((2, SIDE, SIDE), [[[900.0]], [[200.0]]], np.float32)
    patch = subtract_patch(n, r, *variances, k, noise, (0, 0))
    # What stays is that the kernel of two Gaussians on pixels is nearly, not exactly, a Gaussian.
    assert np.abs(patch.difference[40:80, 50:90]).max() < 5e5 * 1e-5
    psf = stamp_of(k.psf, SIDE, 31)
    assert psf.sum() == pytest.approx(1, abs=3e-3)
    assert patch.difference[115:146, 105:136] == pytest.approx(2000 * psf, abs=0.5)
    assert patch.score[130, 120] == pytest.approx(2000 / np.sqrt(patch.flux_variance[130, 120]), rel=1e-3)
