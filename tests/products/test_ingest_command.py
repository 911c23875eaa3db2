"""`seechange ingest`: what it takes from a folder, what it says of each file, and the status it ends with."""

import gzip
import json
import shutil

import numpy as np
import pytest
from astropy.io import fits
from sqlalchemy import select

import seechange_assets.survey
from seechange_assets.cli import run
from seechange_core import Exposure
from seechange_core.errors import IgnoredFile
from seechange_core.products.ingest import ingest as core_ingest
from seechange_core.storage.engine import get_engine, open_session
from seechange_core.storage.orm import Base

CARDS = {"INSTRUME": "DemoCam", "EXPTIME": 60.0, "FILTER": "r", "RA": 10.0, "DEC": -30.0}


@pytest.fixture
def told(settings, monkeypatch):
    """The exposures that the web interface was told of."""
    Base.metadata.create_all(get_engine(settings))
    names = []
    monkeypatch.setattr(seechange_assets.survey, "register_exposures", lambda n, *_: names.extend(n))
    return names


def write(path, minute, kind="science", **cards):
    path.parent.mkdir(parents=True, exist_ok=True)
    cards = {**CARDS, "OBSTYPE": kind, "DATE-OBS": f"2021-01-01T02:{minute:02d}:00", **cards}
    units = [fits.ImageHDU(np.full((8, 10), i, np.uint16), name=f"SEC{i:02d}") for i in range(4)]
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(cards)), *units]).writeto(path, overwrite=True)
    return path


@pytest.fixture
def night(tmp_path):
    """A night's folder, with what else lies about in such folders."""
    folder = tmp_path / "night"
    write(folder / "b/demo_20210101_020200_sci.fits", 2)
    write(folder / "b/demo_20210101_020100_sci.fits", 1)
    write(folder / "a/demo_20210101_020000_bias.fits", 0, "bias")
    write(folder / "demo_20210101_020300_flat.new", 3, "flat")
    (folder / ".partial").mkdir()
    write(folder / ".partial/demo_20210101_020400_sci.fits", 4)
    (folder / "log.txt").write_text("clear, seeing 1.1\n")
    (folder / "a/sums.md5").write_text("0\n")
    return folder


