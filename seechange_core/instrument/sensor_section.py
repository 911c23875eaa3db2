"""Rows of the sections of a camera (CCDs, channels), with the dates between which they hold."""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Index, String, event, or_, select
from sqlalchemy.orm import (
    Mapped,
    Session,
    make_transient_to_detached,
    mapped_column,
    object_session,
    validates,
)

from seechange_core.errors import ConflictError, SeeChangeError, UserError
from seechange_core.numerics.timing import Moment, mjd_to_iso, to_mjd
from seechange_core.storage.orm import Base, Identified, new_id, now
from seechange_core.storage.rows import take_turns

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

    @property
    def validity(self) -> str:
        """The range in which it holds, in words."""
        start, end = self.validity_start, self.validity_end
        if start is None:
            return "valid at all times" if end is None else f"valid until {_date_text(end)}"
        return f"valid from {_date_text(start)} {'on' if end is None else f'until {_date_text(end)}'}"

    def copy(self, **changes: Any) -> "SensorSection":
        """Return an equal row that is in no session, with an id and some columns changed."""
        values = {c.key: getattr(self, c.key) for c in type(self).__table__.columns}
        values["id"] = values["id"] or new_id()
        values["created_at"] = values["created_at"] or now()
        return SensorSection(**{**values, **changes})

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
    dated: Collection[str] = (),
) -> None:
    """Save sections and commit the session; parameters and errors as `Instrument.commit_sections`.

    Those of the section ids `dated` are saved for what their validity and the dates given have in common.
    If it fails, nothing is written and the sections are as they were.
    """
    start, end = (None if m is None else to_mjd(m) for m in (validity_start, validity_end))
    rows = list(sections)
    copies = [row.copy() for row in rows]
    for row, copy in zip(rows, copies, strict=True):
        if copy.validity_start is None and copy.validity_end is None:
            copy.validity_start, copy.validity_end = start, end
        elif row.section_id in dated:
            copy.validity_start, copy.validity_end = _narrowed(copy, start, end)
        _check_order(copy)
    try:
        for copy in copies:
            session.merge(copy)
        session.flush()
        session.commit()
    except SeeChangeError:
        session.rollback()
        raise
    for row, copy in zip(rows, copies, strict=True):
        for column in ("id", "created_at", "validity_start", "validity_end"):
            setattr(row, column, getattr(copy, column))


def replace_row(session: Session, old: SensorSection, date: Moment, properties: Mapping[str, Any]) -> None:
    """End a section's row on a date and begin another; see `Instrument.replace_section`."""
    mjd = to_mjd(date)
    odd = sorted(set(properties) - {*SECTION_PROPERTIES, "identifier"})
    if odd:
        raise UserError(
            f"sections have no property {odd[0]!r}",
            cure=f"they have identifier, {', '.join(SECTION_PROPERTIES)}",
        )
    take_turns(session, _turn(old.instrument))
    rows = [r for r in _stored_rows(session, old.instrument) if r.section_id == old.section_id]
    before = next((r for r in rows if r.is_valid_at(mjd)), None)
    if before is not None and before.validity_start == mjd:
        raise ConflictError(
            f"section {old.section_id}: a row of it begins on that date already, {before.validity}",
            cure="edit that one: fetch_sections of that date, then commit_sections",
        )
    later = [r.validity_start for r in rows if r.validity_start is not None and r.validity_start > mjd]
    after = (before or old).copy(id=new_id(), created_at=now(), **properties)
    if before is None and old.validity_end is not None:  # the instrument knows what comes then
        later.append(old.validity_end)
    after.validity_start, after.validity_end = mjd, min(later, default=None)
    if before is not None:
        after.validity_end, before.validity_end = before.validity_end, mjd
    commit_rows(session, [after] if before is None else [before, after])


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


@event.listens_for(SensorSection, "before_insert")
@event.listens_for(SensorSection, "before_update")
def _wait_for_turn(_mapper: Any, _connection: Any, row: SensorSection) -> None:
    """Let one transaction at a time write sections of an instrument: the others see them then."""
    _check_order(row)
    session = object_session(row)
    if session is not None:
        take_turns(session, _turn(row.instrument))


@event.listens_for(SensorSection, "after_insert")
@event.listens_for(SensorSection, "after_update")
def _refuse_overlap(_mapper: Any, connection: Connection, row: SensorSection) -> None:
    """Refuse a row that holds while another one of its section does; all of the flush are written."""
    table = SensorSection.__table__
    starts, ends = table.c.validity_start, table.c.validity_end
    query = select(table).where(
        table.c.instrument == row.instrument, table.c.section_id == row.section_id, table.c.id != row.id
    )
    if row.validity_end is not None:
        query = query.where(or_(starts.is_(None), starts < row.validity_end))
    if row.validity_start is not None:
        query = query.where(or_(ends.is_(None), ends > row.validity_start))
    found = connection.execute(query.limit(1)).mappings().first()
    if found is not None:
        other = SensorSection(**found)
        raise ConflictError(
            f"section {row.section_id} of {row.instrument}: a row {row.validity} would overlap "
            f"one {other.validity}",
            cure="close the older one's validity first, or use replace_section",
        )


@event.listens_for(SensorSection, "after_insert")
@event.listens_for(SensorSection, "after_update")
@event.listens_for(SensorSection, "after_delete")
def _forget_cached(_mapper: Any, _connection: Any, row: SensorSection) -> None:
    session = object_session(row)
    if session is not None:
        session.info.pop(_CACHE, None)


def _narrowed(
    row: SensorSection, start: float | None, end: float | None
) -> tuple[float | None, float | None]:
    """Return the part of a row's validity that lies between two dates, MJD (UTC); None: no limit."""
    starts = [t for t in (row.validity_start, start) if t is not None]
    ends = [t for t in (row.validity_end, end) if t is not None]
    if starts and ends and max(starts) >= min(ends):
        raise UserError(
            f"section {row.section_id}: what is to be saved is {row.validity}, not between the dates given",
            cure="fetch_sections of a date between them first",
        )
    return max(starts, default=None), min(ends, default=None)


def _check_order(row: SensorSection) -> None:
    start, end = row.validity_start, row.validity_end
    if start is not None and end is not None and end <= start:
        raise UserError(
            f"section {row.section_id}: its validity ends at MJD {end} and starts at {start}",
            cure="give an end after the start",
        )


def _turn(instrument: str) -> str:
    return f"sensor_sections {instrument}"


def _date_text(mjd: float) -> str:
    return f"{mjd_to_iso(mjd)} (MJD {mjd})"


def _detached(values: dict[str, Any]) -> SensorSection:
    row = SensorSection(**values)
    make_transient_to_detached(row)
    return row
