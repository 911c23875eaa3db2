"""What goes wrong in one section: one line with a cure, nothing half-made, and the neighbours go on."""

import shutil

import numpy as np
import pytest
from astropy.io import fits
from small_survey import STEP_NAMES, THROUGH_ZERO_POINT, assert_whole
from sqlalchemy import select, text

from seechange_core import chain
from seechange_core.catalogs.importer import import_table
from seechange_core.chain import steps_image
from seechange_core.products import Image
from seechange_core.products.exposure import Exposure
from seechange_core.storage.engine import open_session

ALL_DONE = dict.fromkeys(STEP_NAMES, "done")


def until(step: str, outcome: str) -> dict[str, str]:
    """The outcomes of a section whose walk ends so at a step."""
    n = STEP_NAMES.index(step)
    return {s: "done" if i < n else outcome if i == n else "skipped" for i, s in enumerate(STEP_NAMES)}


# --- Edits of a raw file's second section ---------------------------------------------------------


def take_away(units, survey):
    del units["SEC01"]


def only_nan(units, survey):
    cards = units["SEC01"].header.copy()
    for name in ("BZERO", "BSCALE"):
        cards.remove(name, ignore_missing=True)
    units["SEC01"] = fits.ImageHDU(np.full(units["SEC01"].data.shape, np.nan, np.float32), cards)


def no_light(units, survey):
    units["SEC01"].data = survey.bias_pixels(1)


def no_stars(units, survey):
    sky_adu = np.random.default_rng(1).poisson(1500, units["SEC01"].data.shape) // 2
    middle = sky_adu.shape[1] // 2
    sky_adu[:, middle - 24 : middle + 24] = 0  # no light falls on the overscans
    units["SEC01"].data = (survey.bias_pixels(1) + sky_adu).astype(np.int16)


def nonsense_card(units, survey):
    units["SEC01"].header["DATASECA"] = "[1:nonsense"


EDITS = {
    "a missing extension": (take_away, "exposure", "failed", "section_missing"),
    "all pixels NaN": (only_nan, "image", "failed", "pixels"),
    "a dead CCD": (no_light, "source_list", "stopped", "dead_section"),
    "no stars": (no_stars, "source_list", "stopped", "no_stars"),
    "an unreadable card": (nonsense_card, "exposure", "failed", "header"),
}


@pytest.mark.parametrize(("edit", "step", "outcome", "reason"), EDITS.values(), ids=EDITS)
def test_a_bad_section_ends_alone(edit, step, outcome, reason, started):
    path = started.variant("demo_20260222_070000_sci", lambda units: edit(units, started))
    started.ingest(path)
    report = started.walk(path.stem, "1")
    assert {name: str(r.outcome) for name, r in report.items()} == until(step, outcome)
    ended = report[step]
    assert ended.reason == reason
    assert "\n" not in ended.message
    assert path.stem in ended.message and "section 1" in ended.message
    assert ended.message.endswith(")"), "no cure"
    assert started.outcomes(path.stem, "0", steps=STEP_NAMES[:2]) == dict.fromkeys(STEP_NAMES[:2], "done")
    told = started.status(exposure=path.stem, section="1")
    assert {name: row.status for name, row in told.items()} == {
        name: what for name, what in until(step, outcome).items() if what != "skipped"
    }
    assert told[step].message == ended.message
    assert_whole(started)


def test_a_file_cut_short_loses_a_section_and_the_others_go_all_the_way(started):
    """It is registered with a word on what is lost; when the whole file comes, the lost section is made."""
    name = started.science[2]
    whole = started.raw / f"{name}.fits"
    content = whole.read_bytes()
    whole.write_bytes(content[: int(0.9 * len(content))])
    (row,) = started.ingest(whole)
    assert list(row.unreadable_sections) == ["1"]
    assert [e.name for e in chain.exposures(started.settings, [name])] == [name]
    report = started.walk(name, "1")["exposure"]
    assert (report.outcome, report.reason) == ("failed", "file_damaged")
    assert str(whole) in report.message and "ends before" in report.message
    assert started.outcomes(name, "0") == ALL_DONE
    whole.write_bytes(content)
    started.ingest(whole)
    assert started.outcomes(name, "1", steps=THROUGH_ZERO_POINT) == dict.fromkeys(THROUGH_ZERO_POINT, "done")
    assert started.rows(select(Exposure).where(Exposure.name == name))[0].bitflag == 0
    assert_whole(started)


