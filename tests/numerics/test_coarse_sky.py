import numpy as np
import pytest

from seechange_core.numerics.coarse_sky import coarse_sky


def test_follows_a_gradient_under_stars():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:300, :400]
    truth = 1000 + 0.5 * x - 0.2 * y
    data = (truth + rng.normal(0, 30, truth.shape)).astype(np.float32)
    stars = rng.random(truth.shape) > 0.95
    data[stars] += 5000
    data[100:103] = np.nan
    mesh = coarse_sky(data, np.isfinite(data))
    level = mesh.level_rows()
    assert np.abs(level - truth).max() < 20
    assert np.median(level - truth) == pytest.approx(0, abs=3)
    assert np.median(mesh.sigma_rows()) == pytest.approx(30, rel=0.1)
    np.testing.assert_array_equal(mesh.level_rows(slice(37, 101)), level[37:101])


def test_fills_masked_cells_and_knows_when_it_knows_nothing():
    data = np.full((256, 256), 7, np.float32)
    usable = np.ones(data.shape, bool)
    usable[:130] = False
    assert np.all(coarse_sky(data, usable).level_rows() == 7)
    assert np.isnan(coarse_sky(data, ~usable & usable).level_rows()).all()
    assert coarse_sky(data[:5, :3], usable[200:205, :3]).level_rows().shape == (5, 3)


@pytest.mark.parametrize(("mean", "noise", "step"), [(3.0, 0.4, 1), (11.3, 0.45, 5), (0.2, 0.5, 5)])
def test_whole_numbers_do_not_pull_the_level(mean, noise, step):
    """Levels of a few ADU and a noise below one: a median would be off by up to half a step."""
    rng = np.random.default_rng(4)
    data = (step * np.rint(rng.normal(mean / step, noise, (256, 256)))).astype(np.float32)
    mesh = coarse_sky(data, np.ones(data.shape, bool), sigma_min=step * np.hypot(noise, 12**-0.5))
    assert np.mean(mesh.level) == pytest.approx(mean, abs=0.03 * step)
    assert np.mean(mesh.sigma) == pytest.approx(np.std(data), rel=0.02)


def test_level_of_few_photons():
    rng = np.random.default_rng(5)
    data = (rng.poisson(2.0, (512, 512)) + rng.normal(0, 2, (512, 512))).astype(np.float32)
    mesh = coarse_sky(data, np.ones(data.shape, bool))
    # Clipping at 3 sigma takes a bit of the longer tail.
    assert np.mean(mesh.level) == pytest.approx(2.0, abs=0.05)
