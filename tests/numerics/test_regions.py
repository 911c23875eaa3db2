import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seechange_core.errors import NoReference, NotFoundError
from seechange_core.numerics.regions import (
    PIXEL_RATIO,
    region_at,
    region_named,
    region_wcs,
    regions_overlapping,
)
from seechange_core.numerics.sky import deproject

SIZE = 0.25


def square(ra, dec, half):
    return deproject([half, -half, -half, half], [-half, -half, half, half], ra, dec)


@given(ra=st.floats(0, 360), dec=st.floats(-90, 90), size=st.sampled_from([0.1, 0.25, 1.0, 7.3]))
def test_every_point_is_in_one_region_that_its_name_gives_back(ra, dec, size):
    region = region_at(ra, dec, size)
    assert region_named(region.name, size) == region
    assert abs(dec - region.dec) <= region.dec_width / 2 + 1e-9
    assert abs((ra - region.ra + 180) % 360 - 180) <= region.ra_width / 2 + 1e-9
    widest = min(abs(region.dec - region.dec_width / 2), abs(region.dec + region.dec_width / 2))
    if abs(region.dec) > region.dec_width / 2:
        assert region.ra_width * np.cos(np.deg2rad(widest)) <= size * (1 + 1e-6) or region.ra_width == 360


@pytest.mark.parametrize(
    ("ra", "dec"), [(0.0, 20.0), (359.95, 0.0), (123.4, -89.99), (10.0, 90.0), (200.0, 45.0)]
)
def test_a_footprint_finds_all_its_regions(ra, dec):
    corners = square(ra, dec, 0.2)
    names = {r.name for r in regions_overlapping(*corners, SIZE)}
    rng = np.random.default_rng(1)
    inside = deproject(*rng.uniform(-0.2, 0.2, (2, 3000)), ra, dec)
    hit = [region_at(a, d, SIZE).name for a, d in zip(*inside, strict=True)]
    assert set(hit) >= names  # nothing that is not there
    for name in set(hit):  # nothing of any size that was missed
        assert name in names or hit.count(name) < 10


def test_the_grid_is_cropped_but_its_pixels_stay():
    region = region_at(0.01, 20.0, SIZE)
    small, large = square(0.02, 20.0, 0.01), square(0.02, 20.0, 0.04)
    first, second = region_wcs(region, 0.27, [small]), region_wcs(region, 0.27, [small, large])
    assert max(first.shape) < 0.03 * 3600 / 0.27
    assert first.shape < second.shape
    x, y = second.to_pixels(*first.to_sky(5, 7))
    assert x == pytest.approx(round(float(x)), abs=1e-6)
    assert y == pytest.approx(round(float(y)), abs=1e-6)
    whole = region_wcs(region, 0.27, [square(region.ra, region.dec, 3.0)], margin_pix=10)
    assert whole.shape[0] == pytest.approx(SIZE * 3600 / (0.27 * PIXEL_RATIO) + 20, abs=8)


def test_the_grid_covers_the_inputs_within_the_region_at_ra_0_and_the_poles():
    for ra, dec in ((0.0, 20.0), (40.0, 89.93)):
        corners = square(ra, dec, 0.03)
        for region in regions_overlapping(*corners, SIZE):
            grid = region_wcs(region, 0.5, [corners])
            points = deproject(*np.random.default_rng(2).uniform(-0.03, 0.03, (2, 200)), ra, dec)
            own = [region_at(a, d, SIZE).name == region.name for a, d in zip(*points, strict=True)]
            x, y = grid.to_pixels(points[0][own], points[1][own])
            assert np.all((x > -1) & (y > -1) & (x < grid.shape[1]) & (y < grid.shape[0]))


def test_strangers_are_refused():
    for name in ("r9999_0000", "r0000_9999", "nonsense", "r1_2"):
        with pytest.raises(NotFoundError, match="no sky region"):
            region_named(name, SIZE)
    with pytest.raises(NoReference, match="no image touches"):
        region_wcs(region_at(10, 10, SIZE), 0.27, [square(190.0, -10.0, 0.1)])
    with pytest.raises(ValueError, match="between"):
        region_at(0, 0, 99)
