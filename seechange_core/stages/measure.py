"""Measure what was detected on its cutouts, and say which ones look wrong and why."""

from dataclasses import dataclass, fields

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import (
    Bool,
    Detections,
    Float,
    Float32,
    Measurements,
    PsfModel,
    Stamps,
    StaticSources,
)
from seechange_core.numerics.gaussian_fit import fit_gaussians
from seechange_core.numerics.stamp_fit import StampFits, fit_stamps
from seechange_core.numerics.translient import dipoles_at
from seechange_core.params import param
from seechange_core.stages.vet import BadReason, CutLimits, bad_reasons

__all__ = ["CODE_VERSION", "BadReason", "MeasureParams", "Surroundings", "measure"]

CODE_VERSION = "4"

_NEGATIVE_SIGMA = 2.5
#: Of the absolute value of a normal variable; and of how many pixels at least it is taken.
_MEDIAN_OF_NORMAL, _MIN_AROUND = 0.6745, 50
#: A variance so much above what the weights say is no chance of these pixels.
_RESTLESS = 1.3
#: A chi square of fewer pixels than are within this radius says little.
_CORE_PIX = 3.0


class MeasureParams(CutLimits):
    """Parameters of the measurement and its cuts."""

    aperture_fwhm: float = param(1.0, "Radius of the best aperture", unit="FWHM", gt=0)
    fit_radius_fwhm: float = param(1.5, "Pixels within this radius enter the PSF fit", unit="FWHM", gt=0)
    max_shift_fwhm: float = param(
        1.0, "The PSF fit moves from the detection by no more in x or y", unit="FWHM", gt=0, le=2
    )
    shape_radius_fwhm: float = param(
        1.5, "Pixels within this radius enter the Gaussian fit", unit="FWHM", gt=0
    )
    core_fwhm: float = param(1.5, "Half-size of the box in which negative pixels count", unit="FWHM", gt=0)
    bad_core_fwhm: float = param(0.5, "Half-size of the box in which flagged pixels count", unit="FWHM", gt=0)
    psf_shape_error: float = param(
        0.05, "Relative error of the PSF's pixels: part of the variances of the fit's chi square", ge=0, lt=1
    )


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The section around the stamps.

    Attributes
    ----------
    shape
        (H, W) of the section.
    pixel_scale_arcsec
        Of the section.
    sources
        What was there before.
    """

    shape: tuple[int, int]
    pixel_scale_arcsec: float
    sources: StaticSources


def measure(
    stamps: Stamps,
    detections: Detections,
    psf: PsfModel,
    params: MeasureParams,
    gain: float = 1.0,
    around: Surroundings | None = None,
    translient: Float32 | None = None,
) -> Measurements:
    """Measure positions, fluxes and shapes on the difference stamps.

    The PSF fit weights pixels by their full variance, the source's own photons included; the noise of a
    proper difference is white, so its errors are those of the flux. Its chi square is relative to what the
    pixels around scatter by, if that is more. All shapes look at the source turned positive.

    Parameters
    ----------
    stamps
        One set per detection.
    detections
        In the same order.
    psf
        Of the difference; its floor is the error with which light that did not change is removed.
    params
        Parameters.
    gain
        Photons per electron of the difference (`ImageFrame.gain` of the new image).
    around
        The section; None leaves distances to stars, galaxies and edges unknown.
    translient
        (2, H, W) of the difference, if it was made.

    Returns
    -------
    Measurements
        One row per detection, NaN where something could not be measured.
    """
    fwhm = psf.fwhm_pix
    unrest = _unrest(stamps, 2 * fwhm)
    stamps = _middle(stamps, _half_needed(params, fwhm))
    x, y = detections.x - stamps.x0, detections.y - stamps.y0
    sign = np.where(detections.score < 0, -1.0, 1.0)
    weight = np.where(np.isfinite(stamps.sub), stamps.sub_weight, np.float32(0))
    data = np.where(weight > 0, stamps.sub, np.float32(0)) * sign.astype(np.float32)[:, None, None]
    # What faded is light that is not there: it has no photons of its own to add noise.
    gains = np.where(sign > 0, gain, np.inf)
    fits = _fits(data, weight, psf, detections, (x, y), gains, params)
    shapes = fit_gaussians(data, weight, x, y, fwhm, params.shape_radius_fwhm * fwhm)
    aperture, aperture_err, static = _apertures(
        data, weight, stamps.ref, fits, params.aperture_fwhm * fwhm, gains
    )
    columns = {
        "x": fits.x + stamps.x0,
        "y": fits.y + stamps.y0,
        "x_err": fits.x_err,
        "y_err": fits.y_err,
        "flux_psf": fits.flux * sign,
        "flux_psf_err": np.hypot(fits.flux_err, psf.floor * np.abs(fits.flux)),
        "chi2": fits.chi2 / unrest,
        "flux_aper": aperture * sign,
        "flux_aper_err": aperture_err,
        "fwhm_pix": shapes.fwhm_pix,
        "elongation": shapes.elongation,
        "theta_rad": shapes.theta_rad,
        "offset_pix": np.hypot(fits.x - x, fits.y - y),
        **_masks(stamps, fits, x, y, params.bad_core_fwhm * fwhm),
        **_negatives(data, weight, _box(x, y, data.shape[-1], params.core_fwhm * fwhm)),
        "dipole_chi2": fits.dipole_chi2,
        "dipole_ratio": fits.dipole_ratio,
        "dipole_separation_pix": fits.dipole_separation_pix,
        "dipole_angle_rad": fits.dipole_angle_rad,
        **_moved(detections, translient, fwhm),
        "change_fraction": fits.flux * sign / np.where(static > 0, static, np.nan),
        **_distances(detections, around),
    }
    reasons = bad_reasons(params, {**columns, "score": detections.score}, fwhm)
    return Measurements(**columns, is_bad=reasons > 0, bad_reasons=reasons)


def _unrest(stamps: Stamps, beyond_pix: float) -> Float:
    """Return the variance around each detection over that of the weights, 1 where it is about that.

    Filtering lets what is sharper than the PSF ring: that is no fault of the source it rings through.
    """
    index = np.arange(stamps.sub.shape[-1]) - stamps.sub.shape[-1] // 2
    around = np.hypot(index, index[:, None]) > beyond_pix
    pulls = np.abs(stamps.sub[:, around]) * np.sqrt(stamps.sub_weight[:, around])
    known = stamps.sub_weight[:, around] > 0
    # The median of those that are known: the others are put behind them.
    ordered = np.sort(np.where(known, pulls, np.inf), axis=1)
    n = np.count_nonzero(known, axis=1)
    enough = n >= _MIN_AROUND
    middle = ordered[np.arange(len(n)), np.where(enough, n // 2, 0)] if around.any() else np.zeros(len(n))
    ratio = (middle / _MEDIAN_OF_NORMAL) ** 2
    return np.where(enough & (ratio > _RESTLESS), ratio, 1.0)


def _fits(
    data: Float32,
    weight: Float32,
    psf: PsfModel,
    detections: Detections,
    start: tuple[Float, Float],
    gains: Float,
    params: MeasureParams,
) -> StampFits:
    """Fit the stamps of each gain, and put them together in their order."""
    parts, rows = [], []
    for gain in np.unique(gains).tolist() or [1.0]:
        some = np.flatnonzero(gains == gain)
        fwhm, place, begin = (
            psf.fwhm_pix,
            (detections.x[some], detections.y[some]),
            (start[0][some], start[1][some]),
        )
        fits = fit_stamps(
            data[some], weight[some], psf, place, begin,
            radius_pix=params.fit_radius_fwhm * fwhm, core_pix=max(fwhm, _CORE_PIX), gain=gain,
            shape_error=params.psf_shape_error, max_shift_pix=params.max_shift_fwhm * fwhm,
        )  # fmt: skip
        parts.append(fits)
        rows.append(some)
    order = np.argsort(np.concatenate(rows))
    joined = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts])[order] for f in fields(StampFits)
    }
    return StampFits(**joined)


def _half_needed(params: MeasureParams, fwhm: float) -> int:
    """Return how many pixels around the middle one are looked at."""
    reach = max(params.fit_radius_fwhm, params.shape_radius_fwhm, params.core_fwhm, params.aperture_fwhm)
    return int(np.ceil((reach + params.max_shift_fwhm) * fwhm)) + 1


def _middle(stamps: Stamps, half: int) -> Stamps:
    """Return only the middle of the stamps: what the measurements look at."""
    edge = max(0, stamps.sub.shape[-1] // 2 - half)
    inner = slice(edge, stamps.sub.shape[-1] - edge)
    planes = {f.name: getattr(stamps, f.name) for f in fields(Stamps)}
    cut = {name: plane[:, inner, inner] for name, plane in planes.items() if plane.ndim == 3}
    return Stamps(**cut, x0=stamps.x0 + edge, y0=stamps.y0 + edge)


def _box(x: Float, y: Float, size: int, half: float) -> Bool:
    """Return the (n, size, size) pixels of boxes around positions, one pixel at least."""
    index = np.arange(size)
    reach = max(half, 0.5)
    rows = np.abs(index - np.rint(y)[:, None]) <= reach
    columns = np.abs(index - np.rint(x)[:, None]) <= reach
    return np.asarray(rows[:, :, None] & columns[:, None, :], bool)


def _apertures(
    data: Float32, weight: Float32, reference: Float32, fits: StampFits, radius: float, gains: Float
) -> tuple[Float, Float, Float]:
    """Sum soft-edged apertures at the fitted positions and scale them to the total by the PSF's share.

    Unusable pixels count as the PSF says. Returned are flux and error, and the light of the reference.
    """
    index = np.arange(data.shape[-1], dtype=np.float32)
    away = np.hypot(index[:, None] - fits.y[:, None, None], index - fits.x[:, None, None])
    share = np.clip(radius + 0.5 - away, 0, 1)
    usable = weight > 0
    model = np.nan_to_num(fits.flux)[:, None, None] * fits.profiles
    within = np.sum(share * fits.profiles, axis=(1, 2))
    within = np.where(within > 0, within, np.nan)
    flux = np.sum(share * np.where(usable, data, model), axis=(1, 2))
    safe = np.where(usable, weight, np.float32(1))
    variance = np.sum(np.where(usable, share**2 / safe, 0), axis=(1, 2)) + np.maximum(flux, 0) / gains
    static = np.sum(share * np.nan_to_num(reference), axis=(1, 2))
    return flux / within, np.sqrt(variance) / within, static / within


def _masks(stamps: Stamps, fits: StampFits, x: Float, y: Float, core_pix: float) -> dict[str, Float]:
    """Count flagged pixels in the core, and weigh them by the PSF."""
    flagged = (stamps.new_flags & np.uint16(UNUSABLE) > 0) | (stamps.sub_weight <= 0)
    core = _box(x, y, flagged.shape[-1], core_pix)
    hit = stamps.new_flags & np.uint16(PixelFlag.COSMIC_RAY) > 0
    light = np.maximum(fits.profiles, 0)
    total = np.sum(light, axis=(1, 2))
    return {
        "n_bad": np.count_nonzero(core & flagged, axis=(1, 2)).astype(np.int64),
        "masked_fraction": 1 - fits.usable_fraction,
        "cosmic_ray_fraction": np.sum(light, axis=(1, 2), where=hit) / np.where(total > 0, total, np.nan),
    }


def _negatives(data: Float32, weight: Float32, box: Bool) -> dict[str, Float]:
    """Return the fractions of pixels, and of flux, that are negative among those that stand out.

    Judged on sums over 3 x 3 pixels, in which a faint point source stands out as single pixels don't.
    """
    flux = uniform_filter(data.astype(float), (0, 3, 3), mode="constant")
    variance = uniform_filter(np.where(weight > 0, 1 / np.where(weight > 0, weight, 1.0), 0.0), (0, 3, 3)) / 9
    strong = box & (weight > 0) & (flux**2 > _NEGATIVE_SIGMA**2 * variance)
    below = strong & (flux < 0)
    count = np.count_nonzero(strong, axis=(1, 2))
    total = np.sum(np.abs(flux), axis=(1, 2), where=strong)
    missing = np.sum(np.abs(flux), axis=(1, 2), where=below)
    return {
        "negative_fraction": np.count_nonzero(below, axis=(1, 2)) / np.maximum(count, 1),
        "negative_flux_fraction": missing / np.where(total > 0, total, 1.0),
    }


def _moved(detections: Detections, translient: Float32 | None, fwhm: float) -> dict[str, Float]:
    """Look up the test for sources that moved, where it was made."""
    if translient is None:
        unknown = np.full(len(detections), np.nan)
        return {"translient_sigma": unknown, "translient_angle_rad": unknown}
    found = dipoles_at(translient, detections.x, detections.y, fwhm)
    return {"translient_sigma": found.significance, "translient_angle_rad": found.angle_rad}


def _distances(detections: Detections, around: Surroundings | None) -> dict[str, Float]:
    """Return how far the nearest star, galaxy and edge are."""
    unknown = np.full(len(detections), np.nan)
    columns = dict.fromkeys(
        ("star_distance_arcsec", "star_mag", "galaxy_distance_arcsec", "galaxy_mag", "edge_distance_pix"),
        unknown,
    )
    if around is None:
        return columns
    height, width = around.shape
    x, y = detections.x, detections.y
    columns["edge_distance_pix"] = (
        np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y)) + 0.5
    )
    for kind, chosen in (("star", around.sources.is_star), ("galaxy", ~around.sources.is_star)):
        some = around.sources.select(chosen)
        if len(some) and len(detections):
            distance, row = cKDTree(np.column_stack([some.x, some.y])).query(np.column_stack([x, y]))
            columns[f"{kind}_distance_arcsec"] = distance * around.pixel_scale_arcsec
            columns[f"{kind}_mag"] = some.mag[row]
    return columns
