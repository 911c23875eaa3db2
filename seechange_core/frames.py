"""What goes between stages: frozen dataclasses of arrays.

They hold pixels, tables and solutions, and know nothing of files, rows or settings.

Conventions, everywhere: arrays are ``[y, x]``; pixel centres are 0-based integers; images are in
electrons; ``weight`` is 1 / background variance (sky, dark, read noise) and 0 where unusable;
sky positions are ICRS degrees; ``mag = zp - 2.5 log10(flux)``.
A stage returns new frames and never edits the arrays it was given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Flags = npt.NDArray[np.uint16]
Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
Cards = Mapping[str, Any]
"""Upper-case FITS keywords with their values."""


class Box(NamedTuple):
    """A half-open rectangle of pixels, 0-based."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index an array with it."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0


@dataclass(frozen=True)
class Amplifier:
    """One readout of a section: where its pixels are and how it responds.

    Attributes
    ----------
    name
        E.g. ``A``.
    raw, overscan
        Boxes in the raw array; `overscan` is None where the camera writes none.
    image
        Where its pixels go in the trimmed image; same shape as `raw`.
    gain
        e-/ADU.
    read_noise_e
        e- per pixel.
    saturation_adu
        Raw level (ADU, overscan included) from which a pixel counts as saturated.
    """

    name: str
    raw: Box
    overscan: Box | None
    image: Box
    gain: float
    read_noise_e: float
    saturation_adu: float


@dataclass(frozen=True, eq=False)
class RawFrame:
    """A section as the camera wrote it.

    Attributes
    ----------
    data
        (H, W) of any real dtype, ADU, overscan included.
    amplifiers
        At least one; their `image` boxes tile the trimmed image.
    exposure_time_s
        Open-shutter time (dark time for a dark).
    header
        Raw cards of this section.
    """

    data: npt.NDArray[Any]
    amplifiers: tuple[Amplifier, ...]
    exposure_time_s: float
    header: Cards = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width after trimming."""
        return max(a.image.y1 for a in self.amplifiers), max(a.image.x1 for a in self.amplifiers)


@dataclass(frozen=True, eq=False)
class MasterFrame:
    """A master calibration frame of one section, trimmed.

    Attributes
    ----------
    kind
        ``bias`` (electrons), ``dark`` (electrons per second), ``flat`` (relative response, median 1),
        ``bad_pixels`` (data unused, see flags).
    data
        (H, W) float32.
    variance
        (H, W) float32, squared units of `data`.
    flags
        (H, W) uint16 `PixelFlag` bits.
    n_frames
        How many frames went in.
    exposure_time_s
        Mean of the frames that went in; NaN if unknown.
    holds_pedestal
        True for a dark made without bias and overscan: it fits exposures of its own length only.
    """

    kind: str
    data: Float32
    variance: Float32
    flags: Flags
    n_frames: int
    exposure_time_s: float = np.nan
    holds_pedestal: bool = False


@dataclass(frozen=True)
class Masters:
    """The master frames chosen for one section; None means there is none."""

    bias: MasterFrame | None = None
    dark: MasterFrame | None = None
    flat: MasterFrame | None = None
    bad_pixels: MasterFrame | None = None


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

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.data.shape[0], self.data.shape[1]

    def with_data(self, data: Float32) -> Self:
        """Return the same image with other pixel values."""
        return replace(self, data=data)


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
    """

    level: Float32
    rms: Float32
    step_pix: int
    shape: tuple[int, int]


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
    """

    coefficients: Float32
    degree: int
    centre: tuple[float, float]
    scale: tuple[float, float]
    fwhm_pix: float
    n_stars: int = 0
    floor: float = 0.0

    @property
    def size(self) -> int:
        """Side of a stamp, pixels."""
        return int(self.coefficients.shape[1])


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length; subclasses declare them as array fields."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def select(self, rows: npt.NDArray[Any]) -> Self:
        """Return the given rows (mask or indices) as a new table."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, eq=False)
