"""Rebuild the cores of saturated stars from their wings, so that filters see a star and not a hole."""

from dataclasses import replace

import numpy as np

from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import Bool, Flags, Float32, PsfModel
from seechange_core.numerics.pieces import pieces_of
from seechange_core.numerics.psf import draw
from seechange_core.numerics.psf_fit import fit

_RADIUS_FWHM = 1.5
_MAX_SHIFT_FWHM = 0.8
_MIN_USABLE = 0.02
_ROUNDS = 3


def rebuild_cores(
    data: Float32, weight: Float32, holes: Bool, psf: PsfModel, gain: float
) -> tuple[Float32, Bool]:
    """Fill holes in stars with the PSF that fits the pixels around them.

    Parameters
    ----------
    data, weight
        (H, W), background removed; weight 0 where unusable.
    holes
        (H, W), the unusable pixels of saturated stars.
    psf
        On these pixels.
    gain
        Photons per unit of data.

    Returns
    -------
    data
        (H, W) with the holes that could be filled.
    filled
        (H, W), which those are.
    """
    pieces = pieces_of(holes)
    filled = np.zeros(data.shape, bool)
    if not pieces.count:
        return data, filled
    x, y = pieces.centres
    radius = pieces.longest_side / 2 + _RADIUS_FWHM * psf.fwhm_pix
    flux, good = np.zeros(pieces.count), np.zeros(pieces.count, bool)
    model: Float32 | None = None
    for _ in range(_ROUNDS):
        # Each round takes away what the one before found of the neighbours.
        fits = fit(
            data if model is None else data - model, weight, psf, x, y, flux, radius_pix=radius, gain=gain,
            model=model, free_position=True, max_shift_pix=_MAX_SHIFT_FWHM * psf.fwhm_pix,
        )  # fmt: skip
        good = (fits.flux > 0) & np.isfinite(fits.flux_err) & (fits.usable_fraction > _MIN_USABLE)
        x, y, flux = (np.where(good, a, b) for a, b in ((fits.x, x), (fits.y, y), (fits.flux, 0.0)))
        model = draw(psf, x[good], y[good], flux[good], (data.shape[0], data.shape[1]))
    done = good[pieces.which]
    at = pieces.rows[done], pieces.columns[done]
    filled[at] = True
    out = data.copy()
    if model is not None:
        out[at] = model[at]
    return out, filled


def fill_cores(
    data: Float32,
    weight: Float32,
    flags: Flags,
    psf: PsfModel,
    gain: float,
    corner: tuple[int, int] = (0, 0),
) -> tuple[Float32, Bool]:
    """Rebuild the cores of all saturated stars of an image, or of a part of it, before it is interpolated.

    Parameters
    ----------
    data, weight, flags
        (h, w), background removed.
    psf, gain
        Of the whole image.
    corner
        Column and row of the whole image at which the part begins.

    Returns
    -------
    data
        (h, w), a copy if anything was filled.
    known
        (h, w): usable pixels and filled ones.
    """
    usable = (weight > 0) & (flags & np.uint16(UNUSABLE) == 0) & np.isfinite(data)
    holes = ~usable & (flags & np.uint16(PixelFlag.SATURATED | PixelFlag.BLEED) > 0)
    if not holes.any():
        return data, usable
    centre = (psf.centre[0] - corner[0], psf.centre[1] - corner[1])
    zero = np.float32(0)
    filled, done = rebuild_cores(
        np.where(usable, data, zero), np.where(usable, weight, zero), holes, replace(psf, centre=centre), gain
    )
    return filled, usable | done
