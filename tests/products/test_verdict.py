"""Verdicts in the database, on both engines."""

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from seechange_core.numerics.sky import offset
from seechange_core.products import Image, Object
from seechange_core.products.provenance import record_provenance
from seechange_core.products.verdict import (
    Verdict,
    apply_verdicts,
    not_called_bad,
    settle_verdicts,
    standing_on,
    verdicts_on,
)
from seechange_core.provenance import ProvenanceKey


def said(word, **changes):
    return Verdict(word=word, reason="because", said_by="Ada", **changes)


def put(session, name, ra, dec, provenance_id, n_sightings=1):
    ra, dec = float(ra), float(dec)
    row = Object(
        name=name, ra=ra, dec=dec, ra_err_arcsec=0.1, dec_err_arcsec=0.1, provenance_id=provenance_id,
        n_sightings=n_sightings,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def test_sections_that_are_called_bad_are_left_out(session, make):
    exposures = [make.exposure(name) for name in ("a", "b", "c")]
    images = {(e, s): make.image(exposure_id=e, section_id=s).id for e in exposures for s in ("1", "2")}
    session.add_all(
        [
            said("bad", exposure_id=exposures[0], section_id="1"),
            said("bad", exposure_id=exposures[1], section_id=""),
            said("bad", exposure_id=exposures[2], section_id="2", counts=False),
            said("good", exposure_id=exposures[2], section_id="2"),
        ]
    )
    session.flush()
    query = select(Image.id).where(not_called_bad(Image.exposure_id, Image.section_id))
    assert set(session.scalars(query)) == {
        images[exposures[0], "2"], images[exposures[2], "1"], images[exposures[2], "2"]
    }  # fmt: skip


def test_objects_are_known_by_their_place_or_else_by_their_name(session, make):
    """Across RA 0: of each processing the nearest; what lies 3 arcsec away only has the name in common."""
    mine, other = make.provenance_id, record_provenance(session, ProvenanceKey("measurement", "other")).id
    place = (0.00001, -89.0)
    same, beside, far = (
        put(session, name, *offset(*place, 0, north / 3600), mine)
        for name, north in (("same", 0.1), ("beside", -0.4), ("far", 3))
    )
    again = put(session, "again", *offset(*place, -0.5 / 3600, 0), other)
    session.add(said("bogus", object_name="same", ra=place[0], dec=place[1]))
    session.flush()
    objects = [same, beside, far, again]
    apply_verdicts(session, objects)
    assert [row.is_bad for row in objects] == [True, False, False, True]
    apply_verdicts(session, [beside])  # also if nobody asks about the nearest one
    assert not beside.is_bad and verdicts_on(session, beside) == []
    assert again.bad_reason == "because" and far.bad_reason is None
    assert [v.word for v in verdicts_on(session, again)] == ["bogus"]
    same.name = "before"
    session.flush()
    far.name = "same"
    apply_verdicts(session, objects)
    assert [row.is_bad for row in objects] == [True, False, False, True]
    for row in (same, beside):
        row.dec += 2 / 3600
    session.flush()
    apply_verdicts(session, objects)
    assert [row.is_bad for row in objects] == [False, False, True, True]
    many = [Object(name=f"o{i}", ra=10.0 + i / 100, dec=5.0) for i in range(600)]
    assert set(standing_on(session, [*many, again])) == {again.id}
    assert standing_on(session, []) == {}


def test_objects_that_nothing_shows_any_more_give_way_to_those_that_are_seen(session, make):
    """However near: what was left empty, when measurements came out elsewhere, shows nobody anything."""
    place = (10.0, 5.0)
    empty, seen = (
        put(session, name, place[0], place[1] + north / 3600, make.provenance_id, n)
        for name, north, n in (("empty", 0.0, 0), ("seen", 0.4, 3))
    )
    session.add(said("bogus", object_name="empty", ra=place[0], dec=place[1]))
    session.flush()
    apply_verdicts(session, [empty, seen])
    assert [row.is_bad for row in (empty, seen)] == [False, True]
    seen.n_sightings = 0
    session.flush()
    apply_verdicts(session, [empty, seen])
    assert [row.is_bad for row in (empty, seen)] == [True, False]


def test_the_last_word_counts_and_undo_takes_it_back():
    words = ["bogus", "real", "undo", "undo", "undo", "real"]
    rows = [said(word, ra=1.0, dec=2.0) for word in words]
    holds = [settle_verdicts(rows[:n]) for n in range(1, 7)]
    assert [h and h.word for h in holds] == ["bogus", "real", "bogus", None, None, "real"]
    assert [row.counts for row in rows] == [False] * 5 + [True]


@pytest.mark.parametrize("changes", [{"word": "nice", "ra": 1.0, "dec": 2.0}, {"word": "bad"}])
def test_what_is_no_verdict_is_refused(session, changes):
    session.add(said(**changes))
    with pytest.raises(IntegrityError):
        session.flush()
    session.rollback()
