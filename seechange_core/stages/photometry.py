"""Calibrate fluxes: sources + reference stars -> `ZeroPointSolution`.

The magnitude of one electron in the PSF-flux system, with an error that counts the catalog's errors
and what neither they nor the photon noise explain; the colour term, as well as the stars tell it; how the
zero point varies over the section, if they show that it does; corrections that bring apertures to the same
system; and the depth reached.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import nnls

from seechange_core.constants import MAG_PER_RELATIVE
from seechange_core.errors import Clouded, NoCatalog, NoSolution, NoStars
from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import (
    Background,
    Bool,
    CatalogStars,
    Float,
    Int,
    PsfModel,
    Sources,
    WcsSolution,
    ZeroPointSolution,
)
from seechange_core.frames.solutions import spatial_terms
from seechange_core.numerics import psf as psf_model
from seechange_core.numerics.fitting import LinearFit, fit_linear, left_out_loss
from seechange_core.numerics.matching import match_sky, neighbour_distance
from seechange_core.numerics.stats import mad_sigma
from seechange_core.params import Params, param

CODE_VERSION = "2"

_ENOUGH = 20  # stars, from which on the choosier selection is taken
_FAINTEST = 1 / 3  # of the S/N wanted, where there are few stars
_OF_LIMIT_SIGMA = 3.0  # errors of the catalog between a star and the faintest one of the catalog
_SPATIAL_TERMS = (0, 2, 5)  # of a constant, a plane and a quadratic surface
_TERM_VARIANCE = np.array([1 / 3, 1 / 3, 4 / 45, 1 / 9, 4 / 45])  # of spatial terms over the section
_UNEVEN = 4.0  # in units of what evenly strewn stars give on average; chance makes one in a thousand
# How well the PSF's light beyond 2 FWHM is known, relatively: what is too faint to be found passes for wings.
# On five simulated CCDs (`benchmarks.zero_point`) zero points are off the true total flux by so much of it.
_WINGS_FROM_FWHM, _WING_ERROR = 2.0, 0.045
_DEPTHS_PER_AXIS = 8  # places along each axis of which the depth is the median


class PhotometryParams(Params):
    """Parameters of the photometric calibration."""

    catalog_band: str | None = param(
        None, "Band of the catalog to calibrate with; None takes the one that belongs to the filter."
    )
    catalog_color: str | None = param(
        "auto",
        "Catalog colour for the colour term, such as g-r; auto: g-r where the catalog has it, None: none.",
    )
    match_radius_arcsec: float = param(1.0, "Largest distance of a match.", unit="arcsec", gt=0.0)
    match_radius_pix: float = param(1.0, "The match radius is at least so many pixels.", unit="pix", ge=0.0)
    min_snr: float = param(
        30.0,
        "Fainter stars are used only where fewer than 20 are brighter, and down to a third of this.",
        gt=0.0,
    )
    min_stars: int = param(5, "Fewer stars than this make no zero point.", ge=3)
    clip_sigma: float = param(3.5, "Stars beyond this many sigma are outliers.", gt=1.0)
    max_scatter_mag: float = param(
        0.5, "More scatter beyond the known errors than this is no solution.", unit="mag", gt=0.0
    )
    reference_color: float = param(0.7, "Colour of the star to which the zero point refers.", unit="mag")
    min_color: float = param(-0.5, "Bluer stars are not used.", unit="mag")
    max_color: float = param(2.0, "Redder stars are not used.", unit="mag")
    color_term: float = param(0.0, "Colour term expected, magnitudes per magnitude of catalog colour.")
    color_term_prior: float = param(
        0.1, "How far the true colour term may lie from the expected one, 1 sigma.", gt=0.0
    )
    spatial_prior_mag: float = param(
        0.02,
        "How much each term of the zero point's variation over the section may be, 1 sigma.",
        unit="mag",
        gt=0.0,
    )
    max_spatial_degree: int = param(
        2, "Highest degree of that variation, fitted where the stars show it; 0 for none.", ge=0, le=2
    )
    aperture_min_snr: float = param(
        50.0, "Stars this bright make the aperture corrections, if there are enough.", gt=0.0
    )
    isolation_fwhm: float = param(
        5.0,
        "Stars for aperture corrections have no neighbour within so many FWHM, if there are enough.",
        ge=0.0,
    )
    limit_sigma: float = param(5.0, "Significance that defines the limiting magnitude.", gt=0.0)
    zero_point_expected_mag: dict[str, float] = param(
        {}, "For each filter, the zero point of one second in a clear sky at airmass 0, if known.", unit="mag"
    )
    max_extinction_mag: float = param(
        1.0,
        "An exposure with more extinction against the expected zero point is clouded out.",
        unit="mag",
        gt=0.0,
    )


def calibrate(
    sources: Sources,
    wcs: WcsSolution,
    catalog: CatalogStars,
    background: Background,
    psf: PsfModel,
    band: str,
    params: PhotometryParams | None = None,
    *,
    gain: float = 1.0,
    expected_zp: float | None = None,
    catalog_err_mag: float = 0.0,
) -> ZeroPointSolution:
    """Find the zero point of a section's PSF fluxes.

    Stars follow ``mag = zp + color_term (color - reference_color) + variation(x, y) - 2.5 log10(flux_psf)``;
    the variation has mean 0 over the section.

    Parameters
    ----------
    sources
        Of the section.
    wcs
        Its astrometric solution.
    catalog
        Reference stars at the epoch of the exposure, magnitudes in `band`.
    background, psf
        Of the section, for the limiting magnitude.
    band
        Name of the band.
    params
        Defaults if None.
    gain
        Of the image, see `ImageFrame`: 1 unless it is a coadd.
    expected_zp
        Zero point of this exposure (its time, its airmass) in a clear sky; None if not known.
    catalog_err_mag
        Error that all magnitudes of the catalog share; goes into `zp_err`.

    Returns
    -------
    ZeroPointSolution
        `zp_err` holds photon noise, catalog errors, the extra scatter of the stars used, what is not known
        of the colour term and of the variation over the section, and how well the PSF tells the total flux.
        The limiting magnitude counts the noise of the sky and of the source.

    Raises
    ------
    NoStars
        If too few sources are usable.
    NoCatalog
        If too few catalog stars have a magnitude.
    NoSolution
        If too few of both match, or they disagree.
    Clouded
        If the zero point shows more extinction than allowed.
    """
    params = params or PhotometryParams()
    usable = _usable_sources(sources, params)
    rows, stars = _match(sources, usable, wcs, catalog, band, params)
    shape = background.shape
    faintest = float(np.max(catalog.mag[stars]))
    fits, has_color, even = _fit_zero_point(
        sources.select(rows), catalog.select(stars), faintest, shape, params
    )
    fit = _choose(fits, params.clip_sigma)
    zp = float(fit.coefficients[0, 0])
    variance = fit.covariance[0, 0] if even else max(f.covariance[0, 0] for f in fits)
    zp_err = float(np.sqrt(variance + total_flux_error_mag(psf) ** 2 + catalog_err_mag**2))
    _check(zp, expected_zp, fit, band, params)
    bright = fit.used & (fit.errors <= np.median(fit.errors[fit.used]))
    return ZeroPointSolution(
        zp=zp,
        zp_err=zp_err,
        band=band,
        color_term=params.color_term + float(fit.coefficients[1, 0]) if has_color else 0.0,
        color_term_err=float(np.sqrt(fit.covariance[1, 1])) if has_color else 0.0,
        n_stars=int(np.count_nonzero(fit.used)),
        scatter_mag=mad_sigma(fit.residuals[bright, 0]),
        aperture_corrections=_aperture_corrections(sources, usable, psf.fwhm_pix, params),
        limiting_mag=_limiting_mag(zp, background, psf, params.limit_sigma, gain),
        spatial_mag=tuple(float(c) for c in fit.coefficients[2:, 0]),
        shape=shape,
    )


def total_flux_error_mag(psf: PsfModel) -> float:
    """Tell how well fluxes are known to be total ones: the error of the light in the PSF's wings, mag."""
    steps = np.arange(psf.size) - psf.size // 2
    wings = np.hypot(steps[:, None], steps) > _WINGS_FROM_FWHM * psf.fwhm_pix
    return float(MAG_PER_RELATIVE * _WING_ERROR * abs(psf.coefficients[0][wings].sum()))


