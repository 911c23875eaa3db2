import numpy as np
import pytest

from seechange_core.errors import PixelsError
from seechange_core.numerics.noise import noise_ratios


def frames(sigmas, *, size=20000, seed=1, scale=1.0, pattern=50.0):
    """One amplifier each: a common pattern of electrons, and noise."""
    rng = np.random.default_rng(seed)
    fixed = pattern * rng.random((1, size))
    return [[(scale * fixed + rng.normal(0, s, (1, size))).astype(np.float32)] for s in sigmas]


def test_noise_of_each_frame_whatever_the_others_are():
    sigmas = np.array([5, 5, 20, 5, 20, 20, 5, 5, 20, 5.0])
    ratios = noise_ratios(frames(sigmas), np.full((10, 1), 25.0), np.ones(10), photon_noise=False)
    np.testing.assert_allclose(ratios[:, 0], sigmas / 5, rtol=0.15)
    quiet = noise_ratios(frames(np.full(10, 5.0)), np.full((10, 1), 25.0), np.ones(10), photon_noise=False)
    np.testing.assert_allclose(quiet, 1, atol=0.03)


def test_three_frames_give_the_noise_of_each():
    ratios = noise_ratios(frames([4, 8, 12]), np.full((3, 1), 16.0), np.ones(3), photon_noise=False)
    np.testing.assert_allclose(ratios[:, 0], [1, 2, 3], rtol=0.05)


def test_two_frames_share_theirs():
    ratios = noise_ratios(frames([3, 4]), np.full((2, 1), 9.0), np.ones(2), photon_noise=False)
    np.testing.assert_allclose(ratios[:, 0], np.sqrt(25 / 18), rtol=0.03)
    assert noise_ratios(frames([3]), np.full((1, 1), 9.0), np.ones(1), photon_noise=False) == 1


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("sigma_adu", [0.6, 1.0, 1.3, 1.5, 2.0])
def test_whole_adu_do_not_mislead(sigma_adu, offset):
    """Rounding adds a twelfth of a squared ADU, and nothing else."""
    rng = np.random.default_rng(5)
    pixels = [[np.rint(rng.normal(offset, sigma_adu, (1, 60000))).astype(np.float32)] for _ in range(6)]
    truth = sigma_adu**2 + 1 / 12
    ratios = noise_ratios(pixels, np.full((6, 1), truth), np.ones(6), photon_noise=False)
    assert np.mean(ratios**2) == pytest.approx(1, abs=0.012)


def test_photon_noise_at_levels_that_differ_by_factors():
    rng = np.random.default_rng(2)
    levels = np.array([3000.0, 10000.0, 50000.0, 20000.0, 5000.0])
    response = 1 + 0.05 * rng.random((1, 40000))
    pixels = [[(rng.poisson(e * response) + rng.normal(0, 6, (1, 40000))).astype(np.float32)] for e in levels]
    ratios = noise_ratios(pixels, np.full((5, 1), 36.0), levels, photon_noise=True)
    np.testing.assert_allclose(ratios, 1, atol=0.08)
    pixels[2][0][0, :400] += 3e4  # stars
    again = noise_ratios(pixels, np.full((5, 1), 36.0), levels, photon_noise=True)
    np.testing.assert_allclose(again, ratios, atol=0.03)


def test_frames_that_do_not_fit_together():
    pixels = [*frames([3, 3]), *frames([3], size=100)]
    with pytest.raises(PixelsError, match="do not fit together"):
        noise_ratios(pixels, np.full((3, 1), 9.0), np.ones(3), photon_noise=False)
