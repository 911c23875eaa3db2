"""Find what changed: peaks and troughs of the score image, and how faint a change would have been found."""

from dataclasses import fields

import numpy as np

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.frames import Bool, Depth, Detections, Float, Float32, SubtractionFrame
from seechange_core.numerics.depth import depth_map, limit_sigma
from seechange_core.numerics.flag_sums import flags_within
from seechange_core.numerics.peaks import Peaks, climb, local_extremes, merge_close
from seechange_core.numerics.psf_fit import PsfFits, fit
from seechange_core.params import Params, param

CODE_VERSION = "3"

_MAX_SHIFT_PIX = 1.0


class DetectParams(Params):
    """Parameters of the detection."""

    threshold: float = param(5.0, "Detect peaks of either sign beyond this score", unit="sigma", gt=0)
    merge_fwhm: float = param(
        1.0, "Of peaks of one sign closer than this, the highest one counts", unit="FWHM", ge=0
    )
    border_fwhm: float = param(
        0.5, "Leave out what is closer to the image's rim than this", unit="FWHM", ge=0
    )
    fit_radius_fwhm: float = param(1.5, "Pixels within this radius enter the PSF fit", unit="FWHM", gt=0)
    max_detections: int = param(
        3000, "Of more, only the strongest count: such a list is flagged, and no use to anyone", gt=0
    )
    depth_step_pix: int = param(256, "Side of the cells of the map of the depth", unit="pixel", ge=32)


def detect(sub: SubtractionFrame, params: DetectParams) -> Detections:
    """Detect positive and negative changes.

    Local extremes of the score beyond the threshold; of several of one sign within a FWHM the strongest
    one counts, while the two lobes of a dipole stay two. Position and flux come from a PSF fit on
    the difference that starts at the flux's peak next to the score's. What masked pixels divide has a peak on
    either side of them: there the fit may move by a FWHM, and peaks that it moves together are one.

    Parameters
    ----------
    sub
        Subtraction.
    params
        Parameters.

    Returns
    -------
    Detections
        Highest absolute score first.
    """
    fwhm = sub.psf.fwhm_pix
    peaks = local_extremes(sub.score, params.threshold, _border(sub, params))
    # Merging takes longer the more there are, and most of what is merged lies next to a stronger one.
    peaks = peaks.select(slice(4 * params.max_detections))
    peaks = peaks.select(
        _single(peaks.x.astype(float), peaks.y.astype(float), peaks.value, params.merge_fwhm * fwhm)
    )
    peaks = peaks.select(slice(params.max_detections))
    found = _measured(sub, params, peaks)
    return found.select(_single(found.x, found.y, found.score, params.merge_fwhm * fwhm))


def search_depth(sub: SubtractionFrame, params: DetectParams) -> Depth:
    """Tell how faint a change `detect` finds, from place to place.

    Parameters
    ----------
    sub
        Subtraction.
    params
        As given to `detect`.

    Returns
    -------
    Depth
        Limits of point sources that brightened or faded and are found in half of all cases.
    """
    return depth_map(
        sub.score != 0, sub.image.weight, sub.psf,
        limit_sigma(sub.psf, params.threshold), params.depth_step_pix, _border(sub, params),
    )  # fmt: skip


def _border(sub: SubtractionFrame, params: DetectParams) -> int:
    return max(1, int(np.ceil(params.border_fwhm * sub.psf.fwhm_pix)))


def _single(x: Float, y: Float, score: Float, radius: float) -> Bool:
    """Keep what is not close to something stronger of the same sign; the strongest come first."""
    keep = np.zeros(len(x), bool)
    for rows in (np.flatnonzero(score > 0), np.flatnonzero(score < 0)):
        keep[rows] = merge_close(y[rows], x[rows], radius)
    return keep


def _measured(sub: SubtractionFrame, params: DetectParams, peaks: Peaks) -> Detections:
    fwhm, score = sub.psf.fwhm_pix, peaks.value
    start = climb(sub.score, sub.image.weight, peaks, max(1, round(fwhm / 2)))
    reach = np.where(
        _beside_mask(sub.image.weight, peaks) | _beside_mask(sub.score, peaks),
        max(fwhm, _MAX_SHIFT_PIX),
        _MAX_SHIFT_PIX,
    )
    free = _fit(sub, params, start.x, start.y, score, reach)
    moved = np.hypot(free.x - start.x, free.y - start.y)
    good = np.isfinite(free.flux) & np.isfinite(free.x_err) & (moved < reach) & (free.flux * score > 0)
    # Without a fit of its own a peak keeps the score's place, known to about its sigma / score.
    fixed = _fit(sub, params, start.x, start.y, score, np.where(good, np.nan, 0.0))
    default = fwhm / FWHM_PER_SIGMA / np.abs(score)
    flux = np.where(good, free.flux, fixed.flux)
    return Detections(
        x=np.where(good, free.x, start.x),
        y=np.where(good, free.y, start.y),
        x_err=np.where(good, free.x_err, default),
        y_err=np.where(good, free.y_err, default),
        score=score,
        flux_psf=flux,
        flux_psf_err=np.hypot(np.where(good, free.flux_err, fixed.flux_err), sub.psf.floor * np.abs(flux)),
        flags=flags_within(sub.image.flags, start.x, start.y, max(0.5 * fwhm, 1.0)),
    )


def _beside_mask(plane: Float32, peaks: Peaks) -> Bool:
    """Tell which peaks have a pixel without score, or without weight, among their neighbours or are one."""
    offset = np.arange(-1, 2)
    boxes = plane[peaks.y[:, None, None] + offset[:, None], peaks.x[:, None, None] + offset]
    return np.asarray(np.any(boxes == 0, axis=(1, 2)), bool)


def _fit(
    sub: SubtractionFrame, params: DetectParams, x: Float, y: Float, score: Float, reach: Float
) -> PsfFits:
    """Fit the PSF, upside down for what faded, which has no photon noise of its own to add.

    Positions may move by `reach` pixels; where it is NaN nothing is fitted.
    """
    columns = {f.name: np.full(len(x), np.nan) for f in fields(PsfFits)}
    for sign in (1, -1):
        for most in np.unique(reach[np.isfinite(reach)]):
            rows = np.flatnonzero((score * sign > 0) & (reach == most))
            if not len(rows):
                continue
            fits = fit(
                sub.image.data if sign > 0 else -sub.image.data, sub.image.weight, sub.psf, x[rows], y[rows],
                np.zeros(len(rows)), radius_pix=params.fit_radius_fwhm * sub.psf.fwhm_pix,
                gain=sub.image.gain if sign > 0 else np.inf, free_position=bool(most > 0),
                max_shift_pix=float(most),
            )  # fmt: skip
            for name, column in columns.items():
                column[rows] = getattr(fits, name) * (sign if name == "flux" else 1)
    return PsfFits(**columns)
