import numpy as np
import pytest

from seechange_core.frames import Box
from seechange_core.numerics.fringe import fit_fringes

SHAPE = (512, 512)
BOXES = (Box(0, 512, 0, 256), Box(0, 512, 256, 512))


def pattern(rms=0.01):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    wave = np.sin(x / 10 + y / 17 + 2 * np.sin(y / 70)) * np.sqrt(2) * rms
    return (wave - np.median(wave)).astype(np.float32)


def field(scale, sky, seed, rms=0.01, density=0.0, gradient=0.0, read_noise=6.0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    mean = (
        sky * (1 + scale * pattern(rms)) * (1 + gradient * (x / 512 - 0.5) + gradient * (y / 512 - 0.5) ** 2)
    )
    for _ in range(int(density)):
        cx, cy, width = *rng.uniform(0, 512, 2), rng.uniform(1.3, 5)
        part = np.s_[max(0, int(cy) - 40) : int(cy) + 40, max(0, int(cx) - 40) : int(cx) + 40]
        profile = np.exp(-((x[part] - cx) ** 2 + (y[part] - cy) ** 2) / 2 / width**2)
        mean[part] += 10 ** rng.uniform(1, 5) * profile
    return (rng.poisson(mean) + rng.normal(0, read_noise, SHAPE)).astype(np.float32)


def fit(data, fringe=None, variance=0.0, usable=None):
    fringe = pattern() if fringe is None else fringe
    usable = np.ones(SHAPE, bool) if usable is None else usable
    return fit_fringes(data, usable, fringe, np.full(SHAPE, variance, np.float32), BOXES, 128)


@pytest.mark.parametrize("density", [0, 300])
@pytest.mark.parametrize(("scale", "sky"), [(1.0, 300), (0.3, 3000), (1.5, 30000), (0.0, 3000)])
def test_scale_by_pulls(scale, sky, density):
    fits = [fit(field(scale, sky, seed, density=density)) for seed in range(10)]
    # What is subtracted is the product with the sky that was found, which faint sources raise a little.
    pulls = np.array([(f.scale * f.sky_e - scale * sky) / (f.error * f.sky_e) for f in fits])
    assert abs(np.mean(pulls)) < 1.1
    assert 0.5 < np.sqrt(np.mean(pulls**2)) < 1.6
    assert fits[0].sky_e == pytest.approx(sky, rel=0.02)


def test_a_gradient_of_the_sky_is_no_fringe():
    result = fit(field(1.0, 5000, 1, gradient=0.05))
    assert result.scale == pytest.approx(1, abs=max(4 * result.error, 0.02))
    result = fit(field(0.0, 5000, 2, gradient=0.05))
    assert result.scale == pytest.approx(0, abs=max(4 * result.error, 0.02))


def test_noise_of_the_pattern_does_not_make_it_weaker():
    rng = np.random.default_rng(3)
    sigma = 0.03  # per pixel: three times the pattern itself
    noisy = pattern() + rng.normal(0, sigma, SHAPE).astype(np.float32)
    result = fit(field(1.0, 20000, 4), noisy, sigma**2)
    assert result.scale == pytest.approx(1, abs=4 * result.error)
    assert fit(field(1.0, 20000, 4), noisy).scale < 0.8  # as a pattern without known noise it must


def test_what_cannot_be_measured_is_not_a_number():
    data = field(1.0, 1000, 5)
    assert np.isnan(fit(data, np.zeros(SHAPE, np.float32)).scale)
    assert np.isnan(fit(data - 1000).scale) or fit(data - 1000).sky_e < 5
    assert np.isnan(fit(data - 1100).scale)
    assert np.isnan(fit(data, usable=np.zeros(SHAPE, bool)).scale)
    noise = np.random.default_rng(6).normal(0, 0.05, SHAPE).astype(np.float32)
    assert np.isnan(fit(data, noise, 0.05**2).scale)


def test_holes_do_no_harm():
    data, fringe = field(0.8, 10000, 7), pattern()
    usable = np.ones(SHAPE, bool)
    usable[100:180, 200:300] = False
    data[100:180, 200:300] = 6e4
    data[5, 5], fringe[9, 9] = np.nan, np.nan
    result = fit(data, fringe, usable=usable)
    assert result.scale == pytest.approx(0.8, abs=4 * result.error + 0.005)
