"""Measurements that join objects as they are: the same as grouping everything anew, without reading it."""

import numpy as np
import pytest
from measured_sky import Batch, one
from sqlalchemy import delete, select, update

from seechange_core.chain import objects as module
from seechange_core.chain.objects import delete_sightings, regroup
from seechange_core.flags import QualityFlag
from seechange_core.numerics.sky import offset
from seechange_core.products import Exposure, Measurement, Object, Sighting, SourceList, StepOutcome, Verdict
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


def anew(sky):
    """Group everything anew."""
    with open_session(sky.settings) as session:
        places = list(session.execute(select(Measurement.ra, Measurement.dec)))
        return regroup(session, sky.provenance_id, places, AssociateParams())


def begin_again(sky, number):
    """Walk an exposure again as far as a new difference: what was made of the old one counts no more."""
    with open_session(sky.settings) as session:
        named = select(Exposure.id).where(Exposure.name == f"e{number}").scalar_subquery()
        session.execute(delete(StepOutcome).where(StepOutcome.exposure_id == named))


def say(sky, word, east):
    """Judge a place."""
    place = one(0, east)
    said = {"object_name": "another", "ra": float(place.ra[0]), "dec": float(place.dec[0])}
    with open_session(sky.settings) as session:
        session.add(Verdict(**said, word=word, reason="a spike", said_by="me"))


def whose(sky):
    """Return where something was seen (arcsec east) and what it is called, None if it is nothing."""
    with open_session(sky.settings, read_only=True) as session:
        names = dict(session.execute(select(Object.id, Object.name).where(Object.n_sightings > 0)).all())
        rows = session.execute(select(Measurement.ra, Measurement.object_id))
        return sorted((round((ra - 150) * 3600, 2), names.get(owner)) for ra, owner in rows)


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
    done = anew(sky)
    assert (done.n_new, len(done.measurements)) == (0, 9 * 12)
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
    ((name, *_, n, first, _, _, _),) = sky.objects()
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


NOTHING = np.zeros(0)


@pytest.mark.parametrize("together", [True, False])
def test_nothing_joins_what_may_be_gone(sky, together):
    """The best-placed sighting of an object is measured again and not found: what is beside it stays."""
    sky.measure(one(1, 0.0, err=0.02))
    sky.measure(one(2, -0.8, err=0.2))
    begin_again(sky, 1)
    if together:
        ra, dec = offset(150.0, 2.0, np.array([0.8, -1.3]) / 3600, np.zeros(2))
        sky.measure(Batch(3, 0, ra, dec, np.array([0.2, 0.1])))
    else:
        sky.measure(one(3, 0.8, err=0.2))
        sky.measure(one(4, -1.3, err=0.1))
    sky.measure(Batch(1, 0, *[NOTHING] * 3))
    west, east = {name for place, name in whose(sky) if place < -0.5}, dict(whose(sky))[0.8]
    assert len(west) == 1 and None not in west and east is not None and {east} != west
    left = sky.objects()
    anew(sky)
    assert sky.objects() == left


def test_what_a_head_that_is_gone_held_together_is_released_to_objects_of_its_own(sky):
    """Both sides were in its object before it was walked again; only one of them sees something new."""
    for number, east, err in ((1, 0.0, 0.02), (2, -0.8, 0.2), (3, 0.8, 0.2)):
        sky.measure(one(number, east, err=err))
    assert [row[5] for row in sky.objects()] == [3]
    begin_again(sky, 1)
    sky.measure(one(4, -1.3, err=0.1))
    left = sky.objects()
    assert sorted(row[5] for row in left) == [1, 2]
    sky.measure(Batch(1, 0, *[NOTHING] * 3))
    assert sky.objects() == left
    anew(sky)
    assert sky.objects() == left


def test_what_is_seen_while_the_first_sighting_is_made_again_has_its_name(sky):
    """In one cell and one year of names: there are no two objects of one name."""
    sky.measure(one(1, 0.0, err=0.02))
    ((name, *_),) = sky.objects()
    begin_again(sky, 1)
    sky.measure(one(2, 0.02, err=0.05))
    sky.measure(one(1, 0.0, err=0.02))
    assert [(row[0], row[5]) for row in sky.objects()] == [(name, 2)]


@pytest.mark.parametrize("seed", [1, 2])
def test_sections_walked_again_leave_what_grouping_everything_anew_makes(sky, seed):
    """Crowded places, some exposures between two walks; when all have ended, it is as if none had been."""
    rng, open_ones = np.random.default_rng(seed), set()
    for _ in range(14):
        number = int(rng.integers(0, 7))
        if rng.random() < 0.4:
            begin_again(sky, number)
            open_ones.add(number)
            continue
        east, north = rng.uniform(0, 3.0, (2, 10)) / 3600
        err = rng.choice([0.03, 0.05, 0.1, 0.2, 0.4], 10)
        sky.measure(Batch(number, 0, *offset(150.0, 2.0, east, north), err))
        open_ones.discard(number)
    for number in sorted(open_ones):
        sky.measure(Batch(number, 0, *[NOTHING] * 3))
    left = sky.objects()
    anew(sky)
    assert sky.objects() == left
    with open_session(sky.settings, read_only=True) as session:
        assert sum(row[5] for row in left) == len(session.scalars(current(sky)).all())


def current(sky):
    """Select the measurements whose lists are the present ones of their sections."""
    query = select(Measurement.id).join(Sighting, Sighting.id == Measurement.sighting_id)
    query = query.join(SourceList, SourceList.id == Sighting.source_list_id)
    return query.join(StepOutcome, StepOutcome.data_version == SourceList.data_version)


def test_a_verdict_is_of_the_object_that_is_nearest_now(sky):
    """What was said of a place between two objects: the mean place of one of them moves away from it."""
    sky.measure(one(1, 0.0, err=0.05))
    sky.measure(one(2, 0.5, err=0.05))
    say(sky, "bogus", 0.24)
    anew(sky)
    assert [row[-1] for row in sorted(sky.objects(), key=lambda row: row[1])] == [True, False]
    for number in range(3, 7):
        sky.measure(one(number, -0.2, err=0.06))
    assert [row[-1] for row in sorted(sky.objects(), key=lambda row: row[1])] == [False, True]
    joined = sky.objects()
    anew(sky)
    assert sky.objects() == joined


def test_what_is_deleted_leaves_the_sums(sky):
    """By us, and by anyone else: an object whose sums count more than it has is not known."""
    for number, east in ((1, 0.0), (2, 0.0), (3, 0.2)):
        sky.measure(one(number, east, err=0.05 + 0.001 * number))
    with open_session(sky.settings) as session:
        last = select(Measurement.sighting_id).order_by(Measurement.mjd_mid.desc()).limit(1)
        delete_sightings(session, Sighting.id == session.scalars(last).one())
    ((_, ra, _, _, _, n, *_),) = sky.objects()
    assert n == 2 and ra == pytest.approx(150.0, abs=1e-9)
    with open_session(sky.settings) as session:
        session.execute(update(Object).values(n_sightings=1))
    sky.measure(one(4, 0.0, err=0.06))
    left = sky.objects()
    assert [row[5] for row in left] == [3]
    anew(sky)
    assert sky.objects() == left
