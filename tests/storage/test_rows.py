import multiprocessing
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import select

from seechange_core.products import CatalogRelease
from seechange_core.storage.engine import dispose_engines, open_session
from seechange_core.storage.orm import new_id, plain
from seechange_core.storage.rows import (
    find_same,
    get_or_insert,
    insert_or_update,
    take_turns,
)

KEY = ("name", "content_hash")


def release(name: str = "a", n_stars: int = 1, description: str = "") -> CatalogRelease:
    return CatalogRelease(
        name=name,
        content_hash="0" * 64,
        n_stars=n_stars,
        path="x",
        epoch=2016.0,
        bands=["g"],
        description=description,
    )


def test_the_first_is_inserted_and_the_second_finds_it(session):
    first, inserted = get_or_insert(session, release(n_stars=1), KEY)
    second, again = get_or_insert(session, release(n_stars=2), KEY)
    assert (inserted, again) == (True, False)
    assert first is second
    assert second.n_stars == 1
    assert first.description == ""
    assert first.created_at is not None


def test_an_update_in_place_keeps_the_id(session):
    first = insert_or_update(session, release(n_stars=1), KEY)
    was = (first.id, first.created_at)
    second = insert_or_update(session, release(n_stars=2), KEY)
    assert (second.id, second.created_at) == was
    assert second.n_stars == 2


def test_what_is_not_there_is_not_found(session):
    assert find_same(session, release(), KEY) is None


def insert_one(url: str) -> tuple[str, bool]:
    with open_session(url) as session:
        row, inserted = get_or_insert(session, release(), KEY)
        return str(row.id), inserted


def insert_in_process(url: str) -> tuple[str, bool]:
    result = insert_one(url)
    dispose_engines()
    return result


def test_the_same_row_from_many_threads_is_one_row(database):
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(insert_one, [database.database_url] * 24))
    assert len({key for key, _ in results}) == 1
    assert sum(inserted for _, inserted in results) == 1


def test_the_same_row_from_many_processes_is_one_row(database):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        results = pool.map(insert_in_process, [database.database_url] * 12, chunksize=1)
        pool.close()
        pool.join()
    assert len({key for key, _ in results}) == 1
    assert sum(inserted for _, inserted in results) == 1


def test_sessions_that_take_turns_see_each_other(database):
    """Look, then insert if there is none: with turns only the first one inserts."""

    def look_and_add(i):
        with open_session(database) as session:
            take_turns(session, "test")
            if session.scalar(select(CatalogRelease)) is None:
                session.add(release(f"n{i}"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(look_and_add, range(12)))
    with open_session(database, read_only=True) as session:
        assert session.query(CatalogRelease).count() == 1


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.float32(2.5), 2.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (float("nan"), None),
        (np.float64("nan"), None),
        (float("inf"), float("inf")),
        ({"a": np.float64("nan"), "b": [np.int16(1), float("inf")]}, {"a": None, "b": [1, None]}),
        (np.arange(2), [0, 1]),
        ("text", "text"),
        (None, None),
    ],
)
def test_values_are_plain(value, kept):
    assert plain(value) == kept
    assert type(plain(value)) is type(kept)


def test_numpy_values_reach_both_engines(session):
    row = release(n_stars=np.int64(5))
    row.epoch = np.float32(2016.5)
    row.bands = np.array(["g", "r"])
    session.add(row)
    session.flush()
    session.expire(row)
    assert (row.n_stars, row.epoch, row.bands) == (5, 2016.5, ["g", "r"])


def test_ids_are_ordered_in_time():
    ids = [new_id() for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(i.version == 7 for i in ids)
    assert ids[0].int >> 80 <= ids[2].int >> 80


def test_ids_made_within_a_millisecond_are_in_order(monkeypatch):
    times = [1_795_000_000_000_000_000 + n for n in (0, 250, 999_500, 999_999, 1_000_000)]
    monkeypatch.setattr("seechange_core.storage.orm.time.time_ns", iter(times).__next__)
    ids = [new_id() for _ in times]
    assert ids[0] < ids[1] < ids[2] < ids[4]
    assert ids[3] < ids[4]
    assert {(i.version, i.variant) for i in ids} == {(7, uuid.RFC_4122)}
    assert {i.int >> 80 for i in ids} == {1_795_000_000_000, 1_795_000_000_001}
