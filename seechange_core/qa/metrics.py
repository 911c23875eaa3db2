"""One number each for what matters about a product: for tables, nightly trends and the web UI."""

from functools import singledispatch

import numpy as np

from seechange_core.flags import PixelFlag
from seechange_core.frames import (
    Background,
    CalibratedImage,
    Depth,
    Detections,
    ForcedFluxes,
    ImageFrame,
    MasterFrame,
    Measurements,
    PsfModel,
    Sources,
    Stamps,
    SubtractionFrame,
    WcsSolution,
    ZeroPointSolution,
)
from seechange_core.numerics.psf import evaluate
from seechange_core.numerics.stats import clipped_stats

Metrics = dict[str, float]


@singledispatch
def metrics(product: object) -> Metrics:
    """Return the numbers of one product by name, units in the names.

    Parameters
    ----------
    product
        Any frame, table or solution of `seechange_core.frames`.

    Returns
    -------
    dict
        Plain floats; a number that does not exist for this product is left out, so none is NaN.

    Raises
    ------
    TypeError
        If nothing is known to measure on this kind of product.
    """
    raise TypeError(f"no metrics for {type(product).__name__}")


def _finite(**values: float) -> Metrics:
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}


def _median(values: np.typing.NDArray[np.floating]) -> float:
    return float(np.median(values)) if len(values) else np.nan


@metrics.register
def _image(image: ImageFrame) -> Metrics:
    usable = image.weight > 0
    counts = {
        f"{bit.name.lower()}_fraction": float(np.mean((image.flags & bit) != 0))
        for bit in (PixelFlag.BAD_PIXEL, PixelFlag.SATURATED, PixelFlag.COSMIC_RAY, PixelFlag.STREAK)
        if bit.name is not None
    }
    # One pixel in a hundred is plenty for a median.
    sample = np.s_[::10, ::10]
    kept = usable[sample]
    return _finite(
        usable_fraction=float(usable.mean()),
        median_e=_median(image.data[sample][kept]),
        noise_e=_median(1 / np.sqrt(np.maximum(image.weight[sample][kept], np.float32(1e-30)))),
        exposure_time_s=image.exposure_time_s,
        fringe_scale=image.fringe_scale,
        fringe_scale_error=image.fringe_scale_error,
        **counts,
    )


