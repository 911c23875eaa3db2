"""From a calibrated image to its sources, its background and its PSF."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from seechange_core.errors import DeadSection, NoStars
from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import Background, Bool, Float, Float32, ImageFrame, Int, PsfModel, Sources
from seechange_core.numerics import background as sky
from seechange_core.numerics import psf_build
from seechange_core.numerics.aperture import Moments, adaptive_moments, sum_circles
from seechange_core.numerics.detection import Peaks, find
from seechange_core.numerics.flag_sums import flags_within
from seechange_core.numerics.scene import (
    SceneFit,
    apertures,
    fit_scene,
    psf_moments,
    without_position_bias,
)
from seechange_core.numerics.star_locus import point_like, stellar_fwhm
from seechange_core.params import Params, param

CODE_VERSION = "1"

_MIN_STAMP_PIX, _MAX_STAMP_PIX = 15, 101
_MIN_FWHM_PIX = 1.2
_ISOLATION_FWHM = 2.5


class ExtractParams(Params):
    """Parameters of source extraction."""

    background_step_pix: int = param(128, "side of a cell of the background mesh", unit="pix", ge=16)
    detection_sigma: float = param(
        4.0, "detection threshold on the matched-filtered image", unit="sigma", ge=1.5, le=100
    )
    detection_min_area_pix: int = param(3, "contiguous pixels above the threshold", unit="pix", ge=1)
    deblend_contrast: float = param(0.005, "smallest share of light of a deblended source", gt=0, le=1)
    fwhm_guess_pix: float = param(3.5, "FWHM to start from, before it is measured", unit="pix", gt=1, le=30)
    min_snr: float = param(3.0, "sources whose fitted S/N is below this are dropped", ge=0)
    psf_min_stars: int = param(5, "fewer PSF stars than this stop the section", ge=1)
    psf_max_stars: int = param(120, "at most this many PSF stars are used, the brightest", ge=1)
    psf_max_degree: int = param(2, "highest polynomial degree of the PSF's variation", ge=0, le=2)
    psf_star_min_snr: float = param(25.0, "S/N a PSF star needs", ge=5)
    psf_stamp_fwhm: float = param(
        10.0,
        "side of the PSF stamp; half of it is the radius that defines total flux",
        unit="FWHM",
        ge=6,
        le=16,
    )
    fit_radius_fwhm: float = param(
        2.0, "pixels within this radius enter a PSF fit", unit="FWHM", ge=0.5, le=5
    )
    fit_passes: int = param(3, "times all sources are fitted, neighbours subtracted", ge=1, le=10)
    aperture_radii_fwhm: tuple[float, ...] = param(
        (1.0, 2.0, 3.0, 5.0), "aperture radii", unit="FWHM", min_length=1
    )
    saturation_margin: float = param(
        0.8, "PSF stars peak below this share of the saturation level", gt=0, le=1
    )


@dataclass(frozen=True, eq=False)
class Extraction:
    """What `extract` finds.

    Attributes
    ----------
    sources
        In the order of detection.
    background
        Sky level and noise.
    psf
        The model the fluxes are in; see `psf_build` for what total flux means.
    """

    sources: Sources
    background: Background
    psf: PsfModel


@dataclass(frozen=True, eq=False)
class _Field:
    """The image as the steps below use it: background removed, unusable pixels without weight."""

    image: ImageFrame
    background: Background
    data: Float32
    weight: Float32

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape


def extract(image: ImageFrame, params: ExtractParams) -> Extraction:
    """Find and measure the sources of an image.

    Background, detection, PSF from the stars, PSF fits of all sources with their neighbours subtracted,
    apertures, shapes. Fluxes are in the PSF's total-flux system (the light within half a PSF stamp);
    errors come from the model's variance, the PSF's floor in quadrature.

    Parameters
    ----------
    image
        Calibrated, electrons, sky included.
    params
        `ExtractParams`.

    Raises
    ------
    PixelsError
        If no pixel is usable.
    DeadSection
        If the section shows neither sky nor sources.
    NoStars
        If there are too few stars to make a PSF from.
    """
    background = sky.estimate(image.data, image.weight, image.flags, step_pix=params.background_step_pix)
    field = _field(image, background)
    _check_alive(field)
    peaks, segmentation = _detect(field, params)
    stars, fwhm_pix = _choose_stars(field, peaks, params)
    psf, scene, stars = _model(field, peaks, segmentation, stars, fwhm_pix, params)
    # With the models gone, the wings no mask reached are gone as well.
    background = sky.estimate(
        image.data - scene.model, image.weight, image.flags, step_pix=params.background_step_pix
    )
    field = _field(image, background)
    psf, scene = _final(field, scene, psf, stars, params)
    sources = _measure(field, peaks, scene, psf, stars, params)
    return Extraction(sources, background, psf)


def _field(image: ImageFrame, background: Background) -> _Field:
    usable = sky.usable_pixels(image.data, image.weight, image.flags)
    data = np.where(np.isfinite(image.data), image.data - sky.level_map(background), np.float32(0))
    return _Field(image, background, data, np.where(usable, image.weight, np.float32(0)))


def _check_alive(field: _Field) -> None:
    """Stop on a section whose usable pixels all hold one value."""
    pixels = field.image.data[field.weight > 0]
    low, high = np.percentile(pixels[:: max(1, len(pixels) // 100_000)], [1, 99])
    if high <= low:
        raise DeadSection(
            f"every usable pixel is {low:.6g} electrons", cure="mark the section as dead for this date"
        )


def _detect(field: _Field, params: ExtractParams) -> tuple[Peaks, Int]:
    """Detect twice: bright sources tell the seeing, the matched filter of that seeing finds all."""
    error = np.sqrt(1 / np.where(field.weight > 0, field.weight, np.inf)).astype(np.float32)
    # The cores of saturated stars stay in, so that a star is found as one source and not as a ring of them.
    saturated = (field.image.flags & np.uint16(PixelFlag.SATURATED)) > 0
    mask = (field.weight <= 0) & ~saturated
    error[field.weight <= 0] = float(np.median(field.background.rms))
    seek = partial(
        find,
        field.data,
        error,
        mask,
        min_area_pix=params.detection_min_area_pix,
        deblend_contrast=params.deblend_contrast,
    )
    bright, _ = seek(sigma=2 * params.detection_sigma, fwhm_pix=None)
    shapes = adaptive_moments(field.data, field.weight, bright.x, bright.y, params.fwhm_guess_pix)
    fwhm_pix, _ = stellar_fwhm(shapes.fwhm_pix[~bright.merged], bright.flux[~bright.merged], _MIN_FWHM_PIX)
    if not np.isfinite(fwhm_pix):
        fwhm_pix = params.fwhm_guess_pix
    peaks, segmentation = seek(sigma=params.detection_sigma, fwhm_pix=fwhm_pix)
    if not len(peaks):
        _nothing_found(field)
    return peaks, segmentation


def _nothing_found(field: _Field) -> None:
    level, rms = float(np.median(field.background.level)), float(np.median(field.background.rms))
    if level < rms:
        raise DeadSection(
            f"no source, and a sky of {level:.3g} electrons within its noise of {rms:.3g}",
            cure="mark the section as dead for this date, or look at the shutter",
        )
    raise NoStars(
        "no source at all was found", cure="look at the image: clouds, or the threshold is too high"
    )


def _choose_stars(field: _Field, peaks: Peaks, params: ExtractParams) -> tuple[Int, float]:
    """Return which sources can make the PSF (indices, brightest first) and the FWHM of stars."""
    guess = float(np.median(peaks.fwhm_pix))
    shapes = adaptive_moments(field.data, field.weight, peaks.x, peaks.y, min(guess, 10.0))
    rms = float(np.median(field.background.rms))
    snr = peaks.flux / np.sqrt(peaks.n_pixels * rms**2 + np.maximum(peaks.flux, 0) / field.image.gain)
    reach = 1.5 * np.where(np.isfinite(shapes.fwhm_pix), shapes.fwhm_pix, 3.0)
    clean = flags_within(field.image.flags, peaks.x, peaks.y, float(np.clip(np.median(reach), 2, 30)))
    clean_bits = int(UNUSABLE) | int(PixelFlag.NON_LINEAR)
    limit = params.saturation_margin * field.image.saturation_e
    fit = (
        ~peaks.merged
        & (clean & clean_bits == 0)
        & (peaks.peak + float(np.median(field.background.level)) < limit)
        & (shapes.elongation < 2)
        & (snr > params.psf_star_min_snr)
        & np.isfinite(shapes.fwhm_pix)
    )
    fwhm_pix, tolerance = stellar_fwhm(shapes.fwhm_pix[fit], snr[fit], _MIN_FWHM_PIX)
    with np.errstate(invalid="ignore"):
        fit &= np.abs(np.log(shapes.fwhm_pix / fwhm_pix)) < tolerance
    alone = fit & _isolated(peaks, _ISOLATION_FWHM * fwhm_pix)
    # In a crowd there may be none: neighbours are masked at first and subtracted later, at some cost.
    fit = alone if np.count_nonzero(alone) >= 2 * params.psf_min_stars else fit
    chosen = np.flatnonzero(fit)
    chosen = chosen[np.argsort(-peaks.flux[chosen], kind="stable")][: params.psf_max_stars]
    _require(len(chosen), params)
    return chosen, fwhm_pix


def _require(n_stars: int, params: ExtractParams) -> None:
    if n_stars < params.psf_min_stars:
        raise NoStars(
            f"{n_stars} stars fit for a PSF, {params.psf_min_stars} are needed",
            cure="clouds, or a field too poor; lower extract.psf_min_stars or psf_star_min_snr",
        )


def _isolated(peaks: Peaks, radius_pix: float) -> Bool:
    """Return which sources have no neighbour of a tenth of their flux within a radius."""
    alone = np.ones(len(peaks), bool)
    order = np.argsort(peaks.x, kind="stable")
    x, y, flux = peaks.x[order], peaks.y[order], peaks.flux[order]
    for step in range(1, len(x)):
        dx = x[step:] - x[:-step]
        close = np.hypot(dx, y[step:] - y[:-step]) < radius_pix
        alone[order[:-step][close & (flux[step:] > 0.1 * flux[:-step])]] = False
        alone[order[step:][close & (flux[:-step] > 0.1 * flux[step:])]] = False
        if dx.min() > radius_pix:
            break
    return alone


def _stamp_size(fwhm_pix: float, params: ExtractParams) -> int:
    side = 2 * int(np.ceil(params.psf_stamp_fwhm * fwhm_pix / 2)) + 1
    return int(np.clip(side, _MIN_STAMP_PIX, _MAX_STAMP_PIX))


def _fit_all(
    field: _Field, psf: PsfModel, x: Float, y: Float, flux: Float, passes: int, params: ExtractParams
) -> SceneFit:
    return fit_scene(
        field.data,
        field.weight,
        psf,
        x,
        y,
        flux,
        radius_pix=max(params.fit_radius_fwhm * psf.fwhm_pix, 1.5),
        gain=field.image.gain,
        passes=passes,
        max_shift_pix=max(1.0, 0.4 * psf.fwhm_pix),
    )


def _model(
    field: _Field, peaks: Peaks, segmentation: Int, stars: Int, fwhm_pix: float, params: ExtractParams
) -> tuple[PsfModel, SceneFit, Int]:
    """Build the PSF from masked stars, then again from stars whose neighbours are subtracted."""
    size = _stamp_size(fwhm_pix, params)
    gain = field.image.gain
    # Isophotes miss some of the light: all that matters here is that the stars are on one scale.
    flux, _, _ = sum_circles(field.data, field.weight, peaks.x, peaks.y, [1.5 * fwhm_pix])
    flux = np.maximum(np.nan_to_num(flux[:, 0]), 0.0)
    cut = psf_build.cut_stars(
        field.data, field.weight, peaks.x[stars], peaks.y[stars], np.maximum(flux[stars], 1.0), size, gain
    )
    cut = psf_build.without_others(cut, segmentation, stars + 1)
    psf = psf_build.build(cut, 0, field.shape, fwhm_pix)
    scene = _fit_all(field, psf, peaks.x, peaks.y, flux, 2, params)
    cut, kept = _stars_of(field, scene, psf, stars)
    good = psf_build.good_stars(cut, psf, params.fit_radius_fwhm * fwhm_pix, 3.0)
    _require(int(good.sum()), params)
    cut, stars = cut.select(good), kept[good]
    degree = psf_build.choose_degree(len(stars), params.psf_max_degree)
    psf = psf_build.build(cut, degree, field.shape, fwhm_pix, start=psf)
    fits = scene.fits
    scene = _fit_all(field, psf, fits.x, fits.y, np.nan_to_num(fits.flux), 1, params)
    return psf, scene, stars


def _stars_of(field: _Field, scene: SceneFit, psf: PsfModel, stars: Int) -> tuple[psf_build.StarStamps, Int]:
    """Return the PSF stars as cut from the image without their neighbours, and which ones they are."""
    fits = scene.fits
    kept = stars[np.isfinite(fits.flux[stars]) & (fits.flux[stars] > 0)]
    cut = psf_build.cut_stars(
        scene.residual, field.weight, fits.x[kept], fits.y[kept], fits.flux[kept], psf.size, field.image.gain
    )
    return psf_build.with_own_light(cut, psf), kept


def _final(
    field: _Field, scene: SceneFit, psf: PsfModel, stars: Int, params: ExtractParams
) -> tuple[PsfModel, SceneFit]:
    """Refine the PSF on the better background, fit all sources with it and measure its floor."""
    fits = scene.fits
    scene = _fit_all(field, psf, fits.x, fits.y, np.nan_to_num(fits.flux), 1, params)
    cut, _ = _stars_of(field, scene, psf, stars)
    psf = psf_build.build(cut, psf.degree, field.shape, psf.fwhm_pix, start=psf)
    fits = scene.fits
    scene = _fit_all(field, psf, fits.x, fits.y, np.nan_to_num(fits.flux), params.fit_passes, params)
    cut, _ = _stars_of(field, scene, psf, stars)
    radius_pix = params.fit_radius_fwhm * psf.fwhm_pix
    return replace(psf, floor=psf_build.measure_floor(cut, psf, radius_pix)), scene


def _measure(
    field: _Field, peaks: Peaks, scene: SceneFit, psf: PsfModel, stars: Int, params: ExtractParams
) -> Sources:
    """Return the table of sources; those that the fit did not confirm are left out."""
    fits = scene.fits
    radii = psf.fwhm_pix * np.asarray(params.aperture_radii_fwhm)
    flux_aper, flux_aper_err = apertures(scene, field.weight, psf, radii, field.image.gain)
    shapes = _shapes(field, peaks, psf, fits.x, fits.y)
    model_shapes, centre = psf_moments(psf, fits.x, fits.y)
    flux = without_position_bias(fits.flux, fits.flux_err)
    # The stars' own positions define the model's: it is no better than all of them together.
    position_floor = np.sqrt(len(psf.coefficients) / np.sum(fits.x_err[stars] ** -2.0))
    others = _others_light(scene, centre)
    with np.errstate(invalid="ignore"):
        snr = flux / fits.flux_err
        kept = np.isfinite(snr) & (snr >= params.min_snr) & _inside(fits.x, fits.y, field.shape)
    sources = Sources(
        x=fits.x,
        y=fits.y,
        x_err=np.hypot(fits.x_err, position_floor),
        y_err=np.hypot(fits.y_err, position_floor),
        flux_psf=flux,
        flux_psf_err=np.hypot(fits.flux_err, psf.floor * flux),
        chi2=fits.chi2,
        flux_aper=flux_aper,
        flux_aper_err=flux_aper_err,
        peak=peaks.peak,
        fwhm_pix=shapes.fwhm_pix,
        elongation=shapes.elongation,
        theta_rad=shapes.theta_rad,
        flags=flags_within(field.image.flags, fits.x, fits.y, psf.fwhm_pix),
        blended=peaks.merged | (others > 0.05 * np.nan_to_num(fits.flux) * centre),
        is_star=point_like(shapes.fwhm_pix, model_shapes.fwhm_pix, snr),
    )
    return sources.select(np.flatnonzero(kept))


def _inside(x: Float, y: Float, shape: tuple[int, int]) -> Bool:
    inside: Bool = (x > -0.5) & (y > -0.5) & (x < shape[1] - 0.5) & (y < shape[0] - 0.5)
    return inside


def _others_light(scene: SceneFit, centre: Float) -> Float:
    """Return the neighbours' modelled light on each source's middle pixel, electrons."""
    fits = scene.fits
    height, width = scene.model.shape
    row = np.clip(np.rint(fits.y).astype(int), 0, height - 1)
    column = np.clip(np.rint(fits.x).astype(int), 0, width - 1)
    others: Float = scene.model[row, column] - np.maximum(np.nan_to_num(fits.flux), 0.0) * centre
    return others


def _shapes(field: _Field, peaks: Peaks, psf: PsfModel, x: Float, y: Float) -> Moments:
    """Return adaptive moments, and isophotal ones where those do not converge."""
    found = adaptive_moments(field.data, field.weight, x, y, psf.fwhm_pix)
    known = np.isfinite(found.fwhm_pix) & np.isfinite(found.elongation)
    return Moments(
        fwhm_pix=np.where(known, found.fwhm_pix, peaks.fwhm_pix),
        elongation=np.where(known, found.elongation, peaks.elongation),
        theta_rad=np.where(known, found.theta_rad, peaks.theta_rad),
    )
