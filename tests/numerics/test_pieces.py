"""Connected pieces of masks, against scipy's labels of the whole image."""

import numpy as np
import pytest
from scipy.ndimage import center_of_mass, find_objects, label

from seechange_core.numerics.pieces import pieces_of


@pytest.mark.parametrize(
    ("shape", "share"), [((1, 1), 1.0), ((5, 5), 0.0), ((60, 60), 1.0), ((80, 90), 0.05), ((80, 90), 0.45)]
)
def test_pieces_are_scipys(shape, share):
    mask = np.random.default_rng(3).random(shape) < share
    labels, count = label(mask, np.ones((3, 3)))
    found = pieces_of(mask)
    assert found.count == count
    assert np.array_equal(found.which, labels[found.rows, found.columns] - 1)
    boxes = find_objects(labels)
    assert found.longest_side == max((s.stop - s.start for box in boxes for s in box), default=0)
    if count:
        y, x = np.transpose(center_of_mass(mask, labels, np.arange(1, count + 1)))
        assert np.allclose(found.centres, [x, y])


def test_pieces_know_what_holds_of_any_of_their_pixels():
    mask = np.zeros((6, 9), bool)
    mask[1, 1:3] = mask[4, 5] = mask[5, 6] = True
    found = pieces_of(mask)
    assert list(found.any_of(found.columns == 2)) == [True, False]
