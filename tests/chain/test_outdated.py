"""What the present settings would make differently: which exposures, from which step on, and why."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, insert, select

from seechange_core import chain
from seechange_core.chain import STEPS
from seechange_core.products import Exposure
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.provenance import record_provenance
from seechange_core.settings import use_settings
from seechange_core.storage.engine import get_engine, open_session
from seechange_core.storage.orm import new_id

NAMES = [step.name for step in STEPS]


def outdated(settings):
    return [(row.name, row.step) for row in chain.outdated_exposures(settings, "demo")]


def test_an_exposure_is_outdated_from_the_first_step_that_would_differ(own):
    own_settings, names = own.settings, own.science[2:]  # the first two are the reference's: no difference
    assert outdated(own_settings) == []
    newer = own.changed(detect={"threshold": 8.0})
    assert outdated(newer) == [(name, "detections") for name in names]
    earlier = own.changed(extract={"detection_sigma": 3.5})
    assert {step for _, step in outdated(earlier)} == {"source_list"}
    with use_settings(newer):
        own.outcomes(names[0], "0", settings=newer)
        assert (names[0], "detections") in outdated(newer)  # its other section
        own.outcomes(names[0], "1", settings=newer)
        assert names[0] not in dict(outdated(newer))
    # Both versions are there: under either settings nothing of it is outdated.
    assert names[0] not in dict(outdated(own_settings))


def test_going_back_to_old_settings_makes_the_old_version_the_newest_again(own):
    name, newer = own.science[2], own.changed(detect={"threshold": 8.0})

    def newest():
        query = select(StepOutcome.provenance_id).join(Exposure, Exposure.id == StepOutcome.exposure_id)
        query = query.where(
            Exposure.name == name, StepOutcome.section_id == "0", StepOutcome.step == "detections"
        )
        with open_session(own.settings, read_only=True) as session:
            return list(session.scalars(query.where(StepOutcome.is_newest)))

    versions = [chain.provenances(s, "demo")["detections"].id for s in (own.settings, newer)]
    assert newest() == versions[:1]
    with use_settings(newer):
        own.outcomes(name, "0", settings=newer)
    assert newest() == versions[1:]
    with use_settings(own.settings):
        own.outcomes(name, "0")
    assert newest() == versions[:1]


def test_versions_say_what_changed_since(own):
    name, newer = own.science[2], own.changed(detect={"threshold": 8.0})
    told = {row.step: row for row in chain.versions(newer, name, "demo")}
    assert told["detections"].changes == ("detect.threshold: 5.0 -> 8.0",)
    assert told["detections"].parameters["detect"]["threshold"] == 5.0
    assert told["detections"].sections == 2
    assert not told["detections"].is_present
    assert told["subtraction"].is_present
    assert told["subtraction"].changes == ()
    assert told["cutouts"].changes == ("another detections",)
    assert [row.step for row in chain.versions(newer, name, "demo")] == NAMES


def test_other_code_is_a_change_too(own, monkeypatch):
    process = chain.PROCESSES["cutouts"]
    ((block, kind, version),) = process.stages
    monkeypatch.setitem(chain.PROCESSES, "cutouts", replace(process, stages=((block, kind, "99"),)))
    (row,) = [v for v in chain.versions(own.settings, own.science[2], "demo") if v.step == "cutouts"]
    assert row.changes == (f"code: {version} -> 99",)


@pytest.fixture
def many(database):
    """Five hundred exposures of six sections: ten of old settings alone, and fifty made twice."""
    keys = chain.provenances(database, "demo")
    older = database.model_copy(update={"subtract": {"tile_pix": 200}})
    with open_session(database) as session:
        for settings in (database, older):
            for key in chain.provenances(settings, "demo").values():
                record_provenance(session, key)
    old = chain.provenances(older, "demo")
    rows, outcomes = [], []
    for n in range(500):
        row = {
            "id": new_id(), "name": f"e{n:04d}", "instrument": "demo", "type": "science",
            "night": "2026-01-01", "filename": f"{n}.fits", "checksum": f"{n}", "exp_time": 60.0,
            "header": {}, "mjd": 61000 + n / 1000, "mjd_mid": 61000 + n / 1000,
        }  # fmt: skip
        rows.append(row)
        for section in "012345":
            for step in NAMES:
                made = [old] if n < 10 else [old, keys] if n < 60 else [keys]
                outcomes += [
                    {
                        "id": new_id(), "exposure_id": row["id"], "section_id": section, "step": step,
                        "status": "done", "provenance_id": version, "is_newest": k == len(made) - 1,
                        "updated_at": datetime.now(UTC) + timedelta(seconds=k),
                    }
                    for k, version in enumerate(dict.fromkeys(key[step].id for key in made))
                ]  # fmt: skip
    # The same version twice is one row, and the newest.
    with get_engine(database).begin() as connection:
        connection.execute(insert(Exposure), rows)
        connection.execute(insert(StepOutcome), outcomes)
    return database


def test_of_many_the_outdated_are_found_by_keys_alone(many):
    found = outdated(many)
    assert found == [(f"e{n:04d}", "subtraction") for n in range(10)]
    if not many.database_url.startswith("sqlite"):
        return
    asked = []
    engine = get_engine(many)
    event.listen(engine, "before_cursor_execute", lambda *a: asked.append((a[2], a[3])))
    outdated(many)
    with engine.connect() as connection:
        for statement, parameters in [a for a in asked if "FROM exposures" in a[0]]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            steps = [row[3] for row in plan if "step_outcomes" in row[3]]
            assert steps
            assert all("SEARCH" in step and "exposure_id=?" in step for step in steps), steps
