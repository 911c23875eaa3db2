"""Which calibrated images a reference of a region of the sky could be made of, and which are chosen."""

import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from seechange_core.chain.choice import not_marked_bad
from seechange_core.chain.lineage import provenances
from seechange_core.chain.quality import meanings
from seechange_core.errors import NoReference
from seechange_core.flags import UNFIT
from seechange_core.numerics.regions import region_circle, region_named, regions_overlapping
from seechange_core.products.background import Background
from seechange_core.products.base import in_cone
from seechange_core.products.exposure import Exposure
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.psf import Psf
from seechange_core.products.source_list import SourceList
from seechange_core.products.verdict import not_called_bad
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.reference import InputFacts, ReferenceParams, select_inputs
from seechange_core.storage.engine import open_session

#: Names of so many exposures fit into a query.
_NAMES_AT_ONCE = 500


@dataclass(frozen=True)
class Candidate:
    """A calibrated image that a reference could be made from, if it has none of the `UNFIT` flags."""

    exposure: str
    section: str
    exposure_id: uuid.UUID
    zero_point_id: uuid.UUID
    filter: str
    regions: tuple[str, ...]
    corners: tuple[tuple[float, ...], tuple[float, ...]]
    facts: InputFacts
    bitflag: int

    @property
    def is_fit(self) -> bool:
        """Whether it does no harm to a reference."""
        return not self.bitflag & UNFIT


@dataclass(frozen=True)
class Choice:
    """What a reference is made of.

    Attributes
    ----------
    inputs
        The images, whole exposures, the deepest exposure first.
    rejected
        Names of the other exposures, and why.
    """

    inputs: list[Candidate]
    rejected: dict[str, str]


def candidates_for_references(
    settings: Settings,
    instrument: str,
    nights: Sequence[str] | None = None,
    region: str | None = None,
    band: str | None = None,
) -> list[Candidate]:
    """List the calibrated images under the present settings, of certain nights and places if told so."""
    params = settings.params(ReferenceParams, "reference", instrument)
    query = (
        _calibrated(settings, instrument)
        .with_only_columns(Exposure.name, StepOutcome.section_id, Exposure.id, ZeroPoint, WorldCoordinates)
        .add_columns(Psf.fwhm_pix, Background.level_e)
        .join(SourceList, SourceList.id == ZeroPoint.source_list_id)
        .join(Psf, Psf.data_version == SourceList.data_version)
        .join(Background, Background.data_version == SourceList.data_version)
        .order_by(Exposure.mjd, StepOutcome.section_id)
    )
    if nights is not None:
        query = query.where(Exposure.night.in_(list(nights)))
    if band is not None:
        query = query.where(ZeroPoint.filter == band)
    with open_session(settings, read_only=True) as session:
        if region is not None:
            query = query.where(_near(session, region, params.region_size_deg))
        found = _candidates(session, query, params)
    return [c for c in found if region is None or region in c.regions]


def _calibrated(settings: Settings, instrument: str) -> Select[*tuple[Any, ...]]:
    """Select what may become a reference, of sections calibrated under the present settings."""
    return (
        select(ZeroPoint.filter, ZeroPoint.bitflag, WorldCoordinates.corners)
        .select_from(Exposure)
        .join(StepOutcome, StepOutcome.exposure_id == Exposure.id)
        .join(ZeroPoint, ZeroPoint.data_version == StepOutcome.data_version)
        .join(WorldCoordinates, WorldCoordinates.id == ZeroPoint.world_coordinates_id)
        .where(
            Exposure.instrument == instrument,
            not_marked_bad(),
            not_called_bad(Exposure.id, StepOutcome.section_id),
            StepOutcome.step == "zero_point",
            StepOutcome.status == "done",
            StepOutcome.provenance_id == provenances(settings, instrument)["zero_point"].id,
        )
    )


def _near(session: Session, region: str, size_deg: float) -> ColumnElement[bool]:
    """Make the condition that an image may touch a region: the rest of the sky need not be looked at."""
    ra, dec, radius = region_circle(region_named(region, size_deg))
    largest = session.scalar(select(func.max(WorldCoordinates.radius_deg))) or 0.0
    return in_cone(WorldCoordinates.healpix, ra, dec, min(180.0, radius + largest))


