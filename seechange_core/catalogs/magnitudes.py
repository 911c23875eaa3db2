"""What magnitudes of a band mean: the system they are in, and what that is in AB."""

AB, VEGA, RELATIVE = "AB", "Vega", "relative"

#: AB minus Vega magnitude. Johnson-Cousins and 2MASS: Blanton & Roweis (2007, AJ 133, 734, table 1); Gaia:
#: the zero points of DR3 in both systems (Riello et al. 2021, A&A 649, A3).
AB_MINUS_VEGA_MAG = {
    **{"U": 0.79, "B": -0.09, "V": 0.02, "R": 0.21, "I": 0.45, "J": 0.91, "H": 1.39, "K": 1.85},
    **{"G": 0.1136, "BP": 0.0155, "RP": 0.3561},
}
_AB_BANDS = frozenset("ugrizy")


def system_of(band: str) -> str:
    """Return the system of a catalog's band: ``AB``, ``Vega``, or ``relative`` for one that we do not know.

    SDSS, PS1 and the like (``u g r i z y``, also as ``g_ps1``) are AB.
    """
    if band.split("_", maxsplit=1)[0] in _AB_BANDS:
        return AB
    return VEGA if band in AB_MINUS_VEGA_MAG else RELATIVE


def ab_offset_mag(band: str) -> float:
    """Return what to add to a magnitude of a band to make it AB; NaN for a band that we do not know."""
    if system_of(band) == AB:
        return 0.0
    return AB_MINUS_VEGA_MAG.get(band, float("nan"))
