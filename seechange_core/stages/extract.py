"""From a calibrated image to its sources, its background and its PSF."""

from dataclasses import dataclass, replace

import numpy as np

from seechange_core.errors import DeadSection, NoStars
from seechange_core.flags import PixelFlag
from seechange_core.frames import Background, Bool, Float, Float32, ImageFrame, PsfModel, Sources
from seechange_core.numerics import background as sky
from seechange_core.numerics.aperture import adaptive_moments
from seechange_core.numerics.detection import Peaks, bright_peaks, find
from seechange_core.numerics.psf_making import (
    MadePsf,
    PsfRules,
    fit_sources,
    make_psf,
    refine_psf,
)
from seechange_core.numerics.scene import SceneFit
from seechange_core.numerics.second_search import (
    find_beside,
    find_hidden,
    is_crowded,
    joined,
    resolved,
    with_neighbours,
)
from seechange_core.numerics.star_choice import StarChoice, StarRules, choose_stars
from seechange_core.numerics.star_locus import stellar_fwhm
from seechange_core.numerics.watershed import Labels
from seechange_core.numerics.wings import fit_wings, subtract_wings
from seechange_core.params import Params, param
from seechange_core.stages.source_table import Field, source_table

CODE_VERSION = "3"

_MIN_FWHM_PIX = 1.2
#: A sky below this share of its noise may be what is left of bias and dark.
_NO_SKY = 0.1
#: With the sources gone, what is left to mask is faint.
_FAINT_MASK_SIGMA = 2.5
#: The seeing is taken from at most so many bright peaks.
_SEEING_PEAKS = 500
#: In a crowd the residual image is searched so many times at most.
_SEARCHES = 3
#: Fits of stars half a FWHM apart halve their distance to the best one in a pass or two.
_CROWD_PASSES = 8


class ExtractParams(Params):
    """Parameters of source extraction."""

    background_step_pix: int = param(128, "side of a cell of the background mesh", unit="pix", ge=16)
    detection_sigma: float = param(
        4.25, "detection threshold on the matched-filtered image", unit="sigma", ge=1.5, le=100
    )
    detection_min_area_pix: int = param(1, "contiguous pixels above the threshold", unit="pix", ge=1)
    deblend_contrast: float = param(
        0.01, "a second peak rises above the saddle by this share of the saddle's height", gt=0, le=1
    )
    fwhm_guess_pix: float = param(3.5, "FWHM to start from, before it is measured", unit="pix", gt=1, le=30)
    min_snr: float = param(3.0, "sources whose fitted S/N is below this are dropped", ge=0)
    psf_min_stars: int = param(5, "fewer PSF stars than this stop the section", ge=1)
    psf_max_stars: int = param(120, "at most this many PSF stars are used, the brightest", ge=1)
    psf_max_degree: int = param(
        4, "highest polynomial degree of the PSF's variation; above 2 if the stars ask for it", ge=0, le=4
    )
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
    fit_passes: int = param(3, "times all sources are fitted, neighbours subtracted", ge=2, le=10)
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


def extract(image: ImageFrame, params: ExtractParams, trusted: Bool | None = None) -> Extraction:
    """Find and measure the sources of an image.

    Background, detection, PSF from the stars, PSF fits of all sources with their neighbours subtracted,
    apertures, shapes. In a crowd what the fits leave is searched for sources that were hidden, and sources
    that share one star are made one; elsewhere it is searched around bright sources that one star does not
    fit. Fluxes are in the PSF's total-flux system (the light within half a PSF
    stamp); errors come from the model's variance and what overlapping
    neighbours add, the PSF's floor in quadrature.

    Parameters
    ----------
    image
        Calibrated, electrons, sky included.
    params
        `ExtractParams`.
    trusted
        (H, W), True where sources may tell the seeing and be PSF stars; None: anywhere. They are looked for
        and measured on the whole image.

    Raises
    ------
    PixelsError
        If no pixel is usable.
    DeadSection
        If the section shows neither sky nor sources.
    NoStars
        If there are too few stars to make a PSF from.
    """
    field, peaks, segmentation = detect(image, params, trusted)
    stars = _choose_stars(field, peaks, params, trusted)
    rules, gain = _psf_rules(params), image.gain
    made = make_psf(field.data, field.weight, gain, peaks, segmentation, stars, rules)
    scene = _fit_all(field, made.psf, peaks.x, peaks.y, peaks.flux, 1, params)
    field, scene = _without_sky(field, scene, made.psf, params)
    crowded = is_crowded(segmentation, field.weight, made.psf.fwhm_pix)
    if crowded:
        peaks, field, scene, made = _search_again(peaks, field, scene, made, params)
    else:
        peaks, scene = _search_beside(peaks, field, scene, made.psf, params)
    made = refine_psf(scene, field.weight, gain, made, rules)
    fits = scene.fits
    passes = _crowd_passes(params) if crowded else params.fit_passes - 1
    scene = _fit_all(field, made.psf, fits.x, fits.y, fits.flux, passes, params)
    if crowded:
        peaks, scene, made = _resolved(field, peaks, scene, made, params)
    else:
        # With a PSF that knows of the first ones.
        peaks, scene = _search_beside(peaks, field, scene, made.psf, params)
    sources = source_table(
        field, peaks, scene, made.psf, made.stars,
        radii_fwhm=params.aperture_radii_fwhm, min_snr=params.min_snr,
    )  # fmt: skip
    return Extraction(sources, field.background, made.psf)


