"""Forced photometry: every object in every difference image that covers it, also before it was found.

Whoever walks a section measures what is missing there: of a new exposure the fluxes of all known objects,
of a new object those in all differences there are, in every filter, whichever run made them. And once for
each reference, the flux that was there before: what the total flux of a light curve is made with.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.load import CalibratedRows, rows_of_zero_points, zero_points_of
from seechange_core.chain.section import Section
from seechange_core.chain.section_curves import section_curves
from seechange_core.chain.step import Made, Step
from seechange_core.chain.unmeasured import covered, unmeasured
from seechange_core.frames import ForcedFluxes, ImageFrame, PsfModel, SubtractionFrame, WcsSolution
from seechange_core.numerics.background import without_background
from seechange_core.numerics.timing import bjd_tdb
from seechange_core.products.base import overlapping
from seechange_core.products.forced_flux import make_forced_fluxes, save_forced_fluxes
from seechange_core.products.image import Image
from seechange_core.products.object import Object, find_objects
from seechange_core.products.outcome import StepOutcome, made_by
from seechange_core.products.reference import Reference, image_references
from seechange_core.products.verdict import not_called_bad
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.qa.charts import small_png
from seechange_core.qa.strips import curve_panels
from seechange_core.stages.force import ForceParams, force
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

_TASKS = "forced photometry that is missing"
#: Light curves in the thumbnail.
CURVES_SHOWN = 12


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
    epoch; one that a person calls bogus at none, until that is taken back: then at all that were left out.
    Differences that a newer one of the same exposure has replaced are left out, and those of exposures that
    someone called bad.
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
        near = [found for found, _ in find_objects(session, wcs.ra, wcs.dec, radius_arcsec, mine)]
        objects = [near[i] for i in np.flatnonzero(covered(corners, near)).tolist()]
        images = _current_differences(session, section, corners) if objects else []
        zero_points = zero_points_of(session, images, [section.provenance_id("zero_point")])
        coadds = dict(_coadds(session, images))
        zero_points |= {image.id: zero_point for image, zero_point in coadds.items()}
        images = [image for image in [*images, *coadds] if image.id in zero_points]
        width_arcsec = {i.id: (i.fwhm_pix or 2.0) * wcs.pixel_scale_arcsec for i in images}
        forced = section.provenance_id("forced_photometry")
        left = unmeasured(session, forced, objects, images, width_arcsec)
        for i, image in enumerate(images):
            if section.redo and image.data_version == section.versions["subtraction"]:
                left[i] = covered(image.corners, objects)
        wanted = np.flatnonzero(left.any(axis=1)).tolist()
        rows = rows_of_zero_points(session, [zero_points[images[i].id] for i in wanted])
    return [
        Task(images[i], part, tuple(objects[k] for k in np.flatnonzero(left[i]).tolist()))
        for i, part in zip(wanted, rows, strict=True)
    ]


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


def _coadds(session: Session, differences: Sequence[Image]) -> list[tuple[Image, uuid.UUID]]:
    """Return the coadds of the references that differences were made with, and their zero points."""
    used = select(image_references.c.reference_id).where(
        image_references.c.difference_id.in_([i.id for i in differences])
    )
    query = (
        select(Image, Reference.zero_point_id)
        .join(Reference, Reference.image_id == Image.id)
        .where(Reference.id.in_(used))
        .order_by(Reference.id)
    )
    return [(image, zero_point) for image, zero_point in session.execute(query)]


def measure_difference(
    image: ImageFrame, psf: PsfModel, wcs: WcsSolution, ra: np.ndarray, dec: np.ndarray, params: ForceParams
) -> ForcedFluxes:
    """Force the flux at sky positions on a difference, of which only the rows around them are read.

    Its weights hold the noise of the sky and of all light that was there before; the photons of what is
    new are added by the fit.
    """
    x, y = wcs.to_pixels(ra, dec)
    return force(image.data, image.weight, image.flags, psf, x, y, image.gain, params)


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
    frame: SubtractionFrame | None = section.products.get("difference") if ours else None
    image, psf = (frame.image, frame.psf) if frame else task.image.open_subtraction(section.archive)
    return measure_difference(image, psf, task.rows.wcs.solution(), ra, dec, params)


def _make_forced(section: Section) -> Made:
    n_fluxes, n_epochs = 0, 0
    # What was found missing a moment ago need not be looked for again.
    for task in section.products.pop(_TASKS, None) or missing(section):
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
            n_saved = save_forced_fluxes(session, rows)
        if task.image.type == "difference":
            n_fluxes, n_epochs = n_fluxes + n_saved, n_epochs + 1
    curves = section_curves(section, CURVES_SHOWN)
    picture = small_png(curve_panels(curves, section.exposure.mjd_mid)) if curves else None
    return Made(None, None, {"n_fluxes": n_fluxes, "n_epochs": n_epochs}, picture)


def _is_complete(section: Section) -> bool:
    tasks = section.products[_TASKS] = missing(section)
    return not tasks


FORCE_STEP = Step(
    "forced_photometry",
    "Flux of every object at every epoch, detected or not.",
    ("subtraction", "measurement"),
    _make_forced,
    _is_complete,
)
