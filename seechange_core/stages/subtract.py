"""Subtract references from a new image: align, register, then a method, then one frame of what comes."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from scipy.fft import next_fast_len

from seechange_core.constants import MAG_PER_RELATIVE
from seechange_core.errors import NoReference
from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import (
    Bool,
    Box,
    CalibratedImage,
    CommonStars,
    Float32,
    PsfModel,
    SubtractionFrame,
    WcsSolution,
)
from seechange_core.numerics.alignment import (
    Aligned,
    Member,
    choose,
    prepare_members,
    psf_stamps,
    stitch,
)
from seechange_core.numerics.background import level_map
from seechange_core.numerics.difference_scale import zero_point_change
from seechange_core.numerics.growth import grown
from seechange_core.numerics.holes import mostly_seen
from seechange_core.numerics.impossible_light import impossible_light
from seechange_core.numerics.kernel_planes import kernel_planes
from seechange_core.numerics.paired import Canvas, Errors, Paired, Planes, inner_of, make_plan
from seechange_core.numerics.psf import evaluate
from seechange_core.numerics.psf_field import fit_field
from seechange_core.numerics.registration import (
    Registration,
    Side,
    find_candidates,
    register,
    search_radius_pix,
)
from seechange_core.numerics.tiles import Tiling
from seechange_core.numerics.zogy_planes import zogy_planes
from seechange_core.params import Params, param

CODE_VERSION = "5"

_RAMP = 8
_MIN_GUARD = 20
_MIN_PSF_PLACES = 6
_MILLI = 1e-3
_UNMEASURED_SHIFT = 6.0
_FEWER, _FEWEST = np.float32(0.9), np.float32(1 / 20)
"""Share of a reference's images below which its PSF is another one; the least that still tells how many."""
_THIN = 0.5
"""Share of its usual weight below which a reference counts as one of few images."""
_BESIDE_FWHM = 0.5
"""So near to the reference's edge too little of a source is seen."""
_ODD_CORES_FWHM = 3.0
"""How far around a saturated star a core rebuilt with the PSF of more images than show it is wrong."""
_BRIDGEABLE = PixelFlag.BAD_PIXEL | PixelFlag.COSMIC_RAY
"""What is lost in small pieces, and can be predicted from around."""
_DARK_SIGMA = 10.0
"""Static light up to this significance doesn't keep a change from being told from a particle's track."""


class SubtractParams(Params):
    """Parameters of a subtraction."""

    method: Literal["zogy", "kernel"] = param(
        "zogy",
        "zogy: proper subtraction by the PSFs of both images; kernel: by a convolution kernel fitted on "
        "common stars, for PSFs that no model follows",
    )
    kernel_degree: int = param(
        2, "Degree of the polynomials by which a fitted kernel, flux ratio and background vary", ge=0, le=4
    )
    translient: bool = param(
        False, "Make and keep the test for sources that moved: a dipole's strength at every pixel"
    )
    min_coverage: float = param(0.5, "Needed fraction of usable pixels that have a reference", gt=0, le=1)
    tile_pix: int = param(
        192, "Side of the tiles, about, within which PSFs and noise count as constant", unit="pixel", ge=64
    )
    match_stars: bool = param(True, "Refine shift and flux ratio by common stars before subtracting")
    registration_error_mas: float = param(
        0.5,
        "Registration error assumed at least, per axis, where common stars tell it; six times as much where "
        "they don't (seeing moves stars)",
        unit="mas",
        ge=0,
    )
    background_mesh_pix: int = param(
        256,
        "Cells of the mesh for the background left in the difference; 0 leaves it as it is",
        unit="pixel",
        ge=0,
    )
    grow_saturated_pix: int = param(2, "Pixels around saturated ones without a score", unit="pixel", ge=0)


