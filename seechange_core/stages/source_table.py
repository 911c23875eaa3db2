"""From fitted sources to the table of sources: fluxes, positions, shapes, and what each error is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.flags import PixelFlag
from seechange_core.frames import Background, Bool, Float, Float32, ImageFrame, Int, PsfModel, Sources
from seechange_core.numerics.aperture import Moments
from seechange_core.numerics.detection import Peaks
from seechange_core.numerics.flag_sums import flags_within
from seechange_core.numerics.overlaps import error_growth
from seechange_core.numerics.psf import aliasing_error_pix
from seechange_core.numerics.psf_making import max_shift_pix
from seechange_core.numerics.scene import SceneFit, apertures, without_position_bias
from seechange_core.numerics.scene_shapes import psf_moments, shapes
from seechange_core.numerics.star_locus import point_like

#: A source this faint whose highest pixel has more than this share of its flux is left of a cosmic ray: a
#: star of 1.5 pixels FWHM has 0.3 of its light there, one of 4 pixels 0.05.
_OUTSHONE_SNR, _SHARP = 20.0, 0.4
#: Where less than this share of the PSFs has moments, as sharp weights fall between pixels, all are blurred.
_HAVE_SHAPES, _BLUR_PIX = 0.9, 0.8
#: A source is blended when its neighbours give its middle pixel more than this share of its own light.
_BLENDED = 0.05


@dataclass(frozen=True, eq=False)
class Field:
    """The image as its sources are looked for: background removed, unusable pixels without weight.

    Attributes
    ----------
    image, background
        As given, and what was estimated of it.
    data, weight
        (H, W) electrons without the background, electrons^-2; 0 and finite where nothing can be used.
    """

    image: ImageFrame
    background: Background
    data: Float32
    weight: Float32

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape


def source_table(
    field: Field,
    peaks: Peaks,
    scene: SceneFit,
    psf: PsfModel,
    stars: Int,
    *,
    radii_fwhm: Sequence[float],
    min_snr: float,
) -> Sources:
    """Return the table of sources, with all of their errors.

    Parameters
    ----------
    field
        The image.
    peaks, scene
        Its sources as found, and as fitted together.
    psf
        They were fitted with.
    stars
        Which of the sources it was made from.
    radii_fwhm
        Of the apertures.
    min_snr
        What the fit gives less significance than this is left out; so is what lies outside the image or is
        left of a cosmic ray.

    Returns
    -------
    Sources
        Fluxes in the PSF's total-flux system. Errors of the fits are raised by what overlapping neighbours
        take (`overlaps.error_growth`), the floors of PSF and positions added in quadrature.
    """
    fits = scene.fits
    radii = psf.fwhm_pix * np.asarray(radii_fwhm)
    flux_aper, flux_aper_err = apertures(scene, field.weight, psf, radii, field.image.gain)
    model_shapes, centre = psf_moments(psf, fits.x, fits.y)
    blur_pix = _BLUR_PIX if np.mean(np.isfinite(model_shapes.fwhm_pix)) < _HAVE_SHAPES else 0.0
    if blur_pix:
        model_shapes, _ = psf_moments(psf, fits.x, fits.y, blur_pix)
    found = _shapes(scene, field.weight, peaks, psf, blur_pix)
    flux = without_position_bias(fits.flux, fits.flux_err)
    # The stars' own positions define the model's: it is no better than all of them together.
    statistical = np.sqrt(len(psf.coefficients) / np.sum(fits.x_err[stars] ** -2.0))
    position_floor = np.hypot(statistical, aliasing_error_pix(psf.coefficients[0]))
    others = _others_light(scene, centre)
    growth = error_growth(psf, fits.x, fits.y, fits.x_err, fits.y_err, max_shift_pix(psf))
    with np.errstate(invalid="ignore"):
        snr = flux / fits.flux_err
        kept = np.isfinite(snr) & (snr >= min_snr) & _inside(fits.x, fits.y, field.shape)
    kept &= ~_beside_cosmic_rays(field, peaks, psf.fwhm_pix)
    sources = Sources(
        x=fits.x,
        y=fits.y,
        x_err=np.hypot(growth[:, 1] * fits.x_err, position_floor),
        y_err=np.hypot(growth[:, 2] * fits.y_err, position_floor),
        flux_psf=flux,
        flux_psf_err=np.hypot(growth[:, 0] * fits.flux_err, psf.floor * flux),
        chi2=fits.chi2,
        flux_aper=flux_aper,
        flux_aper_err=flux_aper_err,
        peak=peaks.peak,
        fwhm_pix=np.sqrt(np.maximum(found.fwhm_pix**2 - (FWHM_PER_SIGMA * blur_pix) ** 2, 0.01)),
        elongation=found.elongation,
        theta_rad=found.theta_rad,
        flags=flags_within(field.image.flags, fits.x, fits.y, psf.fwhm_pix),
        # Not whatever shares an island of light: every bright star does, with something faint.
        blended=others > _BLENDED * np.nan_to_num(fits.flux) * centre,
        is_star=point_like(found.fwhm_pix, model_shapes.fwhm_pix, snr),
    )
    return sources.select(np.flatnonzero(kept))


def _beside_cosmic_rays(field: Field, peaks: Peaks, fwhm_pix: float) -> Bool:
    """Return which faint sources are what is left around a flagged cosmic ray that outshines them."""
    hit = flags_within(field.image.flags, peaks.x, peaks.y, max(1.5, 0.5 * fwhm_pix)) & PixelFlag.COSMIC_RAY
    area = 2 * np.pi * (fwhm_pix / FWHM_PER_SIGMA) ** 2
    rms = float(np.median(field.background.rms))
    # The matched filter's S/N times the noise in its equivalent area is the flux.
    limit = _SHARP * peaks.snr * rms * np.sqrt(2 * area) + rms
    found: Bool = (hit > 0) & (peaks.snr < _OUTSHONE_SNR) & (peaks.peak > limit)
    return found


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


def _shapes(scene: SceneFit, weight: Float32, peaks: Peaks, psf: PsfModel, blur_pix: float) -> Moments:
    """Return adaptive moments of the blurred image, and isophotal ones where those do not converge."""
    found = shapes(scene, weight, psf, blur_pix)
    known = np.isfinite(found.fwhm_pix) & np.isfinite(found.elongation)
    return Moments(
        fwhm_pix=np.where(known, found.fwhm_pix, np.hypot(peaks.fwhm_pix, FWHM_PER_SIGMA * blur_pix)),
        elongation=np.where(known, found.elongation, peaks.elongation),
        theta_rad=np.where(known, found.theta_rad, peaks.theta_rad),
        x=found.x,
        y=found.y,
    )
