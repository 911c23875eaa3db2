"""Lines through the detections of a night, against simulated asteroids among everything else."""

import numpy as np
import pytest

from seechange_core.numerics.sky import offset, separation
from seechange_core.numerics.tracklets import Detections, find_tracklets

ERR = 0.08


def night(seed, n_movers=30, n_steady=60, n_false=40, n_exposures=4):
    """Simulate a field: what moves, what stays, and false detections; return them and whose each is."""
    rng = np.random.default_rng(seed)
    times = 60000.2 + np.arange(n_exposures) * 9.0 / 1440
    n = n_movers + n_steady
    ra, dec = 359.8 + rng.uniform(0, 0.5, n), -30 + rng.uniform(0, 0.5, n)
    rate = np.where(np.arange(n) < n_movers, rng.uniform(8, 60, n), 0.0)
    angle, mag = rng.uniform(0, 2 * np.pi, n), rng.uniform(18, 21.5, n)
    rows = []
    for k, mjd in enumerate(times):
        hours = 24 * (mjd - times[0])
        seen = rng.uniform(size=n) < 0.95
        a, d = offset(ra, dec, rate * hours * np.sin(angle) / 3600, rate * hours * np.cos(angle) / 3600)
        rows += [(mjd, k, a[i], d[i], mag[i] + rng.normal(0, 0.1), i) for i in np.flatnonzero(seen)]
        fa, fd = 359.8 + rng.uniform(0, 0.5, n_false), -30 + rng.uniform(0, 0.5, n_false)
        rows += [(mjd, k, *p, rng.uniform(18, 22), -1) for p in zip(fa, fd, strict=True)]
    mjd, exposure, a, d, m, who = map(np.array, zip(*rows, strict=True))
    a, d = offset(a, d, rng.normal(0, ERR, len(a)) / 3600, rng.normal(0, ERR, len(a)) / 3600)
    who = np.where(who < n_movers, who, -2)
    steady = np.zeros(len(a), bool)
    return Detections(mjd, exposure, a, d, np.full(len(a), ERR), m, steady), who, rate, np.rad2deg(angle)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_asteroids_are_found_and_nothing_else_moves(seed):
    seen, who, rate, angle = night(seed)
    lines = find_tracklets(seen)
    owners = [set(who[list(line.members)]) for line in lines]
    pure = [next(iter(o)) for o in owners if len(o) == 1 and min(o) >= 0]
    assert len(set(pure)) >= 28  # of 30; one may cross a field where false detections crowd
    assert len(lines) - len(pure) <= 1
    for line, owner in zip(lines, owners, strict=True):
        if len(owner) == 1 and len(line.members) > 2 and (i := next(iter(owner))) >= 0:
            assert line.rate_arcsec_h == pytest.approx(rate[i], abs=1.5)
            turn = (line.angle_deg - angle[i] + 180) % 360 - 180
            assert abs(turn) * np.deg2rad(1) * rate[i] < 2.0


def test_two_exposures_suffice_in_a_clean_field():
    seen, who, *_ = night(4, n_movers=10, n_false=2, n_exposures=2)
    lines = find_tracklets(seen)
    assert sum(len(set(who[list(line.members)])) == 1 and who[line.members[0]] >= 0 for line in lines) >= 7
    assert all(line.chance <= 0.02 for line in lines)


def test_false_detections_alone_do_not_move():
    """Eight nights of four exposures with 100 of them each: as few lines as the limit of chance promises."""
    found = [len(find_tracklets(night(s, 0, 40, 100)[0])) for s in range(10, 18)]
    assert np.mean(found) < 0.02 * 400


def test_what_was_seen_there_before_is_left_alone():
    seen, *_ = night(5, n_false=0)
    seen.steady[:] = True
    assert find_tracklets(seen) == []
    nothing = np.zeros(0)
    assert find_tracklets(Detections(nothing, nothing.astype(int), *(nothing,) * 4, nothing > 0)) == []


def test_each_detection_is_in_one_line_and_each_line_once_in_an_exposure():
    seen, *_ = night(6, n_movers=80)
    lines = find_tracklets(seen)
    members = [i for line in lines for i in line.members]
    assert len(members) == len(set(members))
    for line in lines:
        rows = list(line.members)
        assert len(set(seen.exposure[rows])) == len(rows) and np.all(np.diff(seen.mjd[rows]) > 0)
        first, last = rows[0], rows[-1]
        far = float(separation(seen.ra[first], seen.dec[first], seen.ra[last], seen.dec[last])) * 3600
        hours = 24 * (seen.mjd[last] - seen.mjd[first])
        assert far / hours == pytest.approx(line.rate_arcsec_h, rel=0.2, abs=3)
