"""Which exposures the present settings would make differently, and what changed since products were made."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session, aliased

from seechange_core.chain.choice import not_marked_bad
from seechange_core.chain.lineage import PROCESSES, provenances
from seechange_core.chain.steps import STEPS
from seechange_core.products.exposure import Exposure
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.provenance import Provenance, provenance_upstreams
from seechange_core.provenance import ProvenanceKey
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.engine import open_session


class OutdatedExposure(NamedTuple):
    """A science exposure that the present settings would make differently, from this step on."""

    name: str
    night: str
    step: str


@dataclass(frozen=True)
class Version:
    """One version of one step of an exposure.

    Attributes
    ----------
    step, provenance
        Name; id of the version.
    sections
        How many sections of the exposure it was made for.
    is_present
        Whether the present settings make this one.
    changes
        What is different in the present settings: `extract.detection_sigma: 3.0 -> 2.5`, `code: 4 -> 5`, or
        which of the products that it builds on are others.
    parameters, code_version
        What it was made with.
    """

    step: str
    provenance: str
    sections: int
    is_present: bool
    changes: tuple[str, ...]
    parameters: dict[str, Any]
    code_version: str


def outdated_exposures(settings: Settings, instrument: str) -> list[OutdatedExposure]:
    """Return the exposures of which some section's product is of other settings, the earliest first.

    Those marked bad are left out. The question goes by version and exposure, not by product: it takes a
    fraction of a second for 100,000 exposures.
    """
    present = {name: key.id for name, key in provenances(settings, instrument).items()}
    found: dict[uuid.UUID, tuple[float, OutdatedExposure]] = {}
    with use_settings(settings), open_session(settings, read_only=True) as session:
        old = _old_versions(session, present)
        for step in STEPS:
            if not old.get(step.name):
                continue
            query = select(Exposure.id, Exposure.mjd, Exposure.name, Exposure.night).where(
                Exposure.instrument == instrument,
                Exposure.type == "science",
                not_marked_bad(),
                _is_left_behind(old[step.name], present[step.name]),
            )
            for key, mjd, name, night in session.execute(query):
                found.setdefault(key, (mjd, OutdatedExposure(name, night, step.name)))
    return [row for _, row in sorted(found.values())]


def versions(settings: Settings, exposure: str, instrument: str) -> list[Version]:
    """Return the versions of each step of an exposure, and what is different in the present settings."""
    present = provenances(settings, instrument)
    made_by = StepOutcome.provenance_id
    query = (
        select(StepOutcome.step, made_by, func.count())
        .join(Exposure, Exposure.id == StepOutcome.exposure_id)
        .where(Exposure.name == exposure)
        .group_by(StepOutcome.step, made_by)
        .order_by(func.min(StepOutcome.created_at))
    )
    with use_settings(settings), open_session(settings, read_only=True) as session:
        rows = [
            (step, session.get_one(Provenance, version), n, _upstreams(session, version))
            for step, version, n in session.execute(query).all()
        ]
    order = {step.name: n for n, step in enumerate(STEPS)}
    rows.sort(key=lambda row: order.get(row[0], len(order)))
    return [
        Version(
            step, made.id, n, made.id == present[step].id,
            _changes(made, before, present[step], present), made.parameters, made.code_version,
        )
        for step, made, n, before in rows
    ]  # fmt: skip


def _old_versions(session: Session, present: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the versions of each step, other than the present one, that are the newest of some section."""
    is_used = exists().where(StepOutcome.provenance_id == Provenance.id, StepOutcome.is_newest)
    query = select(Provenance.process, Provenance.id).where(
        Provenance.process.in_([step.name for step in STEPS]),
        Provenance.id.not_in(list(present.values())),
        is_used,
    )
    found: dict[str, list[str]] = {}
    for process, version in session.execute(query):
        found.setdefault(process, []).append(version)
    return found


def _is_left_behind(old: list[str], present: str) -> ColumnElement[bool]:
    """Make the condition that an exposure has a section whose newest version is old, and no present one."""
    row, other = aliased(StepOutcome), aliased(StepOutcome)
    made = exists().where(
        other.exposure_id == row.exposure_id,
        other.section_id == row.section_id,
        other.step == row.step,
        other.provenance_id == present,
    )
    return exists().where(row.exposure_id == Exposure.id, row.provenance_id.in_(old), row.is_newest, ~made)


def _upstreams(session: Session, version: str) -> dict[str, str]:
    """Return the processes that a version builds on directly, with their versions."""
    columns = provenance_upstreams.c
    query = (
        select(Provenance.process, Provenance.id)
        .join(provenance_upstreams, columns.upstream_id == Provenance.id)
        .where(columns.provenance_id == version)
    )
    return {row.process: row.id for row in session.execute(query)}


def _changes(
    made: Provenance, before: Mapping[str, str], now: ProvenanceKey, present: Mapping[str, ProvenanceKey]
) -> tuple[str, ...]:
    if made.id == now.id:
        return ()
    words = [f"code: {made.code_version} -> {now.code_version}"] * (made.code_version != now.code_version)
    words += _differences(made.parameters, now.parameters)
    others = [name for name in PROCESSES[now.process].upstreams if before.get(name) != present[name].id]
    return (*words, *([f"another {', '.join(others)}"] if others else []))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    """Say which values of nested parameters differ, each by its path."""
    words: list[str] = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name, "not there"), now.get(name, "not there")
        if isinstance(old, dict) and isinstance(new, dict):
            words += _differences(old, new, f"{path}{name}.")
        elif old != new:
            words.append(f"{path}{name}: {old} -> {new}")
    return words
