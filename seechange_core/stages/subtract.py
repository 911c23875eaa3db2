"""Subtract references from a new image: align, register, ZOGY tile by tile."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import next_fast_len
from scipy.ndimage import maximum_filter1d

from seechange_core.errors import NoReference
from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import (
    Bool,
    Box,
    CalibratedImage,
    Flags,
    Float,
    Float32,
    PsfModel,
    SubtractionFrame,
)
from seechange_core.numerics.alignment import Aligned, align, moved
from seechange_core.numerics.background import estimate, level_map
from seechange_core.numerics.holes import Plane, fill_holes, moved_psf
from seechange_core.numerics.noise_spectrum import cardinal_transfer
from seechange_core.numerics.psf import evaluate
from seechange_core.numerics.psf_field import fit_field
from seechange_core.numerics.registration import Registration, Side, register
from seechange_core.numerics.tiles import Mosaic, Tile, Tiling
from seechange_core.numerics.zogy import (
    Kernels,
    Noise,
    PatchResult,
    make_kernels,
    matched_to_new,
    matched_to_ref,
    stamp_of,
    subtract_patch,
    transfer,
)
from seechange_core.params import Params, param

CODE_VERSION = "2"

_RAMP = 16
_MIN_GUARD = 20
_REMAKE_SHIFT_PIX = 0.003
_MILLI = 1e-3


class SubtractParams(Params):
    """Parameters of a subtraction."""

    min_coverage: float = param(0.5, "Needed fraction of usable pixels that have a reference", gt=0, le=1)
    tile_pix: int = param(
        128, "Side of the tiles within which PSFs and noise count as constant", unit="pixel", ge=64
    )
    match_stars: bool = param(True, "Refine shift and flux ratio by common stars before subtracting")
    registration_error_mas: float = param(
        3.0, "Registration error assumed at least, per axis (seeing moves stars)", unit="mas", ge=0
    )
    kernel_error: float = param(
        0.003,
        "Relative error of PSFs and flux ratio assumed at least: what it leaves of stars is noise",
        ge=0,
    )
    shape_error: float = param(
        0.002,
        "Relative error of the PSFs' shapes: what it leaves within two FWHM of a star is noise, a quarter "
        "of it within four",
        ge=0,
    )
    background_mesh_pix: int = param(
        256,
        "Cells of the mesh for the background left in the difference; 0 leaves it as it is",
        unit="pixel",
        ge=0,
    )
    grow_saturated_pix: int = param(1, "Pixels around saturated ones without a score", unit="pixel", ge=0)


@dataclass(frozen=True, eq=False)
class _Canvas:
    """The new image in the middle of the aligned reference's wider box."""

    data: Float32
    weight: Float32
    usable: Bool


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
    """
    tiling = _tiling(new, references, params)
    margin, (height, width) = tiling.margin, tiling.canvas_shape
    aligned = align(new, references, Box(-margin, height - margin, -margin, width - margin))
    canvas = _canvas(new, tiling)
    coverage = _coverage(canvas, aligned)
    if not coverage >= params.min_coverage:
        raise NoReference(
            f"references cover {coverage:.3f} of the usable pixels, {params.min_coverage} needed",
            cure="build a reference of this region and filter, or lower subtract.min_coverage",
        )
    plan = _plan(aligned, tiling)
    registration = None
    if params.match_stars:
        registration = _register(new, canvas, aligned, plan)
        if registration is not None:
            aligned = moved(aligned, registration.shift, registration.flux_ratio, _REMAKE_SHIFT_PIX)
    return _Subtraction(new, canvas, aligned, plan, params, registration).run(coverage)


def _tiling(new: CalibratedImage, references: Sequence[CalibratedImage], params: SubtractParams) -> Tiling:
    scale = new.wcs.pixel_scale_arcsec
    widest = max([new.psf.fwhm_pix, *(r.psf.fwhm_pix * r.wcs.pixel_scale_arcsec / scale for r in references)])
    guard = max(_MIN_GUARD, int(np.ceil(4.5 * widest)))
    core = min(params.tile_pix, max(64, *new.image.shape))
    side = next_fast_len(core + 2 * (_RAMP + guard), real=True)
    side += side % 2
    return Tiling(new.image.shape, side - 2 * (_RAMP + guard), _RAMP, guard)


def _canvas(new: CalibratedImage, tiling: Tiling) -> _Canvas:
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
    return _Canvas(data, weight, usable)


def _coverage(canvas: _Canvas, aligned: Aligned) -> float:
    total = np.count_nonzero(canvas.usable)
    missing = np.uint16(PixelFlag.OUT_OF_BOUNDS | PixelFlag.NO_DATA)
    covered = canvas.usable & (aligned.flags & missing == 0)
    return np.count_nonzero(covered) / total if total else 0.0


@dataclass(frozen=True, eq=False)
class _Plan:
    """For every tile that can be subtracted: which reference gives it, and that one's PSF there."""

    tiling: Tiling
    tiles: list[Tile]
    members: np.ndarray
    x: Float
    y: Float
    psf_ref: Float32

    def ref_model(self) -> PsfModel:
        """Return the aligned reference's PSF as a function of place."""
        return fit_field(self.psf_ref, self.x, self.y, self.tiling.shape, 2, 0, 0.0)


