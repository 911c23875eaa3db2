"""Images: one calibrated section of an exposure, a coadd of images, or a difference of two."""

import uuid

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, String, Table, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from seechange_core.flags import QualityFlag
from seechange_core.products.base import FileProduct, Footprint, existing, link, save
from seechange_core.products.image_files import ImageFiles
from seechange_core.storage.orm import Base, JsonDict

IMAGE_TYPES = ("science", "coadd", "difference")

image_parents = Table(
    "image_parents",
    Base.metadata,
    Column("coadd_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("parent_id", ForeignKey("images.id"), primary_key=True, index=True),
)


class Image(ImageFiles, FileProduct, Footprint, Base):
    """One image.

    A science image belongs to one exposure. A difference belongs to that of its new image, and knows
    its new image, and its references: see `reference.reference_ids`. A coadd belongs to no exposure: see
    `parent_ids`.

    Its arrays `data`, `weight`, `flags`, `score` and `psf` and its `raw_header` are loaded from its
    file when first looked at; `header` is in the database.
    """

    __tablename__ = "images"
    __table_args__ = (
        CheckConstraint(f"type IN {IMAGE_TYPES}", name="known_type"),
        CheckConstraint("(type = 'coadd') = (exposure_id IS NULL)", name="coadd_has_no_exposure"),
        CheckConstraint("(type = 'difference') = (new_image_id IS NOT NULL)", name="difference_has_new"),
    )

    type: Mapped[str] = mapped_column(String(10), doc="science, coadd or difference.")
    exposure_id: Mapped[uuid.UUID | None] = link("exposures.id", "The exposure it is of; none for a coadd.")
    section_id: Mapped[str] = mapped_column(doc="The instrument's section, or a coadd's region of the sky.")
    new_image_id: Mapped[uuid.UUID | None] = link("images.id", "Of a difference: what was subtracted from.")
    crosstalk_id: Mapped[uuid.UUID | None] = link("calibrators.id", "The crosstalk coefficients used.")
    linearity_id: Mapped[uuid.UUID | None] = link("calibrators.id", "The linearity law used.")
    bias_id: Mapped[uuid.UUID | None] = link("calibrators.id", "The master bias used.")
    dark_id: Mapped[uuid.UUID | None] = link("calibrators.id", "The master dark used.")
    flat_id: Mapped[uuid.UUID | None] = link("calibrators.id", "The master flat used.")
    fringe_id: Mapped[uuid.UUID | None] = link("calibrators.id", "The fringe pattern used.")
    illumination_id: Mapped[uuid.UUID | None] = link("calibrators.id", "The illumination correction used.")
    bad_pixels_id: Mapped[uuid.UUID | None] = link("calibrators.id", "The bad-pixel mask used.")

    instrument: Mapped[str] = mapped_column(index=True, doc="Name of the instrument.")
    filter: Mapped[str] = mapped_column(index=True, doc="Short name of the filter over this section.")
    mjd_start: Mapped[float] = mapped_column(doc="Start of the (first) exposure, MJD (UTC).")
    mjd_mid: Mapped[float] = mapped_column(
        index=True, doc="Middle of the exposure, or mean of those, MJD (UTC)."
    )
    fwhm_pix: Mapped[float | None] = mapped_column(
        doc="Seeing: full width at half maximum of its PSF, pixels."
    )
    background_e: Mapped[float | None] = mapped_column(doc="Median sky level, electrons per pixel.")
    background_rms_e: Mapped[float | None] = mapped_column(
        doc="Median noise of the sky, electrons per pixel."
    )
    header: Mapped[JsonDict] = mapped_column(default=dict, doc="Searchable cards, lower-case uniform names.")
    bitflag: Mapped[int] = mapped_column(BigInteger, default=0, doc="`QualityFlag` bits: 0 is good.")
    bad_reason: Mapped[str | None] = mapped_column(doc="Why it was marked, in a person's words.")


def save_image(session: Session, row: Image) -> Image:
    """Record an image that was made now; what a person said of it holds when it is made again.

    Of a coadd or a difference the bit alone may be an input's: there it takes a person's words to hold.

    Parameters
    ----------
    session
        An open session; nothing is committed here.
    row
        A new row, not in the session.
    """
    known = existing(session, row)
    if known is not None and (known.type == "science" or known.bad_reason is not None):
        row.bitflag = int((row.bitflag or 0) | (known.bitflag & QualityFlag.MARKED_BAD))
        row.bad_reason = known.bad_reason
    return save(session, row, replace=True)


def set_parents(session: Session, coadd: Image, parents: list[uuid.UUID]) -> None:
    """Record which images a coadd, already in the database, was made from."""
    columns = image_parents.c
    session.execute(image_parents.delete().where(columns.coadd_id == coadd.id))
    session.execute(
        image_parents.insert(), [{"coadd_id": coadd.id, "parent_id": i} for i in sorted(set(parents))]
    )


def parent_ids(session: Session, coadd_id: uuid.UUID) -> list[uuid.UUID]:
    """Return the ids of the images a coadd was made from, oldest row first."""
    columns = image_parents.c
    query = select(columns.parent_id).where(columns.coadd_id == coadd_id).order_by(columns.parent_id)
    return list(session.scalars(query))
