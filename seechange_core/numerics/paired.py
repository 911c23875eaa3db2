"""A new image and its aligned reference on common pixels: what every method of subtraction begins with.

A method is a function ``(Paired, Errors) -> Planes``.
"""

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from scipy.ndimage import maximum_filter

from seechange_core.flags import PixelFlag
from seechange_core.frames import Bool, CalibratedImage, Float, Float32, Int, PsfModel
from seechange_core.numerics.alignment import Aligned
from seechange_core.numerics.background import estimate, level_map
from seechange_core.numerics.psf_field import fit_field
from seechange_core.numerics.row_streaks import row_streaks, seen_by_filter
from seechange_core.numerics.star_errors import excess_variance
from seechange_core.numerics.tiles import Tile, Tiling


@dataclass(frozen=True, eq=False)
class Canvas:
    """The new image, its background removed, in the middle of the aligned reference's wider box.

    Attributes
    ----------
    data, weight
        (h, w) float32, electrons and e-^-2; 0 where unusable and beyond the image.
    usable
        (h, w).
    """

    data: Float32
    weight: Float32
    usable: Bool


@dataclass(frozen=True, eq=False)
class Plan:
    """For every tile that can be subtracted: which reference gives it, and that one's PSF there.

    Attributes
    ----------
    tiling, tiles
        All tiles, and those that have a reference.
    members
        (n_tiles,) index into `Aligned.members`.
    x, y
        (n_tiles,) middles of the tiles, pixels of the new image.
    psf_ref
        (n_tiles, size, size) float32: the reference's PSF there on the new image's pixels, without the
        blur of the interpolation.
    """

    tiling: Tiling
    tiles: list[Tile]
    members: Int
    x: Float
    y: Float
    psf_ref: Float32

    def ref_model(self) -> PsfModel:
        """Return the aligned reference's PSF as a function of place."""
        return fit_field(self.psf_ref, self.x, self.y, self.tiling.shape, 2, 0, 0.0)


def make_plan(aligned: Aligned, tiling: Tiling) -> Plan:
    """Choose the reference of each tile."""
    tiles, members = [], []
    for tile in tiling:
        span = slice(tile.y, tile.y + tiling.side), slice(tile.x, tile.x + tiling.side)
        member = aligned.member_at(*span)
        if member >= 0:
            tiles.append(tile)
            members.append(member)
    x = np.array([t.centre_x for t in tiles]) - tiling.margin
    y = np.array([t.centre_y for t in tiles]) - tiling.margin
    chosen = np.array(members, np.int64)
    return Plan(tiling, tiles, chosen, x, y, aligned.psf_stamps(chosen, x, y))


@dataclass(frozen=True, eq=False)
class Paired:
    """Both images on common pixels.

    Attributes
    ----------
    new
        The new image.
    canvas
        Its pixels; `aligned` has the same shape.
    aligned
        The reference, registered and scaled.
    plan
        The tiles in which PSFs and noise count as constant.
    """

    new: CalibratedImage
    canvas: Canvas
    aligned: Aligned
    plan: Plan

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the new image lies in the canvas."""
        return inner_of(self.plan.tiling)

    def hot(self) -> Bool:
        """Return the pixels of saturated stars in either image, of the canvas's shape."""
        bits = np.uint16(PixelFlag.SATURATED | PixelFlag.BLEED)
        hot = (self.aligned.flags & bits) > 0
        hot[self.inner] |= (self.new.image.flags & bits) > 0
        return np.asarray(hot, bool)


def inner_of(tiling: Tiling) -> tuple[slice, slice]:
    """Return where the image lies in the canvas of its tiles."""
    m, (height, width) = tiling.margin, tiling.shape
    return slice(m, m + height), slice(m, m + width)


@dataclass(frozen=True)
class Errors:
    """What is uncertain about a pair beyond the noise of its pixels.

    Attributes
    ----------
    shift_pix
        Registration error along x and y, pixels.
    kernel
        Relative error of PSFs and flux ratio: of fluxes, and of static light where it cannot be measured.
    """

    shift_pix: tuple[float, float]
    kernel: float