def _search_again(
    peaks: Peaks, field: Field, scene: SceneFit, made: MadePsf, params: ExtractParams
) -> tuple[Peaks, Field, SceneFit, MadePsf]:
    """Find what hides beside the known sources of a crowd, and take it out of sky and PSF."""
    for search in range(_SEARCHES):
        if search:
            made = refine_psf(scene, field.weight, field.image.gain, made, _psf_rules(params))
            fits = scene.fits
            scene = _fit_all(field, made.psf, fits.x, fits.y, fits.flux, 1, params)
        new = find_hidden(
            scene,
            field.weight,
            made.psf,
            sigma=params.detection_sigma,
            min_area_pix=params.detection_min_area_pix,
            deblend_contrast=params.deblend_contrast,
            gain=field.image.gain,
        )
        peaks, fits = joined(peaks, new), scene.fits
        x, y, flux = np.r_[fits.x, new.x], np.r_[fits.y, new.y], np.r_[fits.flux, new.flux]
        scene = _fit_all(field, made.psf, x, y, flux, _crowd_passes(params), params)
        peaks, scene, made = _resolved(field, peaks, scene, made, params)
        field, scene = _without_sky(field, scene, made.psf, params)
    return peaks, field, scene, made


def _search_beside(
    peaks: Peaks, field: Field, scene: SceneFit, psf: PsfModel, params: ExtractParams
) -> tuple[Peaks, SceneFit]:
    """Find the close neighbours of bright sources where there is no crowd."""
    new = find_beside(
        scene,
        field.weight,
        psf,
        sigma=params.detection_sigma,
        min_area_pix=params.detection_min_area_pix,
        deblend_contrast=params.deblend_contrast,
        gain=field.image.gain,
    )
    scene, kept = with_neighbours(
        scene, field.weight, psf, new,
        fit_radius_fwhm=params.fit_radius_fwhm, gain=field.image.gain, passes=_crowd_passes(params),
    )  # fmt: skip
    return joined(peaks, new.select(kept)), scene


def _crowd_passes(params: ExtractParams) -> int:
    return max(params.fit_passes, _CROWD_PASSES)


def _resolved(
    field: Field, peaks: Peaks, scene: SceneFit, made: MadePsf, params: ExtractParams
) -> tuple[Peaks, SceneFit, MadePsf]:
    """Leave out sources that share a star with another one, and fit the others again."""
    fits = scene.fits
    kept = resolved(fits.x, fits.y, fits.flux, made.psf.fwhm_pix)
    if len(kept) == len(peaks):
        return peaks, scene, made
    x, y, flux = fits.x[kept], fits.y[kept], fits.flux[kept]
    scene = _fit_all(field, made.psf, x, y, flux, _crowd_passes(params), params)
    stars = np.searchsorted(kept, made.stars[np.isin(made.stars, kept)])
    return peaks.select(kept), scene, replace(made, stars=stars)


def _without_sky(
    field: Field, scene: SceneFit, psf: PsfModel, params: ExtractParams
) -> tuple[Field, SceneFit]:
    """Return field and fit with the sky that is seen once the sources are gone."""
    field = _field(field.image, _background_without(scene, psf, field, params))
    return field, replace(scene, residual=field.data - scene.model)


