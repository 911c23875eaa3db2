"""Quality flags in the database: those of a step's product, and those that take a whole night to know."""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from operator import or_ as either
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Select, and_, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from seechange_core.chain.choice import not_marked_bad
from seechange_core.chain.section import Section
from seechange_core.flags import QUALITY_MEANINGS, QualityFlag
from seechange_core.products.base import save
from seechange_core.products.catalog_release import CatalogRelease
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image, image_parents
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.psf import Psf
from seechange_core.products.reference import Reference, image_references
from seechange_core.products.source_list import SourceList
from seechange_core.products.verdict import not_called_bad
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.stages.clouds import clear_zero_point, cloud_extinction, judge_clouds
from seechange_core.stages.photometry import PhotometryParams
from seechange_core.stages.quality_limits import QualityParams
from seechange_core.storage.engine import open_session
from seechange_core.storage.orm import JsonDict
from seechange_core.storage.rows import take_turns

FlaggedTable = type[Image] | type[SourceList] | type[WorldCoordinates] | type[ZeroPoint]

#: Whose `bitflag` says what is bad about the product of a step.
TABLES: dict[str, FlaggedTable] = {
    "image": Image,
    "source_list": SourceList,
    "world_coordinates": WorldCoordinates,
    "zero_point": ZeroPoint,
    "subtraction": Image,
    "detections": SourceList,
}
#: Clouds' extinction known to this much is not written again, mag.
_SAME_MAG = 0.002


def meanings(bitflag: int) -> str:
    """Spell bits out for a person, one sentence each."""
    return "; ".join(words for bit, words in QUALITY_MEANINGS.items() if bitflag & bit)


def bits_of(session: Session, step: str, data_version: str) -> int:
    """Return the bits of a step's product; 0 if it has none, or is of a kind that carries none."""
    table = TABLES.get(step)
    if table is None:
        return 0
    return session.scalar(select(table.bitflag).where(table.data_version == data_version)) or 0


def flagged(session: Session, exposures: Sequence[str] | None = None) -> dict[tuple[str, str], int]:
    """Return the bits of all products that have any, by step and data version; of certain exposures only."""
    found: dict[tuple[str, str], int] = {}
    for step, table in TABLES.items():
        query = (
            select(table.data_version, table.bitflag)
            .join(StepOutcome, StepOutcome.data_version == table.data_version)
            .where(table.bitflag != 0, StepOutcome.step == step)
        )
        if exposures is not None:
            query = query.join(Exposure, Exposure.id == StepOutcome.exposure_id)
            query = query.where(Exposure.name.in_(list(exposures)))
        found |= {(step, version): bits for version, bits in session.execute(query)}
    return found


# --- Clouds ---------------------------------------------------------------------------------------


def judge_night(section: Section) -> None:
    """Judge the transparency of all exposures of a night again, now that one of them has changed.

    What is compared are the zero points of one section in one filter against the same catalog: detectors,
    filters and bootstrapped catalogs each have their own. Whoever comes last sees all, and judges all:
    the bits of the night's present zero points follow from their set alone, whatever the order in which
    exposures were processed, at once or over days, and redoing any of them changes nothing. That is why it
    is done here and not at the end of a command, which the web UI and schedules would not run. An exposure
    that loses its zero point or is marked bad no longer counts, and keeps the bit it had last. The bit goes
    into the zero point and into what was made from it already. Where the settings give an expected zero
    point, a night without one clear exposure is seen as well.

    Parameters
    ----------
    section
        One of the exposures; its outcome has been recorded (and committed), so that of two sections walked
        at once the one that comes later here sees both.
    """
    exposure = section.exposure
    provenance = section.provenance_id("zero_point")
    with open_session(section.settings) as session:
        # All filters at once: who was given another one has left the others of its old one.
        take_turns(session, f"{provenance}/{exposure.instrument}/{exposure.night}/{section.section}")
        alike: dict[object, list[_Seen]] = defaultdict(list)
        for seen in _of_the_night(session, section):
            alike[seen.group].append(seen)
        judged: dict[uuid.UUID, bool] = {}
        for group in alike.values():
            judged |= _judge(session, section, group)
        session.flush()
        # Zero points that a newer one of the image has replaced as well: coadds know their images only.
        query = select(ZeroPoint.id, ZeroPoint.image_id, ZeroPoint.bitflag)
        query = query.where(ZeroPoint.image_id.in_(judged), ZeroPoint.provenance_id == provenance)
        rows = session.execute(query).all()
        changed = [row for row in rows if judged[row.image_id] is not bool(row.bitflag & QualityFlag.CLOUDS)]
        if changed:
            _set_clouds(session, ZeroPoint.id, {row.id: judged[row.image_id] for row in changed})
            _pass_on(session, section, {row.image_id for row in changed})


