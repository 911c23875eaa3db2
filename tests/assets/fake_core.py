"""A core that needs no pixels: each section's fate is written in a file that tests edit."""

import json
import os
import signal
from dataclasses import dataclass

from seechange_core.chain.outcome import Outcome, StepReport
from seechange_core.errors import NotFoundError
from seechange_core.provenance import ProvenanceKey

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
    Step("image", ("exposure",), external=("bias", "dark", "flat")),
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
    names = [step.name for step in STEPS] + ["bias", "dark", "flat", "reference"]
    return {name: Key(name, "1", {"stage": {"threshold": 5.0}}) for name in names}


def masters_wanted(settings, instrument, nights=None, redo=False):
    wanted = [("flat", "2025-01-01", "r"), ("bias", "2025-01-01", None), ("dark", "2025-01-01", None)]
    return [w for w in wanted if redo or not (settings.data_root / f"master_{w[0]}").exists()]


def build_master(settings, instrument, kind, night, section, band=None, redo=False):
    (settings.data_root / f"master_{kind}").touch()
    return StepReport(
        night, section, kind, Outcome.DONE, code_version=f"code-{kind}", data_version=f"{kind}-{section}"
    )


def build_reference(settings, instrument, region, band, leave_one_out=False, redo=False, nights=None):
    made = StepReport(
        region, band, "reference", Outcome.DONE, code_version="code-reference", data_version=region
    )
    if not leave_one_out:
        return [made]
    fate = Outcome(plan(settings).get("leave_one_out", ["done"])[0])
    return [made, StepReport(region, band, "reference", fate, str(fate), "left one out")]


@dataclass(frozen=True)
class Exposure:
    name: str
    instrument: str = "demo"
    night: str = "2025-01-01"
    type: str = "science"


def exposures(settings, names=None):
    known = ["e1", "e2"]
    for name in names or ():
        if name not in known:
            raise NotFoundError("not in the database", exposure=name, cure="ingest its raw file first")
    return [Exposure(name) for name in names or known]


def references_wanted(settings, instrument):
    return [("r1", "r"), ("r2", "r"), ("r2", "g")]


def make_plan(settings, fates):
    (settings.data_root / "fates.json").write_text(json.dumps(fates))
