"""Measuring how much fatter bright stars look than faint ones.

Charge that has gathered in a pixel repels what follows, so stars grow with their peaks (Antilogus et al.
2014, JINST 9, C03048); a PSF made from bright stars is then too wide for faint ones. Each star is compared
with the model: a dilation by 1 + s changes a profile P of unit sum by ``s (-2 P - u dP/du - v dP/dv)``, and s
is fitted together with flux, position and a constant. The growth is the slope of s against the stars' peaks.
"""

import numpy as np

from seechange_core.frames import Float, PsfModel
from seechange_core.numerics.psf import evaluate, on_pixels, shift
from seechange_core.numerics.psf_build import StarStamps

PEAK_E = 1e5
_MIN_STARS = 10
_MAX_ERROR = 0.1
_CLIP_SIGMA = 4.0
_STEP_PIX = 0.05


def growth(stars: StarStamps, psf: PsfModel, radius_pix: float) -> tuple[float, float]:
    """Return the relative growth of the FWHM from faint stars to ones that peak at 100,000 electrons.

    Parameters
    ----------
    stars
        Cut from the image, neighbours removed, of all peaks there are below saturation.
    psf
        Made from them.
    radius_pix
        Pixels within this radius of a star are compared.

    Returns
    -------
    growth, error
        NaN where fewer than 10 stars, or too narrow a range of peaks, leave an error above 10 %.
    """
    widths, errors = relative_widths(stars, psf, radius_pix)
    peaks = stars.flux * evaluate(psf, stars.x, stars.y).max(axis=(1, 2)) / PEAK_E
    known = np.isfinite(widths) & np.isfinite(errors) & (errors > 0)
    slope, error = _slope(peaks[known], widths[known], errors[known])
    return (slope, error) if error < _MAX_ERROR else (float("nan"), float("nan"))


def relative_widths(stars: StarStamps, psf: PsfModel, radius_pix: float) -> tuple[Float, Float]:
    """Return by how much each star is wider than the model, relative to it, and the errors from noise.

    Returns
    -------
    width, error
        (n,) float64; NaN where too little of a star was seen.
    """
    profile = on_pixels(psf, stars.x, stars.y)
    h = _STEP_PIX
    slope_x, slope_y = (
        (shift(profile, dx, dy).astype(float) - shift(profile, -dx, -dy)) / (2 * h)
        for dx, dy in ((h, 0.0), (0.0, h))
    )
    steps = np.arange(psf.size) - psf.size // 2
    u = steps[None, None, :] - (stars.x - np.rint(stars.x))[:, None, None]
    v = steps[None, :, None] - (stars.y - np.rint(stars.y))[:, None, None]
    dilation = -2.0 * profile + u * slope_x + v * slope_y
    flux = stars.flux[:, None, None]
    light = np.maximum(profile, 0) * flux / stars.gain
    used = (np.hypot(u, v) <= radius_pix) & np.isfinite(stars.variance)
    weight = np.where(used, flux**2 / (np.where(used, stars.variance, 1) + light), 0)
    # A constant in the units of the profile's peak keeps the equations well scaled.
    constant = np.full_like(dilation, float(profile.max()))
    basis = np.stack([dilation, profile, slope_x, slope_y, constant], axis=1)
    normal = np.einsum("naij,nbij,nij->nab", basis, basis, weight, optimize=True)
    right = np.einsum("naij,nij,nij->na", basis, weight, np.where(used, stars.data, 0) / flux, optimize=True)
    widths, errors = np.full((2, len(stars.x)), np.nan)
    solvable = np.linalg.cond(normal) < 1e12
    covariance = np.linalg.inv(normal[solvable])
    solved = np.einsum("nab,nb->na", covariance, right[solvable])
    widths[solvable] = solved[:, 0] / solved[:, 1]
    errors[solvable] = np.sqrt(covariance[:, 0, 0]) / solved[:, 1]
    return widths, errors


def _slope(x: Float, y: Float, noise: Float) -> tuple[float, float]:
    """Return the slope of a line and its error; scatter beyond the noise is measured and allowed for."""
    extra = 0.0
    keep = np.ones(len(x), bool)
    slope, error, faint = float("nan"), float("inf"), 1.0
    for _ in range(5):
        n = int(keep.sum())
        if n < _MIN_STARS:
            return float("nan"), float("inf")
        weight = keep / (noise**2 + extra**2)
        mean = np.average(x, weights=weight)
        spread = float(np.sum(weight * (x - mean) ** 2))
        if spread <= 0:
            return float("nan"), float("inf")
        slope = float(np.sum(weight * (x - mean) * y) / spread)
        error = float(spread**-0.5)
        # Relative to the model, that is to stars of the mean peak; of interest are the faintest.
        faint = 1 + float(np.average(y, weights=weight)) - slope * mean
        off = y - np.average(y, weights=weight) - slope * (x - mean)
        scatter = 1.4826 * float(np.median(np.abs(off[keep])))
        extra = float(np.sqrt(max(scatter**2 - np.median(noise[keep]) ** 2, 0.0)))
        keep = np.abs(off) < _CLIP_SIGMA * np.hypot(noise, max(extra, scatter / 2))
    return slope / faint, error / faint
