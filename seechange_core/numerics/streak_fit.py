"""Short trails against galaxies: which of them fits the light along a line."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.frames import Float
from seechange_core.numerics.streak_profile import Along

#: Brightness along a trail may differ from uniform by this: seeing, sampling, tumbling.
_FLICKER = 0.1

#: Reduced chi square from which a trail does not fit.
_LARGEST_CHI2 = 4.0


class TrailFit(NamedTuple):
    """A short trail along a line against a galaxy there.

    Attributes
    ----------
    chi2
        Reduced chi square of the trail.
    gain
        By how much the chi square of the best galaxy is worse; 0 where the trail does not fit itself.
    start, stop
        Ends, steps of the line.
    level
        Brightness of its ridge, noise of a pixel.
    """

    chi2: float
    gain: float
    start: float
    stop: float
    level: float


def fit_trail(along: Along, fwhm_pix: float) -> TrailFit:
    """Fit light along a line by a uniform trail blurred by the PSF, and by galaxies, which fade outwards.

    The galaxies are exponential and Gaussian profiles of any scale, blurred as well. Steps far above the
    model (stars in the way) count as 4 sigma.
    """
    known = along.known
    t = np.flatnonzero(known).astype(np.float64)
    value, sigma = along.value[known], along.sigma[known]
    blur = fwhm_pix / FWHM_PER_SIGMA / along.step
    edges = np.arange(along.value.size + 1) - 0.5
    rise = ndtr((t[None, :] - edges[:, None]) / blur)
    i, j = np.triu_indices(edges.size, 2)
    trails = rise[i] - rise[j]
    chi2, level = _best_of(trails, value, sigma)
    best = int(np.argmin(chi2))
    reduced = float(chi2[best]) / max(1, t.size - 3)
    ends = float(edges[i[best]]), float(edges[j[best]])
    if reduced > _LARGEST_CHI2:
        return TrailFit(reduced, 0.0, *ends, float(level[best]))
    middles = np.arange(0, along.value.size, 0.5)
    scales = np.geomspace(0.7 * blur, 1.5 * along.value.size, 14)
    distance = np.abs(t[None, None, :] - middles[:, None, None])
    scale = scales[None, :, None]
    softened = np.hypot(distance, blur)
    galaxies = np.concatenate(
        [np.exp(-(softened - blur) / scale), np.exp(-0.5 * (distance / np.hypot(scale, blur)) ** 2)]
    ).reshape(-1, t.size)
    other = float(_best_of(galaxies, value, sigma)[0].min())
    return TrailFit(reduced, other - float(chi2[best]), *ends, float(level[best]))


def _best_of(models: Float, value: Float, sigma: Float) -> tuple[Float, Float]:
    """Scale each model to the data; return chi squares and scales. Deviations count up to 4 sigma."""
    weight = 1 / sigma**2
    scale = (models @ (weight * value)) / np.maximum((models**2) @ weight, 1e-12)
    for _ in range(2):
        fitted = scale[:, None] * models
        variance = sigma**2 + (_FLICKER * fitted) ** 2
        # What stands far above the model is a star in front.
        weight2 = np.where(value - fitted > 4 * np.sqrt(variance), 0.0, 1 / variance)
        scale = np.sum(weight2 * models * value, axis=1) / np.maximum(
            np.sum(weight2 * models**2, axis=1), 1e-12
        )
    fitted = scale[:, None] * models
    variance = sigma**2 + (_FLICKER * fitted) ** 2
    deviation = (value - fitted) ** 2 / variance
    chi2 = np.sum(np.minimum(deviation, 16.0), axis=1)
    return np.where(scale > 0, chi2, np.inf), scale
