import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from seechange_core.simulate.geometry import SkyMap, deproject, move, project

CENTRES = [(150.1, 2.2), (0.01, -30.0), (359.99, 0.0), (20.0, 89.98), (200.0, -89.99), (30.0, 90.0)]


@pytest.mark.parametrize(("ra", "dec"), CENTRES)
@pytest.mark.parametrize("parity", [1, -1])
def test_to_sky_and_back(ra, dec, parity):
    view = SkyMap(ra, dec, 0.7, parity, 0.27, (511.5, 511.5), (532.0, -532.0), 1480.0, 4.0)
    x, y = np.random.default_rng(1).uniform(0, 1023, (2, 200))
    back = view.to_pixels(*view.to_sky(x, y))
    assert np.abs(back[0] - x).max() < 1e-7
    assert np.abs(back[1] - y).max() < 1e-7


@pytest.mark.parametrize("parity", [1, -1])
@pytest.mark.parametrize(("ra", "dec"), CENTRES[:4])
def test_without_distortion_it_is_a_plain_tan_wcs(ra, dec, parity):
    """Against astropy: orientation, parity and projection."""
    angle, scale = np.deg2rad(30.0), 0.27 / 3600
    view = SkyMap(ra, dec, 30.0, parity, 0.27, (511.5, 511.5), (100.0, -50.0), 1480.0, 0.0)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra, dec], [512.5 - 100, 512.5 + 50]
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    wcs.wcs.cd = [[-parity * c, s], [parity * s, c]]
    x, y = np.random.default_rng(2).uniform(0, 1023, (2, 50))
    expected = SkyCoord(*wcs.all_pix2world(x, y, 0), unit="deg")
    got = SkyCoord(*view.to_sky(x, y), unit="deg")
    assert got.separation(expected).arcsec.max() < 1e-5


def test_parity_and_north():
    """North up; east to the left for parity 1, to the right for -1."""
    for parity in (1, -1):
        view = SkyMap(150.0, 2.0, 0.0, parity, 0.27, (50.0, 50.0), (0.0, 0.0), 1480.0, 0.0)
        assert view.to_pixels(150.0, 2.001)[1] > 60
        assert (view.to_pixels(150.001, 2.0)[0] - 50) * parity < -10


def test_distortion_moves_the_corner_by_its_amount():
    plain, bent = (SkyMap(150, 2, 0, 1, 0.27, (0, 0), (0, 0), 1000.0, d) for d in (0.0, 4.0))
    corner = bent.to_pixels(*plain.to_sky(0.0, 1000.0))
    assert 1000.0 - float(corner[1]) == pytest.approx(4.0, rel=0.15)


def test_moving_is_right_near_the_pole_and_across_zero():
    ra, _dec = move(0.0001, 0.0, -1000.0, 0.0)
    assert ra == pytest.approx(359.9998222, abs=1e-6)
    start, end = SkyCoord(10, 89.9999, unit="deg"), SkyCoord(*move(10.0, 89.9999, 800.0, 600.0), unit="deg")
    assert start.separation(end).arcsec == pytest.approx(1.0, rel=1e-3)


def test_projection_of_the_far_side_is_nothing():
    assert np.isnan(project(330.0, -2.0, 150.0, 2.0)[0])
    ra, dec = deproject(10.0, -20.0, 0.0, 89.999)
    east, north = project(ra, dec, 0.0, 89.999)
    assert (float(east), float(north)) == pytest.approx((10.0, -20.0))
