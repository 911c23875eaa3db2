"""Reference sets: versions, which of them is used, and what is left out of them."""

import re

import numpy as np
import pytest
from small_survey import STEP_NAMES, assert_whole
from sqlalchemy import select, update

from seechange_core import chain
from seechange_core.chain.reference_inputs import candidates_for_references
from seechange_core.errors import NotFoundError
from seechange_core.flags import ExposureFlag
from seechange_core.products import Exposure, Image, Reference
from seechange_core.products.image import parent_ids
from seechange_core.products.reference import reference_ids
from seechange_core.settings import use_settings
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

LOADED = dict.fromkeys(STEP_NAMES, "loaded")


def from_subtraction_on(outcome: str) -> dict[str, str]:
    n = STEP_NAMES.index("subtraction")
    return {s: "loaded" if i < n else outcome for i, s in enumerate(STEP_NAMES)}


def states(survey) -> dict[int, str]:
    rows = chain.list_references(survey.settings)
    return {r.version: r.state for r in rows if r.current and r.left_out is None}


def exposures_in(survey, version: int) -> set[str]:
    """Names of the exposures in a version of the reference."""
    rows = survey.rows(
        select(Reference).where(Reference.left_out_exposure_id.is_(None)).order_by(Reference.id)
    )
    with open_session(survey.settings, read_only=True) as session:
        parents = parent_ids(session, rows[version - 1].image_id)
        query = select(Exposure.name).join(Image, Image.exposure_id == Exposure.id)
        return set(session.scalars(query.where(Image.id.in_(parents))))


def used_by(survey, exposure: str) -> list[Reference]:
    """Return the references of the differences of section 0, the oldest difference first."""
    query = (
        select(Image)
        .join(Exposure, Exposure.id == Image.exposure_id)
        .where(Exposure.name == exposure, Image.type == "difference", Image.section_id == "0")
    )
    with open_session(survey.settings, read_only=True) as session:
        images = session.scalars(query.order_by(Image.id)).all()
        return [session.get_one(Reference, i) for image in images for i in reference_ids(session, image.id)]


def build(survey, **options) -> list[chain.StepReport]:
    ((region, band),) = chain.references_wanted(survey.settings, "demo")
    return chain.build_reference(survey.settings, "demo", region, band, **options)


def test_a_set_changes_when_told_and_not_before(own):
    """A newer version of the second and third exposure: the fifth takes it once it is used, the third not."""
    without = [own.science[i] for i in (0, 3, 4)]
    (built,) = build(own, without=without)
    assert built.metrics["n_images"] == 2
    assert "reference use" in built.message
    assert [row["verdict"] for row in built.table] == ["used"] * 4 + ["left out on request"] * 3
    assert states(own) == {1: "used", 2: "proposed"}
    assert own.outcomes(own.science[4], "0") == LOADED

    (changed,) = chain.use_references(own.settings, "demo")
    assert (changed.before, changed.version) == (1, 2)
    assert changed.staying == {f"{own.science[i]}/{s}": v for i, v in ((1, None), (2, 1)) for s in "01"}
    assert states(own) == {1: "earlier", 2: "used"}
    assert own.outcomes(own.science[4], "0") == from_subtraction_on("done")
    first, second = used_by(own, own.science[4])
    assert first.id < second.id and first.image_id != second.image_id
    # Exposures that are in the new version keep the one they are not in; those in both have none.
    assert own.outcomes(own.science[2], "0") == LOADED
    assert own.walk(own.science[1], "0")["subtraction"].reason == "in_reference"

    # What is left out of the version used goes before the version that was used earlier.
    (_, *left_out) = build(own, without=without, leave_one_out=True)
    assert [str(r.outcome) for r in left_out] == ["done"] * 4
    assert own.outcomes(own.science[2], "0") == from_subtraction_on("done")
    assert used_by(own, own.science[2])[-1].whole_id == second.id
    assert own.outcomes(own.science[1], "0")["subtraction"] == "done"

    (changed,) = chain.use_references(own.settings, "demo", version=1, reason="the new one is worse")
    assert (changed.before, changed.version) == (2, 1)
    # One that is in both stays on what leaves it out of the other.
    assert changed.staying == {f"{own.science[i]}/{s}": 2 for i in (0, 1) for s in "01"}
    assert own.outcomes(own.science[1], "0") == LOADED
    assert own.outcomes(own.science[4], "0") == from_subtraction_on("done")
    assert {row.id for row in used_by(own, own.science[4])} == {first.id, second.id}
    assert states(own) == {1: "used", 2: "proposed"}
    with pytest.raises(NotFoundError, match="no version 3"):
        chain.use_references(own.settings, "demo", version=3)
    with pytest.raises(NotFoundError, match="no reference of r0_0"):
        chain.use_references(own.settings, "demo", ["r0_0"])
    assert_whole(own)


