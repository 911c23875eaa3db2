"""Known variables and minor planets, read from tables as their publishers write them."""

import gzip

import numpy as np
import pytest
from astropy.table import Table

from seechange_core.catalogs.movers import read_movers
from seechange_core.catalogs.variables import read_variables
from seechange_core.errors import FileDamagedError, NotFoundError, UserError

#: H, G, epoch, M, peri., node, incl., e and a of (1) Ceres.
CERES = (3.34, 0.15, "K2555", 188.70269, 73.27343, 80.25221, 10.58780, 0.0794013, 2.7660512)


def line(name, h, g, epoch, mean, peri, node, incl, e, a):
    """Write one line of MPCORB.DAT (https://minorplanetcenter.net/iau/info/MPOrbitFormat.html)."""
    h, g = (f"{v:5.2f}" if v is not None else " " * 5 for v in (h, g))
    start = f"{'00001':7s} {h} {g} {epoch} {mean:9.5f}  {peri:9.5f}  {node:9.5f}  {incl:9.5f}  {e:9.7f} "
    return f"{start}{0.21424651:11.8f} {a:11.7f}".ljust(166) + f"{name:28s}20241101"


@pytest.fixture
def mpcorb(tmp_path):
    def write(name, *lines):
        head = ["MINOR PLANET CENTER ORBIT DATABASE", "", "Des'n     H", "-" * 160]
        text = "\n".join([*head, *lines, ""]).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
        return path

    return write


@pytest.mark.parametrize("name", ["MPCORB.DAT", "mpcorb.dat.gz"])
def test_the_fixed_columns_of_the_minor_planet_center(mpcorb, name):
    unknown = line("2025 AB1", None, None, "K24BT", *CERES[3:])
    hyperbola = line("A/2017 U1", 22.1, 0.15, "K179N", *CERES[3:7], 1.2000000, -1.2720000)
    found = read_movers(mpcorb(name, line("(1) Ceres", *CERES), "", unknown, hyperbola))
    assert list(found.name) == ["(1) Ceres", "2025 AB1"]
    o = found.orbits.take(np.array([0]))
    assert (o.a_au, o.e, o.incl_deg, o.node_deg, o.peri_deg, o.mean_anomaly_deg) == (
        2.7660512, 0.0794013, 10.5878, 80.25221, 73.27343, 188.70269,
    )  # fmt: skip
    assert list(found.orbits.epoch_mjd) == [60800.0, 60643.0]  # 2025 May 5; 2024 November 29
    assert (found.h[0], found.g[0]) == (3.34, 0.15) and np.isnan(found.h[1]) and found.g[1] == 0.15


@pytest.mark.parametrize("suffix", ["csv", "fits", "ecsv", "vot", "parquet"])
@pytest.mark.parametrize("epoch", [60800.0, 2460800.5])
def test_tables_of_elements_with_the_names_of_others(tmp_path, suffix, epoch):
    path = tmp_path / f"sbdb.{suffix}"
    names = ("full_name", "H", "G", "epoch", "ma", "w", "om", "i", "e", "a")
    values = ("1 Ceres", *CERES[:2], epoch, *CERES[3:])
    write(Table({n: [v] for n, v in zip(names, values, strict=True)}), path)
    found = read_movers(path)
    assert (found.name[0], found.orbits.epoch_mjd[0], found.orbits.a_au[0]) == ("1 Ceres", 60800.0, 2.7660512)
    assert read_movers(path) is found  # a file that has not changed is read once


def write(table, path):
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({n: pa.array(table[n].tolist()) for n in table.colnames}), path)
    else:
        table.write(path, format={".vot": "votable", ".ecsv": "ascii.ecsv"}.get(path.suffix))


@pytest.mark.parametrize("suffix", ["csv", "fits", "ecsv", "vot", "parquet"])
def test_variables_as_the_vsx_has_them(tmp_path, suffix):
    path = tmp_path / f"vsx.{suffix}"
    columns = {
        "Name": ["RR Lyr", "NSV 1", "wrong"],
        "V": [0, 1, 2],
        "RAJ2000": [291.36629, 10.0, 10.0],
        "DEJ2000": [42.78436, -5.0, -5.0003],
        "Type": ["RRAB", "", "M"],
        "Period": [0.56686776, np.nan, 300.0],
        "max": [7.06, 12.0, 9.0],
        "min": [8.12, np.nan, 14.0],
    }
    write(Table(columns), path)
    found = read_variables(path)
    assert list(found.name) == ["RR Lyr", "NSV 1"]  # VSX says of the third that it is no variable
    assert found.words(0) == "RR Lyr RRAB P 0.5669 d 7.1-8.1" and found.words(1) == "NSV 1"
    index, apart = found.nearest(np.array([291.36629, 10.0, 10.0]), np.array([42.78464, -5.0004, -5.1]), 1.5)
    assert list(index) == [0, 1, -1] and apart[:2] == pytest.approx([1.008, 1.44], abs=1e-3)


def test_variables_across_the_origin_of_right_ascension(tmp_path):
    path = tmp_path / "v.csv"
    Table({"name": ["a"], "ra": ["23:59:59.99"], "dec": ["+89:00:00"]}).write(path)
    index, apart = read_variables(path).nearest(np.array([0.0]), np.array([89.0001]), 5.0)
    assert index[0] == 0 and apart[0] == pytest.approx(0.36, abs=0.02)


def test_what_cannot_be_read_is_named(tmp_path, mpcorb):
    with pytest.raises(NotFoundError, match=r"no file .*known\.movers"):
        read_movers(tmp_path / "nothing.dat")
    with pytest.raises(FileDamagedError, match="no line of it is an orbit"):
        read_movers(mpcorb("empty.dat"))
    with pytest.raises(FileDamagedError, match="not the fixed columns"):
        read_movers(mpcorb("other.dat", "x" * 200))
    path = tmp_path / "short.csv"
    Table({"name": ["a"], "ra": [1.0]}).write(path)
    with pytest.raises(NotFoundError, match=r"lacks the columns dec \(dec, dej2000"):
        read_variables(path)
    Table({"name": ["a"], "ra": [1.0], "dec": [2.0], "period": ["long"]}).write(path, overwrite=True)
    with pytest.raises(UserError, match=r"column period .* is not numeric"):
        read_variables(path)