def _usable_sources(sources: Sources, params: PhotometryParams) -> Bool:
    """Pick clean stars; those with blended neighbours only where there are few others."""
    spoiled = int(UNUSABLE | PixelFlag.NON_LINEAR)
    good = sources.is_star & ((sources.flags & spoiled) == 0) & np.isfinite(sources.flux_psf)
    faintest = _FAINTEST * params.min_snr
    good &= (sources.flux_psf_err > 0) & (sources.flux_psf >= faintest * sources.flux_psf_err)
    alone = good & ~sources.blended
    if np.count_nonzero(alone) >= _ENOUGH:
        good = alone
    if np.count_nonzero(good) < params.min_stars:
        raise NoStars(
            f"{np.count_nonzero(good)} of {len(sources)} sources are clean stars, {params.min_stars} needed",
            cure="look at the image; for a sparse field lower photometry.min_snr or photometry.min_stars",
        )
    return np.asarray(good, bool)


def _match(
    sources: Sources,
    usable: Bool,
    wcs: WcsSolution,
    catalog: CatalogStars,
    band: str,
    params: PhotometryParams,
) -> tuple[Int, Int]:
    """Pair usable sources with usable catalog stars, one to one; return their rows."""
    has_mag = catalog.is_star & np.isfinite(catalog.mag) & (catalog.mag_err >= 0)
    has_mag &= ~((catalog.color < params.min_color) | (catalog.color > params.max_color))  # NaN passes
    if np.count_nonzero(has_mag) < params.min_stars:
        raise NoCatalog(
            f"{np.count_nonzero(has_mag)} of {len(catalog)} catalog stars here have a {band} magnitude, "
            f"{params.min_stars} needed",
            cure="use a catalog with that band, or a deeper one",
        )
    radius = max(params.match_radius_arcsec, params.match_radius_pix * wcs.pixel_scale_arcsec)
    # Everything takes part in the matching, so that no star is paired with a neighbour's entry.
    found = match_sky(*wcs.to_sky(sources.x, sources.y), catalog.ra, catalog.dec, radius)
    keep = usable[found.first] & has_mag[found.second]
    if np.count_nonzero(keep) < params.min_stars:
        raise NoSolution(
            f"{np.count_nonzero(keep)} clean stars match catalog stars within {radius:.2g} arcsec, "
            f"{params.min_stars} needed",
            cure="use a deeper catalog, or check the astrometric solution",
        )
    return found.first[keep], found.second[keep]