def _candidates(session: Session, query: Select[Any], params: ReferenceParams) -> list[Candidate]:
    found = []
    for name, section, exposure_id, zero_point, wcs, fwhm_pix, level_e in session.execute(query):
        ra, dec = (tuple(c[i] for c in wcs.corners or []) for i in (0, 1))
        regions = regions_overlapping(ra, dec, params.region_size_deg)
        limit = np.nan if zero_point.limiting_mag is None else zero_point.limiting_mag
        sky = zero_point.zp - 2.5 * np.log10(level_e / wcs.pixel_scale_arcsec**2) if level_e > 0 else np.nan
        found.append(
            Candidate(
                name,
                section,
                exposure_id,
                zero_point.id,
                zero_point.filter,
                tuple(r.name for r in regions),
                (ra, dec),
                InputFacts(name, fwhm_pix * wcs.pixel_scale_arcsec, limit, float(sky)),
                zero_point.bitflag,
            )
        )
    return found


def references_wanted(
    settings: Settings, instrument: str, exposures: Sequence[str] | None = None
) -> list[tuple[str, str]]:
    """List the regions and filters that have images fit for a reference, whether or not there is one.

    Parameters
    ----------
    settings, instrument
        Whose.
    exposures
        Only where these exposures have such an image.
    """
    parts: list[Sequence[str] | None] = [None]
    if exposures is not None:
        parts = [exposures[i : i + _NAMES_AT_ONCE] for i in range(0, len(exposures), _NAMES_AT_ONCE)]
    with use_settings(settings), open_session(settings, read_only=True) as session:
        size_deg = settings.params(ReferenceParams, "reference", instrument).region_size_deg
        query = _calibrated(settings, instrument)
        rows = [
            row
            for some in parts
            for row in session.execute(query if some is None else query.where(Exposure.name.in_(some)))
        ]
    found = set()
    for band, bitflag, corners in rows:
        if not bitflag & UNFIT:
            ra, dec = (tuple(c[i] for c in corners or []) for i in (0, 1))
            found |= {(region.name, band) for region in regions_overlapping(ra, dec, size_deg)}
    return sorted(found)


def choose_inputs(
    candidates: Sequence[Candidate], params: ReferenceParams, without: Collection[str] = ()
) -> Choice:
    """Choose whole exposures by the medians of their sections' figures.

    Parameters
    ----------
    candidates
        Of one region and filter.
    params
        Limits.
    without
        Exposures that a person does not want.

    Raises
    ------
    NoReference
        If too few are left; says why.
    """
    if not candidates:
        raise NoReference(
            "no calibrated image covers it", cure="process exposures of this field through zero_point first"
        )
    bits = reduce(or_, (c.bitflag for c in candidates))
    rejected = {c.exposure: meanings(c.bitflag & UNFIT) for c in candidates if not c.is_fit}
    fit = [c for c in candidates if c.is_fit]
    if not fit:
        raise NoReference(
            f"every calibrated image of it is flagged: {meanings(bits & UNFIT)}",
            cure="wait for better ones, or raise the limits under `quality`",
        )
    sections: dict[str, list[Candidate]] = defaultdict(list)
    for c in fit:
        if c.exposure in without:
            rejected[c.exposure] = "left out on request"
        else:
            sections[c.exposure].append(c)
    selection = select_inputs([_of_exposure(name, of) for name, of in sections.items()], params)
    chosen = [list(sections)[i] for i in selection.chosen]
    left = {name: why for name, why in rejected.items() if name not in chosen}
    return Choice([c for name in chosen for c in sections[name]], left | selection.rejected)


def _of_exposure(name: str, sections: Sequence[Candidate]) -> InputFacts:
    values = np.array([(c.facts.fwhm_arcsec, c.facts.limiting_mag, c.facts.sky_mag) for c in sections])
    return InputFacts(name, *(float(v) for v in np.median(values, axis=0)))