class Sources(Table):
    """Light sources found in an image; every column has one entry per source.

    Attributes
    ----------
    x, y, x_err, y_err
        Position and its 1-sigma error, pixels.
    flux_psf, flux_psf_err
        PSF-fit flux, electrons: the total-flux system.
    chi2
        Reduced chi square of the PSF fit.
    flux_aper, flux_aper_err
        (n, n_apertures), electrons, for the radii the stage's parameters give.
    peak
        Highest pixel above the sky, electrons.
    fwhm_pix, elongation, theta_rad
        Shape: from second moments; angle from +x towards +y.
    flags
        `PixelFlag` bits found within the source.
    blended
        Deblended from, or overlapping with, a neighbour.
    is_star
        Consistent with the PSF.
    """

    x: Float
    y: Float
    x_err: Float
    y_err: Float
    flux_psf: Float
    flux_psf_err: Float
    chi2: Float
    flux_aper: Float
    flux_aper_err: Float
    peak: Float
    fwhm_pix: Float
    elongation: Float
    theta_rad: Float
    flags: Int
    blended: Bool
    is_star: Bool

    @property
    def snr(self) -> Float:
        """Signal to noise of the PSF flux."""
        return self.flux_psf / self.flux_psf_err


@dataclass(frozen=True, eq=False)
class CatalogStars(Table):
    """Reference stars around a field, moved to one epoch.

    Attributes
    ----------
    ra, dec
        ICRS deg at the epoch asked for.
    position_err_mas
        1 sigma per axis at that epoch.
    mag, mag_err
        In the band asked for; NaN where unknown.
    color
        Colour asked for (mag); NaN where unknown.
    is_star
        False for known galaxies and other contaminants.
    """

    ra: Float
    dec: Float
    position_err_mas: Float
    mag: Float
    mag_err: Float
    color: Float
    is_star: Bool


@dataclass(frozen=True)
class PointingHint:
    """What is known of a section's place on the sky before it is solved.

    Attributes
    ----------
    ra, dec
        ICRS deg of the section's centre.
    radius_arcmin
        How far off that may be.
    pixel_scale_arcsec, scale_tolerance
        Nominal scale and its relative uncertainty.
    rotation_deg, parity
        Position angle of +y (north through east) and +1 (east to the left) or -1 (mirrored); None if unknown.
    rotation_tolerance_deg
        Uncertainty of `rotation_deg`.
    """

    ra: float
    dec: float
    radius_arcmin: float
    pixel_scale_arcsec: float
    scale_tolerance: float = 0.03
    rotation_deg: float | None = None
    rotation_tolerance_deg: float = 5.0
    parity: int | None = None


