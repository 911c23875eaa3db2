"""The commands about calibrators, on a database of their own."""

import json

import numpy as np
import pytest
from astropy.io import fits
from sqlalchemy import update

from seechange_assets.cli import run
from seechange_core.products import Calibrator
from seechange_core.settings import load_settings, use_settings
from seechange_core.storage.engine import open_session
from seechange_core.storage.migrate import upgrade


@pytest.fixture
def camera(tmp_path):
    config = tmp_path / "seechange.yaml"
    config.write_text("path: {data_root: data}\ninstruments: {demo: {sections: 2, section_size_pix: 64}}\n")
    settings = load_settings(config, environ={})
    upgrade(settings)
    with use_settings(settings):
        yield settings


@pytest.fixture
def flat(tmp_path):
    path = tmp_path / "flat.fits"
    units = [fits.ImageHDU(np.full((64, 64), 2.0), name=name) for name in "01"]
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(path)
    return str(path)


def test_a_calibrator_is_added_and_listed(camera, flat, capsys):
    assert run(["calibrator", "list"]) == 0
    assert "no calibrators yet" in capsys.readouterr().out
    add = ["calibrator", "add", flat, "--kind", "flat", "--filter", "r", "--valid-from", "2026-01-01"]
    assert run([*add, "--valid-to", "2026-03-01", "--date", "2026-02-01"]) == 0
    assert capsys.readouterr().out == "flat in r of demo: 2 sections\n"
    assert run(["calibrator", "list"]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["kind", "section", "filter", "night"]
    expected = ["flat", "0", "r", "2026-02-01", "2026-01-01", "2026-03-01", "supplied", "0", "0", "flat.fits"]
    assert first.split() == expected
    assert second.split()[1] == "1"
    assert run(["calibrator", "list", "--section", "1", "--kind", "flat", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["kind"], row["section"], row["current"], row["source"]) == ("flat", "1", True, "flat.fits")
    assert "frames" not in row
    assert run(["calibrator", "list", "--kind", "bias"]) == 0
    assert "none of 2 calibrators match" in capsys.readouterr().out
    assert run(["calibrator", "list", "--section", "0", "--frames"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-2:] == ["flat.fits", "supplied"]


def test_one_section_as_json_and_a_bad_one_is_marked(camera, flat, capsys):
    assert run(["calibrator", "add", flat, "--kind", "dark", "--section", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["kind"], row["section"]) == ("dark", "1")
    with open_session(camera) as session:
        session.execute(update(Calibrator).values(bitflag=1))
    assert run(["calibrator", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("flat.fits bad")


def test_what_is_refused_is_told_in_one_line(camera, flat, capsys):
    assert run(["calibrator", "add", flat, "--kind", "flat"]) == 1
    assert capsys.readouterr().err == "seechange: a flat belongs to a filter (name it, e.g. --filter r)\n"
    assert run(["calibrator", "add", "nowhere.fits", "--kind", "flat", "--filter", "r"]) == 1
    assert "nowhere.fits: there is no such file" in capsys.readouterr().err
    assert run(["calibrator", "add", flat, "--kind", "sky"]) == 2
    capsys.readouterr()
    assert run(["show", "--calibrators"]) == 0
    assert "no image was made with calibrators yet" in capsys.readouterr().out


def test_filters_that_match_nothing_are_told_from_names_that_do_not_exist(camera, flat, capsys):
    assert run(["calibrator", "list", "--section", "9"]) == 1
    assert "there is no section '9' (those of demo: 0, 1)" in capsys.readouterr().err
    assert run(["calibrator", "add", flat, "--kind", "flat", "--filter", "r"]) == 0
    capsys.readouterr()
    assert run(["calibrator", "list", "--kind", "bias"]) == 0
    assert capsys.readouterr().out == "none of 2 calibrators match\n"
    assert run(["calibrator", "list", "--section", "0", "--section", "N4"]) == 1
    assert "there is no section 'N4'" in capsys.readouterr().err
    assert run(["calibrator", "list", "--instrument", "decam"]) == 1
    assert "'decam' is not among those in use (these are: demo)" in capsys.readouterr().err


def test_an_instrument_has_to_be_named_where_there_are_several(camera, flat, capsys):
    both = camera.model_copy(update={"instruments": {"demo": camera.instruments["demo"], "decam": {}}})
    add = ["calibrator", "add", flat, "--kind", "flat", "--filter", "r"]
    with use_settings(both):
        assert run(add) == 1
        assert "which instrument it is for (give --instrument: demo, decam)" in capsys.readouterr().err
        assert run([*add, "--instrument", "demo"]) == 0


def test_calibrators_outdated_is_refused(camera, capsys):
    assert run(["show", "--calibrators", "--outdated"]) == 1
    assert "ask for --calibrators or --outdated" in capsys.readouterr().err


def test_a_calibrator_is_withdrawn_and_taken_back(camera, flat, capsys):
    assert run(["calibrator", "add", flat, "--kind", "flat", "--filter", "r"]) == 0
    assert run(["calibrator", "mark", "bad", "--kind", "flat", "--file", "flat.fits"]) != 0
    assert "needs a reason" in capsys.readouterr().err
    marking = ["calibrator", "mark", "bad", "--kind", "flat", "--reason", "a guess"]
    assert run(marking) != 0
    assert "name their night" in capsys.readouterr().err
    assert run([*marking, "--file", "other.fits"]) != 0
    assert run([*marking, "--file", "flat.fits"]) == 0
    assert "2 flat marked bad" in capsys.readouterr().out
    run(["calibrator", "list"])
    assert capsys.readouterr().out.count("flat.fits bad") == 2
    assert run(["calibrator", "mark", "good", "--kind", "flat", "--file", "flat.fits"]) == 0
    run(["calibrator", "list"])
    assert "flat.fits bad" not in capsys.readouterr().out
