"""Other settings or newer inputs make new products beside the old ones, and everyone can tell them apart."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.time import Time
from small_survey import SECTIONS, STEP_NAMES, assert_whole
from sqlalchemy import select

from seechange_assets.chain import asset_key
from seechange_assets.definitions import define
from seechange_assets.run import Runner
from seechange_core import chain
from seechange_core.chain import object_light_curve, position_light_curve, provenances
from seechange_core.products import Image
from seechange_core.products.calibrator import Calibrator
from seechange_core.products.exposure import Exposure
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.image import parent_ids
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object
from seechange_core.products.provenance import tagged
from seechange_core.products.reference import Reference, reference_ids
from seechange_core.settings import use_settings
from seechange_core.storage.engine import open_session


def split_at(step: str) -> dict[str, str]:
    """Outcomes where this step and all later ones are made, the earlier ones loaded."""
    n = STEP_NAMES.index(step)
    return {s: "loaded" if i < n else "done" for i, s in enumerate(STEP_NAMES)}


def tag_of(survey, settings):
    with open_session(settings, read_only=True) as session:
        return tagged(session, settings.tag, "demo")


def test_a_parameter_makes_new_products_beside_the_old(own):
    name, newer = own.science[2], own.changed(detect={"threshold": 8.0})
    before, files = own.counts(), own.files()
    with use_settings(newer):
        assert own.outcomes(name, "0", settings=newer) == split_at("detections")
    after = own.counts()
    assert after["images"] == before["images"]
    assert after["source_lists"] == before["source_lists"] + 1
    assert all(own.files()[path] == at for path, at in files.items())
    told = [r for r in chain.status(newer, [name]) if r.step == "detections"]
    versions = {(r.section, r.current, r.outdated) for r in told}
    # Section 0 has both versions; section 1 still has the old one alone, which is outdated.
    assert versions == {("0", True, False), ("0", False, False), ("1", False, True)}
    assert len({r.provenance for r in told if r.section == "0"}) == 2
    assert not any(r.outdated for r in chain.status(own.settings))
    with use_settings(own.settings):
        assert set(own.outcomes(name, "0").values()) == {"loaded"}
    assert_whole(own)


def test_the_tag_follows_the_settings_and_another_tag_keeps_what_it_named(own):
    name = own.science[2]
    newer = own.changed(detect={"threshold": 8.0})
    paper = own.changed(tag="paper1")
    for settings in (paper, newer):
        own.walk(name, "0", STEP_NAMES[:2], settings=settings)
    ids = {n: key.id for n, key in provenances(own.settings, "demo").items()}
    new_ids = {n: key.id for n, key in provenances(newer, "demo").items()}
    assert tag_of(own, paper) == ids
    assert tag_of(own, newer) == new_ids != ids
    own.walk(name, "0", STEP_NAMES[:2])
    assert tag_of(own, own.settings) == ids


def test_dagsters_code_versions_are_the_provenances(own):
    for settings in (own.settings, own.changed(detect={"threshold": 8.0})):
        ids = {n: key.id for n, key in provenances(settings, "demo").items()}
        graph = define(settings).resolve_asset_graph()
        for name in (*STEP_NAMES, "bias", "dark", "flat", "reference"):
            assert graph.get(asset_key("demo", name)).code_version == ids[name]


def test_an_instruments_own_parameter_is_used_for_it(own):
    blocks = {"demo": {**own.settings.instruments["demo"], "parameters": {"detect": {"threshold": 30.0}}}}
    newer = own.changed(instruments=blocks)
    few = own.walk(own.science[2], "0", settings=newer)["detections"]
    many = own.walk(own.science[2], "0")["detections"]
    assert (few.outcome, many.outcome) == ("done", "loaded")
    assert few.metrics["n_detections"] < many.metrics["n_detections"]


def test_another_way_to_force_fluxes_counts_no_epoch_twice(own):
    newer = own.changed(force={"min_usable_fraction": 0.2})
    found = own.rows(select(Object).where(Object.n_sightings > 1))[0]
    before = object_light_curve(own.settings, found.name)
    for name in own.science[2:]:
        for section in SECTIONS:
            assert own.outcomes(name, section, settings=newer)["measurement"] == "loaded"
    # One flux at each epoch and one on the reference, twice.
    assert len(own.rows(select(ForcedFlux).where(ForcedFlux.object_id == found.id))) == 2 * (len(before) + 1)
    for settings in (own.settings, newer):
        table = object_light_curve(settings, found.name)
        assert list(table.exposure) == list(before.exposure)


def test_other_bad_pixels_make_other_masks(own):
    newer = own.changed(bad_pixels={"hot_e_per_s": 2.0})
    wanted = chain.masters_wanted(newer, "demo")
    assert [w.kind for w in wanted] == ["dark", "flat"]
    assert chain.masters_wanted(own.settings, "demo") == []
    for key in wanted:
        assert chain.build_master(newer, "demo", key.kind, key.night, "0", key.filter).outcome == "done"
    report = own.walk(own.science[2], "0", STEP_NAMES[:2], settings=newer)["image"]
    (image,) = own.rows(select(Image).where(Image.data_version == report.data_version))
    (mask,) = own.rows(select(Calibrator).where(Calibrator.id == image.bad_pixels_id))
    assert mask.provenance_id == provenances(newer, "demo")["bad_pixels"].id


def test_sections_that_the_camera_no_longer_has_are_not_outdated(own):
    fewer = own.changed(instruments={"demo": {"sections": 1, "section_size_pix": 512}})
    told = chain.status(fewer, [own.science[2]])
    assert {r.section for r in told if r.outdated} == {"0"}
    assert {r.section for r in told} == set(SECTIONS)


def one_more_bias(survey) -> Path:
    """Write a bias frame taken a little earlier: another one with its noise moved along."""
    target = survey.raw / "demo_20260219_000000_bias.fits"
    with fits.open(min(survey.raw.glob("*_bias.fits")), do_not_scale_image_data=True) as units:
        earlier = Time(units[0].header["MJD-OBS"] - 0.01, format="mjd", scale="utc")
        units[0].header["MJD-OBS"], units[0].header["DATE-OBS"] = earlier.mjd, earlier.isot
        for unit in units[1:]:
            unit.data = np.roll(unit.data, 7, axis=0)
        units.writeto(target)
    return target


def assert_each_exposure_counts_once(survey):
    """Check it for the light curves and the sightings of every object."""
    for found in survey.rows(select(Object).where(Object.n_sightings > 0)):
        table = object_light_curve(survey.settings, found.name)
        assert len(set(table.exposure)) == len(table)
        times = survey.rows(select(Measurement.mjd_mid).where(Measurement.object_id == found.id))
        assert len(set(times)) == len(times) == found.n_sightings
        for on in ("image", "difference"):
            at_place = position_light_curve(survey.settings, found.ra, found.dec, on)
            assert len(set(at_place.exposure)) == len(at_place)


def test_newer_masters_make_newer_images_and_every_exposure_counts_once(own):
    """One more bias frame: bias, dark and flat are made anew, and what is processed again takes them."""
    own.ingest(one_more_bias(own))
    with Runner(own.settings, jobs=1) as runner:
        built = runner.build_masters("demo")
        assert [r.step for r in built] == ["bias", "bias", "dark", "dark", "flat", "flat"]
        assert runner.build_masters("demo") == []
    name = own.science[2]
    before, images = own.counts(), len(own.rows(select(Image)))
    assert own.outcomes(name, "0") == split_at("image")
    assert len(own.rows(select(Image))) == images + 2  # the image and its difference, beside the old ones
    assert own.counts()["step_outcomes"] == before["step_outcomes"]
    assert_each_exposure_counts_once(own)
    assert own.outcomes(name, "0") == dict.fromkeys(STEP_NAMES, "loaded")
    assert_whole(own)


def test_until_it_has_run_again_a_step_is_not_done_with_newer_inputs(own):
    """A newer image alone: what was made from the older one is no longer told as done."""
    own.ingest(one_more_bias(own))
    for key in chain.masters_wanted(own.settings, "demo"):
        chain.build_master(own.settings, "demo", key.kind, key.night, "0", key.filter)
    name = own.science[2]
    assert own.outcomes(name, "0", steps=("exposure", "image"))["image"] == "done"
    assert {s: r.status for s, r in own.status(exposure=name, section="0").items()} == {
        "exposure": "done",
        "image": "done",
    }
    assert set(own.status(exposure=name, section="1")) == set(STEP_NAMES)


def test_a_newer_reference_is_taken_where_it_does_not_hold_the_exposure(own):
    """Made of four exposures: the fifth takes it, the third keeps the one it is not in."""
    exposures = chain.exposures(own.settings)
    (old,) = own.rows(select(Reference))
    nights = sorted({e.night for e in exposures})[:2]
    (built,) = chain.build_reference(own.settings, "demo", old.region, old.filter, nights=nights, use=True)
    assert built.metrics["n_images"] == 4
    assert own.outcomes(own.science[4], "0") == split_at("subtraction")
    assert own.outcomes(own.science[2], "0") == dict.fromkeys(STEP_NAMES, "loaded")
    query = select(Image).join(Exposure, Exposure.id == Image.exposure_id)
    query = query.where(Exposure.name == own.science[4], Image.type == "difference", Image.section_id == "0")
    older, newer = own.rows(query.order_by(Image.id))
    with open_session(own.settings, read_only=True) as session:
        assert reference_ids(session, older.id) == [old.id]
        (used,) = reference_ids(session, newer.id)
        assert used != old.id
        assert newer.new_image_id not in parent_ids(session, session.get_one(Reference, used).image_id)
    assert_each_exposure_counts_once(own)
    assert_whole(own)
