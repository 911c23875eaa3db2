"""The report of a night: its figures against what was put into the survey, and what changes it."""

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from small_survey import OPTIONS, Survey
from sqlalchemy import select, update

from seechange_assets.cli import run
from seechange_core import chain
from seechange_core.chain.night_report import tell_night
from seechange_core.chain.night_rows import night_version
from seechange_core.errors import NotFoundError
from seechange_core.flags import QualityFlag
from seechange_core.products import Exposure, Image, IncomingFile, StepOutcome
from seechange_core.products.outcome import record_outcome
from seechange_core.products.provenance import record_provenance
from seechange_core.qa.night import Problem
from seechange_core.settings import use_settings
from seechange_core.storage.engine import open_session


def last_night(survey: Survey) -> tuple[str, list[str]]:
    """Return the last night of the survey and its exposures."""
    rows = chain.exposures(survey.settings, with_bad=True)
    night = max(row.night for row in rows)
    return night, [row.name for row in rows if row.night == night]


def tell(survey: Survey):
    return tell_night(survey.settings, "demo", last_night(survey)[0])


def id_of(survey: Survey, exposure: str):
    (row,) = chain.exposures(survey.settings, [exposure])
    return row.id


def data_of(page: str):
    return json.loads(re.search(r'id="night-data">(.*?)</script>', page, re.DOTALL)[1])


def fail(
    survey: Survey, exposure: str, section: str, step: str, message: str, status: str = "failed"
) -> None:
    """Let a step of a section have ended so."""
    ended = survey.status(exposure=exposure, section=section)[step]
    with open_session(survey.settings) as session:
        record_outcome(
            session,
            StepOutcome(
                exposure_id=id_of(survey, exposure),
                section_id=section,
                step=step,
                provenance_id=ended.provenance,
                status=status,
                reason="odd",
                message=message,
            ),
        )


def test_figures_are_those_that_were_put_in(processed):
    told = tell(processed)
    assert [exposure.name for exposure in told.exposures] == last_night(processed)[1]
    assert len(told.sections) == OPTIONS.sections * len(told.exposures)
    truth = {(str(row["file"])[:-5], str(row["section"])): row for row in processed.truth.exposures}
    for section in told.sections:
        exposure = told.exposures[section.exposure]
        true = truth[exposure.name, told.plane[section.section].section]
        assert section.fate == "done"
        zero_point = true["zp"] - 2.5 * np.log10(exposure.exp_time_s)
        assert section.zero_point_mag == pytest.approx(zero_point, abs=0.05)
        scale = 0.27
        assert section.sky_mag == pytest.approx(
            true["zp"] - 2.5 * np.log10(true["sky_e"] / scale**2), abs=0.06
        )
        # Pixels widen stars a little.
        assert section.seeing_arcsec == pytest.approx(
            scale * np.hypot(true["seeing_fwhm_pix"], 0.7), rel=0.05
        )
        assert exposure.mjd_mid == pytest.approx(true["mjd_mid"], abs=1e-5)
        assert 20 < section.depth_mag < 25 and section.seconds > 0
    assert told.delay_from == "registration" and all(0 <= s.delay_min < 60 for s in told.sections)


def test_sections_lie_where_the_camera_has_them(processed):
    left, right = tell(processed).plane
    assert (left.width, left.height) == (512, 512)
    assert right.x - left.x >= 512 and right.y == left.y


def test_candidates_are_those_of_the_night_with_stamps_and_all_their_fluxes(processed):
    night, exposures = last_night(processed)
    told = tell(processed)
    every = {row.object: row for row in chain.all_candidates(processed.settings, night)}
    assert {row.object for row in told.candidates} == set(every)
    usual = chain.candidates(processed.settings, night)
    assert [row.object for row in told.candidates[: len(usual)]] == [row.object for row in usual]
    assert told.n_candidates == len(usual) and told.n_unconfirmed == len(every) - len(usual)
    assert all(row.confirmed for row in told.candidates[: len(usual)])
    for row in told.candidates[:5]:
        assert row.exposure in exposures and len(row.picture) <= 6000
        true = chain.object_light_curve(processed.settings, row.object)
        assert list(row.curve.mjd) == pytest.approx(true.mjd_mid)
        assert list(row.curve.flux) == pytest.approx(true.flux * 10 ** (0.4 * (23.9 - true.zp)))
        assert list(row.curve.flux_err) == pytest.approx(true.flux_err * 10 ** (0.4 * (23.9 - true.zp)))