def test_after_a_repair_only_what_failed_is_made(started):
    """A file that was damaged on the disk: its headers cannot be read, then they can again."""
    name = started.science[2]
    path = started.raw / f"{name}.fits"
    started.ingest(path)
    content = path.read_bytes()
    assert started.outcomes(name, "0", steps=THROUGH_ZERO_POINT)["zero_point"] == "done"
    second = content.rindex(b"XTENSION")
    path.write_bytes(content[:second] + b"\x00garbage" * 300 + content[second + 2400 :])
    report = started.walk(name, "1")["exposure"]
    assert report.outcome == "failed"
    assert str(path) in report.message and "\n" not in report.message
    path.write_bytes(content)
    before = started.files()
    assert set(started.outcomes(name, "0", steps=THROUGH_ZERO_POINT).values()) == {"loaded"}
    assert started.files() == before
    assert started.outcomes(name, "1", steps=THROUGH_ZERO_POINT) == dict.fromkeys(THROUGH_ZERO_POINT, "done")
    assert started.status(exposure=name, section="1")["exposure"].status == "done"


def test_a_field_without_reference_stops_and_goes_on_when_there_is_one(started):
    name = started.science[2]
    started.ingest(started.raw / f"{name}.fits")
    started.mark_references(bad=True)
    report = started.walk(name, "0")
    assert {s: str(r.outcome) for s, r in report.items()} == until("subtraction", "stopped")
    assert report["subtraction"].reason == "no_reference"
    assert name in report["subtraction"].message and "build one" in report["subtraction"].message
    assert started.outcomes(name, "0")["subtraction"] == "stopped"
    started.mark_references(bad=False)
    again = started.outcomes(name, "0")
    assert again == {s: "loaded" if s in THROUGH_ZERO_POINT else "done" for s in STEP_NAMES}
    assert_whole(started)


def test_what_was_subtracted_from_a_bad_reference_no_longer_looks_done(own):
    """The reference is called bad later: the section is stopped now, and its old steps are not reported."""
    name = own.science[2]
    own.mark_references(bad=True)
    assert own.outcomes(name, "0") == {
        s: "loaded" if s in THROUGH_ZERO_POINT else "stopped" if s == "subtraction" else "skipped"
        for s in STEP_NAMES
    }
    told = {step: row.status for step, row in own.status(exposure=name, section="0").items()}
    assert told == {**dict.fromkeys(THROUGH_ZERO_POINT, "done"), "subtraction": "stopped"}
    own.mark_references(bad=False)
    assert set(own.outcomes(name, "0").values()) == {"loaded", "done"}
    assert_whole(own)


def test_a_field_outside_the_catalog_stops(started):
    def elsewhere(units):
        units[0].header["RA"] = (units[0].header["RA"] + 90) % 360

    path = started.variant("demo_20260222_070000_sci", elsewhere)
    started.ingest(path)
    report = started.walk(path.stem, "0")
    assert {s: str(r.outcome) for s, r in report.items()} == until("world_coordinates", "stopped")
    assert report["world_coordinates"].reason == "no_catalog"
    assert path.stem in report["world_coordinates"].message


