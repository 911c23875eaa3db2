import pytest
from sqlalchemy.exc import IntegrityError

from seechange_core.errors import NotFoundError
from seechange_core.products import Provenance
from seechange_core.products.provenance import record_provenance, set_tag, tagged, upstream_ids
from seechange_core.provenance import ProvenanceKey

IMAGE = ProvenanceKey("image", "1", {"flat": True, "threshold": 0.5})
SOURCES = ProvenanceKey("source_list", "2", {"threshold": 3.0}, (IMAGE.id,))


def test_a_provenance_is_recorded_once_with_all_its_parts(session):
    first = record_provenance(session, IMAGE)
    second = record_provenance(session, SOURCES, is_testing=True)
    again = record_provenance(session, SOURCES)
    session.expire_all()
    assert (first.process, first.code_version) == ("image", "1")
    assert first.parameters == {"flat": True, "threshold": 0.5}
    assert first.id == IMAGE.id
    assert again.id == second.id
    assert again.is_testing
    assert upstream_ids(session, second.id) == (IMAGE.id,)
    assert upstream_ids(session, first.id) == ()
    assert session.query(Provenance).count() == 2


def test_the_row_gives_the_same_hash_back(session):
    record_provenance(session, IMAGE)
    row = record_provenance(session, SOURCES)
    session.expire_all()
    key = ProvenanceKey(row.process, row.code_version, row.parameters, upstream_ids(session, row.id))
    assert key.id == row.id


def test_upstreams_come_first(session):
    with pytest.raises(NotFoundError, match=IMAGE.id):
        record_provenance(session, SOURCES)


def test_a_tag_names_one_version_per_process_and_instrument(session):
    old = record_provenance(session, IMAGE)
    new = record_provenance(session, ProvenanceKey("image", "1", {"flat": False}))
    sources = record_provenance(session, SOURCES)
    for row in (old, sources, new):
        set_tag(session, "current", row, "demo")
    set_tag(session, "current", old, "decam")
    set_tag(session, "paper1", old, "demo")
    assert tagged(session, "current", "demo") == {"image": new.id, "source_list": sources.id}
    assert tagged(session, "current", "decam") == {"image": old.id}
    assert tagged(session, "paper1", "demo") == {"image": old.id}
    assert tagged(session, "paper2", "demo") == {}


def test_what_others_build_on_cannot_be_deleted(session):
    first = record_provenance(session, IMAGE)
    record_provenance(session, SOURCES)
    with pytest.raises(IntegrityError), session.begin_nested():
        session.delete(first)
        session.flush()