def _plan(aligned: Aligned, tiling: Tiling) -> _Plan:
    tiles, members = [], []
    for tile in tiling:
        span = slice(tile.y, tile.y + tiling.side), slice(tile.x, tile.x + tiling.side)
        member = aligned.member_at(*span)
        if member >= 0:
            tiles.append(tile)
            members.append(member)
    x = np.array([t.centre_x for t in tiles]) - tiling.margin
    y = np.array([t.centre_y for t in tiles]) - tiling.margin
    chosen = np.array(members)
    return _Plan(tiling, tiles, chosen, x, y, aligned.psf_stamps(chosen, x, y))


def _register(new: CalibratedImage, canvas: _Canvas, aligned: Aligned, plan: _Plan) -> Registration | None:
    inner = _inner(plan.tiling)
    ref_weight = np.where(aligned.usable[inner], aligned.weight[inner], np.float32(0))
    photons = aligned.photon_variance[inner]
    gain = 1 / max(float(np.median(photons[photons > 0])), 1e-6)
    return register(
        Side(canvas.data[inner], canvas.weight[inner], new.psf, new.image.gain),
        Side(aligned.data[inner], ref_weight, plan.ref_model(), gain),
        _solution_error_pix(new, aligned),
    )


def _solution_error_pix(new: CalibratedImage, aligned: Aligned) -> float:
    """Return the error of the shift between the astrometric solutions of both images, pixels."""
    solutions = [new.wcs, *(m.image.wcs for m in aligned.members)]
    return float(np.sqrt(sum(w.error_mas**2 for w in solutions))) * _MILLI / new.wcs.pixel_scale_arcsec


def _core(tile: Tile, tiling: Tiling) -> tuple[slice, slice]:
    return slice(tile.y, tile.y + tiling.core), slice(tile.x, tile.x + tiling.core)


def _inner(tiling: Tiling) -> tuple[slice, slice]:
    m, (height, width) = tiling.margin, tiling.shape
    return slice(m, m + height), slice(m, m + width)


@dataclass(frozen=True, eq=False)
class _Planes:
    """The images of a subtraction; `variance` is per pixel, `sharpness` the sum of the squared PSF."""

    difference: Float32
    score: Float32
    variance: Float32
    sharpness: Float32

    def levelled(self, usable: Bool, mesh_pix: int) -> "_Planes":
        """Take out the background that is left, from the difference and from the score."""
        if not usable.any():
            return self
        weight = np.where(usable, 1 / np.where(usable, self.variance, np.float32(1)), np.float32(0))
        flags = np.zeros(usable.shape, np.uint16)
        level = level_map(estimate(self.difference, weight, flags, step_pix=mesh_pix))
        return replace(
            self,
            difference=self.difference - level,
            score=self.score - level * np.sqrt(weight / self.sharpness),
        )


