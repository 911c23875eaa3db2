"""Find what changed: peaks and troughs of the score image."""

from dataclasses import fields

import numpy as np

from seechange_core.frames import Detections, Flags, Float, Float32, Int, SubtractionFrame
from seechange_core.numerics.peaks import Peaks, local_maxima, merge_close, refine
from seechange_core.numerics.psf_fit import PsfFits, fit
from seechange_core.params import Params, param

CODE_VERSION = "1"

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


def detect(sub: SubtractionFrame, params: DetectParams) -> Detections:
    """Detect positive and negative changes.

    Local extremes of the score beyond the threshold; of several of one sign within a FWHM the strongest
    one counts, while the two lobes of a dipole stay two. Position and flux come from a PSF fit on
    the difference that starts at the flux's peak next to the score's.

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
    found = [_one_sign(sub, params, sign) for sign in (1, -1)]
    x, y, score = (np.concatenate([f[k] for f in found]) for k in range(3))
    order = np.lexsort((x, y, -np.abs(score)))
    x, y, score = x[order], y[order], score[order]
    return _measured(sub, params, x, y, score)


def _one_sign(sub: SubtractionFrame, params: DetectParams, sign: int) -> tuple[Float, Float, Float]:
    """Return sub-pixel x, y and the signed score of the peaks of one sign."""
    fwhm = sub.psf.fwhm_pix
    image = sub.score if sign > 0 else -sub.score
    peaks = local_maxima(image, params.threshold, int(np.ceil(params.border_fwhm * fwhm)))
    keep = merge_close(peaks.y, peaks.x, params.merge_fwhm * fwhm)
    peaks = peaks.select(keep)
    fine = refine(*_flux_peaks(sub, image, peaks))
    return fine.x, fine.y, sign * peaks.value


def _flux_peaks(sub: SubtractionFrame, image: Float32, peaks: Peaks) -> tuple[Float32, Peaks]:
    """Climb from the score's peaks to those of the flux: the score leans away from a star and its noise."""
    weight = sub.image.weight
    flux = np.where(weight > 0, image / np.sqrt(np.maximum(weight, np.float32(1e-30))), np.float32(0))
    y, x = peaks.y.copy(), peaks.x.copy()
    for k in range(len(y)):
        for _ in range(max(1, round(sub.psf.fwhm_pix / 2))):
            box = flux[y[k] - 1 : y[k] + 2, x[k] - 1 : x[k] + 2]
            dy, dx = np.unravel_index(int(np.argmax(box)), box.shape)
            y[k], x[k] = y[k] + dy - 1, x[k] + dx - 1
            inside = 1 <= y[k] < flux.shape[0] - 1 and 1 <= x[k] < flux.shape[1] - 1
            if not inside or (dy == 1 and dx == 1):
                break
    y, x = np.clip(y, 1, flux.shape[0] - 2), np.clip(x, 1, flux.shape[1] - 2)
    return flux, Peaks(y, x, peaks.value)


def _measured(sub: SubtractionFrame, params: DetectParams, x: Float, y: Float, score: Float) -> Detections:
    free, fixed = _fit(sub, params, x, y, score, free=True), _fit(sub, params, x, y, score, free=False)
    moved = np.hypot(free.x - x, free.y - y)
    good = (
        np.isfinite(free.flux) & np.isfinite(free.x_err) & (moved < _MAX_SHIFT_PIX) & (free.flux * score > 0)
    )
    # Without a fit of its own a peak keeps the score's place, known to about FWHM / 2.35 / score.
    default = sub.psf.fwhm_pix / 2.35 / np.abs(score)
    flux = np.where(good, free.flux, fixed.flux)
    flux_err = np.hypot(np.where(good, free.flux_err, fixed.flux_err), sub.psf.floor * np.abs(flux))
    return Detections(
        x=np.where(good, free.x, x),
        y=np.where(good, free.y, y),
        x_err=np.where(good, free.x_err, default),
        y_err=np.where(good, free.y_err, default),
        score=score,
        flux_psf=flux,
        flux_psf_err=flux_err,
        flags=_flags_around(sub.image.flags, x, y, 0.5 * sub.psf.fwhm_pix),
    )


def _fit(
    sub: SubtractionFrame, params: DetectParams, x: Float, y: Float, score: Float, free: bool
) -> PsfFits:
    """Fit the PSF, upside down for what faded, which has no photon noise of its own to add."""
    columns = {f.name: np.empty(len(x)) for f in fields(PsfFits)}
    for sign in (1, -1):
        rows = np.flatnonzero(score * sign > 0)
        fits = fit(
            sub.image.data if sign > 0 else -sub.image.data, sub.image.weight, sub.psf, x[rows], y[rows],
            np.zeros(len(rows)), radius_pix=params.fit_radius_fwhm * sub.psf.fwhm_pix,
            gain=sub.image.gain if sign > 0 else np.inf, free_position=free, max_shift_pix=_MAX_SHIFT_PIX,
        )  # fmt: skip
        for name, column in columns.items():
            column[rows] = getattr(fits, name) * (sign if name == "flux" else 1)
    return PsfFits(**columns)


def _flags_around(flags: Flags, x: Float, y: Float, radius: float) -> Int:
    """Return the union of the bits within a radius of each position."""
    reach = int(np.ceil(radius))
    offset = np.arange(-reach, reach + 1)
    rows = np.rint(y).astype(int)[:, None, None] + offset[:, None]
    columns = np.rint(x).astype(int)[:, None, None] + offset
    near = np.hypot(rows - y[:, None, None], columns - x[:, None, None]) <= max(radius, 1.0)
    inside = near & (rows >= 0) & (columns >= 0) & (rows < flags.shape[0]) & (columns < flags.shape[1])
    clipped = flags[np.clip(rows, 0, flags.shape[0] - 1), np.clip(columns, 0, flags.shape[1] - 1)]
    bits = np.where(inside, clipped, np.uint16(0)).reshape(len(x), offset.size**2)
    return np.bitwise_or.reduce(bits, axis=1).astype(np.int64) if len(x) else np.zeros(0, np.int64)
