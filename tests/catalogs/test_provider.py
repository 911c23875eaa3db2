"""Proper motions against astropy."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import Distance, SkyCoord
from astropy.table import Table
from astropy.time import Time

from seechange_core.catalogs import LocalCatalog, import_table
from seechange_core.numerics import sky


@pytest.mark.parametrize("place", [(0.00001, 10.0), (30.0, 89.9), (180.0, -60.0)])
def test_motions_agree_with_astropy_and_errors_grow(tmp_path, place):
    Table({"ra": [place[0]], "dec": [place[1]], "pmra": [-900.0], "pmdec": [400.0], "pm_err": [2.0],
           "position_err_mas": [30.0], "mag_V": [12.0]}).write(tmp_path / "t.ecsv")  # fmt: skip
    import_table(tmp_path / "t.ecsv", "one", tmp_path, epoch=2000.0)
    found = LocalCatalog(tmp_path, "one").query(*place, 0.1, "V", None, 2020.0)
    truth = SkyCoord(
        place[0] * u.deg, place[1] * u.deg, pm_ra_cosdec=-900 * u.mas / u.yr, pm_dec=400 * u.mas / u.yr,
        distance=Distance(100, u.pc), obstime=Time(2000.0, format="jyear"),
    ).apply_space_motion(Time(2020.0, format="jyear"))  # fmt: skip
    assert sky.separation(found.ra, found.dec, truth.ra.deg, truth.dec.deg) * 3.6e6 == pytest.approx(
        0, abs=2.0
    )
    assert found.position_err_mas == pytest.approx([np.hypot(30.0, 40.0)])
