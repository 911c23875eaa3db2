"""The commands: what they print, where, and the status they end with."""

import json
import socket
from dataclasses import replace

import numpy as np
import pytest

import seechange_core.chain
from seechange_assets.cli import run
from seechange_core.chain import LightCurveTable, OutdatedExposure
from seechange_core.chain.left_out import LeftOut
from seechange_core.chain.queries import StatusRow
from seechange_core.chain.reference_sets import ReferenceRow, UsedNow
from seechange_core.settings import load_settings, use_settings

COMMANDS = [
    *(["init"], ["ui"], ["simulate"], ["ingest"], ["process"], ["reference", "build"]),
    *(["reference", "list"], ["reference", "use"]),
    *(["calibrator", "add"], ["calibrator", "list"]),
    *(["show"], ["candidates"], ["lightcurve"], ["catalog", "import"]),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command, capsys):
    assert run([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: seechange {' '.join(command)}" in " ".join(text.split())


@pytest.mark.parametrize("arguments", [["nonsense"], ["process", "--jobs", "-3"], ["ingest"], []])
def test_a_wrong_command_line_has_status_2(arguments, capsys):
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert "seechange" in captured.err + captured.out


def test_processing_tells_its_progress_and_what_came_out(settings, capsys):
    assert run(["process", "e1", "-j", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "16 masters: 16 done\n4 sections: 4 done\n"
    lines = captured.err.splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("[1/16] bias of 2025-01-01 ")
    assert lines[-1].startswith("[20/20] e1 ")
    assert run(["process", "e1", "-j", "2"]) == 0
    assert capsys.readouterr().out == "4 sections: 4 loaded\n"


def test_frames_that_were_left_out_of_masters_are_told_once(settings, plan, capsys):
    plan({f"bias|{n}": ("done", f"level {n}") for n in (1, 2)})
    assert run(["process", "e1", "-j", "1"]) == 0
    assert "left out: f2 of bias 2025-01-01, 2 sections: level 1\n" in capsys.readouterr().out


def test_a_stop_is_told_and_is_no_failure(settings, plan, capsys):
    plan({"e1|1": ("stopped", "subtraction"), "e1|2": ("stopped", "subtraction")})
    assert run(["process", "e1", "-j", "2"]) == 0
    out = capsys.readouterr().out
    assert "4 sections: 2 done, 2 stopped" in out
    assert out.count("stopped: ") == 1  # the same reason is said once
    assert ": subtraction: e1: stopped (a cure)" in out


def test_a_failure_is_named_and_is_the_exit_status(settings, plan, capsys):
    plan({"e1|1": ("failed", "image")})
    assert run(["process", "-j", "2"]) == 1
    captured = capsys.readouterr()
    assert "8 sections: 7 done, 1 failed" in captured.out
    assert captured.err.splitlines()[-1] == "failed: e1 1: image: e1: failed (a cure)"


def test_json_is_for_programs(settings, plan, capsys):
    plan({"e1|1": ("failed", "image")})
    assert run(["process", "e1", "--section", "1", "--json", "-j", "1"]) == 1
    rows = json.loads(capsys.readouterr().out)
    (failed,) = (row for row in rows if row["outcome"] == "failed")
    assert (failed["section"], failed["step"], failed["reason"]) == ("1", "image", "failed_here")
    assert all("preview" not in row for row in rows)


def test_errors_take_one_line_with_a_cure(settings, capsys):
    assert run(["process", "e9"]) == 1
    assert (
        capsys.readouterr().err == "seechange: exposure e9: not in the database (ingest its raw file first)\n"
    )
    assert run(["process", "e9", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["init"], ["ingest", "."], ["ui"]], ids=" ".join)
def test_a_wrong_key_of_a_stage_is_named_before_any_work(command, settings, capsys):
    wrong = settings.model_copy(update={"instruments": {"demo": {"parameters": {"detect": {"treshold": 4}}}}})
    with use_settings(wrong):
        assert run(command) == 1
    assert "demo.parameters.detect.treshold: there is no such parameter (did you mean threshold?)" in (
        capsys.readouterr().err
    )


def test_a_bug_is_called_a_bug(settings, monkeypatch, capsys):
    monkeypatch.setattr(seechange_core.chain, "exposures", lambda *_: 1 / 0)
    assert run(["process"]) == 1
    assert capsys.readouterr().err.startswith("seechange: bug: ZeroDivisionError: division by zero (")


def test_building_references_tells_what_was_left_out_and_why(settings, capsys):
    assert run(["reference", "build", "--filter", "r", "-j", "2"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "2 references: 2 done"
    assert len(others) == 2
    assert others[0].startswith("left out: e2, e3, e4, e5 and 2 more of reference r")
    assert others[0].endswith(": seeing 1.2 arcsec, at most 1.10 allowed (the first of them)")


def test_versions_of_references_are_listed_and_one_is_used(settings, monkeypatch, capsys):
    row = ReferenceRow("r1", "r", "default", "demo", 1, "used", 3, 1.2, 23.1, None, "", "p", True)
    rows = [row, replace(row, version=2, state="proposed", bad_inputs="e7"), replace(row, left_out="e1")]
    monkeypatch.setattr(seechange_core.chain, "list_references", lambda _: rows)
    assert run(["reference", "list", "--region", "r1"]) == 0
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert "used" in first and "proposed" in second and "e7" in second
    assert run(["reference", "list", "--all", "--json"]) == 0
    assert [row["left_out"] for row in json.loads(capsys.readouterr().out)] == [None, None, "e1"]
    other = replace(row, current=False)
    rows[:] = [replace(other, state="outdated"), replace(other, version=2, state="earlier")]
    assert run(["reference", "list"]) == 0
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert "outdated" in line
    asked = []
    monkeypatch.setattr(
        seechange_core.chain,
        "use_references",
        lambda _, *what: (
            asked.append(what) or [UsedNow("r1", "r", 2, 1, {"e7/0": 1, "e8/0": None, "e8/1": 1})]
        ),
    )
    words = ["--region", "r1", "--filter", "r", "--version", "2", "--reason", "deeper"]
    assert run(["reference", "use", *words]) == 0
    assert asked == [("demo", ["r1"], "r", 2, "deeper")]
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "r1 in r: 1 sections are in version 2 and have none: build it with --leave-one-out: e8/0",
        "r1 in r: 2 sections are in version 2 and stay on version 1: e7/0, e8/1",
    ]


def status(step, state="done", **more):
    fields = {
        "reason": "",
        "message": "",
        "provenance": "abcdef0123456789",
        "outdated": False,
        "current": True,
    }
    return StatusRow("e1", "0", step, state, **{**fields, **more})


@pytest.fixture
def rows(settings, monkeypatch):
    """Set what the database says."""

    def put(*rows):
        monkeypatch.setattr(seechange_core.chain, "status", lambda settings, names=None: list(rows))

    return put


def test_show_gives_an_overview(rows, capsys):
    rows(status("image"), status("source_list", "stopped", reason="no_stars"))
    assert run(["show"]) == 0
    assert "e1        1 stopped at source_list (no_stars)" in capsys.readouterr().out


def test_show_says_what_is_bad(rows, capsys):
    """In the overview once for each section, with the figures at each step, as names in JSON."""
    trailed = {"quality": ("trailed",), "message": "the stars' common elongation is 1.7, at most 1.3 wanted"}
    rows(
        status("image", metrics={"median_e": 200.0}),
        status("source_list", metrics={"fwhm_pix": 3.0}, **trailed),
        status("world_coordinates", "stopped", reason="no_solution", message="no", quality=("match_failed",)),
    )
    assert run(["show"]) == 0
    out = capsys.readouterr().out
    assert "1 stopped at world_coordinates (no_solution), flagged: trailed (1), match_failed (1)" in out
    assert run(["show", "e1"]) == 0
    header, good, bad, _ = capsys.readouterr().out.splitlines()
    assert "quality" in header and "trailed" not in good
    assert "trailed" in bad and "fwhm_pix 3" in bad and bad.endswith("1.7, at most 1.3 wanted")
    assert run(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1]["quality"] == ["trailed"]


def test_show_gives_every_step_of_an_exposure(rows, capsys, monkeypatch):
    old = [OutdatedExposure("e1", "2025-01-01", "zero_point")]
    monkeypatch.setattr(seechange_core.chain, "outdated_exposures", lambda *_: old)
    rows(
        status("image", metrics={"fwhm_pix": 2.5, "other": 1.0}),
        status("image", provenance="0123456789", current=False),
        status("zero_point", outdated=True, current=False),
    )
    assert run(["show", "e1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["e1", "0", "image", "done", "abcdef01", "fwhm_pix", "2.5"]
    assert lines[2][:7] == ["e1", "0", "image", "done", "01234567", "other", "settings"]
    assert run(["show", "--outdated"]) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == ["step", "zero_point"]
    assert run(["show", "--outdated", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["step"] == "zero_point"


@pytest.fixture
def curve(settings, monkeypatch):
    nan = np.nan
    table = LightCurveTable(
        exposure=np.array(["e1", "e2"]), section=np.array(["0", "0"]), filter=np.array(["r", "r"]),
        mjd_mid=np.array([60000.123456, 60001.0]), bjd_tdb=np.array([2460000.5, nan]),
        flux=np.array([1000.0, -5.0]), flux_err=np.array([10.0, 10.0]),
        zp=np.array([30.0, 30.0]), zp_err=np.array([0.01, 0.01]), flags=np.array([0, 4]),
        quality=np.array([0, 1024]),
    )  # fmt: skip
    monkeypatch.setattr(seechange_core.chain, "position_light_curve", lambda *_: table)
    monkeypatch.setattr(seechange_core.chain, "object_near", lambda *_: None)
    monkeypatch.setattr(seechange_core.chain, "left_out", lambda *_: [LeftOut("called bad", ("e3 0",))])


def test_light_curves_in_every_format(curve, tmp_path, capsys):
    import pyarrow.parquet as pq
    from astropy.io.votable import parse_single_table

    place = ["lightcurve", "--ra", "150.1", "--dec", "2.2"]
    assert run(place) == 0
    lines = capsys.readouterr().out.splitlines()
    good, clouded = (line for line in lines if line.split()[:1] in (["e1"], ["e2"]))
    assert "60000.123456" in good and "clouds" not in good
    assert "1 of 3 epochs have no flux: 1 called bad" in lines
    assert " clouds " in clouded and "1024" not in clouded
    assert run([*place, "-f", "csv"]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.startswith("exposure,section,filter,mjd_mid,bjd_tdb,flux")
    assert first.startswith("e1,0,r,60000.123456,2460000.5,1000.0,10.0")
    assert second.startswith("e2,0,r,60001.0,,-5.0") and ",4,1024," in second
    assert run([*place, "-f", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["meta"]["left_out"] == {"called bad": ["e3 0"]}
    rows = told["epochs"]
    assert (rows[0]["mag"], rows[1]["mag"], rows[1]["bjd_tdb"]) == (22.5, None, None)
    file = tmp_path / "curve"
    assert run([*place, "-f", "parquet", "-o", str(file)]) == 0
    assert pq.read_table(file)["flux"].to_pylist() == [1000.0, -5.0]
    assert run([*place, "-f", "votable", "-o", str(file)]) == 0
    assert list(parse_single_table(file).array["flux"]) == [1000.0, -5.0]


def test_light_curves_are_drawn(curve, tmp_path, capsys):
    place = ["lightcurve", "--ra", "150.1", "--dec", "2.2", "--plot"]
    assert run([*place, str(tmp_path / "curve.png")]) == 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert run([*place, "curve.foo"]) == 1
    assert "cannot draw into curve.foo (name it *.png" in capsys.readouterr().err


@pytest.mark.parametrize("target", [[], ["--ra", "1"], ["--object", "a", "--ra", "1", "--dec", "2"]])
def test_a_light_curve_needs_one_target(settings, target, capsys):
    assert run(["lightcurve", *target]) == 1
    assert "lightcurve needs one target" in capsys.readouterr().err


def test_the_web_ui_needs_a_free_port_and_an_instance(settings, capsys, monkeypatch, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert run(["ui", "--port", str(port)]) == 1
    assert f"port {port} is not free" in capsys.readouterr().err
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "nowhere"))
    assert run(["ui", "--port", str(port)]) == 1
    assert "seechange init" in capsys.readouterr().err


def test_a_database_without_tables_has_a_cure(tmp_path, capsys):
    fresh = load_settings(environ={"SEECHANGE_PATH__DATA_ROOT": str(tmp_path / "fresh")})
    with use_settings(fresh):
        assert run(["candidates"]) == 1
    assert "no tables yet (run: seechange init)" in capsys.readouterr().err


def test_a_night_that_is_no_date_is_refused(settings, capsys):
    assert run(["reference", "build", "--night", "2026-02-30"]) == 1
    error = capsys.readouterr().err
    assert "--night 2026-02-30 is no date" in error
    assert "YYYY-MM-DD" in error


def test_a_night_without_exposures_is_told(settings, capsys):
    run(["reference", "build", "--night", "2019-01-01"])
    assert "no exposures are of the night of 2019-01-01; the last nights are" in capsys.readouterr().err
