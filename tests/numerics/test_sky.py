"""Geometry against astropy, brute force, and the awkward places of the sky."""

import itertools

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from seechange_core.numerics import sky

PLACES = [
    (0.0, 0.0),
    (359.9999, -12.0),
    (120.0, 89.999),
    (10.0, -90.0),
    (45.0, 41.81),
    (180.0, 60.0),
    (90.0, 0.0),
]


@pytest.fixture
def rng():
    return np.random.default_rng(20260117)


def _around(rng, ra, dec, radius_deg, n):
    """Points uniform in a cone, built with astropy's own rotation."""
    angle = rng.uniform(0, 2 * np.pi, n)
    r = radius_deg * np.sqrt(rng.uniform(0, 1, n))
    points = SkyCoord(ra, dec, unit="deg").directional_offset_by(angle * u.rad, r * u.deg)
    return points.ra.deg, points.dec.deg


def test_separation_agrees_with_astropy_from_microarcseconds_to_antipodes(rng):
    ra, dec = rng.uniform(0, 360, 500), np.rad2deg(np.arcsin(rng.uniform(-1, 1, 500)))
    ra2, dec2 = rng.uniform(0, 360, 500), np.rad2deg(np.arcsin(rng.uniform(-1, 1, 500)))
    expected = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(ra2, dec2, unit="deg")).deg
    assert sky.separation(ra, dec, ra2, dec2) == pytest.approx(expected, abs=1e-11)
    assert sky.separation(0.0, 0.0, 180.0, 0.0) == pytest.approx(180.0)
    assert sky.separation(10.0, 20.0, 10.0, 20.0 + 1e-9) == pytest.approx(1e-9, rel=1e-4)


def test_vectors_come_back_and_ra_stays_below_360():
    ra, dec = sky.from_vectors(sky.unit_vectors([0.0, 359.5, 180.0], [-89.0, 0.0, 45.0]))
    assert ra == pytest.approx([0.0, 359.5, 180.0])
    assert dec == pytest.approx([-89.0, 0.0, 45.0])
    assert sky.from_vectors([1.0, -1e-18, 0.0])[0] == 0.0


def test_mean_position_across_ra_zero_and_at_the_pole():
    assert sky.mean_position([359.0, 1.0], [5.0, 5.0])[0] == pytest.approx(0.0, abs=1e-9)
    assert sky.mean_position([0, 90, 180, 270], [89.0] * 4)[1] == pytest.approx(90.0)
    with pytest.raises(ValueError, match="no mean direction"):
        sky.mean_position([0.0, 180.0], [0.0, 0.0])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("radius_deg", [2 / 3600, 0.05, 1.3, 25.0])
def test_cone_ranges_hold_the_whole_cone_and_little_more(rng, place, radius_deg):
    ranges = sky.cone_ranges(*place, radius_deg)
    ra, dec = _around(rng, *place, radius_deg, 2000)
    index = sky.healpix_of(ra, dec)
    inside = np.zeros(len(index), bool)
    for low, high in ranges:
        inside |= (index >= low) & (index < high)
    assert inside.all()
    assert len(ranges) < 80
    covered = sum(high - low for low, high in ranges) / (12 * 4.0**29)
    assert covered < 1.8 * (1 - np.cos(np.deg2rad(radius_deg))) / 2 + 1e-15
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges))


def test_cone_ranges_of_the_whole_sky():
    assert sky.cone_ranges(10.0, 10.0, 180.0) == [(0, 12 * 4**29)]


def test_cone_cells_match_brute_force_at_base_corners(rng):
    centres_order = 6
    everything = np.arange(12 * 4**centres_order)
    vectors = sky._cell_centres(everything, centres_order)
    for ra, dec in PLACES:
        near = everything[np.linalg.norm(vectors - sky.unit_vectors(ra, dec), axis=1) < sky.chord(2.0)]
        assert np.isin(near, sky.cone_cells(ra, dec, 2.0, centres_order)).all()


