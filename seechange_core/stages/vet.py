"""The cuts: what about a detection looks unlike a point source that came or went, each with a name.

A cut names a detection, it removes nothing. Each is wide enough that of real changes about one in a hundred
fails any of them, and each compares with what noise does to a source of that strength, so that faint ones
are not lost for a shape that nobody can measure. None asks how small a change is beside the light that was
there: the score's variance already holds what is left of that.
"""

from enum import IntFlag

import numpy as np

from seechange_core.frames import Bool, Float, Int
from seechange_core.params import Params, param


class BadReason(IntFlag):
    """Bits of `Measurements.bad_reasons`: the cuts a detection fails; those of past cuts stay unused."""

    OFFSET = 1 << 0
    ELONGATED = 1 << 1
    TOO_WIDE = 1 << 2
    TOO_NARROW = 1 << 3
    BAD_PIXELS = 1 << 4
    NEGATIVE = 1 << 5
    NO_FIT = 1 << 6
    DIPOLE = 1 << 8
    BAD_FIT = 1 << 9
    COSMIC_RAY = 1 << 10
    MOVED = 1 << 11


#: What each cut says of a detection.
MEANINGS: dict[BadReason, str] = {
    BadReason.OFFSET: "the fitted source is not where the score peaks",
    BadReason.ELONGATED: "longer than a point source: a trail, or a charged particle",
    BadReason.TOO_WIDE: "wider than the PSF: a ghost, a cloud of scattered light, a bad background",
    BadReason.TOO_NARROW: "sharper than the PSF: a hot pixel, or a charged particle",
    BadReason.BAD_PIXELS: "most of its light would fall on unusable pixels",
    BadReason.NEGATIVE: "about as much light is missing as was added",
    BadReason.NO_FIT: "no PSF or no Gaussian can be fitted to it: it has no shape of its own",
    BadReason.DIPOLE: "a positive and a negative source side by side: what did not change has moved",
    BadReason.BAD_FIT: "the PSF does not fit it",
    BadReason.COSMIC_RAY: "beside pixels that a cosmic ray hit: what was not masked of it",
    BadReason.MOVED: "it moved rather than changed: known where `subtract.translient` is on",
}


class CutLimits(Params):
    """Limits of the cuts."""

    max_offset_fwhm: float = param(0.9, "Bad from this distance of detection and fit on", unit="FWHM", gt=0)
    max_elongation: float = param(3.0, "Bad from this elongation on", gt=1)
    max_width_ratio: float = param(2.0, "Bad from this ratio of its FWHM to the PSF's on", gt=1)
    min_width_ratio: float = param(0.65, "Bad below this ratio of its FWHM to the PSF's", ge=0, lt=1)
    shape_sigma: float = param(
        4.5, "An elongation or a width counts if noise would not make it by this much", unit="sigma", ge=0
    )
    max_masked_fraction: float = param(
        0.9, "Bad from this fraction of the PSF's light on unusable pixels on", gt=0, le=1
    )
    max_cosmic_ray_fraction: float = param(
        0.08, "Bad from this fraction of the PSF's light on pixels hit by cosmic rays on", gt=0, le=1
    )
    max_negative_fraction: float = param(0.3, "Bad from this fraction of negative pixels on", gt=0, le=1)
    max_chi2: float = param(2.5, "Bad from this reduced chi square of the PSF fit on", gt=1)
    min_dipole_chi2: float = param(
        25.0, "Bad if a second, negative PSF lowers chi square by this and is strong enough", gt=0
    )
    min_dipole_ratio: float = param(
        0.4, "A dipole's weaker lobe has at least this part of the stronger one's flux", gt=0, le=1
    )
    min_translient_ratio: float = param(
        1.2,
        "Bad if a shift is so many times as significant as the score (moved: 1.6; changed: 0.6)",
        gt=0,
    )


def bad_reasons(limits: CutLimits, columns: dict[str, Float], fwhm_pix: float) -> Int:
    """Collect the bits of the cuts that fail; a shape that is NaN fails NO_FIT only.

    Parameters
    ----------
    limits
        Of the cuts.
    columns
        Of `Measurements` by name, and `score`.
    fwhm_pix
        Of the difference's PSF.
    """
    strength = np.maximum(np.abs(columns["score"]), 1e-3)
    # Of sources of S/N s the width is known to 1 / s, the ratio of axes (never below 1) to 2 / s.
    noise = limits.shape_sigma / strength
    with np.errstate(divide="ignore", invalid="ignore"):
        longer, wider = np.log(columns["elongation"]), np.log(columns["fwhm_pix"] / fwhm_pix)
    cuts: dict[BadReason, Bool] = {
        BadReason.OFFSET: columns["offset_pix"] >= limits.max_offset_fwhm * fwhm_pix,
        BadReason.ELONGATED: longer >= np.maximum(np.log(limits.max_elongation), 2 * noise),
        BadReason.TOO_WIDE: wider >= np.maximum(np.log(limits.max_width_ratio), noise),
        BadReason.TOO_NARROW: -wider > np.maximum(-np.log(max(limits.min_width_ratio, 1e-9)), noise),
        BadReason.BAD_PIXELS: columns["masked_fraction"] >= limits.max_masked_fraction,
        BadReason.NEGATIVE: columns["negative_fraction"] >= limits.max_negative_fraction,
        BadReason.NO_FIT: ~np.isfinite(columns["flux_psf"]) | ~np.isfinite(columns["fwhm_pix"]),
        BadReason.DIPOLE: (columns["dipole_chi2"] >= limits.min_dipole_chi2)
        & (columns["dipole_ratio"] >= limits.min_dipole_ratio),
        BadReason.BAD_FIT: columns["chi2"] >= limits.max_chi2,
        BadReason.COSMIC_RAY: columns["cosmic_ray_fraction"] >= limits.max_cosmic_ray_fraction,
        BadReason.MOVED: columns["translient_sigma"] >= limits.min_translient_ratio * strength,
    }
    reasons = np.zeros(len(strength), np.int64)
    for bit, fails in cuts.items():
        reasons[fails] |= int(bit)
    return reasons