def _background_without(scene: SceneFit, psf: PsfModel, field: Field, params: ExtractParams) -> Background:
    """Estimate the background again, the sources' models gone, and their wings beyond the stamps as well."""
    image, fits = field.image, scene.fits
    left = image.data - scene.model
    wings = fit_wings(left, field.weight, fits.x, fits.y, fits.flux, psf.size // 2)
    subtract_wings(left, wings)
    background = sky.estimate(
        left, image.weight, image.flags, step_pix=params.background_step_pix, mask_sigma=_FAINT_MASK_SIGMA
    )
    return replace(background, wings=wings)


def _field(image: ImageFrame, background: Background) -> Field:
    usable = sky.usable_pixels(image.data, image.weight, image.flags)
    data = sky.without_background(image.data, background)
    data[~np.isfinite(data)] = 0
    return Field(image, background, data, np.where(usable, image.weight, np.float32(0)))


def _check_alive(field: Field) -> None:
    """Stop on a section whose usable pixels all hold one value."""
    pixels = field.image.data[field.weight > 0]
    low, high = np.percentile(pixels[:: max(1, len(pixels) // 100_000)], [1, 99])
    if high <= low:
        raise DeadSection(
            f"every usable pixel is {low:.6g} electrons", cure="mark the section as dead for this date"
        )


def detect(
    image: ImageFrame, params: ExtractParams, trusted: Bool | None = None
) -> tuple[Field, Peaks, Labels]:
    """Take the background off an image and find its sources: the first part of `extract`.

    Bright pixels tell the seeing, the matched filter of that seeing finds all sources.
    """
    background = sky.estimate(image.data, image.weight, image.flags, step_pix=params.background_step_pix)
    field = _field(image, background)
    _check_alive(field)
    seen = field.weight if trusted is None else np.where(trusted, field.weight, np.float32(0))
    x, y, value = bright_peaks(field.data, seen, _SEEING_PEAKS)
    shapes = adaptive_moments(
        field.data, field.weight, x, y, params.fwhm_guess_pix, max_shift_pix=params.fwhm_guess_pix
    )
    fwhm_pix, _ = stellar_fwhm(shapes.fwhm_pix, value, _MIN_FWHM_PIX)
    if not np.isfinite(fwhm_pix):
        fwhm_pix = params.fwhm_guess_pix
    data, weight, plateau_e = _with_saturated(field)
    peaks, segmentation = find(
        data,
        weight,
        sigma=params.detection_sigma,
        fwhm_pix=fwhm_pix,
        min_area_pix=params.detection_min_area_pix,
        deblend_contrast=params.deblend_contrast,
        gain=field.image.gain,
        plateau_e=plateau_e,
    )
    if not len(peaks):
        _nothing_found(field)
    return field, peaks, segmentation


def _with_saturated(field: Field) -> tuple[Float32, Float32, float]:
    """Return data and weight for the search, and the level of saturated pixels in them.

    Saturated pixels take part, all at one level, so that a star is found as one source and not as a ring of
    them.
    """
    saturated = np.flatnonzero(field.image.flags & np.uint16(PixelFlag.SATURATED))
    if not saturated.size:
        return field.data, field.weight, np.inf
    data, weight = field.data.copy(), field.weight.copy()
    level = float(np.max(data, initial=0.0, where=weight > 0))
    full = data.ravel()[saturated]
    plateau_e = max(level, float(np.median(full)))
    data.ravel()[saturated] = plateau_e
    weight.ravel()[saturated] = 1 / float(np.median(field.background.rms)) ** 2
    return data, weight, float(np.float32(plateau_e))


def _nothing_found(field: Field) -> None:
    level, rms = float(np.median(field.background.level)), float(np.median(field.background.rms))
    if level < _NO_SKY * rms:
        raise DeadSection(
            f"no source, and a sky of {level:.3g} electrons within its noise of {rms:.3g}",
            cure="mark the section as dead for this date, or look at the shutter",
        )
    raise NoStars(
        "no source at all was found", cure="look at the image: clouds, or the threshold is too high"
    )


def _choose_stars(field: Field, peaks: Peaks, params: ExtractParams, trusted: Bool | None) -> StarChoice:
    sky_e, rms_e = (float(np.median(a)) for a in (field.background.level, field.background.rms))
    rules = StarRules(
        min_snr=params.psf_star_min_snr,
        peak_limit_e=params.saturation_margin * field.image.saturation_e,
        min_stars=params.psf_min_stars,
        max_stars=params.psf_max_stars,
    )
    image = field.image
    if trusted is not None:  # no star has such pixels near
        image = replace(image, flags=np.where(trusted, image.flags, np.uint16(PixelFlag.OUT_OF_BOUNDS)))
    return choose_stars(field.data, field.weight, image, peaks, sky_e, rms_e, rules)


def _psf_rules(params: ExtractParams) -> PsfRules:
    return PsfRules(
        params.psf_stamp_fwhm, params.fit_radius_fwhm, params.psf_max_degree, params.psf_min_stars
    )


def _fit_all(
    field: Field, psf: PsfModel, x: Float, y: Float, flux: Float, passes: int, params: ExtractParams
) -> SceneFit:
    return fit_sources(
        field.data, field.weight, psf, x, y, flux,
        gain=field.image.gain, passes=passes, fit_radius_fwhm=params.fit_radius_fwhm,
    )  # fmt: skip
