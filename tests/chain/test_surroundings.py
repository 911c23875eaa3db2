"""Which of a reference's sources are around a section: against a look at all of them."""

import numpy as np
import pytest

from seechange_core.chain.surroundings import _on_section, _Seen
from seechange_core.frames import WcsSolution, ZeroPointSolution
from seechange_core.storage.fits_io import read_fits, to_table, write_fits

SHAPE = (600, 400)


def solution(ra, dec, angle_deg, shape, scale_arcsec=1.0):
    turn, step = np.deg2rad(angle_deg), scale_arcsec / 3600
    c, s = step * np.cos(turn), step * np.sin(turn)
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec,
        "CUNIT1": "deg", "CUNIT2": "deg",
        "CRPIX1": shape[1] / 2, "CRPIX2": shape[0] / 2, "CD1_1": -c, "CD1_2": s, "CD2_1": s, "CD2_2": c,
    }  # fmt: skip
    return WcsSolution(cards, shape)


@pytest.mark.parametrize(("ra", "dec", "angle_deg"), [(150.0, 2.0, 0), (0.01, -60.0, 33), (10.0, 89.95, 110)])
def test_those_on_it_and_a_little_beyond_are_there(ra, dec, angle_deg):
    reference = solution(ra, dec, 5.0, (1500, 1500))
    wcs = solution(ra - 0.1 / np.cos(np.deg2rad(dec)), dec + 0.05, angle_deg, SHAPE)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-0.5, 1499.5, (2, 4000))
    sources = _Seen(x, y, np.where(np.arange(4000) % 5 == 0, -1.0, 100.0), np.arange(4000) % 2 == 0)
    found = _on_section(sources, reference, ZeroPointSolution(25.0, 0.01, "r"), wcs)
    there = np.column_stack(wcs.to_pixels(*reference.to_sky(x, y)))
    expected = np.all(np.abs(there - np.array([200, 300])) < np.array([300, 400]), axis=1)
    assert 100 < np.count_nonzero(expected) < 3000
    np.testing.assert_allclose(np.column_stack([found.x, found.y]), there[expected], atol=1e-6)
    np.testing.assert_array_equal(found.is_star, sources.is_star[expected])
    np.testing.assert_allclose(found.mag, np.where(sources.flux_psf > 0, 20.0, np.nan)[expected])


def test_no_other_columns_of_a_list_are_decoded(tmp_path):
    rng = np.random.default_rng(1)
    seen = _Seen(*rng.normal(size=(3, 20)), rng.random(20) < 0.5)
    path = tmp_path / "list.fits"
    write_fits(path, {"sources": seen})
    records = read_fits(path, ("sources",), columns=("is_star", "y"))[0]["sources"]
    assert records.dtype.names == ("y", "is_star")
    for name, column in seen.columns().items():
        np.testing.assert_array_equal(getattr(to_table(_Seen, read_fits(path)[0]["sources"]), name), column)
