"""`seechange lightcurve`: which target it takes, upper limits for people, ensemble zero points."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io.votable import parse, parse_single_table

import seechange_core.chain
from seechange_assets.cli import run
from seechange_core.chain import EnsembleZeroPoints, LeftOut, LightCurveTable
from seechange_core.chain.ensemble import ComparisonStars, EpochZeroPoint
from seechange_core.flags import QualityFlag

PLACE = ["lightcurve", "--ra", "150.1", "--dec", "2.2"]


@pytest.fixture
def asked(settings, monkeypatch):
    """Record which light curve was asked for; there is one object, 0.4 arcsec from the place."""
    nan, calls = np.nan, []
    given = SimpleNamespace(calls=calls, missing=[])
    table = LightCurveTable(
        exposure=np.array(["e1", "e2", "e3"]), section=np.array(["0"] * 3), filter=np.array(["r"] * 3),
        mjd_mid=np.array([60000.0, 60001.0, 60002.0]), bjd_tdb=np.array([2460000.5, 2460001.5, 2460002.5]),
        flux=np.array([1000.0, 20.0, nan]), flux_err=np.array([10.0, 10.0, nan]),
        zp=np.array([30.0, 30.0, 30.0]), zp_err=np.full(3, 0.1), flags=np.zeros(3, int),
        quality=np.zeros(3, int), band=np.array(["r"] * 3),
    )  # fmt: skip
    given.table = table
    known = SimpleNamespace(name="obj2026aaa", ra=150.1, dec=2.2001, is_bad=False, bad_reason=None)
    given.known = known

    def answer(kind):
        def record(_settings, *target):
            *place, quiet_before = target
            calls.append((kind, *place, *([] if quiet_before is None else [quiet_before])))
            return given.table

        return record

    def nearest(_settings, ra, dec, radius_arcsec):
        return (known, 0.4) if radius_arcsec >= 0.4 else None

    stars = ComparisonStars(
        ra=np.array([150.0]), dec=np.array([2.0]), filter=np.array(["r"]), mag=np.array([11.0]),
        mag_err=np.array([0.001]), rms_mag=np.array([0.005]), mad_mag=np.array([0.004]),
        n_epochs=np.array([2]), used=np.array([True]),
    )  # fmt: skip
    zero_points = EnsembleZeroPoints(
        {
            ("e1", "0"): EpochZeroPoint(31.0, 0.001, 0.0, 0.0),
            ("e3", "0"): EpochZeroPoint(30.0, 0.001, 0.0, 0.0),
        },
        stars,
    )
    for name, function in {
        "position_light_curve": answer("position"),
        "object_light_curve": answer("object"),
        "object_named": lambda *_: known,
        "object_near": nearest,
        "left_out": lambda *_: given.missing,
        "ensemble_at": lambda _settings, *place: calls.append(("ensemble", *place)) or zero_points,
    }.items():
        monkeypatch.setattr(seechange_core.chain, name, function)
    return given


def test_a_place_beside_an_object_is_that_object(asked, capsys):
    assert run(PLACE) == 0
    assert asked.calls == [("object", "obj2026aaa")]
    assert "obj2026aaa is 0.40 arcsec from there" in capsys.readouterr().err
    assert run([*PLACE, "--radius-arcsec", "0.2"]) == 0
    assert asked.calls[1:] == [("position", 150.1, 2.2, "difference")]


def test_what_the_reference_held_is_said(asked, capsys):
    """All light is the difference and the reference; what of it was the object's own is added to its flux."""
    asked.table = replace(
        asked.table, reference_flux=np.full(3, 500.0), reference_flux_err=np.full(3, 5.0),
        in_reference_flux=np.full(3, 100.0), in_reference_flux_err=np.full(3, 10.0),
        n_reference=np.full(3, 8), n_reference_later=np.full(3, 2), quiet_before_mjd=np.full(3, 60001.0),
    )  # fmt: skip
    assert run([*PLACE, "--format", "json", "--quiet-before", "59990"]) == 0
    captured = capsys.readouterr()
    assert asked.calls == [("object", "obj2026aaa", 59990.0)]
    assert "in r, 2 of the reference's 8 exposures show the object: the 0.363 uJy it had" in captured.err
    assert "counted from the level before MJD 60001.00 (--quiet-before" in captured.err
    told = json.loads(captured.out)
    assert told["meta"]["notes"][:-1] == captured.err.splitlines()[1:]
    first = told["epochs"][0]
    assert run([*PLACE]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[lines[0].split().index("in_reference_flux")] == "100.00"
    assert lines[6:] == told["meta"]["notes"]
    assert first["mag"] == pytest.approx(30 - 2.5 * np.log10(1100))
    assert first["mag_err"] == pytest.approx(2.5 / np.log(10) * np.hypot(10, 10) / 1100)
    assert first["total_mag"] == pytest.approx(30 - 2.5 * np.log10(1500))
    assert first["total_ujy"] == pytest.approx(1500 * 10 ** (-0.4 * 6.1))


def test_only_magnitudes_with_a_physical_zero_become_microjansky(asked, capsys):
    """AB, Vega, and of a catalog made from an image of the field itself."""
    relative = np.array([0, 0, int(QualityFlag.RELATIVE)])
    asked.table = replace(
        asked.table, band=np.array(["r", "I", "r"]), quality=relative, flux=np.full(3, 1000.0)
    )
    assert run([*PLACE, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["epochs"]
    assert [row["system"] for row in rows] == ["AB", "Vega", "relative"]
    assert rows[0]["flux_ujy"] == pytest.approx(1000 * 10 ** (-0.4 * 6.1))
    assert rows[1]["flux_ujy"] == pytest.approx(1000 * 10 ** (-0.4 * 6.55))
    assert rows[2]["flux_ujy"] is None
    assert {row["mag"] for row in rows} == {22.5}


def test_files_say_what_their_columns_are(asked, tmp_path):
    file = tmp_path / "curve"
    assert run([*PLACE, "-f", "parquet", "-o", str(file)]) == 0
    schema = pq.read_schema(file)
    assert schema.field("total_ujy").metadata[b"unit"] == b"uJy"
    assert b"4 SATURATED" in schema.field("flags").metadata[b"description"]
    assert b"BRIGHT_SKY" in schema.field("quality").metadata[b"description"]
    assert run([*PLACE, "-f", "votable", "-o", str(file)]) == 0
    fields = {field.name: field for field in parse_single_table(file).fields}
    assert (str(fields["bjd_tdb"].unit), str(fields["zp"].unit)) == ("d", "mag")
    assert b"unit=\"'electron'\"" in file.read_bytes()
    assert str(parse_single_table(file).to_table()["flux"].unit) == "electron"
    assert fields["flux_ujy"].unit == "uJy"
    assert all(field.description for field in fields.values())


def test_on_images_it_is_always_the_place_itself(asked, capsys):
    assert run([*PLACE, "--on", "image"]) == 0
    assert run(["lightcurve", "--object", "obj2026aaa", "--on", "image"]) == 0
    assert asked.calls == [("position", 150.1, 2.2, "image"), ("position", 150.1, 2.2001, "image")]
    assert capsys.readouterr().err == ""


def test_people_read_limits_and_programs_read_numbers(asked, capsys):
    assert run(PLACE) == 0
    head, _, _, seen, faint, lost, limits = capsys.readouterr().out.splitlines()
    assert "in_reference_flux" not in head  # nothing of the object's own is in there
    assert limits.startswith("limiting_mag is that of 5 errors of the flux")
    assert "22.5000  0.0109" in seen
    assert "> 25.75       -" in faint  # 30 - 2.5 log10(5 * 10)
    assert lost.split()[-4:] == ["-", "-", "nan", "nan"]
    assert run([*PLACE, "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert rows[1]["mag"] == str(30 - 2.5 * np.log10(20))
    assert (rows[0]["reference_flux"], rows[0]["in_reference_flux"], rows[0]["total_mag"]) == ("", "0.0", "")


def test_ensemble_zero_points_take_the_place_of_the_catalogs(asked, capsys):
    assert run([*PLACE, "--on", "image", "--ensemble", "--format", "json"]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)["epochs"]
    assert [(row["zp"], row["zp_err"]) for row in rows] == [(31.0, 0.001), (None, None), (30.0, 0.001)]
    assert [row["mag"] for row in rows] == [23.5, None, None]
    assert captured.err.startswith("ensemble in r: 1 comparison stars of 11.0 to 11.0 mag")
    assert "the 1 brightest scatter by 5.0 mmag (median rms; 4.0 by their MAD)" in captured.err
    assert asked.calls == [("position", 150.1, 2.2, "image"), ("ensemble", 150.1, 2.2)]
    assert run(["lightcurve", "--object", "obj2026aaa", "--ensemble"]) == 0
    assert asked.calls[2:] == [("object", "obj2026aaa"), ("ensemble", 150.1, 2.2001)]


def test_raw_files_may_be_named_from_where_one_is(settings, tmp_path, monkeypatch, capsys):
    import seechange_core.products.ingest as module
    from seechange_core.errors import UserError

    seen = []

    def refuse(path, *_, **__):
        seen.append(path)
        raise UserError("not one of ours", file=str(path))

    monkeypatch.setattr(module, "find", refuse)
    (tmp_path / "raw").mkdir()
    (tmp_path / "x.fits").touch()
    monkeypatch.chdir(tmp_path / "raw")
    assert run(["ingest", "../x.fits"]) == 1
    assert seen == [tmp_path / "x.fits"]


def test_a_light_curve_without_epochs_says_so(asked, capsys):
    asked.table = asked.table.select(np.empty(0, int))
    assert run([*PLACE, "--format", "csv"]) == 0
    assert "obj2026aaa: no flux was forced there (process does" in capsys.readouterr().err


def test_magnitudes_without_a_physical_zero_are_printed_too(asked, capsys):
    """They have no microjansky; what is seen is seen nevertheless."""
    assert run(PLACE) == 0
    physical = capsys.readouterr().out
    asked.table = replace(asked.table, quality=np.full(3, int(QualityFlag.RELATIVE)))
    assert run(PLACE) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "22.5000" in shown[3]
    assert "22.5000" in physical
    assert "> 24.2" not in shown[3]
    assert "> " in shown[4]


def test_epochs_without_flux_are_counted_and_named(asked, capsys, tmp_path):
    """Below the table, in the files, and in the figure."""
    asked.missing = [
        LeftOut("stopped at subtraction (no_reference)", ("e4 0", "e5 0")),
        LeftOut("no usable pixel there", ("e3 0",)),
    ]
    words = "3 of 5 epochs have no flux: 2 stopped at subtraction (no_reference), 1 no usable pixel there"
    assert run(PLACE) == 0
    assert words in capsys.readouterr().out.splitlines()
    assert run([*PLACE, "--format", "json", "--plot", str(tmp_path / "a.svg")]) == 0
    meta = json.loads(capsys.readouterr().out)["meta"]
    assert (meta["target"], meta["fluxes_forced_on"]) == ("obj2026aaa", "difference")
    assert meta["left_out"] == {part.reason: list(part.epochs) for part in asked.missing}
    assert (tmp_path / "a.svg").stat().st_size > 0
    file = tmp_path / "curve"
    assert run([*PLACE, "-f", "parquet", "-o", str(file)]) == 0
    assert json.loads(pq.read_schema(file).metadata[b"left_out"]) == meta["left_out"]
    assert run([*PLACE, "-f", "votable", "-o", str(file)]) == 0
    assert words in " ".join(str(parse(file).description).split())


def test_the_depth_of_the_search_is_told_beside_the_limit(asked, capsys):
    asked.table = replace(asked.table, depth_flux=np.array([60.0, 100.0, np.nan]))
    assert run(PLACE) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].split()[-2:] == ["25.7526", "25.0000"]
    assert lines[6].endswith(
        "; depth_mag is what the search, which knew of no place, finds there in half of all cases"
    )


def test_of_a_bogus_object_it_is_said_that_fluxes_are_held_back(asked, capsys):
    asked.known.is_bad, asked.known.bad_reason = True, "a spike"
    assert run([*PLACE, "--format", "csv"]) == 0
    assert "obj2026aaa is marked bogus (a spike): no new fluxes are forced until" in capsys.readouterr().err
