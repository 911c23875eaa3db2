import numpy as np
import pytest

from seechange_core.errors import HeaderError, PixelsError
from seechange_core.frames import Amplifier, Box, Crosstalk
from seechange_core.numerics.crosstalk import coefficients_of, subtract_ghost


def amplifier(name, mirrored, width=5):
    return Amplifier(name, Box(0, 3, 0, width), None, Box(0, 3, 0, width), 1.0, 1.0, 1e5, mirrored=mirrored)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("source_mirrored", [False, True])
@pytest.mark.parametrize("source_width", [5, 3, 8])
def test_ghost_appears_where_pixels_are_read_at_the_same_moment(mirrored, source_mirrored, source_width):
    source = np.full((3, source_width), 10, np.float32)
    distance = 2  # of the bright pixel from its amplifier's first one
    source[1, source_width - 1 - distance if source_mirrored else distance] = 1010
    signal = np.zeros((3, 5), np.float32)
    ghost = np.zeros((3, 5))
    ghost[1, 4 - distance if mirrored else distance] = -0.01 * 1000
    pair = amplifier("A", mirrored), amplifier("B", source_mirrored, source_width)
    subtract_ghost(signal, pair[0], source, pair[1], np.full(3, 10.0), 0.01)
    np.testing.assert_allclose(signal, ghost, atol=1e-6)


def test_what_is_not_finite_leaves_nothing():
    source = np.array([[np.nan, np.inf, 3]], np.float32)
    signal = np.zeros((1, 3), np.float32)
    subtract_ghost(signal, amplifier("A", False, 3), source, amplifier("B", False, 3), np.zeros(1), 0.5)
    assert signal.tolist() == [[0, 0, -1.5]]


def test_names_choose_the_coefficients():
    table = np.array([[0, 1e-3, 0], [2e-3, 0, 5e-4], [0, 0, 0]])
    crosstalk = Crosstalk(("B", "A", "C"), table)
    assert coefficients_of(crosstalk, "B", ("A", "B")) == {"A": 1e-3}
    assert coefficients_of(crosstalk, "A", ("A", "B", "C")) == {"B": 2e-3, "C": 5e-4}
    assert coefficients_of(crosstalk, "C", ("C",)) == {}
    with pytest.raises(HeaderError, match="no amplifier D"):
        coefficients_of(crosstalk, "D", ("D",))
    with pytest.raises(HeaderError, match="A hears C"):
        coefficients_of(crosstalk, "A", ("A", "B"))
    for bad in (np.eye(3), table[:2], np.full((3, 3), np.nan)):
        with pytest.raises(PixelsError, match="crosstalk table of 3"):
            coefficients_of(Crosstalk(("B", "A", "C"), bad), "A", ("A",))
