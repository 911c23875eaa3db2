"""Telling stars by their size."""

import numpy as np

from seechange_core.frames import Bool, Float
from seechange_core.numerics.psf import terms

_MIN_TOLERANCE = 0.05
_MAX_TOLERANCE = 0.2
#: True spread of the stars' sizes over a section; relative error of a size times the S/N; a crowd of at least
#: this share of the largest one's density may be the stars'.
_SPREAD, _SIZE_ERROR, _CROWD_SHARE = 0.015, 0.6, 0.4
#: A small crowd stands apart from the tallest maximum if it has so many within so much of it (ln FWHM) and
#: beyond it are so many times more, if fewer than a share are just inside it, and if to the same share falls
#: the density before the tallest, seen this sharply.
_APART_STARS, _APART_WIDTH, _APART_TIMES, _SHARP_SPREAD, _APART_SHARE = 5, 0.02, 4, 0.007, 0.25
_STEP = 0.005
#: The locus is followed over the section by polynomials of rising degree, refitted to those near them;
#: where sizes scatter by more than this, masks or noise do it and there is nothing to follow.
_MAX_DEGREE, _STARS_PER_TERM, _ROUNDS = 4, 8, 5
_MAX_FOLLOWED = 0.12


def stellar_fwhm(fwhm_pix: Float, snr: Float, min_fwhm_pix: float) -> tuple[float, float]:
    """Return the FWHM at which the stars crowd, and the half width of that crowd.

    Stars share one size, galaxies and blends are spread over larger ones, hits of cosmic rays and hot pixels
    are sharper than `min_fwhm_pix`. So of the maxima of the density of sizes (each source a Gaussian as wide
    as its size is uncertain) the smallest is taken that is no mere ripple, though galaxies may be many more:
    it is nearly as tall as any, or has a gap between it and them.

    Parameters
    ----------
    fwhm_pix, snr
        (n,) of the candidates; sizes that are not finite are left out.
    min_fwhm_pix
        Anything sharper did not come through the optics.

    Returns
    -------
    fwhm, tolerance
        Pixels, and relative (three robust sigmas, between 5 % and 20 %, but not across the gap to a taller
        crowd); NaN and 0 without candidates.
    """
    known = np.isfinite(fwhm_pix) & (fwhm_pix > min_fwhm_pix)
    sizes, noise = np.log(fwhm_pix[known]), snr[known]
    if not sizes.size:
        return float("nan"), 0.0
    # The brighter half is little scattered by noise and still has enough stars to make a crowd.
    bright = np.argsort(-noise, kind="stable")[: max(10, len(sizes) // 2)]
    middle, edge = _smallest_crowd(sizes[bright], noise[bright])
    return float(np.exp(middle)), min(edge, _tolerance(sizes[bright] - middle))


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
    # A crowd that ends before galaxies begin has been told how far it goes.
    return np.exp(locus), tolerance if tolerance < _MIN_TOLERANCE else _tolerance((size - locus)[near])


def _smallest_crowd(sizes: Float, snr: Float) -> tuple[float, float]:
    """Return the smallest size, ln FWHM, where the density has a maximum worth the name, and how far it goes.

    That is one nearly as tall as any, or one that stands apart from the tallest; only the latter has an edge.
    """
    at = np.arange(sizes.min() - 3 * _STEP, sizes.max() + 4 * _STEP, _STEP)
    density = _density(at, sizes, snr, _SPREAD)
    sharp = _density(at, sizes, snr, _SHARP_SPREAD)
    peaks = (density[1:-1] >= density[:-2]) & (density[1:-1] > density[2:])
    tallest = int(np.argmax(density))
    for peak in (np.flatnonzero(peaks) + 1).tolist():
        edge = _edge(peak, tallest, at, sharp, sizes) if peak < tallest else np.inf
        if np.isfinite(edge) or density[peak] >= _CROWD_SHARE * density[tallest]:
            return float(at[peak]), edge
    return float(at[tallest]), np.inf


def _edge(peak: int, tallest: int, at: Float, sharp: Float, sizes: Float) -> float:
    """Return how far a crowd reaches that stands apart from the tallest; infinite if it does not."""
    low = peak + int(np.argmin(sharp[peak:tallest]))
    below, beyond = np.count_nonzero(sizes < at[low]), np.count_nonzero(sizes >= at[low])
    off = sizes - at[peak]
    near = np.count_nonzero(np.abs(off) < _APART_WIDTH)
    inner = np.count_nonzero((off > -3 * _APART_WIDTH) & (off <= -_APART_WIDTH))
    apart = (
        near >= _APART_STARS
        and beyond > _APART_TIMES * below
        and inner <= _APART_SHARE * near
        and sharp[low] <= _APART_SHARE * sharp[peak]
    )
    return float(at[low] - at[peak]) if apart else np.inf


def _density(at: Float, sizes: Float, snr: Float, spread: float) -> Float:
    """Return the density of sizes, each a Gaussian as wide as it is uncertain."""
    density = np.zeros(len(at))
    for size, sigma in zip(sizes, np.hypot(spread, _SIZE_ERROR / np.maximum(snr, 1.0)), strict=True):
        low, high = np.searchsorted(at, (size - 4 * sigma, size + 4 * sigma))
        density[low:high] += np.exp(-0.5 * ((at[low:high] - size) / sigma) ** 2) / sigma
    return density


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
