"""Magnitudes of a catalog in bands it was not measured in: published polynomials in its own colours.

Gaia's G, BP and RP become Johnson-Cousins B V R I, SDSS g r i z, and through these the four PS1 bands
``g_ps1 r_ps1 i_ps1 z_ps1``. Each relation has the colours it was fitted on; outside them the magnitude is
NaN. Its scatter, from star to star at the same colour, is part of the magnitude's error.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import polynomial

from seechange_core.frames import Float

#: Gives magnitude and error of a band that the catalog has.
Measured = Callable[[str], tuple[Float, Float]]

_GAIA = ("G", "BP", "RP")
#: Two published ways from Gaia to the same band differ by so much for stars of BP-RP = 1, root mean square:
#: directly, and through Lupton's (2005, sdss.org) or Tonry's relations from SDSS and PS1 to Johnson-Cousins.
_COMMON_ERROR_MAG = 0.01


@dataclass(frozen=True)
class GaiaRelation:
    """``G - X`` as a polynomial in ``BP - RP``.

    Attributes
    ----------
    coefficients
        Of powers 0, 1, 2, ...
    bluest, reddest
        Colours between which it holds for stars of any luminosity.
    scatter_mag
        Standard deviation of the stars around it.
    """

    coefficients: tuple[float, ...]
    bluest: float
    reddest: float
    scatter_mag: float


#: Gaia DR3 documentation, section 5.5.1 (Carrasco & Bellazzini), tables 5.9 and 5.10, from Riello et al.
#: (2021, A&A 649, A3). Where a relation holds for M giants alone beyond some colour, it ends there: the
#: catalog does not tell giants from dwarfs.
GAIA_RELATIONS: dict[str, GaiaRelation] = {
    "B": GaiaRelation((0.01448, -0.6874, -0.3604, 0.06718, -0.006061), -0.5, 1.75, 0.0633),
    "V": GaiaRelation((-0.02704, 0.01424, -0.2156, 0.01426), -0.5, 5.0, 0.03017),
    "R": GaiaRelation((-0.02275, 0.3961, -0.1243, -0.01396, 0.003775), 0.0, 2.0, 0.03167),
    "I": GaiaRelation((0.01753, 0.76, -0.0991), -0.5, 4.5, 0.03765),
    "g": GaiaRelation((0.2199, -0.6365, -0.1548, 0.0064), 0.3, 2.0, 0.0745),
    "r": GaiaRelation((-0.09837, 0.08592, 0.1907, -0.1701, 0.02263), 0.0, 2.0, 0.03776),
    "i": GaiaRelation((-0.293, 0.6404, -0.09609, -0.002104), 0.5, 2.0, 0.04092),
    "z": GaiaRelation((-0.4619, 0.8992, -0.08271, 0.005029), -0.5, 4.5, 0.041161),
}

#: SDSS minus PS1 as a polynomial in ``(g - r)`` of PS1, and its scatter: Tonry et al. (2012, ApJ 750, 99),
#: table 6.
SDSS_MINUS_PS1: dict[str, tuple[tuple[float, float, float], float]] = {
    "g_ps1": ((0.013, 0.145, 0.019), 0.008),
    "r_ps1": ((-0.001, 0.004, 0.007), 0.004),
    "i_ps1": ((-0.005, 0.011, 0.010), 0.004),
    "z_ps1": ((0.013, -0.039, -0.012), 0.010),
}


def derived_bands(measured: Collection[str]) -> tuple[str, ...]:
    """List the bands that a catalog with these measured bands can be transformed to."""
    if not set(_GAIA) <= set(measured):
        return ()
    return tuple(band for band in (*GAIA_RELATIONS, *SDSS_MINUS_PS1) if band not in measured)


def measured_bands(band: str, measured: Collection[str]) -> tuple[str, ...]:
    """Name the measured bands that a band is made of: itself, or those of its transformation."""
    return (band,) if band in measured else _GAIA


def common_error_mag(band: str, measured: Collection[str]) -> float:
    """Return the error that all magnitudes in a band share: 0 for a measured one.

    However many stars there are, a transformed band is off by what its relation is: another sample of stars,
    another realisation of the system.
    """
    return 0.0 if band in measured else _COMMON_ERROR_MAG


def transform(band: str, measured: Measured) -> tuple[Float, Float]:
    """Compute magnitudes in a derived band.

    Parameters
    ----------
    band
        One of `derived_bands`.
    measured
        Gives the magnitudes in G, BP and RP with their errors (NaN where unknown).

    Returns
    -------
    mag, mag_err
        NaN outside the colours that the relation holds for. The error holds those of the magnitudes and
        the relation's scatter.
    """
    (g, g_err), (bp, bp_err), (rp, rp_err) = (measured(name) for name in _GAIA)
    color, color_err = bp - rp, np.hypot(bp_err, rp_err)
    if band in GAIA_RELATIONS:
        offset, slope = _offset(band, color), _slope(band, color)
        scatter = GAIA_RELATIONS[band].scatter_mag
    else:
        offset, slope, scatter = _ps1(band, color)
    return g - offset, np.sqrt(g_err**2 + (slope * color_err) ** 2 + scatter**2)


def _offset(band: str, color: Float) -> Float:
    relation = GAIA_RELATIONS[band]
    holds = (color >= relation.bluest) & (color <= relation.reddest)
    return np.where(holds, polynomial.polyval(color, relation.coefficients), np.nan)


def _slope(band: str, color: Float) -> Float:
    return np.asarray(
        polynomial.polyval(color, polynomial.polyder(np.array(GAIA_RELATIONS[band].coefficients)))
    )


def _ps1(band: str, color: Float) -> tuple[Float, Float, float]:
    """Return G minus a PS1 band, its slope in BP-RP, and the scatter of both relations together."""
    coefficients, scatter = SDSS_MINUS_PS1[band]
    sdss = band.removesuffix("_ps1")
    # g-r of SDSS is a quadratic in g-r of PS1, which grows everywhere: its upper root is the colour.
    c, b, a = np.subtract(SDSS_MINUS_PS1["g_ps1"][0], SDSS_MINUS_PS1["r_ps1"][0])
    b = 1.0 + b
    g_r_sdss = _offset("r", color) - _offset("g", color)
    root = np.sqrt(b * b - 4 * a * (c - g_r_sdss))
    g_r = (root - b) / (2 * a)
    offset = _offset(sdss, color) + polynomial.polyval(g_r, coefficients)
    d_g_r = (_slope("r", color) - _slope("g", color)) / root
    d_term = polynomial.polyval(g_r, polynomial.polyder(np.array(coefficients))) * d_g_r
    return offset, _slope(sdss, color) + d_term, float(np.hypot(GAIA_RELATIONS[sdss].scatter_mag, scatter))
