"""A core that needs no pixels: each section's fate is written in a file that tests edit."""

import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import nan
from types import SimpleNamespace

from seechange_assets import definitions, run
from seechange_core import chain
from seechange_core.chain import LEFT_TO_LEAVE_OUT
from seechange_core.chain.outcome import Outcome, StepReport
from seechange_core.chain.wanted import MasterKey, WantedMaster
from seechange_core.errors import NotFoundError
from seechange_core.provenance import ProvenanceKey
from seechange_core.settings import load_settings

FAKED = (
    *("STEPS", "walk", "provenances", "look_for_masters", "build_master", "reference_reports"),
    *("exposures", "references_wanted", "master_keys", "nights_serving", "standing_verdicts"),
)
PNG = bytes.fromhex("89504e470d0a1a0a")


@dataclass(frozen=True)
class Step:
    name: str
    needs: tuple[str, ...] = ()
    description: str = "a step"
    params: None = None
    external: tuple[str, ...] = ()


STEPS = (
    Step("exposure"),
    Step("image", ("exposure",), external=("bias", "dark", "flat", "twilight_flat")),
    Step("source_list", ("image",)),
    Step("world_coordinates", ("source_list",)),
    Step("zero_point", ("source_list", "world_coordinates")),
    Step("subtraction", ("image", "zero_point"), external=("reference",)),
    Step("detections", ("subtraction",)),
    Step("cutouts", ("image", "subtraction", "detections"), external=("reference",)),
    Step("measurement", ("cutouts", "zero_point")),
    Step("forced_photometry", ("image", "subtraction", "measurement")),
)


def plan(settings):
    path = settings.data_root / "fates.json"
    return json.loads(path.read_text()) if path.exists() else {}


def walk(settings, exposure, section, steps=None, redo=False):
    """Make 'products' (files), or meet the fate planned for ``exposure|section``."""
    fate, where = plan(settings).get(f"{exposure}|{section}", ("", ""))
    reports, ended = [], False
    for name in steps or [step.name for step in STEPS]:
        made = settings.data_root / f"{exposure}_{section}_{name}"
        if ended:
            reports.append(StepReport(exposure, section, name, Outcome.SKIPPED))
            continue
        if name == where:
            ended = True
            if fate == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if fate == "bug":
                raise ZeroDivisionError("division by zero")
            outcome = Outcome(fate)
            reports.append(
                StepReport(exposure, section, name, outcome, f"{fate}_here", f"{exposure}: {fate} (a cure)")
            )
            continue
        outcome = Outcome.LOADED if made.exists() and not redo else Outcome.DONE
        made.touch()
        reports.append(
            StepReport(
                exposure,
                section,
                name,
                outcome,
                seconds=0.1,
                code_version=f"code-{name}",
                data_version=f"{name}-{exposure}-{section}",
                metrics={"fwhm_pix": 2.5, "nothing": float("nan")},
                preview=PNG,
                product_id="1",
                path=made.name,
            )
        )
    return reports


@dataclass(frozen=True)
class Key(ProvenanceKey):
    @property
    def id(self):
        return f"code-{self.process}"


def provenances(settings, instrument):
    names = [step.name for step in STEPS] + ["bias", "dark", "flat", "twilight_flat", "reference"]
    return {name: Key(name, "1", {"stage": {"threshold": 5.0}}) for name in names}


#: When the frames were registered.
CAME = datetime(2025, 1, 2, tzinfo=UTC)


def look_for_masters(settings, instrument, nights=None, sections=None, registered_since=None):
    if registered_since is not None and registered_since > CAME:
        return []
    keys = [MasterKey(kind, "2025-01-01", None) for kind in ("bias", "dark")]
    keys += [MasterKey(kind, "2025-01-01", "r") for kind in ("flat", "twilight_flat")]
    wanted = [key for key in keys if not (settings.data_root / f"master_{key.kind}").exists()]
    return [WantedMaster(key, f"of-{key.kind}", CAME, frozenset()) for key in wanted]


def master_keys(settings, instrument):
    return [master.key for master in look_for_masters(settings, instrument)]


def nights_serving(settings, instrument, names):
    return ["2025-01-01"]


def build_master(settings, instrument, kind, night, section, band=None, redo=False):
    fate, message = plan(settings).get(f"{kind}|{section}", ("done", ""))
    if fate == "done":
        (settings.data_root / f"master_{kind}").touch()
    return StepReport(
        night,
        section,
        kind,
        Outcome(fate),
        message=message,
        code_version=f"code-{kind}",
        data_version=f"{kind}-{section}",
        table=(
            {"frame": "f1", "level_e": 12.0, "noise_ratio": [1.0, 1.1], "verdict": "used"},
            {"frame": "f2", "level_e": nan, "noise_ratio": [nan, 1.1], "verdict": message or "used"},
        ),
    )


def reference_reports(
    settings, instrument, region, band, leave_one_out=False, redo=False, nights=None, without=(), use=False
):
    taken = {"frame": "e1/0", "fwhm_arcsec": 1.0, "verdict": "used"}
    left_out = [
        {"frame": f"e{n}", "verdict": f"seeing 1.{n} arcsec, at most 1.10 allowed"} for n in range(2, 8)
    ]
    made = StepReport(
        region, band, "reference", Outcome.DONE, code_version="code-reference", data_version=region,
        table=(taken, *left_out),
    )  # fmt: skip
    yield replace(made, metrics={LEFT_TO_LEAVE_OUT: 1}) if leave_one_out else made
    if leave_one_out:
        fate = Outcome(plan(settings).get("leave_one_out", ["done"])[0])
        yield StepReport(region, band, "reference", fate, str(fate), "left one out")


@dataclass(frozen=True)
class Exposure:
    name: str
    instrument: str = "demo"
    night: str = "2025-01-01"
    type: str = "science"


def standing_verdicts(settings):
    return []


def exposures(settings, names=None, *, with_bad=False):
    known = ["e1", "e2"]
    for name in names or ():
        if name not in known:
            raise NotFoundError("not in the database", exposure=name, cure="ingest its raw file first")
    return [Exposure(name) for name in names or known]


def references_wanted(settings, instrument, exposures=None):
    return [("r1", "r"), ("r2", "r"), ("r2", "g")]


def make_plan(settings, fates):
    (settings.data_root / "fates.json").write_text(json.dumps(fates))


def put_in_place(put):
    """Let this be the core; ``put(object, name, value)`` sets an attribute."""
    for name in FAKED:
        put(chain, name, globals()[name])
    put(run, "is_cold", lambda: False)
    camera = SimpleNamespace(get_section_ids=lambda: [0, 1, 2, 3])
    put(definitions, "get_instrument_instance", lambda name: camera)


if __name__ == "__main__":
    # A process of its own on this core: python fake_core.py EXPOSURE. Workers find it by this name.
    import fake_core

    fake_core.put_in_place(setattr)
    with run.Runner(load_settings(), jobs=1) as runner:
        runner.process("demo", sys.argv[1:])
