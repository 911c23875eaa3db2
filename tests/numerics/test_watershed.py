import numpy as np
import pytest
from scipy import ndimage

from seechange_core.numerics.watershed import Rise, part_islands, sum_islands

STRICT = Rise(3.0, 0.0, 0.0)


def hills(*places, shape=(60, 80), width=4.0):
    y, x = np.indices(shape)
    return sum(h * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2 / width**2) for cx, cy, h in places).astype(
        np.float32
    )


def test_without_deblending_islands_are_connected_regions():
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(0, 1, (200, 300)), 2).astype(np.float32)
    noise = np.full(image.shape, image.std(), np.float32)
    islands = part_islands(image, noise, 1.0, Rise(1e9, 0.0, 0.0), 5)
    truth, n = ndimage.label(image > noise, np.ones((3, 3)))
    sizes = ndimage.sum_labels(np.ones(image.shape), truth, np.arange(n + 1))
    assert len(islands.peak) == np.count_nonzero(sizes[1:] >= 5)
    assert np.array_equal(islands.labels > 0, (truth > 0) & (sizes[truth] >= 5))
    pairs = np.unique(np.c_[islands.labels.ravel(), truth.ravel()][islands.labels.ravel() > 0], axis=0)
    assert len(pairs) == len(islands.peak)
    assert not islands.touches.any()
    assert np.all(np.diff(image.ravel()[islands.peak]) <= 0)


@pytest.mark.parametrize(("second", "n"), [(60.0, 2), (11.0, 1)])
def test_a_second_peak_counts_if_it_rises_above_the_saddle(second, n):
    # The saddle lies at some 10: a peak of 11 does not rise by 3 sigma.
    image = hills((30, 30, 100.0), (46, 30, second)) if second > 20 else hills((30, 30, 100.0))
    if second < 20:
        image[30, 39] = image[30, 38] + 0.5
    islands = part_islands(image, np.ones_like(image), 2.0, STRICT, 1)
    assert len(islands.peak) == n
    assert islands.touches.all() == (n == 2)
    assert len(part_islands(image, np.ones_like(image), 2.0, Rise(3.0, 50.0, 0.0), 1).peak) == 1
    assert len(part_islands(image, np.ones_like(image), 2.0, Rise(3.0, 0.0, 1e3), 1).peak) == 1


def test_sums_of_islands():
    image = hills((20, 25, 50.0), (60, 30, 20.0), width=3.0)
    islands = part_islands(image, np.ones_like(image), 1.0, STRICT, 1)
    sums = sum_islands(image, islands)
    for k in range(2):
        inside = islands.labels == k + 1
        y, x = np.nonzero(inside)
        value = image[inside].astype(float)
        row, column = divmod(int(islands.peak[k]), image.shape[1])
        expected = [
            inside.sum(), value.max(), value.sum(), (value * (x - column)).sum(), (value * (y - row)).sum(),
            (value * (x - column) ** 2).sum(), (value * (y - row) ** 2).sum(),
            (value * (x - column) * (y - row)).sum(),
        ]  # fmt: skip
        assert sums[:, k] == pytest.approx(expected, rel=1e-5, abs=1e-3)


def test_islands_at_the_rim_do_not_reach_around():
    image = np.zeros((10, 12), np.float32)
    image[3:6, 0] = image[3:6, -1] = image[0, 4:7] = image[-1, 4:7] = 9
    islands = part_islands(image, np.ones_like(image), 2.0, STRICT, 1)
    assert len(islands.peak) == 4


def test_nothing_above_the_noise():
    islands = part_islands(np.zeros((5, 5), np.float32), np.ones((5, 5), np.float32), 2.0, STRICT, 1)
    assert not len(islands.peak)
    assert not islands.labels.any()
