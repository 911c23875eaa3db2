"""Which exposures cover a place, but have no flux in a light curve of it, and why."""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from sqlalchemy import func, select
from sqlalchemy.orm import Session, load_only

from seechange_core.chain.light_curve_table import LightCurveTable
from seechange_core.chain.light_curves import Kind, present_provenances
from seechange_core.chain.steps import STEPS
from seechange_core.frames import Float
from seechange_core.numerics.sky import polygons_contain, separation, unit_vectors
from seechange_core.products.base import Corners, chunks, in_cone, rows_in_cone, unindexed
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image
from seechange_core.products.outcome import StepOutcome, made_by
from seechange_core.products.verdict import Verdict
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.engine import open_session

#: Sections whose present astrometric solution is one that counts: no newer one has replaced it.
_CURRENT = (
    select(Image.exposure_id, Image.section_id)
    .join(WorldCoordinates, WorldCoordinates.image_id == Image.id)
    .join(StepOutcome, made_by(Image, WorldCoordinates, "world_coordinates"))
)
_TOLD = (Exposure.id, Exposure.name, Exposure.instrument, Exposure.ra, Exposure.dec)

Key = tuple[uuid.UUID, str]
"""Exposure and section."""


class _Exposure(NamedTuple):
    """What is asked of exposures: thousands of whole rows would take seconds."""

    id: uuid.UUID
    name: str
    instrument: str
    ra: float | None
    dec: float | None


class _Ended(NamedTuple):
    """How a step ended, and why."""

    status: str
    reason: str | None


class LeftOut(NamedTuple):
    """What has no flux for one reason: the reason in words, and the exposures (with their sections)."""

    reason: str
    epochs: tuple[str, ...]