def _fit_zero_point(
    s: Sources, c: CatalogStars, faintest: float, shape: tuple[int, int], params: PhotometryParams
) -> tuple[list[LinearFit], bool, bool]:
    """Fit zero point, deviation of the colour term from the expected one, and variation over the section.

    Whatever is chosen by the measured flux, or weighted with its error, is too bright: noise has helped it.
    A first fit therefore tells, with flux and catalog together, how bright each star is (`_expected`).

    Returns
    -------
    Fits without and with more and more of that variation, the coefficients in this order; whether any colour
    is known; whether the stars cover the section evenly.
    """
    # A catalog that claims no error at all would otherwise own the fit.
    mag_err = np.maximum(c.mag_err, 1e-4)
    shade, mag_err, has_color = _shades(c.color - params.reference_color, mag_err, params)
    values = c.mag + 2.5 * np.log10(s.flux_psf) - params.color_term * shade
    design = np.column_stack([np.ones(len(shade)), shade, *spatial_terms(s.x, s.y, shape)])
    prior = np.array([np.inf, params.color_term_prior] + [params.spatial_prior_mag] * _SPATIAL_TERMS[-1])

    def fit(n_terms: int, rows: Bool, relative_err: Float) -> LinearFit:
        errors = np.hypot(mag_err, MAG_PER_RELATIVE * relative_err)
        # The mean logarithm of a noisy flux is below that of its mean.
        unbiased = values + MAG_PER_RELATIVE * relative_err**2 / 2
        return fit_linear(
            design[rows, :n_terms], unbiased[rows], errors[rows],
            clip_sigma=params.clip_sigma, prior_errors=prior[:n_terms],
        )  # fmt: skip

    everything = np.ones(len(values), bool)
    first = fit(2, everything, s.flux_psf_err / s.flux_psf)
    relative_err, fainter = _expected(s, mag_err, first)
    rows = _bright_enough(1 / relative_err, c.mag + fainter, mag_err, faintest, params.min_snr)
    fits = [fit(2 + k, rows, relative_err) for k in _SPATIAL_TERMS[: params.max_spatial_degree + 1]]
    even = _cover_evenly(design[rows][:, 2:], fits[0])
    return fits, has_color, even


