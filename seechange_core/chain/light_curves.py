"""Light curves: of an object from its forced fluxes, or of any place on the sky from the pixels."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from seechange_core.chain.could_see import found_in_half, search_depths
from seechange_core.chain.light_curve_table import LightCurveTable
from seechange_core.chain.lineage import provenances
from seechange_core.chain.load import CalibratedRows, rows_of_reference, rows_of_zero_points, zero_points_of
from seechange_core.chain.reference_flux import (
    InReference,
    coadds_of,
    forced_in_references,
    rise_of,
    subtracted_at,
    times_of,
    with_references,
)
from seechange_core.chain.steps_force import measure_difference, measure_image
from seechange_core.errors import NotFoundError
from seechange_core.frames import Depth, Float, ForcedFluxes, Sources, WcsSolution, ZeroPointSolution
from seechange_core.numerics.timing import bjd_tdb
from seechange_core.products.base import Corners, overlapping
from seechange_core.products.exposure import Exposure
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.image import Image
from seechange_core.products.object import Object, find_objects, objects_named
from seechange_core.products.outcome import StepOutcome, made_by
from seechange_core.products.verdict import not_called_bad
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.force import ForceParams
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

Kind = Literal["image", "difference"]


def object_named(settings: Settings, name: str) -> Object:
    """Return the object that has a name, or had it before it was renamed or merged.

    Of several settings, that of the present ones, else the newest.

    Raises
    ------
    NotFoundError
        If there is none of that name.
    """
    with use_settings(settings), open_session(settings, read_only=True) as session:
        rows = objects_named(session, name)
        present = present_provenances(session, settings, "measurement") if len(rows) > 1 else set()
    if not rows:
        raise NotFoundError(f"there is no object {name!r}", cure="`seechange candidates` lists them")
    return next((row for row in rows if row.provenance_id in present), rows[0])


def object_near(
    settings: Settings, ra: float, dec: float, radius_arcsec: float
) -> tuple[Object, float] | None:
    """Return the object nearest to a place and its distance in arcsec, if there is one within a radius.

    Objects of other settings than the present ones, and those marked bad, do not count.
    """
    with use_settings(settings), open_session(settings, read_only=True) as session:
        ids = present_provenances(session, settings, "measurement")
        query = select(Object).where(Object.provenance_id.in_(ids), Object.is_bad.is_(False))
        found = find_objects(session, ra, dec, radius_arcsec, query)
    return found[0] if found else None


def object_light_curve(settings: Settings, name: str, quiet_before: float | None = None) -> LightCurveTable:
    """Return the forced fluxes of an object in all differences, also from before it was found.

    Exposures that someone called bad are left out.

    Parameters
    ----------
    settings
        Whose.
    name
        Present or earlier name.
    quiet_before
        Before that the object did not shine, MJD; None: see `rise_of`.

    Raises
    ------
    NotFoundError
        If there is no such object.
    """
    found = object_named(settings, name)
    query = (
        select(ForcedFlux, Exposure.name, Image.section_id, Image.bitflag, ZeroPoint.band, Image.gain)
        .join(Image, Image.id == ForcedFlux.image_id)
        .join(ZeroPoint, ZeroPoint.id == ForcedFlux.zero_point_id)
        .join(Exposure, Exposure.id == Image.exposure_id)
        .join(StepOutcome, made_by(Image, Image, "subtraction"))
        .where(ForcedFlux.object_id == found.id, not_called_bad(Image.exposure_id, Image.section_id))
        .order_by(ForcedFlux.mjd_mid, Image.section_id, ForcedFlux.id)
    )
    with use_settings(settings), open_session(settings, read_only=True) as session:
        every = list(session.execute(query))
        present = present_provenances(session, settings, "forced_photometry")
        # Measured with several parameters: the present ones count, else those used last.
        chosen = {row[0].image_id: row for row in sorted(every, key=lambda r: r[0].provenance_id in present)}
        rows = sorted(chosen.values(), key=lambda row: (row[0].mjd_mid, row[2]))
        ids = [row[0].image_id for row in rows]
        references = forced_in_references(session, Archive(settings), found, ids, present)
        depths = search_depths(session, ids, sorted(present_provenances(session, settings, "detections")))
        curve = _table([(f, exposure, section, bits, band) for f, exposure, section, bits, band, _ in rows])
        rise = quiet_before
        if rise is None:
            rise = rise_of(session, found, with_references(curve, ids, references, None), ids, references)
    places = {"x": np.array([f.x for f, *_ in rows], float), "y": np.array([f.y for f, *_ in rows], float)}
    depth = _found_in_half(curve, [depths.get(i) for i in ids], [row[-1] for row in rows], places)
    return with_references(replace(curve, depth_flux=depth), ids, references, rise)


def _found_in_half(
    curve: LightCurveTable,
    depths: Sequence[Depth | None],
    gains: Sequence[float],
    places: Mapping[str, Float],
) -> Float:
    """Return what the searches of a light curve's differences find at its places (see `found_in_half`)."""
    columns = {"flux": curve.flux, "flux_err": curve.flux_err, "flags": curve.flags, **places}
    return np.array(
        [
            found_in_half(depth, {name: column[k] for name, column in columns.items()}, gain)
            for k, (depth, gain) in enumerate(zip(depths, gains, strict=True))
        ],
        float,
    )


