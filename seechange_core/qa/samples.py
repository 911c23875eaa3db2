"""What figures of solutions show: residuals of single stars, and the distribution of a score image."""

from dataclasses import dataclass

import numpy as np

from seechange_core.constants import MAG_PER_RELATIVE
from seechange_core.frames import (
    CatalogStars,
    Flags,
    Float,
    Float32,
    Int,
    Sources,
    Table,
    WcsSolution,
    ZeroPointSolution,
)
from seechange_core.numerics.matching import Matches, match_sky
from seechange_core.numerics.stats import clipped_stats

#: Bins of a score's distribution: their width, and the score that the first and last end at, sigma.
BIN_SIGMA, END_SIGMA = 0.2, 10.0


@dataclass(frozen=True, eq=False)
class PlaceResiduals(Table):
    """Where stars are beside where their catalog has them.

    Attributes
    ----------
    x, y
        Pixels.
    east, north
        Star - catalog on the sky, mas.
    along_x, along_y
        The same in the directions of the image's axes, mas.
    """

    x: Float
    y: Float
    east: Float
    north: Float
    along_x: Float
    along_y: Float


@dataclass(frozen=True, eq=False)
class ZeroPointResiduals(Table):
    """What single stars say of a zero point.

    Attributes
    ----------
    mag, color
        Of the catalog; the colour is NaN where unknown.
    residual, error
        Star - solution without its colour term, and its error, mag.
    expected
        What the colour term makes of the residual, mag; 0 where the colour is unknown.
    """

    mag: Float
    color: Float
    residual: Float
    error: Float
    expected: Float


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """How a score image is distributed.

    Attributes
    ----------
    counts
        Usable pixels per bin of `BIN_SIGMA` from -`END_SIGMA`; the first and last hold what is beyond.
    mean, sigma
        Clipped.
    """

    counts: Int
    mean: float
    sigma: float

    @property
    def middles(self) -> Float:
        """Score in the middle of each bin."""
        return np.asarray((np.arange(len(self.counts)) + 0.5) * BIN_SIGMA - END_SIGMA)

    @property
    def normal(self) -> Float:
        """Counts of a unit normal: what a blank difference has."""
        density = np.exp(-(self.middles**2) / 2) / np.sqrt(2 * np.pi)
        return np.asarray(self.counts.sum() * BIN_SIGMA * density)


def match_stars(
    sources: Sources, wcs: WcsSolution, catalog: CatalogStars, radius_arcsec: float = 1.0
) -> Matches:
    """Match sources (first) to catalog stars (second) on the sky; `distance` in arcseconds."""
    ra, dec = wcs.to_sky(sources.x, sources.y)
    return match_sky(ra, dec, catalog.ra, catalog.dec, radius_arcsec)


def place_residuals(
    sources: Sources, wcs: WcsSolution, catalog: CatalogStars, min_snr: float = 20.0
) -> PlaceResiduals:
    """Return the astrometric residuals of stars above a signal to noise, matched within 1 arcsec."""
    pairs = match_stars(sources, wcs, catalog)
    shown = (sources.snr[pairs.first] >= min_snr) & catalog.is_star[pairs.second]
    first, second = pairs.first[shown], pairs.second[shown]
    x, y = sources.x[first], sources.y[first]
    ra, dec = wcs.to_sky(x, y)
    east = ((ra - catalog.ra[second] + 180) % 360 - 180) * np.cos(np.radians(dec)) * 3.6e6
    north = (dec - catalog.dec[second]) * 3.6e6
    # Arrows live on the image: rotate east and north to the directions of x and y.
    to_sky = wcs.wcs.pixel_scale_matrix * 3.6e6
    along_x, along_y = np.linalg.solve(to_sky, np.array([east, north])) * wcs.pixel_scale_arcsec * 1e3
    return PlaceResiduals(x, y, east, north, along_x, along_y)


def zero_point_residuals(
    sources: Sources,
    wcs: WcsSolution,
    catalog: CatalogStars,
    solution: ZeroPointSolution,
    reference_color: float = 0.0,
) -> ZeroPointResiduals:
    """Return what isolated, unflagged stars with a catalog magnitude say of a zero point.

    Parameters
    ----------
    sources, wcs, catalog, solution
        Matched within 1 arcsec.
    reference_color
        Of the star that the zero point refers to, mag.
    """
    pairs = match_stars(sources, wcs, catalog)
    good = np.isfinite(catalog.mag[pairs.second]) & catalog.is_star[pairs.second]
    good &= sources.flux_psf[pairs.first] > 5 * sources.flux_psf_err[pairs.first]
    good &= ~sources.blended[pairs.first] & (sources.flags[pairs.first] == 0)
    first, second = pairs.first[good], pairs.second[good]
    star_zp = catalog.mag[second] + 2.5 * np.log10(sources.flux_psf[first])
    color = catalog.color[second]
    return ZeroPointResiduals(
        mag=catalog.mag[second],
        color=color,
        residual=star_zp - solution.zp_at(sources.x[first], sources.y[first]),
        error=np.hypot(MAG_PER_RELATIVE / sources.snr[first], np.nan_to_num(catalog.mag_err[second])),
        expected=solution.color_term * np.nan_to_num(color - reference_color),
    )


def score_counts(score: Float32, flags: Flags | None = None) -> ScoreCounts:
    """Count the pixels of a score image by their score.

    Parameters
    ----------
    score
        (H, W) sigma.
    flags
        (H, W); flagged pixels and pixels of score 0 (unusable) are left out.
    """
    used = np.isfinite(score) & (score != 0)
    if flags is not None:
        used &= flags == 0
    values = score[used]
    stats = clipped_stats(values[:: max(1, values.size // 200_000)])
    n_bins = round(2 * END_SIGMA / BIN_SIGMA)
    # Bins of one width need no search: a tenth of the time of np.histogram.
    bins = np.clip((values + np.float32(END_SIGMA)) * np.float32(1 / BIN_SIGMA), 0, n_bins - 1)
    return ScoreCounts(np.bincount(bins.astype(np.int16), minlength=n_bins), stats.mean, stats.sigma)
