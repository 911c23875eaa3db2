"""Tables of every kind, with missing values and mistakes."""

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from seechange_core.catalogs import LocalCatalog, import_table, installed
from seechange_core.catalogs import store as store_module
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

    monkeypatch.setattr(store_module.pq, "write_table", full)
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
    Table({"ra": [10.0], "dec": [0.0], "V": [12.0], "name": ["x"]}).write(tmp_path / "t.ecsv")
    with pytest.raises(NotFoundError, match=r"mag_<band>.*which are ra, dec, V"):
        import_table(tmp_path / "t.ecsv", "a", tmp_path, epoch=2000.0)
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
