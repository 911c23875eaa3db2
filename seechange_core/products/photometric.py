"""Magnitudes of fluxes, where they exist."""

import numpy as np

from seechange_core.constants import MAG_PER_RELATIVE
from seechange_core.frames import Float


def magnitude(flux: Float, flux_err: Float, zp: Float | float) -> tuple[Float, Float]:
    """Convert fluxes to magnitudes.

    Parameters
    ----------
    flux, flux_err
        (n,) in the same unit.
    zp
        Magnitude of a flux of 1: (n,) where it depends on the place.

    Returns
    -------
    mag, mag_err
        (n,) ``zp - 2.5 log10(flux)`` and ``2.5 / ln(10) flux_err / flux``, to first order in the error;
        NaN where the flux is not positive.
    """
    positive = np.where(flux > 0, flux, np.nan)
    return zp - 2.5 * np.log10(positive), MAG_PER_RELATIVE * flux_err / positive
