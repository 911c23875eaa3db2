"""Which exposures could have shown a candidate: how deep each was searched at its place."""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.choice import not_marked_bad
from seechange_core.flags import PixelFlag
from seechange_core.frames import Depth, Float
from seechange_core.products.base import unindexed
from seechange_core.products.exposure import Exposure
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.image import Image
from seechange_core.products.outcome import StepOutcome, made_by
from seechange_core.products.source_list import SourceList, not_too_dense
from seechange_core.products.verdict import not_called_bad

#: Objects and images asked for at once.
_CHUNK = 500
#: Near pixels that are lost for one of these, the search has no score.
_UNSCORED = (
    PixelFlag.NO_DATA | PixelFlag.SATURATED | PixelFlag.OUT_OF_BOUNDS | PixelFlag.STREAK | PixelFlag.BLEED
)
#: Light of a source's middle in units of the noise's variance, and which share of its flux's variance are
#: then its own photons.
_BRIGHTNESS = np.geomspace(1e-3, 1e9, 2000)
_SHARES = 1 - np.log1p(_BRIGHTNESS) / _BRIGHTNESS


class Looked(NamedTuple):
    """What is looked for: how bright, in which filter, and in which nights."""

    mag: float
    filter: str
    nights: frozenset[str]


def exposures_that_could(
    session: Session, wanted: Mapping[uuid.UUID, Looked], provenance_ids: Sequence[str]
) -> dict[uuid.UUID, set[uuid.UUID]]:
    """Return for each object the exposures in which its light would more likely than not have been found.

    In those of its nights and its filter whose difference covers its place: where the flux is above the
    depth that was measured of the search there (`Depth.limit_at`), and above as many sigma of the flux
    forced at that very place, which knows of the light that was there before.

    Parameters
    ----------
    session
        An open session.
    wanted
        What is looked for, by the ids of objects.
    provenance_ids
        Of detections: whose depths count.
    """
    fluxes = _fluxes(session, wanted)
    depths = search_depths(session, sorted(fluxes), provenance_ids)
    found: dict[uuid.UUID, set[uuid.UUID]] = defaultdict(set)
    for image_id, depth in depths.items():
        exposure_id, rows = fluxes[image_id]
        columns = [(f.x, f.y, f.flux_err or np.nan, f.zp - wanted[f.object_id].mag) for f in rows]
        x, y, err, brightness = np.array(columns, float).T
        deep = 10 ** (0.4 * brightness) >= np.maximum(depth.limit_at(x, y), depth.sigma * err)
        for f in (f for f, seen in zip(rows, deep.tolist(), strict=True) if seen):
            found[f.object_id].add(exposure_id)
    return found


def found_in_half(depth: Depth | None, forced: Mapping[str, Float], gain: float) -> Float:
    """Return the fluxes that a search finds at places in half of all cases, electrons; NaN where none was.

    That is the larger of the blank sky's, as measured around, and of as many sigma of the flux forced there,
    which knows of a star's or a galaxy's light. The photons of what shines in the difference itself are no
    part of that noise: they are taken out as for a Gaussian PSF, for which the variance of a flux f fitted
    with optimal weights (Naylor 1998, MNRAS 296, 339, eq. 12) among noise of variance v a pixel is
    ``(f / g) / (1 - ln(1 + u) / u)``, with ``u = f P(0) / (g v)``, and ``2 f / (g u)`` without these photons.
    The PSF's own error stays in: of what is bright enough for it to count, the depth is too shallow.

    Parameters
    ----------
    depth
        Of the search; None if there was none.
    forced
        Columns of forced fluxes in the difference: x, y, flux, flux_err, flags.
    gain
        Photons per electron of the difference.
    """
    x, y, flux, err = (np.asarray(forced[name], float) for name in ("x", "y", "flux", "flux_err"))
    if depth is None:
        return np.full(x.shape, np.nan)
    unscored = np.asarray(forced["flags"], np.int64) & int(_UNSCORED) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(np.maximum(flux, 0.0) / gain / err**2, _SHARES[0], _SHARES[-1])
        noise = err * np.sqrt(2 * share / np.interp(share, _SHARES, _BRIGHTNESS))
    limit = np.maximum(depth.limit_at(x, y), depth.sigma * noise)
    return np.where(np.isfinite(flux) & ~unscored, limit, np.nan)


def _fluxes(
    session: Session, wanted: Mapping[uuid.UUID, Looked]
) -> dict[uuid.UUID, tuple[uuid.UUID, list[ForcedFlux]]]:
    """Return the forced fluxes of objects in differences of their nights and filters, by the image's id."""
    ids = sorted(wanted)
    nights = {night for looked in wanted.values() for night in looked.nights}
    found: dict[uuid.UUID, dict[uuid.UUID, ForcedFlux]] = defaultdict(dict)
    exposures: dict[uuid.UUID, uuid.UUID] = {}
    for start in range(0, len(ids), _CHUNK):
        query = (
            select(ForcedFlux, Exposure.id, Exposure.night)
            .join(Image, Image.id == ForcedFlux.image_id)
            .join(Exposure, Exposure.id == Image.exposure_id)
            .where(
                ForcedFlux.object_id.in_(ids[start : start + _CHUNK]),
                ForcedFlux.kind == "difference",
                Exposure.night.in_(nights),
                not_marked_bad(),
                not_called_bad(Image.exposure_id, Image.section_id),
            )
        )
        for flux, exposure_id, night in session.execute(query):
            looked = wanted[flux.object_id]
            if night in looked.nights and flux.filter == looked.filter:
                found[flux.image_id][flux.object_id] = flux
                exposures[flux.image_id] = exposure_id
    return {key: (exposures[key], list(rows.values())) for key, rows in found.items()}


def search_depths(
    session: Session, images: Sequence[uuid.UUID], provenance_ids: Sequence[str]
) -> dict[uuid.UUID, Depth]:
    """Return the measured depths of searches that count, in differences that no newer one has replaced."""
    found: dict[uuid.UUID, Depth] = {}
    for start in range(0, len(images), _CHUNK):
        query = (
            select(SourceList)
            .join(Image, Image.id == SourceList.image_id)
            .join(StepOutcome, made_by(Image, SourceList, "detections"))
            .where(
                SourceList.image_id.in_(images[start : start + _CHUNK]),
                unindexed(SourceList.provenance_id).in_(provenance_ids),
                not_too_dense(),
            )
        )
        for row in session.scalars(query):
            if (depth := row.depth) is not None:
                found[row.image_id] = depth
    return found
