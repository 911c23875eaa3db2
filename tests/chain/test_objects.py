"""Objects are a function of all measurements: in any order, in any batches, on both engines."""

import numpy as np
import pytest
from measured_sky import Batch, Sky, one
from sqlalchemy import select

from seechange_core.chain.light_curves import object_named
from seechange_core.chain.objects import regroup_exposure
from seechange_core.flags import QualityFlag
from seechange_core.numerics.sky import offset, separation
from seechange_core.pool import WorkerPool
from seechange_core.products import (
    Cutouts,
    Exposure,
    Measurement,
    Object,
    ObjectAlias,
    Sighting,
    StepOutcome,
    Verdict,
)
from seechange_core.products.object import object_name, objects_named
from seechange_core.products.provenance import record_provenance
from seechange_core.provenance import ProvenanceKey
from seechange_core.storage.engine import open_session


def field(seed, ra, dec, n_exposures=5, n_sections=2, n_objects=9):
    """Make batches of a crowded little field: pairs, chains, false ones; good and poor positions."""
    rng = np.random.default_rng(seed)
    east, north = rng.uniform(-6, 6, (2, n_objects))
    east[1], north[1] = east[0] + 0.7, north[0]
    east[2], north[2] = east[1] + 0.6, north[1] + 0.3
    batches = []
    for number in range(n_exposures):
        seen = np.flatnonzero(rng.random(n_objects) < 0.8)
        err = rng.choice([0.02, 0.1, 0.25], len(seen))
        e = np.append(east[seen] + rng.normal(0, err), rng.uniform(-8, 8, 2))
        n = np.append(north[seen] + rng.normal(0, err), rng.uniform(-8, 8, 2))
        a, d = offset(ra, dec, e / 3600, n / 3600)
        which = rng.integers(0, n_sections, len(a))
        err = np.append(err, [0.2, 0.2])
        batches += [
            Batch(number, k, a[which == k], d[which == k], err[which == k]) for k in range(n_sections)
        ]
    return batches


def empty(sky):
    """Forget all that was measured."""
    with open_session(sky.settings) as session:
        for kind in (Measurement, Cutouts, Sighting, StepOutcome, ObjectAlias, Object):
            session.execute(kind.__table__.delete())


@pytest.mark.parametrize(("ra", "dec"), [(0.0005, 20.0), (77.0, 89.9995)])
def test_objects_do_not_depend_on_order_batches_or_reruns(sky, ra, dec):
    batches = field(1, ra, dec)
    for batch in batches:
        sky.measure(batch)
    first = sky.objects()
    assert len(first) > 12 and len({name for name, *_ in first}) == len(first)
    rng = np.random.default_rng(2)
    for batch in rng.permutation(np.array(batches, object)).tolist():  # a re-run of everything
        assert sky.measure(batch) == 0
    assert sky.objects() == first
    empty(sky)
    for batch in rng.permutation(np.array(batches, object)):
        sky.measure(batch)
    assert sky.objects() == first
    empty(sky)
    for batch in reversed(batches):  # split otherwise
        half = np.arange(len(batch.ra)) % 2 == 0
        for k, part in enumerate((half, ~half)):
            sky.measure(
                Batch(batch.exposure, 2 * batch.section + k, batch.ra[part], batch.dec[part], batch.err[part])
            )
    assert sky.objects() == first


def test_sections_that_finish_at_once_make_no_object_twice(sky):
    batches = field(3, 150.0, -30.0)
    with open_session(sky.settings) as session:
        for batch in batches:
            sky._exposure(session, batch.exposure)
    with WorkerPool(4) as pool:  # processes, as sections are worked on
        results = list(pool.run(Sky.measure, [(sky, batch) for batch in batches]))
    assert [r.error for r in results] == [None] * len(batches)
    at_once = sky.objects()
    empty(sky)
    for batch in batches:
        sky.measure(batch)
    assert sky.objects() == at_once


def test_what_turns_out_to_be_one_is_merged_and_both_names_are_found(sky):
    """Two poor sightings too far apart, and then a good one between them."""
    sky.measure(one(1, -0.28, err=0.05))
    sky.measure(one(2, 0.28, err=0.05))
    (first, *_), (second, *_) = sorted(sky.objects(), key=lambda row: row[6])
    sky.measure(one(3, 0.0, err=0.01))
    assert [(row[0], row[5]) for row in sky.objects()] == [(first, 3)]
    with open_session(sky.settings, read_only=True) as session:
        assert [(a.name, a.how) for a in session.scalars(select(ObjectAlias))] == [(second, "merged")]
        assert [o.name for o in objects_named(session, second)] == [first]
    assert object_named(sky.settings, second).name == object_named(sky.settings, first).name == first


def test_an_earlier_sighting_renames_and_the_old_name_is_found(sky):
    sky.measure(one(200, 0.25))
    (old, *_) = sky.objects()[0]
    sky.measure(one(1, -0.25))
    (name, *_) = sky.objects()[0]
    early = one(1, -0.25)
    assert name == object_name("obj%Y%a", early.ra[0], early.dec[0], early.mjd) != old
    assert object_named(sky.settings, old).name == name
    with open_session(sky.settings, read_only=True) as session:
        assert [(a.name, a.how) for a in session.scalars(select(ObjectAlias))] == [(old, "renamed")]


