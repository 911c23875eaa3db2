"""The steps from a calibrated image to what changed: subtraction, detections, cutouts, measurement."""

import numpy as np
from sqlalchemy import select

from seechange_core.chain import load
from seechange_core.chain.choice import ReferenceChoice, references_for
from seechange_core.chain.objects import assign_objects, delete_sightings
from seechange_core.chain.quality import bits_of_zero_points
from seechange_core.chain.reference_sets import outdated_references
from seechange_core.chain.section import Section, has_file
from seechange_core.chain.step import Made, Step
from seechange_core.chain.surroundings import surroundings
from seechange_core.errors import InReference, NoReference, Stop
from seechange_core.frames import Detections, Stamps, SubtractionFrame
from seechange_core.products.base import save
from seechange_core.products.cutouts import Cutouts, read_stamps, write_cutouts
from seechange_core.products.image import Image, save_image
from seechange_core.products.measurement import Measurement, make_measurements
from seechange_core.products.reference import set_references
from seechange_core.products.sighting import Sighting, make_sightings
from seechange_core.products.source_list import SourceList
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.qa.charts import beside, histogram
from seechange_core.qa.metrics import metrics
from seechange_core.qa.preview import Marks, thumb
from seechange_core.qa.samples import score_counts
from seechange_core.qa.strips import triplet_strip
from seechange_core.stages import judge
from seechange_core.stages.cut import CutParams, cut
from seechange_core.stages.detect import DetectParams, detect, search_depth
from seechange_core.stages.measure import MeasureParams, measure
from seechange_core.stages.quality_limits import QualityParams
from seechange_core.stages.subtract import SubtractParams, subtract
from seechange_core.storage.engine import open_session

# --- subtraction ----------------------------------------------------------------------------------


def _references_used(section: Section) -> tuple[str, ...]:
    choice = section.product("references", lambda: references_for(section))
    return (*(row.data_version for row in choice.rows), *choice.containing)


def _none_left(section: Section, choice: ReferenceChoice, stop: Stop | None = None) -> Stop:
    """Say why there is too little to subtract: references of itself, of other code or parameters, or none."""
    place = {"exposure": section.exposure.name, "section": section.section}
    if choice.containing:
        return InReference(
            "its only reference was made with this exposure",
            cure="build the reference with --leave-one-out, or from other nights",
            **place,
        )
    words = stop.message if stop else f"references in {section.band} cover 0.000 of it"
    corners = section.needed(WorldCoordinates, "world_coordinates").corners or []
    key = (section.exposure.instrument, section.band, section.provenance_id("reference"))
    with open_session(section.settings, read_only=True) as session:
        outdated = outdated_references(session, corners, *key)
    if outdated:
        return NoReference(
            f"{words}; made with other code or parameters, and so used no longer: {', '.join(outdated)}",
            cure=f"make them anew: seechange reference build --use --filter {section.band}; or put back the "
            "settings that they were made with",
            **place,
        )
    return stop or NoReference(
        words,
        cure="build one: seechange reference build",
        **place,
    )


def _make_subtraction(section: Section) -> Made:
    choice = section.product("references", lambda: references_for(section))
    if not choice.rows:
        raise _none_left(section, choice)
    references = [
        rows.read(section.archive, row.region) for row, rows in zip(choice.rows, choice.parts, strict=True)
    ]
    try:
        frame = subtract(load.calibrated(section), references, section.params(SubtractParams, "subtract"))
    except NoReference as stop:
        raise _none_left(section, choice, stop) from None
    new = section.needed(Image, "image")
    row = Image(
        type="difference",
        exposure_id=new.exposure_id,
        section_id=new.section_id,
        new_image_id=new.id,
        instrument=new.instrument,
        filter=new.filter,
        mjd_start=new.mjd_start,
        mjd_mid=new.mjd_mid,
        header=new.header,
        provenance_id=section.provenance_id("subtraction"),
        data_version=section.versions["subtraction"],
    ).cover(load.wcs(section))
    row.write_subtraction(section.archive, frame, section.place)
    used = [section.needed(ZeroPoint, "zero_point"), *(part.zero_point for part in choice.parts)]
    verdict = judge.GOOD
    if frame.common_stars is not None:
        zp_err = float(np.sqrt(used[0].zp_err ** 2 + max(z.zp_err for z in used[1:]) ** 2))
        limits = section.params(QualityParams, "quality")
        verdict = judge.judge_registration(frame.common_stars, zp_err, limits)
    with open_session(section.settings) as session:
        row.bitflag = bits_of_zero_points(session, used) | int(verdict.flags)
        row = save_image(session, row)
        set_references(session, row, [r.id for r in choice.rows])
    section.products["difference"] = frame
    small = thumb(frame.image.data, frame.image.flags, signed=True, max_bytes=7400)
    picture = beside(small, histogram(score_counts(frame.score, frame.image.flags)))
    return Made(str(row.id), row.filepath, metrics(frame), picture, row.bitflag, verdict.words)


def difference(section: Section) -> SubtractionFrame:
    """Return the section's difference image."""
    return section.product(
        "difference", lambda: section.needed(Image, "subtraction").read_subtraction(section.archive)
    )


# --- detections -----------------------------------------------------------------------------------


