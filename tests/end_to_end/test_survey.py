"""A whole simulated survey through Dagster, from raw files to light curves, against its truth."""

import json

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.time import Time
from astropy.utils import iers
from small_survey import OPTIONS, SECTIONS, STEP_NAMES, THROUGH_ZERO_POINT, Survey
from sqlalchemy import select

from seechange_assets.chain import asset_key
from seechange_assets.home import open_instance
from seechange_assets.run import Runner
from seechange_core import chain
from seechange_core.chain import object_light_curve, position_light_curve
from seechange_core.numerics.sky import polygon_contains
from seechange_core.products import Image
from seechange_core.products.exposure import Exposure
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.object import Object
from seechange_core.settings import use_settings
from seechange_core.verify import checks, summarise


@pytest.fixture(scope="module")
def summary(snapshots):
    """What came out against the truth."""
    survey = Survey(snapshots / "processed")
    return summarise(survey.settings, survey.root / "survey")


def told(survey):
    """What the run through Dagster reported: outcome and reason by exposure, section and step."""
    rows = json.loads((survey.root / "reports.json").read_text())
    return {(e, s, step): (outcome, reason) for e, s, step, outcome, reason, *_ in rows}


# --- Figures --------------------------------------------------------------------------------------


def test_everything_was_calibrated_and_all_but_the_reference_subtracted(summary):
    assert (summary.exposures, summary.sections, summary.subtracted_sections) == (5, 10, 6)


def test_astrometry(summary):
    """Some 30 catalog stars of 20 mas in a section of 512 pixels leave 5 to 10 mas."""
    assert 1 < summary.astrometric_rms_mas < 15


def test_zero_point(summary):
    """Some 30 stars of 20 mmag leave 4 mmag; the worst of ten may be three times as far off."""
    assert summary.zero_point_error_mmag < 10
    assert summary.zero_point_worst_mmag < 20


def test_forced_fluxes_and_their_errors(summary):
    """Pulls of every forced flux, lit or not: standard normal within three errors of their figures."""
    assert summary.flux_pull_n >= 35
    assert abs(summary.flux_pull_median) < 0.1 + 3 * summary.flux_pull_median_err
    assert abs(summary.flux_pull_width - 1) < 0.08 + 3 * summary.flux_pull_width_err


def test_completeness_and_false_detections(summary):
    bright = [summary.completeness[k] for k in ("10-20", "20+")]
    assert sum(f.total for f in bright) >= 20
    assert sum(f.found for f in bright) >= 0.8 * sum(f.total for f in bright)
    assert summary.false_per_section <= 2
    assert summary.transients_found >= 0.8 * summary.transients_injected >= 8


def test_the_verdict_agrees(summary):
    assert [c.name for c in checks(summary) if not c.passed] == []


# --- Light curves ---------------------------------------------------------------------------------


def covers(image, found):
    ra, dec = zip(*image.corners, strict=True)
    return bool(polygon_contains(ra, dec, found.ra, found.dec))


def test_every_object_has_a_flux_and_a_limit_at_every_epoch_that_covers_it(processed):
    """Also where it was not detected, and before it was found."""
    differences = processed.rows(select(Image).where(Image.type == "difference"))
    forced = select(ForcedFlux).where(ForcedFlux.kind == "difference")
    fluxes = {(f.object_id, f.image_id): f for f in processed.rows(forced)}
    objects = processed.rows(select(Object).where(Object.n_sightings > 0))
    assert len(objects) > 10
    measured, before = 0, 0
    for found in objects:
        for image in differences:
            if covers(image, found):
                flux = fluxes.pop((found.id, image.id))
                before += image.mjd_mid < found.first_mjd
                if flux.flux is not None:
                    measured += 1
                    assert flux.limiting_mag == pytest.approx(flux.zp - 2.5 * np.log10(5 * flux.flux_err))
    assert fluxes == {}
    assert before >= 8
    assert measured >= 0.9 * len(processed.rows(forced))


def test_a_transient_is_seen_to_rise_from_nothing(summary):
    """Those that went off in the last night: no light before, all of it after, at the true magnitude."""
    rising = [c for c in summary.curves if np.isfinite(c.true_mag).sum() == 1 and len(c.measured) == 3]
    assert len(rising) >= 4
    for curve in rising:
        snr = curve.measured.flux / curve.measured.flux_err
        assert np.all(np.abs(snr[:2]) < 4)
        assert snr[2] > 5
        truth = curve.true_mag[np.isfinite(curve.true_mag)][0]
        error = np.hypot(curve.measured.mag_err[2], 0.02)
        assert abs(curve.measured.mag[2] - truth) < 4 * error


def test_times_are_those_of_the_truth_and_barycentric_as_astropy_says(processed, summary):
    curve = summary.curves[0]
    table, (row,) = curve.measured, processed.rows(select(Object).where(Object.name == curve.name))
    mid = {str(r["file"]).removesuffix(".fits"): float(r["mjd_mid"]) for r in processed.truth.exposures}
    # Header times have milliseconds.
    assert table.mjd_mid == pytest.approx([mid[name] for name in table.exposure], abs=2e-3 / 86400)
    site = EarthLocation.from_geodetic(
        OPTIONS.site_longitude_deg, OPTIONS.site_latitude_deg, OPTIONS.site_elevation_m
    )
    with iers.conf.set_temp("auto_download", False):
        time = Time(table.mjd_mid, format="mjd", scale="utc", location=site)
        target = SkyCoord(row.ra * u.deg, row.dec * u.deg)
        expected = (time.tdb + time.light_travel_time(target, "barycentric", ephemeris="builtin")).jd
    assert table.bjd_tdb == pytest.approx(expected, abs=0.02 / 86400, rel=0)


