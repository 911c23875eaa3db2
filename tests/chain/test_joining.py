"""Measurements that join objects as they are: the same as grouping everything anew, without reading it."""

import numpy as np
import pytest
from measured_sky import Batch, one
from sqlalchemy import select, update

from seechange_core.chain import objects as module
from seechange_core.chain.objects import regroup
from seechange_core.flags import QualityFlag
from seechange_core.numerics.sky import offset
from seechange_core.products import Measurement, Object
from seechange_core.stages.associate import AssociateParams
from seechange_core.storage.engine import open_session


@pytest.fixture
def looked(monkeypatch):
    """Count the measurements that were read to group around something."""
    found, real = [], module.neighbourhood

    def neighbourhood(*given):
        members = real(*given)
        found.append(len(members))
        return members

    monkeypatch.setattr(module, "neighbourhood", neighbourhood)
    return found


def crowd(rng, number, n=12):
    """See again what is there, with neighbours as near as the limits of the association."""
    east, north = 0.45 * (np.arange(n) % 2), 9.0 * (np.arange(n) // 2)
    err = rng.choice([0.03, 0.05, 0.1, 0.2], n)
    places = offset(0.0, 60.0, (east + rng.normal(0, err)) / 3600, (north + rng.normal(0, err)) / 3600)
    return Batch(number, 0, *places, err)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_what_grouping_everything_anew_makes(sky, looked, seed):
    rng = np.random.default_rng(seed)
    batches = [crowd(rng, number) for number in range(9)]
    for k in rng.permutation(len(batches)):
        sky.measure(batches[k])
    joined = sky.objects()
    assert len(joined) > 5
    assert sum(looked) < 9 * 12 * 9 / 2
    with open_session(sky.settings) as session:
        places = list(session.execute(select(Measurement.ra, Measurement.dec)))
        n_new, regrouped = regroup(session, sky.provenance_id, places, AssociateParams())
    assert (n_new, len(regrouped)) == (0, 9 * 12)
    assert sky.objects() == joined


def test_another_sighting_reads_no_earlier_ones(sky, looked):
    """But one that is better placed than all others, or earlier, or of an object whose sums are not known."""
    for number in range(1, 7):
        sky.measure(one(number, 0.02 * number, err=0.1 + 0.01 * number))
    assert looked == [1]
    sky.measure(one(7, 0.0, err=0.05))
    assert looked == [1, 7]
    sky.measure(one(0, 0.0, err=0.15))
    assert looked == [1, 7, 8]
    before = sky.objects()
    with open_session(sky.settings) as session:
        session.execute(update(Object).values(place_sums=None))
    sky.measure(one(8, 0.01, err=0.3))
    sky.measure(one(9, 0.01, err=0.3))
    assert looked == [1, 7, 8, 9]
    ((name, *_, n, first, _, _),) = sky.objects()
    assert (name, n, first) == (before[0][0], 10, before[0][6])


def test_a_crowd_of_false_ones_joins_nothing(sky, looked):
    """What does not count is added to no sums."""
    for number in range(2):
        sky.measure(one(number, 0.0))
    before = sky.objects()
    east = np.append(0.05, 20 + 3.0 * np.arange(40))
    places = offset(150.0, 2.0, east / 3600, 0 * east)
    sky.measure(Batch(2, 0, *places, np.full(41, 0.2), bitflag=int(QualityFlag.TOO_DENSE)))
    assert sky.objects() == before
    assert looked == [1, 2]  # equally well placed: the second may be the better one