def test_without_any_catalog_it_stops_until_one_is_imported(started):
    name = started.science[2]
    started.ingest(started.raw / f"{name}.fits")
    catalogs = started.settings.data_root / "catalogs"
    catalogs.rename(catalogs.with_name("elsewhere"))
    report = started.walk(name, "0", THROUGH_ZERO_POINT)
    assert report["world_coordinates"].reason == "no_catalog"
    assert "seechange catalog import" in report["world_coordinates"].message
    catalogs.with_name("elsewhere").rename(catalogs)
    again = started.outcomes(name, "0", steps=THROUGH_ZERO_POINT)
    assert [s for s, outcome in again.items() if outcome == "done"] == ["world_coordinates", "zero_point"]


def test_a_second_catalog_in_the_store_undoes_nothing(own):
    """Which of two is meant is for a person to say: until then what was made is there, and said to be."""
    name, store = own.science[2], own.settings.data_root / "catalogs"
    before = own.status(exposure=name, section="0")
    import_table(own.root / "survey" / "catalog.ecsv", "second", store, epoch=2016.0)
    report = own.walk(name, "0")
    assert {s: str(r.outcome) for s, r in report.items()} == {
        s: "loaded" if s in THROUGH_ZERO_POINT[:3] else "failed" if s == "world_coordinates" else "skipped"
        for s in STEP_NAMES
    }
    assert "second" in report["world_coordinates"].message
    assert own.status(exposure=name, section="0") == before
    shutil.rmtree(store / "second")
    assert set(own.outcomes(name, "0").values()) == {"loaded"}


def test_a_missing_master_is_named(started):
    name = started.science[2]
    started.ingest(started.raw / f"{name}.fits")
    with open_session(started.settings) as session:
        session.execute(text("UPDATE calibrators SET bitflag = 1 WHERE kind = 'flat' AND section_id = '1'"))
    report = started.walk(name, "1")
    assert {s: str(r.outcome) for s, r in report.items()} == until("image", "failed")
    assert report["image"].reason == "calibrator_missing"
    assert "flat" in report["image"].message
    assert started.outcomes(name, "0", steps=("exposure", "image"))["image"] == "done"


def test_a_raw_file_that_is_gone_is_named(started):
    name = started.science[2]
    path = started.raw / f"{name}.fits"
    started.ingest(path)
    path.rename(path.with_suffix(".away"))
    report = started.walk(name, "0")
    assert {s: str(r.outcome) for s, r in report.items()} == until("exposure", "failed")
    assert path.name in report["exposure"].message and "restore the file" in report["exposure"].message


def test_what_breaks_while_saving_leaves_nothing_half_made(started, monkeypatch):
    """The database goes away between the file and its row; the next walk makes the product."""
    name = started.science[2]
    started.ingest(started.raw / f"{name}.fits")

    def broken(*_, **__):
        raise ConnectionError("the server closed the connection\nunexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(steps_image, "save_image", broken)
        report = started.walk(name, "0")["image"]
    assert (report.outcome, report.reason) == ("failed", "pipeline")
    assert "ConnectionError: the server closed the connection unexpectedly" in report.message
    assert started.rows(select(Image).where(Image.data_version == report.data_version)) == []
    assert started.outcomes(name, "0", steps=("exposure", "image")) == {"exposure": "loaded", "image": "done"}
    assert_whole(started)


def test_a_step_without_the_ones_before_it_fails_with_a_cure(started):
    name = started.science[2]
    started.ingest(started.raw / f"{name}.fits")
    report = started.walk(name, "0", ("source_list", "zero_point"))
    assert [str(r.outcome) for r in report.values()] == ["failed", "skipped"]
    assert "process it through exposure first" in report["source_list"].message
    assert started.status(exposure=name, section="0") == {}


@pytest.mark.parametrize(("exposure", "section"), [("nothing", "0"), (None, "7")])
def test_what_does_not_exist_is_reported_not_raised(exposure, section, processed):
    name = exposure or processed.science[0]
    report = processed.walk(name, section)
    assert report["exposure"].outcome == "failed" and report["exposure"].reason == "not_found"
    assert name in report["exposure"].message
    assert {str(r.outcome) for step, r in report.items() if step != "exposure"} == {"skipped"}
