"""Rows of the sections of a camera (CCDs, channels), with the dates between which they hold."""

import math
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Index, String, event, select
from sqlalchemy.orm import (
    Mapped,
    Session,
    make_transient_to_detached,
    mapped_column,
    object_session,
    validates,
)

from seechange_core.errors import UserError
from seechange_core.numerics.timing import Moment, to_mjd
from seechange_core.storage.orm import Base, Identified, new_id, now

_CACHE = "sensor_sections"

SectionId = int | str
"""What a camera calls its sections; files, tables and Dagster use its string."""

SECTION_PROPERTIES = (
    "offset_x",
    "offset_y",
    "filter_array_index",
    "size_x",
    "size_y",
    "pixel_scale_arcsec",
    "gain",
    "read_noise",
    "dark_current",
    "saturation_limit",
    "non_linearity_limit",
    "defective",
)
"""Columns that override the instrument's property of the same name; None means: as the instrument says."""


class SensorSection(Identified, Base):
    """One section of an instrument, for the dates between `validity_start` and `validity_end`.

    Parameters
    ----------
    section_id
        The instrument's name for it.
    instrument
        The instrument's name.
    **properties
        Any other column; None (the default) means that the instrument's own value holds.
    """

    __tablename__ = "sensor_sections"
    __table_args__ = (Index("ix_sensor_sections_instrument_section_id", "instrument", "section_id"),)

    section_id: Mapped[str] = mapped_column(String, doc="The instrument's name for the section, as a string.")
    instrument: Mapped[str] = mapped_column(String, doc="Name of the instrument.")
    identifier: Mapped[str | None] = mapped_column(String, doc="Maker's name or serial number of the device.")
    validity_start: Mapped[float | None] = mapped_column(
        doc="Holds from here on, MJD (UTC); None: ever since."
    )
    validity_end: Mapped[float | None] = mapped_column(
        doc="Holds until before here, MJD (UTC); None: no end."
    )
    offset_x: Mapped[float | None] = mapped_column(
        doc="Centre of the section from the mosaic's centre, pixels."
    )
    offset_y: Mapped[float | None] = mapped_column(
        doc="Centre of the section from the mosaic's centre, pixels."
    )
    filter_array_index: Mapped[int | None] = mapped_column(doc="Which filter of the filter array covers it.")
    size_x: Mapped[int | None] = mapped_column(doc="Width after trimming, pixels.")
    size_y: Mapped[int | None] = mapped_column(doc="Height after trimming, pixels.")
    pixel_scale_arcsec: Mapped[float | None] = mapped_column(doc="Nominal scale, arcsec per pixel.")
    gain: Mapped[float | None] = mapped_column(doc="Electrons per ADU.")
    read_noise: Mapped[float | None] = mapped_column(doc="Electrons per pixel, rms.")
    dark_current: Mapped[float | None] = mapped_column(doc="Electrons per second and pixel.")
    saturation_limit: Mapped[float | None] = mapped_column(
        doc="Raw level from which pixels are saturated, ADU."
    )
    non_linearity_limit: Mapped[float | None] = mapped_column(doc="Raw level up to which it is linear, ADU.")
    defective: Mapped[bool | None] = mapped_column(doc="True: gives no usable signal.")

    def __init__(self, section_id: SectionId, instrument: str, **properties: Any) -> None:
        super().__init__(section_id=section_id, instrument=instrument, **properties)

    @validates("section_id")
    def _section_id_as_text(self, _: str, value: SectionId) -> str:
        return str(value)

    @validates("validity_start", "validity_end")
    def _moment_as_mjd(self, _: str, value: Moment | None) -> float | None:
        return None if value is None else to_mjd(value)

    def is_valid_at(self, mjd: float) -> bool:
        """Tell whether the row holds at an MJD (UTC): start included, end excluded."""
        return (self.validity_start is None or self.validity_start <= mjd) and (
            self.validity_end is None or mjd < self.validity_end
        )

    def detached_copy(self) -> "SensorSection":
        """Return an equal row that stands for the same one in the database and is in no session."""
        return _detached({c.key: getattr(self, c.key) for c in type(self).__table__.columns})

    def __repr__(self) -> str:
        return f"SensorSection({self.section_id!r}, {self.instrument!r})"


def valid_rows(
    session: Session, instrument: str, mjd: float, *, cached: bool = False
) -> dict[str, SensorSection]:
    """Return an instrument's stored sections at a date, by their id's string.

    Where several hold, the one whose validity began last wins, then the one made last. The rows are
    not in the session: they can be edited and kept without writing anything.

    Parameters
    ----------
    session
        Open session.
    instrument
        Name.
    mjd
        UTC.
    cached
        Read an instrument's rows once in a transaction: for loading many Exposures.
    """
    rows = _cached_rows(session, instrument) if cached else _stored_rows(session, instrument)
    found = [row for row in rows if row.is_valid_at(mjd)]
    found.sort(key=lambda row: (row.validity_start or -math.inf, row.created_at.timestamp(), row.id.int))
    return {row.section_id: row.detached_copy() for row in found}


def commit_rows(
    session: Session,
    sections: Iterable[SensorSection],
    validity_start: Moment | None = None,
    validity_end: Moment | None = None,
) -> None:
    """Save sections and commit the session; parameters as `Instrument.commit_sections`."""
    rows = list(sections)
    for row in rows:
        if row.validity_start is None and row.validity_end is None:
            row.validity_start, row.validity_end = validity_start, validity_end  # type: ignore[assignment]
        start, end = row.validity_start, row.validity_end
        if start is not None and end is not None and end <= start:
            raise UserError(
                f"section {row.section_id}: its validity ends at MJD {end} and starts at {start}",
                cure="give an end after the start",
            )
    for row in rows:
        row.id = row.id or new_id()
        row.created_at = row.created_at or now()
        session.merge(row)
    session.flush()
    session.commit()


def _stored_rows(session: Session, instrument: str) -> list[SensorSection]:
    query = select(*SensorSection.__table__.columns).where(SensorSection.instrument == instrument)
    return [_detached(dict(row)) for row in session.execute(query).mappings()]


def _cached_rows(session: Session, instrument: str) -> list[SensorSection]:
    transaction, rows = session.info.get(_CACHE, (None, {}))
    if transaction is None or transaction is not session.get_transaction():
        rows = {}
    if instrument not in rows:
        with session.no_autoflush:  # rows are being loaded: no time to write others
            rows[instrument] = _stored_rows(session, instrument)
        session.info[_CACHE] = (session.get_transaction(), rows)
    stored: list[SensorSection] = rows[instrument]
    return stored


@event.listens_for(SensorSection, "after_insert")
@event.listens_for(SensorSection, "after_update")
@event.listens_for(SensorSection, "after_delete")
def _forget_cached(_mapper: Any, _connection: Any, row: SensorSection) -> None:
    session = object_session(row)
    if session is not None:
        session.info.pop(_CACHE, None)


def _detached(values: dict[str, Any]) -> SensorSection:
    row = SensorSection(**values)
    make_transient_to_detached(row)
    return row
