"""Calibrators: what the detector's own marks are taken off one section with, built here or supplied."""

import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, String, Table, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from seechange_core.frames import Crosstalk, LinearityLaw, MasterFrame
from seechange_core.products import cards
from seechange_core.products.base import FileProduct, save
from seechange_core.products.place import Place
from seechange_core.storage.archive import Archive
from seechange_core.storage.fits_io import read_fits, to_table, write_fits
from seechange_core.storage.orm import Base, now

KINDS = (
    *("crosstalk", "linearity", "bias", "dark", "flat", "twilight_flat"),
    *("fringe", "illumination", "bad_pixels"),
)
ORIGINS = ("built", "supplied")
#: Kinds that belong to a filter.
WITH_FILTER = ("flat", "twilight_flat", "fringe", "illumination")
#: Validity of what holds from ever.
FROM_EVER = 0.0

Content = MasterFrame | LinearityLaw | Crosstalk
"""What a calibrator's file holds."""

calibrator_frames = Table(
    "calibrator_frames",
    Base.metadata,
    Column("calibrator_id", ForeignKey("calibrators.id", ondelete="CASCADE"), primary_key=True),
    Column("exposure_id", ForeignKey("exposures.id"), primary_key=True, index=True),
    # Why it was left out, in words that name what was measured; empty for one that went in.
    Column("rejected_because", String, nullable=False, default=""),
)


class Calibrator(FileProduct, Base):
    """One calibrator of one section; made of other frames, or from another file, it is another one."""

    __tablename__ = "calibrators"
    __table_args__ = (
        CheckConstraint(f"kind IN {KINDS}", name="known_kind"),
        CheckConstraint(f"origin IN {ORIGINS}", name="known_origin"),
        Index("ix_calibrators_instrument_section_id_kind", "instrument", "section_id", "kind"),
    )

    kind: Mapped[str] = mapped_column(String(16), index=True, doc="One of `KINDS`.")
    instrument: Mapped[str] = mapped_column(index=True, doc="Name of the instrument.")
    section_id: Mapped[str] = mapped_column(doc="The instrument's name for the section.")
    filter: Mapped[str] = mapped_column(
        default="", doc="Of flats, fringes and illuminations: short name of the filter; empty for others."
    )
    night: Mapped[str] = mapped_column(
        String(10), doc="Local date of the night it was taken, or the date it was supplied for, YYYY-MM-DD."
    )
    mjd: Mapped[float] = mapped_column(
        doc="Mean time of its frames, or the date it was supplied for, MJD (UTC)."
    )
    validity_start: Mapped[float] = mapped_column(index=True, doc="Holds from here on, MJD (UTC).")
    validity_end: Mapped[float | None] = mapped_column(
        doc="Holds until before here, MJD (UTC); None: no end."
    )
    origin: Mapped[str] = mapped_column(
        String(8), default="built", doc="built by us, or supplied from outside."
    )
    n_frames: Mapped[int] = mapped_column(doc="How many frames it was made from; 0 if nobody said.")
    source: Mapped[str | None] = mapped_column(String, doc="Name of the file it was supplied as.")
    bitflag: Mapped[int] = mapped_column(BigInteger, default=0, doc="Not 0: a person called it bad.")
    bad_reason: Mapped[str | None] = mapped_column(String, doc="Why a person called it bad, in their words.")

    def path_at(self, archive: Archive, place: Place) -> str:
        """Name its file."""
        name = "_".join(part for part in (self.kind, self.filter) if part)
        return place.path(archive.settings, name, self.data_version)

    def write(self, archive: Archive, content: Content, place: Place) -> None:
        """Write its file, and note where it is."""
        path = self.path_at(archive, place)
        self.file_written(path, archive.write(path, _writer(content)))
        self.n_frames = content.n_frames if isinstance(content, MasterFrame) else 0

    def read(self, archive: Archive) -> Content:
        """Read its file.

        Returns
        -------
        MasterFrame, LinearityLaw or Crosstalk
            By its kind.

        Raises
        ------
        FileNotFoundError, FileDamagedError
            If its file is nowhere, or not whole.
        """
        path = archive.find(self.file, checksum=self.checksum)
        if self.kind == "linearity":
            arrays, _ = read_fits(path, ("linearity",))
            return cards.to_linearity(to_table(cards.LinearityPoints, arrays["linearity"], path))
        if self.kind == "crosstalk":
            arrays, _ = read_fits(path, ("crosstalk",))
            return cards.to_crosstalk(to_table(cards.CrosstalkPairs, arrays["crosstalk"], path))
        if self.kind == "bad_pixels":
            arrays, numbers = read_fits(path, ("flags",))
            nothing = np.broadcast_to(np.float32(0), arrays["flags"].shape)
            return cards.to_master({**arrays, "data": nothing, "variance": nothing}, numbers)
        arrays, numbers = read_fits(path, ("data", "variance", "flags"))
        return cards.to_master(arrays, numbers)


def _writer(content: Content) -> Any:
    """Return what writes a file of this content to a path."""
    if isinstance(content, LinearityLaw):
        return partial(write_fits, contents={"linearity": cards.linearity_points(content)})
    if isinstance(content, Crosstalk):
        return partial(write_fits, contents={"crosstalk": cards.crosstalk_pairs(content)})
    return partial(write_fits, contents=cards.master_arrays(content), cards=cards.master_cards(content))


def save_calibrator(session: Session, row: Calibrator) -> Calibrator:
    """Record a calibrator that was made, or supplied, now.

    Of those that serve equally the one recorded last is used, so a row that is there already becomes the
    last. What a person said of it holds as long as its content is the same.

    Parameters
    ----------
    session
        An open session; nothing is committed here.
    row
        A new row, not in the session.
    """
    query = select(Calibrator).where(Calibrator.data_version == row.data_version)
    known = session.scalar(query)
    if known is not None and known.checksum == row.checksum:
        row.bitflag, row.bad_reason = known.bitflag, known.bad_reason
    saved = save(session, row, replace=True)
    saved.created_at = now()
    session.flush()
    return saved


def mark_calibrators(session: Session, rows: Iterable[Calibrator], reason: str | None) -> None:
    """Note that a person called calibrators bad, for a reason, or good again (None).

    Bad ones are no longer used; what they were used for is made again when it is asked for.
    """
    for row in rows:
        row.bitflag, row.bad_reason = (0, None) if reason is None else (1, reason)
    session.flush()


def set_frames(session: Session, calibrator: Calibrator, frames: Mapping[uuid.UUID, str]) -> None:
    """Record the exposures that a calibrator, already in the database, was to be made from.

    Parameters
    ----------
    session
        An open session; nothing is committed here.
    calibrator
        Whose.
    frames
        Why each exposure was left out; empty for those that went in.
    """
    columns = calibrator_frames.c
    session.execute(calibrator_frames.delete().where(columns.calibrator_id == calibrator.id))
    if frames:
        rows = [
            {"calibrator_id": calibrator.id, "exposure_id": i, "rejected_because": frames[i]}
            for i in sorted(frames)
        ]
        session.execute(calibrator_frames.insert(), rows)


def frames_of(session: Session, calibrator_id: uuid.UUID) -> dict[uuid.UUID, str]:
    """Return, by exposure, why each frame was left out of a calibrator; empty for those that went in."""
    columns = calibrator_frames.c
    query = select(columns.exposure_id, columns.rejected_because).where(
        columns.calibrator_id == calibrator_id
    )
    return {row[0]: row[1] for row in session.execute(query.order_by(columns.exposure_id))}
