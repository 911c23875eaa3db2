"""From chosen stars in an image to its PSF: neighbours are masked at first, then fitted and subtracted."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from seechange_core.errors import NoStars
from seechange_core.frames import Bool, Float, Float32, Int, PsfModel
from seechange_core.numerics import brighter_fatter, psf_build
from seechange_core.numerics.aperture import sum_circles
from seechange_core.numerics.detection import Peaks
from seechange_core.numerics.psf_degree import STARS_PER_TERM, held_degree, needed_degree
from seechange_core.numerics.scene import SceneFit, fit_scene
from seechange_core.numerics.star_choice import StarChoice
from seechange_core.numerics.watershed import Labels

_MIN_STAMP_PIX, _MAX_STAMP_PIX = 15, 181
_MAX_CHI2 = 3.0
_CLIP_SIGMA = 5.0
#: Up to this degree a variation is taken for granted where there are stars enough.
_QUIET_DEGREE = 2
#: The stars are judged again so often at most, and no more once this share of them or less changes sides.
_JUDGEMENTS, _FEW_CHANGE = 3, 0.02


@dataclass(frozen=True)
class PsfRules:
    """How the PSF is made and fitted.

    Attributes
    ----------
    stamp_fwhm
        Side of the stamp, FWHM.
    fit_radius_fwhm
        Pixels within this radius enter a fit.
    max_degree
        Of its variation with position.
    min_stars
        Fewer stars stop.
    """

    stamp_fwhm: float
    fit_radius_fwhm: float
    max_degree: int
    min_stars: int


@dataclass(frozen=True, eq=False)
class MadePsf:
    """A PSF, and where it comes from.

    Attributes
    ----------
    psf
        The model.
    stars
        Which of the sources it was made from.
    """

    psf: PsfModel
    stars: Int


def stamp_size(fwhm_pix: float, stamp_fwhm: float) -> int:
    """Return the odd side of a PSF stamp, pixels."""
    side = 2 * int(np.ceil(stamp_fwhm * fwhm_pix / 2)) + 1
    return int(np.clip(side, _MIN_STAMP_PIX, _MAX_STAMP_PIX))


def max_shift_pix(psf: PsfModel) -> float:
    """Return how far a fitted position may move from where the source was found."""
    return max(1.0, 0.4 * psf.fwhm_pix)


def fit_sources(
    data: Float32,
    weight: Float32,
    psf: PsfModel,
    x: Float,
    y: Float,
    flux: Float,
    *,
    gain: float,
    passes: int,
    fit_radius_fwhm: float,
) -> SceneFit:
    """Fit sources together, with the radius and the freedom to move that go with the PSF's width."""
    return fit_scene(
        data,
        weight,
        psf,
        x,
        y,
        np.nan_to_num(flux),
        radius_pix=max(fit_radius_fwhm * psf.fwhm_pix, 1.5),
        gain=gain,
        passes=passes,
        max_shift_pix=max_shift_pix(psf),
    )


def make_psf(
    data: Float32,
    weight: Float32,
    gain: float,
    peaks: Peaks,
    segmentation: Labels,
    choice: StarChoice,
    rules: PsfRules,
) -> MadePsf:
    """Make the PSF of an image: from stars with masked neighbours, then from stars with subtracted ones.

    Only the stars and what overlaps with them are fitted.

    Parameters
    ----------
    data, weight
        (H, W), background removed, 1 / background variance, 0 where unusable.
    gain
        Photons per electron of data.
    peaks, segmentation
        The sources and their pixels.
    choice
        The stars.
    rules
        See there.

    Raises
    ------
    NoStars
        If too few of the stars look alike.
    """
    shape = data.shape[0], data.shape[1]
    stars, fwhm_pix = choice.rows, choice.fwhm_pix
    size = stamp_size(fwhm_pix, rules.stamp_fwhm)
    near = _near(peaks, stars, size)
    x, y = peaks.x[near], peaks.y[near]
    # Isophotes miss some of the light: all that matters here is that the stars are on one scale.
    flux = np.maximum(np.nan_to_num(sum_circles(data, weight, x, y, [1.5 * fwhm_pix])[0][:, 0]), 0.0)
    at = np.searchsorted(near, stars)
    cut = psf_build.cut_stars(data, weight, x[at], y[at], np.maximum(flux[at], 1.0), size, gain)
    cut = psf_build.without_others(cut, segmentation, stars + 1)
    psf = psf_build.build(cut, 0, shape, fwhm_pix)
    scene = fit_sources(
        data, weight, psf, x, y, flux, gain=gain, passes=2, fit_radius_fwhm=rules.fit_radius_fwhm
    )
    cut, kept = stars_of(scene, weight, gain, psf, at)
    psf, good = _of_good_stars(cut, psf, rules, weight)
    return MadePsf(psf, near[kept[good]])