@dataclass(frozen=True, eq=False)
class Planes:
    """The images of a subtraction, all of the new image's shape (H, W) float32.

    Attributes
    ----------
    difference
        Electrons of the new image.
    score
        Matched-filtered, in sigma.
    variance
        Per pixel, e-^2: of a point-source flux measured there, times `sharpness`.
    light
        Static light through the score's filter: a star's flux at its place, electrons.
    sharpness
        Sum of the squared PSF of the difference.
    stamps
        (n_tiles, size, size) float32: PSF of the difference at the tiles of the plan.
    translient
        (2, H, W) float32, sigma (see `translient`); None if it was not asked for.
    hits
        (H, W) bool: pixels of the new image that no source can be (see `residual_pixels`); None for none.
    kernel_error
        Relative error of fluxes and PSFs that the method itself found; `Errors.kernel` holds what was known
        before.
    scale
        (n_tiles,) by what the method multiplied the aligned reference's fluxes at the tiles; None for 1.
    """

    difference: Float32
    score: Float32
    variance: Float32
    light: Float32
    sharpness: Float32
    stamps: Float32
    translient: Float32 | None = None
    hits: Bool | None = None
    kernel_error: float = 0.0
    scale: Float | None = None

    def levelled(self, usable: Bool, mesh_pix: int) -> "Planes":
        """Take out the background that is left, from the difference and from the score."""
        if not usable.any():
            return self
        flags = np.zeros(usable.shape, np.uint16)
        level = level_map(estimate(self.difference, usable.astype(np.float32), flags, step_pix=mesh_pix))
        planes = self.difference, self.score, self.variance, self.sharpness
        difference, score = _without(level, *planes, usable)
        return replace(self, difference=difference, score=score)

    def without_row_streaks(self, usable: Bool, hot: Bool) -> "Planes":
        """Take out what saturated stars have done to the zero level of their rows."""
        streaks = row_streaks(self.difference, usable, hot)
        if streaks is None:
            return self
        planes = self.difference, self.score, self.variance, self.sharpness
        _, score = _without(seen_by_filter(streaks, self.stamps), *planes, usable)
        return replace(self, difference=self.difference - streaks, score=score)

    def with_star_errors(
        self, usable: Bool, hot: Bool, odd: Float32, fwhm_pix: float, default: float
    ) -> "Planes":
        """Count as noise, in score and variance, what static light leaves, as measured on these planes."""
        factor = excess_variance(self.score, self.light, self.sigma(), usable, hot, odd, fwhm_pix, default)
        moved = self.translient
        if moved is not None:
            # What moves is judged by its ratio to the score, so it counts the same errors: those of the
            # middle also where the flanks of what only changed look like a shift.
            near = maximum_filter(factor, 2 * round(fwhm_pix) + 1)
            moved = (moved / np.sqrt(near)).astype(np.float32)
        score = _noisier(self.score, self.variance, factor)
        return replace(self, score=score, variance=factor, translient=moved)

    def sigma(self) -> Float32:
        """Return the noise of a point-source flux at each pixel, electrons."""
        return _sigma(self.variance, self.sharpness)


@njit(cache=True, nogil=True, error_model="numpy")
def _without(
    level: Float32, difference: Float32, score: Float32, variance: Float32, sharpness: Float32, usable: Bool
) -> tuple[Float32, Float32]:
    """Subtract a background from a difference, and from the score where that has noise."""
    left, scored = np.empty_like(difference), np.empty_like(score)
    for y in range(left.shape[0]):
        for x in range(left.shape[1]):
            left[y, x] = difference[y, x] - level[y, x]
            scored[y, x] = score[y, x]
            if usable[y, x]:
                scored[y, x] -= level[y, x] / np.sqrt(variance[y, x] * sharpness[y, x])
    return left, scored


@njit(cache=True, nogil=True, error_model="numpy")
def _noisier(score: Float32, variance: Float32, factor: Float32) -> Float32:
    """Return the score where the variance is larger by a factor, which becomes that variance, in place."""
    scored = np.empty_like(score)
    for y in range(factor.shape[0]):
        for x in range(factor.shape[1]):
            scored[y, x] = score[y, x] / np.sqrt(factor[y, x])
            factor[y, x] *= variance[y, x]
    return scored


@njit(cache=True, nogil=True, error_model="numpy")
def _sigma(variance: Float32, sharpness: Float32) -> Float32:
    out = np.empty_like(variance)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = np.sqrt(max(variance[y, x], np.float32(1e-20)) / sharpness[y, x])
    return out
