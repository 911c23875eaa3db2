import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seechange_core.numerics.sky import offset
from seechange_core.stages.associate import AssociateParams, associate


def run(new, known, new_err=0.05, known_err=0.05, **params):
    ra, dec = np.array(new, float).reshape(-1, 2).T
    kra, kdec = np.array(known, float).reshape(-1, 2).T
    errors = np.full(len(ra), new_err), np.full(len(kra), known_err)
    return associate(ra, dec, errors[0], kra, kdec, errors[1], AssociateParams(**params)).tolist()


def at(ra, dec, east, north):
    return [float(v) for v in offset(ra, dec, east / 3600, north / 3600)]


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 20.0), (359.99999, -40.0), (77.0, 89.9999), (10.0, 0.0)])
def test_the_nearest_wins_also_at_ra_0_and_the_pole(ra, dec):
    known = [at(ra, dec, 0.25, 0), at(ra, dec, -0.1, 0.05), at(ra, dec, 0, 3)]
    assert run([[ra, dec]], known) == [1]


def test_each_known_object_is_taken_once():
    known = [[10.0, 5.0]]
    near, nearer = at(10, 5, 0.2, 0), at(10, 5, 0.1, 0)
    assert run([near, nearer], known) == [-1, 0]
    assert run([nearer, near], known) == [0, -1]
    assert run([near, nearer], [*known, at(10, 5, 0.3, 0)]) == [1, 0]


def test_the_limits_are_the_radius_and_the_errors():
    known = [[10.0, 5.0]]
    away = [at(10, 5, 0, 0.6)]
    assert run(away, known) == [-1]
    assert run(away, known, new_err=0.2) == [0]
    assert run(away, known, new_err=0.2, radius_arcsec=0.5) == [-1]
    assert run([at(10, 5, 0, 0.25)], known, new_err=0.001, known_err=0.001) == [0]


def test_nothing_on_either_side():
    assert run([], [[1.0, 1.0]]) == []
    assert run([[1.0, 1.0]], []) == [-1]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    new = rng.normal([0.0, 10.0], 1 / 3600, (12, 2))
    known = rng.normal([0.0, 10.0], 1 / 3600, (9, 2))
    order = rng.permutation(12)
    plain, shuffled = run(new, known, 0.2), run(new[order], known, 0.2)
    assert [plain[i] for i in order] == shuffled
    taken = [p for p in plain if p >= 0]
    assert len(taken) == len(set(taken))
