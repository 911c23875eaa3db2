"""Ensemble zero points: a light curve's epochs on one scale, from the stars around its object.

The catalog ties every image to the sky on its own, no better than its few stars allow; what a light curve
needs is that the epochs agree with each other, which far more stars can say, and far better.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from seechange_core.chain.light_curve_table import LightCurveTable
from seechange_core.chain.light_curves import Epoch, Kind, epochs_at, force_epoch
from seechange_core.constants import MAG_PER_RELATIVE
from seechange_core.errors import NotFoundError
from seechange_core.frames import Bool, Float, Sources, Table, WcsSolution
from seechange_core.numerics.ensemble import Ensemble, solve
from seechange_core.numerics.matching import match_sky
from seechange_core.numerics.sky import mean_position, separation
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.archive import Archive

#: Fewer comparison stars cannot tell which of them varies.
MIN_STARS = 3
#: How many of the brightest speak for the quality of an ensemble.
N_BRIGHTEST = 10


@dataclass(frozen=True)
class ComparisonChoice:
    """Which stars are compared with.

    Attributes
    ----------
    max_stars
        The brightest so many of those that pass.
    radius_arcmin
        Near enough to the object to share its air and its part of the detector.
    exclude_arcsec
        Not the object itself, nor what stands in its light.
    min_snr
        In the deepest image.
    max_peak_share
        Of the saturation level, in every image: below it the detector is taken to be linear.
    min_epoch_share
        Of the images in which the star is found, without any flag and off its neighbours.
    """

    max_stars: int = 50
    radius_arcmin: float = 30.0
    exclude_arcsec: float = 15.0
    min_snr: float = 50.0
    max_peak_share: float = 0.8
    min_epoch_share: float = 0.8


@dataclass(frozen=True, eq=False)
class ComparisonStars(Table):
    """The stars of an ensemble, the brightest first in each filter.

    Attributes
    ----------
    ra, dec
        Mean position, ICRS deg.
    filter
        Text.
    mag, mag_err
        Mean, on the ensemble's scale; the error is that against the other stars.
    rms_mag, mad_mag
        Scatter of a single measurement after the correction: root mean square, and from the median
        absolute deviation.
    n_epochs
        At which it was measured.
    used
        False for those that vary.
    """

    ra: Float
    dec: Float
    filter: np.ndarray
    mag: Float
    mag_err: Float
    rms_mag: Float
    mad_mag: Float
    n_epochs: np.ndarray
    used: Bool

    def brightest(self) -> "ComparisonStars":
        """Return the ten brightest that do not vary (of each filter)."""
        rows = [np.flatnonzero(self.used & (self.filter == f))[:N_BRIGHTEST] for f in np.unique(self.filter)]
        return self.select(np.concatenate(rows))


class EpochZeroPoint(NamedTuple):
    """What an ensemble says of one image.

    Attributes
    ----------
    zp, zp_err
        Zero point at the object's place, mag of one electron; its error is that against the mean of all
        epochs of the filter, which stays the mean of the catalog zero points.
    psf_floor
        Relative error that the PSF model adds to a flux, by its own account: most of it all stars of the
        image share.
    scatter_mag
        What single fluxes of steady stars really scatter by beyond their noise.
    """

    zp: float
    zp_err: float
    psf_floor: float
    scatter_mag: float


@dataclass(frozen=True, eq=False)
class EnsembleZeroPoints:
    """Zero points of images that agree with each other, and the stars that say so.

    Attributes
    ----------
    zero_points
        By exposure and section.
    stars
        The comparison stars.
    """

    zero_points: Mapping[tuple[str, str], EpochZeroPoint]
    stars: ComparisonStars

    def apply(self, curve: LightCurveTable, on: Kind) -> LightCurveTable:
        """Return a light curve with these zero points; NaN for epochs that have none.

        On images, the errors of the fluxes change too: what the PSF model may do to them is replaced by
        what the comparison stars show, as the zero points have taken out what the stars share. On differences
        the fluxes stay what they are: those of the references were scaled by what was subtracted, and a flux
        in electrons knows no zero point.
        """
        nothing = EpochZeroPoint(np.nan, np.nan, 0.0, 0.0)
        places = zip(curve.exposure.tolist(), curve.section.tolist(), strict=True)
        found = np.array([self.zero_points.get(place, nothing) for place in places], float).reshape(-1, 4)
        zp, zp_err, floor, scatter_mag = found.T
        error = curve.flux_err
        if on == "image":
            error = np.hypot(_noise(curve.flux, error, floor), scatter_mag / MAG_PER_RELATIVE * curve.flux)
        return replace(curve, zp=zp, zp_err=zp_err, flux_err=error)

    def describe(self) -> Iterator[str]:
        """Yield a line for each filter: how many stars, how bright, how well they agree."""
        best = self.stars.brightest()
        for band in np.unique(self.stars.filter).tolist():
            stars = self.stars.select(self.stars.filter == band)
            top = best.select(best.filter == band)
            mags = stars.mag[stars.used]
            rms, mad = 1e3 * np.median(top.rms_mag), 1e3 * np.median(top.mad_mag)
            yield (
                f"ensemble in {band}: {stars.used.sum()} comparison stars of {mags.min():.1f} to "
                f"{mags.max():.1f} mag, {np.sum(~stars.used)} variable ones left out; "
                f"the {len(top)} brightest scatter by {rms:.1f} mmag (median rms; {mad:.1f} by their MAD)"
            )


def ensemble_at(
    settings: Settings, ra: float, dec: float, choice: ComparisonChoice | None = None
) -> EnsembleZeroPoints:
    """Measure the stars around a place in all images that cover it, and tie the images together by them.

    Positions are forced, as an object's own is, so that whatever spoils a flux at a fixed place spoils
    those of the stars alike. Each instrument and filter has its own ensemble.

    Parameters
    ----------
    settings
        Whose images.
    ra, dec
        The object that must not be among the stars, ICRS deg.
    choice
        Of the stars.

    Raises
    ------
    NotFoundError
        If no image covers the place, or too few stars pass.
    """
    choice = choice or ComparisonChoice()
    groups: dict[tuple[str, str], list[Epoch]] = {}
    with use_settings(settings):
        for epoch in epochs_at(settings, ra, dec, "image"):
            groups.setdefault((epoch.exposure.instrument, epoch.rows.image.filter), []).append(epoch)
        if not groups:
            raise NotFoundError(
                f"no image covers ra {ra:.5f} dec {dec:.5f}", cure="process exposures of that field"
            )
        parts = [_solve_group(settings, group, ra, dec, choice) for group in groups.values()]
    zero_points = {place: value for part in parts for place, value in part.zero_points.items()}
    names = parts[0].stars.columns()
    stars = ComparisonStars(**{n: np.concatenate([p.stars.columns()[n] for p in parts]) for n in names})
    return EnsembleZeroPoints(zero_points, stars)


def _solve_group(
    settings: Settings, epochs: Sequence[Epoch], ra: float, dec: float, choice: ComparisonChoice
) -> EnsembleZeroPoints:
    """Solve for the images of one instrument and filter."""
    star_ra, star_dec = _choose(settings, epochs, ra, dec, choice)
    band = epochs[0].rows.image.filter
    if len(star_ra) < MIN_STARS:
        raise NotFoundError(
            f"{len(star_ra)} comparison stars in {band} within {choice.radius_arcmin:g}' of ra {ra:.5f} "
            f"dec {dec:.5f} are too few (need {MIN_STARS})",
            cure="leave out --ensemble, or process more images of the field",
        )
    zp = np.array([e.zp_at(star_ra, star_dec) for e in epochs]).T
    here = [float(e.zp_at(np.array([ra]), np.array([dec]))[0]) for e in epochs]
    measured = [force_epoch(settings, e, star_ra, star_dec, "image") for e in epochs]
    floor = np.array([e.rows.psf.floor for e in epochs])
    scale = 10 ** (-0.4 * zp)
    flux = np.array([np.where(m.flags == 0, m.flux, np.nan) for m in measured]).T
    error = _noise(flux, np.array([m.flux_err for m in measured]).T, floor)
    solution = solve(flux * scale, error * scale)
    tied = {
        (e.exposure.name, str(e.rows.image.section_id)): EpochZeroPoint(
            here[j] + float(solution.zero_point[j]),
            float(solution.zero_point_err[j]),
            float(floor[j]),
            solution.common_excess_mag,
        )
        for j, e in enumerate(epochs)
        if np.isfinite(solution.zero_point[j])
    }
    return EnsembleZeroPoints(tied, _stars(star_ra, star_dec, band, solution))


def _noise(flux: Float, error: Float, floor: Float) -> Float:
    """Return the errors of fluxes without the PSF's floor."""
    return np.asarray(np.sqrt(np.maximum(error**2 - (floor * flux) ** 2, (1e-6 * error) ** 2)), float)


