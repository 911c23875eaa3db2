import numpy as np
import pytest

from seechange_core.simulate.scene import make_psf_field, scene, simulate_image


def test_noise_is_what_the_variance_says():
    """Pulls over all pixels of many realisations are standard normal."""
    image = scene((200, 200), n_stars=40, seed=3)
    pulls = (image.data - image.expected) / np.sqrt(image.variance)
    assert pulls.mean() == pytest.approx(0, abs=0.025)
    assert pulls.std() == pytest.approx(1, abs=0.02)
    assert image.data.dtype == np.float32


def test_fluxes_and_positions_are_those_of_the_truth():
    image = simulate_image((101, 101), 50.3, 49.6, 1e5, psf_field=make_psf_field((101, 101), 3.0), sky_e=100)
    light = image.expected - 100
    y, x = np.mgrid[:101, :101]
    assert light.sum() == pytest.approx(1e5, rel=3e-3)
    core = light * (np.hypot(x - 50.3, y - 49.6) < 12)
    assert (core * x).sum() / core.sum() == pytest.approx(50.3, abs=5e-3)
    assert (core * y).sum() / core.sum() == pytest.approx(49.6, abs=5e-3)


def test_psf_stamp_is_the_star_drawn():
    image = simulate_image((101, 101), 50, 50, 1e6, psf_field=make_psf_field((101, 101), 4.0), sky_e=0.0)
    stamp = image.psf(50, 50, 31)
    assert np.allclose(image.expected[35:66, 35:66], 1e6 * stamp, atol=0.02)
    assert image.psf(50, 50, 31, unit_sum=True).sum() == pytest.approx(1)


def test_same_seed_same_scene_and_stars_keep_their_distance():
    first, again, other = scene(seed=1), scene(seed=1), scene(seed=2)
    assert np.array_equal(first.data, again.data)
    assert not np.array_equal(first.data, other.data)
    apart = scene((300, 300), n_stars=30, min_separation_pix=20, border_pix=10)
    assert len(apart.x) == 30
    gaps = np.hypot(apart.x[:, None] - apart.x, apart.y[:, None] - apart.y) + 1e9 * np.eye(30)
    assert gaps.min() >= 20
    assert min(apart.x.min(), apart.y.min()) > 9
