"""Forced fluxes: of every object in every image that covers it; what light curves are made of."""

import uuid
from collections.abc import Sequence

import numpy as np
from sqlalchemy import CheckConstraint, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from seechange_core.frames import Float, ForcedFluxes
from seechange_core.products.base import Detail, link
from seechange_core.products.image import Image
from seechange_core.products.object import Object
from seechange_core.products.photometric import magnitude
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.storage.orm import Base
from seechange_core.storage.rows import insert_or_update_many

FORCED_KINDS = ("image", "difference")
#: An upper limit is this many times the error of the flux.
LIMIT_SIGMA = 5.0


class ForcedFlux(Detail, Base):
    """The flux of one object in one image, however faint."""

    __tablename__ = "forced_fluxes"
    NATURAL_KEY = ("object_id", "image_id", "provenance_id")
    __table_args__ = (
        UniqueConstraint(*NATURAL_KEY),
        CheckConstraint(f"kind IN {FORCED_KINDS}", name="known_kind"),
    )

    object_id: Mapped[uuid.UUID] = link("objects.id", "Whose flux it is.", cascade=True)
    image_id: Mapped[uuid.UUID] = link(
        "images.id", "The image measured, calibrated or difference.", cascade=True
    )
    zero_point_id: Mapped[uuid.UUID] = link("zero_points.id", "What made magnitudes of its fluxes.")
    kind: Mapped[str] = mapped_column(String(10), doc="image or difference: what was measured.")
    filter: Mapped[str] = mapped_column(doc="Short name of the filter.")
    mjd_mid: Mapped[float] = mapped_column(index=True, doc="Middle of the exposure, MJD (UTC).")
    bjd_tdb: Mapped[float | None] = mapped_column(
        doc="Middle of the exposure at the solar system's barycentre, BJD (TDB)."
    )
    ra: Mapped[float] = mapped_column(doc="Where it was measured, ICRS deg: the object as then known.")
    dec: Mapped[float] = mapped_column(doc="Where it was measured, ICRS deg.")
    x: Mapped[float] = mapped_column(doc="Where it was measured along columns, pixels from 0.")
    y: Mapped[float] = mapped_column(doc="Where it was measured along rows, pixels from 0.")
    flux: Mapped[float | None] = mapped_column(doc="PSF flux, electrons; None where no pixel was usable.")
    flux_err: Mapped[float | None] = mapped_column(doc="1-sigma error of flux, electrons.")
    chi2: Mapped[float | None] = mapped_column(doc="Reduced chi square of the fit.")
    flags: Mapped[int] = mapped_column(default=0, doc="`PixelFlag` bits near the position.")
    usable_fraction: Mapped[float] = mapped_column(
        doc="Fraction of the PSF's light on usable pixels, 0 to 1."
    )
    zp: Mapped[float] = mapped_column(
        doc="Zero point at x, y, mag of one electron: of the image; of a difference, its references'."
    )
    zp_err: Mapped[float] = mapped_column(doc="1-sigma error of zp, mag; common to all objects in the image.")
    mag: Mapped[float | None] = mapped_column(doc="zp - 2.5 log10(flux); None where flux is not positive.")
    mag_err: Mapped[float | None] = mapped_column(doc="1-sigma error of mag from flux_err alone, mag.")
    limiting_mag: Mapped[float | None] = mapped_column(
        doc="Magnitude of 5 flux_err: the upper limit where nothing is detected."
    )


def make_forced_fluxes(
    objects: Sequence[Object],
    forced: ForcedFluxes,
    image: Image,
    zero_point: ZeroPoint,
    bjd_tdb: Float,
    provenance_id: str,
) -> list[ForcedFlux]:
    """Make a row of each flux.

    Parameters
    ----------
    objects
        Whose fluxes they are, in their order, at the places where they were measured.
    forced
        What the stage returned.
    image
        The image measured; a difference is on its new image's flux scale.
    zero_point
        Of the image, or of the difference's new image.
    bjd_tdb
        (n,) Barycentric Julian dates of the middle of the exposure; NaN where unknown.
    provenance_id
        Of the forced photometry.
    """
    solution = image.zero_point(zero_point.solution())
    zp = solution.zp_at(forced.x, forced.y)
    mag, mag_err = magnitude(forced.flux, forced.flux_err, zp)
    limit, _ = magnitude(LIMIT_SIGMA * forced.flux_err, np.zeros(len(forced)), zp)
    columns = forced.columns()
    return [
        ForcedFlux(
            object_id=found.id,
            ra=found.ra,
            dec=found.dec,
            image_id=image.id,
            zero_point_id=zero_point.id,
            provenance_id=provenance_id,
            kind="difference" if image.type == "difference" else "image",
            filter=image.filter,
            mjd_mid=image.mjd_mid,
            bjd_tdb=bjd_tdb[i],
            zp=zp[i],
            zp_err=solution.zp_err,
            mag=mag[i],
            mag_err=mag_err[i],
            limiting_mag=limit[i],
            **{name: column[i] for name, column in columns.items()},
        )
        for i, found in enumerate(objects)
    ]


def save_forced_fluxes(session: Session, rows: Sequence[ForcedFlux]) -> int:
    """Save fluxes of one image, but for those of objects that were merged into others as they were measured.

    Parameters
    ----------
    session
        An open session; nothing is committed here.
    rows
        New rows, not added to the session.

    Returns
    -------
    int
        How many were saved.
    """
    ids = sorted({row.object_id for row in rows})
    # Who merges objects waits until these rows are there.
    living = select(Object.id).where(Object.id.in_(ids)).order_by(Object.id)
    there = set(session.scalars(living.with_for_update(read=True, key_share=True)))
    kept = [row for row in rows if row.object_id in there]
    insert_or_update_many(session, kept, ForcedFlux.NATURAL_KEY)
    return len(kept)