def _table(rows: Sequence[tuple[ForcedFlux, str, str, int, str]]) -> LightCurveTable:
    """Make a light curve of rows: a flux, its exposure, section, quality bits and band of the catalog."""
    nan = np.nan
    return LightCurveTable(
        exposure=np.array([name for _, name, *_ in rows]),
        section=np.array([section for _, _, section, *_ in rows]),
        filter=np.array([f.filter for f, *_ in rows]),
        mjd_mid=np.array([f.mjd_mid for f, *_ in rows]),
        bjd_tdb=np.array([nan if f.bjd_tdb is None else f.bjd_tdb for f, *_ in rows]),
        flux=np.array([nan if f.flux is None else f.flux for f, *_ in rows]),
        flux_err=np.array([nan if f.flux_err is None else f.flux_err for f, *_ in rows]),
        zp=np.array([f.zp for f, *_ in rows]),
        zp_err=np.array([f.zp_err for f, *_ in rows]),
        flags=np.array([f.flags for f, *_ in rows], dtype=np.int64),
        quality=np.array([bits for *_, bits, _ in rows], dtype=np.int64),
        band=np.array([band for *_, band in rows]),
        chi2=np.array([nan if f.chi2 is None else f.chi2 for f, *_ in rows]),
        usable_fraction=np.array([f.usable_fraction for f, *_ in rows]),
    )


@dataclass(frozen=True)
class Epoch:
    """One image that covers a place, with all that is needed to measure there."""

    exposure: Exposure
    rows: CalibratedRows
    difference: Image | None

    @property
    def bitflag(self) -> int:
        """`QualityFlag` bits of what is measured."""
        return (self.rows.zero_point if self.difference is None else self.difference).bitflag

    @property
    def zero_point(self) -> ZeroPointSolution:
        """The zero point of what is measured: the image's, or of a difference the references'."""
        own = self.rows.zero_point.solution()
        return own if self.difference is None else self.difference.zero_point(own)

    def zp_at(self, ra: Float, dec: Float) -> Float:
        """Return that zero point at sky positions."""
        return self.zero_point.zp_at(*self.rows.wcs.solution().to_pixels(ra, dec))

    def sources(self, archive: Archive) -> tuple[Sources, WcsSolution]:
        """Return the image's sources and its astrometric solution."""
        return self.rows.source_list.read(archive), self.rows.wcs.solution()


def epochs_at(settings: Settings, ra: float, dec: float, on: Kind) -> list[Epoch]:
    """Return the present images (or differences) that cover a place, the earliest first."""
    return _epochs(settings, on, [[ra, dec]])


def all_epochs(settings: Settings, on: Kind) -> list[Epoch]:
    """Return all present images (or differences), the earliest first."""
    return _epochs(settings, on, None)


