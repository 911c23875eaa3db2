"""What a section no longer shows leaves candidates and objects, however its walk ends; through the walk."""

import numpy as np
import pytest
from small_survey import STEP_NAMES
from sqlalchemy import select

from seechange_core import chain
from seechange_core.chain import Selection, steps_change
from seechange_core.products import Object
from seechange_core.products.reference import Reference

EVERY = Selection(min_epochs=1)
DOWN_TO_SUBTRACTION = STEP_NAMES[: STEP_NAMES.index("subtraction") + 1]


def seen(survey):
    """Return in how many exposures each candidate was seen, and how many sightings each object counts."""
    epochs = {row.object: row.n_epochs for row in chain.candidates(survey.settings, selection=EVERY)}
    query = select(Object).where(Object.n_sightings > 0)
    return epochs, {row.name: row.n_sightings for row in survey.rows(query)}


def shown_by(survey, exposure, section):
    rows = chain.all_candidates(survey.settings)
    return [row.object for row in rows if (row.exposure, row.section) == (exposure, section)]


@pytest.mark.parametrize("steps", [None, DOWN_TO_SUBTRACTION])
def test_without_a_reference_nothing_is_shown_until_there_is_one_again(own, steps):
    before = seen(own)
    name, other = own.science[2:4]
    own.mark_references(bad=True)
    for section in "01":
        assert own.outcomes(name, section, steps=steps)["subtraction"] == "stopped"
    _, objects = seen(own)
    assert sum(objects.values()) < sum(before[1].values())
    assert not shown_by(own, name, "0") and not shown_by(own, name, "1")
    assert shown_by(own, other, "0") or shown_by(own, other, "1")
    own.mark_references(bad=False)
    for section in "01":
        own.walk(name, section)
    assert seen(own) == before


@pytest.mark.parametrize("ends", ["empty", "failed"])
def test_a_new_reference_whose_difference_shows_nothing(own, ends, monkeypatch):
    """The fifth exposure takes a new reference, and its new detections are none, or fail."""
    name = own.science[4]
    before = sum(seen(own)[1].values())
    section = "0" if shown_by(own, name, "0") else "1"
    (old,) = own.rows(select(Reference))
    nights = sorted({e.night for e in chain.exposures(own.settings)})[:2]
    chain.build_reference(own.settings, "demo", old.region, old.filter, nights=nights, use=True)
    detect = steps_change.detect

    def nothing(*args):
        if ends == "failed":
            raise RuntimeError("no memory")
        return detect(*args).select(np.empty(0, int))

    monkeypatch.setattr(steps_change, "detect", nothing)
    outcomes = own.outcomes(name, section)
    assert (outcomes["subtraction"], outcomes["detections"]) == ("done", "done" if ends == "empty" else ends)
    assert not shown_by(own, name, section)
    assert sum(seen(own)[1].values()) < before
