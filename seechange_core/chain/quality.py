"""Quality flags in the database: those of a step's product, and those that take a whole night to know."""

from collections.abc import Sequence

import numpy as np
from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from seechange_core.chain.choice import not_marked_bad
from seechange_core.chain.section import Section
from seechange_core.flags import QUALITY_MEANINGS, QualityFlag
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.source_list import SourceList
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.stages.judge import QualityParams, cloud_extinction, judge_clouds
from seechange_core.stages.photometry import PhotometryParams
from seechange_core.storage.engine import open_session

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


def judge_night(section: Section, own: ZeroPoint) -> tuple[int, float]:
    """Judge the transparency of all exposures of a night again, now that one more has its zero point.

    What is compared are the zero points of one section in one filter against the same catalog: detectors,
    filters and bootstrapped catalogs each have their own. Whoever comes last sees all, and judges all:
    the bits in the database follow from the set of zero points alone, whatever the order in which exposures
    were processed, at once or over days, and redoing any of them changes nothing. That is why it is done
    here and not at the end of a command, which the web UI and schedules would not run. The bit goes into
    the zero point and into what was made from it already. Where the settings give an expected zero point,
    a night without one clear exposure is seen as well.

    Parameters
    ----------
    section
        Whose zero point has just been saved (and committed).
    own
        That row.

    Returns
    -------
    tuple
        All bits of that row now, and the magnitudes that clouds took from it.
    """
    limits = section.params(QualityParams, "quality")
    expected = section.params(PhotometryParams, "photometry").zero_point_expected_mag
    with open_session(section.settings) as session:
        rows = _of_the_night(session, section, own)
        zp = np.array([zero_point.zp for zero_point, *_ in rows])
        times = np.array([time for _, time, *_ in rows], float)
        airmasses = np.array([np.nan if x is None else x for _, _, x, _ in rows], float)
        lost = cloud_extinction(zp, times, airmasses, own.band, limits)
        if expected is not None:
            lost = np.maximum(lost, expected - zp)
        for (zero_point, _, _, outcome), mag in zip(rows, lost.tolist(), strict=True):
            clouds = judge_clouds(mag, zero_point.zp_err, limits).flags
            if outcome is not None and abs(outcome.metrics.get("cloud_mag", np.inf) - mag) > _SAME_MAG:
                outcome.metrics = {**outcome.metrics, "cloud_mag": mag}
            if zero_point.bitflag & QualityFlag.CLOUDS != clouds:
                _take(zero_point, clouds)
                session.flush()  # before looking what was made of it: who makes that now waits, or is seen
                for row in _made_from(session, section, zero_point):
                    _take(row, clouds)
        mine = next(i for i, row in enumerate(rows) if row[0].id == own.id)
        return rows[mine][0].bitflag, float(lost[mine])


def _take(row: ZeroPoint | Image | SourceList, clouds: QualityFlag) -> None:
    row.bitflag = int((row.bitflag & ~QualityFlag.CLOUDS) | clouds)


Row = tuple[ZeroPoint, float, float | None, StepOutcome | None]


def _of_the_night(session: Session, section: Section, own: ZeroPoint) -> list[Row]:
    """Return the night's present zero points like one, in a fixed order, with what they are judged by.

    The outcome of the section at hand is not recorded yet, or is that of an earlier version.
    """
    exposure = section.exposure
    present = and_(
        StepOutcome.data_version == ZeroPoint.data_version,
        StepOutcome.step == "zero_point",
        StepOutcome.status == "done",
    )
    counts: ColumnElement[bool] = and_(
        Exposure.id != exposure.id, not_marked_bad(), StepOutcome.id.is_not(None)
    )
    query = (
        select(ZeroPoint, Image.exposure_time_s, Exposure.airmass, StepOutcome)
        .join(Image, Image.id == ZeroPoint.image_id)
        .join(Exposure, Exposure.id == Image.exposure_id)
        .outerjoin(StepOutcome, present)
        .where(
            Exposure.instrument == exposure.instrument,
            Exposure.night == exposure.night,
            Image.section_id == section.section,
            ZeroPoint.provenance_id == own.provenance_id,
            ZeroPoint.filter == own.filter,
            ZeroPoint.catalog_id == own.catalog_id,
            or_(ZeroPoint.id == own.id, counts),
        )
        .order_by(Exposure.mjd, ZeroPoint.id)
    )
    return [(row[0], row[1], row[2], row[3]) for row in session.execute(query)]


def _made_from(session: Session, section: Section, zero_point: ZeroPoint) -> list[Image | SourceList]:
    """Return the differences made of the image of a zero point, and what was detected in them."""
    differences = session.scalars(
        select(Image).where(
            Image.new_image_id == zero_point.image_id,
            Image.provenance_id == section.provenance_id("subtraction"),
        )
    ).all()
    lists = session.scalars(
        select(SourceList).where(SourceList.image_id.in_([row.id for row in differences]))
    )
    return [*differences, *lists]


def bits_of_zero_point(session: Session, row: ZeroPoint) -> int:
    """Return the bits of a zero point as they are now, and let nobody change them until the session ends."""
    query = select(ZeroPoint.bitflag).where(ZeroPoint.id == row.id).with_for_update()
    return session.scalars(query).one()