@dataclass(frozen=True, eq=False)
class WcsSolution:
    """An astrometric solution, TAN or TAN-SIP.

    Attributes
    ----------
    cards
        FITS WCS cards, 1-based as FITS wants them.
    shape
        (H, W) of the image it belongs to.
    rms_mas
        Root mean square residual per axis of the stars used, milliarcseconds.
    n_matched, n_catalog
        Stars used and catalog stars in the field.
    error_mas
        Estimated error of the solution itself at the image's centre, per axis.
    """

    cards: Cards
    shape: tuple[int, int]
    rms_mas: float = 0.0
    n_matched: int = 0
    n_catalog: int = 0
    error_mas: float = 0.0

    @cached_property
    def wcs(self) -> WCS:
        """The astropy WCS (SIP included)."""
        header = fits.Header()
        for key, value in self.cards.items():
            header[key] = value
        return WCS(header)

    def to_sky(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Float, Float]:
        """Convert 0-based pixels to ICRS degrees."""
        ra, dec = self.wcs.all_pix2world(x, y, 0)
        return np.asarray(ra, float), np.asarray(dec, float)

    def to_pixels(self, ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[Float, Float]:
        """Convert ICRS degrees to 0-based pixels; NaN where the sky position is not in front."""
        x, y = self.wcs.all_world2pix(ra, dec, 0, quiet=True)
        return np.asarray(x, float), np.asarray(y, float)

    @property
    def pixel_scale_arcsec(self) -> float:
        """Mean scale at the reference pixel."""
        return float(np.sqrt(abs(np.linalg.det(self.wcs.pixel_scale_matrix))) * 3600)


@dataclass(frozen=True, eq=False)
class ZeroPointSolution:
    """A photometric solution: ``mag = zp - 2.5 log10(flux_psf)``.

    Attributes
    ----------
    zp, zp_err
        Magnitude of one electron (whole exposure), and its error.
    band
        The band of the magnitudes.
    color_term, color_term_err
        Per magnitude of catalog colour; 0 and 0 when not fitted.
    n_stars
        Stars used.
    scatter_mag
        Robust scatter of the bright stars used.
    aperture_corrections
        (n_apertures,) magnitudes to add to aperture magnitudes to reach the total-flux system.
    limiting_mag
        Point source at 5 sigma.
    """

    zp: float
    zp_err: float
    band: str
    color_term: float = 0.0
    color_term_err: float = 0.0
    n_stars: int = 0
    scatter_mag: float = 0.0
    aperture_corrections: tuple[float, ...] = ()
    limiting_mag: float = np.nan


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


@dataclass(frozen=True, eq=False)
class SubtractionFrame:
    """A difference image on the pixels and the flux scale of the new image.

    Attributes
    ----------
    image
        Difference, electrons of the new image; `weight` is 1 / its full variance (sources included).
    score
        (H, W) float32, matched-filtered, in sigma; NaN-free, 0 where unusable.
    psf
        PSF of the difference: a source of flux F appears as F times it.
    reference
        The aligned reference (H, W) float32, on the new image's flux scale, background removed.
    reference_coverage
        Fraction of the section's usable pixels that have a reference.
    """

    image: ImageFrame
    score: Float32
    psf: PsfModel
    reference: Float32
    reference_coverage: float


@dataclass(frozen=True, eq=False)
class Detections(Table):
    """What changed: peaks and troughs of the score image.

    Attributes
    ----------
    x, y, x_err, y_err
        Pixels.
    score
        Signed peak score, sigma.
    flux_psf, flux_psf_err
        Fitted on the difference, electrons of the new image; negative where it faded.
    flags
        `PixelFlag` bits within half a FWHM of the peak.
    """

    x: Float
    y: Float
    x_err: Float
    y_err: Float
    score: Float
    flux_psf: Float
    flux_psf_err: Float
    flags: Int


@dataclass(frozen=True, eq=False)
class Stamps:
    """Small images around detections, NaN outside the section.

    Attributes
    ----------
    new, ref, sub
        (n, size, size) float32, electrons of the new image, backgrounds removed.
    new_flags, sub_weight
        (n, size, size) uint16 and float32.
    x0, y0
        (n,) int: image pixel of each stamp's [0, 0].
    """

    new: Float32
    ref: Float32
    sub: Float32
    new_flags: Flags
    sub_weight: Float32
    x0: Int
    y0: Int


@dataclass(frozen=True, eq=False)
class Measurements(Table):
    """What was measured on the stamps, one row per detection.

    Attributes
    ----------
    x, y, x_err, y_err
        Fitted position, pixels.
    flux_psf, flux_psf_err, chi2
        PSF fit at that position on the difference, electrons.
    flux_aper, flux_aper_err
        In the best aperture, scaled to the total by the PSF's share of it, electrons.
    fwhm_pix, elongation, theta_rad
        Of a Gaussian fitted to the difference.
    offset_pix
        From the detection's peak to the fit.
    n_bad
        Flagged pixels within the core box.
    negative_fraction, negative_flux_fraction
        Of the 3 x 3 pixel sums beyond 2.5 sigma in the core box: how many, and how much flux, of the
        opposite sign.
    is_bad
        Fails one of the cuts of the parameters.
    bad_reasons
        Bits of the cuts that failed.
    """

    x: Float
    y: Float
    x_err: Float
    y_err: Float
    flux_psf: Float
    flux_psf_err: Float
    chi2: Float
    flux_aper: Float
    flux_aper_err: Float
    fwhm_pix: Float
    elongation: Float
    theta_rad: Float
    offset_pix: Float
    n_bad: Int
    negative_fraction: Float
    negative_flux_fraction: Float
    is_bad: Bool
    bad_reasons: Int


@dataclass(frozen=True, eq=False)
class ForcedFluxes(Table):
    """Fluxes at given positions, wherever they are and however faint.

    Attributes
    ----------
    x, y
        Where the flux was forced, pixels.
    flux, flux_err
        Electrons; NaN where no usable pixel.
    chi2
        Reduced, of the fit.
    flags
        `PixelFlag` bits within half a FWHM.
    usable_fraction
        Of the PSF's light on usable pixels, 0 to 1.
    """

    x: Float
    y: Float
    flux: Float
    flux_err: Float
    chi2: Float
    flags: Int
    usable_fraction: Float
