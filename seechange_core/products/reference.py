"""References: coadds of a region of the sky, calibrated like an image, that new images are compared with."""

import uuid
from collections.abc import Sequence

from sqlalchemy import BigInteger, Column, ForeignKey, Table, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from seechange_core.products.base import Corners, Footprint, Product, existing, link, overlapping, save
from seechange_core.products.image import Image
from seechange_core.storage.orm import Base, Identified
from seechange_core.storage.rows import take_turns

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
    whole_id: Mapped[uuid.UUID | None] = link(
        "references.id", "The reference that it is without an exposure; None: it is whole."
    )
    n_images: Mapped[int] = mapped_column(doc="How many exposures were coadded.")
    bitflag: Mapped[int] = mapped_column(BigInteger, default=0, doc="What is bad about it; 0 is good.")
    bad_reason: Mapped[str | None] = mapped_column(doc="Why it was marked, in a person's words.")


class ReferenceUse(Identified, Base):
    """From then on, a reference is the one that its region, filter and set are used with.

    Rows are only ever added: the last one tells what is used, the earlier ones what was. That a newer
    reference is built changes nothing here.
    """

    __tablename__ = "reference_uses"

    reference_id: Mapped[uuid.UUID] = link("references.id", "The reference, a whole one.")
    reason: Mapped[str | None] = mapped_column(doc="Why, in a person's words; None: it was the first one.")


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


def use_reference(
    session: Session, reference: Reference, reason: str | None = None, *, first_only: bool = False
) -> bool:
    """Let a reference be the one that its region, filter and set are used with from now on.

    Parameters
    ----------
    session
        An open session; nothing is committed here.
    reference
        A whole one, in the database.
    reason
        A person's words.
    first_only
        Only if there is none, or none that is good.

    Returns
    -------
    bool
        Whether that was a change.
    """
    take_turns(session, f"{reference.provenance_id} {reference.region} {reference.filter}")
    used = references_used(session, reference.provenance_id, [reference.region], reference.filter)
    good = used and session.scalars(
        select(Reference.id).where(Reference.id.in_(used), Reference.bitflag == 0)
    )
    if good and good.first() if first_only else used[:1] == [reference.id]:
        return False
    session.add(ReferenceUse(reference_id=reference.id, reason=reason))
    session.flush()
    return True


def references_used(
    session: Session, provenance_id: str, regions: Sequence[str] | None = None, band: str | None = None
) -> list[uuid.UUID]:
    """Return the ids of the references that are used or were, the last one of each region first.

    Parameters
    ----------
    session
        An open session.
    provenance_id
        Of the references: settings with another one have a set of their own.
    regions, band
        Only of these regions, only in this filter.
    """
    query = (
        select(ReferenceUse.reference_id)
        .join(Reference, Reference.id == ReferenceUse.reference_id)
        .where(Reference.provenance_id == provenance_id)
        .order_by(ReferenceUse.created_at.desc(), ReferenceUse.id.desc())
    )
    if regions is not None:
        query = query.where(Reference.region.in_(list(regions)))
    if band is not None:
        query = query.where(Reference.filter == band)
    return list(dict.fromkeys(session.scalars(query)))


def find_references(
    session: Session,
    corners: Corners,
    *,
    instrument: str,
    band: str,
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
    provenance_id
        Only those of that processing, if given.

    Returns
    -------
    list of Reference
        Also those that leave an exposure out, and those that are not used or no longer (`references_used`).
    """
    query = select(Reference).where(
        Reference.instrument == instrument, Reference.filter == band, Reference.bitflag == 0
    )
    if provenance_id is not None:
        query = query.where(Reference.provenance_id == provenance_id)
    return overlapping(session, query.order_by(Reference.id.desc()), corners)
