"""How sharp an image's stars are, and whether a peak is one: what tells hits by cosmic rays from stars."""

import numpy as np
from numba import njit
from scipy.special import erf

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.frames import Bool, Float, Float32

#: The variance (FWHM^2) that a pixel's own width adds to a Gaussian.
PIXEL_FWHM2 = FWHM_PER_SIGMA**2 / 12
#: Fewest peaks that tell a width; a cluster of them is so narrow (ratio of its ends).
_FEWEST_PEAKS = 15
_CLUSTER = 1.08
#: Positions of a star's centre within its brightest pixel that are tried, a little beyond its borders.
_PHASES = np.linspace(-0.55, 0.55, 9)
#: Pixels of a star differ from the round Gaussian by this share of the peak: ellipticity, wings, neighbours.
_SHAPE_ERROR = 0.07
#: Misfit (chi^2 of 9 pixels, 3 parameters) up to which a peak may be a star.
_STAR_CHI2 = 14.0


def sharp_star_fwhm(data: Float32, variance: Float32, excluded: Bool, lowest: float = 1.5) -> float:
    """Return the FWHM (pixels, of the Gaussian that fits the core) of the image's sharpest stars.

    Peaks above 50 sigma whose eight neighbours all stand above 5 sigma, and which are round, are mostly
    stars; the second difference of the logarithm gives the width of a Gaussian wherever it lies within
    the pixel. Stars cluster there, for they are all alike: the lowest cluster counts. Galaxies lie
    above it, and bright hits among the peaks only make the answer smaller, a search more careful. Stars with
    wings, integrated over pixels, look up to a tenth wider than they are where they are narrow.

    Parameters
    ----------
    data, variance, excluded
        As for `numerics.lacosmic.find_cosmic_rays`.
    lowest
        The answer is never below this, and is this when there are fewer than 15 such peaks.
    """
    logs = _peak_logs(data, variance, excluded)
    along_x = np.maximum(logs[:, 4] - (logs[:, 3] + logs[:, 5]) / 2, 1e-3)
    along_y = np.maximum(logs[:, 4] - (logs[:, 1] + logs[:, 7]) / 2, 1e-3)
    is_round = np.abs(np.log(along_x / along_y)) < np.log(1.8)
    if is_round.sum() < _FEWEST_PEAKS:
        return lowest
    widths = np.sort(FWHM_PER_SIGMA / np.sqrt(along_x + along_y)[is_round])
    size = max(5, widths.size // 10)
    low, high = widths[: widths.size - size + 1], widths[size - 1 :]
    start = int(np.argmax(high < _CLUSTER * low)) if np.any(high < _CLUSTER * low) else 0
    fwhm2 = float(np.median(widths[start : start + size])) ** 2 - PIXEL_FWHM2
    return max(lowest, float(np.sqrt(max(fwhm2, 0.0))))


def star_templates(fwhm_pix: float) -> Float:
    """Return what the brightest pixel of a round Gaussian star and its eight neighbours hold.

    Returns
    -------
    ndarray
        (81, 9) float64: one row per position of the centre, the sum of squares of each 1.
    """
    scale = np.sqrt(2) * fwhm_pix / FWHM_PER_SIGMA
    edges = (np.array([-1.5, -0.5, 0.5, 1.5]) - _PHASES[:, None]) / scale
    line = np.diff(erf(edges), axis=1)
    stamps = (line[:, None, :, None] * line[None, :, None, :]).reshape(-1, 9)
    return np.ascontiguousarray(stamps / np.sqrt(np.sum(stamps**2, axis=1))[:, None])


@njit(cache=True, nogil=True)
def _peak_logs(data: Float32, variance: Float32, excluded: Bool) -> Float:
    """Return the logarithms of the 3 x 3 pixels of each bright peak, (n, 9)."""
    height, width = data.shape
    found = []
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            value = data[y, x]
            if value <= 0 or value * value <= 2500 * variance[y, x] or excluded[y, x]:
                continue
            good = True
            for j in range(y - 1, y + 2):
                for i in range(x - 1, x + 2):
                    other = data[j, i]
                    good &= 0 < other <= value and other * other > 25 * variance[j, i]
                    good &= not excluded[j, i]
            if good:
                found.append((y, x))
    logs = np.empty((len(found), 9))
    for n in range(len(found)):
        for k in range(9):
            logs[n, k] = np.log(data[found[n][0] + k // 3 - 1, found[n][1] + k % 3 - 1])
    return logs


@njit(cache=True, nogil=True)
def belongs_to_star(
    image: Float32, variance: Float32, excluded: Bool, y: int, x: int, templates: Float
) -> bool:
    """Tell whether the peak that a pixel belongs to has the shape of a star.

    Parameters
    ----------
    image, variance, excluded
        (H, W): sky subtracted, electrons; variance of the background.
    y, x
        The pixel: its peak is the highest pixel at most 2 steps uphill.
    templates
        From `star_templates`.
    """
    height, width = image.shape
    for _ in range(2):
        top_y, top_x = y, x
        for j in range(max(0, y - 1), min(height, y + 2)):
            for i in range(max(0, x - 1), min(width, x + 2)):
                if image[j, i] > image[top_y, top_x] and not excluded[j, i]:
                    top_y, top_x = j, i
        y, x = top_y, top_x
    if not (0 < y < height - 1 and 0 < x < width - 1):
        return False
    peak = max(float(image[y, x]), 0.0)
    best = np.inf
    for k in range(templates.shape[0]):
        # Weights that hardly differ within a star: nothing is gained by fitting with them.
        total, norm = 0.0, 0.0
        for n in range(9):
            j, i = y + n // 3 - 1, x + n % 3 - 1
            if not excluded[j, i]:
                total += templates[k, n] * image[j, i]
                norm += templates[k, n] ** 2
        amplitude = total / norm
        chi2 = 0.0
        for n in range(9):
            j, i = y + n // 3 - 1, x + n % 3 - 1
            if not excluded[j, i]:
                model = amplitude * templates[k, n]
                noise2 = variance[j, i] + max(model, 0.0) + (_SHAPE_ERROR * peak) ** 2
                chi2 += (image[j, i] - model) ** 2 / noise2
        best = min(best, chi2)
    return best < _STAR_CHI2
