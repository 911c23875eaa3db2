import numpy as np

from seechange_core.flags import PixelFlag
from seechange_core.numerics.flag_sums import flags_within


def test_bits_are_joined_within_the_radius():
    flags = np.zeros((50, 60), np.uint16)
    flags[20, 30] = PixelFlag.SATURATED
    flags[22, 30] = PixelFlag.COSMIC_RAY
    x, y = np.array([30.0, 30.0, 30.0, 40.0]), np.array([18.0, 21.0, 24.5, 21.0])
    assert flags_within(flags, x, y, 2.0).tolist() == [4, 4 | 16, 0, 0]


def test_the_nearest_pixel_always_counts_and_edges_are_told():
    flags = np.zeros((10, 10), np.uint16)
    flags[5, 5] = PixelFlag.BAD_PIXEL
    found = flags_within(flags, np.array([5.4, 0.0, np.nan, 1e12]), np.array([5.4, 5.0, 5.0, 5.0]), 0.1)
    assert found.tolist() == [1, 0, 8, 8]
    assert flags_within(flags, np.array([0.0]), np.array([5.0]), 1.0).tolist() == [8]
