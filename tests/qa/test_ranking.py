"""The order in which candidates are looked at."""

import numpy as np

from seechange_core.qa.ranking import interest


def test_lower_groups_come_first_and_what_is_known_last():
    score, known = np.array([6.0, 100.0, 500.0, 7.0]), np.array([False, False, True, False])
    group = np.array([0, 2, 0, 0])
    assert list(np.argsort(-interest(score, np.full(4, 3), group, known))) == [3, 0, 1, 2]


def test_sightings_add_up_and_the_sign_does_not_matter():
    ranks = interest(np.array([10.0, -8.0, 8.0]), np.array([1, 4, 4]), np.zeros(3, int), np.zeros(3, bool))
    assert ranks[1] == ranks[2] > ranks[0]
