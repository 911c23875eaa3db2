import numpy as np
import pytest
from sqlalchemy import event, select

from seechange_core.numerics.sky import from_vectors, offset
from seechange_core.products import Object
from seechange_core.products.object import (
    NAME_CELL_ARCSEC,
    find_objects,
    object_name,
    objects_named,
)
from seechange_core.storage.engine import get_engine


def test_names_tell_year_and_place():
    """Nine letters stand for a cell of 0.4 arcsec; coordinates are truncated, as the IAU asks."""
    assert object_name("obj%Y%a", 150.1, 2.2, 61000.2) == "obj2025ittpfsffw"
    assert object_name("SC%y%m%d-%a", 150.1, 2.2, 61000.2) == "SC251121-ittpfsffw"
    assert object_name("SeeChange %J", 150.1, 2.2, 61000.2) == "SeeChange J100024.00+021200.0"
    assert object_name("%J", 359.99999, -0.00001, 61000.2) == "J235959.99-000000.0"
    assert object_name("%a", 0.0, 90.0, 61000.2) != object_name("%a", 0.0, -90.0, 61000.2)


def test_places_further_apart_than_a_cell_have_other_names():
    rng = np.random.default_rng(1)
    ra, dec = from_vectors(rng.normal(size=(300, 3)))
    angle = rng.uniform(0, 2 * np.pi, 300)
    east, north = (NAME_CELL_ARCSEC / 3600 * f(angle) for f in (np.cos, np.sin))
    other = offset(ra, dec, east, north)
    names = [object_name("%a", *place, 61000.0) for place in zip(ra, dec, strict=True)]
    others = [object_name("%a", *place, 61000.0) for place in zip(*other, strict=True)]
    assert len(set(names)) == 300 and all(a != b for a, b in zip(names, others, strict=True))


def placed(make, name, ra, dec, **changes):
    errors = {"ra_err_arcsec": 0.1, "dec_err_arcsec": 0.1, "provenance_id": make.provenance_id}
    return Object(name=name, ra=ra, dec=dec, **errors, **changes)


def test_objects_are_found_nearest_first(session, make):
    for name, dec, bad in (
        ("far", 1.9, False),
        ("near", 0.5, True),
        ("nearest", -0.1, False),
        ("out", 2.1, False),
    ):
        session.add(placed(make, name, 0.0, 10 + dec / 3600, is_bad=bad))
    session.flush()
    found = find_objects(session, 359.9999999, 10.0, 2.0)
    assert [row.name for row, _ in found] == ["nearest", "near", "far"]
    assert [distance for _, distance in found] == pytest.approx([0.1, 0.5, 1.9], abs=1e-3)
    good = find_objects(session, 0.0, 10.0, 2.0, select(Object).where(Object.is_bad.is_(False)))
    assert [row.name for row, _ in good] == ["nearest", "far"]
    assert objects_named(session, "far")[0].name == "far" and objects_named(session, "gone") == []


def test_a_cone_reads_only_its_own_part_of_the_table(session, make, database):
    """Whatever else is asked of the objects: SQLite would take another index and read half of the table."""
    statements = []
    session.add(placed(make, "here", 10.0, 20.0, n_sightings=1))
    session.flush()
    listener = lambda *args: statements.append((args[2], args[3]))  # noqa: E731
    event.listen(get_engine(database), "before_cursor_execute", listener)
    query = select(Object).where(
        Object.provenance_id == make.provenance_id, Object.is_bad.is_(False), Object.n_sightings > 0
    )
    for radius_arcsec in (2.0, 600.0):
        assert len(find_objects(session, 10.0, 20.0, radius_arcsec, query)) == 1
    event.remove(get_engine(database), "before_cursor_execute", listener)
    if database.database_url.startswith("sqlite"):
        connection = session.connection()
        plans = [
            str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all())
            for text, values in statements
        ]
        assert len(plans) == 2
        for plan in plans:
            assert "USING INDEX ix_objects_healpix (healpix>? AND healpix<?)" in plan
            assert not any(f"ix_objects_{name} " in plan for name in ("is_bad", "provenance_id"))
