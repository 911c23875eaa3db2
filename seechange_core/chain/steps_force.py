"""Forced photometry: every object in every difference image that covers it, also before it was found.

Whoever walks a section measures what is missing there: of a new exposure the fluxes of all known objects,
of a new object those in all differences there are, in every filter, whichever run made them. And once for
each reference, the flux that was there before: what the total flux of a light curve is made with.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.load import CalibratedRows, rows_of_zero_points
from seechange_core.chain.section import Section
from seechange_core.chain.step import Made, Step
from seechange_core.frames import ForcedFluxes, SubtractionFrame, WcsSolution
from seechange_core.numerics.background import without_background
from seechange_core.numerics.sky import polygon_contains, separation
from seechange_core.numerics.timing import bjd_tdb
from seechange_core.products.base import overlapping, save
from seechange_core.products.forced_flux import ForcedFlux, make_forced_fluxes
from seechange_core.products.image import Image
from seechange_core.products.object import Object, find_objects
from seechange_core.products.outcome import StepOutcome, made_by
from seechange_core.products.reference import Reference, image_references
from seechange_core.products.verdict import not_called_bad
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.stages.force import ForceParams, force
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

#: As new sightings place an object better, it is measured anew at the epochs where its flux was too low by
#: more than so much of the error: a Gaussian PSF fitted aside by d loses d^2 / (4 sigma^2) of the flux.
TOO_LOW_SIGMA = 0.1
#: Brighter light, such as a galaxy's in the reference, is not followed any closer.
_MAX_SNR = 100.0
_FWHM_PER_SIGMA = 2.3548200450309493


@dataclass(frozen=True)
class Task:
    """One image and the objects that still have no flux in it: a difference, or the coadd of a reference.

    The rows are those of the coadd, or of the difference's new image.
    """

    image: Image
    rows: CalibratedRows
    objects: tuple[Object, ...]


def missing(section: Section) -> list[Task]:
    """List what is still to be measured: objects in this section, in differences of any epoch.

    To do it again is to measure everything on this section's own difference anew.
    An object found here for the first time is measured at all earlier epochs; a known one at this
    epoch. Differences that a newer one of the same exposure has replaced are left out, and those of exposures
    that someone called bad.
    """
    wcs = section.needed(WorldCoordinates, "world_coordinates")
    corners = wcs.corners or []
    with open_session(section.settings, read_only=True) as session:
        radius_arcsec = 3600 * (wcs.radius_deg or 0.0)
        mine = select(Object).where(
            Object.provenance_id == section.provenance_id("measurement"),
            Object.is_bad.is_(False),
            Object.n_sightings > 0,
        )
        objects = [
            o for o, _ in find_objects(session, wcs.ra, wcs.dec, radius_arcsec, mine) if _covers(corners, o)
        ]
        images = _current_differences(session, section, corners) if objects else []
        own = {i.id for i in images if i.data_version == section.versions["subtraction"]}
        zero_points = _zero_points(session, section, images)
        images += _coadds(session, images, zero_points)
        width_arcsec = {i.id: (i.fwhm_pix or 2.0) * wcs.pixel_scale_arcsec for i in images}
        done = _done(session, section, objects, width_arcsec)
        if section.redo:
            done = {(object_id, image_id) for object_id, image_id in done if image_id not in own}
        left = [
            (
                image,
                tuple(o for o in objects if (o.id, image.id) not in done and _covers(image.corners or [], o)),
            )
            for image in images
            if image.id in zero_points
        ]
        left = [(image, some) for image, some in left if some]
        rows = rows_of_zero_points(session, [zero_points[image.id] for image, _ in left])
    return [Task(image, part, some) for (image, some), part in zip(left, rows, strict=True)]


def _covers(corners: Sequence[Sequence[float]], found: Object) -> bool:
    ra, dec = zip(*corners, strict=True)
    return bool(polygon_contains(ra, dec, found.ra, found.dec))


def _current_differences(session: Session, section: Section, corners: list[list[float]]) -> list[Image]:
    query = (
        select(Image)
        .join(StepOutcome, made_by(Image, Image, "subtraction"))
        .where(
            Image.type == "difference",
            Image.provenance_id == section.provenance_id("subtraction"),
            not_called_bad(Image.exposure_id, Image.section_id),
        )
    )
    return overlapping(session, query, corners)


def _zero_points(session: Session, section: Section, images: Sequence[Image]) -> dict[uuid.UUID, uuid.UUID]:
    """Return the zero point of each difference's new image, by the difference's id."""
    query = select(ZeroPoint.image_id, ZeroPoint.id).where(
        ZeroPoint.image_id.in_([i.new_image_id for i in images]),
        ZeroPoint.provenance_id == section.provenance_id("zero_point"),
    )
    found = {row[0]: row[1] for row in session.execute(query.order_by(ZeroPoint.id))}
    return {i.id: found[i.new_image_id] for i in images if i.new_image_id in found}


def _coadds(
    session: Session, images: Sequence[Image], zero_points: dict[uuid.UUID, uuid.UUID]
) -> list[Image]:
    """Return the coadds of the references that differences were made with; note their zero points."""
    query = (
        select(Image, Reference.zero_point_id)
        .join(Reference, Reference.image_id == Image.id)
        .where(
            Reference.id.in_(
                select(image_references.c.reference_id).where(
                    image_references.c.difference_id.in_([i.id for i in images])
                )
            )
        )
        .order_by(Reference.id)
    )
    found = list(session.execute(query))
    zero_points |= {image.id: zero_point for image, zero_point in found}
    return [image for image, _ in found]


def _done(
    session: Session, section: Section, objects: Sequence[Object], width_arcsec: Mapping[uuid.UUID, float]
) -> set[tuple[uuid.UUID, uuid.UUID]]:
    """Return the objects and images that have a flux at the object's place as it is known now.

    `width_arcsec` is the full width of each image's PSF: how far aside a flux counts follows from it.
    """
    f = ForcedFlux
    query = select(f.object_id, f.image_id, f.ra, f.dec, f.flux, f.flux_err).where(
        f.object_id.in_([o.id for o in objects]),
        f.provenance_id == section.provenance_id("forced_photometry"),
    )
    places = {o.id: (o.ra, o.dec) for o in objects}
    rows = [row for row in session.execute(query) if row[1] in width_arcsec]
    if not rows:
        return set()
    ra, dec, snr = np.array([(row[2], row[3], abs(row[4] or 0.0) / (row[5] or 1.0)) for row in rows]).T
    now_ra, now_dec = np.array([places[row[0]] for row in rows]).T
    sigma = np.array([width_arcsec[row[1]] for row in rows]) / _FWHM_PER_SIGMA
    tolerance = 2 * sigma * np.sqrt(TOO_LOW_SIGMA / np.clip(snr, 1.0, _MAX_SNR))
    same = separation(ra, dec, now_ra, now_dec) * 3600 <= tolerance
    return {(row[0], row[1]) for row, here in zip(rows, same.tolist(), strict=True) if here}


def measure_difference(
    frame: SubtractionFrame, wcs: WcsSolution, ra: np.ndarray, dec: np.ndarray, params: ForceParams
) -> ForcedFluxes:
    """Force the flux at sky positions on a difference.

    Its weights hold the noise of the sky and of all light that was there before; the photons of what is
    new are added by the fit.
    """
    x, y = wcs.to_pixels(ra, dec)
    image = frame.image
    return force(image.data, image.weight, image.flags, frame.psf, x, y, image.gain, params)


def measure_image(
    rows: CalibratedRows, archive: Archive, ra: np.ndarray, dec: np.ndarray, params: ForceParams
) -> ForcedFluxes:
    """Force the flux of all light at sky positions on a calibrated image, or on the coadd of a reference."""
    image = rows.image.read(archive)
    x, y = rows.wcs.solution().to_pixels(ra, dec)
    data = without_background(image.data, rows.background.read(archive))
    return force(data, image.weight, image.flags, rows.psf.read(archive), x, y, image.gain, params)


def _measure(section: Section, task: Task, ra: np.ndarray, dec: np.ndarray) -> ForcedFluxes:
    params = section.params(ForceParams, "force")
    if task.image.type != "difference":
        return measure_image(task.rows, section.archive, ra, dec, params)
    ours = task.image.data_version == section.versions["subtraction"]
    frame = section.products.get("difference") if ours else None
    frame = frame or task.image.read_subtraction(section.archive)
    return measure_difference(frame, task.rows.wcs.solution(), ra, dec, params)


def _make_forced(section: Section) -> Made:
    n_fluxes, n_epochs = 0, 0
    for task in missing(section):
        ra, dec = np.array([o.ra for o in task.objects]), np.array([o.dec for o in task.objects])
        site = section.exposure.site if task.image.type == "difference" else None  # a coadd is of many times
        bjd = (
            bjd_tdb(np.full(len(ra), task.image.mjd_mid), ra, dec, site) if site else np.full(len(ra), np.nan)
        )
        rows = make_forced_fluxes(
            task.objects,
            _measure(section, task, ra, dec),
            task.image,
            task.rows.zero_point,
            bjd,
            section.provenance_id("forced_photometry"),
        )
        with open_session(section.settings) as session:
            for row in rows:
                save(session, row, replace=True)
        if task.image.type == "difference":
            n_fluxes, n_epochs = n_fluxes + len(rows), n_epochs + 1
    return Made(None, None, {"n_fluxes": n_fluxes, "n_epochs": n_epochs})


FORCE_STEP = Step(
    "forced_photometry",
    "Flux of every object at every epoch, detected or not.",
    ("subtraction", "measurement"),
    _make_forced,
    lambda section: not missing(section),
)
