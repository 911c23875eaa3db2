"""Questions people ask of the survey: what exists, what is outdated, what changed tonight."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Row, Select, func, select

from seechange_core.chain.choice import not_marked_bad
from seechange_core.chain.lineage import provenances
from seechange_core.chain.quality import flagged
from seechange_core.chain.steps import STEPS
from seechange_core.errors import NotFoundError
from seechange_core.flags import QualityFlag, names
from seechange_core.instrument import get_instrument_instance
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.reference import Reference
from seechange_core.products.sighting import Sighting
from seechange_core.products.source_list import SourceList
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.judge import flags_of_stop
from seechange_core.storage.engine import open_session


def exposures(
    settings: Settings,
    names: Sequence[str] | None = None,
    instrument: str | None = None,
    *,
    night: str | None = None,
) -> list[Exposure]:
    """Return science exposures that are not marked bad, the earliest first.

    Raises
    ------
    NotFoundError
        Naming an exposure asked for that does not exist.
    """
    query = select(Exposure).where(Exposure.type == "science", not_marked_bad()).order_by(Exposure.mjd)
    if names is not None:
        query = query.where(Exposure.name.in_(list(names)))
    if instrument is not None:
        query = query.where(Exposure.instrument == instrument)
    if night is not None:
        query = query.where(Exposure.night == night)
    with use_settings(settings), open_session(settings, read_only=True) as session:
        found = list(session.scalars(query))
    unknown = sorted(set(names or ()) - {row.name for row in found})
    if unknown:
        raise NotFoundError(
            "no such science exposure", exposure=", ".join(unknown), cure="`seechange show` lists them"
        )
    return found


@dataclass(frozen=True)
class StatusRow:
    """What became of one step of one section under one provenance.

    Attributes
    ----------
    outdated
        It was made, and the present settings would make it differently and have not done so yet; never of a
        section that the camera no longer has.
    current
        Made under the present settings.
    quality
        Names of the `QualityFlag` bits of its product, or of those that the reason of a stop stands for.
    """

    exposure: str
    section: str
    step: str
    status: str
    reason: str
    message: str
    provenance: str
    outdated: bool
    current: bool
    metrics: dict[str, float] = field(default_factory=dict)
    quality: tuple[str, ...] = ()


def status(settings: Settings, exposures: Sequence[str] | None = None) -> list[StatusRow]:
    """Tell what exists, by exposure, section and step, one row for each provenance that made it."""
    query = (
        select(Exposure.name, Exposure.instrument, StepOutcome)
        .join(StepOutcome, StepOutcome.exposure_id == Exposure.id)
        .order_by(Exposure.mjd, StepOutcome.section_id, StepOutcome.id)
    )
    if exposures is not None:
        query = query.where(Exposure.name.in_(list(exposures)))
    with use_settings(settings), open_session(settings, read_only=True) as session:
        rows = list(session.execute(query))
        bits = flagged(session, exposures)
        current = {
            instrument: {name: key.id for name, key in provenances(settings, instrument).items()}
            for instrument in {row[1] for row in rows}
        }
        sections = {i: {str(s) for s in get_instrument_instance(i).get_section_ids()} for i in current}
    made = {(n, o.section_id, o.step) for n, i, o in rows if current[i].get(o.step) == o.provenance_id}
    order = {step.name: n for n, step in enumerate(STEPS)}
    settled = made | {(n, o.section_id, o.step) for n, i, o in rows if o.section_id not in sections[i]}
    result = [_status_row(name, o, current[instrument], settled, bits) for name, instrument, o in rows]
    rank = {name: n for n, name in enumerate(dict.fromkeys(row.exposure for row in result))}
    return sorted(result, key=lambda r: (rank[r.exposure], r.section, order.get(r.step, len(order))))


def _status_row(
    name: str,
    row: StepOutcome,
    current: dict[str, str],
    settled: set[tuple[str, str, str]],
    bits: dict[tuple[str, str], int],
) -> StatusRow:
    is_current = current.get(row.step) == row.provenance_id
    own = bits.get((row.step, row.data_version), 0) if row.status == "done" else 0
    flags = own or flags_of_stop(row.step, row.reason)
    return StatusRow(
        exposure=name,
        section=row.section_id,
        step=row.step,
        status=row.status,
        reason=row.reason,
        message=row.message,
        provenance=row.provenance_id,
        outdated=not is_current and (name, row.section_id, row.step) not in settled,
        current=is_current,
        metrics={k: float(v) for k, v in row.metrics.items() if v is not None},
        quality=tuple(names(flags, QualityFlag)),
    )


@dataclass(frozen=True)
class CandidateRow:
    """One good detection of something that changed; `quality` names what is bad about its image."""

    object: str
    ra: float
    dec: float
    exposure: str
    section: str
    night: str
    mjd_mid: float
    filter: str
    score: float
    mag: float | None
    mag_err: float | None
    n_sightings: int
    quality: str


def candidates(
    settings: Settings, night: str | None = None, *, limit: int | None = None
) -> list[CandidateRow]:
    """List what changed under the present settings: good detections that belong to an object, best first.

    Parameters
    ----------
    settings
        Whose.
    night
        Local date, YYYY-MM-DD; None for all nights.
    limit
        At most so many.
    """
    query = _candidate_query()
    if night is not None:
        query = query.where(Exposure.night == night)
    if limit is not None:
        query = query.limit(limit)
    with use_settings(settings), open_session(settings, read_only=True) as session:
        instruments = session.scalars(select(Exposure.instrument).distinct()).all()
        ids = [provenances(settings, i)["measurement"].id for i in instruments]
        rows = list(session.execute(query.where(Measurement.provenance_id.in_(ids))))
    return [_candidate(row) for row in rows]


def _candidate_query() -> Select[Measurement, Sighting, Object, Exposure, Image]:
    return (
        select(Measurement, Sighting, Object, Exposure, Image)
        .join(Sighting, Sighting.id == Measurement.sighting_id)
        .join(Object, Object.id == Measurement.object_id)
        .join(SourceList, SourceList.id == Sighting.source_list_id)
        .join(Image, Image.id == SourceList.image_id)
        .join(Exposure, Exposure.id == Image.exposure_id)
        .where(Measurement.is_bad.is_(False), Object.is_bad.is_(False))
        .order_by(func.abs(Sighting.score).desc())
    )


def _candidate(row: Row[Measurement, Sighting, Object, Exposure, Image]) -> CandidateRow:
    measurement, sighting, found, exposure, image = row
    return CandidateRow(
        object=found.name,
        ra=found.ra,
        dec=found.dec,
        exposure=exposure.name,
        section=image.section_id,
        night=exposure.night,
        mjd_mid=measurement.mjd_mid,
        filter=image.filter,
        score=sighting.score,
        mag=measurement.mag,
        mag_err=measurement.mag_err,
        n_sightings=found.n_sightings,
        quality=" ".join(names(image.bitflag, QualityFlag)),
    )


@dataclass(frozen=True)
class ReferenceRow:
    """One reference."""

    region: str
    filter: str
    ref_set: str
    instrument: str
    n_images: int
    fwhm_pix: float | None
    limiting_mag: float | None
    left_out: str | None
    provenance: str
    current: bool


def list_references(settings: Settings) -> list[ReferenceRow]:
    """List the references, those of the present settings marked, the newest first."""
    query = (
        select(Reference, Image.fwhm_pix, ZeroPoint.limiting_mag, Exposure.name)
        .join(Image, Image.id == Reference.image_id)
        .join(ZeroPoint, ZeroPoint.id == Reference.zero_point_id)
        .outerjoin(Exposure, Exposure.id == Reference.left_out_exposure_id)
        .order_by(Reference.region, Reference.filter, Reference.id.desc())
    )
    with use_settings(settings), open_session(settings, read_only=True) as session:
        rows = list(session.execute(query))
        names = {row[0].instrument for row in rows}
        current = {provenances(settings, name)["reference"].id for name in names}
    return [
        ReferenceRow(
            region=row.region,
            filter=row.filter,
            ref_set=row.ref_set,
            instrument=row.instrument,
            n_images=row.n_images,
            fwhm_pix=fwhm_pix,
            limiting_mag=limit,
            left_out=left_out,
            provenance=row.provenance_id,
            current=row.provenance_id in current,
        )
        for row, fwhm_pix, limit, left_out in rows
    ]