def test_what_a_new_reference_no_longer_shows_leaves_its_object(sky):
    for number in range(3):
        sky.measure(one(number, 0.05 * number))
    gone = Batch(0, 0, np.empty(0), np.empty(0), np.empty(0))
    sky.measure(gone)
    ((name, *_, n, first, last, _, _),) = [(r[0], *r[5:]) for r in sky.objects()]
    assert (n, first, last) == (2, one(1, 0).mjd, one(2, 0).mjd)
    assert name == object_name("obj%Y%a", one(1, 0.05).ra[0], one(1, 0.05).dec[0], one(1, 0).mjd)
    for number in (1, 2):
        sky.measure(Batch(number, 0, *[np.empty(0)] * 3))
    assert sky.objects() == []
    assert object_named(sky.settings, name).n_sightings == 0
    sky.measure(one(2, 0.1))
    assert len(sky.objects()) == 1


def test_a_crowd_of_false_detections_makes_no_objects_until_the_settings_allow_it(sky):
    """Two exposures see one thing; a bad subtraction sees it too, shifted, among forty false ones."""
    for number in range(2):
        sky.measure(one(number, 0.05 * number))
    before = sky.objects()
    east, north = np.random.default_rng(3).uniform(-20, 20, (2, 41))
    east[0], north[0] = 0.2, 0.0
    places = offset(150.0, 2.0, east / 3600, north / 3600)
    err = np.full(41, 0.1)
    sky.measure(Batch(2, 0, *places, err, bitflag=int(QualityFlag.TOO_DENSE | QualityFlag.BRIGHT_SKY)))
    assert sky.objects() == before
    sky.measure(Batch(2, 0, *places, err, bitflag=int(QualityFlag.BRIGHT_SKY)))
    allowed = sky.objects()
    assert len(allowed) > 30 and max(row[5] for row in allowed) == 3
    sky.measure(Batch(2, 0, *places, err, bitflag=int(QualityFlag.TOO_DENSE)))
    assert sky.objects() == before


def test_an_exposure_called_bad_does_not_count_until_it_is_called_good(sky):
    for number in range(3):
        sky.measure(one(number, 0.05 * number))
    before = sky.objects()
    with open_session(sky.settings) as session:
        exposure_id = session.scalars(select(Exposure.id).where(Exposure.name == "e1")).one()
        said = Verdict(exposure_id=exposure_id, word="bad", reason="clouds", said_by="me")
        session.add(said)
        session.flush()
        regroup_exposure(session, exposure_id)
    assert [row[5] for row in sky.objects()] == [2]
    with open_session(sky.settings) as session:
        session.get_one(Verdict, said.id).counts = False
        session.flush()
        regroup_exposure(session, exposure_id)
    assert sky.objects() == before


def test_a_bad_exposure_counts_under_no_settings(sky):
    """Objects of an earlier processing, with limits of its own, are grouped anew by these."""
    keys = [
        ProvenanceKey("measurement", v, {"associate": {"radius_arcsec": r}})
        for v, r in (("2", 0.5), ("3", 1))
    ]
    for key in keys:
        with open_session(sky.settings) as session:
            sky.provenance_id = record_provenance(session, key).id
        for number, east in enumerate((0.0, 0.6, 0.6)):
            sky.measure(one(number, east, err=0.1))
    ids = [key.id for key in keys]

    def counts():
        with open_session(sky.settings, read_only=True) as session:
            rows = session.execute(select(Object.provenance_id, Object.n_sightings))
            return sorted((ids.index(key), n) for key, n in rows if n)

    assert counts() == [(0, 3), (1, 3)]
    with open_session(sky.settings) as session:
        exposure_id = session.scalars(select(Exposure.id).where(Exposure.name == "e2")).one()
        session.add(Verdict(exposure_id=exposure_id, word="bad", reason="clouds", said_by="me"))
        session.flush()
        regroup_exposure(session, exposure_id)
    assert counts() == [(0, 1), (0, 1), (1, 2)]


def test_positions_pull_as_their_errors_say(sky):
    """The true place of each object, over the quoted error, towards east and north."""
    rng = np.random.default_rng(8)
    ra, dec = offset(0.0, -60.0, rng.uniform(-1, 1, 60) / 60, rng.uniform(-1, 1, 60) / 60)
    for number in range(4):
        err = rng.choice([0.03, 0.1, 0.2], 60)
        seen = offset(ra, dec, rng.normal(0, err) / 3600, rng.normal(0, err) / 3600)
        sky.measure(Batch(number, 0, *seen, err))
    pulls = []
    for _, a, d, e_err, n_err, n, *_ in sky.objects():
        nearest = np.argmin(separation(a, d, ra, dec))
        if n == 4:
            east = ((a - ra[nearest] + 180) % 360 - 180) * np.cos(np.deg2rad(d))
            pulls += [east * 3600 / e_err, (d - dec[nearest]) * 3600 / n_err]
    assert len(pulls) > 100
    assert abs(np.mean(pulls)) < 4 / np.sqrt(len(pulls))
    assert np.std(pulls) == pytest.approx(1, abs=4 / np.sqrt(2 * len(pulls)))
