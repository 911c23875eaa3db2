"""Calibrators of all kinds, supplied and built, from their files to the image: which serve."""

import shutil
from collections.abc import Iterator

import dagster as dg
import numpy as np
import pytest
from astropy.io import fits
from small_survey import Survey, copy_survey
from sqlalchemy import select, text

from seechange_assets.chain import asset_key
from seechange_assets.definitions import define
from seechange_assets.home import make_home, open_instance
from seechange_assets.schedules import QUIET
from seechange_core import chain
from seechange_core.chain.calibrators import calibrators_used, list_calibrators
from seechange_core.flags import UNUSABLE, CalibrationStep
from seechange_core.products import Calibrator, Image
from seechange_core.products.calibrator import frames_of
from seechange_core.products.supply import supply
from seechange_core.settings import use_settings
from seechange_core.simulate import SurveyOptions, simulate_survey
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session
from seechange_core.storage.migrate import upgrade

OPTIONS = SurveyOptions(
    seed=11, sections=2, section_size_pix=256, exposures=1, nights=1, reference_exposures=1,
    n_bias=4, n_dark=3, n_flat=4, n_twilight=4, calibrators=True, crosstalk=0.01, nonlinearity=True,
    fringing=0.05, flat_gradient=0.03, star_density=3, transients=0, variables=0, asteroids=0, satellites=0,
    galaxy_density=0, clouds=False, sky_gradient=False, cosmic_rays=0,
)  # fmt: skip
LAWS = {"do_crosstalk": True, "do_linearity": True}
ALL = {**LAWS, "do_fringe": True, "do_illumination": True}
SETTINGS = """\
path: {data_root: [data, survey]}
instruments:
  demo: {sections: 2, section_size_pix: 256}
"""
SUPPLIED = {"crosstalk": "ecsv", "linearity": "ecsv", "fringe": "fits", "illumination": "fits"}
UP_TO_IMAGE = ("exposure", "image")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """The survey, registered, and with masters of what is not corrected for crosstalk and linearity."""
    survey = Survey(tmp_path_factory.mktemp("calibrated"))
    simulate_survey(survey.root / "survey", OPTIONS)
    (survey.root / "seechange.yaml").write_text(SETTINGS)
    upgrade(survey.settings)
    with use_settings(survey.settings):
        survey.ingest(*sorted(survey.raw.iterdir()))
        assert all(report.outcome == "done" for report in build(survey))
    return survey


@pytest.fixture
def own(simulated, tmp_path, monkeypatch) -> Iterator[Survey]:
    """A copy of it, the test's own."""
    survey = Survey(copy_survey(simulated.root, tmp_path / "own"))
    monkeypatch.setenv("DAGSTER_HOME", str(survey.root / "data" / "dagster"))
    with use_settings(survey.settings):
        yield survey
    shutil.rmtree(survey.root)


def build(survey, settings=None):
    """Build all masters that are wanted."""
    settings = settings or survey.settings
    reports = []
    while wanted := chain.masters_wanted(settings, "demo"):
        kind, night, band = wanted[0]
        made = [chain.build_master(settings, "demo", kind, night, section, band) for section in ("0", "1")]
        assert all(report.outcome in ("done", "loaded") for report in made), made
        reports += made
    return reports


def supply_all(survey):
    for kind, suffix in SUPPLIED.items():
        path = survey.root / "survey" / "truth" / "calibrators" / f"{kind}.{suffix}"
        supply(path, kind, "demo", band="r" if kind in ("fringe", "illumination") else "", date="2026-01-01")


def image_of(survey, settings):
    """Walk section 0 to its image: its row."""
    report = survey.walk(survey.science[0], "0", UP_TO_IMAGE, settings=settings)["image"]
    assert report.outcome == "done", report.message
    (row,) = survey.rows(select(Image).where(Image.data_version == report.data_version))
    return row


def row_of(survey, key):
    with open_session(survey.settings, read_only=True) as session:
        return session.get_one(Calibrator, key)


