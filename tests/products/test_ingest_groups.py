"""Exposures of several files: registered once, as a whole or not at all, whichever file is given."""

import itertools
import multiprocessing
import os
import shutil

import numpy as np
import pytest
from astropy.io import fits
from sqlalchemy import select

from seechange_core import Exposure
from seechange_core.errors import ConflictError, FileDamagedError, UserError
from seechange_core.instrument import get_instrument_instance
from seechange_core.pool import PRELOAD
from seechange_core.products import raw_files
from seechange_core.products.ingest import find, ingest, register
from seechange_core.settings import use_settings
from seechange_core.storage.archive import Archive, group_checksum, sha256_of
from seechange_core.storage.engine import get_engine, open_session
from seechange_core.storage.orm import Base

CARDS = {
    "INSTRUME": "DemoCam",
    "OBSTYPE": "science",
    "DATE-OBS": "2021-01-01T02:00:00.000",
    "EXPTIME": 60.0,
    "FILTER": "r",
    "RA": 10.0,
    "DEC": -30.0,
}
CCDS = [f"night_{i}.fits" for i in range(4)]


def group_by_section(path):
    """A camera with one file for each section."""
    common = path.name.rpartition("_")[0] + "_"
    return common, [f"{i}.fits" for i in range(4)]


@pytest.fixture
def split(monkeypatch):
    """The demo camera, as if it wrote a file for each of its sections."""
    monkeypatch.setattr(get_instrument_instance("demo"), "group_files", group_by_section)


def write(folder, level=100, **cards):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(CCDS):
        header = fits.Header({**CARDS, "CHIP": i, **cards})
        pixels = np.full((80, 100), level + i, np.uint16)
        fits.PrimaryHDU(pixels, header=header).writeto(folder / name, overwrite=True)
    return [folder / name for name in CCDS]


@pytest.fixture
def sqlite(settings):
    Base.metadata.create_all(get_engine(settings))
    return settings


def rows(settings):
    with open_session(settings, read_only=True) as session:
        found = session.scalars(select(Exposure)).all()
        session.expunge_all()
    return found


def raw_of(settings):
    """Every file under the data root but the database's."""
    return sorted(p for p in settings.data_root.rglob("*") if p.is_file() and "seechange.db" not in p.name)


def test_any_of_its_files_registers_all_of_them_once(database, split, tmp_path):
    paths = write(tmp_path / "in")
    ids = {ingest(path, database).id for path in (paths[2], *paths)}
    (row,) = rows(database)
    assert ids == {row.id}
    assert row.name == "night_0"
    assert row.filename == "raw/demo/2020-12-31/night_0/night_"
    assert row.filename_extensions == ["0.fits", "1.fits", "2.fits", "3.fits"]
    assert row.checksum == group_checksum(sha256_of(p) for p in paths)
    assert row.size_bytes == sum(p.stat().st_size for p in paths)
    assert [int(row.data[s][0, 0]) for s in row.data] == [100, 101, 102, 103]
    assert row.raw_header["CHIP"] == 0
    assert [row.section_headers[s]["CHIP"] for s in row.data] == [0, 1, 2, 3]
    assert [p.read_bytes() for p in raw_of(database)] == [p.read_bytes() for p in paths]
    assert row.get_fullpath() == [str(p) for p in raw_of(database)]


def test_files_in_a_data_root_stay_where_they_are(sqlite, split):
    paths = write(sqlite.data_root / "nights/one")
    row = ingest(paths[3], sqlite)
    assert (row.filename, row.filename_extensions[1]) == ("nights/one/night_", "1.fits")
    assert raw_of(sqlite) == paths
    paths = write(sqlite.data_root, level=300, **{"DATE-OBS": "2021-01-01T03:00:00"})
    for path in paths:
        path.rename(path.with_name(f"other_{path.name}"))
    row = ingest(sqlite.data_root / f"other_{CCDS[0]}", sqlite)
    assert row.filename == "other_night_"
    assert row.data[2][0, 0] == 302


def test_a_missing_file_is_named(sqlite, split, tmp_path):
    paths = write(tmp_path / "in")
    paths[2].unlink()
    for path in (paths[0], paths[3]):
        with pytest.raises(
            UserError, match=r"night_2\.fits, which belongs to it, is not beside it"
        ) as caught:
            ingest(path, sqlite)
        assert str(path) in str(caught.value)
    assert rows(sqlite) == raw_of(sqlite) == []


