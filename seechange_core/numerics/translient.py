"""Point sources that moved a little, or were put a little off: a dipole where a transient leaves a peak.

TRANSLIENT: Springer, Ofek, Zackay et al. 2024, AJ 167, 281, in the limit of small shifts.

A source of flux F moved by d leaves ``-F d . grad(P_D)`` in a difference with the PSF P_D. To first order in
d that is linear in the moment ``m = F d``, and least squares with the noise of the difference give

    m = C^-1 grad(S),    C = sum over frequencies of (2 pi k) (2 pi k)^T |P_D|^2 / noise power,

where S is the matched-filtered difference, the score before it is normalised: the gradient of the score at a
place is the matched filter for a dipole there. With V the full
covariance of grad(S) at a pixel, ``z = V^(-1/2) grad(S)`` has two components that are standard normal where
nothing moved, so |z|^2 is chi square with 2 degrees of freedom, and z points where the source went.
"""

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft2, rfft2
from scipy.special import ndtri_exp

from seechange_core.frames import Float, Float32
from seechange_core.numerics.zogy import Complex, Kernels, Noise


def translient_patch(
    new: Float32, ref: Float32, var_new: Float32, var_ref: Float32, kernels: Kernels, noise: Noise
) -> Float32:
    """Return the whitened dipole of a patch, (2, side, side) float32: x and y, in sigma.

    Parameters
    ----------
    new, ref, var_new, var_ref, kernels, noise
        As for `zogy.subtract_patch`. The registration's error is not counted as noise: what it leaves of
        a star is what is looked for.
    """
    side = kernels.side
    shape = (side, side)
    gradients = _gradients(side)
    score = rfft2(new) * kernels.score_new - rfft2(ref) * kernels.score_ref
    along = [irfft2(score * g, shape) for g in gradients]
    filters_new = [irfft2(kernels.score_new * g, shape) for g in gradients]
    coloured = kernels.score_ref * np.sqrt(noise.power)
    filters_ref = [irfft2(coloured * g, shape) for g in gradients]
    seen_new, seen_ref = rfft2(var_new), rfft2(var_ref)
    covariance = [
        irfft2(
            seen_new * rfft2(filters_new[i] * filters_new[j])
            + seen_ref * rfft2(filters_ref[i] * filters_ref[j]),
            shape,
        )
        for i, j in ((0, 0), (0, 1), (1, 1))
    ]
    return _whitened(along, covariance)


def _gradients(side: int) -> tuple[Complex, Complex]:
    """Return the transfers of d/dx and d/dy; of the highest frequency the sign is not known."""
    fy, fx = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    fy[np.abs(fy) == 0.5] = 0
    fx[fx == 0.5] = 0
    shape = (side, side // 2 + 1)
    return (
        np.broadcast_to((2j * np.pi * fx).astype(np.complex64), shape),
        np.broadcast_to((2j * np.pi * fy).astype(np.complex64)[:, None], shape),
    )


def _whitened(gradient: list[Float32], covariance: list[Float32]) -> Float32:
    """Multiply with the symmetric inverse square root of a 2 x 2 covariance, pixel by pixel.

    ``V^(1/2) = (V + s) / t`` with ``s = sqrt(det V)``, ``t = sqrt(trace V + 2 s)``, and its inverse is its
    adjugate over s.
    """
    xx, xy, yy = covariance
    # Rounding may take a very small variance below zero beside a very bright star.
    least = np.float32(1e-3 * max(float(np.median(xx)), float(np.median(yy))))
    xx, yy = np.maximum(xx, least), np.maximum(yy, least)
    root = np.sqrt(np.maximum(xx * yy - xy * xy, least * least))
    scale = 1 / (root * np.sqrt(xx + yy + 2 * root))
    x = ((yy + root) * gradient[0] - xy * gradient[1]) * scale
    y = ((xx + root) * gradient[1] - xy * gradient[0]) * scale
    return np.stack([x, y]).astype(np.float32)


class Dipoles(NamedTuple):
    """The strongest dipole near each of some places; arrays of (n,).

    Attributes
    ----------
    significance
        Sigma: a standard normal is as far from 0 as rarely. To be compared with the absolute score: of a
        source that moved it is the larger one, of one that changed the smaller one, by a factor of 1.6.
    angle_rad
        Where it moved to: from +x towards +y.
    """

    significance: Float
    angle_rad: Float


def dipoles_at(translient: Float32, x: Float, y: Float, radius_pix: float) -> Dipoles:
    """Find the strongest dipole within a radius of each position.

    A dipole's lobes, which the score shows, lie about 0.6 FWHM from the middle, where it is centred itself.

    Parameters
    ----------
    translient
        (2, H, W), as saved with a difference.
    x, y
        (n,) positions, e.g. of detections.
    radius_pix
        A FWHM.

    Returns
    -------
    Dipoles
        Significance 0 and angle NaN for positions off the image.
    """
    significance, angle = np.zeros(len(x)), np.full(len(x), np.nan)
    height, width = translient.shape[1:]
    for k in range(len(x)):
        if not (-radius_pix < x[k] < width - 1 + radius_pix and -radius_pix < y[k] < height - 1 + radius_pix):
            continue
        rows = np.arange(max(0, int(np.ceil(y[k] - radius_pix))), min(height, int(y[k] + radius_pix) + 1))
        columns = np.arange(max(0, int(np.ceil(x[k] - radius_pix))), min(width, int(x[k] + radius_pix) + 1))
        inside = np.hypot(rows[:, None] - y[k], columns - x[k]) <= radius_pix
        box = translient[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(float)
        power = np.where(inside, np.sum(box**2, axis=0), 0.0)
        j, i = np.unravel_index(int(np.argmax(power)), power.shape)
        significance[k] = normal_equivalent(power[j, i])
        angle[k] = np.arctan2(box[1, j, i], box[0, j, i])
    return Dipoles(significance, angle)


def normal_equivalent(chi2: Float | float) -> Float:
    """Return how far from 0 a standard normal is as rarely as chi square of 2 degrees of freedom is so high.

    Parameters
    ----------
    chi2
        |z|^2, 0 or more; that is ``2 (1 - Phi(s)) = exp(-chi2 / 2)``, in logarithms.
    """
    return np.asarray(-ndtri_exp(-np.asarray(chi2, float) / 2 - np.log(2)), float)
