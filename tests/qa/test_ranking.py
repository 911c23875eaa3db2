"""The order in which candidates are looked at."""

import numpy as np

from seechange_core.qa.ranking import interest


def test_what_is_new_comes_first_then_what_moves_then_what_is_known():
    score, known = np.array([6.0, 100.0, 500.0, 7.0]), np.array([False, False, True, False])
    moves = np.array([False, True, False, False])
    assert list(np.argsort(-interest(score, np.full(4, 3), known, moves))) == [3, 0, 1, 2]


def test_sightings_add_up_and_the_sign_does_not_matter():
    nothing = np.zeros(3, bool)
    ranks = interest(np.array([10.0, -8.0, 8.0]), np.array([1, 4, 4]), nothing, nothing)
    assert ranks[1] == ranks[2] > ranks[0]
