"""Masks grow by a square, also at the edges and where they are larger than the image."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from seechange_core.numerics.growth import grown


@pytest.mark.parametrize("radius", [0, 1, 2, 6, 17, 40])
@pytest.mark.parametrize("share", [0.0, 0.003, 0.5, 0.999])
def test_a_mask_grows_as_by_a_square(radius, share):
    mask = np.random.default_rng(radius).random((37, 91)) < share
    before = mask.copy()
    square = np.ones((2 * radius + 1, 2 * radius + 1), bool)
    assert np.array_equal(grown(mask, radius), binary_dilation(mask, square))
    assert np.array_equal(mask, before)


def test_single_pixels_at_corners_of_an_image_that_is_not_contiguous():
    mask = np.zeros((80, 20), bool).T[::2]
    mask[0, 0] = mask[-1, -1] = True
    expected = np.zeros_like(mask)
    expected[:4, :4] = expected[-4:, -4:] = True
    assert np.array_equal(grown(mask, 3), expected)
