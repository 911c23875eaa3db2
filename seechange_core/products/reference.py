"""References: coadds of a region of the sky, calibrated like an image, that new images are compared with."""

import uuid

from sqlalchemy import BigInteger, Column, ForeignKey, Table, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from seechange_core.products.base import Corners, Footprint, Product, existing, link, overlapping, save
from seechange_core.products.image import Image
from seechange_core.storage.orm import Base

image_references = Table(
    "image_references",
    Base.metadata,
    Column("difference_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("reference_id", ForeignKey("references.id"), primary_key=True, index=True),
)


class Reference(Product, Footprint, Base):
    """One reference: a coadd with its sources, PSF, background, astrometry and zero point.

    Made of other images it is another row, also when the processing is the same.
    """

    __tablename__ = "references"

    ref_set: Mapped[str] = mapped_column(index=True, doc="Name of the set of references it belongs to.")
    instrument: Mapped[str] = mapped_column(index=True, doc="Name of the instrument.")
    region: Mapped[str] = mapped_column(index=True, doc="Name of the region of the sky.")
    filter: Mapped[str] = mapped_column(doc="Short name of the filter.")
    image_id: Mapped[uuid.UUID] = link("images.id", "The coadd.")
    source_list_id: Mapped[uuid.UUID] = link("source_lists.id", "Its sources.")
    psf_id: Mapped[uuid.UUID] = link("psfs.id", "Its PSF.")
    background_id: Mapped[uuid.UUID] = link("backgrounds.id", "Its sky.")
    world_coordinates_id: Mapped[uuid.UUID] = link("world_coordinates.id", "Its astrometric solution.")
    zero_point_id: Mapped[uuid.UUID] = link("zero_points.id", "Its zero point.")
    left_out_exposure_id: Mapped[uuid.UUID | None] = link(
        "exposures.id", "The exposure it was made without, to be compared with it; None: nothing left out."
    )
    n_images: Mapped[int] = mapped_column(doc="How many exposures were coadded.")
    bitflag: Mapped[int] = mapped_column(BigInteger, default=0, doc="What is bad about it; 0 is good.")
    bad_reason: Mapped[str | None] = mapped_column(doc="Why it was marked, in a person's words.")


def save_reference(session: Session, row: Reference) -> Reference:
    """Record a reference that was made now; what a person said of it holds when it is made again.

    Parameters
    ----------
    session
        An open session; nothing is committed here.
    row
        A new row, not in the session.
    """
    known = existing(session, row)
    if known is not None:
        row.bitflag, row.bad_reason = known.bitflag, known.bad_reason
    return save(session, row, replace=True)


def set_references(session: Session, difference: Image, references: list[uuid.UUID]) -> None:
    """Record which references were subtracted to make a difference image that is in the database."""
    columns = image_references.c
    session.execute(image_references.delete().where(columns.difference_id == difference.id))
    pairs = [{"difference_id": difference.id, "reference_id": i} for i in sorted(set(references))]
    session.execute(image_references.insert(), pairs)


def reference_ids(session: Session, difference_id: uuid.UUID) -> list[uuid.UUID]:
    """Return the ids of the references that a difference image was made with, oldest row first."""
    columns = image_references.c
    query = select(columns.reference_id).where(columns.difference_id == difference_id)
    return list(session.scalars(query.order_by(columns.reference_id)))


def find_references(
    session: Session,
    corners: Corners,
    *,
    instrument: str,
    band: str,
    ref_set: str | None = None,
    provenance_id: str | None = None,
) -> list[Reference]:
    """Return the good references that overlap a piece of sky, the newest first.

    Parameters
    ----------
    session
        An open session.
    corners
        Of the piece of sky.
    instrument, band
        Of the references; `band` is the short name of the filter.
    ref_set, provenance_id
        Only those of that set and processing, if given.

    Returns
    -------
    list of Reference
        Also those that leave an exposure out, and those that a newer one of the same region supersedes.
    """
    query = select(Reference).where(
        Reference.instrument == instrument, Reference.filter == band, Reference.bitflag == 0
    )
    if ref_set is not None:
        query = query.where(Reference.ref_set == ref_set)
    if provenance_id is not None:
        query = query.where(Reference.provenance_id == provenance_id)
    return overlapping(session, query.order_by(Reference.id.desc()), corners)
