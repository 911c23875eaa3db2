"""Choosing the stars a PSF is made from."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.errors import NoStars, Trailed
from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import Bool, Float, Float32, ImageFrame, Int
from seechange_core.numerics.aperture import adaptive_moments
from seechange_core.numerics.detection import Peaks
from seechange_core.numerics.flag_sums import flags_within
from seechange_core.numerics.star_locus import follow_locus, stellar_fwhm

_MIN_FWHM_PIX = 1.2
_MAX_ELONGATION = 2.0
#: Of a trailed exposure: how long sources are at least (ratio of axes), how many are, and how strong their
#: common direction is (1: all are parallel).
_TRAIL_ELONGATION, _TRAIL_SHARE, _TRAIL_PARALLEL = 1.5, 0.5, 0.65
#: Neighbours, see `others_light`: little is a tenth of the light at 2.5 FWHM, too much as much at 1 FWHM.
_ISOLATION_FWHM, _REACH_FWHM = 2.5, 10.0
_LITTLE_LIGHT, _MAX_OTHERS_LIGHT = 0.1, 15.0
#: Where shapes fail for want of sampling, and by how much (sigma) the image is blurred then.
_SHARP_FWHM_PIX, _BLUR_PIX = 2.5, 0.8
#: Fewer than these are not all there is: sources with some trouble are taken as well.
_LOCUS_STARS, _ENOUGH_STARS = 10, 60
#: No cell (so many a side) has more than this, relative to an even share, while others have stars left.
_CELLS, _CELL_SHARE = 5, 2.0
#: What no star may have near its centre, and what it may have if need be: such pixels are left out.
_SPOILT_BITS = int(PixelFlag.SATURATED | PixelFlag.BLEED | PixelFlag.NON_LINEAR | PixelFlag.OUT_OF_BOUNDS)
_MASKED_BITS = int(UNUSABLE)


@dataclass(frozen=True)
class StarRules:
    """What a PSF star must be.

    Attributes
    ----------
    min_snr
        S/N.
    peak_limit_e
        Highest pixel, sky included, electrons.
    min_stars, max_stars
        How many are needed, and the most that are taken.
    """

    min_snr: float
    peak_limit_e: float
    min_stars: int
    max_stars: int


@dataclass(frozen=True, eq=False)
class StarChoice:
    """The chosen stars.

    Attributes
    ----------
    rows
        Which sources, the best first.
    fwhm_pix
        Of stars, from adaptive moments.
    """

    rows: Int
    fwhm_pix: float


def choose_stars(
    data: Float32,
    weight: Float32,
    image: ImageFrame,
    peaks: Peaks,
    sky_e: float,
    rms_e: float,
    rules: StarRules,
) -> StarChoice:
    """Return which sources can make the PSF.

    Of the sources that are bright, unsaturated and as wide as stars are, the brightest of those that nothing
    disturbs; where these are few, as in a crowd or under many bad pixels, also those whose neighbours have to
    be subtracted and whose pixels have to be left out.

    Parameters
    ----------
    data, weight
        (H, W), background removed, 1 / background variance, 0 where unusable.
    image
        Its flags and its gain are used.
    peaks
        The sources.
    sky_e, rms_e
        Typical level and noise of the sky, electrons per pixel.
    rules
        What makes a star fit.

    Raises
    ------
    NoStars
        If there are too few; the message counts why the candidates failed.
    Trailed
        If there are too few because all are drawn out in one direction.
    """
    guess = float(np.clip(np.median(peaks.fwhm_pix), 1.5, 10.0))
    snr = peaks.flux / np.sqrt(peaks.n_pixels * rms_e**2 + np.maximum(peaks.flux, 0) / image.gain)
    around = flags_within(image.flags, peaks.x, peaks.y, float(np.clip(1.5 * guess, 2, 30)))
    sieve = _Sieve(len(peaks))
    sieve.keep(snr > rules.min_snr, "too faint")
    sieve.keep(peaks.peak + sky_e < rules.peak_limit_e, "too bright")
    sieve.keep(around & _SPOILT_BITS == 0, "saturated or without data")
    clear = sieve.kept.copy()
    fwhm_pix, elongation = _shapes(data, weight, peaks, clear, guess)
    sieve.keep(elongation < _MAX_ELONGATION, "elongated or without a shape")
    whole = around & _MASKED_BITS == 0
    # The locus from the cleanest there are. (A bright star alone may share its island with faint sources.)
    pure = sieve.kept & whole
    pure = pure if np.count_nonzero(pure) >= _LOCUS_STARS else sieve.kept
    width, tolerance = stellar_fwhm(fwhm_pix[pure], snr[pure], _MIN_FWHM_PIX)
    u, v = (2 * at / n - 1 for at, n in ((peaks.x, data.shape[1]), (peaks.y, data.shape[0])))
    local, tolerance = follow_locus(u, v, fwhm_pix, snr, (width, tolerance), pure)
    with np.errstate(invalid="ignore"):
        sieve.keep(np.abs(np.log(fwhm_pix / local)) < tolerance, "of another width")
    light = np.full(len(peaks), np.inf) if np.isnan(width) else others_light(peaks, width)
    sieve.keep(light < _MAX_OTHERS_LIGHT, "merged")
    if np.count_nonzero(sieve.kept) < rules.min_stars:
        _require_untrailed(peaks.elongation[clear], peaks.theta_rad[clear], rules.min_stars)
    sieve.require(rules.min_stars)
    trouble = 2 * ~whole + (light > _LITTLE_LIGHT)
    return StarChoice(_least_troubled(sieve.kept, trouble, peaks.flux, _cell(u, v), rules), width)


class _Sieve:
    """Which sources are still in the running, and how many fell out at each step."""

    def __init__(self, n: int) -> None:
        self.kept: Bool = np.ones(n, bool)
        self.lost: dict[str, int] = {}

    def keep(self, fit: Bool, reason: str) -> None:
        """Drop the sources that are not fit for a reason."""
        self.lost[reason] = int(np.count_nonzero(self.kept & ~fit))
        self.kept &= fit

    def require(self, min_stars: int) -> None:
        """Raise `NoStars` if fewer are left than needed."""
        n_left = int(np.count_nonzero(self.kept))
        if n_left < min_stars:
            why = ", ".join(f"{n} {reason}" for reason, n in self.lost.items() if n) or "no source at all"
            raise NoStars(
                f"{n_left} of {len(self.kept)} sources fit for a PSF, {min_stars} are needed: {why}",
                cure="clouds, or a field too poor; lower extract.psf_min_stars or psf_star_min_snr",
            )


def _require_untrailed(elongation: Float, theta_rad: Float, fewest: int) -> None:
    """Raise `Trailed` if most sources are long, and parallel."""
    long = elongation > _TRAIL_ELONGATION
    n = int(np.count_nonzero(long))
    if n < max(fewest, _TRAIL_SHARE * len(long)):
        return
    if abs(np.mean(np.exp(2j * theta_rad[long]))) > _TRAIL_PARALLEL:
        ratio = float(np.median(elongation[long]))
        raise Trailed(
            f"{n} of {len(long)} sources are drawn out in one direction, {ratio:.1f} : 1",
            cure="the telescope moved during the exposure; nothing to do",
        )


def _shapes(
    data: Float32, weight: Float32, peaks: Peaks, rows: Bool, guess_pix: float
) -> tuple[Float, Float]:
    """Return FWHM (pixels) and elongation of some sources, NaN for the others."""
    x, y = peaks.x[rows], peaks.y[rows]
    shapes = adaptive_moments(data, weight, x, y, guess_pix)
    if np.count_nonzero(np.isfinite(shapes.fwhm_pix)) < 0.75 * len(x) and guess_pix < _SHARP_FWHM_PIX:
        # A weight as sharp as an undersampled star falls between the pixels: blurred, all have shapes.
        blurred = gaussian_filter(data, _BLUR_PIX)
        shapes = adaptive_moments(
            blurred, weight, x, y, float(np.hypot(guess_pix, FWHM_PER_SIGMA * _BLUR_PIX))
        )
        narrower = np.sqrt(np.maximum(shapes.fwhm_pix**2 - (FWHM_PER_SIGMA * _BLUR_PIX) ** 2, 0.01))
        shapes = replace(shapes, fwhm_pix=narrower)
    fwhm_pix, elongation = np.full((2, len(peaks)), np.nan)
    fwhm_pix[rows], elongation[rows] = shapes.fwhm_pix, shapes.elongation
    return fwhm_pix, elongation


def _cell(u: Float, v: Float) -> Int:
    """Return the number of the cell of the section that each position, from -1 to 1, lies in."""
    row, column = (np.clip((_CELLS * (at + 1) / 2).astype(int), 0, _CELLS - 1) for at in (v, u))
    number: Int = row * _CELLS + column
    return number


def _least_troubled(fit: Bool, trouble: Int, flux: Float, cell: Int, rules: StarRules) -> Int:
    """Return the rows of the least troubled sources that are enough together, the best first.

    The brightest are best, but a cluster's come last that are more than its cells' share.
    """
    counts = np.cumsum(np.bincount(trouble[fit], minlength=int(trouble.max()) + 1))
    enough = max(rules.min_stars, min(_ENOUGH_STARS, rules.max_stars, int(counts[-1])))
    worst = int(np.searchsorted(counts, enough))
    chosen = np.flatnonzero(fit & (trouble <= worst))
    chosen = chosen[np.argsort(-flux[chosen], kind="stable")]
    by_cell = np.argsort(cell[chosen], kind="stable")
    first = np.searchsorted(cell[chosen][by_cell], cell[chosen])
    brighter = np.argsort(by_cell) - first
    share = np.ceil(_CELL_SHARE * rules.max_stars / _CELLS**2)
    return chosen[np.argsort(brighter >= share, kind="stable")][: rules.max_stars]


def others_light(peaks: Peaks, fwhm_pix: float) -> Float:
    """Return how much the worst neighbour of each source disturbs it, relative to its flux.

    Parameters
    ----------
    peaks
        The sources.
    fwhm_pix
        Of stars: a neighbour counts with its relative flux at 2.5 FWHM, falling as the cube of the distance.
    """
    light = np.zeros(len(peaks))
    places = np.c_[peaks.x, peaks.y]
    pairs = cKDTree(places).query_pairs(_REACH_FWHM * fwhm_pix, output_type="ndarray")
    distance = np.hypot(*(places[pairs[:, 0]] - places[pairs[:, 1]]).T)
    share = (_ISOLATION_FWHM * fwhm_pix / np.maximum(distance, 0.5)) ** 3
    flux = np.maximum(peaks.flux, 1e-9)
    for one, other in (pairs.T, pairs.T[::-1]):
        np.maximum.at(light, one, share * flux[other] / flux[one])
    return light