def _of_good_stars(
    cut: psf_build.StarStamps, psf: PsfModel, rules: PsfRules, weight: Float32
) -> tuple[PsfModel, Bool]:
    """Return the PSF of those stars that look like it, as variable as they ask for, and which they are.

    Judged by one profile for the whole section, the stars of its corners may not look like stars: where
    shapes vary the model does so from the start, and all are asked again by each better model.
    """
    radius_pix = rules.fit_radius_fwhm * psf.fwhm_pix
    shape = weight.shape[0], weight.shape[1]
    held = held_degree(cut.x, cut.y, weight, rules.max_degree)
    varies = needed_degree(cut, psf, radius_pix, held)
    if varies:
        psf = psf_build.build(cut, varies, shape, psf.fwhm_pix, start=psf)
    good = np.zeros(len(cut.x), bool)
    for judgement in range(_JUDGEMENTS):
        before, good = good, psf_build.good_stars(cut, psf, radius_pix, _MAX_CHI2)
        _require_alike(int(good.sum()), len(good), rules.min_stars)
        alike = cut.select(good)
        held = held_degree(alike.x, alike.y, weight, rules.max_degree)
        degree = psf_build.choose_degree(len(alike.x), min(held, _QUIET_DEGREE))
        degree = max(degree, psf_build.choose_degree(len(alike.x), min(held, psf.degree), STARS_PER_TERM))
        if judgement:
            degree = min(held, max(degree, needed_degree(alike, psf, radius_pix, held)))
            if degree == psf.degree and np.count_nonzero(good != before) <= _FEW_CHANGE * len(good):
                return psf, before
        psf = psf_build.build(alike, degree, shape, psf.fwhm_pix, start=psf)
    return psf, good


def _require_alike(n_alike: int, n_stars: int, min_stars: int) -> None:
    if n_alike < min_stars:
        raise NoStars(
            f"{n_alike} of {n_stars} stars look alike, {min_stars} are needed for a PSF",
            cure="clouds, a field too poor, or a trailed exposure; lower extract.psf_min_stars",
        )


def refine_psf(scene: SceneFit, weight: Float32, gain: float, made: MadePsf, rules: PsfRules) -> MadePsf:
    """Make the PSF again, from stars whose neighbours and background are better known.

    Parameters
    ----------
    scene
        All sources of the image, fitted with the PSF there is.
    weight, gain, rules
        As in `make_psf`.
    made
        The PSF there is.
    """
    shape = weight.shape[0], weight.shape[1]
    cut, kept = stars_of(scene, weight, gain, made.psf, made.stars)
    cut = replace(cut, data=cut.data - _unresolved(scene.residual, weight))
    psf = psf_build.build(cut, made.psf.degree, shape, made.psf.fwhm_pix, start=made.psf)
    radius_pix = rules.fit_radius_fwhm * psf.fwhm_pix
    fatter, error = brighter_fatter.growth(cut, psf, radius_pix)
    floor = psf_build.measure_floor(cut, psf, radius_pix)
    return MadePsf(replace(psf, floor=floor, brighter_fatter=fatter, brighter_fatter_err=error), kept)


def _unresolved(residual: Float32, weight: Float32) -> np.float32:
    """Return the mean light per pixel of what is too faint to be found, electrons.

    It lies under the stars as everywhere. The sky's level, most pixels' own, leaves it out; around bright
    stars it would pass for the PSF's wings.
    """
    sample = np.s_[::2, ::2]
    values, usable = residual[sample], weight[sample]
    near = (values**2 * usable < _CLIP_SIGMA**2) & (usable > 0)
    return np.float32(values[near].mean(dtype=float) if near.any() else 0.0)


def stars_of(
    scene: SceneFit, weight: Float32, gain: float, psf: PsfModel, stars: Int
) -> tuple[psf_build.StarStamps, Int]:
    """Return the PSF stars as cut from the image without their neighbours, and which ones they are."""
    fits = scene.fits
    kept = stars[np.isfinite(fits.flux[stars]) & (fits.flux[stars] > 0)]
    cut = psf_build.cut_stars(
        scene.residual, weight, fits.x[kept], fits.y[kept], fits.flux[kept], psf.size, gain
    )
    return psf_build.with_own_light(cut, psf), kept


def _near(peaks: Peaks, stars: Int, size: int) -> Int:
    """Return the rows, in order, of the stars and of the sources whose light reaches into their stamps."""
    places = cKDTree(np.c_[peaks.x, peaks.y])
    found = places.query_ball_point(np.c_[peaks.x[stars], peaks.y[stars]], size)
    near: Int = np.unique(np.concatenate([np.asarray(rows, np.int64) for rows in found]))
    return near
