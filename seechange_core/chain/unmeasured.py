"""Which objects have no forced flux in which images, or one too far from where they are known to be now."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Row, Select, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.frames import Bool, Float
from seechange_core.numerics.sky import polygon_contains, separation
from seechange_core.products.base import chunks
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.image import Image
from seechange_core.products.object import Object

#: As new sightings place an object better, it is measured anew at the epochs where its flux was too low by
#: more than so much of the error: a Gaussian PSF fitted aside by d loses d^2 / (4 sigma^2) of the flux.
TOO_LOW_SIGMA = 0.1
#: Brighter light, such as a galaxy's in the reference, is not followed any closer.
_MAX_SNR = 100.0


def covered(corners: Sequence[Sequence[float]] | None, objects: Sequence[Object]) -> Bool:
    """Tell which objects lie in a piece of sky, given by its corners."""
    if not corners:
        return np.zeros(len(objects), bool)
    ra, dec = zip(*corners, strict=True)
    return polygon_contains(ra, dec, [o.ra for o in objects], [o.dec for o in objects])


def unmeasured(
    session: Session,
    provenance_id: str,
    objects: Sequence[Object],
    images: Sequence[Image],
    width_arcsec: Mapping[uuid.UUID, float],
) -> Bool:
    """Tell what is in an image and was not measured there at the place where it is known to be now.

    Of millions of fluxes most are only counted: read are those of images whose count is not as it should be,
    and those of objects that have moved. (Where one object has left an image in which another one is missing,
    the count is right; the next object that comes shows it.)

    Parameters
    ----------
    session
        An open session.
    provenance_id
        Of the forced photometry.
    objects, images
        Which.
    width_arcsec
        Full width of each image's PSF, by the image's id: how far aside a flux counts follows from it.

    Returns
    -------
    Bool
        (n_images, n_objects).
    """
    rows = {image.id: i for i, image in enumerate(images)}
    columns = {found.id: k for k, found in enumerate(objects)}
    inside = np.zeros((len(images), len(objects)), bool)
    for i, image in enumerate(images):
        inside[i] = covered(image.corners, objects)
    counts, known = _counts(session, provenance_id, rows, columns)
    left = inside.copy()
    as_it_should = counts == inside[:, known].sum(axis=1)
    left[np.ix_(as_it_should, known)] = False
    others = [image.id for image in images if not as_it_should[rows[image.id]]]
    query = select(ForcedFlux.image_id, ForcedFlux.object_id, ForcedFlux.provenance_id)
    for image_id, object_id, made_by in _rows(session, query, ForcedFlux.image_id, others):
        if made_by == provenance_id and object_id in columns:
            left[rows[image_id], columns[object_id]] = False
    for image_id, object_id in _moved(session, provenance_id, objects, width_arcsec):
        left[rows[image_id], columns[object_id]] = True
    return left & inside


def _rows(
    session: Session,
    query: Select[*tuple[Any, ...]],
    key: InstrumentedAttribute[uuid.UUID],
    keys: Sequence[uuid.UUID],
) -> Iterator[Row[*tuple[Any, ...]]]:
    """Yield the rows of some keys.

    The keys are the only condition: given another one on an index, SQLite, which has no statistics of a
    table, would rather take that.
    """
    for some in chunks(keys):
        yield from session.execute(query.where(key.in_(some)))


def _counts(
    session: Session, provenance_id: str, rows: Mapping[uuid.UUID, int], columns: Mapping[uuid.UUID, int]
) -> tuple[np.ndarray, Bool]:
    """Count the fluxes of these objects in each image; tell which objects have any."""
    f = ForcedFlux
    counts, known = np.zeros(len(rows), np.int64), np.zeros(len(columns), bool)
    by_image = select(f.image_id, f.provenance_id, func.count()).group_by(f.image_id, f.provenance_id)
    for image_id, made_by, n in _rows(session, by_image, f.object_id, list(columns)):
        if made_by == provenance_id and image_id in rows:
            counts[rows[image_id]] += n
    any_of = select(f.object_id, f.provenance_id).distinct()
    for object_id, made_by in _rows(session, any_of, f.object_id, list(columns)):
        known[columns[object_id]] |= made_by == provenance_id
    return counts, known


def _moved(
    session: Session, provenance_id: str, objects: Sequence[Object], width_arcsec: Mapping[uuid.UUID, float]
) -> list[tuple[uuid.UUID, uuid.UUID]]:
    """List the fluxes, by image and object, that were measured too far from where the object is now."""
    f, now = ForcedFlux, Object
    if not width_arcsec:
        return []
    least_deg = float(_tolerance_arcsec(min(width_arcsec.values()), _MAX_SNR)) / 3600
    query = (
        select(f.image_id, f.object_id, f.provenance_id, f.ra, f.dec, now.ra, now.dec, f.flux, f.flux_err)
        .join(now, now.id == f.object_id)
        .where(or_(func.abs(f.ra - now.ra) > least_deg, func.abs(f.dec - now.dec) > least_deg))
    )
    rows = [
        row
        for row in _rows(session, query, f.object_id, [o.id for o in objects])
        if row[2] == provenance_id and row[0] in width_arcsec
    ]
    if not rows:
        return []
    ra, dec, now_ra, now_dec = np.array([row[3:7] for row in rows], float).T
    snr = np.array([abs(row[7] or 0.0) / (row[8] or 1.0) for row in rows])
    width = np.array([width_arcsec[row[0]] for row in rows])
    far = separation(ra, dec, now_ra, now_dec) * 3600 > _tolerance_arcsec(width, snr)
    return [(row[0], row[1]) for row, moved in zip(rows, far.tolist(), strict=True) if moved]


def _tolerance_arcsec(width_arcsec: Float | float, snr: Float | float) -> Float:
    sigma = np.asarray(width_arcsec) / FWHM_PER_SIGMA
    return np.asarray(2 * sigma * np.sqrt(TOO_LOW_SIGMA / np.clip(snr, 1.0, _MAX_SNR)), float)
