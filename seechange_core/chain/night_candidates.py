"""The candidates of a night as its report shows them: words, stamps, and fluxes of all nights."""

import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from seechange_core.chain.candidate_rows import CandidateRow, Selection, all_candidates
from seechange_core.chain.light_curve_table import MICROJANSKY_ZP
from seechange_core.chain.light_curves import present_provenances
from seechange_core.chain.sheets import contact_cards, note, sexagesimal
from seechange_core.products.base import chunks, unindexed
from seechange_core.products.forced_flux import LIMIT_SIGMA, ForcedFlux
from seechange_core.products.image import Image
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object
from seechange_core.products.outcome import StepOutcome, made_by
from seechange_core.products.sighting import Sighting
from seechange_core.products.source_list import SourceList
from seechange_core.products.verdict import not_called_bad
from seechange_core.qa.contact_sheet import Triplet, triplet
from seechange_core.qa.night import Curve, NightCandidate
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.engine import open_session

#: So many of the best are shown, and among them so many that do not count yet, or not any more.
SHOWN, SHOWN_OTHERS = 200, 40

_Point = tuple[float, str, float, float]


class Harvest(NamedTuple):
    """The best candidates of a night, and how many there are of each sort."""

    shown: tuple[NightCandidate, ...]
    n_confirmed: int
    n_unconfirmed: int
    n_bogus: int


def night_candidates(settings: Settings, night: str, exposures: Collection[str]) -> Harvest:
    """Return a night's candidates: first what counts, then what was seen too seldom, then what is bogus.

    Parameters
    ----------
    settings, night
        Whose, and which.
    exposures
        Names of the night's exposures of one instrument: those of others are left out.
    """
    named = set(exposures)
    every = [row for row in all_candidates(settings, night) if row.exposure in named] if named else []
    usual = Selection()
    sorts: dict[str, list[CandidateRow]] = {"confirmed": [], "unconfirmed": [], "bogus": []}
    for row in every:
        sort = "bogus" if row.verdict == "bogus" else "confirmed" if usual.takes(row) else "unconfirmed"
        sorts[sort].append(row)
    others = (sorts["unconfirmed"] + sorts["bogus"])[: max(SHOWN_OTHERS, SHOWN - len(sorts["confirmed"]))]
    rows = sorts["confirmed"][: SHOWN - len(others)] + others
    curves = _curves(settings, rows)
    shown = [
        _candidate(row, usual.is_confirmed(row), curves.get(row.measurement_id, Curve()), triplet(card))
        for row, card in zip(rows, contact_cards(settings, rows), strict=True)
    ]
    return Harvest(tuple(shown), *map(len, sorts.values()))


def _candidate(row: CandidateRow, confirmed: bool, curve: Curve, stamps: Triplet) -> NightCandidate:
    return NightCandidate(
        object=row.object,
        kind=row.kind,
        verdict=row.verdict,
        confirmed=confirmed,
        score=row.score,
        mag=row.mag,
        mag_err=row.mag_err,
        n_epochs=row.n_epochs,
        n_possible=row.n_possible,
        hours=row.hours,
        ra=row.ra,
        dec=row.dec,
        place=sexagesimal(row.ra, row.dec),
        filter=row.filter,
        exposure=row.exposure,
        section=row.section,
        mjd=row.mjd_mid,
        note=note(row),
        picture=stamps.png,
        north=stamps.north,
        east=stamps.east,
        side_arcsec=stamps.side_arcsec,
        curve=curve,
    )


# --- Light curves ---------------------------------------------------------------------------------


def _curves(settings: Settings, rows: Sequence[CandidateRow]) -> dict[uuid.UUID, Curve]:
    """Return the fluxes of candidates by their best measurement's id.

    Of what stands still those that were forced in every difference; of what moves, its detections.
    """
    with use_settings(settings), open_session(settings, read_only=True) as session:
        still = [row.measurement_id for row in rows if row.kind != "mover"]
        moving = [row for row in rows if row.kind == "mover"]
        found = _forced(session, settings, still) | _detected(session, settings, moving)
    return {key: _curve(points) for key, points in found.items()}


def _curve(points: Sequence[_Point]) -> Curve:
    columns = tuple(zip(*sorted(points), strict=True))
    return Curve(*columns) if columns else Curve()


def _forced(
    session: Session, settings: Settings, measurements: Sequence[uuid.UUID]
) -> dict[uuid.UUID, list[_Point]]:
    query = select(Measurement.object_id, Measurement.id).where(Measurement.id.in_(list(measurements)))
    owner = {row.object_id: row.id for row in session.execute(query)}
    f = ForcedFlux
    fluxes: Select[*tuple[Any, ...]] = (
        select(f.object_id, f.mjd_mid, f.filter, f.flux, f.flux_err, f.zp)
        .join(Image, Image.id == f.image_id)
        .join(StepOutcome, made_by(Image, Image, "subtraction"))
        .where(
            unindexed(f.provenance_id).in_(present_provenances(session, settings, "forced_photometry")),
            not_called_bad(Image.exposure_id, Image.section_id),
            f.flux.is_not(None),
            f.flux_err > 0,
        )
    )
    found: dict[uuid.UUID, list[_Point]] = defaultdict(list)
    for some in chunks(list(owner)):
        for key, mjd, band, flux, err, zp in session.execute(fluxes.where(f.object_id.in_(some))):
            scale = 10 ** (0.4 * (MICROJANSKY_ZP - zp))
            found[owner[key]].append((mjd, band, flux * scale, err * scale))
    return found


def _detected(
    session: Session, settings: Settings, rows: Sequence[CandidateRow]
) -> dict[uuid.UUID, list[_Point]]:
    """Return what was measured of things that move, at their detections."""
    owner: Mapping[str, uuid.UUID] = {name: row.measurement_id for row in rows for name in row.members}
    m = Measurement
    query: Select[*tuple[Any, ...]] = (
        select(Object.name, m.mjd_mid, Image.filter, m.flux, m.flux_err, m.limiting_mag)
        .join(Object, Object.id == m.object_id)
        .join(Sighting, Sighting.id == m.sighting_id)
        .join(SourceList, SourceList.id == Sighting.source_list_id)
        .join(Image, Image.id == SourceList.image_id)
        .where(
            unindexed(m.provenance_id).in_(present_provenances(session, settings, "measurement")),
            unindexed(m.is_bad).is_(False),
            m.flux.is_not(None),
            m.flux_err > 0,
            m.limiting_mag.is_not(None),
        )
    )
    found: dict[uuid.UUID, list[_Point]] = defaultdict(list)
    for some in chunks(list(owner)):
        for name, mjd, band, flux, err, limit in session.execute(query.where(Object.name.in_(some))):
            scale = 10 ** (0.4 * (MICROJANSKY_ZP - limit)) / (LIMIT_SIGMA * err)
            found[owner[name]].append((mjd, band, flux * scale, err * scale))
    return found