def test_what_failed_or_stopped_is_named_with_its_reason_and_counts_no_more(own):
    _, (exposure, *_) = last_night(own)
    before = tell(own)
    fail(own, exposure, "0", "image", "the disk is full (make room)")
    fail(own, exposure, "1", "subtraction", "no reference (build one)", "stopped")
    told = tell(own)
    fates = Counter(section.fate for section in told.sections)
    assert fates == Counter(done=len(before.sections) - 2, failed=1, stopped=1)
    first, second = told.problems[:2]
    assert (first.outcome, first.step, first.places) == (
        "failed", "image", ((exposure, "0", "the disk is full (make room)"),),
    )  # fmt: skip
    assert (second.outcome, second.step, second.reason) == ("stopped", "subtraction", "odd")
    chain.mark(own.settings, exposure, "bad", "clouds", by="me")
    told = tell(own)
    assert told.exposures[0].bad == "clouds" and told.count("failed") == 0


def test_what_is_bad_of_a_product_is_told_where_it_first_shows(own):
    _, (exposure, *_) = last_night(own)
    flagged = Problem(
        "flagged", "image", "bright_sky", ((exposure, "0", "sky brighter than the settings allow"),)
    )
    assert flagged not in tell(own).problems
    with open_session(own.settings) as session:
        of_section = (Image.exposure_id == id_of(own, exposure), Image.section_id == "0")
        session.execute(update(Image).where(*of_section).values(bitflag=int(QualityFlag.BRIGHT_SKY)))
    assert flagged in tell(own).problems
    assert tell(own).count("done") == len(tell(own).sections)


def test_a_section_that_was_not_finished_is_said_to_be(started):
    started.ingest(started.raw / f"{started.science[-1]}.fits")
    told = tell(started)
    assert {section.fate for section in told.sections} == {"unfinished"} and told.candidates == ()
    assert data_of(chain.night_report(started.settings, "demo", told.night))["points"]["seeing"] == [
        None,
        None,
    ]


def test_other_settings_do_not_count_what_these_made(processed):
    other = processed.changed(subtract={"method": "kernel"})
    with use_settings(other):
        told = tell_night(other, "demo", last_night(processed)[0])
    assert {section.fate for section in told.sections} == {"unfinished"}
    assert all(s.depth_mag is not None and s.n_detections is None for s in told.sections)


def test_hostile_words_of_the_database_stay_words(own):
    night, (exposure, *_) = last_night(own)
    words = "</script><script>alert(1)</script>"
    fail(own, exposure, "0", "image", words)
    with open_session(own.settings) as session:
        session.add(
            IncomingFile(
                instrument="demo", address=f"/raw/{words}", state="refused", message=words, reason="header",
                changed_at=datetime.now(UTC),
            )
        )  # fmt: skip
    best = tell(own).candidates[0]
    chain.mark(own.settings, best.object, "real", words, by=words)
    page = chain.night_report(own.settings, "demo", night)
    assert page.count("<script") == page.count("</script>") == 2
    data = data_of(page)
    assert data["problems"][0]["places"] == [[exposure, "0", words]]
    assert data["files"] == [["refused", f"/raw/{words}", "header", words]]
    assert data["figures"]["files_set_aside"] == 1
    (row,) = (row for row in data["candidates"] if row["object"] == best.object)
    assert row["verdict"] == "real" and words in row["note"]


def test_bogus_ones_come_last_and_are_counted(own):
    best = tell(own).candidates[0].object
    chain.mark(own.settings, best, "bogus", "a spike", by="me")
    told = tell(own)
    assert told.n_bogus == 1 and told.candidates[-1].object == best


