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
from seechange_core.numerics.matched_filter import gaussian_taps, matched_filter
from seechange_core.numerics.psf import draw
from seechange_core.numerics.psf_fit import PsfFits
from seechange_core.numerics.psf_making import fit_sources
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
#: Outside of crowds, sources this bright that fit this badly are looked at, this far around.
_HOST_SNR, _HOST_CHI2, _HOST_REACH_FWHM = 30.0, 1.2, 2.5
#: Two stars leave at most this chi2, but for what the model is wrong by, and this share
#: of what one star left, and are this far apart; else they are a galaxy.
_PAIR_CHI2, _LEFT_SHARE = 1.15, 0.3
_PAIR_APART_FWHM = 0.9
#: What is fitted again lies this close to a new source.
_AGAIN_FWHM = 3.0
#: And it has this S/N in the fit of all of them.
_SIGNIFICANT = 7.0


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
    trust = _trust(weight, light, share, gain)
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


def _trust(weight: Float32, light: Float32, share: np.float32, gain: float) -> Float32:
    """Return the weight of a residual: sky, photons of the model's light, and a share of it that is wrong."""
    trust: Float32 = weight / (1 + weight * light * (np.float32(1 / gain) + share * share * light))
    return trust


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


def find_beside(
    scene: SceneFit,
    weight: Float32,
    psf: PsfModel,
    *,
    sigma: float,
    min_area_pix: int,
    deblend_contrast: float,
    gain: float,
) -> Peaks:
    """Find what `find_hidden` would beside bright sources that one star does not fit, and only there.

    The surroundings of these sources are put one below the other and searched as one image.
    """
    fits, fwhm = scene.fits, psf.fwhm_pix
    with np.errstate(invalid="ignore"):
        hosts = np.flatnonzero((fits.flux > _HOST_SNR * fits.flux_err) & (fits.chi2 > _HOST_CHI2))
    if not len(hosts):
        none = np.zeros(0)
        return Peaks(none, none, none, none, none, none, none, none, none.astype(np.int64), none.astype(bool))
    half, gap = int(np.ceil((_HOST_REACH_FWHM + 0.5) * fwhm)), len(gaussian_taps(fwhm)) // 2
    column, row = np.rint(fits.x[hosts]).astype(int), np.rint(fits.y[hosts]).astype(int)
    side, pitch = 2 * half + 1, 2 * half + 1 + gap
    (height, width), steps = weight.shape, np.arange(pitch) - half
    y, x = (row[:, None] + steps)[:, :, None], (column[:, None] + steps[:side])[:, None, :]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (steps <= half)[:, None]
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    left, light, seen = (
        np.where(inside, image[y, x], np.float32(0)).reshape(-1, side)
        for image in (scene.residual, np.maximum(scene.model, np.float32(0)), weight)
    )
    share = np.float32(np.hypot(_MODEL_ERROR, psf.floor))
    trust = _trust(seen, light, share, gain)
    smooth, noise = matched_filter(left, trust, fwhm)
    low = (np.minimum(smooth / noise, 0) ** 2).reshape(len(hosts), -1)
    usable = np.isfinite(noise).reshape(len(hosts), -1).sum(axis=1)
    excess = np.maximum(2 * low.sum(axis=1) / np.maximum(usable, 1), 1).astype(np.float32)
    trust /= np.repeat(excess, pitch)[:, None]
    peaks, _ = find(
        left, trust, sigma=sigma, fwhm_pix=fwhm, min_area_pix=min_area_pix,
        deblend_contrast=deblend_contrast, gain=gain,
    )  # fmt: skip
    peaks = peaks.select(_beyond_model_error(peaks, light, trust, fwhm, sigma, float(share)))
    of = np.clip(np.rint(peaks.y).astype(int) // pitch, 0, max(len(hosts) - 1, 0))
    peaks = replace(
        peaks,
        x=peaks.x - half + column[of],
        y=peaks.y - of * pitch - half + row[of],
        merged=np.ones(len(peaks), bool),
    )
    places = np.c_[peaks.x, peaks.y]
    known = np.c_[fits.x, fits.y]
    known = known[np.isfinite(known).all(axis=1)]
    apart, _ = cKDTree(known).query(places)
    distance, nearest = cKDTree(np.c_[fits.x, fits.y][hosts]).query(places)
    # Each belongs to the nearest host: where surroundings overlap it is found in more than one.
    return peaks.select(
        np.flatnonzero(
            (apart > _MIN_APART_FWHM * fwhm) & (nearest == of) & (distance < _HOST_REACH_FWHM * fwhm)
        )
    )


def with_neighbours(
    scene: SceneFit,
    weight: Float32,
    psf: PsfModel,
    new: Peaks,
    *,
    fit_radius_fwhm: float,
    gain: float,
    passes: int,
) -> tuple[SceneFit, Int]:
    """Fit new sources together with the known ones around them, and keep those that explain what was left.

    Returns
    -------
    SceneFit
        The known sources, then the new ones that were kept.
    kept
        Rows of the latter among the new ones.
    """
    if not len(new):
        return scene, np.arange(0)
    fitted = _fitted_beside(scene, weight, psf, new, fit_radius_fwhm, gain, passes)
    area_pix = np.pi * (fit_radius_fwhm * psf.fwhm_pix) ** 2
    kept = _explaining(scene.fits, fitted.fits, psf.fwhm_pix, area_pix)
    if len(kept) == len(new):
        return fitted, kept
    if not len(kept):
        return scene, kept
    return _fitted_beside(scene, weight, psf, new.select(kept), fit_radius_fwhm, gain, passes), kept


def _explaining(before: PsfFits, after: PsfFits, fwhm_pix: float, area_pix: float) -> Int:
    """Return which of the new sources, the last ones of `after`, are stars of their own."""
    n = len(before.x)
    rows = np.arange(n, len(after.x))
    finite = np.flatnonzero(np.isfinite(before.x + before.y))
    apart, host = cKDTree(np.c_[after.x, after.y][finite]).query(np.nan_to_num(np.c_[after.x, after.y][rows]))
    host = finite[host]
    single = np.isin(rows, resolved(after.x, after.y, after.flux, fwhm_pix))
    with np.errstate(invalid="ignore"):
        left = np.maximum(after.chi2[host], after.chi2[rows]) - 1
        good = (
            left < _PAIR_CHI2 - 1 + (_MODEL_ERROR * after.flux[host] / after.flux_err[host]) ** 2 / area_pix
        )
        good &= after.chi2[host] - 1 < _LEFT_SHARE * (before.chi2[host] - 1)
        good &= apart > _PAIR_APART_FWHM * fwhm_pix
        good &= (after.flux > _SIGNIFICANT * after.flux_err)[rows]
    return np.flatnonzero(good & single)


def _fitted_beside(
    scene: SceneFit,
    weight: Float32,
    psf: PsfModel,
    new: Peaks,
    fit_radius_fwhm: float,
    gain: float,
    passes: int,
) -> SceneFit:
    """Fit new sources and the known ones near them, all others as they are."""
    fits, shape = scene.fits, (weight.shape[0], weight.shape[1])
    finite = np.flatnonzero(np.isfinite(fits.x + fits.y))
    apart, _ = cKDTree(np.c_[new.x, new.y]).query(np.c_[fits.x, fits.y][finite])
    near = finite[apart < _AGAIN_FWHM * psf.fwhm_pix]
    x, y, flux = fits.x[near], fits.y[near], np.maximum(np.nan_to_num(fits.flux[near]), 0)
    own = draw(psf, x, y, flux, shape)
    part = fit_sources(
        scene.residual + own, weight, psf, np.r_[x, new.x], np.r_[y, new.y], np.r_[flux, new.flux],
        gain=gain, passes=passes, fit_radius_fwhm=fit_radius_fwhm,
    )  # fmt: skip
    columns = []
    for field in fields(PsfFits):
        values = np.r_[getattr(fits, field.name), np.zeros(len(new))]
        values[np.r_[near, np.arange(len(fits.x), len(values))]] = getattr(part.fits, field.name)
        columns.append(values)
    return SceneFit(PsfFits(*columns), scene.model - own + part.model, part.residual)


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
