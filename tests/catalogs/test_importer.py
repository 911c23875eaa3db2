"""Tables of every kind, with missing values and mistakes."""

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from seechange_core.catalogs import LocalCatalog, import_table, installed, tiles
from seechange_core.catalogs.columns import LAYOUTS
from seechange_core.errors import FileDamagedError, NotFoundError, UserError


def test_stars_without_a_motion_stay_with_a_growing_error(tmp_path):
    table = Table({"ra": [10.0, 10.01], "dec": [0.0, 0.0], "mag_V": [12.0, 13.0]})
    table["pmra"] = MaskedColumn([100.0, 0.0], mask=[False, True])
    table["pmdec"] = MaskedColumn([0.0, 0.0], mask=[False, True])
    table.write(tmp_path / "t.ecsv")
    info = import_table(
        tmp_path / "t.ecsv", "two", tmp_path, epoch=2000.0, default_position_err_mas=60.0,
        default_motion_mas_yr=8.0, default_motion_err_mas_yr=0.0, default_mag_err=0.07,
    )  # fmt: skip
    found = LocalCatalog(tmp_path, "two").query(10.0, 0.0, 1.0, "V", None, 2010.0)
    found = found.select(np.argsort(found.ra))
    assert found.position_err_mas == pytest.approx([60.0, 100.0])
    assert (found.ra - [10.0, 10.01]) * 3.6e6 == pytest.approx([1000.0, 0.0], abs=0.01)
    assert found.mag_err == pytest.approx([0.07, 0.07])
    assert np.all(np.isnan(found.color))
    assert np.all(found.is_star)
    assert info.assumed["mag_err"] == 0.07


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "csv", "vot", "parquet"])
def test_any_table_with_a_mapping(tmp_path, suffix):
    table = Table({"RAJ2000": [-0.5, 0.5, 20.0], "DEJ2000": [1.0, 1.0, 1.0], "VT": [9.0, np.nan, 99.0]})
    file = tmp_path / f"t.{suffix}"
    table.write(file, **({"format": "votable"} if suffix == "vot" else {}))
    mapping = {"ra": "RAJ2000", "dec": "DEJ2000", "mag_V": "VT"}
    info = import_table(file, "m", tmp_path / "store", epoch=2000.0, mapping=mapping)
    assert (info.bands, info.n_stars, info.source) == (("V",), 3, f"t.{suffix}")
    found = LocalCatalog(tmp_path / "store", "m").query(0.0, 1.0, 30.0, "V", None, 2000.0)
    order = np.argsort(found.ra)
    assert found.ra[order] == pytest.approx([0.5, 20.0, 359.5])
    assert found.mag[order] == pytest.approx([np.nan, np.nan, 9.0], nan_ok=True)
    assert np.isnan(found.mag_err[order][:2]).all()


def test_a_failed_import_leaves_nothing(tmp_path, monkeypatch):
    Table({"ra": [10.0], "dec": [0.0], "mag_V": [12.0]}).write(tmp_path / "t.ecsv")

    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(tiles.pq, "write_table", full)
    with pytest.raises(OSError, match="disk full"):
        import_table(tmp_path / "t.ecsv", "a", tmp_path / "s", epoch=2000.0)
    assert installed(tmp_path / "s") == []
    assert list((tmp_path / "s").iterdir()) == []


def test_bad_tables_are_refused_with_a_cure(tmp_path):
    with pytest.raises(NotFoundError, match="no file"):
        import_table(tmp_path / "none.ecsv", "a", tmp_path, epoch=2000.0)
    (tmp_path / "bad.fits").write_bytes(b"not a table")
    with pytest.raises(FileDamagedError, match="cannot read"):
        import_table(tmp_path / "bad.fits", "a", tmp_path, epoch=2000.0)
    Table({"ra": [10.0], "dec": [0.0], "mine": [12.0], "name": ["x"]}).write(tmp_path / "t.ecsv")
    with pytest.raises(NotFoundError, match=r"mag_<band>.*--column mag_X=COL.*columns are ra, dec, mine"):
        import_table(tmp_path / "t.ecsv", "a", tmp_path, epoch=2000.0)
    with pytest.raises(NotFoundError, match="known are gaia_dr3, tycho2"):
        import_table(tmp_path / "t.ecsv", "a", tmp_path, layout="gaia")
    with pytest.raises(NotFoundError, match="lacks the columns W"):
        import_table(tmp_path / "t.ecsv", "a", tmp_path, epoch=2000.0, mapping={"mag_W": "W"})
    with pytest.raises(UserError, match="not numeric"):
        import_table(tmp_path / "t.ecsv", "a", tmp_path, epoch=2000.0, mapping={"mag_V": "name"})
    Table({"ra": [10.0], "dec": [100.0], "mag_V": [12.0]}).write(tmp_path / "u.ecsv")
    with pytest.raises(UserError, match="outside the sky"):
        import_table(tmp_path / "u.ecsv", "a", tmp_path, epoch=2000.0)
    Table({"ra": [np.nan], "dec": [1.0], "mag_V": [12.0]}).write(tmp_path / "v.ecsv")
    with pytest.raises(UserError, match="no row"):
        import_table(tmp_path / "v.ecsv", "a", tmp_path, epoch=2000.0)
    assert installed(tmp_path) == []


