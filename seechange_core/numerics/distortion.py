"""Fit a TAN-SIP world coordinate system to matched positions, and write its FITS cards.

Pixels in this module are measured from the reference pixel. Conventions of Shupe et al. 2005
(ASP Conf. 347, 491): ``(xi, eta) = CD (u + sum A_pq u^p v^q, v + sum B_pq u^p v^q)`` with
2 <= p + q <= order.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seechange_core.frames import Float
from seechange_core.numerics import sky
from seechange_core.numerics.fitting import LinearFit, fit_linear, refit

_RECENTRINGS = 6
_ARCSEC = 3600.0


def powers(order: int) -> list[tuple[int, int]]:
    """List the exponents (p, q) of u^p v^q up to a total degree: 1, u, v, u^2, u v, v^2, ..."""
    return [(degree - q, q) for degree in range(order + 1) for q in range(degree + 1)]


def basis(u: npt.ArrayLike, v: npt.ArrayLike, order: int) -> Float:
    """Evaluate the terms of `powers`, shape (n, n_terms)."""
    u, v = np.asarray(u, float), np.asarray(v, float)
    return np.column_stack([u**p * v**q for p, q in powers(order)])


@dataclass(frozen=True, eq=False)
class PlateFit:
    """A polynomial from pixels to the tangent plane at (`ra0`, `dec0`).

    Attributes
    ----------
    ra0, dec0
        Sky position of the reference pixel, degrees.
    x0, y0
        The reference pixel, 0-based.
    order
        Total degree; 1 is a plain TAN.
    unit_pix
        Pixels are divided by this before powers are taken.
    fit
        Coefficients (n_terms, 2) in arcseconds, residuals, errors, outliers.
    """

    ra0: float
    dec0: float
    x0: float
    y0: float
    order: int
    unit_pix: float
    fit: LinearFit

    def plane(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Float, Float]:
        """Map 0-based pixels to tangent-plane arcseconds."""
        terms = self._terms(x, y) @ self.fit.coefficients
        return terms[:, 0], terms[:, 1]

    def plane_error(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Float:
        """Give the 1-sigma error of the map itself at 0-based pixels, arcseconds per axis."""
        terms = self._terms(x, y)
        return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", terms, self.fit.covariance, terms)), float)

    def _terms(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Float:
        u = (np.atleast_1d(np.asarray(x, float)) - self.x0) / self.unit_pix
        v = (np.atleast_1d(np.asarray(y, float)) - self.y0) / self.unit_pix
        return basis(u, v, self.order)

    def cards(self) -> dict[str, str | int | float]:
        """Write the solution as FITS cards (1-based); SIP only when the order asks for it."""
        linear = self.fit.coefficients[1:3].T / self.unit_pix
        distorted = self.order > 1
        suffix = "-SIP" if distorted else ""
        cards: dict[str, str | int | float] = {
            "WCSAXES": 2, "CTYPE1": f"RA---TAN{suffix}", "CTYPE2": f"DEC--TAN{suffix}",
            "CUNIT1": "deg", "CUNIT2": "deg", "RADESYS": "ICRS",
            "CRVAL1": self.ra0, "CRVAL2": self.dec0, "CRPIX1": self.x0 + 1.0, "CRPIX2": self.y0 + 1.0,
            "CD1_1": float(linear[0, 0] / _ARCSEC), "CD1_2": float(linear[0, 1] / _ARCSEC),
            "CD2_1": float(linear[1, 0] / _ARCSEC), "CD2_2": float(linear[1, 1] / _ARCSEC),
        }  # fmt: skip
        if distorted:
            cards |= self._sip_cards(np.asarray(np.linalg.inv(linear), float))
        return cards

    def _sip_cards(self, to_pixels: Float) -> dict[str, str | int | float]:
        cards: dict[str, str | int | float] = {"A_ORDER": self.order, "B_ORDER": self.order}
        for (p, q), coefficient in zip(powers(self.order), self.fit.coefficients, strict=True):
            if p + q >= 2:
                in_pixels = to_pixels @ coefficient / self.unit_pix ** (p + q)
                cards[f"A_{p}_{q}"], cards[f"B_{p}_{q}"] = float(in_pixels[0]), float(in_pixels[1])
        return cards


def fit_plate(
    pixels: tuple[Float, Float],
    positions: tuple[Float, Float],
    errors_arcsec: Float,
    reference: tuple[float, float],
    start: tuple[float, float],
    order: int,
    clip_sigma: float,
) -> PlateFit:
    """Fit matched pixels to sky positions, moving the tangent point until it lies on the reference pixel.

    Parameters
    ----------
    pixels
        (x, y), 0-based.
    positions
        (ra, dec), degrees.
    errors_arcsec
        (n,) per axis.
    reference
        (x0, y0) where the tangent point shall be.
    start
        (ra, dec) near it.
    order
        Total degree of the polynomial.
    clip_sigma
        Matches beyond this are outliers.
    """
    x, y = pixels
    unit = float(max(np.ptp(x), np.ptp(y), 1.0)) / 2
    terms = basis((x - reference[0]) / unit, (y - reference[1]) / unit, order)
    ra0, dec0 = start
    fit = fit_linear(terms, _plane(positions, ra0, dec0), errors_arcsec, clip_sigma=clip_sigma)
    for _ in range(_RECENTRINGS):
        xi, eta = fit.coefficients[0] / _ARCSEC
        ra, dec = sky.deproject(xi, eta, ra0, dec0)
        ra0, dec0 = float(ra), float(dec)
        fit = refit(fit, terms, _plane(positions, ra0, dec0))
        if np.hypot(*fit.coefficients[0]) < 1e-7:
            break
    return PlateFit(ra0, dec0, *reference, order, unit, fit)


def _plane(positions: tuple[Float, Float], ra0: float, dec0: float) -> Float:
    return np.column_stack(sky.project(*positions, ra0, dec0)) * _ARCSEC
