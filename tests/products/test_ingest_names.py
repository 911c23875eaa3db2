"""Cameras that begin to count anew every night: the same file name on several nights and cameras."""

import itertools
import multiprocessing
import shutil

import numpy as np
import pytest
from astropy.io import fits
from sqlalchemy import select

from seechange_core import Exposure
from seechange_core.errors import ConflictError
from seechange_core.instrument import get_instrument_instance
from seechange_core.pool import PRELOAD
from seechange_core.products import ingest as ingest_module
from seechange_core.products.ingest import find, ingest, register
from seechange_core.storage.engine import open_session

CARDS = {
    "INSTRUME": "DemoCam",
    "OBSTYPE": "science",
    "EXPTIME": 60.0,
    "FILTER": "r",
    "RA": 10.0,
    "DEC": -30.0,
}
NIGHTS = ("2012-06-17", "2012-06-18", "2012-06-19")


def write(folder, night, level=100, **cards):
    """Write flat-001.fit of a night; at the demo telescope the evening is after midnight UTC."""
    path = folder / night / "flat-001.fit"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = fits.Header({**CARDS, "DATE-OBS": f"{night}T23:30:00", **cards})
    units = [fits.ImageHDU(np.full((8, 10), level + i, np.uint16), name=f"SEC{i:02d}") for i in range(4)]
    fits.HDUList([fits.PrimaryHDU(header=header), *units]).writeto(path, overwrite=True)
    return path


def rows(settings):
    with open_session(settings, read_only=True) as session:
        found = session.scalars(select(Exposure).order_by(Exposure.mjd)).all()
        session.expunge_all()
    return found


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_first_keeps_the_name_and_the_others_get_their_night(database, tmp_path, order):
    paths = [write(tmp_path / "in", night) for night in NIGHTS]
    for i in order:
        assert register(find(paths[i]), database).outcome == "new"
    for i in reversed(order):  # and it stays so
        assert register(find(paths[i]), database).outcome == "known"
    found = rows(database)
    assert [row.night for row in found] == list(NIGHTS)
    names = [f"flat-001_{night}" for night in NIGHTS]
    names[order[0]] = "flat-001"
    assert [row.name for row in found] == names
    for row, path in zip(found, paths, strict=True):
        assert (database.data_root / row.filename).read_bytes() == path.read_bytes()


def test_other_bytes_of_a_night_are_a_conflict_on_every_night(database, tmp_path):
    for night in NIGHTS[:2]:
        ingest(write(tmp_path / "in", night), database)
    for night in NIGHTS[:2]:
        with pytest.raises(ConflictError, match="with other content"):
            ingest(write(tmp_path / "other", night, level=300), database)
    assert len(rows(database)) == 2


def test_a_file_in_place_that_another_night_s_was_written_over(database):
    source = write(database.data_root / "camera", NIGHTS[0])
    ingest(source, database)
    shutil.copyfile(write(database.data_root / "elsewhere", NIGHTS[1]), source)
    with pytest.raises(
        ConflictError, match=r"flat-001\.fit was registered with other content, of another night"
    ):
        ingest(source, database)
    assert [row.name for row in rows(database)] == ["flat-001"]


def test_a_file_that_has_such_a_name_by_itself(database, tmp_path):
    """The name with the night is taken by a file that is called so: the instrument comes after it."""
    ingest(write(tmp_path / "in", NIGHTS[0]), database)
    own = tmp_path / "own" / f"flat-001_{NIGHTS[1]}.fit"
    own.parent.mkdir()
    shutil.copyfile(write(tmp_path / "x", NIGHTS[1], level=300), own)
    assert ingest(own, database).name == f"flat-001_{NIGHTS[1]}"
    assert ingest(write(tmp_path / "in", NIGHTS[1]), database).name == f"flat-001_{NIGHTS[1]}_demo"
    assert len(rows(database)) == 3


def test_groups_of_files_get_their_night_too(database, tmp_path, monkeypatch):
    def group_by_section(path):
        return "night_", [f"{i}.fits" for i in range(4)]

    monkeypatch.setattr(get_instrument_instance("demo"), "group_files", group_by_section)
    for night in NIGHTS[:2]:
        folder = tmp_path / night
        folder.mkdir()
        for i in range(4):
            header = fits.Header({**CARDS, "DATE-OBS": f"{night}T23:30:00", "CHIP": i})
            fits.PrimaryHDU(np.full((8, 10), i, np.uint16), header=header).writeto(folder / f"night_{i}.fits")
        for i in (2, 0):
            ingest(folder / f"night_{i}.fits", database)
    assert [row.name for row in rows(database)] == ["night_0", f"night_0_{NIGHTS[1]}"]


def test_the_name_is_taken_between_look_and_insert(database, tmp_path, monkeypatch):
    ingest(write(tmp_path / "in", NIGHTS[0]), database)
    look, calls = ingest_module._look, []

    def blind_at_first(*given):
        calls.append(given)
        return look(*given) if len(calls) > 1 else None

    monkeypatch.setattr(ingest_module, "_look", blind_at_first)
    result = register(find(write(tmp_path / "in", NIGHTS[1])), database)
    assert (result.outcome, result.exposure.name) == ("new", f"flat-001_{NIGHTS[1]}")


def test_many_processes_end_as_one_row_per_file(database, tmp_path):
    paths = [write(tmp_path / "in", night) for night in NIGHTS]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD])
    with context.Pool(3) as pool:
        jobs = [(p, pool.apply_async(ingest, (p, database))) for p in paths * 4]
        found = {(p, job.get(120).id) for p, job in jobs}
    assert len(found) == 3
    stored = rows(database)
    assert {row.id for row in stored} == {i for _, i in found}
    names = [row.name for row in stored]
    assert names.count("flat-001") == 1
    assert all(row.name in {"flat-001", f"flat-001_{row.night}"} for row in stored)
