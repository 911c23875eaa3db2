"""Rebuild the cores of saturated stars from their wings, so that filters see a star and not a hole."""

import numpy as np
from scipy.ndimage import center_of_mass, find_objects, label

from seechange_core.frames import Bool, Float32, PsfModel
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
    labels, count = label(holes, np.ones((3, 3), int))
    if not count:
        return data, np.zeros(data.shape, bool)
    index = np.arange(1, count + 1)
    y, x = np.array(center_of_mass(holes, labels, index)).T
    reach = max(max(s.stop - s.start for s in box) for box in find_objects(labels)) / 2
    radius = reach + _RADIUS_FWHM * psf.fwhm_pix
    flux, good, model = np.zeros(count), np.zeros(count, bool), np.zeros(data.shape, np.float32)
    for _ in range(_ROUNDS):
        # Each round takes away what the one before found of the neighbours.
        fits = fit(
            data - model, weight, psf, x, y, flux, radius_pix=radius, gain=gain, model=model,
            free_position=True, max_shift_pix=_MAX_SHIFT_FWHM * psf.fwhm_pix,
        )  # fmt: skip
        good = (fits.flux > 0) & np.isfinite(fits.flux_err) & (fits.usable_fraction > _MIN_USABLE)
        x, y, flux = (np.where(good, a, b) for a, b in ((fits.x, x), (fits.y, y), (fits.flux, 0.0)))
        model = draw(psf, x[good], y[good], flux[good], (data.shape[0], data.shape[1]))
    filled = np.isin(labels, index[good])
    return np.where(filled, model, data), filled