def structure(survey, row):
    """How uneven the sky is on scales of fringes and more, relative to it."""
    frame = row.read(Archive(survey.settings))
    data = np.where(frame.flags & np.uint16(UNUSABLE), np.nan, frame.data)
    cells = np.nanmedian(data.reshape(32, 8, 32, 8).transpose(0, 2, 1, 3).reshape(32, 32, 64), axis=2)
    middle = np.nanmedian(cells)
    kept = cells[np.abs(cells / middle - 1) < 0.2]
    return float(np.std(kept) / middle)


def test_all_kinds_serve_one_image_and_make_the_sky_even(own):
    plain = image_of(own, own.settings)
    assert (plain.crosstalk_id, plain.linearity_id, plain.fringe_id, plain.illumination_id) == (None,) * 4
    supply_all(own)
    settings = own.changed(preprocess=ALL, combine=LAWS)
    kinds = [report.step for report in build(own, settings) if report.section == "0"]
    assert kinds == ["bias", "dark", "flat", "twilight_flat"]
    row = image_of(own, settings)
    for slot in ("crosstalk", "linearity", "bias", "dark", "flat", "fringe", "illumination", "bad_pixels"):
        used = row_of(own, getattr(row, f"{slot}_id"))
        assert (used.kind, used.section_id) == (slot, "0")
        assert used.origin == ("supplied" if slot in SUPPLIED else "built")
    done = CalibrationStep(row.read(Archive(settings)).calibration_steps)
    for step in ("CROSSTALK", "LINEARITY", "BIAS", "DARK", "FLAT", "FRINGE", "ILLUMINATION", "BAD_PIXELS"):
        assert CalibrationStep[step] in done
    assert "fringe_scale" not in plain.header and row.header["fringe_scale"] == pytest.approx(1, abs=0.1)
    # Fringes of 5 % and a lamp that is 3 % off across the mosaic, against what photons leave.
    assert structure(own, plain) > 0.02
    assert structure(own, row) < 0.01
    told = {used.step: used for used in calibrators_used(settings, own.science)}
    assert set(told) == {
        "crosstalk",
        "linearity",
        "bias",
        "dark",
        "flat",
        "fringe",
        "illumination",
        "bad_pixels",
    }
    assert told["fringe"].calibrator.source == "fringe.fits"
    assert told["fringe"].days_away == pytest.approx(61041.0 - row.mjd_mid)
    assert [used.step for used in calibrators_used(own.settings)] == ["bias", "dark", "flat", "bad_pixels"]


def test_what_is_asked_for_and_missing_is_named(own):
    settings = own.changed(preprocess=ALL)
    report = own.walk(own.science[0], "0", UP_TO_IMAGE, settings=settings)["image"]
    assert (report.outcome, report.reason) == ("failed", "calibrator_missing")
    assert "crosstalk, linearity, fringe" in report.message
    settings = own.changed(combine=LAWS)
    report = chain.build_master(settings, "demo", *chain.masters_wanted(settings, "demo")[0][:2], "0")
    assert (report.outcome, report.reason) == ("failed", "calibrator_missing")
    assert "crosstalk" in report.message


def test_fringes_are_asked_for_in_their_filters_only(own):
    settings = own.changed(preprocess={"do_fringe": True, "fringe_filters": ["z", "Y"]})
    assert image_of(own, settings).fringe_id is None
    settings = own.changed(preprocess={"do_fringe": True, "fringe_filters": ["z", "r"]})
    report = own.walk(own.science[0], "0", UP_TO_IMAGE, settings=settings)["image"]
    assert (report.outcome, report.reason) == ("failed", "calibrator_missing")
    assert "no master fringe for this section and date, filter r" in report.message
    supply_all(own)
    assert image_of(own, settings).fringe_id is not None


