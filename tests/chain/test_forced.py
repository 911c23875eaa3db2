"""Forced photometry: what sets it off, and what it leaves out."""

from collections import Counter

import numpy as np
from small_survey import STEP_NAMES
from sqlalchemy import delete, select

from seechange_core.chain import object_light_curve
from seechange_core.products import Exposure, ForcedFlux, Image, Object, Verdict
from seechange_core.storage.engine import open_session


def forget_fluxes(own, found):
    with open_session(own.settings) as session:
        session.execute(delete(ForcedFlux).where(ForcedFlux.object_id == found.id))


def kinds(own, found):
    return Counter(own.rows(select(ForcedFlux.kind).where(ForcedFlux.object_id == found.id)))


def test_an_object_without_fluxes_is_measured_at_all_epochs_but_bad_ones(own):
    """Whichever section is walked next measures it in all differences, and once in the reference."""
    last = own.science[4]
    covering = select(Object).where(Object.n_sightings > 1).order_by(Object.n_sightings.desc())
    found = next(o for o in own.rows(covering) if len(object_light_curve(own.settings, o.name)) == 3)
    table = object_light_curve(own.settings, found.name)
    section = str(table.section[-1])
    forget_fluxes(own, found)
    outcomes = own.outcomes(last, section)
    assert outcomes == {**dict.fromkeys(STEP_NAMES, "loaded"), "forced_photometry": "done"}
    assert kinds(own, found) == {"difference": 3, "image": 1}
    again = object_light_curve(own.settings, found.name)
    # The place it is known at now may be a little better.
    for name in ("flux", "total_flux"):
        change = (getattr(again, name) - getattr(table, name)) / table.flux_err
        assert np.all(np.abs(change) < 0.3)
    # A filter of its own changes nothing about what is measured.
    forget_fluxes(own, found)
    with open_session(own.settings) as session:
        first = session.scalars(select(Exposure).where(Exposure.name == table.exposure[0])).one()
        session.add(Verdict(exposure_id=first.id, word="bad", reason="clouds", said_by="me"))
        image = session.scalars(
            select(Image)
            .join(Exposure, Exposure.id == Image.exposure_id)
            .where(
                Exposure.name == table.exposure[1], Image.section_id == section, Image.type == "difference"
            )
        ).one()
        image.filter = "g"
    assert own.outcomes(last, section)["forced_photometry"] == "done"
    assert kinds(own, found) == {"difference": 2, "image": 1}
    assert list(object_light_curve(own.settings, found.name).exposure) == list(table.exposure[1:])
    assert list(object_light_curve(own.settings, found.name).filter) == ["g", table.filter[2]]
    assert own.outcomes(last, section)["forced_photometry"] == "loaded"
