"""What the outcome check says of a section, bad or good."""

import dagster as dg
import pytest

from seechange_assets.checks import evaluate
from seechange_core.chain import Outcome, StepReport
from seechange_core.flags import QualityFlag

KEY = dg.AssetKey(["demo", "source_list"])


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.LOADED])
def test_a_flagged_product_warns_and_says_why(outcome):
    report = StepReport("e1", "0", "source_list", outcome, message="1.7, at most 1.3", bitflag=4)
    found = evaluate(KEY, "e1|0", report, None)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description == "1.7, at most 1.3"
    assert found.metadata["quality"].value.startswith("stars are elongated all alike")


@pytest.mark.parametrize("bits", [0, int(QualityFlag.RELATIVE)])
def test_what_is_good_passes_and_so_does_what_is_good_in_its_own_field(bits):
    report = StepReport("e1", "0", "source_list", Outcome.DONE, bitflag=bits)
    found = evaluate(KEY, "e1|0", report, None)
    assert found.passed and ("quality" in found.metadata) == bool(bits)