def _stars(ra: Float, dec: Float, band: str, solution: Ensemble) -> ComparisonStars:
    table = ComparisonStars(
        ra=ra,
        dec=dec,
        filter=np.full(len(ra), band),
        mag=solution.mean_mag,
        mag_err=solution.mean_mag_err,
        rms_mag=solution.rms_mag,
        mad_mag=solution.mad_mag,
        n_epochs=np.isfinite(solution.residual_mag).sum(axis=1),
        used=solution.used,
    )
    return table.select(np.argsort(table.mag, kind="stable"))


def _choose(
    settings: Settings, epochs: Sequence[Epoch], ra: float, dec: float, choice: ComparisonChoice
) -> tuple[Float, Float]:
    """Choose comparison stars by the source lists: mean positions, the brightest first."""
    archive = Archive(settings)
    deepest = max(epochs, key=lambda e: e.rows.zero_point.limiting_mag or -np.inf)
    sources, wcs = deepest.sources(archive)
    star_ra, star_dec = wcs.to_sky(sources.x, sources.y)
    distance = separation(ra, dec, star_ra, star_dec)
    rows = np.flatnonzero(
        sources.is_star
        & (sources.snr >= choice.min_snr)
        & (distance <= choice.radius_arcmin / 60)
        & (distance >= choice.exclude_arcsec / 3600)
    )
    rows = rows[np.argsort(-sources.flux_psf[rows], kind="stable")]
    places = np.full((2, len(rows), len(epochs)), np.nan)
    clean = np.zeros((len(rows), len(epochs)), bool)
    linear = np.ones(len(rows), bool)
    for j, epoch in enumerate(epochs):
        found, own_wcs = epoch.sources(archive)
        here, there, sky = _matched(star_ra[rows], star_dec[rows], found, own_wcs)
        clean[here, j] = ((found.flags == 0) & found.is_star & ~found.blended)[there]
        limit = choice.max_peak_share * (epoch.rows.image.saturation_e or np.inf)
        linear[here] &= found.peak[there] < limit
        places[:, here, j] = sky
    keep = np.flatnonzero(linear & (clean.sum(axis=1) >= max(2, choice.min_epoch_share * len(epochs))))
    # A star's mean place is better than any one image's, and the same for all of them.
    means = [mean_position(*places[:, k, clean[k]]) for k in keep[: choice.max_stars]]
    return np.array([m[0] for m in means]), np.array([m[1] for m in means])


def _matched(ra: Float, dec: Float, found: Sources, wcs: WcsSolution) -> tuple[np.ndarray, np.ndarray, Float]:
    """Return which stars are which sources of an image, and where the image has them."""
    own_ra, own_dec = wcs.to_sky(found.x, found.y)
    radius_arcsec = 1.5 * wcs.pixel_scale_arcsec
    pairs = match_sky(ra, dec, own_ra, own_dec, radius_arcsec)
    return pairs.first, pairs.second, np.array([own_ra[pairs.second], own_dec[pairs.second]])