def test_masters_must_have_been_read_out_as_the_image_is(own):
    supply_all(own)
    for asked in ({"preprocess": LAWS}, {"combine": LAWS}):
        settings = own.changed(**asked)
        build(own, settings)
        report = own.walk(own.science[0], "0", UP_TO_IMAGE, settings=settings)["image"]
        assert (report.outcome, report.reason) == ("failed", "calibrator_missing")
        assert "no flat that fits" in report.message
        assert "set combine.do_linearity as preprocess.do_linearity" in report.message


def test_the_illumination_and_the_mask_follow_the_flat_unless_others_are_supplied(own):
    settings = own.changed(preprocess={"do_illumination": True})
    row = image_of(own, settings)
    built = row_of(own, row.illumination_id)
    assert (built.kind, built.origin, built.filter) == ("illumination", "built", "r")
    with open_session(own.settings, read_only=True) as session:
        exposures = frames_of(session, built.id)
        (twilight,) = session.scalars(
            select(Calibrator).where(Calibrator.kind == "twilight_flat", Calibrator.section_id == "0")
        )
        assert exposures.keys() == frames_of(session, twilight.id).keys()
    supply_all(own)
    blank = own.root / "mask.fits"
    fits.writeto(blank, np.zeros((256, 256), np.uint8))
    supply(blank, "bad_pixels", "demo", section="0", valid_to="2027-01-01")
    row = image_of(own, settings)
    assert row_of(own, row.illumination_id).origin == row_of(own, row.bad_pixels_id).origin == "supplied"


def test_a_twilight_flat_serves_where_it_is_preferred_or_alone(own):
    settings = own.changed(preprocess={"flat_kinds": ["twilight_flat", "flat"]})
    row = image_of(own, settings)
    flat, mask = row_of(own, row.flat_id), row_of(own, row.bad_pixels_id)
    assert flat.kind == "twilight_flat"
    assert mask.mjd == flat.mjd
    with open_session(own.settings) as session:
        session.execute(text("UPDATE calibrators SET bitflag = 1 WHERE kind = 'flat'"))
    assert row_of(own, image_of(own, own.settings).flat_id).kind == "twilight_flat"
    # What was found by comparing a dome with the sky does not belong to a flat of the sky.
    asking = own.changed(preprocess={"do_illumination": True})
    report = own.walk(own.science[0], "0", UP_TO_IMAGE, settings=asking)["image"]
    assert (report.outcome, report.reason) == ("failed", "calibrator_missing")
    assert "illumination" in report.message


def spoil(survey, kind, name):
    """Write one more calibration frame, 400 ADU too high."""
    source = min(survey.raw.glob(f"*_{kind}.fits"))
    target = survey.raw / f"{name}.fits"
    with fits.open(source, do_not_scale_image_data=True) as units:
        units[0].header["MJD-OBS"] += 0.001
        del units[0].header["DATE-OBS"]
        for unit in units[1:]:
            moved = np.roll(unit.data, 9, axis=0)
            box = unit.header["DATASECA"].strip("[]").split(",")[0].split(":")
            moved[:, int(box[0]) - 1 : int(box[1])] += 400
            unit.data = moved
        units.writeto(target)
    return target


def test_a_bad_frame_is_left_out_and_everyone_can_see_why(own):
    name = "demo_20260220_000000_bias"
    own.ingest(spoil(own, "bias", name))
    (key,) = chain.masters_wanted(own.settings, "demo")
    made = chain.build_master(own.settings, "demo", key.kind, key.night, "0", key.filter)
    assert (made.outcome, made.metrics["n_frames"], made.metrics["n_rejected"]) == ("done", 4, 1)
    (bad,) = (row for row in made.table if row["verdict"] != "used")
    good = [row for row in made.table if row["verdict"] == "used"]
    assert bad["frame"] == name and len(good) == 4
    assert all(abs(row["level_e"]) < 20 for row in good) and bad["level_e"] > 100
    assert made.message == f"1 of 5 frames left out: {name}: {bad['verdict']}"
    loaded = chain.build_master(own.settings, "demo", key.kind, key.night, "0", key.filter)
    assert (loaded.outcome, loaded.message) == ("loaded", made.message)
    assert [row["verdict"] for row in loaded.table] == [row["verdict"] for row in made.table]
    rows = list_calibrators(own.settings, kinds=["bias"], sections=["0"], with_frames=True)
    assert [(row.n_frames, row.n_rejected) for row in rows] == [(4, 0), (4, 1)]
    assert dict(rows[1].frames)[name] == bad["verdict"]
    assert sorted(dict(rows[1].frames).values()).count("used") == 4