def test_the_version_changes_with_what_is_told_and_only_then(own):
    night, (exposure, *_) = last_night(own)
    since = datetime.now(UTC) - timedelta(days=3)
    versions = {row.night: row.version for row in chain.recent_nights(own.settings, "demo", since)}
    assert list(versions) == sorted({row.night for row in chain.exposures(own.settings)})
    assert versions[night] == night_version(own.settings, "demo", night)
    fail(own, exposure, "0", "image", "the disk is full")
    after = {row.night: row.version for row in chain.recent_nights(own.settings, "demo", since)}
    assert {name for name in versions if versions[name] != after[name]} == {night}
    chain.mark(own.settings, tell(own).candidates[0].object, "bogus", "a spike", by="me")
    assert night_version(own.settings, "demo", night) != after[night]
    assert chain.recent_nights(own.settings, "demo", datetime.now(UTC) + timedelta(minutes=1)) == []


def test_the_command_writes_the_page_and_says_where(own, tmp_path, capsys):
    night, exposures = last_night(own)
    assert run(["report"]) == 0
    path = own.settings.data_root / chain.report_path("demo", night)
    assert capsys.readouterr().out.strip() == str(path)
    assert len(data_of(path.read_text(encoding="utf-8"))["exposures"]) == len(exposures)
    assert run(["report", "--night", night, "--instrument", "demo", "--out", str(tmp_path / "n.html")]) == 0
    assert "night-data" in (tmp_path / "n.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert run(["report", "--instrument", "ptf", "--out", "p.html"]) == 1
    assert "no science exposures of ptf" in capsys.readouterr().err
    assert run(["report", "--night", "1999-01-01"]) == 1
    assert "no science exposures of demo in the night of 1999-01-01" in capsys.readouterr().err
    with pytest.raises(NotFoundError):
        chain.night_report(own.settings, "demo", "1999-01-01")


def test_candidates_without_stamps_are_told_all_the_same(own):
    for path in (own.root / "data" / "demo").rglob("cutouts_*.fits"):
        path.unlink()
    told = tell(own)
    assert told.candidates and all(row.picture is None for row in told.candidates)


def test_a_night_is_told_alike_on_every_engine(sky):
    """One section was calibrated, one stopped, the others were not begun; no pixels are needed."""
    settings, figures = sky.settings, {"fwhm_pix": 4.0, "sky_e": 100.0, "limiting_mag": 22.5, "zp": 30.0}
    figures |= {"pixel_scale_arcsec": 0.25, "n_sources": None}
    made = chain.provenances(settings, "demo")
    with open_session(settings) as session:
        for key in made.values():
            record_provenance(session, key)
        (exposure_id,) = session.scalars(select(Exposure.id))
        steps = [step.name for step in chain.STEPS]
        for section, last, fate in (("0", "zero_point", "done"), ("1", "image", "stopped")):
            for step in steps[: steps.index(last) + 1]:
                row = {"exposure_id": exposure_id, "section_id": section, "step": step, "seconds": 1.5}
                row |= {
                    "provenance_id": made[step].id,
                    "metrics": figures,
                    "data_version": f"{step}{section}",
                }
                session.add(StepOutcome(**row, status=fate if step == last else "done"))
    (state,) = chain.recent_nights(settings, "demo", datetime.now(UTC) - timedelta(hours=1))
    told = tell_night(settings, "demo", state.night)
    first, second, third, _ = told.sections
    assert [first.fate, second.fate, third.fate] == ["unfinished", "stopped", "unfinished"]
    assert (first.seeing_arcsec, first.depth_mag, first.seconds) == (1.0, 22.5, 7.5)
    assert first.zero_point_mag == pytest.approx(30 - 2.5 * np.log10(30))  # of an exposure of 30 s
    assert first.sky_mag == pytest.approx(30 - 2.5 * np.log10(100 / 0.25**2))
    assert second.zero_point_mag is None and third.seconds is None
    assert chain.recent_nights(settings, "demo", datetime.now(UTC) - timedelta(hours=1)) == [state]
    assert told.night in chain.night_report(settings, "demo", state.night)
