"""Measure what was detected on its cutouts, and say which ones look wrong and why."""

from enum import IntFlag

import numpy as np
from scipy.ndimage import uniform_filter

from seechange_core.flags import UNUSABLE
from seechange_core.frames import Bool, Detections, Float, Int, Measurements, PsfModel, Stamps
from seechange_core.numerics.gaussian_fit import GaussianShapes, fit_gaussians
from seechange_core.numerics.psf import evaluate, shift
from seechange_core.params import Params, param

CODE_VERSION = "2"

_STEPS = 6
_MAX_SHIFT_PIX = 3.0
_NEGATIVE_SIGMA = 2.5


class BadReason(IntFlag):
    """Bits of `Measurements.bad_reasons`: the cuts a detection fails."""

    OFFSET = 1 << 0
    ELONGATED = 1 << 1
    TOO_WIDE = 1 << 2
    TOO_NARROW = 1 << 3
    BAD_PIXELS = 1 << 4
    NEGATIVE = 1 << 5
    NO_FIT = 1 << 6
    SMALL_CHANGE = 1 << 7


class MeasureParams(Params):
    """Parameters of the measurement and its cuts."""

    aperture_fwhm: float = param(1.0, "Radius of the best aperture", unit="FWHM", gt=0)
    fit_radius_fwhm: float = param(1.5, "Pixels within this radius enter the PSF fit", unit="FWHM", gt=0)
    shape_radius_fwhm: float = param(
        1.5, "Pixels within this radius enter the Gaussian fit", unit="FWHM", gt=0
    )
    core_fwhm: float = param(1.5, "Half-size of the box in which negative pixels count", unit="FWHM", gt=0)
    bad_core_fwhm: float = param(0.5, "Half-size of the box in which flagged pixels count", unit="FWHM", gt=0)
    max_offset_pix: float = param(5.0, "Bad from this distance of peak and fit on", unit="pixel", gt=0)
    max_elongation: float = param(3.0, "Bad from this elongation on", gt=1)
    max_width_ratio: float = param(2.0, "Bad from this ratio of its FWHM to the PSF's on", gt=1)
    min_width_ratio: float = param(0.5, "Bad below this ratio of its FWHM to the PSF's", ge=0, lt=1)
    max_bad_pixels: int = param(1, "Bad from so many flagged pixels in the core box on", ge=1)
    max_negative_fraction: float = param(0.3, "Bad from this fraction of negative pixels on", gt=0, le=1)
    min_change: float = param(
        0.08,
        "Bad below this fraction of the light that was there: the PSF errors of a reference whose inputs "
        "differ leave as much of a star; 0 keeps all, and the small variables among them",
        ge=0,
        lt=1,
    )


def measure(
    stamps: Stamps, detections: Detections, psf: PsfModel, params: MeasureParams, gain: float = 1.0
) -> Measurements:
    """Measure positions, fluxes and shapes on the difference stamps.

    The PSF fit weights pixels by their full variance, the source's own photons included; the Gaussian
    and the negative fractions look at the source turned positive.

    Parameters
    ----------
    stamps
        One set per detection.
    detections
        In the same order.
    psf
        Of the difference.
    params
        Parameters.
    gain
        Photons per electron of the difference (`ImageFrame.gain` of the new image).

    Returns
    -------
    Measurements
        One row per detection, NaN where something could not be measured.
    """
    fwhm = psf.fwhm_pix
    reach = (
        max(params.fit_radius_fwhm, params.shape_radius_fwhm, params.core_fwhm, params.aperture_fwhm) * fwhm
    )
    stamps = _middle(stamps, int(np.ceil(reach + _MAX_SHIFT_PIX)) + 1)
    x, y = detections.x - stamps.x0, detections.y - stamps.y0
    sign = np.where(detections.score < 0, -1.0, 1.0)
    weight = np.where(np.isfinite(stamps.sub), stamps.sub_weight, 0).astype(float)
    data = np.where(weight > 0, stamps.sub, 0).astype(float) * sign[:, None, None]
    profiles = evaluate(psf, detections.x, detections.y).astype(float)
    fits = _PsfFit(data, weight, profiles, x, y, params.fit_radius_fwhm * fwhm, gain)
    shapes = fit_gaussians(data, weight, x, y, fwhm, params.shape_radius_fwhm * fwhm)
    aperture, aperture_err = fits.aperture(params.aperture_fwhm * fwhm, gain)
    negative, negative_flux = _negatives(data, weight, _box(x, y, data.shape[-1], params.core_fwhm * fwhm))
    core = _box(x, y, data.shape[-1], params.bad_core_fwhm * fwhm)
    flagged = (stamps.new_flags & np.uint16(UNUSABLE) > 0) | (stamps.sub_weight <= 0)
    n_bad = np.count_nonzero(core & flagged, axis=(1, 2)).astype(np.int64)
    offset = np.hypot(shapes.x - x, shapes.y - y)
    static = fits.light(np.nan_to_num(stamps.ref.astype(float)), params.aperture_fwhm * fwhm)
    reasons = _reasons(params, shapes, offset, fwhm, n_bad, negative)
    reasons[np.abs(fits.flux) < params.min_change * static] |= int(BadReason.SMALL_CHANGE)
    return Measurements(
        x=fits.x + stamps.x0,
        y=fits.y + stamps.y0,
        x_err=fits.x_err,
        y_err=fits.y_err,
        flux_psf=fits.flux * sign,
        flux_psf_err=np.hypot(fits.flux_err, psf.floor * np.abs(fits.flux)),
        chi2=fits.chi2,
        flux_aper=aperture * sign,
        flux_aper_err=aperture_err,
        fwhm_pix=shapes.fwhm_pix,
        elongation=shapes.elongation,
        theta_rad=shapes.theta_rad,
        offset_pix=offset,
        n_bad=n_bad,
        negative_fraction=negative,
        negative_flux_fraction=negative_flux,
        is_bad=reasons > 0,
        bad_reasons=reasons,
    )


