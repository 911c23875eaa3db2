"""Sums over sightings: the mean of all of them, to the last bit in any order."""

import json

import numpy as np
import pytest

from seechange_core.numerics.mean_place import Place, PlaceSums
from seechange_core.numerics.sky import mean_position, offset, separation


@pytest.mark.parametrize("place", [(0.0, 20.0), (359.99999, -40.0), (77.0, 89.9999), (200.0, -90.0)])
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
    mean = whole.mean()
    assert separation(mean.ra, mean.dec, *mean_position(ra, dec, err**-2.0)) * 3600 < 1e-9
    assert np.hypot(mean.ra_err_arcsec, mean.dec_err_arcsec) >= np.sqrt(2 / np.sum(err**-2.0)) - 1e-12
