"""Light curves of what a section shows: short ones, of many objects at once."""

import uuid
from collections import defaultdict

import numpy as np
from sqlalchemy import func, select

from seechange_core.chain.section import Section
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.image import Image
from seechange_core.products.object import Object
from seechange_core.products.outcome import StepOutcome, made_by
from seechange_core.products.verdict import not_called_bad
from seechange_core.qa.lightcurve import MICROJANSKY_ZP
from seechange_core.qa.strips import FluxCurve
from seechange_core.storage.engine import open_session


def section_curves(section: Section, n_best: int) -> list[FluxCurve]:
    """Return the fluxes forced on differences, at all epochs, of the objects that stand out in a section.

    Parameters
    ----------
    section
        Whose forced photometry was made.
    n_best
        At most so many objects: those whose flux in this section's own difference is most significant.

    Returns
    -------
    list of FluxCurve
        In that order, on the scale of zero point 23.9.
    """
    own, forced = section.needed(Image, "subtraction"), section.provenance_id("forced_photometry")
    here = (
        select(Object.id, Object.name)
        .join(ForcedFlux, ForcedFlux.object_id == Object.id)
        .where(
            ForcedFlux.image_id == own.id,
            ForcedFlux.provenance_id == forced,
            ForcedFlux.flux.is_not(None),
            ForcedFlux.flux_err > 0,
            Object.is_bad.is_(False),
            Object.n_sightings > 0,
        )
        .order_by(func.abs(ForcedFlux.flux / ForcedFlux.flux_err).desc(), ForcedFlux.id)
        .limit(n_best)
    )
    columns = (ForcedFlux.mjd_mid, ForcedFlux.flux, ForcedFlux.flux_err, ForcedFlux.zp, ForcedFlux.filter)
    with open_session(section.settings, read_only=True) as session:
        names = {row[0]: row[1] for row in session.execute(here)}
        query = (
            select(ForcedFlux.object_id, *columns)
            .join(Image, Image.id == ForcedFlux.image_id)
            .join(StepOutcome, made_by(Image, Image, "subtraction"))
            .where(
                ForcedFlux.object_id.in_(names),
                ForcedFlux.provenance_id == forced,
                not_called_bad(Image.exposure_id, Image.section_id),
            )
            .order_by(ForcedFlux.mjd_mid, ForcedFlux.id)
        )
        rows = list(session.execute(query)) if names else []
    of_object: dict[uuid.UUID, list[tuple[object, ...]]] = defaultdict(list)
    for object_id, *values in rows:
        of_object[object_id].append(tuple(values))
    return [_curve(name, of_object[key]) for key, name in names.items() if of_object[key]]


def _curve(name: str, rows: list[tuple[object, ...]]) -> FluxCurve:
    *numbers, bands = zip(*rows, strict=True)
    mjd, flux, flux_err, zp = (np.array(column, float) for column in numbers)  # None becomes NaN
    scale = 10 ** (0.4 * (MICROJANSKY_ZP - zp))
    return FluxCurve(name, mjd, flux * scale, flux_err * scale, np.array(bands))
