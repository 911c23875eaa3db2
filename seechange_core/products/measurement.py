"""Measurements: what was measured on the cutouts of each sighting."""

import uuid
from collections.abc import Sequence

import numpy as np
from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core.frames import Measurements, WcsSolution
from seechange_core.products.base import Detail, Located, link
from seechange_core.products.cutouts import Cutouts
from seechange_core.products.image import Image
from seechange_core.products.photometric import magnitude
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.storage.orm import Base


class Measurement(Detail, Located, Base):
    """What was measured on one set of cutouts."""

    __tablename__ = "measurements"
    NATURAL_KEY = ("cutouts_id", "provenance_id")
    __table_args__ = (UniqueConstraint(*NATURAL_KEY),)

    cutouts_id: Mapped[uuid.UUID] = link("cutouts.id", "What it was measured on.", cascade=True)
    sighting_id: Mapped[uuid.UUID] = link("sightings.id", "What was measured.", cascade=True)
    object_id: Mapped[uuid.UUID | None] = link("objects.id", "The object it belongs to, once known.")
    zero_point_id: Mapped[uuid.UUID] = link("zero_points.id", "What made magnitudes of its fluxes.")
    mjd_mid: Mapped[float] = mapped_column(index=True, doc="Middle of the exposure, MJD (UTC).")
    x: Mapped[float] = mapped_column(doc="Fitted position along columns, pixels from 0.")
    y: Mapped[float] = mapped_column(doc="Fitted position along rows, pixels from 0.")
    x_err: Mapped[float | None] = mapped_column(doc="1-sigma error of x, pixels.")
    y_err: Mapped[float | None] = mapped_column(doc="1-sigma error of y, pixels.")
    position_err_arcsec: Mapped[float | None] = mapped_column(
        doc="1-sigma error per axis on the sky, that of the astrometric solution included, arcsec."
    )
    flux: Mapped[float | None] = mapped_column(doc="PSF flux in the difference, electrons of the new image.")
    flux_err: Mapped[float | None] = mapped_column(doc="1-sigma error of flux, electrons.")
    chi2: Mapped[float | None] = mapped_column(doc="Reduced chi square of the PSF fit.")
    mag: Mapped[float | None] = mapped_column(
        doc="zp - 2.5 log10(flux), zp that of the difference at x, y; None where flux is not positive."
    )
    mag_err: Mapped[float | None] = mapped_column(doc="1-sigma error of mag from flux_err, mag.")
    limiting_mag: Mapped[float | None] = mapped_column(
        doc="Magnitude of 5 flux_err: the limit where flux is not positive."
    )
    flux_aper: Mapped[float | None] = mapped_column(doc="Flux in the best aperture, electrons.")
    flux_aper_err: Mapped[float | None] = mapped_column(doc="1-sigma error of flux_aper, electrons.")
    fwhm_pix: Mapped[float | None] = mapped_column(doc="Of a Gaussian fitted to the difference, pixels.")
    elongation: Mapped[float | None] = mapped_column(doc="Longer over shorter axis of that Gaussian.")
    theta_rad: Mapped[float | None] = mapped_column(doc="Angle of its longer axis from +x towards +y, rad.")
    offset_pix: Mapped[float | None] = mapped_column(doc="From the detection to the PSF fit, pixels.")
    n_bad: Mapped[int] = mapped_column(doc="Flagged pixels within the core.")
    masked_fraction: Mapped[float | None] = mapped_column(
        doc="Of the PSF's light: how much falls on unusable pixels, 0 to 1."
    )
    cosmic_ray_fraction: Mapped[float | None] = mapped_column(
        doc="Of the PSF's light: how much falls on pixels hit by cosmic rays, 0 to 1."
    )
    negative_fraction: Mapped[float | None] = mapped_column(
        doc="Of the core's 3 x 3 pixel sums beyond 2.5 sigma: how many are of the opposite sign, 0 to 1."
    )
    negative_flux_fraction: Mapped[float | None] = mapped_column(
        doc="Of the flux of those sums: how much is of the opposite sign, 0 to 1."
    )
    dipole_chi2: Mapped[float | None] = mapped_column(
        doc="By how much a positive and a negative PSF lower the chi square of one."
    )
    dipole_ratio: Mapped[float | None] = mapped_column(doc="Weaker over stronger flux of the two, 0 to 1.")
    dipole_separation_pix: Mapped[float | None] = mapped_column(doc="Distance of the two, pixels.")
    dipole_angle_rad: Mapped[float | None] = mapped_column(
        doc="Way from the negative to the positive one, from +x towards +y, rad."
    )
    translient_sigma: Mapped[float | None] = mapped_column(
        doc="Significance of a shift, to be compared with the absolute score; None if not asked for."
    )
    translient_angle_rad: Mapped[float | None] = mapped_column(
        doc="Where it shifted to, from +x towards +y, rad."
    )
    change_fraction: Mapped[float | None] = mapped_column(
        doc="Flux over the light that was there before within the aperture; None if there was none."
    )
    star_distance_arcsec: Mapped[float | None] = mapped_column(
        doc="To the reference's nearest star, arcsec; None if it has none."
    )
    star_mag: Mapped[float | None] = mapped_column(doc="Magnitude of that star.")
    galaxy_distance_arcsec: Mapped[float | None] = mapped_column(
        doc="To the reference's nearest galaxy, arcsec; None if it has none."
    )
    galaxy_mag: Mapped[float | None] = mapped_column(doc="Magnitude of that galaxy.")
    edge_distance_pix: Mapped[float | None] = mapped_column(doc="To the section's nearest edge, pixels.")
    is_bad: Mapped[bool] = mapped_column(index=True, doc="Fails one of the cuts.")
    bad_reasons: Mapped[int] = mapped_column(default=0, doc="`BadReason` bits: the cuts that it fails.")


