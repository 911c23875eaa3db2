import numpy as np

from seechange_core.flags import PixelFlag
from seechange_core.frames import Amplifier, Box, RawFrame
from seechange_core.numerics.saturation import flag_levels, flag_trails

FULL = np.uint16(PixelFlag.SATURATED)
BLEED = np.uint16(PixelFlag.BLEED)


def one_above_the_other(data):
    half = data.shape[0] // 2
    boxes = Box(0, half, 0, data.shape[1]), Box(half, 2 * half, 0, data.shape[1])
    return RawFrame(
        data, tuple(Amplifier(n, b, None, b, 1, 1, 100) for n, b in zip("ab", boxes, strict=True)), 1
    )


def flagged(data, radius=0, nearly=(60.0, 60.0)):
    flags = np.zeros(data.shape, np.uint16)
    flag_levels(flags, data, 100.0, np.inf)
    flag_trails(flags, one_above_the_other(data), nearly, radius)
    return flags


def test_trails_hang_on_saturated_pixels_and_cross_amplifiers():
    data = np.zeros((12, 5), np.uint16)
    data[4, 1] = 100
    data[5:9, 1] = 70  # into the upper amplifier
    data[10, 1] = 70  # behind a gap
    data[3, 1] = 59
    data[0:5, 3] = 99  # nothing saturated here
    flags = flagged(data)
    assert flags[4, 1] == FULL
    assert np.all(flags[5:9, 1] == BLEED)
    assert np.sum(flags != 0) == 5
    assert np.sum(flagged(data, nearly=(60.0, 80.0)) != 0) == 2
    assert np.sum(flagged(data, nearly=(60.0, np.inf)) != 0) == 2


def test_growth_is_by_so_many_pixels_once():
    data = np.zeros((12, 9), np.uint16)
    data[5, 4] = 200
    for radius in (1, 2):
        flags = flagged(data, radius)
        assert flags[5, 4] == FULL
        assert np.sum(flags == BLEED) == (2 * radius + 1) ** 2 - 1
    data[:] = 0
    data[0, 0] = 100
    assert np.sum(flagged(data, 1) != 0) == 4
    assert not flagged(np.zeros((12, 9), np.uint16), 3).any()


def test_levels_of_integers_and_of_numbers_with_fractions():
    for dtype in (np.uint16, np.int32, np.float32):
        data = np.array([[10, 20, 21, 99, 100, 101]], dtype)
        flags = np.zeros(data.shape, np.uint16)
        flag_levels(flags, data, 99.5, 20.5)
        assert ((flags & FULL) != 0).tolist() == [[False, False, False, False, True, True]]
        assert ((flags & PixelFlag.NON_LINEAR) != 0).tolist() == [[False, False, True, True, True, True]]
        flags[:] = 0
        flag_levels(flags, data, 70000.0, 70000.0)
        flag_levels(flags, data, np.inf, np.inf)
        assert not flags.any()
    flags = np.zeros((1, 2), np.uint16)
    flag_levels(flags, np.array([[np.nan, np.inf]]), 10.0, 5.0)
    assert flags.tolist() == [[0, FULL]]
