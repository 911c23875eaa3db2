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
class Measurements(Table):
    """What was measured on the stamps, one row per detection.

    Attributes
    ----------
    x, y, x_err, y_err
        Fitted position, pixels.
    flux_psf, flux_psf_err, chi2
        PSF fit at that position on the difference, electrons.
    flux_aper, flux_aper_err
        In the best aperture, scaled to the total by the PSF's share of it, electrons.
    fwhm_pix, elongation, theta_rad
        Of a Gaussian fitted to the difference.
    offset_pix
        From the detection's peak to the fit.
    n_bad
        Flagged pixels within the core box.
    negative_fraction, negative_flux_fraction
        Of the 3 x 3 pixel sums beyond 2.5 sigma in the core box: how many, and how much flux, of the
        opposite sign.
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
    negative_fraction: Float
    negative_flux_fraction: Float
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
