"""Telling stars by their size."""

import numpy as np

from seechange_core.frames import Bool, Float
from seechange_core.numerics.psf import terms

_MIN_TOLERANCE = 0.05
_MAX_TOLERANCE = 0.2
#: True spread of the stars' sizes over a section; relative error of a size times the S/N; a crowd of at least
#: this share of the largest one's density may be the stars'.
_SPREAD, _SIZE_ERROR, _CROWD_SHARE = 0.015, 0.6, 0.4
_STEP = 0.005
#: The locus is followed over the section by polynomials of rising degree, refitted to those near them;
#: where sizes scatter by more than this, masks or noise do it and there is nothing to follow.
_MAX_DEGREE, _STARS_PER_TERM, _ROUNDS = 4, 8, 5
_MAX_FOLLOWED = 0.12


def stellar_fwhm(fwhm_pix: Float, snr: Float, min_fwhm_pix: float) -> tuple[float, float]:
    """Return the FWHM at which the stars crowd, and the half width of that crowd.

    Stars share one size, galaxies and blends are spread over larger ones, hits of cosmic rays and hot pixels
    are sharper than `min_fwhm_pix`. So of the maxima of the density of sizes (each source a Gaussian as wide
    as its size is uncertain) the smallest is taken that is no mere ripple, though galaxies may be many more.

    Parameters
    ----------
    fwhm_pix, snr
        (n,) of the candidates; sizes that are not finite are left out.
    min_fwhm_pix
        Anything sharper did not come through the optics.

    Returns
    -------
    fwhm, tolerance
        Pixels, and relative (three robust sigmas, between 5 % and 20 %); NaN and 0 without candidates.
    """
    known = np.isfinite(fwhm_pix) & (fwhm_pix > min_fwhm_pix)
    sizes, noise = np.log(fwhm_pix[known]), snr[known]
    if not sizes.size:
        return float("nan"), 0.0
    # The brighter half is little scattered by noise and still has enough stars to make a crowd.
    bright = np.argsort(-noise, kind="stable")[: max(10, len(sizes) // 2)]
    middle = _smallest_crowd(sizes[bright], noise[bright])
    return float(np.exp(middle)), _tolerance(sizes[bright] - middle)


def _tolerance(off: Float) -> float:
    """Return three robust sigmas of the stars' ln FWHM about their locus, from the side without galaxies."""
    below = -off[(off <= 0) & (off > -_MAX_TOLERANCE)]
    width = 3 * 1.4826 * float(np.median(below)) if below.size else 0.0
    return float(np.clip(width, _MIN_TOLERANCE, _MAX_TOLERANCE))


def follow_locus(
    u: Float, v: Float, fwhm_pix: Float, snr: Float, crowd: tuple[float, float], used: Bool
) -> tuple[Float, float]:
    """Follow the stars' size over a section, from where most of them are to where the PSF is another.

    A PSF 15 % wider in the corners has no stars there that are as wide as those in the middle. From the
    members of the crowd polynomials of position are fitted to ln FWHM; what lies near them is fitted next.

    Parameters
    ----------
    u, v
        (n,) positions, from -1 to 1 over the section.
    fwhm_pix, snr
        (n,) of the candidates.
    crowd
        Of `stellar_fwhm`.
    used
        (n,) which of the candidates may tell the locus; some of them have a finite size.

    Returns
    -------
    fwhm, tolerance
        (n,) pixels, the stars' size at each place, and relative.
    """
    size = np.where(used & np.isfinite(fwhm_pix), np.log(np.maximum(np.nan_to_num(fwhm_pix), 0.1)), np.inf)
    weight = 1 / np.hypot(_SPREAD, _SIZE_ERROR / np.maximum(snr, 1.0))
    locus, tolerance = np.full(len(u), np.log(crowd[0])), crowd[1]
    if not tolerance < _MAX_FOLLOWED:
        return np.exp(locus), tolerance
    for degree in range(1, _MAX_DEGREE + 1):
        basis = terms(degree, u, v)
        for _ in range(_ROUNDS):
            near = np.abs(size - locus) < tolerance
            if np.count_nonzero(near) < _STARS_PER_TERM * basis.shape[1]:
                return np.exp(locus), tolerance
            w = weight[near]
            solved = np.linalg.lstsq(basis[near] * w[:, None], size[near] * w, rcond=None)[0]
            locus = basis @ solved
    return np.exp(locus), _tolerance((size - locus)[near])


def _smallest_crowd(sizes: Float, snr: Float) -> float:
    """Return the smallest size, ln FWHM, at which the density has a maximum worth the name."""
    at = np.arange(sizes.min() - 3 * _STEP, sizes.max() + 4 * _STEP, _STEP)
    error = np.hypot(_SPREAD, _SIZE_ERROR / np.maximum(snr, 1.0))
    density = np.zeros(len(at))
    for size, sigma in zip(sizes, error, strict=True):
        low, high = np.searchsorted(at, (size - 4 * sigma, size + 4 * sigma))
        density[low:high] += np.exp(-0.5 * ((at[low:high] - size) / sigma) ** 2) / sigma
    peaks = (density[1:-1] >= density[:-2]) & (density[1:-1] > density[2:])
    tall = np.flatnonzero(peaks & (density[1:-1] >= _CROWD_SHARE * density.max())) + 1
    return float(at[tall[0]] if tall.size else at[np.argmax(density)])


def point_like(fwhm_pix: Float, psf_fwhm_pix: Float, snr: Float) -> Bool:
    """Return which sources are as large as the PSF where they are, within 6 % and the noise of their size.

    Parameters
    ----------
    fwhm_pix, psf_fwhm_pix
        (n,) measured alike on the source and on the PSF; not finite means not point-like.
    snr
        (n,) of the source; the size of a source of S/N s is known to about 1 / s.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.log(fwhm_pix / psf_fwhm_pix)
        same: Bool = np.abs(off) < 0.06 + 2.5 / np.maximum(snr, 1e-3)
    return same
