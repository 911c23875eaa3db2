"""A person's word: what it changes, that it sticks, and that it can be taken back."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from measured_sky import one
from small_survey import STEP_NAMES, Survey

from seechange_core import chain
from seechange_core.chain import Selection, mark
from seechange_core.chain.reference_inputs import candidates_for_references
from seechange_core.errors import NotFoundError, UserError
from seechange_core.products.object import Object
from seechange_core.settings import use_settings
from seechange_core.storage.engine import open_session
from seechange_core.storage.rows import take_turns

EVERY = Selection(min_epochs=1)
THROUGH_MEASUREMENT = STEP_NAMES[: STEP_NAMES.index("measurement") + 1]


def listed(survey: Survey, settings=None, **changes) -> list[str]:
    """Return the names of the candidates."""
    selection = Selection(min_epochs=1, **changes)
    return [row.object for row in chain.candidates(settings or survey.settings, selection=selection)]


def seen_in(survey: Survey) -> set[tuple[str, str]]:
    """Return the exposures and sections that any candidate's best detection is in."""
    return {(row.exposure, row.section) for row in chain.candidates(survey.settings, selection=EVERY)}


def test_a_bogus_object_leaves_whatever_is_made_again(own):
    best = chain.candidates(own.settings, selection=EVERY)[0]
    name, before = best.object, listed(own)
    said = mark(own.settings, name, "bogus", "a spike", by="Ada")
    assert said.holds is not None and (said.holds.word, said.holds.said_by) == ("bogus", "Ada")
    assert listed(own) == [n for n in before if n != name]
    assert name in listed(own, with_bogus=True)
    place = chain.object_named(own.settings, name)
    assert place.is_bad and place.bad_reason == "a spike"
    near = chain.object_near(own.settings, place.ra, place.dec, 1.0)
    assert near is None or near[0].name != name
    # Made again, and made with other settings: other rows at the same place.
    own.walk(best.exposure, best.section, ("measurement",), redo=True)
    assert listed(own) == [n for n in before if n != name]
    other = own.changed(associate={"radius_arcsec": 0.9})
    with use_settings(other):
        own.walk(best.exposure, best.section, THROUGH_MEASUREMENT, settings=other)
        there = chain.all_candidates(other)
    hit = [r for r in there if np.hypot(r.ra - place.ra, r.dec - place.dec) < 0.5 / 3600]
    assert [r.verdict for r in hit] == ["bogus"]
    # The last word counts, and can be taken back: then the one before it does.
    mark(own.settings, name, "real", "no, it is a star", by="Bob")
    assert name in listed(own) and listed(own, real=True) == [name]
    assert not chain.object_named(own.settings, name).is_bad
    back = mark(own.settings, name, "undo", "it is a spike")
    assert back.holds is not None and back.holds.word == "bogus" and name not in listed(own)
    assert mark(own.settings, name, "undo", "who knows").holds is None
    assert listed(own) == before
    history = chain.verdict_history(own.settings, name)
    assert [row.word for row in history] == ["bogus", "real", "undo", "undo"]
    assert not any(row.counts for row in history)


def test_a_bad_section_is_left_out_everywhere_and_comes_back(own):
    best = chain.candidates(own.settings, selection=EVERY)[0]
    exposure, section = best.exposure, best.section
    curve = chain.object_light_curve(own.settings, best.object)
    assert exposure in curve.exposure and (exposure, section) in seen_in(own)
    marked = mark(own.settings, exposure, "bad", "a ghost", section=section)
    assert marked.section == section and marked.references == ()

    def counts() -> bool:
        settings = own.settings
        with use_settings(settings):
            inputs = {(c.exposure, c.section) for c in candidates_for_references(settings, "demo")}
        found = chain.object_light_curve(settings, best.object)
        place = chain.position_light_curve(settings, best.ra, best.dec)
        state = own.status(exposure=exposure, section=section)["exposure"].quality
        there = {
            (exposure, section) in inputs,
            exposure in found.exposure,
            exposure in place.exposure,
            "marked_bad" not in state,
        }
        assert len(there) == 1, "it counts here, and not there"
        return there.pop()

    assert not counts() and (exposure, section) not in seen_in(own)
    assert {s for e, s in seen_in(own) if e == exposure} <= {"0", "1"} - {section}
    own.walk(exposure, section, ("measurement", "forced_photometry"), redo=True)
    assert not counts() and (exposure, section) not in seen_in(own)
    assert [(r.section, r.word) for r in chain.verdict_history(own.settings, exposure)] == [(section, "bad")]
    mark(own.settings, exposure, "good", "no ghost", section=section)
    assert counts() and (exposure, section) in seen_in(own)