def test_a_damaged_file_loses_its_section_by_name(sqlite, split, tmp_path):
    paths = write(tmp_path / "in")
    paths[1].write_bytes(paths[1].read_bytes()[:6000])
    row = ingest(paths[0], sqlite)
    assert list(row.unreadable_sections) == ["1"]
    better = write(tmp_path / "again")
    again = register(find(better[2]), sqlite)
    assert (again.outcome, again.exposure.id) == ("completed", row.id)
    assert again.exposure.unreadable_sections is None
    assert again.exposure.data[1][0, 0] == 101
    assert row.data[0][0, 0] == 100  # whoever still reads the first files finds them whole
    with pytest.raises(FileDamagedError):
        row.data[1]
    paths[0].write_text("nothing")
    with pytest.raises(FileDamagedError, match=r"in/night_0\.fits: not a readable FITS"):
        ingest(paths[0], sqlite, instrument="demo")


@pytest.mark.parametrize("at", range(4))
def test_a_copy_that_fails_shows_none_of_the_files(sqlite, split, tmp_path, monkeypatch, at):
    paths, copy, calls = write(tmp_path / "in"), shutil.copyfile, itertools.count()

    def broken(source, target):
        if next(calls) == at:
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", broken)
    with pytest.raises(OSError, match="No space left"):
        ingest(paths[0], sqlite)
    assert rows(sqlite) == raw_of(sqlite) == []
    monkeypatch.setattr(shutil, "copyfile", copy)
    assert ingest(paths[0], sqlite).data[3][0, 0] == 103


def test_files_that_change_meanwhile_are_refused(sqlite, split, tmp_path, monkeypatch):
    paths = write(tmp_path / "in")
    look = raw_files.sweep

    def change(folder):
        paths[3].write_bytes(paths[3].read_bytes()[:-2880])
        look(folder)

    monkeypatch.setattr(raw_files, "sweep", change)
    with pytest.raises(Exception, match="changed while it was copied"):
        ingest(paths[0], sqlite)
    assert rows(sqlite) == raw_of(sqlite) == []


def test_a_crash_before_the_row_is_made_good_by_trying_again(sqlite, split, tmp_path, monkeypatch):
    paths = write(tmp_path / "in")

    class Crash(BaseException):
        pass

    def crash(*_):
        raise Crash

    from seechange_core.products import ingest as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "get_or_insert", crash)
        with pytest.raises(Crash):
            ingest(paths[0], sqlite)
    assert rows(sqlite) == []
    assert len(raw_of(sqlite)) == 4
    raw_of(sqlite)[2].unlink()  # even if somebody took one of them away
    assert ingest(paths[0], sqlite).get_fullpath() == [str(p) for p in raw_of(sqlite)]
    assert len(raw_of(sqlite)) == 4


def test_the_same_name_with_other_bytes_is_a_conflict(database, split, tmp_path):
    first = ingest(write(tmp_path / "in")[0], database)
    other = write(tmp_path / "other", level=200)
    with pytest.raises(ConflictError, match="night_0 with other content is known already") as caught:
        ingest(other[1], database)
    text = str(caught.value)
    assert str(tmp_path / "other") in text
    assert all(path in text for path in first.get_fullpath())
    assert caught.value.cure
    assert len(raw_of(database)) == 4


def test_other_files_in_the_way_are_not_touched(sqlite, split, tmp_path):
    stray = sqlite.data_root / "raw/demo/2020-12-31/night_0/night_2.fits"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"somebody's")
    with pytest.raises(ConflictError, match=r"night_2\.fits is in the data root already with other content"):
        ingest(write(tmp_path / "in")[0], sqlite)
    assert raw_of(sqlite) == [stray]
    assert stray.read_bytes() == b"somebody's"


def test_a_second_group_that_begins_alike_in_one_folder(sqlite, monkeypatch):
    """As the observatory's products of two processing versions do."""
    demo, folder = get_instrument_instance("demo"), sqlite.data_root / "night"
    monkeypatch.setattr(demo, "group_files", lambda p: ("x_", [f"{p.stem[2:4]}_{i}.fits" for i in range(4)]))
    for version, level in (("v1", 100), ("v2", 200)):
        for i, path in enumerate(write(folder, level)):
            path.rename(folder / f"x_{version}_{i}.fits")
    ingest(folder / "x_v1_0.fits", sqlite)
    with pytest.raises(ConflictError, match="begin with night/x_ are known already as another exposure"):
        ingest(folder / "x_v2_0.fits", sqlite)
    assert len(rows(sqlite)) == 1


def test_what_is_lost_comes_back_with_the_same_files(database, split, tmp_path):
    paths = write(tmp_path / "in")
    first = ingest(paths[0], database)
    for lost in raw_of(database)[1:3]:
        lost.unlink()
    again = register(find(paths[0]), database)
    assert again.outcome == "known"
    assert [p.read_bytes() for p in raw_of(database)] == [p.read_bytes() for p in paths]
    moved = database.data_root / "moved"
    shutil.move(database.data_root / "raw/demo/2020-12-31/night_0", moved)
    again = register(find(moved / CCDS[0]), database)
    assert (again.outcome, again.exposure.id) == ("changed", first.id)
    assert rows(database)[0].filename == "moved/night_"
    assert rows(database)[0].data[1][0, 0] == 101


