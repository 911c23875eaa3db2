"""Changes that no light can make: tracks of particles in a new image that its own mask has missed.

Whatever shines - stars, trails, galaxies - reaches the pixels through the PSF. Around a peak of the score the
new image is therefore fitted with non-negative light on a grid of points, each of them spread by the PSF
(Lawson & Hanson 1974): a particle's charge, which changes from pixel to pixel, leaves a residual far beyond
the noise. So does anything bright enough, as no PSF is known that well: the residual must also be a good part
of what there is.
"""

import numpy as np
from scipy.ndimage import label, shift
from scipy.optimize import nnls

from seechange_core.frames import Bool, Float, Float32, PsfModel
from seechange_core.numerics.peaks import local_maxima
from seechange_core.numerics.psf import evaluate

_THRESHOLD = 5.0
_REACH_FWHM = 1.2
_AFFECTED_FWHM = 3.0
_AFFECTED_SIGMA = 3.0
_HIGHEST_CHI2 = 2.0
"""Mean square of the residuals in sigma beyond which noise has not made them."""
_MOST_UNEXPLAINED = 0.07
"""Residual power, of that of the data, beyond which an error of the PSF has not made it.

With PSF widths of 1.5 to 5 pixels wrong by 5 %, sources leave less than 0.025; tracks leave 0.12 to 0.2 where
the FWHM is 1.5 pixels, and more than 0.2 from 2 pixels on.
"""
_MOST_PEAKS = 1000
_FINE_FWHM_PIX = 3.0
"""Below this FWHM the grid has steps of half a pixel."""


def impossible_light(
    score: Float32, dark: Bool, data: Float32, weight: Float32, gain: float, psf: PsfModel
) -> Bool:
    """Find the score's peaks that no light in the new image can have made.

    Parameters
    ----------
    score
        (H, W) float32, 0 where there is none.
    dark
        (H, W): without static light, whose errors would be taken for impossible.
    data, weight
        (H, W) float32: new image, background removed; weight 0 where unusable.
    gain
        Photons per unit of data.
    psf
        Of the new image.

    Returns
    -------
    Bool
        (H, W): the pixels of those peaks, as far as the score stays above 3 sigma within 3 FWHM.
    """
    half = int(np.ceil(_REACH_FWHM * psf.fwhm_pix)) + 1
    wide = int(np.ceil(_AFFECTED_FWHM * psf.fwhm_pix))
    steps = (0.0, 0.5) if psf.fwhm_pix < _FINE_FWHM_PIX else (0.0,)
    out = np.zeros(score.shape, bool)
    peaks = local_maxima(score, _THRESHOLD, border=wide + 1)
    for y, x in zip(peaks.y[:_MOST_PEAKS].tolist(), peaks.x[:_MOST_PEAKS].tolist(), strict=True):
        box = slice(y - half, y + half + 1), slice(x - half, x + half + 1)
        if not dark[box].all():
            continue
        stamp = np.asarray(evaluate(psf, x, y)[0], float)
        if _impossible(data[box].astype(float), weight[box].astype(float), gain, stamp, steps):
            around = slice(y - wide, y + wide + 1), slice(x - wide, x + wide + 1)
            pieces, _ = label(score[around] > _AFFECTED_SIGMA, np.ones((3, 3), int))
            out[around] |= pieces == pieces[wide, wide]
    return out


def _impossible(data: Float, weight: Float, gain: float, psf: Float, steps: tuple[float, ...]) -> bool:
    """Tell if even the best non-negative light leaves more than noise and an error of the PSF can."""
    half, middle = data.shape[0] // 2, psf.shape[0] // 2
    known = (weight > 0).ravel()
    variance = 1 / np.where(weight > 0, weight, 1) + np.maximum(data, 0) / gain
    sigma = np.sqrt(variance).ravel()[known]
    span = range(-half, half + 1)
    columns = []
    for dy in steps:
        for dx in steps:
            moved = np.pad(shift(psf, (dy, dx), order=3) if dy or dx else psf, 2 * half)
            at = middle + 2 * half
            columns += [
                moved[at - v - half : at - v + half + 1, at - u - half : at - u + half + 1].ravel()
                for v in span
                for u in span
            ]
    observed = data.ravel()[known] / sigma
    _, norm = nnls(np.array(columns).T[known] / sigma[:, None], observed)
    noise = len(observed)
    return bool(norm**2 > _HIGHEST_CHI2 * noise and norm**2 - noise > _MOST_UNEXPLAINED * observed @ observed)
