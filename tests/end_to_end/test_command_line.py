"""Bad input and good through the commands: one line naming thing and cure, and honest exit statuses."""

import csv
import io

import pytest
from astropy.io import fits
from small_survey import SECTIONS, assert_whole

from seechange_assets.cli import run
from seechange_core import chain
from seechange_core.errors import UserError
from seechange_core.products.ingest import ingest


def no_filter(units):
    del units[0].header["FILTER"]


def odd_date(units):
    units[0].header["DATE-OBS"] = "yesterday evening"
    del units[0].header["MJD-OBS"]


def write_empty(path, _started):
    path.write_bytes(b"")


def write_text(path, _started):
    path.write_text("this is not a FITS file\n" * 500)


def write_headless(path, started):
    path.write_bytes((started.raw / f"{started.science[2]}.fits").read_bytes()[:2000])


FILES = {
    "an empty file": (write_empty, "FITS"),
    "a file that is not FITS": (write_text, "FITS"),
    "a file cut in its header": (write_headless, "FITS"),
    "a missing card": (no_filter, "FILTER"),
    "an unreadable card": (odd_date, "yesterday evening"),
}


def test_bad_files_are_refused_by_name_and_good_ones_registered(started, capsys):
    """A folder with five bad files and a good one."""
    folder = started.root / "incoming"
    folder.mkdir()
    bad = {}
    for minute, (spoil, word) in enumerate(FILES.values()):
        name = f"demo_20260222_07{minute:02d}00_sci"
        if spoil in (no_filter, odd_date):
            path = started.variant(name, spoil, 30 + minute).rename(folder / f"{name}.fits")
        else:
            spoil(path := folder / f"{name}.fits", started)
        bad[path] = word
    good = (started.raw / f"{started.science[2]}.fits").rename(folder / f"{started.science[2]}.fits")
    counts = started.counts()
    assert run(["ingest", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"1 exposure: 1 science; {len(bad)} refused\n"
    refused = [line for line in captured.err.splitlines() if line.startswith("refused: ")]
    assert len(refused) == len(bad)
    for path, word in bad.items():
        (line,) = (line for line in refused if str(path) in line)
        assert word in line and line.endswith(")"), line
    assert started.counts() == {**counts, "exposures": counts["exposures"] + 1}
    stored = list((started.root / "data" / "raw").rglob("*.fits"))
    assert [p.name for p in stored] == [good.name]
    assert_whole(started)


def test_a_name_that_climbs_is_refused_and_one_that_is_nothing(started, capsys):
    """A script that hands over '..' is told so; what a shell makes of it is meant."""
    climbing = f"{started.raw}/../raw/{started.science[2]}.fits"
    with pytest.raises(UserError, match=r"climbs with '\.\.'.*without it"):
        ingest(climbing, started.settings)
    assert run(["ingest", climbing]) == 0
    capsys.readouterr()
    assert run(["ingest", str(started.raw / "nothing.fits")]) == 1
    assert "there is no such file (" in capsys.readouterr().err


def test_a_night_with_a_damaged_section_goes_on_and_a_retry_does_only_it(started, capsys):
    """Exit status 1 and one line for the section; 0 after the file is repaired, and then nothing to do."""
    name = started.science[2]
    path = started.raw / f"{name}.fits"
    content = path.read_bytes()
    assert run(["ingest", str(path)]) == 0
    path.write_bytes(content[: int(0.9 * len(content))])
    capsys.readouterr()
    assert run(["process", name, "--through", "zero_point", "-j", "1"]) == 1
    captured = capsys.readouterr()
    assert "2 sections: 1 done, 1 failed" in captured.out
    (line,) = (line for line in captured.err.splitlines() if line.startswith("failed: "))
    assert f"{name} 1: exposure:" in line and str(path) in line and line.endswith(")")
    path.write_bytes(content)
    assert run(["process", name, "--through", "zero_point", "-j", "1"]) == 0
    assert "2 sections: 1 done, 1 loaded" in capsys.readouterr().out
    assert {r.status for r in chain.status(started.settings, [name])} == {"done"}
    assert_whole(started)


def test_show_tells_versions_and_what_is_outdated(processed, capsys):
    name = processed.science[2]
    assert run(["show", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith(name)]) == len(chain.STEPS) * len(SECTIONS)
    assert run(["show", "--outdated"]) == 0
    assert capsys.readouterr().out == "nothing is outdated\n"
    assert run(["show", "demo_never_sci"]) == 1
    assert capsys.readouterr().err.startswith(
        "seechange: exposure demo_never_sci: no such science exposure ("
    )


def test_a_light_curve_of_a_candidate(processed, capsys, tmp_path):
    best = chain.candidates(processed.settings, limit=1)[0]
    plot = tmp_path / "curve.png"
    assert run(["lightcurve", "--object", best.object, "-f", "csv", "--plot", str(plot)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert best.exposure in {row["exposure"] for row in rows}
    assert all(float(row["limiting_mag"]) > 20 for row in rows if row["flux_err"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert run(["lightcurve", "--ra", "10", "--dec", "-80"]) == 1
    assert "no difference covers ra 10.00000 dec -80.00000" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["process", "demo_never_sci"], ["process", "--section", "9"]])
def test_what_does_not_exist_takes_one_line(arguments, processed, capsys):
    assert run(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("seechange: ") and line.endswith(")")


def test_raw_files_stay_as_they_came(processed, snapshots):
    for path in (snapshots / "started" / "survey" / "raw").iterdir():
        assert path.read_bytes() == (processed.raw / path.name).read_bytes()
        with fits.open(path, mode="readonly") as units:
            assert len(units) == 1 + len(SECTIONS)
