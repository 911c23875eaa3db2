import numpy as np
import pytest

from seechange_core.numerics.noise_spectrum import cardinal_transfer
from seechange_core.numerics.tiles import Mosaic, Tiling
from seechange_core.numerics.zogy import (
    Noise,
    make_kernels,
    matched_to_new,
    stamp_of,
    subtract_patch,
    transfer,
)

SIDE = 192
FLAT = np.ones((SIDE, SIDE // 2 + 1), np.float32)


def gaussian(fwhm, dx=0.0, dy=0.0, half=15):
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    s2 = (fwhm / 2.3548) ** 2
    stamp = np.exp(-((u - dx) ** 2 + (v - dy) ** 2) / 2 / s2)
    return (stamp / stamp.sum()).astype(np.float32)


def kernels(new=4.0, ref=3.2, var_new=900.0, var_ref=200.0):
    noise = Noise(var_new, var_ref, FLAT)
    return make_kernels(transfer(gaussian(new), SIDE), transfer(gaussian(ref), SIDE), noise, SIDE), noise


def put(image, stamp, y, x, flux):
    half = stamp.shape[0] // 2
    image[y - half : y + half + 1, x - half : x + half + 1] += flux * stamp


@pytest.mark.parametrize(("new", "ref"), [(4.0, 3.2), (3.0, 4.5), (4.0, 4.0), (1.6, 1.9)])
def test_difference_and_score_of_pure_noise_have_unit_width(new, ref):
    rng = np.random.default_rng(1)
    k, noise = kernels(new, ref)
    planes = []
    for _ in range(6):
        n = rng.normal(0, 30, (SIDE, SIDE)).astype(np.float32)
        r = rng.normal(0, 200**0.5, (SIDE, SIDE)).astype(np.float32)
        variances = np.full((2, SIDE, SIDE), [[[900.0]], [[200.0]]], np.float32)
        planes.append(subtract_patch(n, r, *variances, k, noise, (0, 0)))
    assert np.std([p.difference for p in planes]) == pytest.approx(np.sqrt(k.variance), rel=0.01)
    assert np.std([p.score for p in planes]) == pytest.approx(1, abs=0.03)
    power = np.mean([np.abs(np.fft.rfft2(p.difference)) ** 2 for p in planes], axis=0) / SIDE**2 / k.variance
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    for low in (0.02, 0.1, 0.2, 0.3, 0.4):
        assert power[(frequency >= low) & (frequency < low + 0.1)].mean() == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(("new", "ref"), [(4.0, 5.0), (5.0, 4.0)])
def test_a_bright_star_cut_by_the_edge_of_a_patch_does_not_ring_through_it(new, ref):
    """PSFs as measured have noise where no light gets through: what is sharp must stay where it is."""
    rng = np.random.default_rng(4)
    tiling = Tiling((400, 400), 196, 16, 21)
    side, taper = tiling.side, tiling.taper()
    images, models = [], []
    for fwhm, sigma in ((new, 50.0), (ref, 14.0)):
        # Of a few dozen stars at S/N 100 to 1000.
        models.append(
            transfer(gaussian(fwhm, half=25) + rng.normal(0, 1e-5, (51, 51)).astype(np.float32), side)
        )
        sky = np.zeros((side + 100, side + 100), np.float32)
        put(sky, gaussian(fwhm, half=25), side - 5, 100, 1e7)
        images.append(taper * (sky[:side, :side] + rng.normal(0, sigma, (side, side))).astype(np.float32))
    noise = Noise(2500.0, 196.0, np.ones((side, side // 2 + 1), np.float32))
    k = make_kernels(*models, noise, side)
    variances = np.full((2, side, side), [[[2500.0]], [[196.0]]], np.float32)
    patch = subtract_patch(*images, *variances, k, noise, (0, 0))
    far = patch.difference[45 : side - 60, 42 : side - 42] / np.sqrt(k.variance)
    assert np.std(far) == pytest.approx(1, abs=0.01)
    assert np.abs(far).max() < 5.5


def test_a_static_star_vanishes_and_a_new_one_shows_its_flux():
    k, noise = kernels()
    n, r = np.zeros((2, SIDE, SIDE), np.float32)
    put(n, gaussian(4.0), 60, 70, 5e5)
    put(r, gaussian(3.2), 60, 70, 5e5)
    put(n, gaussian(4.0), 130, 120, 2000.0)
    variances = np.full((2, SIDE, SIDE), [[[900.0]], [[200.0]]], np.float32)
    patch = subtract_patch(n, r, *variances, k, noise, (0, 0))
    assert np.abs(patch.difference[40:80, 50:90]).max() < 0.5
    psf = stamp_of(k.psf, SIDE, 31)
    assert psf.sum() == pytest.approx(1, abs=2e-3)
    assert patch.difference[115:146, 105:136] == pytest.approx(2000 * psf, abs=0.5)
    assert patch.score[130, 120] == pytest.approx(2000 / np.sqrt(patch.flux_variance[130, 120]), rel=1e-3)
    # The best possible S/N with both images: the paper's eq. 12 integrated.
    area = 1 / np.sum(psf.astype(float) ** 2)
    assert patch.flux_variance[130, 120] == pytest.approx(k.variance * area, rel=2e-3)


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5)])
def test_light_folded_back_does_not_alternate_around_stars(place):
    """A star of S/N 450 at FWHM 1.5 and 1.9 pixels: what its place leaves is away from its core 12 sigma."""
    blur = np.outer(cardinal_transfer(np.fft.fftfreq(SIDE)), cardinal_transfer(np.fft.rfftfreq(SIDE)))
    noise = Noise(900.0, 115.0, np.maximum(blur**2, 1e-3).astype(np.float32))
    transfers = transfer(gaussian(1.5), SIDE), transfer(gaussian(1.9), SIDE) * blur.astype(np.float32)
    k = make_kernels(*transfers, noise, SIDE)
    n, r = np.zeros((2, SIDE, SIDE), np.float32)
    put(n, gaussian(1.5, *place), 90, 90, 2e5)
    put(r, gaussian(1.9, *place), 90, 90, 2e5)
    v, u = np.mgrid[:SIDE, :SIDE]
    patch = subtract_patch(n, r, 900 + n, 115 + r / 8, k, noise, (0, 0))
    assert np.abs(patch.score[np.hypot(v - 90, u - 90) > 2.5]).max() < 5.5


@pytest.mark.parametrize(("fwhm", "lost"), [((1.5, 1.9), 0.01), ((1.9, 1.5), 0.004), ((3.0, 4.0), 1e-5)])
def test_leaving_off_what_folds_back_costs_a_hundredth_at_most(fwhm, lost):
    k, noise = kernels(*fwhm, 900.0, 115.0)
    new, ref = (np.abs(np.fft.fft2(gaussian(w), (SIDE, SIDE))) ** 2 for w in fwhm)
    best = np.sqrt(np.mean(new * ref / (noise.new * ref + noise.ref * new)))
    assert best * (1 - lost) < k.flux_of_score / np.sqrt(k.score_variance) <= best * (1 + 1e-5)


def test_a_shifted_star_is_expected_by_the_astrometric_term():
    k, noise = kernels()
    rng = np.random.default_rng(2)
    variances = np.full((2, SIDE, SIDE), [[[900.0]], [[200.0]]], np.float32)
    pulls = []
    for _ in range(40):
        n, r = np.zeros((2, SIDE, SIDE), np.float32)
        dx, dy = rng.normal(0, 0.05, 2)
        put(n, gaussian(4.0, dx, dy), 96, 96, 2e5)
        put(r, gaussian(3.2), 96, 96, 2e5)
        patch = subtract_patch(n, r, *variances, k, noise, (0.05, 0.05))
        pulls.append(patch.score[[96, 96, 94, 98], [94, 98, 96, 96]])
    assert np.std(pulls) == pytest.approx(1, abs=0.25)


def test_matching_kernel_exchanges_the_psf():
    k, _ = kernels(5.0, 3.5)
    ref = np.zeros((SIDE, SIDE), np.float32)
    put(ref, gaussian(3.5), 96, 96, 1e4)
    expected = np.zeros((SIDE, SIDE), np.float32)
    put(expected, gaussian(5.0), 96, 96, 1e4)
    found = matched_to_new(np.fft.rfft2(ref).astype(np.complex64), k)
    assert np.abs(found - expected).max() < 0.01 * expected.max()


@pytest.mark.parametrize("shape", [(300, 260), (100, 500), (64, 64)])
def test_tiles_blend_back_to_the_image(shape):
    tiling = Tiling(shape, 64, 8, 12)
    canvas = np.random.default_rng(3).normal(size=tiling.canvas_shape).astype(np.float32)
    mosaic = Mosaic(tiling)
    for tile in tiling:
        mosaic.add(tile, canvas[tile.y : tile.y + tiling.side, tile.x : tile.x + tiling.side])
    m = tiling.margin
    assert np.allclose(mosaic.image(), canvas[m : m + shape[0], m : m + shape[1]], atol=1e-5)
