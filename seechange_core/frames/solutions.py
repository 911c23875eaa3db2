"""Astrometric and photometric solutions, and what is known before."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from seechange_core.frames.types import Cards, Float


@dataclass(frozen=True)
class PointingHint:
    """What is known of a section's place on the sky before it is solved.

    Attributes
    ----------
    ra, dec
        ICRS deg of the section's centre.
    radius_arcmin
        How far off that may be.
    pixel_scale_arcsec, scale_tolerance
        Nominal scale and its relative uncertainty.
    rotation_deg, parity
        Position angle of +y (north through east) and +1 (east to the left) or -1 (mirrored); None if unknown.
    rotation_tolerance_deg
        Uncertainty of `rotation_deg`.
    """

    ra: float
    dec: float
    radius_arcmin: float
    pixel_scale_arcsec: float
    scale_tolerance: float = 0.03
    rotation_deg: float | None = None
    rotation_tolerance_deg: float = 5.0
    parity: int | None = None


@dataclass(frozen=True, eq=False)
class WcsSolution:
    """An astrometric solution, TAN, TAN-SIP or TPV.

    Attributes
    ----------
    cards
        FITS WCS cards, 1-based as FITS wants them.
    shape
        (H, W) of the image it belongs to.
    rms_mas
        Root mean square residual per axis of the stars used, milliarcseconds.
    n_matched, n_catalog
        Stars used and catalog stars in the field.
    error_mas
        Estimated error of the solution itself at the image's centre, per axis.
    """

    cards: Cards
    shape: tuple[int, int]
    rms_mas: float = 0.0
    n_matched: int = 0
    n_catalog: int = 0
    error_mas: float = 0.0

    @cached_property
    def wcs(self) -> WCS:
        """The astropy WCS (distortion included)."""
        header = fits.Header()
        for key, value in self.cards.items():
            header[key] = value
        return WCS(header)

    def to_sky(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Float, Float]:
        """Convert 0-based pixels to ICRS degrees."""
        ra, dec = self.wcs.all_pix2world(x, y, 0)
        return np.asarray(ra, float), np.asarray(dec, float)

    def to_pixels(self, ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[Float, Float]:
        """Convert ICRS degrees to 0-based pixels; NaN where the sky position is not in front."""
        x, y = self.wcs.all_world2pix(ra, dec, 0, quiet=True)
        return np.asarray(x, float), np.asarray(y, float)

    @property
    def pixel_scale_arcsec(self) -> float:
        """Mean scale at the reference pixel."""
        return float(np.sqrt(abs(np.linalg.det(self.wcs.pixel_scale_matrix))) * 3600)


@dataclass(frozen=True, eq=False)
class ZeroPointSolution:
    """A photometric solution: ``mag = zp_at(x, y) - 2.5 log10(flux_psf)``.

    Attributes
    ----------
    zp, zp_err
        Magnitude of one electron (whole exposure), and its error.
    band
        The band of the magnitudes.
    color_term, color_term_err
        Per magnitude of catalog colour; 0 and 0 when no colour is known.
    n_stars
        Stars used.
    scatter_mag
        Robust scatter of the bright stars used.
    aperture_corrections
        (n_apertures,) magnitudes to add to aperture magnitudes to reach the total-flux system.
    limiting_mag
        Point source at 5 sigma, its own photon noise included.
    spatial_mag
        How the zero point varies over the section, empty where it was not fitted: coefficients of u, v (and
        u^2, u v, v^2), where u and v run from -1 to 1 across the section's pixels; mean 0 over the section.
    shape
        (H, W) of the section, which u and v are relative to.
    """

    zp: float
    zp_err: float
    band: str
    color_term: float = 0.0
    color_term_err: float = 0.0
    n_stars: int = 0
    scatter_mag: float = 0.0
    aperture_corrections: tuple[float, ...] = ()
    limiting_mag: float = np.nan
    spatial_mag: tuple[float, ...] = ()
    shape: tuple[int, int] = (2, 2)

    def zp_at(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Float:
        """Return the zero point at 0-based pixels: `zp` and its variation, beyond an edge as on it."""
        height, width = self.shape
        terms = spatial_terms(np.clip(x, 0, width - 1), np.clip(y, 0, height - 1), self.shape)
        return self.zp + sum(
            (c * term for c, term in zip(self.spatial_mag, terms, strict=False)), np.zeros(np.shape(x))
        )

    def moved(self, change_mag: Sequence[float], zp_err: float) -> "ZeroPointSolution":
        """Return it with a change added: coefficients of 1 and, as in `spatial_mag`, of how that varies."""
        own, other = self.spatial_mag, tuple(change_mag[1:])
        spatial = tuple(a + b for a, b in zip_longest(own, other, fillvalue=0.0))
        return replace(self, zp=self.zp + change_mag[0], zp_err=zp_err, spatial_mag=spatial)


def spatial_terms(x: npt.ArrayLike, y: npt.ArrayLike, shape: tuple[int, int]) -> tuple[Float, ...]:
    """Return the terms of `ZeroPointSolution.spatial_mag` at 0-based pixels of a section of shape (H, W)."""
    u = np.asarray(x, float) / ((shape[1] - 1) / 2) - 1
    v = np.asarray(y, float) / ((shape[0] - 1) / 2) - 1
    # The mean of u^2 and v^2 over the section is a third.
    return u, v, u**2 - 1 / 3, u * v, v**2 - 1 / 3
