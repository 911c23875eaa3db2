"""Sources that only show once their neighbours' light is gone: a search of what a fit leaves of the image.

In a crowd many stars make no peak of their own beside a brighter one. With the fitted stars subtracted they
do (Stetson 1987, PASP 99, 191, section IV). What a bright star leaves behind because its model is not perfect
looks the same; so the model's light counts as noise, its photons and its error.
"""

from dataclasses import fields, replace

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from seechange_core.frames import Float, Float32, Int, PsfModel
from seechange_core.numerics.detection import Peaks, find
from seechange_core.numerics.matched_filter import matched_filter
from seechange_core.numerics.scene import SceneFit
from seechange_core.numerics.watershed import Labels

#: Sources covering more of the usable pixels than this hide others among them.
_CROWDED_SHARE = 0.2
#: How far a bright star reaches: as its PSF's stamp.
_STAR_REACH_FWHM = 5.0
#: One sigma of what a model leaves at any place, relative to its light there.
_MODEL_ERROR = 0.02
#: Closer to a known source than this, a peak says that the source's own fit is not done.
_MIN_APART_FWHM = 0.5
#: Side of the square in which the residual's own scatter is looked at.
_AROUND_FWHM = 6.0
#: Closer than this, two sources cannot be told apart.
_RESOLVED_FWHM = 0.37


def is_crowded(segmentation: Labels, weight: Float32, fwhm_pix: float) -> bool:
    """Tell whether sources cover so much of the usable pixels that others will be hidden among them.

    No source counts for more than a bright star covers: a galaxy all over a section is no crowd.
    """
    usable = weight > 0
    limit = _CROWDED_SHARE * np.count_nonzero(usable)
    if np.count_nonzero(usable & (segmentation > 0)) <= limit:
        return False
    areas = np.bincount(segmentation[usable])[1:]
    return bool(np.minimum(areas, np.pi * (_STAR_REACH_FWHM * fwhm_pix) ** 2).sum() > limit)


def find_hidden(
    scene: SceneFit,
    weight: Float32,
    psf: PsfModel,
    *,
    sigma: float,
    min_area_pix: int,
    deblend_contrast: float,
    gain: float,
) -> Peaks:
    """Find the sources that a fit of the known ones leaves in the residual image.

    Parameters
    ----------
    scene
        The known sources, fitted.
    weight
        (H, W) float32, 1 / variance of the background per pixel; 0 where nothing may be found.
    psf
        They were fitted with.
    sigma, min_area_pix, deblend_contrast, gain
        As in `detection.find`; the sigma is that of sky, the known sources' photons and 2 % of their light.

    Returns
    -------
    Peaks
        New sources, none closer than half a FWHM to a known one; `flux` and `peak` are of the residual, the
        source's own light, and all are `merged`.
    """
    light = np.maximum(scene.model, np.float32(0))
    share = np.float32(np.hypot(_MODEL_ERROR, psf.floor))
    trust = weight / (1 + weight * light * (np.float32(1 / gain) + share * share * light))
    trust /= _excess(scene.residual, trust, psf.fwhm_pix)
    peaks, _ = find(
        scene.residual,
        trust,
        sigma=sigma,
        fwhm_pix=psf.fwhm_pix,
        min_area_pix=min_area_pix,
        deblend_contrast=deblend_contrast,
        gain=gain,
    )
    peaks = peaks.select(_beyond_model_error(peaks, light, trust, psf.fwhm_pix, sigma, float(share)))
    known = np.c_[scene.fits.x, scene.fits.y]
    known = known[np.isfinite(known).all(axis=1)]
    distance, _ = cKDTree(known).query(np.c_[peaks.x, peaks.y])
    new = peaks.select(np.flatnonzero(distance > _MIN_APART_FWHM * psf.fwhm_pix))
    return replace(new, merged=np.ones(len(new), bool))


def _beyond_model_error(
    peaks: Peaks, light: Float32, weight: Float32, fwhm_pix: float, sigma: float, share: float
) -> Int:
    """Return the rows of peaks that stand out from the model's light under the whole filter as well.

    Noise of pixels averages out under the filter; what a model is wrong by is wrong all over a star.
    """
    smooth, noise = matched_filter(light, weight, fwhm_pix)
    row = np.clip(np.rint(peaks.y).astype(int), 0, light.shape[0] - 1)
    column = np.clip(np.rint(peaks.x).astype(int), 0, light.shape[1] - 1)
    limit = sigma * np.hypot(1, share * smooth[row, column] / noise[row, column])
    return np.flatnonzero(peaks.snr > limit)


def _excess(residual: Float32, weight: Float32, fwhm_pix: float) -> Float32:
    """Return by how much the filtered residual varies more than its noise, (H, W) float32, at least 1.

    A source is positive; where models fail, what is left is negative as often. So the negative side counts.
    """
    smooth, noise = matched_filter(residual, weight, fwhm_pix)
    smooth /= noise
    np.minimum(smooth, 0, out=smooth)
    smooth *= smooth
    side = round(_AROUND_FWHM * fwhm_pix)
    # Half of the pixels are negative.
    excess: Float32 = 2 * uniform_filter(smooth, side, mode="nearest")
    return np.maximum(excess, 1, out=excess)


def joined(known: Peaks, new: Peaks) -> Peaks:
    """Return two tables as one, the known sources first."""
    return Peaks(*(np.concatenate([getattr(known, f.name), getattr(new, f.name)]) for f in fields(Peaks)))


def resolved(x: Float, y: Float, flux: Float, fwhm_pix: float) -> Int:
    """Return the rows of sources that no brighter one has come closer to than 0.37 FWHM.

    Two models that close share one star's light between them (Stetson 1987, section III.D.2.d).

    Parameters
    ----------
    x, y, flux
        (n,) as fitted; rows that are not finite are kept.
    fwhm_pix
        Of the PSF.
    """
    finite = np.flatnonzero(np.isfinite(x + y + flux))
    pairs = cKDTree(np.c_[x, y][finite]).query_pairs(_RESOLVED_FWHM * fwhm_pix, output_type="ndarray")
    one, other = finite[pairs].T
    # The brightest decide first: what one of them takes can take nothing itself.
    first = flux[one] >= flux[other]
    one, other = np.where(first, one, other), np.where(first, other, one)
    kept = np.ones(len(x), bool)
    for k in np.argsort(-flux[one], kind="stable"):
        if kept[one[k]]:
            kept[other[k]] = False
    return np.flatnonzero(kept)
