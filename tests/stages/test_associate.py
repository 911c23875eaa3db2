import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seechange_core.errors import SettingsError
from seechange_core.numerics.sky import offset, separation
from seechange_core.stages.associate import AssociateParams, associate

PLACES = [(0.0, 20.0), (359.99999, -40.0), (77.0, 89.9999), (10.0, 0.0), (200.0, -90.0)]


def at(ra, dec, east, north):
    """Return positions by offsets, arcsec."""
    return offset(ra, dec, np.asarray(east, float) / 3600, np.asarray(north, float) / 3600)


def run(east, err=0.05, place=(10.0, 5.0), north=None, **params):
    east = np.asarray(east, float)
    ra, dec = at(*place, east, np.zeros(len(east)) if north is None else north)
    return associate(ra, dec, np.broadcast_to(np.asarray(err, float), len(east)), AssociateParams(**params))


@pytest.mark.parametrize("place", PLACES)
def test_each_belongs_to_the_nearest_also_at_ra_0_and_the_poles(place):
    heads = run([0.0, 0.9, 0.4, 0.5], [0.01, 0.02, 0.2, 0.2], place)
    assert heads.tolist() == [0, 1, 0, 1]


def test_the_limits_are_the_radius_and_the_errors():
    assert run([0, 0.6]).tolist() == [0, 1]
    assert run([0, 0.6], 0.1).tolist() == [0, 0]
    assert run([0, 0.6], 0.1, radius_arcsec=0.5).tolist() == [0, 1]
    assert run([0, 0.25], 0.001).tolist() == [0, 0]
    assert run([0, 0.25], 0.001, min_radius_arcsec=0.2).tolist() == [0, 1]
    assert run([]).tolist() == []


def test_duplicates_within_a_batch_are_one():
    assert len(set(run([0.0, 0.0, 0.05, 0.1, 0.2]).tolist())) == 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), place=st.sampled_from(PLACES))
def test_neither_order_nor_what_is_far_away_matters(seed, place):
    rng = np.random.default_rng(seed)
    ra, dec = at(*place, *rng.normal(0, 1.5, (2, 40)))
    err = rng.choice([0.02, 0.1, 0.3], 40)
    heads = associate(ra, dec, err, AssociateParams())
    order = rng.permutation(40)
    shuffled = associate(ra[order], dec[order], err[order], AssociateParams())
    assert np.array_equal(order[shuffled], heads[order])
    far = at(*place, rng.normal(0, 1, 9), 30 + rng.normal(0, 1, 9))
    more = [np.append(a, b) for a, b in zip((ra, dec), far, strict=True)]
    assert np.array_equal(associate(*more, np.append(err, np.full(9, 0.01)), AssociateParams())[:40], heads)
    # The nearest of the heads that it may belong to.
    for i, own in enumerate(heads):
        for k in np.unique(heads):
            distance = 3600 * separation(ra[i], dec[i], ra[[own, k]], dec[[own, k]])
            allowed = np.clip(5 * np.hypot(err[i], err[k]), 0.3, 1.0)
            assert distance[0] <= distance[1] + 1e-9 or distance[1] > allowed


def test_a_pattern_of_names_must_tell_places_apart():
    assert AssociateParams.checked({"name_pattern": "SN%y%a"}, "associate").name_pattern == "SN%y%a"
    for pattern in ("obj%Y", "obj%Q%a", "x/%a"):
        with pytest.raises(SettingsError, match=r"associate\.name_pattern"):
            AssociateParams.checked({"name_pattern": pattern}, "associate")


def test_a_star_that_moves_is_one_object_for_as_long_as_the_documentation_says():
    """By 0.2 arcsec a year, seen every two months with errors of 10 mas: three years and no more."""
    for years, n_objects in ((2.9, 1), (5.0, 3)):
        t = np.arange(-years / 2, years / 2, 1 / 6)
        ra, dec = offset(40.0, -30.0, 0.2 * t / 3600, 0.0 * t)
        err = np.where(np.abs(t) < 0.1, 0.009, 0.01)  # the best in the middle
        assert len(np.unique(associate(ra, dec, err, AssociateParams()))) == n_objects
    wide = AssociateParams(min_radius_arcsec=0.6)
    assert len(np.unique(associate(ra, dec, err, wide))) == 1