def test_a_folder_means_its_fits_files_in_order(told, night, capsys):
    assert run(["ingest", str(night)]) == 0
    out, err = capsys.readouterr()
    assert out == "4 exposures: 1 flat, 1 bias, 2 science; 2 other files passed over\n"
    assert told == ["demo_20210101_020100_sci", "demo_20210101_020200_sci"]
    assert err.splitlines()[1] == "[2/4] demo_20210101_020000_bias: bias, new"
    assert run(["ingest", str(night), str(night / "a/demo_20210101_020000_bias.fits")]) == 0
    assert capsys.readouterr().out == (
        "4 exposures: 1 flat, 1 bias, 2 science; 4 known already; 2 other files passed over\n"
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"clear, seeing 1.1\n", "not a readable FITS file"),
        ("empty.fits", b"", "not a readable FITS file"),
        ("page.fits", b"<html>404</html>", "not a readable FITS file"),
        ("a.fits.gz", gzip.compress(b"no FITS inside", mtime=0), "not a readable FITS file"),
        ("a.fits.gz", gzip.compress(bytes(5000), mtime=0)[:-8] + b"12345678", "damaged compression"),
        ("none.fits", None, "there is no such file"),
    ],
)
def test_what_is_no_fits_takes_one_line_with_a_cure(told, tmp_path, capsys, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert run(["ingest", str(tmp_path / name)]) == 1
    out, err = capsys.readouterr()
    assert out == "no exposures; 1 refused\n"
    progress, refused = err.splitlines()
    assert refused.startswith(f"refused: file {tmp_path / name}: {words}")
    assert refused.endswith(")")  # the cure
    assert "ignore_missing" not in err  # advice for those who program with a library
    assert progress.startswith("[1/1] refused: ")


def test_a_folder_without_fits(told, tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    assert run(["ingest", str(tmp_path / "raw")]) == 1
    assert f"file {tmp_path / 'raw'}: the folder has no files" in capsys.readouterr().err
    (tmp_path / "raw/notes.txt").touch()
    assert run(["ingest", str(tmp_path / "raw")]) == 1
    assert "none of its 1 files is FITS (" in capsys.readouterr().err


def test_files_that_need_no_processing_are_counted_and_no_error(told, night, capsys, settings):
    for minute, kind in ((10, "focus"), (11, "focus"), (12, "junk")):
        write(night / f"c/demo_20210101_02{minute}00_sci.fits", minute, kind)
    assert run(["ingest", str(night)]) == 0
    out, err = capsys.readouterr()
    assert out == (
        "4 exposures: 1 flat, 1 bias, 2 science; 3 passed over (focus, junk); 2 other files passed over\n"
    )
    assert "passed over: demo_20210101_021200_sci.fits: junk" in err
    with pytest.raises(
        IgnoredFile, match=r"021000_sci\.fits: focus: files of this image type are passed over"
    ):
        core_ingest(night / "c/demo_20210101_021000_sci.fits", settings)
    assert run(["ingest", str(night / "c"), "--json"]) == 0
    assert {row["ignored"] for row in json.loads(capsys.readouterr().out)} == {"focus", "junk"}


def test_good_ones_go_on_beside_bad_ones(told, night, capsys):
    (night / "b/demo_20210101_020100_sci.fits").write_bytes(b"half")
    write(night / "b/x.fits", 5, INSTRUME="unheard of")
    assert run(["ingest", str(night)]) == 1
    out, err = capsys.readouterr()
    assert out == "3 exposures: 1 flat, 1 bias, 1 science; 2 refused; 2 other files passed over\n"
    damaged, unknown = err.splitlines()[-2:]
    assert "b/demo_20210101_020100_sci.fits: " in damaged
    assert "b/x.fits: cannot tell which instrument made it" in unknown
    assert "INSTRUME" in unknown
    assert told == ["demo_20210101_020200_sci"]
    assert run(["ingest", str(night / "b/x.fits"), "--instrument", "demo"]) == 0
    assert capsys.readouterr().out == "1 exposure: 1 science\n"
    assert run(["ingest", str(night / "b/x.fits"), "--instrument", "hubble"]) == 1
    assert "there is no instrument 'hubble'" in capsys.readouterr().err


def test_files_that_belong_together_are_one_exposure(told, tmp_path, capsys):
    header = fits.Header({**CARDS, "INSTRUME": "DECam", "OBSTYPE": "object", "MJD-OBS": 59215.083})
    header["OBS-LONG"] = 70.8
    names = [f"c4d_210101_020000_oo{role}_r_v1.fits" for role in "dwi"]
    for name in names:
        unit = fits.ImageHDU(np.zeros((8, 10), np.float32), name="N4")
        fits.HDUList([fits.PrimaryHDU(header=header), unit]).writeto(tmp_path / name)
    assert run(["ingest", *(str(tmp_path / name) for name in names)]) == 0
    out, err = capsys.readouterr()
    assert out == "1 exposure: 1 science; 1 without some sections\n"
    assert "without section N1 and 59 more" in err
    assert err.count("with the file it belongs to") == 2
    (tmp_path / names[2]).unlink()
    assert run(["ingest", str(tmp_path / names[0])]) == 1
    assert names[2] in capsys.readouterr().err


def test_a_reading_that_changed_is_told(settings, told, night, capsys, monkeypatch):
    path = night / "b/demo_20210101_020100_sci.fits"
    assert run(["ingest", str(path)]) == 0
    with open_session(settings) as session:
        session.scalars(select(Exposure)).one().filter = "wrong"
    capsys.readouterr()
    assert run(["ingest", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == "1 exposure: 1 science; 1 known and read anew\n"
    assert err == "[1/1] demo_20210101_020100_sci: science, changed: filter wrong -> r\n"


def test_lost_sections_are_told(told, night, capsys):
    path = night / "b/demo_20210101_020100_sci.fits"
    path.write_bytes(path.read_bytes()[:-6000])
    assert run(["ingest", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == "1 exposure: 1 science; 1 without some sections\n"
    assert "science, new; without section 3: the file has no extension 'SEC03'" in err


def test_json(told, night, capsys):
    (night / "b/demo_20210101_020200_sci.fits").write_bytes(b"half")
    assert run(["ingest", str(night / "b"), "--json"]) == 1
    refused, done = json.loads(capsys.readouterr().out)
    assert (refused["reason"], done["name"]) == ("file_damaged", "demo_20210101_020100_sci")
    assert (done["outcome"], done["changes"], done["unreadable_sections"]) == ("new", {}, None)


def test_a_full_disk_ends_it_with_one_line(settings, told, night, capsys, monkeypatch):
    copy, left = shutil.copyfile, [1]

    def until_full(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", until_full)
    assert run(["ingest", str(night / "b")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("No space left on device")
    with open_session(settings, read_only=True) as session:
        done = session.scalars(select(Exposure.name)).all()
    assert told == done == ["demo_20210101_020100_sci"]
    left[0] = 1
    assert run(["ingest", str(night / "b")]) == 0
    assert "2 exposures: 2 science; 1 known already" in capsys.readouterr().out


def test_what_ended_it_is_told_even_if_the_web_interface_cannot_be_told(told, night, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    def broken(*_):
        raise RuntimeError("no instance")

    monkeypatch.setattr(shutil, "copyfile", full)
    monkeypatch.setattr(seechange_assets.survey, "register_exposures", broken)
    assert run(["ingest", str(night / "b")]) == 1
    *_, beside, last = capsys.readouterr().err.splitlines()
    assert beside == "the web UI was not told of what is registered: no instance"
    assert last.endswith("No space left on device")
