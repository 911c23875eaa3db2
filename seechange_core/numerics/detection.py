"""Finding sources in a background-subtracted image, with sep (Barbary 2016, JOSS 1, 58)."""

from dataclasses import dataclass

import numpy as np
import sep

from seechange_core.frames import Bool, Float, Float32, Int, Table

_MERGED = 1
_KERNEL_REACH = 2.0
_FWHM_PER_SIGMA = 2.3548200450309493


@dataclass(frozen=True, eq=False)
class Peaks(Table):
    """What `find` found, brightest first is not promised: the order is sep's, and always the same.

    Attributes
    ----------
    x, y
        Isophotal barycentre, pixels.
    flux, peak
        Isophotal sum and highest pixel, electrons.
    fwhm_pix, elongation, theta_rad
        From isophotal second moments, taken as a Gaussian's.
    n_pixels
        Above the threshold.
    merged
        Deblended from a neighbour.
    """

    x: Float
    y: Float
    flux: Float
    peak: Float
    fwhm_pix: Float
    elongation: Float
    theta_rad: Float
    n_pixels: Int
    merged: Bool


def gaussian_kernel(fwhm_pix: float) -> Float32:
    """Return a round Gaussian of sum 1, cut at 2 sigma-equivalents of its FWHM: a matched filter."""
    sigma = fwhm_pix / _FWHM_PER_SIGMA
    half = max(1, int(np.ceil(_KERNEL_REACH * sigma)))
    steps = np.arange(-half, half + 1)
    row = np.exp(-0.5 * (steps / sigma) ** 2)
    kernel = np.outer(row, row)
    kernel32: Float32 = (kernel / kernel.sum()).astype(np.float32)
    return kernel32


def find(
    data: Float32,
    error: Float32,
    mask: Bool,
    *,
    sigma: float,
    fwhm_pix: float | None,
    min_area_pix: int,
    deblend_contrast: float,
) -> tuple[Peaks, Int]:
    """Find and deblend sources.

    Parameters
    ----------
    data, error
        (H, W) float32, background-subtracted, and 1 sigma per pixel.
    mask
        (H, W), True where nothing may be found.
    sigma
        Threshold on the image filtered with a Gaussian of the given FWHM, in its own sigmas.
    fwhm_pix
        Of point sources; None: no filter, the threshold is on single pixels.
    min_area_pix
        Contiguous pixels above the threshold that make a source.
    deblend_contrast
        A branch with at least this share of the light becomes a source of its own.

    Returns
    -------
    Peaks
        The sources.
    segmentation
        (H, W) int: which source (1-based) each pixel belongs to, 0 none.
    """
    sep.set_extract_pixstack(max(300_000, data.size // 4))
    sep.set_sub_object_limit(4096)
    found, segmentation = sep.extract(
        np.ascontiguousarray(data),
        sigma,
        err=np.ascontiguousarray(error),
        mask=mask,
        minarea=min_area_pix,
        filter_kernel=None if fwhm_pix is None else gaussian_kernel(fwhm_pix),
        filter_type="matched",
        deblend_nthresh=32,
        deblend_cont=deblend_contrast,
        # sep's cleaning compares isophotal wings with a threshold that the matched filter has put in sigmas:
        # it swallows a quarter of the real sources at S/N 5 to 30.
        clean=False,
        segmentation_map=True,
    )
    minor = np.maximum(found["b"], 0.3)
    peaks = Peaks(
        x=found["x"],
        y=found["y"],
        flux=found["flux"].astype(float),
        peak=found["peak"].astype(float),
        fwhm_pix=_FWHM_PER_SIGMA * np.sqrt(found["a"] * minor),
        elongation=found["a"] / minor,
        theta_rad=found["theta"].astype(float),
        n_pixels=found["npix"].astype(np.int64),
        merged=(found["flag"] & _MERGED) > 0,
    )
    return peaks, segmentation


def half_sample_mode(values: Float) -> float:
    """Return the mode: the densest half of the values, of those the densest half, and so on.

    Bickel & Fruehwirth 2006, Comput. Stat. Data Anal. 50, 3500, section 3.
    """
    left = np.sort(values)
    while len(left) > 3:
        half = (len(left) + 1) // 2
        widths = left[half - 1 :] - left[: len(left) - half + 1]
        start = int(np.argmin(widths))
        left = left[start : start + half]
    return float(np.median(left))