def _shades(shade: Float, errors: Float, params: PhotometryParams) -> tuple[Float, Float, bool]:
    """Give stars of unknown colour the median one and the error that comes of it; say if any is known."""
    known = np.isfinite(shade)
    if not known.any():
        return np.zeros(len(shade)), errors, False
    unknown_mag = np.std(shade[known]) * np.hypot(params.color_term, params.color_term_prior)
    return (
        np.where(known, shade, np.median(shade[known])),
        np.where(known, errors, np.hypot(errors, unknown_mag)),
        True,
    )


def _expected(s: Sources, mag_err: Float, first: LinearFit) -> tuple[Float, Float]:
    """Estimate each star's brightness from its flux and the catalog, weighted with their variances.

    The error of that mean and of the difference of the two, which makes the zero point, are independent.

    Returns
    -------
    relative_err, fainter
        (n,) relative error of a flux at that brightness; how much fainter than in the catalog it is, mag.
    """
    # What neither error explains is either's.
    shared = first.scatter**2 / 2
    relative_err, fainter = s.flux_psf_err / s.flux_psf, np.zeros(len(s))
    variance_of = _variance_curve(s.flux_psf, s.flux_psf_err)
    for _ in range(2):
        of_flux = (MAG_PER_RELATIVE * relative_err) ** 2 + shared
        fainter = first.residuals[:, 0] * of_flux / (of_flux + mag_err**2 + shared)
        flux = s.flux_psf * 10 ** (-0.4 * fainter)
        relative_err = s.flux_psf_err / flux * np.sqrt(variance_of(flux) / variance_of(s.flux_psf))
    return relative_err, fainter - first.residuals[:, 0]


def _variance_curve(flux: Float, error: Float) -> Callable[[Float], Float]:
    """Fit how the variance of a flux grows with it: of the sky, the source's photons and the model."""
    unit = float(np.median(flux))

    def terms(f: Float) -> Float:
        return np.vander(f / unit, 3)

    coefficients, _ = nnls(terms(flux) / error[:, None] ** 2, np.ones(len(flux)))
    return lambda f: np.asarray(terms(f) @ coefficients)


def _bright_enough(snr: Float, mag: Float, mag_err: Float, faintest: float, min_snr: float) -> Bool:
    """Choose stars by their expected S/N, away from the catalog's limit if there are enough of them."""
    fewest = min(_ENOUGH, len(snr)) - 1
    chosen = snr >= min(min_snr, float(np.sort(snr)[::-1][fewest]))
    inside = chosen & (mag + _OF_LIMIT_SIGMA * mag_err < faintest)
    return inside if np.count_nonzero(inside) >= _ENOUGH else chosen


def _cover_evenly(terms: Float, fit: LinearFit) -> bool:
    """Tell whether the means of spatial terms over the stars are no larger than stars strewn evenly give.

    Where they are larger, a variation that the stars do not show adds to the error of the section's mean.
    """
    weights = fit.used / fit.errors**2
    effective = weights.sum() ** 2 / np.sum(weights**2)
    means = weights @ terms / weights.sum()
    return bool(np.mean(means**2 / _TERM_VARIANCE) * effective < _UNEVEN)


def _choose(fits: list[LinearFit], clip_sigma: float) -> LinearFit:
    """Take a fit with more terms only if it predicts left-out stars better, by more than 2 sigma."""
    total = np.hypot(fits[0].errors, min(fit.scatter for fit in fits))
    best, lowest = fits[0], left_out_loss(fits[0], total, clip_sigma)
    for fit in fits[1:]:
        loss = left_out_loss(fit, total, clip_sigma)
        gain = lowest - loss
        if np.mean(gain) > 2 * np.std(gain) / np.sqrt(len(gain)):
            best, lowest = fit, loss
    return best


