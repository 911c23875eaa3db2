"""Objects are a function of all measurements: in any order, in any batches, on both engines."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import select

from seechange_core.chain.light_curves import object_named
from seechange_core.chain.objects import assign_objects, regroup_exposure
from seechange_core.frames import WcsSolution, ZeroPointSolution
from seechange_core.numerics.sky import offset, separation
from seechange_core.products import (
    CatalogRelease,
    Cutouts,
    Exposure,
    Image,
    Measurement,
    Object,
    ObjectAlias,
    Sighting,
    SourceList,
    StepOutcome,
    Verdict,
    WorldCoordinates,
    ZeroPoint,
)
from seechange_core.products.object import object_name, objects_named
from seechange_core.products.provenance import record_provenance
from seechange_core.provenance import ProvenanceKey, digest
from seechange_core.settings import use_settings
from seechange_core.stages.associate import AssociateParams
from seechange_core.storage.engine import open_session
from seechange_core.storage.orm import new_id

CARDS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 5.0, "CRPIX2": 5.0,
    "CD1_1": -7.5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 7.5e-5, "CUNIT1": "deg", "CUNIT2": "deg",
}  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """What one section of one exposure saw."""

    exposure: int
    section: int
    ra: np.ndarray
    dec: np.ndarray
    err: np.ndarray

    @property
    def mjd(self) -> float:
        return 61000.0 + 3.7 * self.exposure


class Sky:
    """A database in which sections are measured: its rows are as the chain makes them."""

    def __init__(self, settings):
        self.settings = settings
        with open_session(settings) as session:
            self.provenance_id = record_provenance(session, ProvenanceKey("measurement", "1")).id
            image = self._image("science", None)
            image.exposure_id = self._exposure(session, 999)
            session.add(image)
            session.flush()
            listed = SourceList(image_id=image.id, **self._made())
            catalog = CatalogRelease(
                name="c", content_hash="0" * 64, n_stars=1, path="c", epoch=2016.0, bands=["r"]
            )
            session.add_all([listed, catalog])
            session.flush()
            of = {"image_id": image.id, "source_list_id": listed.id, "catalog_id": catalog.id}
            solution = WcsSolution(CARDS, (9, 9), rms_mas=9.0, n_matched=9, n_catalog=9, error_mas=2.0)
            solved = WorldCoordinates(**of, **self._made()).take(solution)
            session.add(solved)
            session.flush()
            zero_point = ZeroPoint(**of, world_coordinates_id=solved.id, filter="r", **self._made())
            zero_point.take(ZeroPointSolution(27.0, 0.01, "r"))
            session.add(zero_point)
            session.flush()
            self.zero_point_id, self.image_id = zero_point.id, image.id

    def _made(self):
        return {"provenance_id": self.provenance_id, "data_version": digest(str(new_id()))}

    def _image(self, kind, new_image_id):
        return Image(
            type=kind, section_id="0", instrument="demo", filter="r", mjd_start=61000.0, mjd_mid=61000.0,
            exposure_time_s=30.0, ra=0.0, dec=0.0, header={}, new_image_id=new_image_id, **self._made(),
        )  # fmt: skip

    def _exposure(self, session, number):
        found = session.scalar(select(Exposure.id).where(Exposure.name == f"e{number}"))
        if found is None:
            found = new_id()
            session.execute(
                Exposure.__table__.insert().values(
                    id=found, filename=f"e{number}.fits", name=f"e{number}", instrument="demo", mjd=61000.0,
                    mjd_mid=61000.0, night="2026-11-22", exp_time=30.0, filter="r", ra=0.0, dec=0.0,
                    type="science", header={},
                )
            )  # fmt: skip
        return found

    def measure(self, batch: Batch) -> int:
        """Save what a section saw, as its steps do, and give it objects."""
        with open_session(self.settings) as session:
            exposure_id = self._exposure(session, batch.exposure)
            difference = self._image("difference", self.image_id)
            difference.exposure_id, difference.section_id = exposure_id, str(batch.section)
            session.add(difference)
            session.flush()
            listed = SourceList(image_id=difference.id, **self._made())
            place = {"exposure_id": exposure_id, "section_id": str(batch.section), "step": "detections"}
            old = session.scalar(select(StepOutcome).filter_by(**place))
            outcome = old or StepOutcome(**place, status="done", provenance_id=self.provenance_id)
            outcome.data_version = listed.data_version
            session.add_all([listed, outcome])
            session.flush()
            rows = [self._measured(session, listed, batch, i) for i in range(len(batch.ra))]
        section = SimpleNamespace(
            settings=self.settings,
            exposure=SimpleNamespace(id=exposure_id),
            section=str(batch.section),
            provenance_id=lambda _: self.provenance_id,
            params=lambda *_: AssociateParams(),
        )
        return assign_objects(section, rows)

    def _measured(self, session, listed, batch, i):
        at = {
            "mjd_mid": batch.mjd, "ra": batch.ra[i], "dec": batch.dec[i], "x": 0.0, "y": 0.0,
            "position_err_arcsec": batch.err[i], "provenance_id": self.provenance_id,
        }  # fmt: skip
        sighting = Sighting(source_list_id=listed.id, number=i, score=9.0, **at)
        session.add(sighting)
        session.flush()
        cutouts = Cutouts(sighting_id=sighting.id, number=i, provenance_id=self.provenance_id)
        session.add(cutouts)
        session.flush()
        return Measurement(
            cutouts_id=cutouts.id, sighting_id=sighting.id, zero_point_id=self.zero_point_id, n_bad=0,
            is_bad=False, **at,
        )  # fmt: skip

    def objects(self):
        """Return all objects with their members: names, figures, and what was measured of each."""
        with open_session(self.settings, read_only=True) as session:
            rows = list(session.scalars(select(Object).where(Object.n_sightings > 0)))
            seen = session.execute(select(Measurement.object_id, Measurement.mjd_mid, Measurement.ra)).all()
            other = dict(session.execute(select(Measurement.sighting_id, Measurement.object_id)).all())
            assert other == dict(session.execute(select(Sighting.id, Sighting.object_id)).all())
        members = {row.id: sorted((mjd, ra) for o, mjd, ra in seen if o == row.id) for row in rows}
        figures = ("ra", "dec", "ra_err_arcsec", "dec_err_arcsec", "n_sightings", "first_mjd", "last_mjd")
        assert all(row.n_sightings == len(members[row.id]) for row in rows)
        return sorted((r.name, *(getattr(r, f) for f in figures), members[r.id]) for r in rows)


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


@pytest.fixture
def sky(database):
    with use_settings(database):
        yield Sky(database)


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
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(sky.measure, batches))
    at_once = sky.objects()
    empty(sky)
    for batch in batches:
        sky.measure(batch)
    assert sky.objects() == at_once


def one(number, east, north=0.0, err=0.1, section=0):
    ra, dec = offset(150.0, 2.0, np.array([east]) / 3600, np.array([north]) / 3600)
    return Batch(number, section, np.atleast_1d(ra), np.atleast_1d(dec), np.array([err]))


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
    ((name, *_, n, first, last, _),) = [(r[0], *r[5:]) for r in sky.objects()]
    assert (n, first, last) == (2, one(1, 0).mjd, one(2, 0).mjd)
    assert name == object_name("obj%Y%a", one(1, 0.05).ra[0], one(1, 0.05).dec[0], one(1, 0).mjd)
    for number in (1, 2):
        sky.measure(Batch(number, 0, *[np.empty(0)] * 3))
    assert sky.objects() == []
    assert object_named(sky.settings, name).n_sightings == 0
    sky.measure(one(2, 0.1))
    assert len(sky.objects()) == 1


def test_an_exposure_called_bad_does_not_count_until_it_is_called_good(sky):
    for number in range(3):
        sky.measure(one(number, 0.05 * number))
    before = sky.objects()
    with open_session(sky.settings) as session:
        exposure_id = session.scalars(select(Exposure.id).where(Exposure.name == "e1")).one()
        said = Verdict(exposure_id=exposure_id, word="bad", reason="clouds", said_by="me")
        session.add(said)
        session.flush()
        regroup_exposure(session, sky.settings, "demo", sky.provenance_id, exposure_id)
    assert [row[5] for row in sky.objects()] == [2]
    with open_session(sky.settings) as session:
        session.get_one(Verdict, said.id).counts = False
        session.flush()
        regroup_exposure(session, sky.settings, "demo", sky.provenance_id, exposure_id)
    assert sky.objects() == before


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
