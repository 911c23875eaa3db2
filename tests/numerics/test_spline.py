"""Spline coefficients against scipy's, which work line by line in double precision."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates, spline_filter

from seechange_core.numerics.spline import quintic_coefficients


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 70), (130, 201)])
def test_coefficients_are_scipys(shape):
    image = np.random.default_rng(1).normal(0, 100, shape).astype(np.float32)
    expected = spline_filter(image, order=5, output=np.float64, mode="mirror")
    assert np.abs(quintic_coefficients(image) - expected).max() < 2e-6 * np.abs(expected).max()


def test_the_spline_passes_through_the_pixels():
    image = np.random.default_rng(2).normal(0, 100, (40, 50)).astype(np.float32)
    places = np.indices(image.shape).astype(float)
    again = map_coordinates(quintic_coefficients(image), places, order=5, prefilter=False, mode="mirror")
    assert np.allclose(again, image, atol=1e-3)
