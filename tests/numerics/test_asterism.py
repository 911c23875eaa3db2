"""Poses found among unrelated points, and the probability that chance found them."""

import numpy as np
import pytest
from scipy.stats import binom

from seechange_core.numerics.asterism import Pose, PoseLimits, find_pose, log10_chance

SHAPE = (1000, 1000)


def _lists(rng, turn_deg, parity, shift, n=40, common=0.6):
    """Detections about the centre, and catalog points over a wider area; `common` are in both."""
    x, y = rng.uniform(-500, 500, (2, n))
    turn, scale = np.deg2rad(turn_deg), 0.5
    xi = scale * (-parity * x * np.cos(turn) + y * np.sin(turn)) + shift[0]
    eta = scale * (parity * x * np.sin(turn) + y * np.cos(turn)) + shift[1]
    kept = rng.uniform(size=n) < common
    others = rng.uniform(-700, 700, (2, 3 * n))
    xi, eta = np.append(xi[kept], others[0]), np.append(eta[kept], others[1])
    order = rng.permutation(len(xi))
    return x, y, xi[order] + rng.normal(0, 0.1, len(xi)), eta[order] + rng.normal(0, 0.1, len(xi))


@pytest.mark.parametrize("seed", range(8))
def test_rotation_parity_and_shift_are_recovered(seed):
    rng = np.random.default_rng(seed)
    turn, parity, shift = rng.uniform(0, 360), int(rng.choice([-1, 1])), rng.uniform(-150, 150, 2)
    pose = find_pose(*_lists(rng, turn, parity, shift), SHAPE, PoseLimits(0.5, 0.03, 300.0), n_bright=40)
    assert pose.log10_chance < -13
    assert pose.parity == parity
    assert pose.scale == pytest.approx(0.5, rel=1e-3)
    assert pose.matrix[:, 2] == pytest.approx(shift, abs=0.2)
    found = np.rad2deg(np.arctan2(pose.matrix[0, 1], pose.matrix[1, 1])) % 360
    assert (found - turn + 180) % 360 - 180 == pytest.approx(0.0, abs=0.1)


def test_unrelated_lists_are_not_significant():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x, y = rng.uniform(-500, 500, (2, 60))
        xi, eta = rng.uniform(-700, 700, (2, 250))
        pose = find_pose(x, y, xi, eta, SHAPE, PoseLimits(0.5, 0.03, 300.0))
        assert pose is None or pose.log10_chance > -11


def test_limits_exclude_what_they_should():
    rng = np.random.default_rng(1)
    lists = _lists(rng, 30.0, 1, (50.0, 0.0))
    right = find_pose(*lists, SHAPE, PoseLimits(0.5, 0.03, 300.0, 28.0, 5.0, 1))
    assert right.log10_chance < -13
    for limits in (
        PoseLimits(0.5, 0.03, 300.0, 40.0, 5.0, 1),
        PoseLimits(0.5, 0.03, 300.0, 28.0, 5.0, -1),
        PoseLimits(0.6, 0.03, 300.0),
        PoseLimits(0.5, 0.03, 20.0),
    ):
        pose = find_pose(*lists, SHAPE, limits)
        assert pose is None or pose.log10_chance > -11


def test_chance_is_a_binomial_tail():
    density, radius = 1e-3, 4.0
    hit = 1 - np.exp(-density * np.pi * radius**2)
    assert log10_chance(10, 50, density, radius) == pytest.approx(np.log10(binom.sf(9, 50, hit)))
    assert log10_chance(0, 50, density, radius) == 0.0


def test_too_few_points_give_no_pose():
    two = np.array([0.0, 1.0])
    assert find_pose(two, two, two, two, SHAPE, PoseLimits(0.5, 0.03, 300.0)) is None
    assert Pose(np.array([[-0.5, 0, 0], [0, 0.5, 0]])).parity == 1
