"""Flags set by the code: from a simulated cause to the rows, what is made of them, and what people see."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from small_survey import OPTIONS, STEP_NAMES, THROUGH_ZERO_POINT, Survey
from sqlalchemy import select, update

from seechange_core import chain
from seechange_core.catalogs.importer import import_table
from seechange_core.chain import quality, references, steps_image
from seechange_core.chain.quality import meanings
from seechange_core.flags import QualityFlag
from seechange_core.products import Image, Psf, SourceList, WorldCoordinates, ZeroPoint
from seechange_core.products.exposure import Exposure
from seechange_core.products.outcome import StepOutcome
from seechange_core.settings import use_settings
from seechange_core.simulate.section import simulate_section
from seechange_core.simulate.survey import make_world
from seechange_core.stages.clouds import TYPICAL_EXTINCTION_MAG
from seechange_core.stages.extract import extract
from seechange_core.storage.engine import open_session

SECTION = "0"


@cache
def pixels(**changes) -> np.ndarray:
    """The section of the third exposure as the camera would have read it in other conditions."""
    world = make_world(OPTIONS)
    observation = replace(world.observations[2], **changes)
    return simulate_section(world.camera, world.sky, observation, world.camera.sections[0]).raw


def take(survey: Survey, number: int, **changes) -> str:
    """Register the third exposure as taken some minutes later in other conditions: its name."""
    raw = pixels(**changes)

    def edit(units):
        stored = units["SEC00"].data
        units["SEC00"].data = (raw.astype(np.int64) - 32768).astype(stored.dtype)

    path = survey.variant(f"demo_20260222_07{number:02d}00_sci", edit, minutes=5.0 * number)
    survey.ingest(path)
    return path.stem


def conditions():
    """The true conditions of the third exposure."""
    return make_world(OPTIONS).observations[2]


def bits(survey: Survey, kind, step: str, name: str) -> int:
    """The bits of a row that a step made."""
    version = next(
        row.data_version
        for row in survey.rows(
            select(StepOutcome)
            .join(Exposure, Exposure.id == StepOutcome.exposure_id)
            .where(Exposure.name == name, StepOutcome.step == step)
        )
    )
    (row,) = survey.rows(select(kind).where(kind.data_version == version))
    return row.bitflag


def test_a_good_survey_has_no_flag(processed):
    for kind in (Image, SourceList, Psf, WorldCoordinates, ZeroPoint):
        flagged = [meanings(row.bitflag) for row in processed.rows(select(kind)) if row.bitflag]
        assert flagged == [], kind.__name__
    assert {row.quality for row in chain.status(processed.settings)} == {()}


def test_a_trailed_exposure_says_so_all_the_way_down(started):
    """A trail of half the seeing: sources, solutions, difference, detections and candidates are flagged."""
    name = take(started, 1, e1=0.2, e2=0.0)
    reports = started.walk(name, SECTION)
    assert {str(r.outcome) for r in reports.values()} == {"done"}
    assert reports["image"].bitflag == 0
    assert reports["source_list"].message.startswith("the stars' common elongation is 1.")
    for step, kind in (
        ("source_list", SourceList),
        ("world_coordinates", WorldCoordinates),
        ("zero_point", ZeroPoint),
        ("subtraction", Image),
        ("detections", SourceList),
    ):
        assert reports[step].bitflag == bits(started, kind, step, name) == QualityFlag.TRAILED
    assert bits(started, Psf, "source_list", name) == 0
    shown = started.status(exposure=name, section=SECTION)
    assert shown["zero_point"].quality == shown["detections"].quality == ("trailed",)
    # It is no reason to make anything again, and says so once more when it is only loaded.
    again = started.walk(name, SECTION)
    assert {s: (str(r.outcome), r.bitflag) for s, r in again.items()} == {
        s: ("loaded", r.bitflag) for s, r in reports.items()
    }


def test_a_bright_sky_is_flagged_by_the_limit_of_the_settings(started):
    dark = conditions().sky_e
    limit = started.changed(quality={"max_sky_e_s": 2 * dark / OPTIONS.exposure_time_s})
    name = take(started, 1, sky_e=4 * dark)
    with use_settings(limit):
        report = started.walk(name, SECTION, THROUGH_ZERO_POINT, settings=limit)
    assert report["image"].bitflag == report["zero_point"].bitflag == QualityFlag.BRIGHT_SKY
    assert "e-/s/pix" in report["image"].message
    good = started.walk(name, SECTION, ("exposure", "image"))
    assert good["image"].bitflag == 0 and good["image"].data_version != report["image"].data_version


def test_too_few_and_too_many_sources_are_what_the_settings_expect(started, monkeypatch):
    """Under other limits the sources are judged again, and not found again."""
    name = take(started, 1)
    steps = THROUGH_ZERO_POINT[:3]
    found = started.walk(name, SECTION, steps)["source_list"]
    n = int(found.metrics["n_sources"])
    assert found.bitflag == 0
    looks = []
    monkeypatch.setattr(steps_image, "extract", lambda *given: looks.append(given) or extract(*given))
    for limits, flag in (
        ({"min_sources": n + 1}, QualityFlag.TOO_FEW_SOURCES),
        ({"max_crowding": 0.5 * n * found.metrics["fwhm_pix"] ** 2 / 512**2}, QualityFlag.TOO_MANY_SOURCES),
    ):
        settings = started.changed(quality=limits)
        with use_settings(settings):
            report = started.walk(name, SECTION, steps, settings=settings)
        assert {s: str(r.outcome) for s, r in report.items()} == {
            "exposure": "loaded", "image": "loaded", "source_list": "done",
        }  # fmt: skip
        assert report["source_list"].bitflag == flag
        assert not looks
        own = {k: v for k, v in report["source_list"].metrics.items() if k not in ("seconds", "peak_mb")}
        assert own == pytest.approx({k: found.metrics[k] for k in own}, rel=1e-9) and len(own) > 5
        assert report["source_list"].data_version != found.data_version
    finer = started.changed(extract={"detection_sigma": 6.0})
    with use_settings(finer):
        fewer = started.walk(name, SECTION, steps, settings=finer)["source_list"]
    assert len(looks) == 1 and fewer.metrics["n_sources"] < n


def test_a_wrong_catalog_stops_the_section_with_a_reason_that_is_a_flag(started):
    """Stars of another field at this place: nothing matches beyond chance."""
    catalog = started.settings.data_root / "catalogs"
    name = take(started, 1)
    wrong = started.root / "wrong.csv"
    rng = np.random.default_rng(4)
    ra, dec = OPTIONS.ra_deg + rng.uniform(-0.3, 0.3, 4000), OPTIONS.dec_deg + rng.uniform(-0.3, 0.3, 4000)
    lines = [
        f"{a:.7f},{d:.7f},{m:.3f},0.01" for a, d, m in zip(ra, dec, rng.uniform(16, 21, 4000), strict=True)
    ]
    wrong.write_text("\n".join(["ra,dec,r,r_err", *lines]), encoding="utf-8")
    import_table(wrong, "wrong", catalog, epoch=2016.0)
    settings = started.changed(catalog="wrong", photometry={})
    with use_settings(settings):
        report = started.walk(name, SECTION, settings=settings)["world_coordinates"]
        assert (str(report.outcome), report.reason) == ("stopped", "no_solution")
        assert report.bitflag == QualityFlag.MATCH_FAILED
        again = started.walk(name, SECTION, settings=settings)["world_coordinates"]
        assert again.bitflag == QualityFlag.MATCH_FAILED
        assert started.status(settings, exposure=name, section=SECTION)["world_coordinates"].quality == (
            "match_failed",
        )


def test_clouds_are_seen_whatever_the_order_and_pass_to_what_was_made_already(started):
    """Three exposures of a night; of the first, made and subtracted when it was alone, nobody could know."""
    clear = conditions()
    clouded = take(started, 1, zp=clear.zp - 0.8)
    alone = started.walk(clouded, SECTION)
    assert alone["detections"].bitflag == alone["zero_point"].bitflag == 0
    others = [take(started, number) for number in (2, 3)]
    for name in others:
        report = started.walk(name, SECTION, THROUGH_ZERO_POINT)["zero_point"]
        assert report.bitflag == 0 and abs(report.metrics["cloud_mag"]) < 0.05
    for step, kind in (("zero_point", ZeroPoint), ("subtraction", Image), ("detections", SourceList)):
        assert bits(started, kind, step, clouded) == QualityFlag.CLOUDS
    shown = started.status(exposure=clouded, section=SECTION)
    assert shown["zero_point"].metrics["cloud_mag"] == pytest.approx(0.8, abs=0.05)
    assert shown["subtraction"].quality == ("clouds",)
    assert shown["source_list"].quality == ()
    # Again, and in another order, the judgement is the same.
    for name in (others[1], clouded, others[0]):
        again = started.walk(name, SECTION, STEP_NAMES[4:5], redo=True)["zero_point"]
        assert str(again.outcome) == "done"
        assert again.bitflag == (QualityFlag.CLOUDS if name == clouded else 0)
    assert bits(started, SourceList, "detections", clouded) == QualityFlag.CLOUDS
    # Such an image goes into no reference.
    fit = {c.exposure: c.is_fit for c in references.candidates_for_references(started.settings, "demo")}
    assert fit[clouded] is False and all(fit[name] for name in others)


def test_who_is_overtaken_before_judging_sees_the_other_and_a_bad_exposure_no_longer_counts(
    started, monkeypatch
):
    """Another worker walks all the way between the outcome and the judgement of this one."""
    clouded, other = take(started, 1, zp=conditions().zp - 0.8), take(started, 2)
    overtaking = [other]

    def overtaken(*_):
        if overtaking:
            report = started.walk(overtaking.pop(), SECTION, THROUGH_ZERO_POINT)["zero_point"]
            assert report.bitflag == 0 and report.metrics["cloud_mag"] == pytest.approx(0, abs=0.05)

    with monkeypatch.context() as patch:
        patch.setattr(quality, "take_turns", overtaken)
        report = started.walk(clouded, SECTION, THROUGH_ZERO_POINT)["zero_point"]
    assert overtaking == []
    assert report.bitflag == QualityFlag.CLOUDS
    assert report.metrics["cloud_mag"] == pytest.approx(0.8, abs=0.05)
    with open_session(started.settings) as session:
        session.execute(update(Exposure).where(Exposure.name == other).values(bitflag=1))
    again = started.walk(clouded, SECTION, THROUGH_ZERO_POINT)["zero_point"]
    # The only one that counts now: nothing is known of it.
    assert (str(again.outcome), again.bitflag, "cloud_mag" in again.metrics) == ("loaded", 0, False)


def test_a_judgement_that_fails_leaves_what_was_made(started, monkeypatch, caplog):
    """Another's lock, a lost connection: the products are good, and whoever loads them next judges."""
    clouded, other = take(started, 1, zp=conditions().zp - 0.8), take(started, 2)
    assert started.walk(clouded, SECTION)["zero_point"].bitflag == 0

    def broken(*_):
        raise RuntimeError("deadlock detected")

    with monkeypatch.context() as patch:
        patch.setattr(quality, "_of_the_night", broken)
        for outcome in ("done", "loaded"):
            assert set(started.outcomes(other, SECTION).values()) == {outcome}
            assert {row.status for row in started.status(exposure=other, section=SECTION).values()} == {
                "done"
            }
    told = [record.getMessage() for record in caplog.records if "not judged" in record.getMessage()]
    assert len(told) == 2 and all(other in words and "deadlock detected" in words for words in told)
    assert bits(started, ZeroPoint, "zero_point", clouded) == 0
    assert set(started.outcomes(other, SECTION).values()) == {"loaded"}
    assert bits(started, ZeroPoint, "zero_point", clouded) == QualityFlag.CLOUDS


