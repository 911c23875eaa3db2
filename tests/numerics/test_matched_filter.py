import numpy as np
import pytest
from scipy import ndimage

from seechange_core.numerics.matched_filter import gaussian_taps, matched_filter


@pytest.mark.parametrize("fwhm", [1.3, 4.0, 12.0])
def test_filter_and_noise_are_those_of_the_weighted_mean(fwhm):
    rng = np.random.default_rng(0)
    data = rng.normal(0, 3, (60, 80)).astype(np.float32)
    weight = rng.uniform(0.5, 1.5, data.shape).astype(np.float32)
    weight[20:30, 40:45] = 0
    data[22, 42] = np.nan
    taps = gaussian_taps(fwhm).astype(float)
    assert taps.sum() == pytest.approx(1)

    def spread(image, kernel):
        rows = ndimage.convolve1d(image, kernel, 0, mode="constant")
        return ndimage.convolve1d(rows, kernel, 1, mode="constant")

    total = spread(weight.astype(float), taps)
    known = total > 0.1 * np.median(weight[::8, ::8])
    mean = spread(np.where(weight > 0, weight * data, 0).astype(float), taps)[known] / total[known]
    sigma = np.sqrt(spread(weight.astype(float), taps**2)[known]) / total[known]
    smooth, noise = matched_filter(data, weight, fwhm)
    assert np.array_equal(np.isfinite(noise), known)
    assert known.all() == (fwhm > 3)
    assert smooth[known] == pytest.approx(mean, abs=1e-4)
    assert noise[known] == pytest.approx(sigma, rel=1e-4)


def test_pixels_of_noise_have_the_noise_that_is_told():
    data = np.random.default_rng(1).normal(0, 5, (600, 600)).astype(np.float32)
    smooth, noise = matched_filter(data, np.full(data.shape, 0.04, np.float32), 4.0)
    assert np.std(smooth / noise) == pytest.approx(1, abs=0.02)
