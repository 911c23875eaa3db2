"""A corrupt section, a dead CCD and a field without reference, side by side through Dagster."""

import dagster as dg
from small_survey import THROUGH_ZERO_POINT, assert_whole

from seechange_assets.chain import asset_key
from seechange_assets.run import Runner
from seechange_core import chain


def made(runner, step):
    """Return the sections that Dagster shows as materialized, of the exposures of this test."""
    keys = runner.instance.get_materialized_partitions(asset_key("demo", step))
    return {tuple(key.split("|")) for key in keys if "_07" in key}


def test_each_ends_as_it_should_and_what_can_go_on_goes_on(started):
    """Two exposures: section 1 is dead in one and corrupt in the other; then there is a reference again."""

    def no_light(units):
        units["SEC01"].data = started.bias_pixels(1)

    dead = started.variant("demo_20260222_070000_sci", no_light, 30)
    corrupt = started.variant("demo_20260222_071000_sci", lambda units: None, 40)
    started.ingest(dead, corrupt)
    content = corrupt.read_bytes()
    corrupt.write_bytes(content[: int(0.9 * len(content))])
    started.mark_references(bad=True)
    names = [dead.stem, corrupt.stem]
    with Runner(started.settings, jobs=1) as runner:
        reports = runner.process("demo", names)
        ends = {
            (r.exposure, r.section): r
            for r in reports
            if not r.outcome.has_product and r.outcome != "skipped"
        }
        assert {where: (r.step, str(r.outcome), r.reason) for where, r in ends.items()} == {
            (dead.stem, "0"): ("subtraction", "stopped", "no_reference"),
            (dead.stem, "1"): ("source_list", "stopped", "dead_section"),
            (corrupt.stem, "0"): ("subtraction", "stopped", "no_reference"),
            (corrupt.stem, "1"): ("exposure", "failed", "file_damaged"),
        }
        for (exposure, section), report in ends.items():
            assert f"exposure {exposure}, section {section}" in report.message
            assert report.message.endswith(")") and "\n" not in report.message
        runs = {run.tags["seechange/exposure"]: run.status for run in runner.instance.get_runs(limit=2)}
        assert runs == {dead.stem: dg.DagsterRunStatus.SUCCESS, corrupt.stem: dg.DagsterRunStatus.FAILURE}
        assert made(runner, "exposure") == {(dead.stem, "0"), (dead.stem, "1"), (corrupt.stem, "0")}
        assert made(runner, "zero_point") == {(dead.stem, "0"), (corrupt.stem, "0")}
        assert made(runner, "subtraction") == set()
        assert_whole(started)

        corrupt.write_bytes(content)
        started.mark_references(bad=False)
        again = {(r.exposure, r.section, r.step): str(r.outcome) for r in runner.process("demo", names)}
    for step in (s.name for s in chain.STEPS):
        loaded = "loaded" if step in THROUGH_ZERO_POINT else "done"
        assert again[dead.stem, "0", step] == again[corrupt.stem, "0", step] == loaded
        assert again[corrupt.stem, "1", step] == "done"
    assert again[dead.stem, "1", "source_list"] == "stopped"
    told = {(r.exposure, r.section, r.status) for r in chain.status(started.settings, names)}
    assert {t for t in told if t[2] != "done"} == {(dead.stem, "1", "stopped")}
    assert_whole(started)