# --- whose columns ------------------------------------------------------------------------------------

#: A star as each survey has it, and band, magnitude and its error, errors of position and motion, epoch.
WRITTEN = {
    "gaia_dr3": (
        {
            "ra": 10.0, "dec": 1.0, "ra_error": 0.3, "dec_error": 0.4, "pmra": 5.0, "pmdec": -5.0,
            "pmra_error": 0.1, "pmdec_error": 0.1,
            "phot_g_mean_mag": 15.0, "phot_g_mean_flux_over_error": 108.57,
            "phot_bp_mean_mag": 15.5, "phot_rp_mean_mag": 14.5,
        },
        ("G", 15.0, 0.01, 0.3536, 0.1, 2016.0),
    ),
    "tycho2": (
        {"RAmdeg": 10.0, "DEmdeg": 1.0, "e_RAmdeg": 30, "e_DEmdeg": 40, "pmRA": 5.0, "pmDE": -5.0,
         "e_pmRA": 2.0, "e_pmDE": 2.0, "BTmag": 11.0, "VTmag": 10.0, "e_VTmag": 0.02},
        ("VT", 10.0, 0.02, 35.36, 2.0, 2000.0),
    ),
    "ps1": (
        {"raMean": 10.0, "decMean": 1.0, "raMeanErr": 0.03, "decMeanErr": 0.04, "rMeanPSFMag": 18.0,
         "rMeanPSFMagErr": 0.01, "gMeanPSFMag": -999.0, "gMeanPSFMagErr": -999.0},
        ("r", 18.0, 0.01, 35.36, 10.0, 2013.0),
    ),
    "apass": (
        {"RAJ2000": 10.0, "DEJ2000": 1.0, "e_RAJ2000": 0.3, "e_DEJ2000": 0.4, "Vmag": 14.0, "e_Vmag": 0.03,
         "g'mag": 14.3, "e_g'mag": 0.04},
        ("g", 14.3, 0.04, 353.6, 10.0, 2011.0),
    ),
    "refcat2": (
        {"RA": 10.0, "Dec": 1.0, "pmra": 5.0, "pmdec": -5.0, "dpmra": 0.2, "dpmdec": 0.2,
         "Gaia": 15.0, "dGaia": 0.01, "g": 15.3, "dg": 0.02, "r": 14.9, "dr": 0.03, "z": 14.6, "dz": 0.02},
        ("r", 14.9, 0.03, 100.0, 0.2, 2015.5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_columns_of_the_surveys(tmp_path, layout):
    row, (band, mag, mag_err, position_err, pm_err, epoch) = WRITTEN[layout]
    Table([row]).write(tmp_path / "t.fits")
    info = import_table(tmp_path / "t.fits", layout, tmp_path, layout=layout)
    assert info.epoch == epoch and band in info.bands
    found = LocalCatalog(tmp_path, layout).query(10.0, 1.0, 0.1, band, None, epoch)
    assert (found.ra[0], found.dec[0]) == pytest.approx((10.0, 1.0), abs=1e-9)
    assert (found.mag[0], found.mag_err[0]) == pytest.approx((mag, mag_err), rel=1e-3)
    assert found.position_err_mas == pytest.approx([position_err], rel=1e-3)
    later = LocalCatalog(tmp_path, layout).query(10.0, 1.0, 0.1, band, None, epoch + 1e3)
    assert later.position_err_mas == pytest.approx([np.hypot(position_err, 1e3 * pm_err)], rel=1e-3)


def test_a_column_of_magnitudes_that_are_all_missing_stays_missing(tmp_path):
    Table([WRITTEN["ps1"][0]]).write(tmp_path / "t.fits")
    import_table(tmp_path / "t.fits", "p", tmp_path, layout="ps1")
    assert np.isnan(LocalCatalog(tmp_path, "p").query(10.0, 1.0, 0.1, "g", None, 2013.0).mag).all()


def test_galaxies_of_ps1_are_no_stars(tmp_path):
    row = {key: value for key, value in WRITTEN["ps1"][0].items() if not key.startswith("g")}
    psf, kron = [18.0, 18.0, 18.0, -999.0], [17.99, 17.5, -999.0, 17.0]
    Table([{**row, "iMeanPSFMag": p, "iMeanKronMag": k} for p, k in zip(psf, kron, strict=True)]).write(
        tmp_path / "t.fits"
    )
    import_table(tmp_path / "t.fits", "p", tmp_path, layout="ps1")
    found = LocalCatalog(tmp_path, "p").query(10.0, 1.0, 0.1, "i", None, 2013.0)
    assert found.is_star.tolist() == [True, False, True, True]


def test_an_earlier_release_of_gaia_states_its_epoch(tmp_path):
    Table([{**WRITTEN["gaia_dr3"][0], "ref_epoch": 2015.5}]).write(tmp_path / "t.fits")
    assert import_table(tmp_path / "t.fits", "g", tmp_path, layout="gaia_dr3").epoch == 2015.5
    given = import_table(tmp_path / "t.fits", "h", tmp_path, layout="gaia_dr3", epoch=2016.0)
    assert given.epoch == 2016.0


def test_units_of_columns_are_honoured(tmp_path):
    table = Table(
        {"ra": [0.5], "dec": [60.0], "ra_err": [0.3], "dec_err": [0.3], "pmra": [0.01], "mag_V": [12.0]}
    )
    table["pmdec"] = [0.0]
    given = {"ra": "rad", "dec": "arcmin", "ra_err": "arcsec", "dec_err": "arcsec", "pmra": "arcsec/yr"}
    for name, unit in given.items():
        table[name].unit = unit
    for suffix in ("ecsv", "fits"):
        table.write(tmp_path / f"t.{suffix}")
        import_table(tmp_path / f"t.{suffix}", suffix, tmp_path, epoch=2000.0)
        found = LocalCatalog(tmp_path, suffix).query(np.rad2deg(0.5), 1.0, 0.1, "V", None, 2010.0)
        assert (found.ra[0] - np.rad2deg(0.5)) * 3.6e6 * np.cos(np.deg2rad(1.0)) == pytest.approx(
            100.0, abs=0.01
        )
        assert found.dec == pytest.approx([1.0])
        assert found.position_err_mas == pytest.approx([np.hypot(300.0, 10.0)], rel=1e-4)
    table["ra"].unit = "mag"
    table.write(tmp_path / "u.ecsv")
    with pytest.raises(UserError, match=r"column ra of .* is in mag, which is no unit of ra.*--column ra="):
        import_table(tmp_path / "u.ecsv", "u", tmp_path, epoch=2000.0)


def test_positions_may_be_sexagesimal(tmp_path):
    Table({"RAJ2000": ["00 40 00.0"], "DEJ2000": ["-01:30:00"], "Vmag": [12.0]}).write(tmp_path / "t.ecsv")
    import_table(tmp_path / "t.ecsv", "a", tmp_path, epoch=2000.0)
    found = LocalCatalog(tmp_path, "a").query(10.0, -1.5, 0.01, "V", None, 2000.0)
    assert (found.ra[0], found.dec[0]) == pytest.approx((10.0, -1.5), abs=1e-9)
    Table({"ra": ["x"], "dec": ["y"], "mag_V": [12.0]}).write(tmp_path / "u.ecsv")
    with pytest.raises(UserError, match="no position"):
        import_table(tmp_path / "u.ecsv", "u", tmp_path, epoch=2000.0)


def test_what_is_not_said_is_guessed_and_told(tmp_path):
    Table([{**WRITTEN["apass"][0], "e_RAJ2000": 0.3}]).write(tmp_path / "t.ecsv")
    info = import_table(tmp_path / "t.ecsv", "a", tmp_path, epoch=2011.0)
    assert info.columns["ra"] == "RAJ2000" and info.columns["mag_g"] == "g'mag"
    assert info.bands == ("V", "g")
    said = {"mag_B": "Vmag"}  # who names a magnitude wants no others guessed
    info = import_table(tmp_path / "t.ecsv", "b", tmp_path, epoch=2011.0, mapping=said)
    assert info.bands == ("B",)
    assert info.columns["dec"] == "DEJ2000"
