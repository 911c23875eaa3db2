import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from seechange_core.products import Object
from seechange_core.products.object import find_objects, object_name, take_names
from seechange_core.storage.engine import dispose_engines, open_session


def test_names():
    names = [object_name(2026, i) for i in range(20000)]
    assert names[:3] == ["obj2026aaa", "obj2026aab", "obj2026aac"]
    assert names[26] == "obj2026aba"
    assert names[26**3 - 1] == "obj2026zzz"
    assert names[26**3] == "obj2026aaaa"
    assert len(set(names)) == len(names)


def test_names_are_taken_in_turn(session):
    assert take_names(session, 2026, 2) == ["obj2026aaa", "obj2026aab"]
    assert take_names(session, 2027, 1) == ["obj2027aaa"]
    assert take_names(session, 2026, 0) == []
    assert take_names(session, 2026, 1) == ["obj2026aac"]


def take(url):
    with open_session(url) as session:
        return take_names(session, 2026, 3)


def take_in_process(url):
    names = take(url)
    dispose_engines()
    return names


def test_no_name_is_given_twice(database):
    with ThreadPoolExecutor(6) as pool:
        names = [n for taken in pool.map(take, [database.database_url] * 12) for n in taken]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        names += [n for taken in pool.map(take_in_process, [database.database_url] * 12, 1) for n in taken]
        pool.close()
        pool.join()
    assert len(names) == 72
    assert len(set(names)) == 72


def test_names_of_a_session_that_failed_are_given_again(database):
    def fail():
        with open_session(database) as session:
            take_names(session, 2026, 5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with open_session(database) as session:
        assert take_names(session, 2026, 1) == ["obj2026aaa"]


def test_objects_are_found_nearest_first(session, make):
    for name, dec, bad in (
        ("far", 1.9, False),
        ("near", 0.5, True),
        ("nearest", -0.1, False),
        ("out", 2.1, False),
    ):
        session.add(
            Object(
                name=name,
                ra=0.0,
                dec=10 + dec / 3600,
                ra_err_arcsec=0.1,
                dec_err_arcsec=0.1,
                is_bad=bad,
                provenance_id=make.provenance_id,
            )
        )
    session.flush()
    found = find_objects(session, 359.9999999, 10.0, 2.0)
    assert [row.name for row, _ in found] == ["nearest", "near", "far"]
    assert [distance for _, distance in found] == pytest.approx([0.1, 0.5, 1.9], abs=1e-3)
    good = find_objects(session, 0.0, 10.0, 2.0, select(Object).where(Object.is_bad.is_(False)))
    assert [row.name for row, _ in good] == ["nearest", "far"]