def subtract(
    new: CalibratedImage, references: Sequence[CalibratedImage], params: SubtractParams
) -> SubtractionFrame:
    """Subtract the references that overlap a new image from it.

    Proper subtraction (Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27) with the PSFs and the sky noise of
    each tile, every pixel's own variance in the score, the error of the registration measured on common
    stars, and the noise spectrum of the interpolated reference. Blank sky in the difference is white.
    The ratio of the fluxes follows both zero points from place to place; what the common stars correct of
    it is one number, so a variation that the zero points do not hold stays, as an error of the kernel.

    The weight of the difference is such that a linear PSF fit has the right error: it carries, at every
    pixel, the variance of a point-source flux measured there, divided by that in blank sky.

    Parameters
    ----------
    new
        Calibrated image, sky included.
    references
        Calibrated references, e.g. of neighbouring sky regions; their backgrounds are removed here.
    params
        Parameters.

    Raises
    ------
    NoReference
        If the references cover less than `min_coverage` of the usable pixels.
    NoStars
        If a kernel is to be fitted and too few sources are bright enough.
    """
    tiling = _tiling(new, references, params)
    margin, (height, width) = tiling.margin, tiling.canvas_shape
    box = Box(-margin, height - margin, -margin, width - margin)
    members = prepare_members(new, references, box)
    canvas = _canvas(new, tiling)
    registration = _register(new, canvas, members, tiling) if params.match_stars else None
    if registration is not None:
        members = tuple(m.moved(registration.shift, registration.flux_ratio) for m in members)
    aligned = stitch(members, box)
    # Their prefiltered pixels are as large as an image.
    del members
    coverage = _coverage(canvas, aligned)
    if not coverage >= params.min_coverage:
        raise NoReference(
            f"references cover {coverage:.3f} of the usable pixels, {params.min_coverage} needed",
            cure="build a reference of this region and filter, or lower subtract.min_coverage",
        )
    pair = Paired(new, canvas, aligned, make_plan(aligned, tiling))
    errors = _errors(pair, registration, params)
    # Not named: as soon as the frame has replaced one of these planes, it goes.
    return _frame(pair, _planes(pair, errors, params), errors, params, registration, coverage)


def _planes(pair: Paired, errors: Errors, params: SubtractParams) -> Planes:
    if params.method == "kernel":
        return kernel_planes(pair, errors, params.kernel_degree, params.translient)
    return zogy_planes(pair, errors, params.translient)


def _tiling(new: CalibratedImage, references: Sequence[CalibratedImage], params: SubtractParams) -> Tiling:
    scale = new.wcs.pixel_scale_arcsec
    widest = max([new.psf.fwhm_pix, *(r.psf.fwhm_pix * r.wcs.pixel_scale_arcsec / scale for r in references)])
    guard = max(_MIN_GUARD, int(np.ceil(4.5 * widest)))
    core, rim = min(params.tile_pix, max(64, *new.image.shape)), 2 * (_RAMP + guard)
    wanted = range(int(0.8 * core) + rim, int(1.2 * core) + rim + 1)
    sides = {2 * next_fast_len(-(-n // 2), real=True) for n in wanted}
    tilings = (Tiling(new.image.shape, side - rim, _RAMP, guard) for side in sides)
    # What is transformed in all tells how long it takes.
    return min(tilings, key=lambda tiling: tiling.side**2 * math.prod(tiling.counts))


def _canvas(new: CalibratedImage, tiling: Tiling) -> Canvas:
    frame, m = new.image, tiling.margin
    inner = slice(m, m + frame.shape[0]), slice(m, m + frame.shape[1])
    usable = np.zeros(tiling.canvas_shape, bool)
    usable[inner] = (frame.weight > 0) & (frame.flags & np.uint16(UNUSABLE) == 0) & np.isfinite(frame.data)
    data = np.zeros(tiling.canvas_shape, np.float32)
    data[inner] = frame.data - level_map(new.background)
    data[~usable] = 0
    weight = np.zeros(tiling.canvas_shape, np.float32)
    weight[inner] = frame.weight
    weight[~usable] = 0
    return Canvas(data, weight, usable)


def _coverage(canvas: Canvas, aligned: Aligned) -> float:
    total = np.count_nonzero(canvas.usable)
    missing = np.uint16(PixelFlag.OUT_OF_BOUNDS | PixelFlag.NO_DATA)
    covered = canvas.usable & (aligned.flags & missing == 0)
    return np.count_nonzero(covered) / total if total else 0.0


def _register(
    new: CalibratedImage, canvas: Canvas, members: Sequence[Member], tiling: Tiling
) -> Registration | None:
    """Measure the registration where stars are, before all of the reference is resampled once."""
    if not members:
        return None
    inner = inner_of(tiling)
    side = Side(canvas.data[inner], canvas.weight[inner], new.psf, new.image.gain)
    ref_psf = _ref_psf(members, tiling)
    if ref_psf is None:
        return None
    fwhm = max(new.psf.fwhm_pix, ref_psf.fwhm_pix)
    x, y = find_candidates(side, fwhm)
    error_pix = _solution_error_pix([new.wcs, *(m.image.wcs for m in members)])
    reach = int(np.ceil(2.5 * fwhm)) + 2 + search_radius_pix(fwhm, error_pix)
    data, weight = np.zeros((2, *tiling.shape), np.float32)
    chosen = choose(members, x, y)
    for i, (cx, cy) in enumerate(zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True)):
        if chosen[i] >= 0:
            _read_patch(members[chosen[i]], Box(cy - reach, cy + reach, cx - reach, cx + reach), data, weight)
    scale = float(np.median(members[0].scale))
    ref = Side(data, weight, ref_psf, members[0].image.image.gain / scale)
    return register(side, ref, x, y, error_pix)


def _read_patch(member: Member, around: Box, data: Float32, weight: Float32) -> None:
    """Read a reference around a place into planes of the new image's shape."""
    warped, box, _ = member.read(around)
    height, width = data.shape
    y0, y1, x0, x1 = max(box.y0, 0), min(box.y1, height), max(box.x0, 0), min(box.x1, width)
    target = slice(y0, y1), slice(x0, x1)
    own = slice(y0 - box.y0, y1 - box.y0), slice(x0 - box.x0, x1 - box.x0)
    data[target], weight[target] = warped.data[own], warped.weight[own]


def _ref_psf(members: Sequence[Member], tiling: Tiling) -> PsfModel | None:
    """Return the references' PSF on the new image's pixels."""
    height, width = tiling.shape
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, width - 1, 7), np.linspace(0, height - 1, 7)))
    chosen = choose(members, x, y)
    some = chosen >= 0
    if np.count_nonzero(some) < _MIN_PSF_PLACES:
        return None
    stamps = psf_stamps(members, chosen[some], x[some], y[some])
    return fit_field(stamps, x[some], y[some], tiling.shape, 2, 0, 0.0)


