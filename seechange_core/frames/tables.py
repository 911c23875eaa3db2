"""Tables: columns of equal length."""

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy.typing as npt

from seechange_core.frames.types import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length; subclasses declare them as array fields."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def select(self, rows: npt.NDArray[Any]) -> Self:
        """Return the given rows (mask or indices) as a new table."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, eq=False)
class Sources(Table):
    """Light sources found in an image; every column has one entry per source.

    Attributes
    ----------
    x, y, x_err, y_err
        Position and its 1-sigma error, pixels.
    flux_psf, flux_psf_err
        PSF-fit flux, electrons: the total-flux system.
    chi2
        Reduced chi square of the PSF fit.
    flux_aper, flux_aper_err
        (n, n_apertures), electrons, for the radii the stage's parameters give.
    peak
        Highest pixel above the sky, electrons.
    fwhm_pix, elongation, theta_rad
        Shape: from second moments; angle from +x towards +y.
    flags
        `PixelFlag` bits found within the source.
    blended
        Its neighbours give more than a twentieth of its own light on its middle pixel.
    is_star
        Consistent with the PSF.
    """

    x: Float
    y: Float
    x_err: Float
    y_err: Float
    flux_psf: Float
    flux_psf_err: Float
    chi2: Float
    flux_aper: Float
    flux_aper_err: Float
    peak: Float
    fwhm_pix: Float
    elongation: Float
    theta_rad: Float
    flags: Int
    blended: Bool
    is_star: Bool

    @property
    def snr(self) -> Float:
        """Signal to noise of the PSF flux."""
        return self.flux_psf / self.flux_psf_err


@dataclass(frozen=True, eq=False)
class CatalogStars(Table):
    """Reference stars around a field, moved to one epoch.

    Attributes
    ----------
    ra, dec
        ICRS deg at the epoch asked for.
    position_err_mas
        1 sigma per axis at that epoch.
    mag, mag_err
        In the band asked for; NaN where unknown.
    color
        Colour asked for (mag); NaN where unknown.
    is_star
        False for known galaxies and other contaminants.
    """

    ra: Float
    dec: Float
    position_err_mas: Float
    mag: Float
    mag_err: Float
    color: Float
    is_star: Bool


@dataclass(frozen=True, eq=False)
class Detections(Table):
    """What changed: peaks and troughs of the score image.

    Attributes
    ----------
    x, y, x_err, y_err
        Pixels.
    score
        Signed peak score, sigma.
    flux_psf, flux_psf_err
        Fitted on the difference, electrons of the new image; negative where it faded.
    flags
        `PixelFlag` bits within half a FWHM of the peak.
    """

    x: Float
    y: Float
    x_err: Float
    y_err: Float
    score: Float
    flux_psf: Float
    flux_psf_err: Float
    flags: Int


@dataclass(frozen=True, eq=False)
class StaticSources(Table):
    """What was there before: the reference's sources on the pixels of the new image.

    Attributes
    ----------
    x, y
        Pixels of the new image.
    mag
        NaN where the reference has none.
    is_star
        Consistent with the reference's PSF.
    """

    x: Float
    y: Float
    mag: Float
    is_star: Bool


@dataclass(frozen=True, eq=False)
class Measurements(Table):
    """What was measured on the stamps, one row per detection.

    Attributes
    ----------
    x, y, x_err, y_err
        Fitted position, pixels.
    flux_psf, flux_psf_err, chi2
        PSF fit at that position on the difference, electrons; reduced chi square, PSF errors included.
    flux_aper, flux_aper_err
        In the best aperture, scaled to the total by the PSF's share of it, electrons.
    fwhm_pix, elongation, theta_rad
        Of a Gaussian fitted to the difference.
    offset_pix
        From the detection to the PSF fit.
    n_bad
        Flagged pixels within the core box.
    masked_fraction, cosmic_ray_fraction
        Of the PSF's light: how much falls on unusable pixels, and on pixels hit by cosmic rays, 0 to 1.
    negative_fraction, negative_flux_fraction
        Of the 3 x 3 pixel sums beyond 2.5 sigma in the core box: how many, and how much flux, of the
        opposite sign.
    dipole_chi2, dipole_ratio, dipole_separation_pix, dipole_angle_rad
        By how much a positive and a negative PSF fit better than one, the weaker flux over the stronger one,
        and the way from the negative to the positive one, its angle from +x towards +y.
    translient_sigma, translient_angle_rad
        Significance of the strongest dipole within a FWHM in the test for sources that moved, to be compared
        with the absolute score, and where it moved to, from +x towards +y; NaN where that test was not made.
    change_fraction
        Flux over the light that was there within the aperture; infinite or NaN without light.
    star_distance_arcsec, star_mag, galaxy_distance_arcsec, galaxy_mag
        The reference's nearest star and galaxy; NaN if it has none, or was not asked.
    edge_distance_pix
        To the nearest edge of the section; NaN if it was not asked for.
    is_bad
        Fails one of the cuts of the parameters.
    bad_reasons
        Bits of the cuts that failed.
    """

    x: Float
    y: Float
    x_err: Float
    y_err: Float
    flux_psf: Float
    flux_psf_err: Float
    chi2: Float
    flux_aper: Float
    flux_aper_err: Float
    fwhm_pix: Float
    elongation: Float
    theta_rad: Float
    offset_pix: Float
    n_bad: Int
    masked_fraction: Float
    cosmic_ray_fraction: Float
    negative_fraction: Float
    negative_flux_fraction: Float
    dipole_chi2: Float
    dipole_ratio: Float
    dipole_separation_pix: Float
    dipole_angle_rad: Float
    translient_sigma: Float
    translient_angle_rad: Float
    change_fraction: Float
    star_distance_arcsec: Float
    star_mag: Float
    galaxy_distance_arcsec: Float
    galaxy_mag: Float
    edge_distance_pix: Float
    is_bad: Bool
    bad_reasons: Int


@dataclass(frozen=True, eq=False)
class ForcedFluxes(Table):
    """Fluxes at given positions, wherever they are and however faint.

    Attributes
    ----------
    x, y
        Where the flux was forced, pixels.
    flux, flux_err
        Electrons; NaN where no usable pixel.
    chi2
        Reduced, of the fit.
    flags
        `PixelFlag` bits within half a FWHM.
    usable_fraction
        Of the PSF's light on usable pixels, 0 to 1.
    """

    x: Float
    y: Float
    flux: Float
    flux_err: Float
    chi2: Float
    flags: Int
    usable_fraction: Float