class _Subtraction:
    """One subtraction in progress."""

    def __init__(
        self,
        new: CalibratedImage,
        canvas: _Canvas,
        aligned: Aligned,
        plan: _Plan,
        params: SubtractParams,
        registration: Registration | None,
    ) -> None:
        self.new, self.canvas, self.aligned = new, canvas, aligned
        self.tiling, self.plan, self.params = plan.tiling, plan, params
        self.ref_usable = aligned.usable
        self.filled = fill_holes(*self._planes())
        self.psf_new = evaluate(new.psf, plan.x, plan.y)
        self.shift_sigma = self._shift_sigma(registration)
        self.kernel_error = self._kernel_error(registration)
        self.blur = _interpolation_blur(plan.tiling.side)
        typical = canvas.weight[canvas.usable]
        self.typical_new = float(1 / np.median(typical))
        self.typical_ref = float(1 / np.median(aligned.weight[self.ref_usable]))

    def _planes(self) -> tuple[Plane, Plane]:
        """Hand over both images for filling, their PSFs counted on the canvas."""
        m = self.tiling.margin
        flags = np.full(self.tiling.canvas_shape, PixelFlag.OUT_OF_BOUNDS, np.uint16)
        flags[_inner(self.tiling)] = self.new.image.flags
        photons = self.aligned.photon_variance[self.ref_usable]
        gain = 1 / max(float(np.median(photons)), 1e-6)
        return (
            Plane(
                self.canvas.data,
                self.canvas.weight,
                self.canvas.usable,
                flags,
                moved_psf(self.new.psf, m),
                self.new.image.gain,
            ),
            Plane(
                self.aligned.data,
                self.aligned.weight,
                self.ref_usable,
                self.aligned.flags,
                moved_psf(self.plan.ref_model(), m),
                gain,
            ),
        )

    def _shift_sigma(self, registration: Registration | None) -> tuple[float, float]:
        scale = self.new.wcs.pixel_scale_arcsec
        least = self.params.registration_error_mas * _MILLI / scale
        if registration is not None:
            return max(least, registration.sigma_x), max(least, registration.sigma_y)
        known = _solution_error_pix(self.new, self.aligned)
        return max(least, known), max(least, known)

    def _kernel_error(self, registration: Registration | None) -> float:
        floors = [self.new.psf.floor, max(m.image.psf.floor for m in self.aligned.members)]
        if registration is None:
            scale = self._zero_point_error()
        else:
            scale = float(np.hypot(registration.flux_ratio_err, registration.flux_scatter))
        return max(self.params.kernel_error, float(np.sqrt(floors[0] ** 2 + floors[1] ** 2 + scale**2)))

    def _zero_point_error(self) -> float:
        errors = [self.new.zero_point.zp_err, *(m.image.zero_point.zp_err for m in self.aligned.members)]
        return 0.4 * float(np.log(10)) * float(np.sqrt(sum(e**2 for e in errors if np.isfinite(e))))

    def run(self, coverage: float) -> SubtractionFrame:
        """Go through all tiles and put the image together."""
        difference, score, variance = (Mosaic(self.tiling) for _ in range(3))
        size = max(self.new.psf.size, self.plan.psf_ref.shape[-1])
        sharpness = np.ones(self.tiling.shape, np.float32)
        stamps = np.empty((len(self.plan.tiles), size, size), np.float32)
        for index, tile in enumerate(self.plan.tiles):
            noise = self._noise(index, tile)
            kernels = self._kernels(index, noise)
            patch = self._patch(tile, kernels, noise)
            difference.add(tile, patch.difference)
            score.add(tile, patch.score)
            variance.add(tile, patch.flux_variance * np.float32(kernels.variance * kernels.flux_of_score))
            sharpness[_core(tile, self.tiling)] = kernels.variance * kernels.flux_of_score
            stamps[index] = stamp_of(kernels.psf, self.tiling.side, size)
        planes = _Planes(difference.image(), score.image(), variance.image(), sharpness)
        return self._frame(planes, stamps, coverage)

    def _noise(self, index: int, tile: Tile) -> Noise:
        m, side = self.tiling.margin, self.tiling.side
        core = slice(tile.y + m, tile.y + side - m), slice(tile.x + m, tile.x + side - m)
        new = _typical_variance(self.canvas.weight[core], self.canvas.usable[core], self.typical_new)
        ref = _typical_variance(self.aligned.weight[core], self.ref_usable[core], self.typical_ref)
        half = self.tiling.core / 2
        x, y = self.plan.x[index], self.plan.y[index]
        member = int(self.plan.members[index])
        power = self.aligned.noise_power(member, (x - half, x + half), (y - half, y + half), side)
        return Noise(new, ref, power)

    def _kernels(self, index: int, noise: Noise) -> Kernels:
        side = self.tiling.side
        psf_ref = transfer(self.plan.psf_ref[index], side) * self.blur
        return make_kernels(transfer(self.psf_new[index], side), psf_ref, noise, side)

    def _patch(self, tile: Tile, kernels: Kernels, noise: Noise) -> PatchResult:
        span = slice(tile.y, tile.y + self.tiling.side), slice(tile.x, tile.x + self.tiling.side)
        filled = self.filled
        new, ref = filled.new[span], filled.ref[span]
        new_known, ref_known = filled.new_known[span], filled.ref_known[span]
        orphan = new_known & ~ref_known
        if orphan.any():
            ref = np.where(orphan, matched_to_ref(new, kernels), ref)
        model = matched_to_new(ref, kernels)
        if not new_known.all():
            new = np.where(new_known, new, model)
        weight_new, weight_ref = self.canvas.weight[span], self.aligned.weight[span]
        var_new = _variance(weight_new, noise.new, model, 1 / self.new.image.gain, noise.ref)
        var_ref = _variance(weight_ref, noise.ref, ref, self.aligned.photon_variance[span], noise.ref)
        return subtract_patch(
            new,
            ref,
            var_new,
            var_ref,
            kernels,
            noise,
            self.shift_sigma,
            self.kernel_error,
            self.params.shape_error,
            round(2 * self.new.psf.fwhm_pix),
        )

    def _frame(self, planes: _Planes, stamps: Float32, coverage: float) -> SubtractionFrame:
        inner = _inner(self.tiling)
        usable = self.canvas.usable[inner] & self.ref_usable[inner] & (planes.variance > 0)
        # Beyond the reference's edge the new image itself was filled in, and a transient there with it.
        outside = _grown(
            self.aligned.flags[inner], PixelFlag.OUT_OF_BOUNDS, int(np.ceil(self.new.psf.fwhm_pix))
        )
        usable &= ~outside
        if self.params.background_mesh_pix:
            planes = planes.levelled(usable, self.params.background_mesh_pix)
        difference, score, variance = planes.difference, planes.score, planes.variance
        flags = self.new.image.flags | self.aligned.flags[inner]
        hot = PixelFlag.SATURATED | PixelFlag.BLEED
        scored = usable & ~_grown(flags, hot, self.params.grow_saturated_pix)
        zero = np.float32(0)
        image = replace(
            self.new.image,
            data=np.where(usable, difference, zero),
            weight=np.where(usable, 1 / np.where(usable, variance, np.float32(1)), zero),
            flags=flags,
            resamplings=0,
        )
        psf = fit_field(
            stamps, self.plan.x, self.plan.y, self.new.image.shape, 3,
            self.new.psf.n_stars, max(self.kernel_error, self.new.psf.floor),
        )  # fmt: skip
        reference = np.where(self.ref_usable[inner], self.aligned.data[inner], zero)
        return SubtractionFrame(image, np.where(scored, score, zero), psf, reference, coverage)


