"""The good detections that candidates are made of, each with what is needed of its image."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Select, select

from seechange_core.chain.choice import not_marked_bad
from seechange_core.chain.could_see import Looked
from seechange_core.chain.kinds import Neighbour, Surrounding, surrounding
from seechange_core.chain.lineage import provenances
from seechange_core.constants import MAG_PER_RELATIVE
from seechange_core.products.base import unindexed
from seechange_core.products.exposure import Exposure
from seechange_core.products.forced_flux import LIMIT_SIGMA
from seechange_core.products.image import Image
from seechange_core.products.measurement import Measurement
from seechange_core.products.outcome import StepOutcome, made_by
from seechange_core.products.sighting import Sighting
from seechange_core.products.source_list import SourceList, not_too_dense
from seechange_core.products.verdict import not_called_bad
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.associate import AssociateParams
from seechange_core.storage.engine import open_session


class Seen(NamedTuple):
    """A good detection with what is needed of its image."""

    measurement_id: uuid.UUID
    cutouts_id: uuid.UUID
    object_id: uuid.UUID
    ra: float
    dec: float
    position_err_arcsec: float | None
    mjd_mid: float
    flux: float | None
    flux_err: float | None
    limiting_mag: float | None
    change_fraction: float | None
    star_distance_arcsec: float | None
    star_mag: float | None
    galaxy_distance_arcsec: float | None
    galaxy_mag: float | None
    score: float
    exposure_id: uuid.UUID
    exposure: str
    night: str
    section: str
    filter: str
    bitflag: int

    @property
    def mag(self) -> float | None:
        """Magnitude of the light that came or went."""
        if not self.flux or not self.flux_err or self.limiting_mag is None:
            return None
        return self.limiting_mag - 2.5 * float(np.log10(abs(self.flux) / (LIMIT_SIGMA * self.flux_err)))

    @property
    def mag_err(self) -> float | None:
        """Its error."""
        return MAG_PER_RELATIVE * self.flux_err / abs(self.flux) if self.flux and self.flux_err else None

    def around(self, params: AssociateParams) -> Surrounding:
        """Tell what the reference shows there."""
        star, galaxy = (
            None if apart is None else Neighbour(apart, looks, mag)
            for apart, looks, mag in (
                (self.star_distance_arcsec, "star", self.star_mag),
                (self.galaxy_distance_arcsec, "galaxy", self.galaxy_mag),
            )
        )
        return surrounding(star, galaxy, self.change_fraction, self.position_err_arcsec, params)


def looked_for(rows: Sequence[Seen], history: Mapping[uuid.UUID, Sequence[Seen]]) -> dict[uuid.UUID, Looked]:
    """Return what was seen of each object at its best, and in which nights."""
    best: dict[uuid.UUID, Seen] = {}
    for row in sorted(rows, key=lambda row: abs(row.score)):
        best[row.object_id] = row
    return {
        key: Looked(row.mag, row.filter, frozenset(seen.night for seen in history[key]))
        for key, row in best.items()
        if row.mag is not None
    }


def seen_by(provenance_ids: Sequence[str]) -> Select[Any]:
    """Select the good detections that sections show now, of those that nobody called bad and no crowds."""
    m = Measurement
    return (
        select(m.id, m.cutouts_id, m.object_id, m.ra, m.dec, m.position_err_arcsec, m.mjd_mid)
        .add_columns(m.flux, m.flux_err, m.limiting_mag, m.change_fraction, m.star_distance_arcsec)
        .add_columns(m.star_mag, m.galaxy_distance_arcsec, m.galaxy_mag, Sighting.score)
        .add_columns(Exposure.id, Exposure.name, Exposure.night)
        .add_columns(Image.section_id, Image.filter, Image.bitflag)
        .join(Sighting, Sighting.id == m.sighting_id)
        .join(SourceList, SourceList.id == Sighting.source_list_id)
        .join(Image, Image.id == SourceList.image_id)
        .join(StepOutcome, made_by(Image, SourceList, "detections"))
        .join(Exposure, Exposure.id == Image.exposure_id)
        .where(
            unindexed(m.is_bad).is_(False),
            m.object_id.is_not(None),
            unindexed(m.provenance_id).in_(provenance_ids),
            not_marked_bad(),
            not_called_bad(Image.exposure_id, Image.section_id),
            not_too_dense(),
        )
        .order_by(m.mjd_mid, m.id)
    )


def too_dense_sections(settings: Settings, night: str | None = None) -> list[tuple[str, str]]:
    """List the sections that show more changes than the settings expect: none makes objects or candidates.

    Returns
    -------
    list of (exposure, section)
        Of a night, or of all, under the present settings.
    """
    with use_settings(settings), open_session(settings, read_only=True) as session:
        instruments = session.scalars(select(Exposure.instrument).distinct()).all()
        made = [provenances(settings, i)["detections"].id for i in instruments]
        query = (
            select(Exposure.name, Image.section_id)
            .join(Image, Image.exposure_id == Exposure.id)
            .join(SourceList, SourceList.image_id == Image.id)
            .join(StepOutcome, made_by(Image, SourceList, "detections"))
            .where(SourceList.provenance_id.in_(made), ~not_too_dense())
            .order_by(Exposure.name, Image.section_id)
        )
        if night is not None:
            query = query.where(Exposure.night == night)
        return [(name, section) for name, section in session.execute(query)]
