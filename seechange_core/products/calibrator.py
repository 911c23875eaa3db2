"""Calibrators: master bias, dark and flat frames and bad-pixel masks of one section."""

import uuid
from functools import partial

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, String, Table, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from seechange_core.frames import MasterFrame
from seechange_core.products.base import FileProduct
from seechange_core.products.cards import master_arrays, master_cards, to_master
from seechange_core.products.place import Place
from seechange_core.storage.archive import Archive
from seechange_core.storage.fits_io import read_fits, write_fits
from seechange_core.storage.orm import Base

KINDS = (
    *("crosstalk", "linearity", "bias", "dark", "flat", "twilight_flat"),
    *("fringe", "illumination", "bad_pixels"),
)
ORIGINS = ("built", "supplied")

calibrator_frames = Table(
    "calibrator_frames",
    Base.metadata,
    Column("calibrator_id", ForeignKey("calibrators.id", ondelete="CASCADE"), primary_key=True),
    Column("exposure_id", ForeignKey("exposures.id"), primary_key=True, index=True),
    # Why it was left out, in words that name what was measured; empty for one that went in.
    Column("rejected_because", String, nullable=False, default=""),
)


class Calibrator(FileProduct, Base):
    """One master frame of one section; made of other frames, it is another one."""

    __tablename__ = "calibrators"
    __table_args__ = (
        CheckConstraint(f"kind IN {KINDS}", name="known_kind"),
        CheckConstraint(f"origin IN {ORIGINS}", name="known_origin"),
    )

    kind: Mapped[str] = mapped_column(String(16), index=True, doc="One of `KINDS`.")
    instrument: Mapped[str] = mapped_column(index=True, doc="Name of the instrument.")
    section_id: Mapped[str] = mapped_column(doc="The instrument's name for the section.")
    filter: Mapped[str] = mapped_column(
        default="", doc="Of a flat: short name of the filter; empty for others."
    )
    night: Mapped[str] = mapped_column(String(10), doc="Local date of the night it was taken, YYYY-MM-DD.")
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
    n_frames: Mapped[int] = mapped_column(doc="How many frames it was made from.")
    bitflag: Mapped[int] = mapped_column(BigInteger, default=0, doc="What is bad about it; 0 is good.")

    def write(self, archive: Archive, frame: MasterFrame, place: Place) -> None:
        """Write the master frame, and note where it is."""
        name = "_".join(part for part in (self.kind, self.filter) if part)
        path = place.path(archive.settings, name, self.data_version)
        writer = partial(write_fits, contents=master_arrays(frame), cards=master_cards(frame))
        self.file_written(path, archive.write(path, writer))
        self.n_frames = frame.n_frames

    def read(self, archive: Archive) -> MasterFrame:
        """Read the master frame.

        Raises
        ------
        FileNotFoundError, FileDamagedError
            If its file is nowhere, or not whole.
        """
        path = archive.find(self.file, checksum=self.checksum)
        arrays, cards = read_fits(path, ("data", "variance", "flags"))
        return to_master(arrays, cards)


def set_frames(session: Session, calibrator: Calibrator, exposures: list[uuid.UUID]) -> None:
    """Record which exposures a calibrator, already in the database, was made from."""
    columns = calibrator_frames.c
    session.execute(calibrator_frames.delete().where(columns.calibrator_id == calibrator.id))
    if exposures:
        pairs = [{"calibrator_id": calibrator.id, "exposure_id": i} for i in sorted(set(exposures))]
        session.execute(calibrator_frames.insert(), pairs)


def frame_ids(session: Session, calibrator_id: uuid.UUID) -> list[uuid.UUID]:
    """Return the ids of the exposures a calibrator was made from."""
    columns = calibrator_frames.c
    query = select(columns.exposure_id).where(columns.calibrator_id == calibrator_id)
    return sorted(session.scalars(query))


def find_calibrator(
    session: Session,
    kind: str,
    *,
    instrument: str,
    section_id: str,
    mjd: float,
    band: str = "",
    provenance_id: str | None = None,
) -> Calibrator | None:
    """Return the good calibrator nearest in time among those valid at an MJD, or None.

    Of those built for the same night, the one made last: it knows of frames that came later.

    Parameters
    ----------
    session
        An open session.
    kind, instrument, section_id, band
        What is asked for; `band` for flats only.
    mjd
        Middle of the exposure to calibrate, MJD (UTC).
    provenance_id
        Only calibrators we built with this one; supplied ones always qualify.
    """
    query = select(Calibrator).where(
        Calibrator.kind == kind,
        Calibrator.instrument == instrument,
        Calibrator.section_id == section_id,
        Calibrator.filter == band,
        Calibrator.bitflag == 0,
        Calibrator.validity_start <= mjd,
        (Calibrator.validity_end.is_(None)) | (Calibrator.validity_end > mjd),
    )
    if provenance_id is not None:
        query = query.where((Calibrator.provenance_id == provenance_id) | (Calibrator.origin == "supplied"))
    nearest = session.scalars(
        query.order_by(func.abs(Calibrator.mjd - mjd), Calibrator.id.desc()).limit(1)
    ).first()
    if nearest is None or nearest.origin != "built":
        return nearest
    tonight = query.where(Calibrator.night == nearest.night, Calibrator.origin == "built")
    return session.scalars(tonight.order_by(Calibrator.id.desc()).limit(1)).first()
