"""A new image and its aligned reference on common pixels: what every method of subtraction begins with.

A method is a function ``(Paired, Errors) -> Planes``.
"""

from dataclasses import dataclass, replace

import numpy as np

from seechange_core.frames import Bool, CalibratedImage, Float, Float32, Int, PsfModel
from seechange_core.numerics.alignment import Aligned
from seechange_core.numerics.background import estimate, level_map
from seechange_core.numerics.psf_field import fit_field
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

    def levelled(self, usable: Bool, mesh_pix: int) -> "Planes":
        """Take out the background that is left, from the difference and from the score."""
        if not usable.any():
            return self
        weight = np.where(usable, 1 / np.where(usable, self.variance, np.float32(1)), np.float32(0))
        flags = np.zeros(usable.shape, np.uint16)
        level = level_map(estimate(self.difference, weight, flags, step_pix=mesh_pix))
        return replace(
            self,
            difference=self.difference - level,
            score=np.asarray(self.score - level * np.sqrt(weight / self.sharpness), np.float32),
        )

    def with_star_errors(self, usable: Bool, hot: Bool, fwhm_pix: float, default: float) -> "Planes":
        """Count as noise, in score and variance, what static light leaves, as measured on these planes."""
        sigma = np.sqrt(np.maximum(self.variance, np.float32(1e-20)) / self.sharpness)
        factor = excess_variance(self.score, self.light, sigma, usable, hot, fwhm_pix, default)
        return replace(
            self, score=np.asarray(self.score / np.sqrt(factor), np.float32), variance=self.variance * factor
        )
