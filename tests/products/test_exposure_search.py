"""Footprints and searches by position, against astropy: across RA 0, at the poles, on both engines."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from sqlalchemy import select

from seechange_core import Exposure
from seechange_core.errors import UserError
from seechange_core.instrument import get_instrument_instance
from seechange_core.numerics.sky import healpix_of
from seechange_core.products.exposure_search import exposures_near

PLACES = [
    (0.001, 12.0),
    (359.99, -30.0),
    (123.0, 89.9),
    (10.0, -89.95),
    (200.0, 90.0),
    (45.0, 41.810),
    (0.0, 0.0),
]


def mosaic_wcs(ra, dec, camera):
    """A tangent plane with the camera's orientation, pixels counted from the pointing: x, y as offsets."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra, dec], [1.0, 1.0]  # 0-based pixel (0, 0)
    wcs.wcs.lonpole = 180.0  # FITS turns the plane round at the pole itself, if not told otherwise
    scale, turn = camera.pixel_scale_arcsec / 3600, np.radians(camera.rotation_deg)
    north, east = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    y = np.array([north[1], north[0]])  # (east, north) of +y: position angle is north through east
    x = -camera.parity * np.array([east[1], east[0]])
    wcs.wcs.cd = scale * np.column_stack([x, y])
    return wcs


def extent(camera):
    boxes = [
        (x - camera.size_x / 2, x + camera.size_x / 2, y - camera.size_y / 2, y + camera.size_y / 2)
        for x, y in (camera.get_section_offsets(s) for s in camera.get_section_ids())
    ]
    boxes = np.array(boxes)
    return boxes[:, 0].min(), boxes[:, 1].max(), boxes[:, 2].min(), boxes[:, 3].max()


@pytest.mark.parametrize("name", ["demo", "decam"])
@pytest.mark.parametrize(("ra", "dec"), PLACES)
def test_corners_are_those_of_the_tangent_plane(settings, name, ra, dec):
    camera = get_instrument_instance(name)
    sections = Exposure(nofile=True, instrument=name, mjd=60000.0).sections
    corners = np.array(camera.get_footprint(ra, dec, sections))
    x0, x1, y0, y1 = extent(camera)
    truth = mosaic_wcs(ra, dec, camera).pixel_to_world([x0, x1, x1, x0], [y0, y0, y1, y1])
    apart = SkyCoord(*corners.T, unit="deg").separation(truth).arcsec
    assert apart.max() < 1e-3
    assert np.all((corners[:, 0] >= 0) & (corners[:, 0] < 360))


def exposure(number, ra, dec, **columns):
    facts = {"instrument": "demo", "type": "science", "mjd": 60000.0 + number, "mjd_mid": 60000.0 + number}
    facts |= {"night": "2023-02-25", "exp_time": 1.0, "name": f"e{number}", "filename": f"e{number}.fits"}
    row = Exposure(nofile=True, ra=ra, dec=dec, **{**facts, **columns})
    row.footprint = get_instrument_instance("demo").get_footprint(ra, dec, row.sections)
    return row


@pytest.fixture
def sky(session):
    """Exposures all over the sky, many of them at awkward places."""
    rng = np.random.default_rng(11)
    ra, dec = list(rng.uniform(0, 360, 60)), list(np.degrees(np.arcsin(rng.uniform(-1, 1, 60))))
    for place_ra, place_dec in PLACES:
        near = SkyCoord(place_ra, place_dec, unit="deg").directional_offset_by(
            rng.uniform(0, 360, 25) * u.deg, rng.uniform(0, 0.4, 25) * u.deg
        )
        ra += list(near.ra.deg)
        dec += list(near.dec.deg)
    rows = [exposure(i, r, d) for i, (r, d) in enumerate(zip(ra, dec, strict=True))]
    session.add_all([*rows, exposure(len(rows), None, None, type="bias")])
    session.flush()
    return {row.name: (row.ra, row.dec) for row in rows}


def test_searches_find_what_brute_force_finds(session, sky):
    names, places = list(sky), SkyCoord(list(sky.values()), unit="deg")
    for ra, dec in PLACES:
        here = SkyCoord(ra, dec, unit="deg")
        apart = here.separation(places).deg
        for radius in (0.02, 0.3, 30.0):
            truth = [names[i] for i in np.argsort(apart, kind="stable") if apart[i] <= radius]
            assert [row.name for row in exposures_near(session, ra, dec, radius)] == truth


def test_a_search_can_be_narrowed(session, sky):
    late = select(Exposure).where(Exposure.mjd > 60100)
    found = exposures_near(session, 0.0, 0.0, 90.0, late)
    assert found
    assert all(row.mjd > 60100 for row in found)
    assert len(exposures_near(session, 0.0, 0.0, 180.0)) == len(sky)
    for wrong in ((np.nan, 0.0, 1.0), (0.0, 91.0, 1.0), (0.0, 0.0, -1.0)):
        with pytest.raises(UserError, match="no cone on the sky"):
            exposures_near(session, *wrong)


def test_the_index_follows_the_position(session):
    row = exposure(1, 359.9999999, 0.0)
    session.add(row)
    session.flush()
    assert exposures_near(session, 0.0, 0.0, 1e-6) == [row]
    row.dec = -89.99999999
    session.flush()
    assert row.healpix == int(healpix_of(row.ra, row.dec))
    assert exposures_near(session, 180.0, -90.0, 1e-6) == [row]
    row.ra = None
    session.flush()
    assert exposures_near(session, 180.0, -90.0, 1.0) == []


COLUMNS = ["mjd", "mjd_mid", "healpix", "filter", "exp_time", "project", "target", "telescope", "instrument"]


@pytest.mark.parametrize("column", COLUMNS)
def test_what_people_search_for_is_indexed(column):
    assert Exposure.__table__.columns[column].index