def test_any_place_has_a_light_curve_on_images_and_differences(processed):
    """A star's light on every image is its catalog magnitude; on every difference there is nothing."""
    stars = processed.truth.objects[processed.truth.objects["kind"] == "star"]
    # In the middle of section 0, where all exposures cover it.
    here = processed.truth.epochs
    on = (here["section"] == 0) & (np.abs(here["x"] - 256) < 150) & (np.abs(here["y"] - 256) < 150)
    ids = set(here["id"][on & ~here["on_masked"] & ~here["saturated"]])
    stars = stars[[i in ids for i in stars["id"]]]
    star = stars[np.argmin(np.abs(stars["mag_r"] - 18.5))]
    place = float(star["ra"]), float(star["dec"])
    on_images = position_light_curve(processed.settings, *place, "image")
    assert list(on_images.exposure) == processed.science
    # Neighbours and colour are not taken out here.
    assert np.median(on_images.mag) == pytest.approx(float(star["mag_r"]), abs=0.1)
    assert np.ptp(on_images.mag) < 0.1
    on_differences = position_light_curve(processed.settings, *place)
    assert list(on_differences.exposure) == processed.science[2:]
    assert np.all(np.abs(on_differences.flux / on_differences.flux_err) < 5)
    # The difference and its reference make up all light.
    assert on_differences.total_mag == pytest.approx(on_images.mag[2:], abs=0.03)
    assert on_differences.n_reference.tolist() == [2, 2, 2] and not on_differences.n_reference_later.any()


# --- Dagster --------------------------------------------------------------------------------------


def test_the_reference_exposures_stop_and_the_others_go_all_the_way(processed):
    reported = told(processed)
    for number, name in enumerate(processed.science):
        for section in SECTIONS:
            outcomes = {step: reported[name, section, step] for step in STEP_NAMES}
            if number >= 2:
                assert outcomes == dict.fromkeys(STEP_NAMES, ("done", ""))
                continue
            assert {outcomes[s] for s in THROUGH_ZERO_POINT} == {("loaded", "")}
            assert outcomes["subtraction"] == ("stopped", "in_reference")
            assert outcomes["forced_photometry"] == ("skipped", "in_reference")


def test_the_database_and_dagster_say_the_same(processed):
    done = {(r.exposure, r.section, r.step) for r in chain.status(processed.settings) if r.status == "done"}
    with open_instance(processed.settings) as instance:
        for step in STEP_NAMES:
            made = instance.get_materialized_partitions(asset_key("demo", step))
            assert made == {f"{e}|{s}" for e, s, of in done if of == step}, step


def test_a_second_run_makes_nothing_and_says_the_truth(own):
    """Nothing is computed; rows, files and status stay; in Dagster all that was made stays materialized."""
    before, files, counts = chain.status(own.settings), own.files(), own.counts()
    with Runner(own.settings, jobs=1) as runner:
        assert runner.build_masters("demo") == []
        wanted = chain.references_wanted(own.settings, "demo")
        night = chain.exposures(own.settings)[0].night
        (reference,) = runner.build_references("demo", wanted, nights=[night])
        reports = runner.process("demo", own.science)
        made = runner.instance.get_materialized_partitions(asset_key("demo", "forced_photometry"))
    assert reference.outcome == "loaded"
    first = told(own)
    for r in reports:
        outcome, reason = first[r.exposure, r.section, r.step]
        assert (str(r.outcome), r.reason) == ("loaded" if outcome == "done" else outcome, reason)
    assert (chain.status(own.settings), own.files(), own.counts()) == (before, files, counts)
    assert made == {f"{name}|{section}" for name in own.science[2:] for section in SECTIONS}


def test_products_are_the_same_without_dagster_and_by_single_sections(started, snapshots):
    """Walked directly, one section alone: the same data versions."""
    name = started.science[2]
    started.ingest(started.raw / f"{name}.fits")
    rows = json.loads((snapshots / "processed" / "reports.json").read_text())
    with_dagster = {r[2]: r[5] for r in rows if r[0] == name and r[1] == "1"}
    report = started.walk(name, "1", THROUGH_ZERO_POINT)
    assert {step: r.data_version for step, r in report.items()} == {
        step: with_dagster[step] for step in THROUGH_ZERO_POINT
    }


def test_exposures_are_listed_in_order(processed):
    with use_settings(processed.settings):
        assert [e.name for e in chain.exposures(processed.settings)] == processed.science
    assert {e.type for e in processed.rows(select(Exposure))} == {"science", "bias", "dark", "flat"}
    name = processed.rows(select(Object.name).where(Object.n_sightings > 0))[0]
    assert len(object_light_curve(processed.settings, name)) >= 1
