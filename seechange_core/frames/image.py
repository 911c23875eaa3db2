"""Calibrated images and what belongs to them: background, PSF, differences, stamps."""

from dataclasses import dataclass, field

import numpy as np

from seechange_core.frames.solutions import WcsSolution, ZeroPointSolution
from seechange_core.frames.types import Cards, Flags, Float32, Int


@dataclass(frozen=True, eq=False)
class ImageFrame:
    """A calibrated image of one section, or a coadd.

    Attributes
    ----------
    data
        (H, W) float32, electrons; sky included unless the stage says otherwise.
    weight
        (H, W) float32, 1 / background variance in e-^-2; 0 where unusable.
    flags
        (H, W) uint16 `PixelFlag` bits.
    exposure_time_s
        For a coadd, of one input: the time its flux scale refers to.
    gain
        Electrons of real signal per unit of `data`: 1 for a single image; for a coadd, how many
        times more photons than `data` says were collected (source variance = data / gain).
    saturation_e
        Level from which pixels are saturated, electrons.
    calibration_steps
        `CalibrationStep` bits of what was really done.
    header
        Raw cards that go with it.
    resamplings
        How often its pixels were interpolated: 0 for a single image, 1 for a coadd. Interpolation
        correlates the noise of neighbours; `weight` then stands for white noise of the same power.
    fringe_scale, fringe_scale_error
        How strong the fringe pattern was found to be, in units of the pattern times the sky, and the
        standard error; NaN if it was not looked for. `calibration_steps` tells if it was subtracted.
    """

    data: Float32
    weight: Float32
    flags: Flags
    exposure_time_s: float
    gain: float = 1.0
    saturation_e: float = np.inf
    calibration_steps: int = 0
    header: Cards = field(default_factory=dict)
    resamplings: int = 0
    fringe_scale: float = np.nan
    fringe_scale_error: float = np.nan

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.data.shape[0], self.data.shape[1]


@dataclass(frozen=True, eq=False)
class Background:
    """Sky level and noise on a coarse mesh; full-size maps are made when asked for.

    Attributes
    ----------
    level, rms
        (ny, nx) float32, electrons, at the centres of mesh cells of `step_pix` pixels.
    step_pix
        Side of a mesh cell; the last row and column may hang over the edge.
    shape
        Of the image.
    wings
        (wy, wx) float32, electrons per pixel, on blocks as in `numerics.wings`: light of bright sources
        beyond their PSF stamps, which is no part of `level`; None if it was not looked for.
    """

    level: Float32
    rms: Float32
    step_pix: int
    shape: tuple[int, int]
    wings: Float32 | None = None


@dataclass(frozen=True, eq=False)
class PsfModel:
    """A pixel PSF that varies over the image as a polynomial.

    The PSF at (x, y) is ``sum_k coefficients[k] * term_k(u, v)``, with ``u = (x - x0) / x_scale`` and
    ``v = (y - y0) / y_scale`` and the terms in the order 1, u, v, u^2, u v, v^2, ... of total
    degree up to `degree`. Each stamp is sampled at the image's pixels, centred on the middle
    pixel, and sums to 1 (sum of the constant term 1, of every other term 0).

    Attributes
    ----------
    coefficients
        (n_terms, size, size) float32, size odd.
    degree
        Of the polynomial.
    centre, scale
        (x0, y0) and (x_scale, y_scale), pixels.
    fwhm_pix
        At the centre.
    n_stars
        How many stars it was made from.
    floor
        Relative systematic error of fluxes fitted with it; enters error bars in quadrature.
    brighter_fatter, brighter_fatter_err
        Relative growth of the FWHM from faint stars to ones that peak at 100,000 electrons, as measured, and
        its error; NaN where the stars cannot tell. The model does not follow it.
    """

    coefficients: Float32
    degree: int
    centre: tuple[float, float]
    scale: tuple[float, float]
    fwhm_pix: float
    n_stars: int = 0
    floor: float = 0.0
    brighter_fatter: float = np.nan
    brighter_fatter_err: float = np.nan

    @property
    def size(self) -> int:
        """Side of a stamp, pixels."""
        return int(self.coefficients.shape[1])