def _check(zp: float, expected: float | None, fit: LinearFit, band: str, params: PhotometryParams) -> None:
    n_used = int(np.count_nonzero(fit.used))
    if n_used < params.min_stars or fit.scatter > params.max_scatter_mag:
        raise NoSolution(
            f"{n_used} stars agree on a zero point with an unexplained scatter of {fit.scatter:.2f} mag; at "
            f"least {params.min_stars} and at most {params.max_scatter_mag:g} mag wanted",
            cure=f"check that the catalog's band {band} fits the filter, and the astrometric solution",
        )
    if expected is not None and expected - zp > params.max_extinction_mag:
        raise Clouded(
            f"the zero point {zp:.2f} lies {expected - zp:.2f} mag below the expected {expected:.2f}",
            cure="nothing to be done; or correct photometry.zero_point_expected_mag",
        )


def _aperture_corrections(
    sources: Sources, usable: Bool, fwhm_pix: float, params: PhotometryParams
) -> tuple[float, ...]:
    """Measure PSF minus aperture magnitudes on bright, isolated stars; NaN where there is no flux."""
    chosen = usable
    isolated = neighbour_distance(sources.x, sources.y) > params.isolation_fwhm * fwhm_pix
    for choosier in (chosen & (sources.snr >= params.aperture_min_snr), isolated):
        if np.count_nonzero(chosen & choosier) >= _ENOUGH:
            chosen = chosen & choosier
    s = sources.select(np.flatnonzero(chosen))
    columns = zip(s.flux_aper.T, s.flux_aper_err.T, strict=True)
    return tuple(_ratio_mag(flux, error, s.flux_psf, params) for flux, error in columns)


def _ratio_mag(flux: Float, error: Float, flux_psf: Float, params: PhotometryParams) -> float:
    """Fit ``flux = ratio flux_psf + rest`` and return the ratio in magnitudes.

    The rest is what a wide aperture holds of sources too faint to be found: the same for all stars.
    """
    use = (flux > 0) & (error > 0)
    n = int(np.count_nonzero(use))
    if n < params.min_stars:
        return float("nan")
    design = np.column_stack([flux_psf[use], np.ones(n)])[:, : 2 if n >= _ENOUGH else 1]
    ratio = fit_linear(design, flux[use], error[use], clip_sigma=params.clip_sigma).coefficients[0, 0]
    return float(2.5 * np.log10(ratio)) if ratio > 0 else float("nan")


def _limiting_mag(zp: float, background: Background, psf: PsfModel, n_sigma: float, gain: float) -> float:
    """Give the magnitude of a point source whose flux is `n_sigma` times its error; median over places.

    A PSF fit weighted with the sky's variance has ``variance = A rms^2 + w F / gain``, ``A = 1 / sum P^2``
    (King 1983, PASP 95, 163) and ``w = A^2 sum P^3``: the source's photons count as they are concentrated.
    """
    places = [_places(n) for n in background.rms.shape]
    rms = background.rms[np.ix_(*places)].astype(float)
    row, column = np.nonzero(np.isfinite(rms) & (rms > 0))
    if len(row) == 0:
        return float("nan")
    y, x = ((at[i] + 0.5) * background.step_pix - 0.5 for at, i in zip(places, (row, column), strict=True))
    stamps = psf_model.evaluate(psf, x, y).astype(float)
    area = 1 / np.sum(stamps**2, axis=(1, 2))
    own = n_sigma**2 * area**2 * np.sum(stamps**3, axis=(1, 2)) / gain
    # F^2 = n^2 variance(F)
    flux = (own + np.sqrt(own**2 + 4 * n_sigma**2 * area * rms[row, column] ** 2)) / 2
    return float(zp - 2.5 * np.log10(np.median(flux)))


def _places(n_cells: int) -> Int:
    """Return some of the cells along an axis, evenly."""
    step = -(-n_cells // _DEPTHS_PER_AXIS)
    return np.arange(step // 2, n_cells, step)
