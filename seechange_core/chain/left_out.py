"""Which exposures cover a place, but have no flux in a light curve of it, and why."""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.light_curve_table import LightCurveTable
from seechange_core.chain.light_curves import Kind, present_provenances
from seechange_core.chain.steps import STEPS
from seechange_core.numerics.sky import separation
from seechange_core.products.base import KEYS_AT_ONCE, in_cone, overlapping
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.verdict import Verdict
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.engine import open_session

#: An exposure that points this near to one that covers a place, in radii of the section, covers it too.
_SAME_POINTING = 0.3

Key = tuple[uuid.UUID, str]
"""Exposure and section."""


class LeftOut(NamedTuple):
    """What has no flux for one reason: the reason in words, and the exposures (with their sections)."""

    reason: str
    epochs: tuple[str, ...]


def left_out(
    settings: Settings, ra: float, dec: float, curve: LightCurveTable, on: Kind = "difference"
) -> list[LeftOut]:
    """Tell which epochs have no flux in a light curve of a place, by reason, the most frequent first.

    Of what has no astrometric solution nobody knows what it covers: an exposure counts that points to where
    another one does whose section covers the place.

    Parameters
    ----------
    settings
        Whose.
    ra, dec
        ICRS deg.
    curve
        The light curve; epochs of it that have no flux count as left out.
    on
        What it is of.
    """
    there = {
        (name, section)
        for name, section, flux in zip(curve.exposure, curve.section, curve.flux, strict=True)
        if np.isfinite(flux)
    }
    in_table = set(zip(curve.exposure.tolist(), curve.section.tolist(), strict=True))
    with use_settings(settings), open_session(settings, read_only=True) as session:
        keys, names = _covering(session, ra, dec)
        missing = [key for key in keys if (names[key[0]], key[1]) not in there]
        known = [key for key in missing if (names[key[0]], key[1]) not in in_table]
        why = _reasons(session, settings, known, on)
    why |= dict.fromkeys(set(missing) - set(known), "no usable pixel there")
    found: dict[str, list[str]] = defaultdict(list)
    for key in sorted(missing, key=lambda key: (names[key[0]], key[1])):
        found[why[key]].append(f"{names[key[0]]} {key[1]}")
    return sorted((LeftOut(r, tuple(e)) for r, e in found.items()), key=lambda o: (-len(o.epochs), o.reason))


def _covering(session: Session, ra: float, dec: float) -> tuple[set[Key], dict[uuid.UUID, str]]:
    """Return the sections of exposures that cover a place, and the exposures' names."""
    solved = {row.image_id: row for row in overlapping(session, select(WorldCoordinates), [[ra, dec]])}
    sections: dict[Key, float] = {}
    for image in _images(session, list(solved)):
        if image.exposure_id is not None:
            sections[image.exposure_id, image.section_id] = solved[image.id].radius_deg or 0.0
    sure = _exposures(session, sorted({exposure_id for exposure_id, _ in sections}))
    found, names = set(sections), {row.id: row.name for row in sure}
    pointing = {row.id: (row.ra, row.dec) for row in sure if row.ra is not None and row.dec is not None}
    if not pointing:
        return found, names
    away_deg = float(np.max(separation(ra, dec, *np.array(list(pointing.values())).T)))
    reach_deg = away_deg + _SAME_POINTING * max(sections.values())
    around = select(Exposure).where(Exposure.type == "science", in_cone(Exposure.healpix, ra, dec, reach_deg))
    others = [row for row in session.scalars(around) if row.ra is not None and row.dec is not None]
    solved_ones = _solved(session, [row.id for row in others])
    places = np.array([(row.ra, row.dec) for row in others], float).reshape(-1, 2)
    instrument = {row.id: row.instrument for row in sure}
    for (exposure_id, section), radius in sections.items():
        if exposure_id not in pointing:
            continue
        near = separation(*pointing[exposure_id], *places.T) <= _SAME_POINTING * radius
        for row in (others[k] for k in np.flatnonzero(near).tolist()):
            if row.instrument == instrument[exposure_id] and section not in solved_ones.get(row.id, ()):
                found.add((row.id, section))
                names[row.id] = row.name
    return found, names


def _exposures(session: Session, ids: Sequence[uuid.UUID]) -> list[Exposure]:
    rows: list[Exposure] = []
    for i in range(0, len(ids), KEYS_AT_ONCE):
        rows += session.scalars(select(Exposure).where(Exposure.id.in_(ids[i : i + KEYS_AT_ONCE])))
    return rows


def _images(session: Session, ids: Sequence[uuid.UUID]) -> list[Image]:
    rows: list[Image] = []
    for i in range(0, len(ids), KEYS_AT_ONCE):
        rows += session.scalars(select(Image).where(Image.id.in_(ids[i : i + KEYS_AT_ONCE])))
    return rows


def _solved(session: Session, exposures: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, set[str]]:
    """Return the sections of exposures that are solved: what these cover is known."""
    found: dict[uuid.UUID, set[str]] = defaultdict(set)
    query = select(Image.exposure_id, Image.section_id).join(
        WorldCoordinates, WorldCoordinates.image_id == Image.id
    )
    for i in range(0, len(exposures), KEYS_AT_ONCE):
        some = query.where(Image.exposure_id.in_(exposures[i : i + KEYS_AT_ONCE]))
        for exposure_id, section in session.execute(some):
            if exposure_id is not None:
                found[exposure_id].add(section)
    return found


def _reasons(session: Session, settings: Settings, keys: Sequence[Key], on: Kind) -> dict[Key, str]:
    """Say of sections why they have no flux."""
    order = [step.name for step in STEPS]
    last = order.index("zero_point" if on == "image" else "forced_photometry")
    ids = sorted({exposure_id for exposure_id, _ in keys})
    present = {p for name in order for p in present_provenances(session, settings, name)}
    ended: dict[Key, dict[str, StepOutcome]] = defaultdict(dict)
    bad: set[tuple[uuid.UUID | None, str]] = set()
    for i in range(0, len(ids), KEYS_AT_ONCE):
        some = ids[i : i + KEYS_AT_ONCE]
        for row in session.scalars(select(StepOutcome).where(StepOutcome.exposure_id.in_(some))):
            if row.provenance_id in present:
                ended[row.exposure_id, row.section_id][row.step] = row
        said = select(Verdict.exposure_id, Verdict.section_id).where(
            Verdict.exposure_id.in_(some), Verdict.word == "bad", Verdict.counts.is_(True)
        )
        bad |= {(exposure_id, section) for exposure_id, section in session.execute(said)}
    return {
        key: "called bad"
        if not bad.isdisjoint({key, (key[0], "")})
        else _ended(ended[key], order[: last + 1])
        for key in keys
    }


def _ended(outcomes: Mapping[str, StepOutcome], order: Sequence[str]) -> str:
    """Say where a section's way ended."""
    for name in order:
        row = outcomes.get(name)
        if row is None:
            return f"not processed to {order[-1]}" if outcomes else "not processed"
        if row.status != "done":
            return f"{row.status} at {name}{f' ({row.reason})' if row.reason else ''}"
    return "not measured there yet"