def _make_detections(section: Section) -> Made:
    frame = difference(section)
    params = section.params(DetectParams, "detect")
    found, depth = detect(frame, params), search_depth(frame, params)
    verdict = judge.judge_detections(len(found), depth, section.params(QualityParams, "quality"))
    image = section.needed(Image, "subtraction")
    row = SourceList(
        image_id=image.id,
        provenance_id=section.provenance_id("detections"),
        data_version=section.versions["detections"],
    )
    row.write(section.archive, found, section.place)
    row.take_depth(depth, image.zero_point(load.zero_point(section)))
    with open_session(section.settings) as session:
        own = select(Image.bitflag).where(Image.id == image.id).with_for_update()
        row.bitflag = session.scalars(own).one() | int(verdict.flags)
        row = save(session, row, replace=True)
        for sighting in make_sightings(row, found, load.wcs(section), section.exposure.mjd_mid):
            save(session, sighting)
        beyond = (Sighting.source_list_id == row.id) & (Sighting.number >= len(found))
        delete_sightings(session, beyond)
    section.products["detections"] = found
    picture = thumb(frame.score, None, Marks(found.x, found.y), signed=True)
    figures = metrics(found) | metrics(depth)
    if row.limiting_mag is not None:
        figures["limiting_mag"] = row.limiting_mag
    return Made(str(row.id), row.filepath, figures, picture, row.bitflag, verdict.words)


def detections(section: Section) -> Detections:
    """Return the section's detections."""
    return section.product(
        "detections", lambda: section.needed(SourceList, "detections").read_detections(section.archive)
    )


def _sightings(section: Section) -> list[Sighting]:
    source_list = section.needed(SourceList, "detections")
    query = select(Sighting).where(Sighting.source_list_id == source_list.id).order_by(Sighting.number)
    with open_session(section.settings, read_only=True) as session:
        return list(session.scalars(query))


# --- cutouts --------------------------------------------------------------------------------------


def _make_cutouts(section: Section) -> Made:
    made = cut(
        load.calibrated(section), difference(section), detections(section), section.params(CutParams, "cut")
    )
    rows = write_cutouts(
        section.archive,
        made,
        _sightings(section),
        section.place,
        provenance_id=section.provenance_id("cutouts"),
        data_version=section.versions["cutouts"],
    )
    with open_session(section.settings) as session:
        for row in rows:
            save(session, row, replace=True)
    section.products["stamps"] = made
    path = rows[0].filepath if rows else None
    picture = triplet_strip(made, detections(section).score) if rows else None
    return Made(None, path, {"n_cutouts": len(rows)}, picture)


def cutouts(section: Section) -> list[Cutouts]:
    """Return the rows of the section's cutouts, in the order of its detections."""
    ids = [s.id for s in _sightings(section)]
    query = select(Cutouts).where(
        Cutouts.sighting_id.in_(ids), Cutouts.provenance_id == section.provenance_id("cutouts")
    )
    with open_session(section.settings, read_only=True) as session:
        return list(session.scalars(query.order_by(Cutouts.number)))


def _has_cutouts(section: Section) -> bool:
    rows = cutouts(section)
    one_of_each_file = {row.filepath: row for row in rows}.values()
    return len(rows) == len(_sightings(section)) and all(
        has_file(row, section.archive) for row in one_of_each_file
    )


def stamps(section: Section, rows: list[Cutouts]) -> Stamps:
    """Return the stamps of the section's cutouts, of which there is at least one."""
    return section.product("stamps", lambda: read_stamps(section.archive, rows[0]))


# --- measurement ----------------------------------------------------------------------------------


def _make_measurement(section: Section) -> Made:
    rows = cutouts(section)
    if not rows:
        assign_objects(section, [])
        return Made(None, None, {"n_measurements": 0, "n_good": 0, "n_new_objects": 0})
    frame = difference(section)
    measured = measure(
        stamps(section, rows),
        detections(section),
        frame.psf,
        section.params(MeasureParams, "measure"),
        frame.image.gain,
        surroundings(section),
        frame.translient,
    )
    made = make_measurements(
        section.needed(Image, "subtraction"),
        rows,
        measured,
        load.wcs(section),
        section.needed(ZeroPoint, "zero_point"),
        section.exposure.mjd_mid,
        section.provenance_id("measurement"),
    )
    n_new = assign_objects(section, made)
    picture = triplet_strip(stamps(section, rows), detections(section).score, ~measured.is_bad)
    return Made(None, None, {**metrics(measured), "n_new_objects": n_new}, picture)


def _has_measurements(section: Section) -> bool:
    ids = [row.id for row in cutouts(section)]
    query = select(Measurement.id).where(
        Measurement.cutouts_id.in_(ids), Measurement.provenance_id == section.provenance_id("measurement")
    )
    with open_session(section.settings, read_only=True) as session:
        return len(list(session.scalars(query))) == len(ids)


CHANGE_STEPS: tuple[Step, ...] = (
    Step(
        "subtraction",
        "Difference from the reference, with its score image and PSF.",
        ("zero_point",),
        _make_subtraction,
        lambda section: section.has_file(Image, "subtraction"),
        _references_used,
        ("reference",),
    ),
    Step(
        "detections",
        "What changed: peaks and troughs of the score image.",
        ("subtraction",),
        _make_detections,
        lambda section: section.has_file(SourceList, "detections"),
    ),
    Step(
        "cutouts",
        "Stamps of the new, reference and difference images around each detection.",
        ("detections",),
        _make_cutouts,
        _has_cutouts,
    ),
    Step(
        "measurement",
        "Fluxes, shapes and quality of each detection, and the object it belongs to.",
        ("cutouts",),
        _make_measurement,
        _has_measurements,
    ),
)