def make_measurements(
    image: Image,
    cutouts: Sequence[Cutouts],
    measured: Measurements,
    wcs: WcsSolution,
    zero_point: ZeroPoint,
    mjd_mid: float,
    provenance_id: str,
) -> list[Measurement]:
    """Make a row of each measurement.

    Parameters
    ----------
    image
        The difference they are of.
    cutouts
        Their rows, in the order of the measurements.
    measured
        What the stage returned.
    wcs, zero_point
        Solutions of the new image.
    mjd_mid
        Middle of the exposure, MJD (UTC).
    provenance_id
        Of the measurements.
    """
    ra, dec = wcs.to_sky(measured.x, measured.y)
    pixel_err = np.hypot(measured.x_err, measured.y_err) / np.sqrt(2)
    sky_err = np.hypot(pixel_err * wcs.pixel_scale_arcsec, wcs.error_mas / 1000)
    zp = image.zero_point(zero_point.solution()).zp_at(measured.x, measured.y)
    mag, mag_err = magnitude(measured.flux_psf, measured.flux_psf_err, zp)
    limit, _ = magnitude(5 * measured.flux_psf_err, np.zeros(len(measured)), zp)
    columns = measured.columns()
    same = [name for name in columns if name not in {"flux_psf", "flux_psf_err"}]
    return [
        Measurement(
            cutouts_id=row.id,
            sighting_id=row.sighting_id,
            zero_point_id=zero_point.id,
            provenance_id=provenance_id,
            mjd_mid=mjd_mid,
            ra=ra[i],
            dec=dec[i],
            position_err_arcsec=sky_err[i],
            flux=measured.flux_psf[i],
            flux_err=measured.flux_psf_err[i],
            mag=mag[i],
            mag_err=mag_err[i],
            limiting_mag=limit[i],
            **{name: columns[name][i] for name in same},
        )
        for i, row in enumerate(cutouts)
    ]
