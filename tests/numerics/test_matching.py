"""One-to-one matches against brute force, also where the sphere is awkward."""

import numpy as np
import pytest

from seechange_core.numerics import sky
from seechange_core.numerics.matching import match_plane, match_sky, neighbour_distance


def test_plane_matches_are_mutual_and_nearest():
    rng = np.random.default_rng(1)
    x1, y1, x2, y2 = rng.uniform(0, 100, (4, 400))
    found = match_plane(x1, y1, x2, y2, 3.0)
    distance = np.hypot(x1[:, None] - x2, y1[:, None] - y2)
    expected = [
        (i, j)
        for i, j in enumerate(distance.argmin(axis=1))
        if distance[i, j] <= 3.0 and distance[:, j].argmin() == i
    ]
    assert list(zip(found.first, found.second, strict=True)) == expected
    assert found.distance == pytest.approx(distance[found.first, found.second])
    assert len(set(found.second)) == len(found.second)


def test_a_point_at_the_very_radius_counts_and_not_a_number_never():
    found = match_plane([0.0, np.nan, 50.0], [0.0, 0.0, 0.0], [3.0, np.nan], [0.0, 0.0], 3.0)
    assert (list(found.first), list(found.second)) == ([0], [0])
    assert len(match_plane([], [], [1.0], [1.0], 3.0).first) == 0
    assert len(match_plane([np.nan], [0.0], [1.0], [1.0], 3.0).first) == 0


@pytest.mark.parametrize("place", [(0.0, 0.0), (359.99999, 45.0), (10.0, 90.0), (200.0, -89.9999)])
def test_sky_matches_across_ra_zero_and_at_the_poles(place):
    rng = np.random.default_rng(2)
    east, north = rng.uniform(-0.02, 0.02, (2, 300))
    ra, dec = sky.offset(*place, east, north)
    error = rng.normal(0, 0.1 / 3600, (2, 300))
    order = rng.permutation(300)
    ra2, dec2 = (a[order] for a in sky.offset(ra, dec, *error))
    found = match_sky(ra, dec, ra2, dec2, 1.0)
    right = order[found.second] == found.first
    assert len(found.first) > 290
    assert np.mean(right) > 0.98
    assert found.distance[right] == pytest.approx(3600 * np.hypot(*error)[found.first[right]], abs=1e-5)


def test_distance_to_the_nearest_other_point():
    assert neighbour_distance([0.0, 3.0, 100.0], [0.0, 4.0, 0.0])[:2] == pytest.approx([5.0, 5.0])
    assert neighbour_distance([1.0], [1.0]) == pytest.approx([np.inf])
