"""Forced photometry: the flux at a given place, whether or not anything is there."""

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np

from seechange_core.flags import UNUSABLE
from seechange_core.frames import Flags, Float, Float32, ForcedFluxes, Int, PsfModel
from seechange_core.numerics.flag_sums import flags_within
from seechange_core.numerics.psf_fit import fit
from seechange_core.params import Params, param

CODE_VERSION = "3"

#: To begin another group of rows costs as much as to read so many: a file on disk is opened again (5 ms of
#: CPU time, and 0.03 ms for a row of 2048 pixels).
_GAP_ROWS = 200


class ForceParams(Params):
    """Parameters of forced photometry."""

    radius_fwhm: float = param(2.0, "pixels within this radius enter the fit", unit="FWHM", gt=0, le=10)
    source_noise: bool = param(
        True, "add the photon noise of the fitted flux; off where the weights hold all noise already"
    )
    fit_background: bool = param(False, "fit a constant under each position as well")
    min_usable_fraction: float = param(
        0.3, "below this share of the PSF's light on usable pixels, no flux is given", ge=0, le=1
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

    Only rows of pixels near the positions are looked at: images may be on disk, where slicing reads.

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
        n entries in the order given. Errors include the PSF's floor, over the share of its light that was
        seen; the flux is unbiased also where nothing is there.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    radius = max(params.radius_fwhm * psf.fwhm_pix, 1.5)
    found = {f.name: np.zeros(len(x), np.int64 if f.name == "flags" else float) for f in fields(ForcedFluxes)}
    for some, rows in _bands(y, data.shape[0], int(np.ceil(radius)) + 1):
        here = replace(psf, centre=(psf.centre[0], psf.centre[1] - rows.start))
        planes = data[rows, :], weight[rows, :], flags[rows, :]
        part = _force(*planes, here, x[some], y[some] - rows.start, radius, gain, params)
        for name, column in part.columns().items():
            found[name][some] = column
    return ForcedFluxes(**{**found, "y": y})


def _bands(y: Float, height: int, reach: int) -> Iterator[tuple[Int, slice]]:
    """Yield groups of positions, and the rows within reach of each: groups that nearly touch are one."""
    middle = np.clip(np.nan_to_num(y, posinf=0.0, neginf=0.0), 0, height - 1)
    order = np.argsort(middle, kind="stable")
    breaks = np.flatnonzero(np.diff(middle[order]) > 2 * reach + _GAP_ROWS) + 1
    for some in np.split(order, breaks) if len(y) else []:
        low, high = int(middle[some[0]]) - reach, int(middle[some[-1]]) + 1 + reach
        yield some, slice(max(low, 0), min(high + 1, height))


def _force(
    data: Float32,
    weight: Float32,
    flags: Flags,
    psf: PsfModel,
    x: Float,
    y: Float,
    radius_pix: float,
    gain: float,
    params: ForceParams,
) -> ForcedFluxes:
    usable = np.where(flags & np.uint16(UNUSABLE), np.float32(0), weight)
    fits = fit(
        data,
        usable,
        psf,
        x,
        y,
        np.zeros(len(x)),
        radius_pix=radius_pix,
        gain=gain if params.source_noise else np.inf,
        fit_background=params.fit_background,
    )
    # The fit knows the share within its radius of what lies there; the PSF's light is nearly all of it.
    known = fits.usable_fraction >= max(params.min_usable_fraction, 1e-6)
    # What is not seen of the light is extrapolated by the PSF, and so is the PSF's error.
    floor = psf.floor / np.where(known, fits.usable_fraction, 1.0)
    error = np.hypot(fits.flux_err, floor * fits.flux)
    return ForcedFluxes(
        x=x,
        y=y,
        flux=np.where(known, fits.flux, np.nan),
        flux_err=np.where(known, error, np.nan),
        chi2=np.where(known, fits.chi2, np.nan),
        flags=flags_within(flags, x, y, 0.5 * psf.fwhm_pix),
        usable_fraction=fits.usable_fraction,
    )