def left_out(
    settings: Settings, ra: float, dec: float, curve: LightCurveTable, on: Kind = "difference"
) -> list[LeftOut]:
    """Tell which epochs have no flux in a light curve of a place, by reason, the most frequent first.

    Of what has no astrometric solution nobody knows what it covers: a section is taken to lie where that of
    the exposure with the nearest pointing lies, moved by what the pointings differ by, if that one covers the
    place.

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
    sure, reach_deg = _solved_there(session, ra, dec)
    exposures = _exposures(session, {exposure_id for exposure_id, _ in sure})
    found, names = set(sure), {key: row.name for key, row in exposures.items()}
    by_section: dict[tuple[str, str], list[Key]] = defaultdict(list)
    for exposure_id, section in sure:
        if exposures[exposure_id].ra is not None and exposures[exposure_id].dec is not None:
            by_section[exposures[exposure_id].instrument, section].append((exposure_id, section))
    if not by_section:
        return found, names
    pointed = np.array(
        [(row.ra, row.dec) for row in (exposures[key[0]] for of in by_section.values() for key in of)], float
    )
    away_deg = float(np.max(separation(ra, dec, *pointed.T)))
    around = select(*_TOLD).where(
        Exposure.type == "science",
        in_cone(Exposure.healpix, ra, dec, min(180.0, away_deg + reach_deg)),
        Exposure.ra.is_not(None), Exposure.dec.is_not(None),
    )  # fmt: skip
    others = [_Exposure(*row) for row in session.execute(around)]
    solved = _solved(session, [row.id for row in others], {section for _, section in by_section})
    for (instrument, section), keys in by_section.items():
        known = solved[section]
        rest = [row for row in others if row.instrument == instrument and row.id not in known]
        if not rest:
            continue
        at, places = _vectors([exposures[key[0]] for key in keys]), _vectors(rest)
        nearest = cKDTree(at).query(places)[1]
        corners = unit_vectors(*np.moveaxis(np.array([sure[key] for key in keys], float), -1, 0))
        # The same place on the camera, where the nearest solved exposure of that section points.
        place = _carried(unit_vectors(ra, dec), places, at[nearest])
        for k in np.flatnonzero(polygons_contain(corners[nearest], place)).tolist():
            found.add((rest[k].id, section))
            names[rest[k].id] = rest[k].name
    return found, names


def _solved_there(session: Session, ra: float, dec: float) -> tuple[dict[Key, Corners], float]:
    """Return the corners of solved sections that cover a place, and the diameter of the largest, deg."""
    largest = session.scalar(select(func.max(WorldCoordinates.radius_deg))) or 0.0
    near = select(WorldCoordinates).options(
        load_only(WorldCoordinates.image_id, WorldCoordinates.corners, WorldCoordinates.data_version)
    )
    rows = [row for row in rows_in_cone(session, near, ra, dec, min(180.0, largest)) if row.corners]
    if not rows:
        return {}, 0.0
    corners = unit_vectors(*np.moveaxis(np.array([row.corners for row in rows], float), -1, 0))
    kept = np.flatnonzero(polygons_contain(corners, unit_vectors(ra, dec)))
    covering = {rows[k].id: rows[k].corners or [] for k in kept.tolist()}
    found: dict[Key, Corners] = {}
    query = _CURRENT.add_columns(WorldCoordinates.id)
    for some in chunks(sorted(covering)):
        for exposure_id, section, key in session.execute(query.where(WorldCoordinates.id.in_(some))):
            if exposure_id is not None:
                found[exposure_id, section] = covering[key]
    return found, 2 * largest


def _solved(
    session: Session, exposures: Sequence[uuid.UUID], sections: set[str]
) -> Mapping[str, set[uuid.UUID]]:
    """Return of which exposures sections are solved, by section: what these cover is known."""
    found: dict[str, set[uuid.UUID]] = defaultdict(set)
    for some in chunks(exposures):
        here = _CURRENT.where(Image.exposure_id.in_(some), Image.section_id.in_(sections))
        for exposure_id, section in session.execute(here):
            if exposure_id is not None:
                found[section].add(exposure_id)
    return found


def _exposures(session: Session, ids: set[uuid.UUID]) -> dict[uuid.UUID, _Exposure]:
    rows = (
        row
        for some in chunks(sorted(ids))
        for row in session.execute(select(*_TOLD).where(Exposure.id.in_(some)))
    )
    return {row[0]: _Exposure(*row) for row in rows}


def _vectors(exposures: Sequence[_Exposure]) -> Float:
    """Return where exposures point, (n, 3) unit vectors."""
    return unit_vectors(*np.array([(row.ra, row.dec) for row in exposures], float).reshape(-1, 2).T)


def _carried(place: Float, pointing: Float, other: Float) -> Float:
    """Return where a place lies as seen from other pointings as it does from some, all (n, 3), north up."""
    parts = np.einsum("nij,j->ni", _axes(pointing), place)
    return np.asarray(np.einsum("nij,ni->nj", _axes(other), parts), float)


def _axes(pointing: Float) -> Float:
    """Return the directions east, north and forward at (n, 3) unit vectors, (n, 3, 3)."""
    lon = np.arctan2(pointing[:, 1], pointing[:, 0])
    east = np.stack([-np.sin(lon), np.cos(lon), np.zeros(len(lon))], axis=-1)
    return np.stack([east, np.cross(pointing, east), pointing], axis=1)


def _reasons(session: Session, settings: Settings, keys: Sequence[Key], on: Kind) -> dict[Key, str]:
    """Say of sections why they have no flux."""
    order = [step.name for step in STEPS]
    last = order.index("zero_point" if on == "image" else "forced_photometry")
    ids = sorted({exposure_id for exposure_id, _ in keys})
    present = {p for name in order for p in present_provenances(session, settings, name)}
    sections = sorted({section for _, section in keys})
    ended: dict[Key, dict[str, _Ended]] = defaultdict(dict)
    columns = (
        *(StepOutcome.exposure_id, StepOutcome.section_id, StepOutcome.provenance_id),
        *(StepOutcome.step, StepOutcome.status, StepOutcome.reason),
    )
    bad: set[tuple[uuid.UUID | None, str]] = set()
    for some in chunks(ids):
        query = select(*columns).where(
            StepOutcome.exposure_id.in_(some), unindexed(StepOutcome.section_id).in_(sections)
        )
        for exposure_id, section, provenance_id, step, status, reason in session.execute(query):
            if provenance_id in present:
                ended[exposure_id, section][step] = _Ended(status, reason)
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


def _ended(outcomes: Mapping[str, _Ended], order: Sequence[str]) -> str:
    """Say where a section's way ended."""
    for name in order:
        row = outcomes.get(name)
        if row is None:
            return f"not processed to {order[-1]}" if outcomes else "not processed"
        if row.status != "done":
            return f"{row.status} at {name}{f' ({row.reason})' if row.reason else ''}"
    return "not measured there yet"
