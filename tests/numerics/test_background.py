import numpy as np
import pytest
import sep

from seechange_core.errors import PixelsError
from seechange_core.numerics.background import estimate, level_map
from seechange_core.simulate.scene import scene


def flat(shape):
    return np.ones(shape, np.float32), np.zeros(shape, np.uint16)


def test_pure_noise_with_a_gradient_is_recovered():
    shape = (700, 1000)
    y, x = np.indices(shape) / 1000
    sky = 1000 * (1 + 0.2 * x - 0.1 * y + 0.1 * (x - 0.5) ** 2)
    data = np.random.default_rng(0).poisson(sky).astype(np.float32)
    found = estimate(data, *flat(shape))
    off = (level_map(found) - sky) / np.sqrt(sky)
    assert abs(off.mean()) < 0.004
    assert off.std() < 0.02
    assert np.abs(off).max() < 0.15
    assert found.rms / np.sqrt(found.level) == pytest.approx(1, abs=0.05)
    assert found.level.dtype == np.float32


@pytest.mark.parametrize(("n_stars", "limit"), [(150, 0.012), (800, 0.04)])
def test_bias_in_a_field_of_stars_with_wings(n_stars, limit):
    # The denser field has five times the sky noise in starlight on the average pixel.
    offsets = []
    for seed in range(2):
        s = scene((1024, 1024), n_stars, seed=seed, flux_range=(300.0, 1e6))
        found = estimate(s.data, 1 / s.background_variance, np.zeros(s.shape, np.uint16))
        rms = np.sqrt(s.background_variance[0, 0])
        offsets.append((level_map(found).mean() - s.sky_e) / rms)
        assert found.rms.mean() == pytest.approx(rms, rel=0.01)
    assert abs(np.mean(offsets)) < limit


def test_less_biased_than_sep_in_a_dense_field():
    s = scene((1024, 1024), 1500, seed=3, flux_range=(300.0, 1e5))
    found = level_map(estimate(s.data, 1 / s.background_variance, np.zeros(s.shape, np.uint16)))
    peer = sep.Background(s.data, bw=128, bh=128).back()
    assert abs(found.mean() - s.sky_e) < 0.7 * abs(peer.mean() - s.sky_e)


def test_unusable_pixels_and_whole_cells_do_not_matter():
    s = scene((600, 600), 50, seed=1)
    weight, flags = flat(s.shape)
    data = s.data.copy()
    data[:300, :300] = np.nan
    data[400:420] = 1e6
    flags[400:420] = 1
    data[500:520] = -1e6
    weight[500:520] = 0
    level = level_map(estimate(data, weight, flags))
    assert np.all(np.isfinite(level))
    assert np.abs(level - s.sky_e).max() < 0.25 * np.sqrt(s.sky_e)


def test_known_mask_is_respected():
    data = np.random.default_rng(0).normal(100, 10, (256, 256)).astype(np.float32)
    data[:, :100] += 50
    mask = np.zeros(data.shape, bool)
    mask[:, :100] = True
    level = level_map(estimate(data, *flat(data.shape), mask, step_pix=64))
    assert level[:, 110:].mean() == pytest.approx(100, abs=0.3)


@pytest.mark.parametrize("shape", [(20, 30), (64, 64), (130, 129), (1, 500)])
def test_odd_shapes(shape):
    data = np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)
    found = estimate(data, *flat(shape))
    assert level_map(found).shape == shape
    assert level_map(found).mean() == pytest.approx(100, abs=3)


def test_no_usable_pixel_is_named():
    with pytest.raises(PixelsError, match="none of 100 pixels"):
        estimate(np.full((10, 10), np.nan, np.float32), *flat((10, 10)))
