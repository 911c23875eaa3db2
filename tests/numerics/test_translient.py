import numpy as np
import pytest
from scipy.stats import chi2, norm

from seechange_core.numerics.translient import dipoles_at, normal_equivalent, translient_patch
from seechange_core.numerics.zogy import Noise, make_kernels, subtract_patch, transfer

SIDE = 192
FLAT = np.ones((SIDE, SIDE // 2 + 1), np.float32)
SIGMA = 4.0 / 2.3548


def gaussian(dx=0.0, dy=0.0, stretch=1.0, half=15):
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    stamp = np.exp(-(((u - dx) / stretch) ** 2 + ((v - dy) * stretch) ** 2) / 2 / SIGMA**2)
    return (stamp / stamp.sum()).astype(np.float32)


def put(image, stamp, y, x, flux):
    image[y - 15 : y + 16, x - 15 : x + 16] += flux * stamp


def patch(rng, changes, var_new=900.0, var_ref=200.0, stretch=1.0):
    """Subtract noise with `changes` in it: (stamp, y, x, flux) in the new image, and in the reference."""
    noise = Noise(var_new, var_ref, FLAT)
    k = make_kernels(*[transfer(gaussian(stretch=stretch), SIDE)] * 2, noise, SIDE)
    n, r = (rng.normal(0, v**0.5, (SIDE, SIDE)).astype(np.float32) for v in (var_new, var_ref))
    for image, some in zip((n, r), changes, strict=True):
        for change in some:
            put(image, *change)
    variances = np.full((2, SIDE, SIDE), [[[var_new]], [[var_ref]]], np.float32)
    score = subtract_patch(n, r, *variances, k, noise, (0, 0)).score
    return score, translient_patch(n, r, *variances, k, noise)


@pytest.mark.parametrize("stretch", [1.0, 1.25])
def test_pure_noise_has_two_normal_components_and_chi_square(stretch):
    rng = np.random.default_rng(1)
    z = np.concatenate([patch(rng, ((), ()), stretch=stretch)[1].reshape(2, -1) for _ in range(20)], axis=1)
    assert np.std(z, axis=1) == pytest.approx(1, abs=0.02)
    assert abs(np.mean(z[0] * z[1])) < 0.03
    power = np.sum(z**2, axis=0)
    for limit in (1.0, 4.0, 9.0):
        assert np.mean(power > limit) == pytest.approx(chi2.sf(limit, 2), rel=0.15)
    s = normal_equivalent(power)
    assert np.std(s) == pytest.approx(np.std(np.abs(np.random.default_rng(2).normal(size=10**6))), rel=0.03)
    assert np.mean(s > 2) == pytest.approx(2 * norm.sf(2), rel=0.1)
    assert normal_equivalent(3000.0) == pytest.approx(np.sqrt(3000), rel=0.01)


@pytest.mark.parametrize("angle", [0.0, 1.0, 2.6, -2.0])
def test_a_star_that_moved_shows_where_to_and_how_significantly(angle):
    rng = np.random.default_rng(3)
    flux, distance = 4e4, 0.25
    moved = gaussian(distance * np.cos(angle) / 2, distance * np.sin(angle) / 2)
    before = gaussian(-distance * np.cos(angle) / 2, -distance * np.sin(angle) / 2)
    # The moment's error from the sky noise of both images: C of a Gaussian in closed form.
    expected = flux * distance / np.sqrt(1100.0 * 8 * np.pi * SIGMA**4)
    assert expected > 10
    found, angles, scores = [], [], []
    for _ in range(10):
        score, z = patch(rng, ([(moved, 96, 96, flux)], [(before, 96, 96, flux)]))
        dipole = dipoles_at(z, np.array([96.0]), np.array([96.0]), 4.0)
        found.append(np.hypot(*z[:, 96, 96]))
        angles.append(np.angle(np.exp(1j * (dipole.angle_rad[0] - angle))))
        scores.append(np.abs(score[90:103, 90:103]).max())
        assert dipole.significance[0] > 1.2 * scores[-1]
    assert np.mean(found) == pytest.approx(expected, abs=1.0)
    assert np.std(found) < 1.8
    assert abs(np.mean(angles)) < 0.07
    assert np.std(angles) == pytest.approx(1 / expected, rel=0.7)


def test_a_transient_scores_higher_than_it_moves():
    rng = np.random.default_rng(4)
    x = np.array([40.0, 96.0, 150.0])
    fluxes = (2e3, 6e3, 2e4)
    score, z = patch(rng, ([(gaussian(), 96, int(c), f) for c, f in zip(x, fluxes, strict=True)], ()))
    dipoles = dipoles_at(z, x, np.full(3, 96.0), 4.0)
    peaks = score[96, [40, 96, 150]]
    assert np.all(peaks > 8)
    assert np.all(dipoles.significance < 0.85 * peaks)
    # A Gaussian's flank against its peak: exp(-1/2), in units of the noise of each.
    assert dipoles.significance[2] == pytest.approx(np.exp(-0.5) * peaks[2], rel=0.1)


def test_every_pixels_own_variance_counts():
    rng = np.random.default_rng(5)
    noise = Noise(900.0, 200.0, FLAT)
    k = make_kernels(*[transfer(gaussian(), SIDE)] * 2, noise, SIDE)
    variance = np.full((SIDE, SIDE), 900, np.float32)
    variance[:, 96:] = 8100
    z = []
    for _ in range(6):
        n = (rng.normal(0, 1, (SIDE, SIDE)) * np.sqrt(variance)).astype(np.float32)
        r = rng.normal(0, 200**0.5, (SIDE, SIDE)).astype(np.float32)
        z.append(translient_patch(n, r, variance, np.full_like(variance, 200), k, noise))
    assert np.std(np.array(z)[:, :, :, 20:76]) == pytest.approx(1, abs=0.03)
    assert np.std(np.array(z)[:, :, :, 116:172]) == pytest.approx(1, abs=0.03)


def test_places_off_the_image_have_no_dipole():
    z = np.zeros((2, 30, 40), np.float32)
    z[:, 0, 0] = 3.0, 4.0
    far, near = dipoles_at(z, np.array([-50.0, 1.0]), np.array([5.0, 1.0]), 3.0).significance
    assert far == 0
    assert near == pytest.approx(normal_equivalent(25.0))
