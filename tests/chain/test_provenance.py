"""Provenance: every parameter of every stage changes the hash, or is marked as not changing results."""

import pytest

from seechange_core.chain import PROCESSES, STEPS, provenances
from seechange_core.errors import SettingsError
from seechange_core.params import Params, changes_results
from seechange_core.settings import STAGES, load_settings

DEFAULTS = load_settings(environ={"SEECHANGE_PATH__DATA_ROOT": "/nowhere"})
PARAMETERS = sorted(
    {
        (stage, kind, name)
        for process in PROCESSES.values()
        for stage, kind, _ in process.stages
        for name in kind.model_fields
    },
    key=lambda p: (p[0], p[2]),
)


def other_value(kind: type[Params], name: str):
    """Return a possible value of a parameter that is not its default."""
    default = getattr(kind(), name)
    choices = getattr(kind.model_fields[name].annotation, "__args__", ())
    candidates = [not default] if isinstance(default, bool) else []
    if isinstance(default, int | float) and not isinstance(default, bool):
        candidates += [default + 1, default - 1, default * 0.99, default * 1.01, default + 2, default - 2]
    candidates += [c for c in choices if isinstance(c, str)]
    candidates += [1.5, 1, 0.5, "r", "g-r", "other", "other%a", (0.5,), {"r": 26.0}]
    candidates += [default[1:], ("r",)] if isinstance(default, tuple) else []
    for value in candidates:
        try:
            if getattr(kind(**{name: value}), name) != default:
                return value
        except ValueError:
            continue
    raise AssertionError(f"no other value found for {kind.__name__}.{name}")


def changed(stage: str, kind: type[Params], name: str):
    return DEFAULTS.model_copy(update={stage: {name: other_value(kind, name)}})


def downstream(names: set[str]) -> set[str]:
    """Return processes and all that build on them."""
    found = set(names)
    for name, process in PROCESSES.items():
        if found.intersection(process.upstreams):
            found.add(name)
    return found


@pytest.mark.parametrize(("stage", "kind", "name"), PARAMETERS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_parameter_changes_what_it_can_change_and_nothing_else(stage, kind, name):
    before = provenances(DEFAULTS, "demo")
    after = provenances(changed(stage, kind, name), "demo")
    differing = {process for process in PROCESSES if before[process].id != after[process].id}
    users = {process for process, of in PROCESSES.items() if (stage, kind) in [s[:2] for s in of.stages]}
    assert differing == (downstream(users) if changes_results(kind, name) else set())


@pytest.mark.parametrize("process", [name for name, of in PROCESSES.items() if of.stages])
def test_new_code_makes_a_new_provenance(process, monkeypatch):
    before = provenances(DEFAULTS, "demo")
    of = PROCESSES[process]
    newer = type(of)(tuple((s, kind, version + "0") for s, kind, version in of.stages), of.upstreams)
    monkeypatch.setitem(PROCESSES, process, newer)
    after = provenances(DEFAULTS, "demo")
    assert {n for n in PROCESSES if before[n].id != after[n].id} == downstream({process})


def test_every_step_and_every_block_of_the_settings_has_its_process():
    assert {step.name for step in STEPS} <= set(PROCESSES)
    assert {stage for stage, _, _ in PARAMETERS} == set(STAGES)


def test_needs_of_steps_are_upstreams_of_their_processes():
    for step in STEPS:
        reached, wanted = set(), [step.name]
        while wanted:
            wanted += PROCESSES[name := wanted.pop()].upstreams
            reached.add(name)
        assert {*step.needs, *step.external} <= reached


def test_a_mirror_of_a_catalog_is_the_same_catalog():
    def hashed(**settings):
        return provenances(DEFAULTS.model_copy(update=settings), "demo")["world_coordinates"].id

    assert (
        hashed(catalog_fetch="gaia_dr3") == hashed(catalog_fetch="gaia_dr3_ari") == hashed(catalog="gaia_dr3")
    )
    assert len({hashed(), hashed(catalog_fetch="gaia_dr3"), hashed(catalog_fetch="ps1")}) == 3
    assert hashed(catalog="own", catalog_fetch="ps1") == hashed(catalog="own")


def test_an_instruments_own_parameter_concerns_it_alone():
    own = {"ptf": {}, "demo": {"parameters": {"detect": {"threshold": 6.5}}}}
    settings = DEFAULTS.model_copy(update={"instruments": own})
    plain = DEFAULTS.model_copy(update={"instruments": {"ptf": {}, "demo": {}}})
    for name in ("ptf", "demo"):
        same = provenances(settings, name)["detections"].id == provenances(plain, name)["detections"].id
        assert same == (name == "ptf")


def test_instruments_and_their_options_have_their_own_provenances():
    bigger = DEFAULTS.model_copy(update={"instruments": {"demo": {"sections": 9}}})
    ids = {
        provenances(settings, name)["exposure"].id
        for settings in (DEFAULTS, bigger)
        for name in ("demo", "generic")
    }
    assert len(ids) == 3


def test_a_wrong_parameter_is_named_with_its_path():
    wrong = DEFAULTS.model_copy(update={"extract": {"treshold": 3}})
    with pytest.raises(SettingsError, match=r"extract\.treshold"):
        provenances(wrong, "demo")