def _interpolation_blur(side: int) -> Float32:
    """Return what interpolation does to the reference's PSF, averaged over sub-pixel positions."""
    fy, fx = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    return np.outer(cardinal_transfer(fy), cardinal_transfer(fx)).astype(np.float32)


def _typical_variance(weight: Float32, usable: Bool, default: float) -> float:
    sample = weight[::2, ::2][usable[::2, ::2]]
    return float(1 / np.median(sample)) if sample.size > 50 else default


def _variance(weight: Float32, sky: float, model: Float32, photons: float | Float32, floor: float) -> Float32:
    """Sky variance where the pixel is known, plus the photon noise of light that stands out."""
    known = weight > 0
    base = np.where(known, 1 / np.where(known, weight, np.float32(1)), np.float32(sky))
    light = np.where(model > np.float32(2 * np.sqrt(floor)), model, np.float32(0))
    return np.asarray(base + light * photons, np.float32)


def _grown(flags: Flags, bits: PixelFlag, radius: int) -> Bool:
    """Return the pixels with any of the bits, and those within a radius (rows and columns) of them."""
    mask = flags & np.uint16(bits) > 0
    if radius and mask.any():
        grown = maximum_filter1d(mask.astype(np.uint8), 2 * radius + 1, axis=0, mode="constant")
        mask = maximum_filter1d(grown, 2 * radius + 1, axis=1, mode="constant") > 0
    return np.asarray(mask, bool)
