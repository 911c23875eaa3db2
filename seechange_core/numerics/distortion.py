"""Fit a world coordinate system with distortion to matched positions, and write its FITS cards.

Pixels in this module are measured from the reference pixel. Written as TAN-SIP (Shupe et al. 2005, ASP
Conf. 347, 491): ``(xi, eta) = CD (u + sum A_pq u^p v^q, v + sum B_pq u^p v^q)`` with 2 <= p + q <= order;
or as TPV (SCAMP's convention, after Calabretta et al. 2004): ``xi = x + PV1_4 x^2 + PV1_5 x y + ...`` with
``(x, y) = CD (u, v)``. Both hold the same polynomial.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.polynomial.polynomial import polypow

from seechange_core.frames import Float
from seechange_core.numerics import sky
from seechange_core.numerics.fitting import LinearFit, fit_linear, refit

_RECENTRINGS = 6
_LINEAR_TERMS = 3
_INVERSE_GRID, _INVERSE_EXTRA = 15, 2
#: Number of the first PV keyword of each degree; those between hold powers of the radius.
_TPV_START = {2: 4, 3: 7, 4: 12, 5: 17}

Projection = Literal["TAN-SIP", "TPV"]
Card = str | int | float
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

    def cards(self, shape: tuple[int, int], projection: Projection = "TAN-SIP") -> dict[str, Card]:
        """Write the solution as FITS cards (1-based); with distortion terms only when the order asks for it.

        Parameters
        ----------
        shape
            (H, W) of the section, over which the inverse of a SIP polynomial shall hold.
        projection
            How distortion is written. The two describe the same map; never are both in one header.
        """
        linear = np.asarray(self.fit.coefficients[1:3].T / self.unit_pix, float)
        kind = projection if self.order > 1 else "TAN"
        ctypes = {"TAN": ("RA---TAN", "DEC--TAN"), "TAN-SIP": ("RA---TAN-SIP", "DEC--TAN-SIP")}
        first, second = ctypes.get(kind, ("RA---TPV", "DEC--TPV"))
        cards: dict[str, Card] = {
            "WCSAXES": 2, "CTYPE1": first, "CTYPE2": second,
            "CUNIT1": "deg", "CUNIT2": "deg", "RADESYS": "ICRS",
            "CRVAL1": self.ra0, "CRVAL2": self.dec0, "CRPIX1": self.x0 + 1.0, "CRPIX2": self.y0 + 1.0,
            "CD1_1": float(linear[0, 0] / _ARCSEC), "CD1_2": float(linear[0, 1] / _ARCSEC),
            "CD2_1": float(linear[1, 0] / _ARCSEC), "CD2_2": float(linear[1, 1] / _ARCSEC),
        }  # fmt: skip
        if kind == "TAN-SIP":
            cards |= self._sip_cards(np.asarray(np.linalg.inv(linear), float), shape)
        elif kind == "TPV":
            cards |= self._tpv_cards(np.asarray(np.linalg.inv(linear / _ARCSEC), float))
        return cards

    def _bends(self) -> list[tuple[int, int, Float]]:
        """List the terms beyond the linear ones: exponents p, q and the arcseconds per pixel^(p + q)."""
        terms = zip(powers(self.order), self.fit.coefficients, strict=True)
        return [(p, q, c / self.unit_pix ** (p + q)) for (p, q), c in terms if p + q >= 2]

    def _sip_cards(self, to_pixels: Float, shape: tuple[int, int]) -> dict[str, Card]:
        cards: dict[str, Card] = {"A_ORDER": self.order, "B_ORDER": self.order}
        across = np.linspace(-self.x0, shape[1] - 1 - self.x0, _INVERSE_GRID)
        along = np.linspace(-self.y0, shape[0] - 1 - self.y0, _INVERSE_GRID)
        u, v = (grid.ravel() for grid in np.meshgrid(across, along))
        bent = np.stack([u, v])
        for p, q, coefficient in self._bends():
            in_pixels = to_pixels @ coefficient
            cards[f"A_{p}_{q}"], cards[f"B_{p}_{q}"] = float(in_pixels[0]), float(in_pixels[1])
            bent += in_pixels[:, None] * u**p * v**q
        return cards | _sip_inverse(bent, np.stack([u, v]), min(self.order + _INVERSE_EXTRA, 9))

    def _tpv_cards(self, to_pixels: Float) -> dict[str, Card]:
        """Rewrite the polynomial of pixels as one of intermediate world coordinates, degrees."""
        total = {n: np.zeros(n + 1) for n in range(2, self.order + 1)}
        axes = [total, {n: c.copy() for n, c in total.items()}]
        for p, q, coefficient in self._bends():
            # u and v are linear in (xi, eta): with eta = t xi a product of them is a polynomial of t.
            product = np.convolve(_power(to_pixels[0], p), _power(to_pixels[1], q))
            for axis in (0, 1):
                axes[axis][p + q] += coefficient[axis] / _ARCSEC * product
        cards: dict[str, Card] = {"PV1_1": 1.0, "PV2_1": 1.0}
        for degree in total:
            for k in range(degree + 1):
                cards[f"PV1_{_TPV_START[degree] + k}"] = float(axes[0][degree][k])
                # On the second axis the two coordinates change places.
                cards[f"PV2_{_TPV_START[degree] + degree - k}"] = float(axes[1][degree][k])
        return cards


def _power(line: Float, exponent: int) -> Float:
    """Give the coefficients of a polynomial's power, the lowest first."""
    return np.asarray(polypow(line, exponent), float)


def _sip_inverse(bent: Float, straight: Float, order: int) -> dict[str, Card]:
    """Fit the way back, from distorted to plain pixels, for readers that do not invert by iteration."""
    unit = float(np.max(np.abs(bent)))
    terms = basis(bent[0] / unit, bent[1] / unit, order)
    way = np.linalg.lstsq(terms, (straight - bent).T, rcond=None)[0]
    cards: dict[str, Card] = {"AP_ORDER": order, "BP_ORDER": order}
    for (p, q), coefficient in zip(powers(order), way, strict=True):
        in_pixels = coefficient / unit ** (p + q)
        cards[f"AP_{p}_{q}"], cards[f"BP_{p}_{q}"] = float(in_pixels[0]), float(in_pixels[1])
    return cards


def fit_plate(
    pixels: tuple[Float, Float],
    positions: tuple[Float, Float],
    errors_arcsec: Float,
    reference: tuple[float, float],
    start: tuple[float, float],
    order: int,
    clip_sigma: float,
    distortion_arcsec: float = np.inf,
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
    distortion_arcsec
        How far each term beyond the linear ones may bend the edges (1-sigma prior).
    """
    x, y = pixels
    unit = float(max(np.ptp(x), np.ptp(y), 1.0)) / 2
    terms = basis((x - reference[0]) / unit, (y - reference[1]) / unit, order)
    ra0, dec0 = start
    prior = np.where(np.arange(terms.shape[1]) < _LINEAR_TERMS, np.inf, distortion_arcsec)
    fit = fit_linear(
        terms, _plane(positions, ra0, dec0), errors_arcsec, clip_sigma=clip_sigma, prior_errors=prior
    )
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
