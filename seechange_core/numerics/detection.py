"""Finding sources in a background-subtracted image."""

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.frames import Bool, Float, Float32, Int, Table
from seechange_core.numerics import peaks as extremes
from seechange_core.numerics.matched_filter import matched_filter
from seechange_core.numerics.watershed import Islands, Rise, part_islands, sum_islands

#: A second peak that rises less above the saddle, in its own sigmas, is noise on its neighbour's wing.
_RISE_SIGMA = 2.25
#: Islands reach down to this share of the threshold, so that noise on a star's rim stays part of it.
_GROW_SHARE = 0.5
#: Second moments of an island, which is cut at the threshold, are never below a pixel's own.
_PIXEL_VARIANCE = 1 / 12
_MIN_PEAK_SIGMA = 8.0


@dataclass(frozen=True, eq=False)
class Peaks(Table):
    """What `find` found, the highest peak of the filtered image first.

    Attributes
    ----------
    x, y
        Highest place of the filtered image, of saturated sources the barycentre; pixels.
    snr
        Of the filtered image there: of a point source on the sky's noise alone.
    flux, peak
        Isophotal sum and highest pixel, electrons.
    fwhm_pix, elongation, theta_rad
        From isophotal second moments, taken as a Gaussian's.
    n_pixels
        Above half the threshold.
    merged
        Touches another source.
    """

    x: Float
    y: Float
    snr: Float
    flux: Float
    peak: Float
    fwhm_pix: Float
    elongation: Float
    theta_rad: Float
    n_pixels: Int
    merged: Bool


def find(
    data: Float32,
    weight: Float32,
    *,
    sigma: float,
    fwhm_pix: float,
    min_area_pix: int,
    deblend_contrast: float,
    gain: float = 1.0,
    plateau_e: float = np.inf,
) -> tuple[Peaks, npt.NDArray[np.int32]]:
    """Find and deblend sources: islands of the matched-filtered image (`matched_filter`, `watershed`).

    Parameters
    ----------
    data
        (H, W) float32, background-subtracted; not finite only where there is no weight.
    weight
        (H, W) float32, 1 / variance of the background per pixel; 0 where nothing may be found.
    sigma
        Threshold on the image filtered with a Gaussian of the given FWHM, in its own sigmas.
    fwhm_pix
        Of point sources.
    min_area_pix
        Contiguous pixels above half the threshold that make a source.
    deblend_contrast
        A second peak becomes a source of its own if it rises above the saddle by at least this share of the
        saddle's height, and beyond its noise.
    gain
        Photons per unit of data.
    plateau_e
        Pixels this high are saturated: their highest place says nothing.

    Returns
    -------
    Peaks
        The sources.
    segmentation
        (H, W) int32: which source (1-based) each pixel belongs to, 0 none.
    """
    smooth, noise = matched_filter(data, weight, fwhm_pix)
    usable = weight[weight > 0]
    photon_share = float(np.median(usable[:: max(1, len(usable) // 10_000)])) / gain if usable.size else 0.0
    rise = Rise(_RISE_SIGMA, deblend_contrast, photon_share)
    islands = part_islands(smooth, noise, sigma, rise, min_area_pix, grow_sigma=_GROW_SHARE * sigma)
    return _measured(data, smooth, noise, islands, plateau_e), islands.labels


def _measured(data: Float32, smooth: Float32, noise: Float32, islands: Islands, plateau_e: float) -> Peaks:
    n_pixels, peak, flux, *moments = sum_islands(data, islands)
    light = np.maximum(flux, 1e-30)
    dx, dy, xx, yy, xy = (moment / light for moment in moments)
    xx, yy = (np.maximum(v, 0) + _PIXEL_VARIANCE for v in (xx - dx**2, yy - dy**2))
    xy = xy - dx * dy
    root = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    major, minor = (np.sqrt(np.maximum((xx + yy) / 2 + s * root, _PIXEL_VARIANCE)) for s in (1, -1))
    row, column = np.divmod(islands.peak, data.shape[1])
    # The paraboloid through 3 x 3 pixels of the filtered image: its top is the fitted PSF's position.
    inner = extremes.Peaks(
        np.clip(row, 1, max(data.shape[0] - 2, 1)), np.clip(column, 1, max(data.shape[1] - 2, 1)), peak
    )
    top = extremes.refine(smooth, inner)
    clipped = (peak >= plateau_e) | (row != inner.y) | (column != inner.x)
    return Peaks(
        x=np.where(clipped, column + dx, top.x),
        y=np.where(clipped, row + dy, top.y),
        snr=(smooth.ravel()[islands.peak] / noise.ravel()[islands.peak]).astype(float),
        flux=flux,
        peak=peak,
        fwhm_pix=FWHM_PER_SIGMA * np.sqrt(major * minor),
        elongation=major / minor,
        theta_rad=0.5 * np.arctan2(2 * xy, xx - yy),
        n_pixels=n_pixels.astype(np.int64),
        merged=islands.touches,
    )


def bright_peaks(data: Float32, weight: Float32, at_most: int) -> tuple[Float, Float, Float]:
    """Return pixels that stand out, whatever the seeing: 8 sigma, and the highest of 5 x 5 usable ones.

    Parameters
    ----------
    data, weight
        (H, W) float32, background-subtracted, and 1 / variance per pixel; 0 where unusable.
    at_most
        So many, the highest.

    Returns
    -------
    x, y, value
        (n,) float64, the highest first.
    """
    place = _highest_of_25(data, weight, np.float32(_MIN_PEAK_SIGMA**2))
    value = data.ravel()[place].astype(float)
    order = np.argsort(-value, kind="stable")[:at_most]
    row, column = np.divmod(place[order], data.shape[1])
    return column.astype(float), row.astype(float), value[order]


@nb.njit(cache=True, nogil=True)
def _highest_of_25(data: Float32, weight: Float32, least: np.float32) -> Int:
    found = []
    height, width = data.shape
    for y in range(2, height - 2):
        for x in range(2, width - 2):
            value = data[y, x]
            # One test, hardly ever true, is faster than two of which one often is.
            if not value * abs(value) * weight[y, x] > least:
                continue
            highest = True
            for j in range(y - 2, y + 3):
                for i in range(x - 2, x + 3):
                    # Of equal neighbours the first one wins.
                    first = j < y or (j == y and i < x)
                    if not weight[j, i] > 0 or data[j, i] > value or (first and data[j, i] == value):
                        highest = False
                        break
                if not highest:
                    break
            if highest:
                found.append(y * width + x)
    return np.array(found, np.int64)
