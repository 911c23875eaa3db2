"""How faint a change a score image shows.

A point source of flux F gives a score of F over the noise of its flux, so it passes a threshold T in half of
all cases when F is about T times that noise. Two things shift this by a few percent: the highest of the
pixels around it counts, and not the one at its place, which is higher by 1 / score on average (a peak of a
smooth field of unit noise with two slopes of its own); and pixels sample the score's peak beside its top.
"""

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, rfft2

from seechange_core.frames import Bool, Depth, Float, Float32, PsfModel
from seechange_core.numerics.psf import evaluate

#: Every so many pixels are looked at: plenty for a median over a cell.
_STRIDE = 4


def limit_sigma(psf: PsfModel, threshold: float) -> float:
    """Return the flux that passes a threshold in half of all cases, in units of the noise of a flux.

    Parameters
    ----------
    psf
        Of the difference, whose noise is white: the score of a source has the shape of its autocorrelation.
    threshold
        Of the highest pixel of the score, sigma.
    """
    stamp = evaluate(psf, *psf.centre)[0].astype(float)
    size = stamp.shape[0]
    power = np.abs(rfft2(stamp, (2 * size, 2 * size))) ** 2
    shape = irfft2(power, (2 * size, 2 * size))
    # The curvature at the top; a position's distance from the nearest pixel has the variance 1/12 per axis.
    curvature = (2 - (shape[0, 1] + shape[0, -1]) / shape[0, 0]) + (
        2 - (shape[1, 0] + shape[-1, 0]) / shape[0, 0]
    )
    sampled = max(1 - curvature / 24, 0.5)
    wanted = threshold / sampled
    # s + 1 / s = wanted
    return float((wanted + np.sqrt(max(wanted**2 - 4, 0.0))) / 2)


def flux_noise(weight: npt.NDArray[np.floating], psf: PsfModel, x: Float, y: Float) -> Float:
    """Return the noise of a point source's flux in a difference with white noise, electrons.

    Parameters
    ----------
    weight
        (n,) 1 / variance per pixel where the source is, e-^-2; where 0 the noise is infinite.
    psf
        Of the difference.
    x, y
        (n,) pixels.
    """
    sharpness = np.sum(evaluate(psf, x, y).astype(float) ** 2, axis=(1, 2))
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.sqrt(np.asarray(weight, float) * sharpness), float)


def depth_map(
    searched: Bool, weight: Float32, psf: PsfModel, sigma: float, step_pix: int, border_pix: int
) -> Depth:
    """Measure the depth on a coarse map.

    Parameters
    ----------
    searched
        (H, W): pixels that have a score.
    weight
        (H, W) float32 of the difference.
    psf
        Of the difference.
    sigma
        Limit in units of the noise of a flux: `limit_sigma`.
    step_pix
        Side of a cell, a multiple of 4.
    border_pix
        Pixels at the rim that are not searched.
    """
    height, width = weight.shape
    step = max(step_pix // _STRIDE, 1)
    weights = weight[::_STRIDE, ::_STRIDE]
    inner = np.zeros(weights.shape, bool)
    low = -(-border_pix // _STRIDE)
    inner[low : (height - border_pix - 1) // _STRIDE + 1, low : (width - border_pix - 1) // _STRIDE + 1] = (
        True
    )
    used = inner & searched[::_STRIDE, ::_STRIDE] & (weights > 0)
    ny, nx = -(-weights.shape[0] // step), -(-weights.shape[1] // step)
    typical, share = np.full((ny, nx), np.nan), np.zeros((ny, nx))
    for j in range(ny):
        for i in range(nx):
            cell = np.s_[j * step : (j + 1) * step, i * step : (i + 1) * step]
            share[j, i] = used[cell].mean()
            if share[j, i] > 0:
                typical[j, i] = np.median(weights[cell][used[cell]])
    y, x = (((np.arange(n) + 0.5) * step * _STRIDE - 0.5) for n in (ny, nx))
    grid_y, grid_x = (grid.ravel() for grid in np.meshgrid(y, x, indexing="ij"))
    noise = flux_noise(typical.ravel(), psf, np.minimum(grid_x, width - 1), np.minimum(grid_y, height - 1))
    return Depth(
        (sigma * noise.reshape(ny, nx)).astype(np.float32),
        share.astype(np.float32),
        step * _STRIDE,
        (height, width),
        sigma,
    )
