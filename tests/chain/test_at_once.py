"""The walk on both engines, and two processes on the same section at the same moment."""

from collections import Counter

import pytest
from small_survey import STEP_NAMES, Survey, assert_whole
from sqlalchemy import select

from seechange_core import chain
from seechange_core.pool import WorkerPool
from seechange_core.products.exposure import Exposure
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object
from seechange_core.settings import use_settings
from seechange_core.storage.migrate import upgrade

#: Tables of which a section walked once and twice at once must have as many rows.
TABLES = (
    *("images", "source_lists", "psfs", "backgrounds", "world_coordinates", "zero_points"),
    *("sightings", "cutouts", "measurements", "objects", "forced_fluxes", "step_outcomes", "provenances"),
)


def at_once(survey: Survey, name: str) -> list[list[chain.StepReport]]:
    """Walk a section in two processes at the same time."""
    with WorkerPool(2) as pool:
        results = list(pool.run(chain.walk, [(survey.settings, name, "0")] * 2))
    assert [r.error for r in results] == [None, None]
    return [r.value for r in results]


def assert_walked_once(survey: Survey, name: str, before: dict[str, int], walks: list) -> None:
    for reports in walks:
        assert [r.step for r in reports] == list(STEP_NAMES)
        assert {str(r.outcome) for r in reports} <= {"done", "loaded"}
    assert [r.data_version for r in walks[0]] == [r.data_version for r in walks[1]]
    added = Counter(survey.counts())
    added.subtract(before)
    n = int({r.step: r for r in walks[0]}["detections"].metrics["n_detections"])
    assert n > 0
    assert [added[t] for t in TABLES[:9]] == [2, 2, 1, 1, 1, 1, n, n, n]
    assert added["step_outcomes"] == len(STEP_NAMES)
    # On its difference, and on the reference it was made with.
    assert added["forced_fluxes"] == 2 * added["objects"]
    exposure = survey.rows(select(Exposure).where(Exposure.name == name))[0]
    named = survey.rows(select(Measurement.object_id).where(Measurement.mjd_mid == exposure.mjd_mid))
    assert added["objects"] == len({i for i in named if i is not None}) > 0
    assert {o.n_sightings for o in survey.rows(select(Object))} == {1}
    assert survey.outcomes(name, "0") == dict.fromkeys(STEP_NAMES, "loaded")


def test_two_processes_make_every_product_once(started):
    name = started.science[2]
    started.ingest(started.raw / f"{name}.fits")
    before = started.counts()
    walks = at_once(started, name)
    assert_walked_once(started, name, before, walks)
    assert_whole(started)


@pytest.fixture
def on_postgresql(started, postgresql_database):
    """The survey's raw files and catalog, with an empty database on PostgreSQL."""
    started.settings = started.changed(database_url=postgresql_database)
    upgrade(started.settings)
    with use_settings(started.settings):
        yield started


def test_a_section_goes_all_the_way_on_postgresql(on_postgresql):
    survey = on_postgresql
    calibration = [p for p in sorted(survey.raw.iterdir()) if not p.stem.endswith("_sci")]
    first, name = survey.science[0], survey.science[2]
    survey.ingest(*calibration, *(survey.raw / f"{n}.fits" for n in (first, name)))
    for key in chain.masters_wanted(survey.settings, "demo"):
        made = chain.build_master(survey.settings, "demo", key.kind, key.night, "0", key.filter)
        assert made.outcome == "done", made.message
    survey.walk(first, "0", STEP_NAMES[:5])
    ((region, band),) = chain.references_wanted(survey.settings, "demo")
    (reference,) = chain.build_reference(survey.settings, "demo", region, band)
    assert reference.outcome == "done", reference.message
    assert survey.walk(first, "0")["subtraction"].reason == "in_reference"
    before = survey.counts()
    walks = at_once(survey, name)
    assert_walked_once(survey, name, before, walks)
    assert 0 < len(chain.all_candidates(survey.settings)) <= survey.counts()["objects"]
    assert_whole(survey)