@metrics.register
def _master(master: MasterFrame) -> Metrics:
    good = master.flags == 0
    stats = clipped_stats(master.data[good][:: max(1, good.sum() // 100_000)])
    return _finite(
        n_frames=master.n_frames,
        flagged_fraction=float(1 - good.mean()),
        level=stats.median,
        scatter=stats.sigma,
        error=float(np.sqrt(_median(master.variance[good]))),
    )


@metrics.register
def _sources(sources: Sources) -> Metrics:
    stars = sources.is_star & (sources.flags == 0) & (sources.snr > 20)
    return _finite(
        n_sources=len(sources),
        n_stars=int(sources.is_star.sum()),
        stars_fwhm_pix=_median(sources.fwhm_pix[stars]),
        stars_elongation=_median(sources.elongation[stars]),
        stars_chi2=_median(sources.chi2[stars]),
        blended_fraction=float(np.mean(sources.blended)) if len(sources) else np.nan,
    )


@metrics.register
def _background(background: Background) -> Metrics:
    level = background.level[np.isfinite(background.level)]
    return _finite(
        sky_e=_median(level),
        sky_rms_e=_median(background.rms[np.isfinite(background.rms)]),
        sky_range_e=float(np.ptp(level)) if len(level) else np.nan,
    )


@metrics.register
def _psf(psf: PsfModel) -> Metrics:
    (x0, y0), (sx, sy) = psf.centre, psf.scale
    corners = evaluate(psf, x0 + sx * np.array([0.0, -1, 1, -1, 1]), y0 + sy * np.array([0.0, -1, -1, 1, 1]))
    # The peak says how much sharpness changes over the field, and needs no fit.
    peaks = corners.max(axis=(1, 2))
    return _finite(
        fwhm_pix=psf.fwhm_pix,
        psf_stars=psf.n_stars,
        psf_floor=psf.floor,
        psf_peak_range=float(np.ptp(peaks) / peaks[0]),
    )


@metrics.register
def _wcs(wcs: WcsSolution) -> Metrics:
    return _finite(
        rms_mas=wcs.rms_mas,
        error_mas=wcs.error_mas,
        n_matched=wcs.n_matched,
        n_catalog=wcs.n_catalog,
        pixel_scale_arcsec=wcs.pixel_scale_arcsec,
    )


@metrics.register
def _zero_point(zero_point: ZeroPointSolution) -> Metrics:
    return _finite(
        zp=zero_point.zp,
        zp_err=zero_point.zp_err,
        zp_stars=zero_point.n_stars,
        zp_scatter_mag=zero_point.scatter_mag,
        color_term=zero_point.color_term,
        limiting_mag=zero_point.limiting_mag,
    )


@metrics.register
def _calibrated(image: CalibratedImage) -> Metrics:
    parts = (image.image, image.background, image.psf, image.wcs, image.zero_point)
    return {name: value for part in parts for name, value in metrics(part).items()}


@metrics.register
def _subtraction(sub: SubtractionFrame) -> Metrics:
    known = sub.image.weight > 0
    score = sub.score[known]
    stats = clipped_stats(score[:: max(1, score.size // 200_000)])
    pull = (sub.image.data * np.sqrt(sub.image.weight))[known]
    return _finite(
        reference_coverage=sub.reference_coverage,
        score_mean=stats.mean,
        score_sigma=stats.sigma,
        score_beyond_5=float(np.sum(np.abs(score) > 5)),
        difference_pull_sigma=clipped_stats(pull[:: max(1, pull.size // 200_000)]).sigma,
        difference_fwhm_pix=sub.psf.fwhm_pix,
        **_registration(sub),
    )


def _registration(sub: SubtractionFrame) -> Metrics:
    stars = sub.common_stars
    if stars is None:
        return {}
    return {
        "common_stars": stars.n_stars,
        "registration_shift_pix": float(np.hypot(stars.shift_x_pix, stars.shift_y_pix)),
        "registration_error_pix": float(np.fmax(stars.sigma_x_pix, stars.sigma_y_pix)),
        "flux_ratio": stars.flux_ratio,
        "flux_ratio_error": stars.flux_ratio_err,
        "flux_ratio_scatter": stars.flux_scatter,
    }


@metrics.register
def _detections(detections: Detections) -> Metrics:
    return _finite(
        n_detections=len(detections),
        n_positive=int(np.sum(detections.score > 0)),
        n_negative=int(np.sum(detections.score < 0)),
        best_score=float(np.max(np.abs(detections.score))) if len(detections) else np.nan,
    )


@metrics.register
def _depth(depth: Depth) -> Metrics:
    return _finite(limit_e=depth.median_e, searched_fraction=depth.searched_fraction)


@metrics.register
def _measurements(measurements: Measurements) -> Metrics:
    good = ~measurements.is_bad
    return _finite(
        n_measurements=len(measurements),
        n_good=int(good.sum()),
        good_chi2=_median(measurements.chi2[good]),
        good_fwhm_pix=_median(measurements.fwhm_pix[good]),
    )


@metrics.register
def _forced(forced: ForcedFluxes) -> Metrics:
    usable = np.isfinite(forced.flux) & (forced.flux_err > 0)
    return _finite(
        n_forced=len(forced),
        n_usable=int(usable.sum()),
        n_detected=int(np.sum(forced.flux[usable] > 5 * forced.flux_err[usable])),
        flux_err_e=_median(forced.flux_err[usable]),
        forced_chi2=_median(forced.chi2[usable]),
    )


@metrics.register
def _stamps(stamps: Stamps) -> Metrics:
    return _finite(n_stamps=len(stamps.new), stamp_size_pix=stamps.new.shape[-1])