def test_an_expected_zero_point_tells_clouds_in_a_night_without_a_clear_exposure(started):
    clear = conditions()
    clear_air = TYPICAL_EXTINCTION_MAG["r"] * clear.airmass
    one_second_mag = clear.zp - 2.5 * np.log10(OPTIONS.exposure_time_s) + clear_air
    settings = started.changed(
        photometry={
            "catalog_color": "g-r",
            "zero_point_expected_mag": {"r": one_second_mag},
            "max_extinction_mag": 2.0,
        }
    )
    name = take(started, 1, zp=clear.zp - 0.8)
    with use_settings(settings):
        report = started.walk(name, SECTION, THROUGH_ZERO_POINT, settings=settings)["zero_point"]
    assert report.bitflag == QualityFlag.CLOUDS
    assert report.metrics["cloud_mag"] == pytest.approx(0.8, abs=0.1)


def test_a_reference_of_flagged_images_alone_is_refused_with_the_words(started):
    wanted = chain.references_wanted(started.settings, "demo")
    with open_session(started.settings) as session:
        session.execute(update(ZeroPoint).values(bitflag=int(QualityFlag.TRAILED)))
    assert chain.references_wanted(started.settings, "demo") == []
    (report,) = chain.build_reference(started.settings, "demo", *wanted[0])
    assert (str(report.outcome), report.reason) == ("stopped", "no_reference")
    assert "stars are elongated all alike" in report.message