def _middle(stamps: Stamps, half: int) -> Stamps:
    """Return only the middle of the stamps: what the measurements look at."""
    edge = max(0, stamps.sub.shape[-1] // 2 - half)
    inner = slice(edge, stamps.sub.shape[-1] - edge)
    return Stamps(
        new=stamps.new[:, inner, inner],
        ref=stamps.ref[:, inner, inner],
        sub=stamps.sub[:, inner, inner],
        new_flags=stamps.new_flags[:, inner, inner],
        sub_weight=stamps.sub_weight[:, inner, inner],
        x0=stamps.x0 + edge,
        y0=stamps.y0 + edge,
    )


def _box(x: Float, y: Float, size: int, half: float) -> Bool:
    """Return the (n, size, size) pixels of boxes around positions, one pixel at least."""
    index = np.arange(size)
    reach = max(half, 0.5)
    rows = np.abs(index - np.rint(y)[:, None]) <= reach
    columns = np.abs(index - np.rint(x)[:, None]) <= reach
    return np.asarray(rows[:, :, None] & columns[:, None, :], bool)


def _negatives(data: Float, weight: Float, box: Bool) -> tuple[Float, Float]:
    """Return the fractions of pixels, and of flux, that are negative among those that stand out.

    Judged on sums over 3 x 3 pixels, in which a faint point source stands out as single pixels don't.
    """
    flux = uniform_filter(data, (0, 3, 3), mode="constant")
    variance = uniform_filter(np.where(weight > 0, 1 / np.where(weight > 0, weight, 1.0), 0.0), (0, 3, 3)) / 9
    strong = box & (weight > 0) & (flux**2 > _NEGATIVE_SIGMA**2 * variance)
    below = strong & (flux < 0)
    count = np.count_nonzero(strong, axis=(1, 2))
    total = np.sum(np.abs(flux), axis=(1, 2), where=strong)
    fraction = np.count_nonzero(below, axis=(1, 2)) / np.maximum(count, 1)
    flux_fraction = np.sum(np.abs(flux), axis=(1, 2), where=below) / np.where(total > 0, total, 1.0)
    return np.asarray(fraction, float), np.asarray(flux_fraction, float)


def _reasons(
    params: MeasureParams, shapes: GaussianShapes, offset: Float, fwhm: float, n_bad: Int, negative: Float
) -> Int:
    """Collect the bits of the cuts that fail; a shape that is NaN fails NO_FIT only."""
    ratio = shapes.fwhm_pix / fwhm
    cuts = {
        BadReason.OFFSET: offset >= params.max_offset_pix,
        BadReason.ELONGATED: shapes.elongation >= params.max_elongation,
        BadReason.TOO_WIDE: ratio >= params.max_width_ratio,
        BadReason.TOO_NARROW: ratio < params.min_width_ratio,
        BadReason.BAD_PIXELS: n_bad >= params.max_bad_pixels,
        BadReason.NEGATIVE: negative >= params.max_negative_fraction,
        BadReason.NO_FIT: ~shapes.good,
    }
    reasons = np.zeros(len(offset), np.int64)
    for bit, fails in cuts.items():
        reasons[fails] |= int(bit)
    return reasons


class _PsfFit:
    """Flux and position of the PSF on every stamp, by Gauss-Newton."""

    def __init__(
        self, data: Float, weight: Float, psf: Float, x: Float, y: Float, radius: float, gain: float
    ) -> None:
        self.data, self.weight, self.radius, self.gain = data, weight, radius, gain
        n, size = len(data), data.shape[-1]
        index = np.arange(size, dtype=float)
        self.distance = np.hypot(index[:, None] - y[:, None, None], index - x[:, None, None])
        self.used = (self.distance <= radius) & (weight > 0)
        self.stamps = _padded(np.asarray(psf), size)
        self.x, self.y = x.copy(), y.copy()
        self.flux, self.flux_err, self.x_err, self.y_err = (np.full(n, np.nan) for _ in range(4))
        for step in range(_STEPS):
            self._step(x, y, move=step < _STEPS - 1)
        self.chi2 = self._chi2()

    def _profile(self) -> Float:
        half = self.data.shape[-1] // 2
        moved: Float = shift(self.stamps, self.x - half, self.y - half).astype(float)
        return moved

    def _step(self, start_x: Float, start_y: Float, move: bool) -> None:
        if not len(self.data):
            return
        profile = self._profile()
        slope_y, slope_x = np.gradient(profile, axis=(1, 2))
        flux = np.nan_to_num(self.flux)[:, None, None]
        safe = np.where(self.used, self.weight, 1.0)
        w = np.where(self.used, 1 / (1 / safe + np.maximum(flux * profile, 0) / self.gain), 0.0)
        basis = np.stack([profile, -slope_x, -slope_y], 1).reshape(len(w), 3, -1)
        weighted = basis * w.reshape(len(w), 1, -1)
        normal = weighted @ basis.transpose(0, 2, 1)
        possible = np.all(np.einsum("nkk->nk", normal) > 0, axis=1)
        normal[~possible] = np.eye(3)
        covariance = np.linalg.inv(normal)
        solution = np.einsum("njk,nkm,nm->nj", covariance, weighted, self.data.reshape(len(w), -1))
        self.flux = np.where(possible, solution[:, 0], np.nan)
        error = np.sqrt(np.abs(np.einsum("nkk->nk", covariance)))
        self.flux_err = np.where(possible, error[:, 0], np.nan)
        bright = np.maximum(np.abs(self.flux), error[:, 0])
        self.x_err, self.y_err = error[:, 1] / bright, error[:, 2] / bright
        if move:
            dx, dy = (np.nan_to_num(np.clip(solution[:, k] / bright, -0.5, 0.5)) for k in (1, 2))
            self.x = np.clip(self.x + dx, start_x - _MAX_SHIFT_PIX, start_x + _MAX_SHIFT_PIX)
            self.y = np.clip(self.y + dy, start_y - _MAX_SHIFT_PIX, start_y + _MAX_SHIFT_PIX)

    def _chi2(self) -> Float:
        if not len(self.data):
            return np.zeros(0)
        model = np.nan_to_num(self.flux)[:, None, None] * self._profile()
        safe = np.where(self.used, self.weight, 1.0)
        terms = np.where(
            self.used, (self.data - model) ** 2 / (1 / safe + np.maximum(model, 0) / self.gain), 0.0
        )
        freedom = np.count_nonzero(self.used, axis=(1, 2)) - 3
        chi2: Float = np.where(freedom > 0, terms.sum((1, 2)) / np.maximum(freedom, 1), np.nan)
        return chi2

    def light(self, images: Float, radius: float) -> Float:
        """Sum other images of the same pixels in a soft-edged aperture at the fitted position."""
        return np.asarray(np.sum(self._aperture(radius) * images, axis=(1, 2)), float)

    def _aperture(self, radius: float) -> Float:
        index = np.arange(self.data.shape[-1], dtype=float)
        distance = np.hypot(index[:, None] - self.y[:, None, None], index - self.x[:, None, None])
        return np.asarray(np.clip(radius + 0.5 - distance, 0, 1), float)

    def aperture(self, radius: float, gain: float) -> tuple[Float, Float]:
        """Sum a soft-edged aperture at the fitted position and scale it to the total by the PSF's share.

        Unusable pixels count as the PSF model says.
        """
        if not len(self.data):
            return np.zeros(0), np.zeros(0)
        share = self._aperture(radius)
        usable = self.weight > 0
        profile = self._profile()
        model = np.nan_to_num(self.flux)[:, None, None] * profile
        within = np.sum(share * profile, axis=(1, 2))
        flux = np.sum(share * np.where(usable, self.data, model), axis=(1, 2))
        safe = np.where(usable, self.weight, 1.0)
        variance = np.sum(np.where(usable, share**2 / safe, 0), axis=(1, 2)) + np.maximum(flux, 0) / gain
        return flux / within, np.sqrt(variance) / within


def _padded(stamps: Float, size: int) -> Float:
    """Put PSF stamps in the middle of (n, size, size) planes, or cut them to that size."""
    have = stamps.shape[-1]
    if have >= size:
        edge = (have - size) // 2
        return stamps[:, edge : edge + size, edge : edge + size]
    edge = (size - have) // 2
    return np.pad(stamps, [(0, 0), (edge, edge), (edge, edge)])