class _Seen(NamedTuple):
    """A zero point of a night, and what it is judged by."""

    id: uuid.UUID
    image_id: uuid.UUID
    outcome_id: uuid.UUID
    filter: str
    band: str
    catalog: str
    catalog_id: uuid.UUID
    is_relative: bool
    zp: float
    zp_err: float
    exposure_time_s: float
    airmass: float | None
    metrics: JsonDict

    @property
    def group(self) -> object:
        """What it has in common with those it can be compared with.

        A catalog that grows tile by tile stays the same; one made of an image of ours is good with itself
        only.
        """
        return self.filter, self.band, self.catalog, self.catalog_id if self.is_relative else None


_PRESENT = and_(
    StepOutcome.data_version == ZeroPoint.data_version,
    StepOutcome.step == "zero_point",
    StepOutcome.status == "done",
)
_CLOUDED = ZeroPoint.bitflag.bitwise_and(int(QualityFlag.CLOUDS)) != 0


def _of_the_night(session: Session, section: Section) -> list[_Seen]:
    """Return the present zero points of a section in a night, in a fixed order."""
    exposure, own = section.exposure, ZeroPoint
    query = (
        select(own.id, own.image_id, StepOutcome.id, own.filter, own.band, CatalogRelease.name)
        .add_columns(own.catalog_id, CatalogRelease.is_relative, own.zp, own.zp_err)
        .add_columns(Image.exposure_time_s, Exposure.airmass, StepOutcome.metrics)
        .join(StepOutcome, _PRESENT)
        .join(CatalogRelease, CatalogRelease.id == own.catalog_id)
        .join(Image, Image.id == own.image_id)
        .join(Exposure, Exposure.id == Image.exposure_id)
        .where(
            Exposure.instrument == exposure.instrument,
            Exposure.night == exposure.night,
            Image.section_id == section.section,
            own.provenance_id == section.provenance_id("zero_point"),
            not_marked_bad(),
            not_called_bad(Image.exposure_id, Image.section_id),
        )
        .order_by(Exposure.mjd, own.id)
    )
    return [_Seen(*row) for row in session.execute(query)]


def _judge(session: Session, section: Section, group: list[_Seen]) -> dict[uuid.UUID, bool]:
    """Judge zero points that can be compared: which of their images are clouded."""
    limits = section.params(QualityParams, "quality")
    expected = section.params(PhotometryParams, "photometry").zero_point_expected_mag.get(group[0].filter)
    zp = np.array([seen.zp for seen in group])
    times = np.array([seen.exposure_time_s for seen in group], float)
    airmasses = np.array([np.nan if seen.airmass is None else seen.airmass for seen in group])
    errors, band = np.array([seen.zp_err for seen in group]), group[0].band
    lost = cloud_extinction(zp, errors, times, airmasses, band, limits)
    if expected is not None:
        lost = np.fmax(lost, clear_zero_point(expected, times, airmasses, band, limits) - zp)
    # One alone looks as clear as itself: nothing is known of it.
    known = len(group) > 1 or expected is not None
    judged: dict[uuid.UUID, bool] = {}
    for seen, mag in zip(group, lost.tolist(), strict=True):
        judged[seen.image_id] = known and bool(judge_clouds(mag, seen.zp_err, limits).flags)
        before, now = seen.metrics.get("cloud_mag"), mag if known else None
        if (before is None) != (now is None) or abs((before or 0) - (now or 0)) > _SAME_MAG:
            _tell(session, seen.outcome_id, now)
    return judged


def _tell(session: Session, outcome_id: uuid.UUID, mag: float | None) -> None:
    """Write what the clouds took among the figures of an outcome, which may just be recorded again."""
    outcome = session.get(StepOutcome, outcome_id, with_for_update=True)
    if outcome is not None:
        others = {name: value for name, value in outcome.metrics.items() if name != "cloud_mag"}
        outcome.metrics = others if mag is None else {**others, "cloud_mag": mag}


