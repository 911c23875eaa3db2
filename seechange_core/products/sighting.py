"""Sightings: single detections of something that changed, one row each."""

import uuid

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core.frames import Detections, WcsSolution
from seechange_core.products.base import Detail, Located, link
from seechange_core.products.source_list import SourceList
from seechange_core.storage.orm import Base


class Sighting(Detail, Located, Base):
    """One detection in one difference image."""

    __tablename__ = "sightings"
    NATURAL_KEY = ("source_list_id", "number")
    __table_args__ = (UniqueConstraint(*NATURAL_KEY),)

    source_list_id: Mapped[uuid.UUID] = link("source_lists.id", "The list it is in.", cascade=True)
    number: Mapped[int] = mapped_column(doc="Its place in the list, from 0.")
    object_id: Mapped[uuid.UUID | None] = link("objects.id", "The object it is a sighting of, once known.")
    mjd_mid: Mapped[float] = mapped_column(index=True, doc="Middle of the exposure, MJD (UTC).")
    x: Mapped[float] = mapped_column(doc="Position along columns, pixels from 0.")
    y: Mapped[float] = mapped_column(doc="Position along rows, pixels from 0.")
    x_err: Mapped[float | None] = mapped_column(doc="1-sigma error of x, pixels.")
    y_err: Mapped[float | None] = mapped_column(doc="1-sigma error of y, pixels.")
    position_err_arcsec: Mapped[float | None] = mapped_column(
        doc="1-sigma error per axis on the sky, that of the astrometric solution included, arcsec."
    )
    score: Mapped[float] = mapped_column(index=True, doc="Signed peak of the score image, sigma.")
    flux: Mapped[float | None] = mapped_column(doc="PSF flux in the difference, electrons of the new image.")
    flux_err: Mapped[float | None] = mapped_column(doc="1-sigma error of flux, electrons.")
    flags: Mapped[int] = mapped_column(default=0, doc="`PixelFlag` bits near the peak.")


def make_sightings(
    source_list: SourceList, detections: Detections, wcs: WcsSolution, mjd_mid: float
) -> list[Sighting]:
    """Make a row of each detection.

    Parameters
    ----------
    source_list
        The row of the list they are in.
    detections
        Its content.
    wcs
        Astrometric solution of the new image.
    mjd_mid
        Middle of the exposure, MJD (UTC).
    """
    ra, dec = wcs.to_sky(detections.x, detections.y)
    pixel_err = ((detections.x_err**2 + detections.y_err**2) / 2) ** 0.5
    sky_err = ((pixel_err * wcs.pixel_scale_arcsec) ** 2 + (wcs.error_mas / 1000) ** 2) ** 0.5
    return [
        Sighting(
            source_list_id=source_list.id,
            provenance_id=source_list.provenance_id,
            number=i,
            mjd_mid=mjd_mid,
            x=detections.x[i],
            y=detections.y[i],
            x_err=detections.x_err[i],
            y_err=detections.y_err[i],
            ra=ra[i],
            dec=dec[i],
            position_err_arcsec=sky_err[i],
            score=detections.score[i],
            flux=detections.flux_psf[i],
            flux_err=detections.flux_psf_err[i],
            flags=detections.flags[i],
        )
        for i in range(len(detections))
    ]