@dataclass(frozen=True, eq=False)
class CalibratedImage:
    """An image with everything known about it: what a reference or a subtraction is made from.

    Attributes
    ----------
    image
        Sky included.
    background, psf, wcs, zero_point
        Its products.
    label
        What to call it in messages.
    """

    image: ImageFrame
    background: Background
    psf: PsfModel
    wcs: WcsSolution
    zero_point: ZeroPointSolution
    label: str = ""


@dataclass(frozen=True)
class CommonStars:
    """How the aligned reference sits on the new image, by the stars of both.

    Attributes
    ----------
    n_stars
        Stars used; 0 if too few were found: the solutions were taken at their word, which is what the error
        is, and all else is NaN.
    shift_x_pix, shift_y_pix
        New minus reference positions at the image's centre, as the astrometric solutions would have them;
        corrected.
    sigma_x_pix, sigma_y_pix
        Error left at a random place after that.
    flux_ratio, flux_ratio_err
        New flux over reference flux, as the zero points would have it; corrected.
    flux_scatter
        Relative scatter of single stars beyond their noise.
    """

    n_stars: int = 0
    shift_x_pix: float = np.nan
    shift_y_pix: float = np.nan
    sigma_x_pix: float = np.nan
    sigma_y_pix: float = np.nan
    flux_ratio: float = np.nan
    flux_ratio_err: float = np.nan
    flux_scatter: float = np.nan


@dataclass(frozen=True, eq=False)
class SubtractionFrame:
    """A difference image on the pixels and the flux scale of the new image.

    Attributes
    ----------
    image
        Difference, electrons of the new image; `weight` is 1 / its full variance (sources included).
    score
        (H, W) float32, matched-filtered, in sigma; NaN-free, 0 where unusable, except on lost pixels around
        which most of a source is seen.
    psf
        PSF of the difference: a source of flux F appears as F times it.
    reference
        The aligned reference (H, W) float32, on the new image's flux scale, background removed.
    reference_coverage
        Fraction of the section's usable pixels that have a reference.
    reference_weight, reference_flags
        (H, W) float32 and uint16: of the aligned reference, on the new image's flux scale; None if they
        were not kept.
    translient
        (2, H, W) float32: the dipole at every pixel along x and y, in sigma (see `numerics.translient`), 0
        where unusable; None if it was not asked for.
    common_stars
        What the registration found; None if it was not asked for, or not kept.
    zp_change_mag
        What to add to the new image's zero point so that it is that of the references, by the flux ratio with
        which they were subtracted: see `ZeroPointSolution.moved`. Empty if it was not measured.
    zp_err
        Error of that zero point, mag; NaN if it was not measured.
    """

    image: ImageFrame
    score: Float32
    psf: PsfModel
    reference: Float32
    reference_coverage: float
    reference_weight: Float32 | None = None
    reference_flags: Flags | None = None
    translient: Float32 | None = None
    common_stars: CommonStars | None = None
    zp_change_mag: tuple[float, ...] = ()
    zp_err: float = np.nan


@dataclass(frozen=True, eq=False)
class Stamps:
    """Small images around detections, NaN outside the section.

    Attributes
    ----------
    new, ref, sub
        (n, size, size) float32, electrons of the new image, backgrounds removed.
    new_weight, ref_weight, sub_weight
        (n, size, size) float32, e-^-2: 1 / background variance, of the difference 1 / full variance.
    new_flags, ref_flags, sub_flags
        (n, size, size) uint16 `PixelFlag` bits.
    x0, y0
        (n,) int: image pixel of each stamp's [0, 0].
    """

    new: Float32
    ref: Float32
    sub: Float32
    new_weight: Float32
    ref_weight: Float32
    sub_weight: Float32
    new_flags: Flags
    ref_flags: Flags
    sub_flags: Flags
    x0: Int
    y0: Int