def test_a_group_comes_from_the_server_and_is_verified(sqlite, split, tmp_path):
    server = tmp_path / "server"
    path = sqlite.path.model_copy(update={"server_data": str(server)})
    paths = write(tmp_path / "in")
    with use_settings(sqlite.model_copy(update={"path": path})) as chosen:
        row = ingest(paths[0], chosen)
        shutil.move(chosen.data_root / "raw", server / "raw")
        with pytest.raises(FileNotFoundError):
            row.get_fullpath(download=False)
        (served,) = server.rglob("night_2.fits")
        good = served.read_bytes()
        served.write_bytes(good[:-1] + b"x")
        with pytest.raises(FileDamagedError, match="SHA-256"):
            row.data[0]
        assert raw_of(chosen) == []
        served.write_bytes(good)
        assert row.data[2][0, 0] == 102
        assert len(row.get_fullpath(download=False)) == 4


# --- DECam's calibrated products, and many processes at once --------------------------------------------

PRODUCTS = [f"c4d_210101_020000_oo{role}_r_v1.fits" for role in "idw"]


def write_decam(folder, roles="idw"):
    folder.mkdir(exist_ok=True)
    cards = {**CARDS, "INSTRUME": "DECam", "OBSTYPE": "object", "MJD-OBS": 59215.083, "OBS-LONG": 70.815}
    kinds = {"i": np.float32, "d": np.int32, "w": np.float32}
    for role in roles:
        units = [fits.PrimaryHDU(header=fits.Header(cards))]
        for number, name in ((1, "S29"), (2, "S30"), (35, "N4")):
            units.append(fits.ImageHDU(np.full((40, 30), number, kinds[role]), name=name))
        fits.HDUList(units).writeto(folder / f"c4d_210101_020000_oo{role}_r_v1.fits", overwrite=True)
    return [folder / f"c4d_210101_020000_oo{role}_r_v1.fits" for role in roles]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_image_mask_and_weight_are_one_exposure_in_any_order(sqlite, tmp_path, order):
    paths = write_decam(tmp_path / "in")
    for i in order:
        ingest(paths[i], sqlite)
    (row,) = rows(sqlite)
    assert row.name == "c4d_210101_020000_ooi_r_v1"
    assert row.filename == f"raw/decam/2020-12-31/{row.name}/c4d_210101_020000_"
    assert row.filename_extensions == ["ooi_r_v1.fits", "ood_r_v1.fits", "oow_r_v1.fits"]
    assert row.data["N4"][0, 0] == 35
    assert len(raw_of(sqlite)) == 3


def test_a_mask_without_its_image(sqlite, tmp_path):
    path = write_decam(tmp_path / "in", "d")[0]
    with pytest.raises(UserError, match=r"c4d_210101_020000_ooi_r_v1\.fits is not beside it"):
        ingest(path, sqlite)
    assert rows(sqlite) == raw_of(sqlite) == []


def test_companions_that_come_later_complete_the_exposure(database, tmp_path):
    folder = tmp_path / "in"
    outcomes = []
    for roles in ("i", "d", "w", ""):
        write_decam(folder, roles)
        outcomes.append(register(find(folder / PRODUCTS[0]), database))
    assert [o.outcome for o in outcomes] == ["new", "completed", "completed", "known"]
    (row,) = rows(database)
    assert len(row.filename_extensions) == 3
    assert row.checksum == group_checksum(sha256_of(folder / name) for name in PRODUCTS)
    assert [sha256_of(p) for p in map(Archive().path, row.relative_paths)] == [
        sha256_of(folder / name) for name in PRODUCTS
    ]
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copyfile(folder / PRODUCTS[0], alone / PRODUCTS[0])
    assert register(find(alone / PRODUCTS[0]), database).outcome == "known"


def test_many_processes_at_once_end_as_one_row_and_one_copy(database, tmp_path):
    paths = write_decam(tmp_path / "in")
    single = tmp_path / "demo_20210101_020000_sci.fits"
    units = [fits.ImageHDU(np.full((8, 10), i, np.uint16), name=f"SEC{i:02d}") for i in range(4)]
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(CARDS)), *units]).writeto(single)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD])
    with context.Pool(3) as pool:
        jobs = [pool.apply_async(ingest, (p, database)) for p in [*paths, single] * 3]
        ids = {job.get(120).id for job in jobs}
    found = rows(database)
    assert {row.id for row in found} == ids
    assert sorted(row.instrument for row in found) == ["decam", "demo"]
    assert len(raw_of(database)) == 4
    assert not list(database.data_root.rglob(".partial*"))
    for row in found:
        with use_settings(database):
            sums = [sha256_of(p) for p in map(Archive().path, row.relative_paths)]
        assert row.checksum == (group_checksum(sums) if len(sums) > 1 else sums[0])
    assert os.access(raw_of(database)[0].parent, os.X_OK)
