"""What is asked of SQLite goes by keys and places, however many rows the survey has."""

from uuid import uuid4

import numpy as np
import pytest
from measured_sky import Batch
from sqlalchemy import event, select

from seechange_core.chain import could_see
from seechange_core.chain.could_see import Looked, exposures_that_could
from seechange_core.chain.load import zero_points_of
from seechange_core.chain.seen import seen_by
from seechange_core.numerics.sky import offset
from seechange_core.products import Exposure, Image, Measurement, Object
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.object import find_objects
from seechange_core.storage.engine import open_session

#: Each of these has a good part of the survey under one value.
WIDE = ("_is_bad", "_provenance_id", "_outcomes_step", "_outcomes_status", "SCAN measurements", "SCAN t")


class Plans:
    """Listens to what a database is asked; says how SQLite goes about it."""

    def __init__(self, session):
        self.session, self.asked = session, []

    def __enter__(self):
        event.listen(self.session.get_bind(), "before_cursor_execute", self._hear)
        return self

    def __exit__(self, *_):
        event.remove(self.session.get_bind(), "before_cursor_execute", self._hear)

    def _hear(self, connection, cursor, statement, parameters, context, many):
        if statement.startswith(("SELECT", "WITH", "UPDATE")) and not many:
            self.asked.append((statement, parameters))

    def wide(self):
        """Return the statements that go through a good part of the survey, with the step that does."""
        found = []
        connection = self.session.connection()
        for statement, parameters in list(self.asked):
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found += [(row[3], statement) for row in rows if any(name in row[3] for name in WIDE)]
        return found


def test_thirty_rows_in_a_cone_are_read_by_their_keys(sky):
    if not sky.settings.database_url.startswith("sqlite"):
        pytest.skip("others have statistics of their tables")
    east, north = np.random.default_rng(4).uniform(-15, 15, (2, 30))
    places = offset(150.0, 2.0, east / 3600, north / 3600)
    with open_session(sky.settings) as session, Plans(session) as plans:
        for number in range(2):
            sky.measure(Batch(number, 0, *places, np.full(30, 0.1)))
        assert len(plans.asked) > 20
        n_asked = len(plans.asked)
        good = select(Object).where(Object.is_bad.is_(False), Object.provenance_id == sky.provenance_id)
        ids = [found.id for found, _ in find_objects(session, 150.0, 2.0, 30.0, good)]
        assert len(ids) > 25
        query = seen_by([sky.provenance_id])
        assert len(session.execute(query.where(Measurement.object_id.in_(ids))).all()) == 60
        assert len(session.execute(query.where(Exposure.night == "2026-11-22")).all()) == 60
        assert len(plans.asked) == n_asked + 3
        assert plans.wide() == []


def test_depths_and_zero_points_of_some_images_are_read_by_their_keys(sky, monkeypatch):
    if not sky.settings.database_url.startswith("sqlite"):
        pytest.skip("others have statistics of their tables")
    flux = ForcedFlux(object_id=uuid4(), x=1.0, y=1.0, flux_err=1.0, zp=25.0)
    monkeypatch.setattr(could_see, "_fluxes", lambda *_: {uuid4(): (uuid4(), [flux]) for _ in range(30)})
    looked = {flux.object_id: Looked(20.0, "r", frozenset())}
    with open_session(sky.settings) as session, Plans(session) as plans:
        assert exposures_that_could(session, looked, [sky.provenance_id]) == {}
        assert zero_points_of(session, [Image(new_image_id=uuid4()) for _ in range(30)], ["z"]) == {}
        assert len(plans.asked) == 2
        assert plans.wide() == []