@pytest.mark.parametrize("order", [0, 3, 6, 10])
def test_a_cone_around_a_cell_holds_it_and_little_more(rng, order):
    ra, dec = rng.uniform(0, 360, 40_000), np.rad2deg(np.arcsin(rng.uniform(-1, 1, 40_000)))
    cells = [
        0,
        12 * 4**order - 1,
        int(sky.healpix_of(0.0, 90.0, order)),
        int(sky.healpix_of(10.0, 1.0, order)),
    ]
    for cell in cells:
        centre_ra, centre_dec, radius = sky.cell_cone(cell, order)
        if order > 3:  # points near by, or none would hit
            ra, dec = sky.offset(centre_ra, centre_dec, *(rng.uniform(-2, 2, (2, 40_000)) * radius))
        inside = sky.healpix_of(ra, dec, order) == cell
        assert inside.sum() > 20
        distance = sky.separation(centre_ra, centre_dec, ra, dec)
        assert distance[inside].max() <= radius
        area = 41253 / (12 * 4**order)
        assert np.pi * radius**2 < 3.6 * area


@pytest.mark.parametrize("place", [*PLACES, (0.001, 33.0)])
def test_projection_is_the_fits_tangent_plane(rng, place):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], place, [0.0, 0.0]
    wcs.wcs.cdelt = [1.0, 1.0]
    ra, dec = _around(rng, *place, 1.0, 100)
    xi, eta = sky.project(ra, dec, *place)
    x, y = wcs.all_world2pix(ra, dec, 0)
    assert xi == pytest.approx(x + 1, abs=1e-9)
    assert eta == pytest.approx(y + 1, abs=1e-9)
    back = sky.deproject(xi, eta, *place)
    assert sky.separation(ra, dec, *back) * 3.6e6 == pytest.approx(0.0, abs=1e-4)


def test_projection_refuses_the_far_side():
    xi, _ = sky.project([180.0, 0.1], [0.0, 0.0], 0.0, 0.0)
    assert np.isnan(xi[0])
    assert xi[1] == pytest.approx(0.1, rel=1e-5)


def _wcs(ra, dec, rotation_deg=30.0, scale=1 / 3600):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [ra, dec], [500.5, 400.5]
    c, s = np.cos(np.deg2rad(rotation_deg)), np.sin(np.deg2rad(rotation_deg))
    wcs.wcs.cd = scale * np.array([[-c, s], [s, c]])
    return wcs


@pytest.mark.parametrize("place", PLACES)
def test_footprint_contains_what_is_on_the_pixels(rng, place):
    wcs, shape = _wcs(*place), (800, 1000)
    corners = sky.footprint(wcs, shape)
    x, y = rng.uniform(-300, 1300, 3000), rng.uniform(-300, 1100, 3000)
    on_pixels = (x > -0.5) & (x < 999.5) & (y > -0.5) & (y < 799.5)
    ra, dec = wcs.all_pix2world(x, y, 0)
    assert np.array_equal(sky.polygon_contains(*corners, ra, dec), on_pixels)
    reverse = corners[0][::-1], corners[1][::-1]
    assert np.array_equal(sky.polygon_contains(*reverse, ra, dec), on_pixels)
    ra0, dec0, radius = sky.bounding_cone(*corners)
    assert sky.separation(ra0, dec0, *place) < 1 / 3600
    assert radius == pytest.approx(np.hypot(500, 400) / 3600, rel=1e-4)
    assert not sky.polygon_contains(*corners, (place[0] + 180) % 360, -place[1])


@pytest.mark.parametrize("place", PLACES)
def test_overlap_of_shifted_footprints(place):
    wcs = _wcs(*place)
    one = sky.footprint(wcs, (800, 1000))
    for shift in (0, 250, 990, 1010):
        x = np.array([-0.5, 999.5, 999.5, -0.5]) + shift
        other = wcs.all_pix2world(x, [-0.5, -0.5, 799.5, 799.5], 0)
        assert sky.polygons_overlap(*one, *other) == (shift < 1000)
    antipode = (one[0] + 180) % 360, -one[1]
    assert not sky.polygons_overlap(*one, *antipode)


def test_crossed_polygons_overlap_though_neither_holds_a_corner_of_the_other():
    tall = [359.9, 0.1, 0.1, 359.9], [-1.0, -1.0, 1.0, 1.0]
    wide = [359.0, 1.0, 1.0, 359.0], [-0.1, -0.1, 0.1, 0.1]
    assert sky.polygons_overlap(*tall, *wide)


def test_offset_moves_on_the_sky_even_at_the_pole():
    ra, dec = sky.offset([10.0, 359.9999], [89.9, 0.0], [0.01, 0.01], [0.0, 0.0])
    assert sky.separation([10.0, 359.9999], [89.9, 0.0], ra, dec) == pytest.approx([0.01, 0.01], rel=1e-6)
    assert ra[1] == pytest.approx(0.0099, abs=1e-9)
