"""What hangs on a difference image: sightings, cutouts, measurements, forced fluxes."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from seechange_core.frames import ForcedFluxes, Measurements
from seechange_core.products import Cutouts, ForcedFlux, Measurement, Object, Sighting
from seechange_core.products.base import save
from seechange_core.products.cutouts import read_stamps, write_cutouts
from seechange_core.products.forced_flux import make_forced_fluxes
from seechange_core.products.measurement import make_measurements
from seechange_core.products.photometric import magnitude
from seechange_core.products.sighting import make_sightings
from seechange_core.storage.archive import Archive

BAD_FLUX = 1


@pytest.fixture
def night(session, make, sample, settings):
    """A difference with three sightings and all that follows."""
    new = make.image()
    wcs = make.world_coordinates(make.source_list(new))
    difference = make.image(type="difference", exposure_id=new.exposure_id, new_image_id=new.id)
    listed = make.source_list(difference, content="detections", n_sources=3)
    return SimpleNamespace(
        new=new, difference=difference, listed=listed, wcs=wcs, zero_point=make.zero_point(wcs), make=make
    )


def add_sightings(session, sample, night, n: int = 3) -> list[Sighting]:
    rows = make_sightings(night.listed, sample.detections(n), sample.wcs(), mjd_mid=61000.1)
    session.add_all(rows)
    session.flush()
    return rows


def add_cutouts(session, sample, settings, night, sightings) -> list[Cutouts]:
    rows = write_cutouts(
        Archive(settings),
        sample.stamps(len(sightings)),
        sightings,
        sample.place,
        provenance_id=night.make.provenance_id,
        data_version="c" * 20,
    )
    return [save(session, row) for row in rows]


def measured(n: int) -> Measurements:
    rng = np.random.default_rng(6)
    columns = {name: rng.uniform(1, 30, n) for name in Measurements.__dataclass_fields__}
    columns |= {"n_bad": np.arange(n), "is_bad": np.arange(n) > 1, "bad_reasons": np.arange(n)}
    columns["flux_psf"][BAD_FLUX] = -5.0
    columns["fwhm_pix"][0] = np.nan
    return Measurements(**columns)


def test_sightings_are_where_they_were_seen(session, sample, night):
    rows = add_sightings(session, sample, night)
    seen = sample.detections()
    session.expire_all()
    for i, row in enumerate(rows):
        assert (row.number, row.x, row.score) == (i, seen.x[i], seen.score[i])
        assert (row.ra, row.dec) == pytest.approx([float(v) for v in sample.wcs().to_sky(row.x, row.y)])
        pixel_err = np.sqrt((seen.x_err[i] ** 2 + seen.y_err[i] ** 2) / 2)
        assert row.position_err_arcsec == pytest.approx(np.hypot(pixel_err * 0.27, 0.002), rel=1e-4)
        assert row.provenance_id == night.listed.provenance_id
        assert row.object_id is None


def test_sightings_that_go_take_all_that_follows_with_them(session, sample, settings, night):
    sightings = add_sightings(session, sample, night)
    cutouts = add_cutouts(session, sample, settings, night, sightings)
    session.add_all(
        make_measurements(
            night.difference,
            cutouts,
            measured(3),
            sample.wcs(),
            night.zero_point,
            61000.1,
            night.make.provenance_id,
        )
    )
    session.flush()
    assert [session.query(kind).count() for kind in (Sighting, Cutouts, Measurement)] == [3, 3, 3]
    session.execute(delete(Sighting).where(Sighting.number >= 2))
    assert [session.query(kind).count() for kind in (Sighting, Cutouts, Measurement)] == [2, 2, 2]


@pytest.mark.parametrize("n", [1, 3])
def test_cutouts_come_back_the_same(session, sample, settings, night, n):
    archive = Archive(settings)
    rows = add_cutouts(session, sample, settings, night, add_sightings(session, sample, night, n))
    sample.same(read_stamps(archive, rows[0]), sample.stamps(n))
    one = rows[-1].read(archive)
    assert one.new.shape == (1, 11, 11)
    np.testing.assert_array_equal(one.sub[0], sample.stamps(n).sub[n - 1])
    assert one.x0[0] == sample.stamps(n).x0[n - 1]


def test_reading_one_set_of_stamps_reads_no_others(session, sample, settings, night):
    """A section may have hundreds: a page that shows one of them must not wait for all."""

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    archive, n, size = Archive(settings), 300, 41
    rows = write_cutouts(
        archive, sample.stamps(n, size), add_sightings(session, sample, night, n), sample.place,
        provenance_id=night.make.provenance_id, data_version="d" * 20,
    )  # fmt: skip
    whole = archive.find(rows[0].filepath).stat().st_size
    before = bytes_read()
    one = rows[150].read(archive)
    assert bytes_read() - before < 0.05 * whole
    for name, plane in sample.stamps(n, size).__dict__.items():
        np.testing.assert_array_equal(getattr(one, name), plane[150:151])


def test_no_sightings_no_cutouts_but_a_file(session, sample, settings, night):
    assert add_cutouts(session, sample, settings, night, []) == []
    assert Archive(settings).exists(sample.place.path(settings, "cutouts", "c" * 20))


def test_measurements_have_magnitudes_where_there_is_flux(session, sample, settings, night):
    cutouts = add_cutouts(session, sample, settings, night, add_sightings(session, sample, night))
    what = measured(3)
    rows = make_measurements(
        night.difference, cutouts, what, sample.wcs(), night.zero_point, 61000.1, night.make.provenance_id
    )
    session.add_all(rows)
    session.flush()
    session.expire_all()
    assert [row.sighting_id for row in rows] == [c.sighting_id for c in cutouts]
    assert rows[0].mag == pytest.approx(27.0 - 2.5 * np.log10(what.flux_psf[0]))
    assert rows[BAD_FLUX].mag is None
    assert rows[BAD_FLUX].flux == -5.0
    assert rows[0].fwhm_pix is None
    assert [row.is_bad for row in rows] == [False, False, True]
    assert rows[2].bad_reasons == 2


def tilted(zero_point):
    """Give it a tilt of 30 mmag across."""
    solution = replace(zero_point.solution(), spatial_mag=(0.015, 0.0), shape=(40, 60))
    return zero_point.take(solution)


def test_a_tilted_zero_point_gives_one_magnitude_at_both_edges(session, sample, settings, night):
    """A transient of magnitude 20 brings less light at the left edge than at the right one."""
    cutouts = add_cutouts(session, sample, settings, night, add_sightings(session, sample, night, 2))
    x, flux = np.array([0.0, 59.0]), 10 ** (-0.4 * (20 - np.array([26.985, 27.015])))
    what = replace(measured(2), x=x, y=np.array([5.0, 30.0]), flux_psf=flux)
    zero_point = tilted(night.zero_point)
    made = (night.difference, zero_point, np.full(2, np.nan), night.make.provenance_id)
    place = (sample.wcs(), zero_point, 61000.1, night.make.provenance_id)
    rows = make_measurements(night.difference, cutouts, what, *place)
    assert [row.mag for row in rows] == pytest.approx([20, 20], abs=1e-9)
    fluxes = replace(forced(list(flux)), x=x)
    objects = new_objects(session, night, 2)
    forced_rows = make_forced_fluxes(objects, fluxes, *made)
    assert [row.mag for row in forced_rows] == pytest.approx([20, 20], abs=1e-9)
    assert [row.zp for row in forced_rows] == pytest.approx([26.985, 27.015])
    assert np.diff([row.limiting_mag for row in forced_rows]) == pytest.approx(0.03)
    # The flux ratio it was subtracted with says .05 mag less on the left and .01 more on the right.
    night.difference.zp_change_mag, night.difference.zp_err = [-0.02, 0.03], 0.004
    rows = make_measurements(night.difference, cutouts, what, *place)
    assert [row.mag for row in rows] == pytest.approx([19.95, 20.01], abs=1e-9)
    forced_rows = make_forced_fluxes(objects, fluxes, *made)
    assert [row.mag for row in forced_rows] == pytest.approx([row.mag for row in rows], abs=1e-9)


def test_magnitudes_and_their_errors():
    mag, mag_err = magnitude(np.array([100.0, 0.0, -1.0]), np.array([1.0, 1.0, 1.0]), 25.0)
    assert mag[0] == pytest.approx(20.0)
    assert mag_err[0] == pytest.approx(0.010857, rel=1e-4)
    assert np.isnan(mag[1:]).all()
    assert np.isnan(mag_err[1:]).all()


def forced(flux: list[float]) -> ForcedFluxes:
    n = len(flux)
    ones = np.ones(n)
    return ForcedFluxes(ones, ones, np.array(flux), 10 * ones, ones, np.zeros(n, np.int64), ones)


def new_objects(session, night, n: int) -> list[Object]:
    rows = [
        Object(
            name=f"o{i}",
            ra=150.0,
            dec=2.0,
            ra_err_arcsec=0.1,
            dec_err_arcsec=0.1,
            provenance_id=night.make.provenance_id,
        )
        for i in range(n)
    ]
    session.add_all(rows)
    session.flush()
    return rows


def test_forced_fluxes_are_updated_in_place(session, night):
    objects = new_objects(session, night, 3)
    ids = [row.id for row in objects]

    def store(image, flux):
        bjd = np.array([2461000.5, 2461000.5, np.nan])
        made = (image, night.zero_point, bjd, night.make.provenance_id)
        for row in make_forced_fluxes(objects, forced(flux), *made):
            save(session, row, replace=True)

    store(night.new, [100.0, -3.0, np.nan])
    store(night.difference, [90.0, 3.0, 1.0])
    store(night.difference, [91.0, 3.0, 1.0])
    rows = session.query(ForcedFlux).filter(ForcedFlux.object_id == ids[0]).order_by(ForcedFlux.kind).all()
    assert [(row.kind, row.flux) for row in rows] == [("difference", 91.0), ("image", 100.0)]
    assert rows[1].mag == pytest.approx(22.0)
    assert rows[1].limiting_mag == pytest.approx(27 - 2.5 * np.log10(50))
    assert rows[1].bjd_tdb == 2461000.5
    assert session.query(ForcedFlux).count() == 6
    missing = session.query(ForcedFlux).filter_by(object_id=ids[2], kind="image").one()
    assert (missing.flux, missing.mag, missing.bjd_tdb) == (None, None, None)


def test_a_sighting_needs_a_true_object(session, sample, night):
    from seechange_core.storage.orm import new_id

    row = add_sightings(session, sample, night)[0]
    with pytest.raises(IntegrityError), session.begin_nested():
        row.object_id = new_id()
        session.flush()
