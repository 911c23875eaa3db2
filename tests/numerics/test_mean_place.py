"""Sums over sightings: the mean of all of them, to the last bit in any order."""

import json

import numpy as np
import pytest

from seechange_core.numerics.mean_place import Place, PlaceSums
from seechange_core.numerics.sky import mean_position, offset, separation

PLACES = [(0.0, 20.0), (359.99999, -40.0), (77.0, 89.9999), (10.0, 0.0), (200.0, -90.0)]


def at(ra, dec, east, north):
    """Return positions by offsets, arcsec."""
    return offset(ra, dec, np.asarray(east, float) / 3600, np.asarray(north, float) / 3600)


def mean(ra, dec, err):
    """Return the mean place of some sightings."""
    places = [Place(*map(float, row)) for row in zip(ra, dec, err, strict=True)]
    return PlaceSums(min(places, key=lambda place: place.precision)).plus(places).mean()


@pytest.mark.parametrize("place", PLACES)
def test_sums_do_not_know_in_which_order_they_were_made(place):
    rng = np.random.default_rng(3)
    ra, dec = offset(*place, *rng.normal(0, 0.3, (2, 50)) / 3600)
    err = rng.uniform(0.001, 1.0, 50)
    places = [Place(*row) for row in np.stack([ra, dec, err], axis=-1).tolist()]
    whole = PlaceSums(places[7]).plus(places)
    for _ in range(5):
        some = [places[k] for k in rng.permutation(50)]
        part = PlaceSums(places[7]).plus(some[:20])
        kept = PlaceSums.from_plain(json.loads(json.dumps(part.plain())))
        assert kept.plus(some[20:]) == whole
    average = whole.mean()
    assert separation(average.ra, average.dec, *mean_position(ra, dec, err**-2.0)) * 3600 < 1e-9
    assert np.hypot(average.ra_err_arcsec, average.dec_err_arcsec) >= np.sqrt(2 / np.sum(err**-2.0)) - 1e-12


@pytest.mark.parametrize("place", PLACES)
def test_errors_of_mean_places_are_honest(place):
    """Pulls towards east and north: standard normal, with right errors and with errors that are too small."""
    rng = np.random.default_rng(5)
    pulls, factor_pulls = [], []
    for _ in range(300):
        err = rng.uniform(0.02, 0.3, 12)
        shift = rng.normal(0, err, (2, 12))
        for scale, found in ((1.0, pulls), (3.0, factor_pulls)):
            found_at = mean(*at(*place, *scale * shift), err)
            east, north = tangent(place, found_at.ra, found_at.dec)
            found.append((east / found_at.ra_err_arcsec, north / found_at.dec_err_arcsec))
    assert np.abs(np.mean(pulls, axis=0)).max() < 4 / np.sqrt(300)
    assert np.std(pulls, axis=0) == pytest.approx(1, abs=4 / np.sqrt(600))
    assert np.std(factor_pulls, axis=0) == pytest.approx(1, abs=0.2)


def tangent(place, ra, dec):
    """Return small offsets from a place towards east and north, arcsec."""
    basis = np.array([at(*place, 1, 0), at(*place, 0, 1)])
    vectors = [np.array(unit(*p)) - unit(*place) for p in basis]
    shift = np.array(unit(ra, dec)) - unit(*place)
    return [float(shift @ v / (v @ v)) for v in vectors]


def unit(ra, dec):
    lon, lat = np.deg2rad([ra, dec])
    return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def test_a_single_place_keeps_its_error():
    assert mean([10.0], [5.0], [0.1]) == pytest.approx((10.0, 5.0, 0.1, 0.1))
