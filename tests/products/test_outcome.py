import pytest
from sqlalchemy.exc import IntegrityError

from seechange_core.products import StepOutcome
from seechange_core.products.outcome import record_outcome


def outcome(make, exposure_id, **changes) -> StepOutcome:
    values = {"section_id": "0", "step": "image", "status": "done", "provenance_id": make.provenance_id}
    return StepOutcome(exposure_id=exposure_id, **{**values, **changes})


def test_the_last_outcome_of_a_step_replaces_the_one_before(session, make):
    exposure = make.exposure()
    first = record_outcome(
        session, outcome(make, exposure, status="failed", reason="file_damaged", message="truncated")
    )
    was = (first.id, first.created_at, first.updated_at)
    last = record_outcome(session, outcome(make, exposure, metrics={"rms_mas": float("nan"), "n": 3}))
    assert (last.id, last.created_at) == was[:2]
    assert last.updated_at > was[2]
    assert (last.status, last.reason, last.message) == ("done", "", "")
    assert last.metrics == {"rms_mas": None, "n": 3}
    found = StepOutcome.find(session, exposure, "0", "image", make.provenance_id)
    assert found.id == was[0]
    assert StepOutcome.find(session, exposure, "1", "image", make.provenance_id) is None


def test_only_three_statuses(session, make):
    exposure = make.exposure()
    with pytest.raises(IntegrityError), session.begin_nested():
        record_outcome(session, outcome(make, exposure, status="skipped"))