def _epochs(settings: Settings, on: Kind, corners: Corners | None) -> list[Epoch]:
    with open_session(settings, read_only=True) as session:
        pairs = (_solved if on == "image" else _subtracted)(session, settings, corners)
        parts = rows_of_zero_points(session, [zero_point for zero_point, _ in pairs])
        ids = {part.image.exposure_id for part in parts}
        exposures = {e.id: e for e in session.scalars(select(Exposure).where(Exposure.id.in_(ids)))}
    epochs = [
        Epoch(exposures[part.image.exposure_id], part, difference)
        for part, (_, difference) in zip(parts, pairs, strict=True)
        if part.image.exposure_id is not None
    ]
    return sorted(epochs, key=lambda e: (e.exposure.mjd, e.rows.image.section_id))


def _done(session: Session, settings: Settings, step: str) -> ColumnElement[bool]:
    """Make the condition that an outcome is a success of a step under the present settings.

    What a person called bad does not count.
    """
    ids = present_provenances(session, settings, step)
    return and_(
        StepOutcome.step == step,
        StepOutcome.status == "done",
        StepOutcome.provenance_id.in_(ids),
        not_called_bad(StepOutcome.exposure_id, StepOutcome.section_id),
    )


def present_provenances(session: Session, settings: Settings, process: str) -> set[str]:
    """Return the ids of a process's provenances under the present settings, one for each instrument."""
    instruments = session.scalars(select(Exposure.instrument).distinct())
    return {provenances(settings, name)[process].id for name in instruments}


def _solved(
    session: Session, settings: Settings, corners: Corners | None
) -> list[tuple[uuid.UUID, Image | None]]:
    """Return the zero points of present images."""
    query = (
        select(ZeroPoint.id, ZeroPoint.world_coordinates_id)
        .join(StepOutcome, StepOutcome.data_version == ZeroPoint.data_version)
        .where(_done(session, settings, "zero_point"))
    )
    rows = [(row[0], row[1]) for row in session.execute(query)]
    if corners is not None:
        covering = {w.id for w in overlapping(session, select(WorldCoordinates), corners)}
        rows = [row for row in rows if row[1] in covering]
    return [(zero_point, None) for zero_point, _ in rows]


def _subtracted(
    session: Session, settings: Settings, corners: Corners | None
) -> list[tuple[uuid.UUID, Image | None]]:
    """Return the present differences with the zero points of their new images."""
    query = (
        select(Image)
        .join(StepOutcome, StepOutcome.data_version == Image.data_version)
        .where(_done(session, settings, "subtraction"))
    )
    images = overlapping(session, query, corners) if corners else list(session.scalars(query))
    own = zero_points_of(session, images, present_provenances(session, settings, "zero_point"))
    return [(own[i.id], i) for i in images if i.id in own]


def force_epoch(settings: Settings, epoch: Epoch, ra: Float, dec: Float, on: Kind) -> ForcedFluxes:
    """Force the flux at sky positions in one epoch, electrons, NaN off the image."""
    archive = Archive(settings)
    params = settings.params(ForceParams, "force", epoch.exposure.instrument)
    if on == "difference" and epoch.difference is not None:
        image, psf = epoch.difference.open_subtraction(archive)
        return measure_difference(image, psf, epoch.rows.wcs.solution(), ra, dec, params)
    return measure_image(epoch.rows, archive, ra, dec, params)


