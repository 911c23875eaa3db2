"""The commands for reference catalogs, on a service in a thread."""

import json
import sys
from pathlib import Path

import pytest
from astropy.table import Table

from seechange_assets.cli import run
from seechange_core.catalogs import CatalogInfo, LocalCatalog
from seechange_core.catalogs import services as known
from seechange_core.chain.bootstrap import Bootstrapped
from seechange_core.settings import use_settings

sys.path.append(str(Path(__file__).parents[1] / "catalogs"))
from tap_server import make_stars, serving

FIELD = ["--ra", "0.05", "--dec", "-30.1", "--radius-deg", "0.2"]


@pytest.fixture
def service(monkeypatch):
    """A service that people know by name."""
    with serving(make_stars(n=500)) as server:
        there = known.SERVICES["gaia_dr3"].model_copy(update={"url": server.url})
        monkeypatch.setitem(known.SERVICES, "gaia_dr3", there)
        yield server


@pytest.mark.parametrize("command", ["fetch", "bootstrap", "list"])
def test_every_command_has_help_with_an_example(command, capsys):
    assert run(["catalog", command, "--help"]) == 0
    assert f"Example: seechange catalog {command}" in " ".join(capsys.readouterr().out.split())


def test_a_table_is_imported_and_what_was_guessed_is_told(settings, tmp_path, capsys):
    Table({"RAJ2000": [10.0], "DEJ2000": [1.0], "Vmag": [12.0]}).write(tmp_path / "t.csv")
    assert run(["catalog", "import", str(tmp_path / "t.csv"), "--name", "mine", "--epoch", "2000"]) == 0
    assert capsys.readouterr().out == (
        "guessed: ra = RAJ2000, dec = DEJ2000, mag_V = Vmag (say otherwise with --column OURS=THEIRS)\n"
        "mine: 1 stars, bands V, epoch 2000\n"
    )
    assert run(["catalog", "import", str(tmp_path / "t.csv"), "--name", "b", "--column", "mag_B=Vmag"]) == 0
    assert "mag_B" not in capsys.readouterr().out