def _errors(pair: Paired, registration: Registration | None, params: SubtractParams) -> Errors:
    """Return what is uncertain: what was measured of it, but never less than the parameters say."""
    least_pix = params.registration_error_mas * _MILLI / pair.new.wcs.pixel_scale_arcsec
    solutions = [pair.new.wcs, *(m.image.wcs for m in pair.aligned.members)]
    floors = [pair.new.psf.floor, max(m.image.psf.floor for m in pair.aligned.members)]
    if registration is None:
        known = max(_UNMEASURED_SHIFT * least_pix, _solution_error_pix(solutions))
        shift, scale = (known, known), _zero_point_error(pair)
    else:
        shift = max(least_pix, registration.sigma_x), max(least_pix, registration.sigma_y)
        scale = float(np.hypot(registration.flux_ratio_err, registration.flux_scatter))
    return Errors(shift, float(np.sqrt(floors[0] ** 2 + floors[1] ** 2 + scale**2)))


def _solution_error_pix(solutions: Sequence[WcsSolution]) -> float:
    """Return the error of the shift between astrometric solutions, the new image's first, pixels."""
    error_mas = float(np.sqrt(sum(w.error_mas**2 for w in solutions)))
    return error_mas * _MILLI / solutions[0].pixel_scale_arcsec


def _zero_point_error(pair: Paired) -> float:
    errors = [pair.new.zero_point.zp_err, *(m.image.zero_point.zp_err for m in pair.aligned.members)]
    return float(np.sqrt(sum(e**2 for e in errors if np.isfinite(e)))) / MAG_PER_RELATIVE