def position_light_curve(
    settings: Settings,
    ra: float,
    dec: float,
    on: Kind = "difference",
    quiet_before: float | None = None,
) -> LightCurveTable:
    """Force the flux at a place in every present image or difference that covers it.

    Parameters
    ----------
    settings
        Whose.
    ra, dec
        ICRS deg.
    on
        ``image``: all light there, on the calibrated images; ``difference``: what changed.
    quiet_before
        Before that nothing shone there but what always does, MJD; None if that is not known.

    Raises
    ------
    NotFoundError
        If nothing covers the place.
    """
    with use_settings(settings):
        epochs = epochs_at(settings, ra, dec, on)
        if not epochs:
            raise NotFoundError(
                f"no {on} covers ra {ra:.5f} dec {dec:.5f}",
                cure="process exposures of that field"
                + (", or try --on image" if on == "difference" else ""),
            )
        place = np.array([ra]), np.array([dec])
        measured = [force_epoch(settings, e, *place, on) for e in epochs]
        bjd = [
            float(bjd_tdb(e.exposure.mjd_mid, ra, dec, e.exposure.site)) if e.exposure.site else np.nan
            for e in epochs
        ]
        references = _in_references(settings, epochs, ra, dec) if on == "difference" else {}
    zero_points = [e.zero_point for e in epochs]
    curve = LightCurveTable(
        exposure=np.array([e.exposure.name for e in epochs]),
        section=np.array([e.rows.image.section_id for e in epochs]),
        filter=np.array([e.rows.image.filter for e in epochs]),
        mjd_mid=np.array([e.exposure.mjd_mid for e in epochs]),
        bjd_tdb=np.array(bjd),
        flux=np.array([m.flux[0] for m in measured]),
        flux_err=np.array([m.flux_err[0] for m in measured]),
        zp=np.array([e.zp_at(*place)[0] for e in epochs]),
        zp_err=np.array([z.zp_err for z in zero_points]),
        flags=np.array([m.flags[0] for m in measured], dtype=np.int64),
        quality=np.array([e.bitflag for e in epochs], dtype=np.int64),
        band=np.array([z.band for z in zero_points]),
        chi2=np.array([m.chi2[0] for m in measured]),
        usable_fraction=np.array([m.usable_fraction[0] for m in measured]),
    )
    ids = [e.difference.id if e.difference is not None else uuid.UUID(int=0) for e in epochs]
    if any(e.difference is not None for e in epochs):
        with open_session(settings, read_only=True) as session:
            depths = search_depths(session, ids, sorted(present_provenances(session, settings, "detections")))
        places = {"x": np.array([m.x[0] for m in measured]), "y": np.array([m.y[0] for m in measured])}
        gains = [e.difference.gain if e.difference is not None else 1.0 for e in epochs]
        depth = _found_in_half(curve, [depths.get(i) for i in ids], gains, places)
        curve = replace(curve, depth_flux=depth)
    return with_references(curve, ids, references, quiet_before)


def _in_references(
    settings: Settings, epochs: Sequence[Epoch], ra: float, dec: float
) -> dict[uuid.UUID, InReference]:
    """Force the flux at a place in the references of epochs' differences, each reference once."""
    archive = Archive(settings)
    ids = [e.difference.id for e in epochs if e.difference is not None]
    if not ids:
        return {}
    instruments = {e.difference.id: e.exposure.instrument for e in epochs if e.difference is not None}
    with open_session(settings, read_only=True) as session:
        coadds = coadds_of(session, ids)
        kinds = {r.image_id: r for of in coadds.values() for r in of}
        parts = {key: rows_of_reference(session, r) for key, r in kinds.items()}
        times = times_of(session, list(kinds))
    chosen: dict[tuple[uuid.UUID, ...], CalibratedRows] = {}
    measured: dict[uuid.UUID, InReference] = {}
    found = {}
    for difference_id, references in coadds.items():
        keys = tuple(r.image_id for r in references)
        if keys not in chosen:
            chosen[keys] = subtracted_at([parts[key] for key in keys], archive, ra, dec)
        part, key = chosen[keys], chosen[keys].image.id
        if key not in measured:
            params = settings.params(ForceParams, "force", instruments[difference_id])
            fluxes = measure_image(part, archive, np.array([ra]), np.array([dec]), params)
            zp = float(part.zero_point.solution().zp_at(fluxes.x, fluxes.y)[0])
            mjd = times.get(key, np.empty(0))
            measured[key] = InReference(key, float(fluxes.flux[0]), float(fluxes.flux_err[0]), zp, mjd)
        found[difference_id] = measured[key]
    return found
