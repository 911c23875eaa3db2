"""Forced photometry: every object in every difference image that covers it, also before it was found."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.section import Section
from seechange_core.chain.step import Made, Step
from seechange_core.frames import ForcedFluxes, SubtractionFrame, WcsSolution
from seechange_core.numerics.sky import polygon_contains, separation
from seechange_core.numerics.timing import bjd_tdb
from seechange_core.products.base import overlapping, save
from seechange_core.products.forced_flux import ForcedFlux, make_forced_fluxes
from seechange_core.products.image import Image
from seechange_core.products.object import Object, find_objects
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.stages.force import ForceParams, force
from seechange_core.storage.engine import open_session

#: An object that has moved by more, as new sightings place it better, is measured anew at all epochs:
#: a quarter of a pixel off costs a hundredth of the flux in good seeing.
SAME_PLACE_PIX = 0.25


@dataclass(frozen=True)
class Task:
    """One difference image and the objects that still have no flux in it."""

    image: Image
    wcs: WorldCoordinates
    zero_point: ZeroPoint
    objects: tuple[Object, ...]


def missing(section: Section) -> list[Task]:
    """List what is still to be measured: objects in this section, in differences of any epoch.

    To do it again is to measure everything on this section's own difference anew.
    An object found here for the first time is measured at all earlier epochs; a known one at this
    epoch. Differences that a newer one of the same exposure has replaced are left out.
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
        done = _done(session, section, objects, SAME_PLACE_PIX * wcs.pixel_scale_arcsec)
        if section.redo:
            own = {i.id for i in images if i.data_version == section.versions["subtraction"]}
            done = {(object_id, image_id) for object_id, image_id in done if image_id not in own}
        tasks = []
        for image in images:
            left = tuple(
                o for o in objects if (o.id, image.id) not in done and _covers(image.corners or [], o)
            )
            if left:
                tasks.append(_task(session, section, image, left))
    return tasks


def _covers(corners: Sequence[Sequence[float]], found: Object) -> bool:
    ra, dec = zip(*corners, strict=True)
    return bool(polygon_contains(ra, dec, found.ra, found.dec))


def _current_differences(session: Session, section: Section, corners: list[list[float]]) -> list[Image]:
    provenance = section.provenance_id("subtraction")
    query = (
        select(Image)
        .join(StepOutcome, StepOutcome.data_version == Image.data_version)
        .where(
            Image.type == "difference",
            Image.filter == section.band,
            Image.provenance_id == provenance,
            StepOutcome.step == "subtraction",
            StepOutcome.status == "done",
        )
    )
    return overlapping(session, query, corners)


def _done(
    session: Session, section: Section, objects: Sequence[Object], tolerance_arcsec: float
) -> set[tuple[uuid.UUID, uuid.UUID]]:
    """Return the objects and images that have a flux at the object's place as it is known now."""
    query = select(ForcedFlux.object_id, ForcedFlux.image_id, ForcedFlux.ra, ForcedFlux.dec).where(
        ForcedFlux.object_id.in_([o.id for o in objects]),
        ForcedFlux.provenance_id == section.provenance_id("forced_photometry"),
    )
    places = {o.id: (o.ra, o.dec) for o in objects}
    return {
        (object_id, image_id)
        for object_id, image_id, ra, dec in session.execute(query)
        if float(separation(ra, dec, *places[object_id])) * 3600 <= tolerance_arcsec
    }


def _task(session: Session, section: Section, image: Image, objects: tuple[Object, ...]) -> Task:
    query = (
        select(WorldCoordinates, ZeroPoint)
        .join(ZeroPoint, ZeroPoint.world_coordinates_id == WorldCoordinates.id)
        .join(Image, Image.new_image_id == WorldCoordinates.image_id)
        .where(Image.id == image.id, ZeroPoint.provenance_id == section.provenance_id("zero_point"))
        .order_by(ZeroPoint.id.desc())
        .limit(1)
    )
    wcs, zero_point = session.execute(query).one()
    return Task(image, wcs, zero_point, objects)


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


def _make_forced(section: Section) -> Made:
    params = section.params(ForceParams, "force")
    n_fluxes, n_epochs = 0, 0
    for task in missing(section):
        ours = task.image.data_version == section.versions["subtraction"]
        frame = section.products.get("difference") if ours else None
        frame = frame or task.image.read_subtraction(section.archive)
        ra, dec = np.array([o.ra for o in task.objects]), np.array([o.dec for o in task.objects])
        fluxes = measure_difference(frame, task.wcs.solution(), ra, dec, params)
        site = section.exposure.site
        bjd = (
            bjd_tdb(np.full(len(ra), task.image.mjd_mid), ra, dec, site) if site else np.full(len(ra), np.nan)
        )
        rows = make_forced_fluxes(
            task.objects,
            fluxes,
            task.image,
            task.zero_point,
            bjd,
            section.provenance_id("forced_photometry"),
        )
        with open_session(section.settings) as session:
            for row in rows:
                save(session, row, replace=True)
        n_fluxes, n_epochs = n_fluxes + len(rows), n_epochs + 1
    return Made(None, None, {"n_fluxes": n_fluxes, "n_epochs": n_epochs})


FORCE_STEP = Step(
    "forced_photometry",
    "Flux of every object at every epoch, detected or not.",
    ("subtraction", "measurement"),
    _make_forced,
    lambda section: not missing(section),
)
