import multiprocessing

import numpy as np
import pytest
from sqlalchemy import select

from seechange_core.numerics.sky import healpix_of
from seechange_core.products import Image, Object, WorldCoordinates
from seechange_core.products.base import existing, in_cone, overlapping, save
from seechange_core.products.provenance import record_provenance
from seechange_core.provenance import ProvenanceKey
from seechange_core.storage.engine import dispose_engines, open_session


def new_image(version: str, provenance_id: str, **changes) -> Image:
    values = {
        **{"type": "coadd", "section_id": "x", "instrument": "demo", "filter": "r", "mjd_start": 1.0},
        **{"mjd_mid": 1.0, "exposure_time_s": 1.0, "ra": 1.0, "dec": 1.0},
    }
    return Image(data_version=version, provenance_id=provenance_id, **{**values, **changes})


def test_the_same_product_is_one_row(session, make):
    version = make.version()
    first = save(session, new_image(version, make.provenance_id, mjd_mid=1.0))
    second = save(session, new_image(version, make.provenance_id, mjd_mid=2.0))
    assert second.id == first.id
    assert second.mjd_mid == 1.0
    again = save(session, new_image(version, make.provenance_id, mjd_mid=2.0), replace=True)
    assert again.id == first.id
    assert again.mjd_mid == 2.0


def test_another_version_is_a_row_beside_it(session, make):
    rows = [save(session, new_image(make.version(), make.provenance_id)) for _ in range(2)]
    assert rows[0].id != rows[1].id
    assert existing(session, new_image(rows[0].data_version, make.provenance_id)).id == rows[0].id
    assert existing(session, new_image(make.version(), make.provenance_id)) is None


def save_in_process(task):
    url, provenance_id = task
    with open_session(url) as session:
        key = str(save(session, new_image("v" * 20, provenance_id)).id)
    dispose_engines()
    return key


def test_the_same_product_from_many_processes_is_one_row(database):
    with open_session(database) as session:
        provenance_id = record_provenance(session, ProvenanceKey("image", "1")).id
    with multiprocessing.get_context("fork").Pool(4) as pool:
        keys = pool.map(save_in_process, [(database.database_url, provenance_id)] * 12, chunksize=1)
        pool.close()
        pool.join()
    assert len(set(keys)) == 1
    with open_session(database, read_only=True) as session:
        assert session.query(Image).count() == 1


def test_rows_keep_their_position_indexed():
    row = Object(name="a", ra=359.9, dec=-12.0)
    assert row.healpix == int(healpix_of(359.9, -12.0))
    row.dec = np.float64(5.0)
    assert row.healpix == int(healpix_of(359.9, 5.0))
    assert type(row.healpix) is int


@pytest.mark.parametrize(
    ("ra", "dec"), [(150.0, 2.0), (0.0, 0.0), (359.9999, -45.0), (12.0, 90.0), (0.0, -89.9999)]
)
def test_cones_find_all_that_is_in_them(session, make, ra, dec):
    from seechange_core.numerics.sky import offset, separation

    rng = np.random.default_rng(1)
    east, north = rng.normal(0, 12, (2, 300)) / 3600
    ras, decs = offset(ra, dec, east, north)
    session.add_all(
        Object(
            name=f"o{i}", ra=a, dec=d, ra_err_arcsec=0.1, dec_err_arcsec=0.1, provenance_id=make.provenance_id
        )
        for i, (a, d) in enumerate(zip(ras, decs, strict=True))
    )
    session.flush()
    found = set(session.scalars(select(Object.name).where(in_cone(Object.healpix, ra, dec, 2 / 3600))))
    truly = {f"o{i}" for i in np.flatnonzero(separation(ra, dec, ras, decs) <= 2 / 3600)}
    assert truly <= found
    assert len(found) < 150


@pytest.mark.parametrize(("ra", "dec"), [(150.0, 2.0), (0.0005, 0.0), (40.0, 89.9)])
def test_footprints_and_what_overlaps_them(session, make, sample, ra, dec):
    """Also across RA 0 and near the pole."""
    sources = make.source_list(make.image())
    row = make.world_coordinates(sources, ra, dec)
    make.world_coordinates(make.source_list(make.image()), ra, dec - 5)
    assert row.radius_deg == pytest.approx(np.hypot(30, 20) * 7.5e-5, rel=1e-3)
    assert len(row.corners) == 4
    wcs = sample.wcs(ra, dec)
    query = select(WorldCoordinates)
    for x, y, covered in [(0, 0, True), (59, 39, True), (-2, 10, False), (30, 41, False), (30, 10, True)]:
        at = [[float(v) for v in wcs.to_sky(x, y)]]
        assert [r.id for r in overlapping(session, query, at)] == ([row.id] if covered else [])
    corners = [[float(v) for v in wcs.to_sky(x, y)] for x, y in ((58, 38), (158, 38), (158, 138), (58, 138))]
    assert [r.id for r in overlapping(session, query, corners)] == [row.id]
    beside = [[float(v) for v in wcs.to_sky(x, y)] for x, y in ((62, 42), (158, 42), (158, 138), (62, 138))]
    assert overlapping(session, query, beside) == []


def test_overlap_with_nothing_in_the_database(session):
    assert overlapping(session, select(WorldCoordinates), [[1.0, 2.0]]) == []
