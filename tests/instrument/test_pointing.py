"""Footprints of mosaics and HEALPix keys, across RA 0 and at the poles, against astropy's offset frames."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy_healpix import HEALPix

from seechange_core import Exposure
from seechange_core.instrument import get_instrument_instance
from seechange_core.instrument.pointing import outline
from seechange_core.numerics.sky import HEALPIX_ORDER

#: Two unequal boxes, off centre, about two degrees in all.
BOXES = [(-12000.0, -200.0, -14000.0, -50.0), (300.0, 13000.0, -100.0, 9000.0)]
SCALE = 0.263
POINTINGS = [
    (150.0, 2.0),
    (359.99, 0.0),
    (0.0, -30.0),
    (0.01, 60.0),
    (359.99, 89.9),
    (10.0, -89.9),
    (0.0, 90.0),
    (77.0, 90.0),
    (300.0, -90.0),
]


def tangent_offsets(ra, dec, corners):
    """East and north of the corners in the tangent plane at the pointing, arcsec, by astropy alone."""
    frame = SkyCoord(ra * u.deg, dec * u.deg).skyoffset_frame()
    there = SkyCoord(*np.transpose(corners) * u.deg).transform_to(frame)
    x, y, z = there.cartesian.xyz.value
    return np.stack([y / x, z / x], axis=-1) * 206264.80625


@pytest.mark.parametrize(("ra", "dec"), POINTINGS)
@pytest.mark.parametrize(("rotation", "parity"), [(0.0, 1), (0.0, -1), (30.0, 1), (200.0, -1)])
def test_the_outline_of_a_mosaic(ra, dec, rotation, parity):
    corners = outline(ra, dec, BOXES, SCALE, rotation, parity)
    assert all(0.0 <= c[0] < 360.0 and -90.0 <= c[1] <= 90.0 for c in corners)
    on_detector = np.array([(-12000, -14000), (13000, -14000), (13000, 9000), (-12000, 9000)]) * SCALE
    turn = np.deg2rad(rotation)
    # +y at the position angle; +x a quarter turn from it, to the west of north if east is on the left.
    y_axis = np.array([np.sin(turn), np.cos(turn)])
    x_axis = parity * np.array([-np.cos(turn), np.sin(turn)])
    want = on_detector[:, :1] * x_axis + on_detector[:, 1:] * y_axis
    np.testing.assert_allclose(tangent_offsets(ra, dec, corners), want, atol=1e-4)


@pytest.mark.parametrize("camera", ["demo", "ls4"])
@pytest.mark.parametrize(("ra", "dec"), POINTINGS)
def test_every_section_is_inside_its_camera_s_footprint(settings, camera, ra, dec):
    instance = get_instrument_instance(camera)
    sections = instance.get_sections()
    footprint = tangent_offsets(ra, dec, instance.get_footprint(ra, dec, sections))
    for section_id in instance.get_section_ids():
        hint = instance.get_pointing_hint(ra, dec, section_id, sections)
        center = tangent_offsets(ra, dec, [[hint.ra, hint.dec]])[0]
        x, y = np.array(instance.get_section_offsets(section_id)) * instance.pixel_scale_arcsec
        np.testing.assert_allclose(center, (-instance.parity * x, y), atol=1e-3)
        assert np.all(footprint.min(axis=0) < center)
        assert np.all(center < footprint.max(axis=0))


@pytest.mark.parametrize(("ra", "dec"), POINTINGS)
def test_a_section_s_own_rotation(settings, ra, dec):
    """The position angle of +y is not the same all over a mosaic, least of all at the poles."""
    ls4 = get_instrument_instance("ls4")
    frame = SkyCoord(ra * u.deg, dec * u.deg).skyoffset_frame()
    for section_id in ("NE_A", "NE_H", "SW_D"):
        hint = ls4.get_pointing_hint(ra, dec, section_id, ls4.get_sections())
        x, y = np.array(ls4.get_section_offsets(section_id)) * ls4.pixel_scale_arcsec / 206264.80625
        points = [  # of the tangent plane, as directions; +x is east
            SkyCoord(1.0, x, t, representation_type="cartesian", frame=frame).icrs for t in (y, y + 1e-5)
        ]
        angle = points[0].spherical_offsets_to(points[1])
        want = np.rad2deg(np.arctan2(angle[0].rad, angle[1].rad))
        assert (hint.rotation_deg - want + 180.0) % 360.0 - 180.0 == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(("ra", "dec"), POINTINGS)
def test_an_exposure_s_cell_is_where_it_points(settings, ra, dec):
    exposure = Exposure(nofile=True, instrument="demo", mjd=60000.0, ra=ra, dec=dec)
    cells = HEALPix(nside=1 << HEALPIX_ORDER, order="nested", frame="icrs")
    center = cells.healpix_to_skycoord(exposure.healpix)
    assert center.separation(SkyCoord(ra * u.deg, dec * u.deg)).mas < 0.5
    moved = Exposure(nofile=True, instrument="demo", mjd=60000.0)
    moved.dec, moved.ra = dec, ra  # in any order
    assert moved.healpix == exposure.healpix


def test_one_place_has_one_cell(settings):
    def cell(ra, dec):
        return Exposure(nofile=True, instrument="demo", ra=ra, dec=dec).healpix

    assert cell(0.0, -30.0) == cell(360.0, -30.0)
    assert cell(0.0, 90.0) == cell(360.0, 90.0)
