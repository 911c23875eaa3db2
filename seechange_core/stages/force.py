"""Forced photometry: the flux at a given place, whether or not anything is there."""

import numpy as np

from seechange_core.flags import UNUSABLE
from seechange_core.frames import Flags, Float, Float32, ForcedFluxes, PsfModel
from seechange_core.numerics.flag_sums import flags_within
from seechange_core.numerics.psf_fit import fit
from seechange_core.params import Params, param

CODE_VERSION = "2"


class ForceParams(Params):
    """Parameters of forced photometry."""

    radius_fwhm: float = param(2.0, "pixels within this radius enter the fit", unit="FWHM", gt=0, le=10)
    source_noise: bool = param(
        True, "add the photon noise of the fitted flux; off where the weights hold all noise already"
    )
    fit_background: bool = param(False, "fit a constant under each position as well")
    min_usable_fraction: float = param(
        0.1, "below this share of the PSF's light on usable pixels, no flux is given", ge=0, le=1
    )


def force(
    data: Float32,
    weight: Float32,
    flags: Flags,
    psf: PsfModel,
    x: Float,
    y: Float,
    gain: float,
    params: ForceParams,
) -> ForcedFluxes:
    """Fit the PSF at fixed positions, each on its own.

    Parameters
    ----------
    data
        (H, W) float32, electrons, background already removed: a difference or a direct image.
    weight
        (H, W) float32, 1 / background variance (1 / full variance for a difference); 0 where unusable.
    flags
        (H, W) uint16 `PixelFlag` bits; unusable ones are left out of the fit whatever their weight.
    psf
        Sums to 1.
    x, y
        (n,) pixels; positions off the image are answered with NaN.
    gain
        Electrons of real signal per unit of data.
    params
        `ForceParams`.

    Returns
    -------
    ForcedFluxes
        n entries in the order given. Errors include the PSF's floor; the flux is unbiased also where
        nothing is there.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    usable = np.where(flags & np.uint16(UNUSABLE), np.float32(0), weight)
    fits = fit(
        data,
        usable,
        psf,
        x,
        y,
        np.zeros(len(x)),
        radius_pix=max(params.radius_fwhm * psf.fwhm_pix, 1.5),
        gain=gain if params.source_noise else np.inf,
        fit_background=params.fit_background,
    )
    # The fit knows the share within its radius of what lies there; the PSF's light is nearly all of it.
    known = fits.usable_fraction >= max(params.min_usable_fraction, 1e-6)
    error = np.hypot(fits.flux_err, psf.floor * fits.flux)
    return ForcedFluxes(
        x=x,
        y=y,
        flux=np.where(known, fits.flux, np.nan),
        flux_err=np.where(known, error, np.nan),
        chi2=np.where(known, fits.chi2, np.nan),
        flags=flags_within(flags, x, y, 0.5 * psf.fwhm_pix),
        usable_fraction=fits.usable_fraction,
    )
