import numpy as np
import pytest

from seechange_core.numerics.detection import Peaks, find
from seechange_core.numerics.psf import constant
from seechange_core.numerics.scene import fit_scene
from seechange_core.numerics.second_search import find_hidden, is_crowded, joined, resolved
from seechange_core.simulate.scene import make_psf_field, simulate_image

FWHM = 4.1
SHAPE = (200, 400)
#: Noise has no such peaks.
RULES = {"sigma": 6.0, "min_area_pix": 1, "deblend_contrast": 0.01}


@pytest.fixture(scope="module")
def psf():
    return constant(make_psf_field((41, 41), 4.0).stamp(20.0, 20.0, 41))


def fitted(s, psf, peaks, weight):
    return fit_scene(
        s.data - np.float32(s.sky_e), weight, psf, peaks.x, peaks.y, peaks.flux,
        radius_pix=8, gain=1, passes=8, max_shift_pix=1.6,
    )  # fmt: skip


def first_search(s):
    weight = (1 / s.background_variance).astype(np.float32)
    peaks, segmentation = find(s.data - np.float32(s.sky_e), weight, fwhm_pix=FWHM, **RULES)
    return peaks, segmentation, weight


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.5])
def test_a_shoulder_is_a_star(psf, ratio):
    x, y = np.array([100.3, 104.6]), np.array([100.2, 100.9])
    s = simulate_image(SHAPE, x, y, [1e5, ratio * 1e5], psf_field=make_psf_field(SHAPE, 4.0))
    peaks, _, weight = first_search(s)
    assert len(peaks) == 1
    new = find_hidden(fitted(s, psf, peaks, weight), weight, psf, gain=1, **RULES)
    # What a blend's fit leaves is also a ring; once the second star is in, nothing is left.
    both = joined(peaks, new)
    scene = fitted(s, psf, both, weight)
    kept = resolved(scene.fits.x, scene.fits.y, scene.fits.flux, FWHM)
    scene = fitted(s, psf, both.select(kept), weight)
    near = np.hypot(scene.fits.x[:, None] - x, scene.fits.y[:, None] - y)
    assert near.min(axis=0).max() < 0.5
    assert scene.fits.flux[near.argmin(axis=0)] == pytest.approx([1e5, ratio * 1e5], rel=0.1)
    assert len(find_hidden(scene, weight, psf, gain=1, **RULES)) == 0
    assert new.merged.all()


def test_residues_of_a_star_are_none(psf):
    """A PSF that is too round leaves two lobes beside a star."""
    field = make_psf_field(SHAPE, 4.0, ellipticity=0.02)
    s = simulate_image(SHAPE, [100.3, 300.1], [99.8, 100.4], [1e6, 1e6], psf_field=field)
    peaks, _, weight = first_search(s)
    scene = fitted(s, psf, peaks, weight)
    naive, _ = find(scene.residual, weight, fwhm_pix=FWHM, **RULES)
    assert len(naive) > 2
    assert len(find_hidden(scene, weight, psf, gain=1, **RULES)) == 0


def test_noise_gives_no_more_than_noise_does():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 10, (1000, 1000)).astype(np.float32)
    weight = np.full(noise.shape, 0.01, np.float32)
    psf = constant(make_psf_field((41, 41), 4.0).stamp(20.0, 20.0, 41))
    far = np.array([-1e3])
    scene = fit_scene(noise, weight, psf, far, far, far * 0, radius_pix=8, gain=1, passes=1, max_shift_pix=1)
    new = find_hidden(scene, weight, psf, gain=1, sigma=4.0, min_area_pix=1, deblend_contrast=0.01)
    # Maxima of a Gaussian field (Adler 1981), see test_detection.
    expected = 1e6 * 4 * np.exp(-8) / (2 * np.pi) ** 1.5 / (2 * (FWHM / 2.3548) ** 2)
    assert len(new) < expected + 4 * np.sqrt(expected)
    assert len(new) > 0.5 * expected


def test_of_sources_in_one_place_the_brightest_stays():
    x = np.array([10.0, 11.0, 12.0, 30.0, 40.0, np.nan])
    flux = np.array([5.0, 50.0, 20.0, 1.0, np.nan, 3.0])
    assert resolved(x, np.full(6, 7.0), flux, 4.0).tolist() == [1, 3, 4, 5]
    # The second takes the first and the third is free again only if it is out of the second's reach.
    assert resolved(np.array([10.0, 11.2, 12.4]), np.zeros(3), np.array([3.0, 2.0, 1.0]), 4.0).tolist() == [
        0,
        2,
    ]
    assert resolved(np.zeros(0), np.zeros(0), np.zeros(0), 4.0).tolist() == []


def test_crowds_cover_the_image():
    segmentation = np.zeros((100, 100), np.int32)
    segmentation[:15] = 1 + np.arange(100) // 10
    weight = np.ones(segmentation.shape, np.float32)
    assert not is_crowded(segmentation, weight, 4.0)
    weight[50:] = 0
    assert is_crowded(segmentation, weight, 4.0)


def test_one_galaxy_all_over_the_image_is_no_crowd():
    segmentation = np.zeros((200, 200), np.int32)
    segmentation[50:150, 50:150] = 1
    weight = np.ones(segmentation.shape, np.float32)
    assert not is_crowded(segmentation, weight, 4.0)
    segmentation[50:150, 50:150] += np.arange(100) // 10
    assert is_crowded(segmentation, weight, 4.0)


def test_joining_keeps_the_order():
    one = Peaks(*(np.full(2, float(k)) for k in range(8)), np.arange(2), np.zeros(2, bool))
    two = joined(one, one.select(np.array([1])))
    assert len(two) == 3
    assert two.n_pixels.tolist() == [0, 1, 1]