def test_a_bad_input_is_shown_and_left_out_of_the_next_version(own):
    """And an exposure that is not wanted is left out without being bad."""
    one, other = own.science[:2]
    nights = [chain.exposures(own.settings)[0].night]
    assert exposures_in(own, 1) == {one, other}
    (report,) = build(own, nights=nights, without=[other])
    assert report.outcome == "done" and exposures_in(own, 2) == {one}
    assert {"frame": other, "verdict": "left out on request"} in report.table
    with open_session(own.settings) as session:
        marked = {"bitflag": int(ExposureFlag.MARKED_BAD), "bad_reason": "a plane"}
        session.execute(update(Exposure).where(Exposure.name == one).values(**marked))
    shown = {r.version: (r.state, r.bad_inputs) for r in chain.list_references(own.settings)}
    assert shown == {1: ("used", one), 2: ("proposed", one)}
    assert own.outcomes(own.science[4], "0") == LOADED  # until someone says otherwise
    (report,) = build(own, nights=nights, use=True)
    assert exposures_in(own, 3) == {other} and report.message == ""
    assert states(own) == {1: "earlier", 2: "earlier", 3: "used"}
    assert own.outcomes(own.science[4], "0") == from_subtraction_on("done")
    # None good is left: the next version made is used at once.
    own.mark_references(bad=True)
    assert own.walk(own.science[4], "0")["subtraction"].reason == "no_reference"
    (report,) = build(own, without=[own.science[4]])
    assert report.message == "" and states(own)[4] == "used"
    assert own.outcomes(own.science[4], "0") == from_subtraction_on("done")


def test_candidates_are_looked_for_around_the_region_only(started):
    ((region, band),) = chain.references_wanted(started.settings, "demo")
    with use_settings(started.settings):
        every = candidates_for_references(started.settings, "demo")
        here = candidates_for_references(started.settings, "demo", region=region, band=band)
        elsewhere = candidates_for_references(started.settings, "demo", region="r0010_0001")
    assert here == every and len(every) == 4
    assert elsewhere == []
    assert all(17 < c.facts.sky_mag < 24 for c in every)


def test_a_section_on_several_regions_gets_one_reference_of_theirs(own):
    """Slivers of regions have too few stars for a reference; where too much is missing, it says how much."""
    small = own.changed(reference={"region_size_deg": 0.05, "min_images": 2})
    name, nights = own.science[4], [chain.exposures(own.settings)[0].night]
    with use_settings(small):
        wanted = chain.references_wanted(small, "demo")
        built = [chain.build_reference(small, "demo", *one, nights=nights)[0] for one in wanted]
        assert {str(r.outcome) for r in built} <= {"done", "stopped"}
        assert own.outcomes(name, "0", settings=small) == from_subtraction_on("done")
    strict = own.changed(reference={"region_size_deg": 0.05, "min_images": 2}, subtract={"min_coverage": 1.0})
    with use_settings(strict):
        report = own.walk(name, "0", settings=strict)["subtraction"]
    assert (str(report.outcome), report.reason) == ("stopped", "no_reference")
    assert re.search(r"cover 0\.\d+ of", report.message)
    query = (
        select(Image)
        .join(Exposure, Exposure.id == Image.exposure_id)
        .where(Exposure.name == name, Image.type == "difference", Image.section_id == "0")
        .order_by(Image.id)
    )
    whole, pieced = own.rows(query)
    with open_session(small, read_only=True) as session:
        assert len(reference_ids(session, pieced.id)) > 1
    one, many = (image.read_subtraction(Archive(small)) for image in (whole, pieced))
    good = (one.score != 0) & (many.score != 0)
    assert good.mean() > 0.6
    assert np.std(many.score[good & (np.abs(one.score) < 4)]) == pytest.approx(1, abs=0.05)


def test_after_an_update_it_is_told_which_references_are_used_no_longer(own):
    """And they are not what stops a section where the present parameters have one, nor where no region is."""
    ((region, band),) = chain.references_wanted(own.settings, "demo")
    build(own, without=[own.science[i] for i in (0, 3, 4)], use=True)
    updated = own.changed(reference={"clip_sigma": 3.5, "min_images": 2})
    name, nights = own.science[4], [chain.exposures(own.settings)[0].night]
    with use_settings(updated):
        report = own.walk(name, "0", settings=updated)["subtraction"]
        shown = [(r.version, r.state, r.current) for r in chain.list_references(updated)]
        assert (str(report.outcome), report.reason) == ("stopped", "no_reference")
        assert f"used no longer: version 2 of {region}" in report.message
        assert f"seechange reference build --use --filter {band}" in report.message
        assert shown == [(2, "outdated", False), (1, "earlier", False)]
        chain.build_reference(updated, "demo", region, band, nights=nights, use=True)
        shown = [(r.version, r.state, r.current) for r in chain.list_references(updated)]
        assert shown == [(1, "used", True), (2, "used", False), (1, "earlier", False)]
        assert own.outcomes(name, "0", settings=updated) == from_subtraction_on("done")
    assert own.outcomes(name, "0")["subtraction"] == "done"  # with the settings back, from version 2
    own.mark_references(bad=True)
    message = own.walk(name, "0")["subtraction"].message
    assert "cover 0.000" in message and "no longer" not in message