def _frame(
    pair: Paired,
    planes: Planes,
    errors: Errors,
    params: SubtractParams,
    registration: Registration | None,
    coverage: float,
) -> SubtractionFrame:
    """Mask and level what a method has made, and put everything that is kept of it into one frame."""
    inner, new = pair.inner, pair.new
    ref_usable, ref_flags = pair.aligned.usable[inner], pair.aligned.flags[inner]
    usable = pair.canvas.usable[inner] & ref_usable & (planes.variance > 0)
    flags = new.image.flags | ref_flags
    if planes.hits is not None:
        usable &= ~planes.hits
        flags[planes.hits] |= np.uint16(PixelFlag.COSMIC_RAY)
    # Beyond the reference's edge the new image itself was filled in, and a transient there with it.
    beyond = (ref_flags & np.uint16(PixelFlag.OUT_OF_BOUNDS)) > 0
    within = ref_usable & ~grown(beyond, int(np.ceil(_BESIDE_FWHM * new.psf.fwhm_pix)))
    usable &= within
    hot = pair.hot()[inner]
    seen = usable | (_bridged(new, usable) & within & (planes.variance > 0))
    if params.background_mesh_pix:
        planes = planes.levelled(seen, params.background_mesh_pix).without_row_streaks(seen, hot)
    default = max(errors.kernel, planes.kernel_error)
    share = _share(pair)
    strips = _strips((share > 0) & (share < _THIN), new.psf.fwhm_pix)
    scored = seen & ~grown(hot, params.grow_saturated_pix)
    scored &= ~grown(hot & strips, round(_ODD_CORES_FWHM * new.psf.fwhm_pix))
    odd = _oddness(share, new.psf.fwhm_pix)
    planes = planes.with_star_errors(scored, hot, odd, new.psf.fwhm_pix, default)
    tracks = _tracks(pair, planes, scored)
    flags[tracks] |= np.uint16(PixelFlag.COSMIC_RAY)
    usable, scored = usable & ~tracks, scored & ~tracks
    difference, score, variance = planes.difference, planes.score, planes.variance
    # These planes are ours alone: their pixels are masked in place.
    weight = np.divide(1, variance, out=variance, where=usable)
    for plane, kept in ((difference, usable), (weight, usable), (score, scored)):
        plane[~kept] = 0
    image = replace(new.image, data=difference, weight=weight, flags=flags, resamplings=0)
    psf = fit_field(
        planes.stamps, pair.plan.x, pair.plan.y, new.image.shape, 3,
        new.psf.n_stars, max(default, new.psf.floor),
    )  # fmt: skip
    zero = np.float32(0)
    reference = np.where(ref_usable, pair.aligned.data[inner], zero)
    return SubtractionFrame(
        image, score, psf, reference, coverage,
        np.where(ref_usable, pair.aligned.weight[inner], zero), ref_flags.copy(),
        None if planes.translient is None else np.where(scored, planes.translient, zero),
        _common_stars(registration, errors, params), *zero_point_change(pair, planes, registration),
    )  # fmt: skip


def _bridged(new: CalibratedImage, usable: Bool) -> Bool:
    """Return lost pixels that have a score, for most of a source's light there is seen beside them.

    Without, a source on a bad column or in the way of a ray is two, one on either side, or none.
    """
    flags, bridgeable = new.image.flags & np.uint16(UNUSABLE), np.uint16(_BRIDGEABLE)
    lost = (flags > 0) & (flags & ~bridgeable == 0)
    return mostly_seen(usable, lost, evaluate(new.psf, *new.psf.centre)[0])


def _common_stars(
    registration: Registration | None, errors: Errors, params: SubtractParams
) -> CommonStars | None:
    if registration is not None:
        return registration.summary()
    x_pix, y_pix = errors.shift_pix
    return CommonStars(sigma_x_pix=x_pix, sigma_y_pix=y_pix) if params.match_stars else None


def _share(pair: Paired) -> Float32:
    """Return the share of the usual weight, and so of the usual images, that the reference has; at most 1."""
    weight = pair.aligned.weight[pair.inner]
    known = weight[::4, ::4][weight[::4, ::4] > 0]
    return np.minimum(weight / np.median(known), 1) if known.size else np.ones_like(weight)


def _oddness(share: Float32, fwhm_pix: float) -> Float32:
    """Return how far the PSF of part of a reference's images is from that of all; see `excess_variance`."""
    few = _strips((share > 0) & (share < _FEWER), fwhm_pix)
    return np.where(few, np.sqrt(1 / np.maximum(share, _FEWEST) - 1), 0).astype(np.float32)


def _strips(thin: Bool, fwhm_pix: float) -> Bool:
    """Return where a reference is thin, holes included, but not rings of stars saturated in some images."""
    reach = int(np.ceil(fwhm_pix))
    return grown(~grown(~thin, reach), 2 * reach)


def _tracks(pair: Paired, planes: Planes, scored: Bool) -> Bool:
    """Return the pixels of particles' tracks that the new image's mask has missed."""
    inner, new = pair.inner, pair.new
    weight = pair.canvas.weight[inner]
    if planes.hits is not None:
        weight = np.where(planes.hits, np.float32(0), weight)
    dark = planes.light < np.float32(_DARK_SIGMA) * planes.sigma()
    return impossible_light(
        np.where(scored, planes.score, np.float32(0)), dark, pair.canvas.data[inner], weight,
        new.image.gain, new.psf,
    )  # fmt: skip