def test_a_bad_exposure_is_not_processed_and_says_why(own):
    name, other = own.science[:2]  # of one night, and in the reference

    def compared() -> bool:
        return "cloud_mag" in own.status(exposure=other, section="0")["zero_point"].metrics

    assert compared()
    marked = mark(own.settings, name, "bad", "it shook")
    assert len(marked.references) == 1
    assert not compared()  # alone in its night it tells nothing of clouds
    assert name not in [e.name for e in chain.exposures(own.settings)]
    with pytest.raises(NotFoundError, match="it shook"):
        chain.exposures(own.settings, [name])
    assert name in [e.name for e in chain.exposures(own.settings, with_bad=True)]
    status = chain.status(own.settings, [name])
    assert {r.quality for r in status if r.step == "exposure"} == {("marked_bad",)}
    (standing,) = chain.standing_verdicts(own.settings)
    assert (standing.target, standing.section, standing.word) == (name, "", "bad")
    mark(own.settings, name, "undo", "it did not")
    assert compared()
    assert name in [e.name for e in chain.exposures(own.settings)]
    assert chain.standing_verdicts(own.settings) == []


def test_what_makes_no_sense_is_refused(own):
    science, bias = own.science[2], min(own.raw.glob("*_bias.fits")).stem
    name = listed(own)[0]
    for target, word, options, words in (
        (science, "bogus", {}, "exposure, which cannot be 'bogus'"),
        (name, "bad", {}, "object, which cannot be 'bad'"),
        (science, "undo", {}, "nothing was said"),
        (name, "real", {"section": "0"}, "no sections"),
        (bias, "bad", {"section": "0"}, "counts as a whole"),
    ):
        with pytest.raises(UserError, match=words):
            mark(own.settings, target, word, "because", **options)
    with pytest.raises(UserError, match="needs a reason"):
        mark(own.settings, science, "bad", "  ")
    with pytest.raises(NotFoundError, match="no exposure or object 'obj1'"):
        mark(own.settings, "obj1", "real", "because")
    with pytest.raises(NotFoundError, match="its sections are 0, 1"):
        mark(own.settings, science, "bad", "because", section="7")
    assert chain.verdict_history(own.settings, science) == []
    with open_session(own.settings, read_only=True) as session:
        assert not any(row.is_bad for row in session.query(Object))


def test_a_word_on_one_object_is_none_on_its_neighbour(sky):
    """A supernova 0.7 arcsec from a dipole of its host's nucleus."""
    for number in range(3):
        sky.measure(one(number, 0.0, err=0.02))
        sky.measure(one(number, 0.7, err=0.02, section=1))
    nucleus, nova = (name for _, name in sorted((row[1], row[0]) for row in sky.objects()))

    def bogus():
        with open_session(sky.settings, read_only=True) as session:
            return {row.name for row in session.query(Object) if row.is_bad}

    assert mark(sky.settings, nucleus, "bogus", "a dipole").n_objects == 1
    assert bogus() == {nucleus}
    mark(sky.settings, nova, "real", "a supernova")
    sky.measure(one(3, 0.7, err=0.02))
    assert bogus() == {nucleus}
    assert [row.counts for row in chain.verdict_history(sky.settings, nucleus)] == [True]
    mark(sky.settings, nova, "undo", "who knows")
    mark(sky.settings, nucleus, "undo", "who knows")
    assert bogus() == set()


def test_a_word_waits_for_objects_that_are_being_made(sky):
    sky.measure(one(0, 0.0))
    ((name, *_),) = sky.objects()
    with ThreadPoolExecutor(1) as pool:
        with open_session(sky.settings) as session:
            take_turns(session, "objects")
            session.query(Object).count()  # on SQLite the first statement takes the turn
            said = pool.submit(mark, sky.settings, name, "bogus", "a ghost")
            with pytest.raises(TimeoutError):
                said.result(timeout=0.5)
        assert said.result(timeout=60).n_objects == 1