def test_what_the_schedule_asks_for_makes_a_masters_row_and_shows_its_frames(own):
    own.ingest(spoil(own, "bias", "demo_20260220_000000_bias"))
    make_home(own.settings)
    definitions = define(own.settings)
    schedule = definitions.resolve_schedule_def("demo_masters_schedule")
    (wanted,) = chain.look_for_masters(own.settings, "demo")
    with open_instance(own.settings) as instance:
        with dg.build_schedule_context(
            instance=instance, scheduled_execution_time=wanted.frames_since + QUIET
        ) as context:
            (request,) = schedule.evaluate_tick(context).run_requests
        result = definitions.resolve_job_def(schedule.job_name).execute_in_process(
            instance=instance, tags=dict(request.tags), asset_selection=list(request.asset_selection)
        )
        assert result.success
        events = instance.fetch_materializations(asset_key("demo", "bias"), limit=10).records
    made = {event.partition_key: event.asset_materialization.metadata for event in events}
    night = wanted.key.night
    assert set(made) == {f"{night}|0", f"{night}|1"}
    for metadata in made.values():
        records = [record.data for record in metadata["frames"].value.records]
        assert len(records) == 5 and set(records[0]) == {"frame", "level_e", "noise_ratio", "verdict"}
        assert [record["verdict"] == "used" for record in records].count(False) == 1
        assert metadata["n_rejected"].value == 1
    later = [key.kind for key in chain.masters_wanted(own.settings, "demo")]
    assert later == ["dark", "flat", "twilight_flat"]


def test_flats_through_a_filter_array_make_a_master_in_each_sections_own_filter(tmp_path):
    """One run for all of LS4's filters, two CCDs of which are there; science takes the flat of its own."""
    survey = Survey(tmp_path)
    sections = ("NE_A", "SE_B")
    options = SurveyOptions(
        camera="ls4", section_names=sections, window_pix=(128, 128), exposures=1, nights=1,
        reference_exposures=1, n_bias=3, n_dark=3, n_flat=3, star_density=0.1, galaxy_density=0, transients=0,
        variables=0, asteroids=0, satellites=0,
    )  # fmt: skip
    simulate_survey(survey.root / "survey", options)
    (survey.root / "seechange.yaml").write_text("path: {data_root: [data, survey]}\ninstruments: {ls4: {}}\n")
    upgrade(survey.settings)
    with use_settings(survey.settings):
        rows = survey.ingest(*sorted(survey.raw.iterdir()))
        science = next(row for row in rows if row.type == "science")
        bands = {section: science.get_section_filter(section) for section in sections}
        assert len(set(bands.values())) == 2
        wanted = []
        while keys := chain.masters_wanted(survey.settings, "ls4"):
            wanted.append(keys[0])
            for section in sections:
                made = chain.build_master(survey.settings, "ls4", *keys[0][:2], section, keys[0].filter)
                assert made.outcome == "done", made.message
        assert [(key.kind, key.filter) for key in wanted] == [
            ("bias", None),
            ("dark", None),
            ("flat", "array"),
        ]
        flats = list_calibrators(survey.settings, kinds=["flat"])
        assert {row.section: row.filter for row in flats} == bands
        for section in sections:
            report = survey.walk(science.name, section, UP_TO_IMAGE)["image"]
            assert report.outcome == "done", report.message
        used = [u for u in calibrators_used(survey.settings) if u.step == "flat"]
        assert {u.section: u.calibrator.filter for u in used} == bands