def test_a_table_of_a_survey_needs_no_more_than_its_name(settings, tmp_path, capsys):
    row = {"RAmdeg": 10.0, "DEmdeg": 1.0, "VTmag": 11.0}
    Table([row]).write(tmp_path / "t.vot", format="votable")
    assert run(["catalog", "import", str(tmp_path / "t.vot"), "--as", "tycho2"]) == 0
    assert capsys.readouterr().out == "tycho2: 1 stars, bands VT, epoch 2000\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no name (give --name NAME)"),
        (["--name", "a"], "lacks the columns mag_<band> (say which they are, as --column ra=COL"),
        (["--as", "gaia"], "known are gaia_dr3, tycho2"),
        (
            ["--as", "gaia_dr3"],
            "lacks the columns mag_<band>: with gaia_dr3 these are phot_g_mean_mag or phot_bp_mean_mag or "
            "phot_rp_mean_mag (leave out --as to have them guessed, or say which they are, "
            "as --column ra=COL --column mag_X=COL",
        ),
        (["--name", "a", "--column", "V"], "expected OURS=THEIRS"),
        (["--name", "a", "--column", "mag_V=flux", "--epoch", "nan"], "--epoch nan is impossible"),
        (["--name", "a", "--column", "mag_V=flux", "--column", "mag_V=dec"], "--column mag_V is given twice"),
        (["--name", "a", "--column", "mag_V=flux", "--column", "magV=flux"], "no such columns of ours: magV"),
        (
            ["--name", "a", "--column", "mag_B=flux", "--column", "mag_V_err=flux"],
            "say which it is: --column mag_V=",
        ),
    ],
)
def test_what_cannot_be_imported_is_said_in_a_line(settings, tmp_path, capsys, arguments, words):
    Table({"ra": [10.0], "dec": [1.0], "flux": [12.0]}).write(tmp_path / "t.csv")
    assert run(["catalog", "import", str(tmp_path / "t.csv"), *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_field_is_fetched_once(settings, service, capsys):
    assert run(["catalog", "fetch", *FIELD]) == 0
    captured = capsys.readouterr()
    tiles = len(service.queries)
    assert f"({tiles} new), bands BP, G, RP (and by transformation B, V, R, I, g, r, i, z" in captured.out
    assert captured.err.splitlines()[-1] == f"[{tiles}/{tiles}] tile"
    assert run(["catalog", "fetch", *FIELD]) == 0
    assert "(0 new)" in capsys.readouterr().out
    # More of the same catalog, by its name.
    assert run(["catalog", "fetch", "--name", "gaia_dr3", "--ra", "100", "--dec", "0"]) == 0
    assert "gaia_dr3: 0 stars in" in capsys.readouterr().out
    assert run(["catalog", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["kind"], row["epoch"]) == ("gaia_dr3", "growing", 2016.0)
    assert row["tiles"] > tiles and row["stars"] > 0 and row["bands"].startswith("BP G RP B V")


def test_any_service_by_its_url(settings, service, capsys):
    asked = ["--service", service.url, "--table", "a.b", "--as", "gaia_dr3", "--name", "mine"]
    assert run(["catalog", "fetch", *asked, "--faint-limit", "16", *FIELD]) == 0
    store = settings.data_root / "catalogs"
    assert LocalCatalog(store, "mine").info.recipe.faint_limit == 16
    assert LocalCatalog(store, "mine").query(0.05, -30.1, 0.2, "BP", None, 2016.0).mag.min() > 0
    assert run(["catalog", "fetch", *asked, *FIELD]) == 1
    assert "was fetched otherwise" in capsys.readouterr().err
    named = ["--service", service.url, "--table", "a.b", "--name", "other"]
    assert run(["catalog", "fetch", *named, "--as", "nosuch", *FIELD]) == 1
    assert "no catalog layout is called 'nosuch' (known are gaia_dr3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give --ra and --dec, or --exposure NAME"),
        (["--ra", "3"], "give --ra and --dec"),
        ([*FIELD, "--service", "gaia"], "known are gaia_dr3"),
        ([*FIELD, "--service", "http://127.0.0.1:9/tap"], "give --table TABLE and --name NAME"),
        (
            [*FIELD, "--table", "Q", "--epoch", "1950"],
            "gaia_dr3 has its own table and columns: --table, --epoch",
        ),
        ([*FIELD, "--name", "none", "--as", "ps1", "--column", "mag_V=V"], "catalog none has its own table"),
        ([*FIELD, "--faint-band", "G"], "give --faint-limit too"),
        (["--exposure", "e1", "--radius-deg", "1"], "--radius-deg would change nothing"),
        ([*FIELD, "--name", "none"], "no reference catalog 'none'"),
        ([*FIELD, "--faint-limit", "16", "--faint-band", "V"], "--faint-band can be G, BP, RP"),
        ([*FIELD, "--faint-limit", "nan"], "--faint-limit nan is impossible"),
        ([*FIELD, "--epoch", "nan"], "--epoch nan is impossible"),
        (["--ra", "nan", "--dec", "2"], "--ra nan is impossible (give 0 to 360)"),
        (["--ra", "400", "--dec", "2"], "--ra 400 is impossible"),
        (["--ra", "3", "--dec", "95"], "--dec 95 is impossible (give -90 to 90)"),
        (["--ra", "3", "--dec", "2", "--radius-deg", "-1"], "--radius-deg -1 is impossible"),
        (["--ra", "3", "--dec", "2", "--radius-deg", "inf"], "--radius-deg inf is impossible"),
    ],
)
def test_what_cannot_be_fetched_is_said_in_a_line(settings, service, capsys, arguments, words):
    assert run(["catalog", "fetch", *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert service.queries == []


def test_a_fetch_that_failed_leaves_no_catalog(settings, service, capsys):
    service.always = 400
    assert run(["catalog", "fetch", *FIELD]) == 1
    assert run(["catalog", "list"]) == 0
    assert "no catalogs yet" in capsys.readouterr().out
    service.always, service.faults = None, [None, 400]
    assert run(["catalog", "fetch", "--ra", "0.05", "--dec", "-30.1", "--radius-deg", "0.8"]) == 1
    assert run(["catalog", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["tiles"]) == ("gaia_dr3", 1)


def test_of_several_catalogs_it_is_said_how_one_is_chosen(settings, tmp_path, capsys):
    Table({"ra": [10.0], "dec": [1.0], "mag_V": [12.0]}).write(tmp_path / "t.csv")
    command = ["catalog", "import", str(tmp_path / "t.csv"), "--name"]
    assert run([*command, "one"]) == 0
    assert "several" not in capsys.readouterr().out
    assert run([*command, "two"]) == 0
    assert "to use this one, set `catalog: two` in the settings" in capsys.readouterr().out
    with use_settings(settings.model_copy(update={"catalog": "three"})):
        assert run([*command, "three"]) == 0
    assert "several" not in capsys.readouterr().out


def test_no_catalogs_yet(settings, capsys):
    assert run(["catalog", "list"]) == 0
    assert "catalog import, fetch or bootstrap" in capsys.readouterr().out


def test_a_bootstrap_processes_first_and_says_what_it_took(settings, tmp_path, monkeypatch, capsys):
    done = []
    info = CatalogInfo(
        name="own", epoch=2013.51, bands=("I",), colors=(), source="e1", n_stars=7, checksum="", tile_order=5,
        relative=True,
    )  # fmt: skip

    def process(names, *, through, **_):
        done.append((tuple(names), through))

    def make(_, exposures, name, *, overwrite, tell):
        done.append(([e.name for e in exposures], name, overwrite))
        tell(1, 1)
        return Bootstrapped(info, (("e1", "0", "I", 7),))

    monkeypatch.setattr("seechange_assets.survey.process_exposures", process)
    monkeypatch.setattr("seechange_core.chain.bootstrap.bootstrap_catalog", make)
    assert run(["catalog", "bootstrap", "e1", "--name", "own"]) == 0
    assert done == [(("e1",), "source_list"), (["e1"], "own", False)]
    captured = capsys.readouterr()
    assert captured.out == "from e1 0: 7 stars in I\nown: 7 stars, bands I, epoch 2013.51, relative\n"
    assert "[1/1] exposure looked at" in captured.err
    # A name that is taken, or is none, is refused before the work.
    Table({"ra": [10.0], "dec": [1.0], "mag_V": [12.0]}).write(tmp_path / "t.csv")
    assert run(["catalog", "import", str(tmp_path / "t.csv"), "--name", "own"]) == 0
    for name, words in (("own", "already in"), ("a/b", "cannot name a catalog")):
        assert run(["catalog", "bootstrap", "e1", "--name", name]) == 1
        assert words in capsys.readouterr().err
    assert len(done) == 2
    assert run(["catalog", "bootstrap", "e1", "--name", "own", "--overwrite"]) == 0
    assert len(done) == 4
