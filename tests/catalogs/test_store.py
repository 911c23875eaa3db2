"""The local store against brute force: cones at awkward places, replacement, damage."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.table import Table

from seechange_core.catalogs import LocalCatalog, import_table, installed
from seechange_core.catalogs import store as store_module
from seechange_core.errors import ConflictError, FileDamagedError, NoCatalog, NotFoundError, UserError
from seechange_core.numerics import sky

N = 1200


@pytest.fixture(scope="module")
def stars():
    """Stars around RA 0, around the north pole, and everywhere."""
    rng = np.random.default_rng(5)
    ra = np.concatenate([rng.normal(0, 1, N) % 360, rng.uniform(0, 360, N), rng.uniform(0, 360, N)])
    anywhere = np.rad2deg(np.arcsin(rng.uniform(-1, 1, N)))
    dec = np.concatenate([rng.normal(10, 1, N), 90 - rng.exponential(0.7, N), anywhere])
    n = len(ra)
    return Table(
        {
            "ra": ra, "dec": dec, "pmra": rng.normal(0, 20, n), "pmdec": rng.normal(0, 20, n),
            "pm_err": np.full(n, 0.5), "position_err_mas": rng.uniform(1, 5, n),
            "mag_g": rng.uniform(14, 21, n),
            "mag_r": rng.uniform(14, 21, n), "mag_r_err": rng.uniform(0.01, 0.05, n),
            "is_star": rng.uniform(size=n) > 0.1,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(stars, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    stars.write(folder / "stars.ecsv")
    import_table(folder / "stars.ecsv", "test", folder / "catalogs", epoch=2016.0)
    return folder / "catalogs"


@pytest.mark.parametrize(
    "cone",
    [
        (0.0, 10.0, 0.5),
        (359.9, 10.3, 1.5),
        (77.0, 90.0, 0.5),
        (10.0, 89.8, 1.0),
        (200.0, -30.0, 12.0),
        (5.0, 9.0, 100.0),
    ],
)
def test_a_cone_holds_what_brute_force_finds(stars, store, cone):
    found = LocalCatalog(store, "test").query(*cone, "r", "g-r", 2016.0)
    inside = sky.separation(cone[0], cone[1], stars["ra"], stars["dec"]) <= cone[2]
    assert len(found) == np.count_nonzero(inside)
    order, expected = np.argsort(found.ra), np.argsort(np.asarray(stars["ra"][inside]))
    for ours, theirs in [("dec", "dec"), ("position_err_mas", "position_err_mas"), ("mag_err", "mag_r_err")]:
        assert getattr(found, ours)[order] == pytest.approx(
            np.asarray(stars[theirs][inside])[expected], rel=1e-6
        )
    color = np.asarray(stars["mag_g"] - stars["mag_r"])[inside][expected]
    assert found.color[order] == pytest.approx(color, abs=1e-5)
    assert np.array_equal(found.is_star[order], np.asarray(stars["is_star"])[inside][expected])


def test_only_the_tiles_of_the_cone_are_opened(store, monkeypatch):
    opened = []
    real = store_module.read_tile
    monkeypatch.setattr(
        store_module, "read_tile", lambda path, *rest: opened.append(path) or real(path, *rest)
    )
    LocalCatalog(store, "test").query(0.0, 10.0, 0.1, "r", None, 2016.0)
    assert 1 <= len(opened) <= 4


def test_an_empty_area_stops_and_a_wrong_name_or_band_is_the_users_mistake(store):
    catalog = LocalCatalog(store, "test")
    with pytest.raises(NoCatalog, match="import a catalog"):
        catalog.query(100.0, -40.0, 0.001, "r", None, 2016.0)
    with pytest.raises(NotFoundError, match=r"only g, r\b"):
        catalog.query(0.0, 10.0, 1.0, "z", None, 2016.0)
    with pytest.raises(NotFoundError, match="'i'"):
        catalog.query(0.0, 10.0, 1.0, "r", "r-i", 2016.0)
    with pytest.raises(NotFoundError, match="no colour"):
        catalog.query(0.0, 10.0, 1.0, "r", "gr", 2016.0)
    with pytest.raises(NotFoundError, match="installed: test"):
        LocalCatalog(store, "gaia")
    with pytest.raises(UserError, match="cannot name"):
        LocalCatalog(store, "../elsewhere")
    assert installed(store) == ["test"]


def test_a_name_taken_is_refused_and_replaced_whole_when_asked(tmp_path):
    for i, mag in enumerate([12.0, 13.0]):
        Table({"ra": [10.0], "dec": [0.0], "mag_V": [mag]}).write(tmp_path / f"{i}.ecsv")
    first = import_table(tmp_path / "0.ecsv", "a", tmp_path / "s", epoch=2000.0)
    with pytest.raises(ConflictError):
        import_table(tmp_path / "1.ecsv", "a", tmp_path / "s", epoch=2000.0)
    second = import_table(tmp_path / "1.ecsv", "a", tmp_path / "s", epoch=2000.0, overwrite=True)
    assert first.checksum != second.checksum
    catalog = LocalCatalog(tmp_path / "s", "a")
    assert catalog.query(10.0, 0.0, 0.1, "V", None, 2000.0).mag == pytest.approx([13.0])
    assert len(list((tmp_path / "s" / "a").iterdir())) == 2
    assert len(list((tmp_path / "s").iterdir())) == 1


def test_damage_is_named(tmp_path):
    Table({"ra": [10.0], "dec": [0.0], "mag_V": [12.0]}).write(tmp_path / "t.ecsv")
    import_table(tmp_path / "t.ecsv", "a", tmp_path, epoch=2000.0)
    tile = next((tmp_path / "a").glob("tiles-*/*.parquet"))
    tile.write_bytes(tile.read_bytes()[:100])
    catalog = LocalCatalog(tmp_path, "a")
    with pytest.raises(FileDamagedError, match=rf"{tile.name}.*import the catalog again with --overwrite"):
        catalog.query(10.0, 0.0, 0.1, "V", None, 2000.0)
    import_table(tmp_path / "t.ecsv", "a", tmp_path, epoch=2000.0, overwrite=True)
    assert catalog.query(10.0, 0.0, 0.1, "V", None, 2000.0).mag == pytest.approx([12.0])
    (tmp_path / "a" / "metadata.json").write_text("{")
    with pytest.raises(FileDamagedError, match=r"metadata\.json"):
        _ = LocalCatalog(tmp_path, "a").info


def test_of_two_that_overwrite_at_once_one_is_there(tmp_path):
    for i in range(2):
        rng = np.random.default_rng(i)
        columns = {"ra": 10 + rng.random(50), "dec": rng.random(50), "mag_V": np.full(50, 12.0 + i)}
        Table(columns).write(tmp_path / f"{i}.ecsv")

    def work(i):
        for _ in range(8):
            import_table(tmp_path / f"{i}.ecsv", "a", tmp_path / "s", epoch=2000.0, overwrite=True)

    for _ in range(3):
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(work, range(2)))
        found = LocalCatalog(tmp_path / "s", "a").query(10.5, 0.5, 1.0, "V", None, 2000.0)
        assert len(found) == 50 and len(set(found.mag)) == 1
        assert len(list((tmp_path / "s" / "a").iterdir())) == 2
    assert len(list((tmp_path / "s").iterdir())) == 1