def _set_clouds(
    session: Session, column: InstrumentedAttribute[uuid.UUID], clouds: dict[uuid.UUID, bool]
) -> None:
    """Set or clear the bit where a column has certain values, always in one order: nobody waits crosswise."""
    table: Any = column.class_
    bit = int(QualityFlag.CLOUDS)
    for value, on in sorted(clouds.items()):
        bits = table.bitflag.bitwise_or(bit) if on else table.bitflag.bitwise_and(~bit)
        session.execute(update(table).where(column == value).values(bitflag=bits))


def _pass_on(session: Session, section: Section, images: set[uuid.UUID]) -> None:
    """Let what was made of images follow their zero points, which have been written before.

    Who makes something of them at this moment waits for that (`bits_of_zero_points`), or is seen here.
    """
    # Other sections and other nights have images in the same coadds: the one after us sees what we wrote.
    take_turns(session, section.provenance_id("reference"))
    coadd, parent = image_parents.c.coadd_id, image_parents.c.parent_id
    query = select(coadd).join(Image, Image.id == coadd)
    query = query.where(parent.in_(images), Image.provenance_id == section.provenance_id("reference"))
    coadds = set(session.scalars(query))
    clouded = set(session.scalars(select(coadd).where(coadd.in_(coadds), parent.in_(_clouded(section)))))
    for column in (Image.id, SourceList.image_id, Psf.image_id, WorldCoordinates.image_id):
        _set_clouds(session, column, {i: i in clouded for i in coadds})
    query = select(ZeroPoint.id, ZeroPoint.image_id).where(ZeroPoint.image_id.in_(coadds))
    _set_clouds(session, ZeroPoint.id, {i: image in clouded for i, image in session.execute(query)})
    _pass_on_to_differences(session, section, images, coadds)


def _pass_on_to_differences(
    session: Session, section: Section, images: set[uuid.UUID], coadds: set[uuid.UUID]
) -> None:
    """Let the differences of images and of references, and what was detected there, follow both."""
    pairs = image_references.c
    query = (
        select(Image.id)
        .outerjoin(image_references, pairs.difference_id == Image.id)
        .outerjoin(Reference, Reference.id == pairs.reference_id)
        .where(
            Image.provenance_id == section.provenance_id("subtraction"),
            or_(Image.new_image_id.in_(images), Reference.image_id.in_(coadds)),
        )
    )
    differences = set(session.scalars(query))
    by_image = select(Image.id).where(Image.id.in_(differences), Image.new_image_id.in_(_clouded(section)))
    by_reference = (
        select(pairs.difference_id)
        .join(Reference, Reference.id == pairs.reference_id)
        .join(ZeroPoint, ZeroPoint.id == Reference.zero_point_id)
        .where(pairs.difference_id.in_(differences), _CLOUDED)
    )
    clouded = {*session.scalars(by_image), *session.scalars(by_reference)}
    for column in (Image.id, SourceList.image_id):
        _set_clouds(session, column, {i: i in clouded for i in differences})


def _clouded(section: Section) -> Select[uuid.UUID]:
    """Select the images of exposures that clouds were seen in when they last had a zero point."""
    own = ZeroPoint.provenance_id == section.provenance_id("zero_point")
    return select(ZeroPoint.image_id).where(own, _CLOUDED)


def save_zero_point(session: Session, row: ZeroPoint) -> ZeroPoint:
    """Record an exposure's zero point; if its image was clouded it stays so until the night is judged again.

    Only then can what was made of the image follow: a bit that is gone already would not be seen to change.
    """
    query = select(ZeroPoint.bitflag).where(
        ZeroPoint.image_id == row.image_id, ZeroPoint.provenance_id == row.provenance_id
    )
    before = session.scalars(query.order_by(ZeroPoint.id).with_for_update())
    row.bitflag = (row.bitflag or 0) | (reduce(either, before, 0) & int(QualityFlag.CLOUDS))
    return save(session, row, replace=True)


def bits_of_zero_points(session: Session, rows: Sequence[ZeroPoint]) -> int:
    """Return all bits of zero points as they are now, and let nobody change them until the session ends."""
    query = select(ZeroPoint.bitflag).join(Image, Image.id == ZeroPoint.image_id)
    query = query.where(ZeroPoint.id.in_([row.id for row in rows]))
    # In the order in which who judges a night writes them, coadds' last: nobody waits crosswise.
    query = query.order_by(Image.type == "coadd", ZeroPoint.id).with_for_update(of=ZeroPoint)
    return reduce(either, session.scalars(query), 0)
