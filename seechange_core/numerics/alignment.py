"""Bring references onto the pixels and the flux scale of a new image, as one image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import Bool, Box, CalibratedImage, Flags, Float, Float32, Int, ZeroPointSolution
from seechange_core.numerics.background import level_map
from seechange_core.numerics.noise_spectrum import coadd_noise_power, warped_noise_power
from seechange_core.numerics.psf import evaluate
from seechange_core.numerics.psf_field import warp_stamps
from seechange_core.numerics.resample import (
    CoordinateGrid,
    Prepared,
    Warped,
    coordinate_grid,
    gather,
    prepare,
)
from seechange_core.numerics.spline_reading import STEP_PIX
from seechange_core.numerics.star_cores import fill_cores

_OUTSIDE = int(PixelFlag.OUT_OF_BOUNDS)


@dataclass(frozen=True, eq=False)
class Shift:
    """A displacement that is quadratic in position.

    Attributes
    ----------
    coefficients
        (6, 2): of 1, u, v, u^2, u v, v^2 for x and y, pixels, with u = (x - x0) / scale.
    centre, scale
        Pixels.
    """

    coefficients: Float
    centre: tuple[float, float]
    scale: float

    def basis(self, x: Float, y: Float) -> Float:
        """Return the terms at positions, (..., 6)."""
        u, v = (x - self.centre[0]) / self.scale, (y - self.centre[1]) / self.scale
        return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)

    def at(self, x: Float, y: Float) -> tuple[Float, Float]:
        """Return the displacement at positions, pixels."""
        dx, dy = np.moveaxis(self.basis(x, y) @ self.coefficients, -1, 0)
        return dx, dy


@dataclass(frozen=True, eq=False)
class Member:
    """One reference as it takes part in the aligned one.

    Attributes
    ----------
    image
        The reference.
    grid
        Where target pixels fall in it.
    scale
        (ny, nx) electrons of the new image per unit of its data, at the nodes of the grid.
    source
        Its pixels ready to be read, background removed and cores of saturated stars rebuilt; None if it
        does not touch the box.
    """

    image: CalibratedImage
    grid: CoordinateGrid
    scale: Float
    source: Prepared | None

    def psf_stamps(self, x: Float, y: Float) -> Float32:
        """Return its PSF at positions of the new image, on the new image's pixels, (n, size, size)."""
        px, py = self.grid.at(x, y)
        return warp_stamps(evaluate(self.image.psf, px, py), self.grid.jacobians(x, y))

    def weight_at(self, x: Float, y: Float) -> Float:
        """Return its weight at positions of the new image, on that one's flux scale; 0 outside of it."""
        if self.source is None:
            return np.zeros(len(x))
        px, py = self.grid.at(x, y)
        column = np.rint(px).astype(int) - self.source.box.x0
        row = np.rint(py).astype(int) - self.source.box.y0
        height, width = self.source.weight.shape
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        weight = self.source.weight[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        return np.where(inside, weight / float(np.median(self.scale)) ** 2, 0.0)

    def read(self, around: Box | None = None) -> tuple[Warped, Box, Float32]:
        """Read the whole box, or a smaller one widened to the nodes of the grid, on the new flux scale.

        Returns
        -------
        tuple
            The pixels, which box they are, and the flux scale at each of them.
        """
        grid, nodes = self.grid, (slice(None), slice(None))
        if around is not None:
            grid, nodes = self.grid.part(around)
        warped, scale = gather(self.source, grid), grid.spread(self.scale[nodes])
        np.multiply(warped.data, scale, out=warped.data)
        np.divide(warped.weight, scale, out=warped.weight)
        np.divide(warped.weight, scale, out=warped.weight)
        return warped, grid.box, scale

    def photon_variance(self, weight: Float32, scale: Float32) -> Float32:
        """Return the variance per electron of source of pixels that were read, by weight and flux scale.

        The gain of a coadd is that of its usual pixels. As the noise of the sky, that of the light goes with
        the images that made a pixel.
        """
        frame = self.image.image
        photons = scale / np.float32(frame.gain)
        if frame.resamplings:
            known = frame.weight[::4, ::4][frame.weight[::4, ::4] > 0]
            usual = np.float32(np.median(known)) if known.size else np.float32(0)
            np.divide(photons * (usual / (scale * scale)), weight, out=photons, where=weight > 0)
        return photons

    def reached(self) -> Box | None:
        """Return the part of the box that its pixels reach, from node to node of the grid; None for none."""
        if self.source is None:
            return None
        (height, width), cut, grid = self.source.weight.shape, self.source.box, self.grid
        touched = np.ones((grid.x.shape[0] - 1, grid.x.shape[1] - 1), bool)
        for nodes, size in ((grid.x - cut.x0, width), (grid.y - cut.y0, height)):
            corners = np.array([nodes[:-1, :-1], nodes[1:, :-1], nodes[:-1, 1:], nodes[1:, 1:]])
            touched &= (corners.max(axis=0) >= -1) & (corners.min(axis=0) <= size)
        i, j = np.flatnonzero(touched.any(axis=1)), np.flatnonzero(touched.any(axis=0))
        if not len(i):
            return None
        y0, x0 = grid.box.y0, grid.box.x0
        y1, x1 = y0 + STEP_PIX * int(i[-1] + 1), x0 + STEP_PIX * int(j[-1] + 1)
        return Box(
            y0 + STEP_PIX * int(i[0]), min(y1, grid.box.y1), x0 + STEP_PIX * int(j[0]), min(x1, grid.box.x1)
        )

    def moved(self, shift: Shift, flux_ratio: float) -> "Member":
        """Return it with its sources displaced by a shift and its fluxes multiplied."""
        dx, dy = shift.at(*self.grid.target)
        box = self.grid.box
        jacobian = self.grid.jacobian((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
        x = self.grid.x - (jacobian[0, 0] * dx + jacobian[0, 1] * dy)
        y = self.grid.y - (jacobian[1, 0] * dx + jacobian[1, 1] * dy)
        return replace(self, grid=replace(self.grid, x=x, y=y), scale=self.scale * flux_ratio)


@dataclass(frozen=True, eq=False)
class Aligned:
    """One reference stitched from several, on a box of the new image's pixels.

    Attributes
    ----------
    data, weight, flags
        (h, w), backgrounds removed, electrons of the new image.
    photon_variance
        (h, w) float32: variance per electron of source.
    choice
        (h, w) int8: which member a pixel comes from, -1 for none.
    members
        The references that touch the box, without the pixels that were read.
    box
        Of the new image's pixels; may reach beyond it.
    """

    data: Float32
    weight: Float32
    flags: Flags
    photon_variance: Float32
    choice: np.ndarray
    members: tuple[Member, ...]
    box: Box

    @property
    def usable(self) -> Bool:
        """(h, w): where the reference can be subtracted."""
        return np.asarray((self.weight > 0) & (self.flags & np.uint16(UNUSABLE) == 0), bool)

    def member_at(self, rows: slice, columns: slice) -> int:
        """Tell which member gives most of a patch; -1 if none does."""
        if len(self.members) == 1:
            return 0 if (self.choice[rows, columns] == 0).any() else -1
        counts = np.bincount(self.choice[rows, columns].ravel() + 1, minlength=len(self.members) + 1)[1:]
        return int(np.argmax(counts)) if counts.any() else -1

    def psf_stamps(self, members: np.ndarray, x: Float, y: Float) -> Float32:
        """Return the PSFs of the given members at positions of the new image, on its pixels.

        The interpolation's own blur is not in them (see `noise_spectrum.cardinal_transfer`).
        """
        return psf_stamps(self.members, members, x, y)

    def noise_power(self, member: int, x: tuple[float, float], y: tuple[float, float], side: int) -> Float32:
        """Return the spectrum of a member's noise in a patch, 1 at frequency 0; see `noise_spectrum`."""
        chosen = self.members[member]
        power = warped_noise_power(chosen.grid, x, y, side)
        return power * coadd_noise_power(side) if chosen.image.image.resamplings else power


def flux_scale(source: ZeroPointSolution, grid: CoordinateGrid, zp: Float | float) -> Float:
    """Return what brings a source's fluxes to a zero point (a number, or one per node), (ny, nx)."""
    own = source.zp_at(grid.x, grid.y)
    return np.asarray(10 ** (0.4 * (zp - np.where(np.isfinite(own), own, source.zp))), float)


def psf_stamps(members: Sequence[Member], chosen: Int, x: Float, y: Float) -> Float32:
    """Return the PSFs of the chosen members at positions of the new image; see `Aligned.psf_stamps`."""
    size = max(m.image.psf.size for m in members)
    out = np.zeros((len(x), size, size), np.float32)
    for index, member in enumerate(members):
        rows = np.flatnonzero(chosen == index)
        if len(rows):
            edge = (size - member.image.psf.size) // 2
            inner = slice(edge, size - edge)
            out[rows, inner, inner] = member.psf_stamps(x[rows], y[rows])
    return out


def choose(members: Sequence[Member], x: Float, y: Float) -> Int:
    """Tell which member is best at each position of the new image; -1 where none has a usable pixel."""
    if not members:
        return np.full(len(x), -1)
    weights = np.array([m.weight_at(x, y) for m in members])
    return np.where(weights.max(axis=0) > 0, np.argmax(weights, axis=0), -1)


def prepare_members(
    new: CalibratedImage, references: Sequence[CalibratedImage], box: Box
) -> tuple[Member, ...]:
    """Get references ready to be read at the pixels of a box of the new image.

    The ratio of the fluxes is that of the zero points at each place of both.
    """
    members = []
    for ref in references:
        grid = coordinate_grid(ref.wcs, new.wcs, box)
        scale = flux_scale(ref.zero_point, grid, new.zero_point.zp_at(*grid.target))
        frame = ref.image
        data, known = fill_cores(
            frame.data - level_map(ref.background), frame.weight, frame.flags, ref.psf, frame.gain
        )
        members.append(Member(ref, grid, scale, prepare(data, frame.weight, frame.flags, grid, known)))
    return tuple(m for m in members if m.source is not None)


def align(new: CalibratedImage, references: Sequence[CalibratedImage], box: Box) -> Aligned:
    """Warp references onto a box of the new image's pixels and stitch them; see `stitch`."""
    return stitch(prepare_members(new, references, box), box)


def stitch(members: Sequence[Member], box: Box) -> Aligned:
    """Read members at their grids and put them together.

    Each pixel comes from the reference with the highest weight there: neighbouring references are made
    of the same exposures, so an average would not have less noise.
    """
    kept: list[Member] = []
    outside = np.uint16(_OUTSIDE)
    whole: Aligned | None = None
    for member in members:
        reached = member.reached()
        if reached is None:
            continue
        # Nothing is in the way of the first one.
        warped, part, scale = member.read(reached if kept else box)
        photons = member.photon_variance(warped.weight, scale)
        if whole is None:
            inside = warped.flags & outside == 0
            choice = inside.view(np.int8) - np.int8(1)
            whole = Aligned(warped.data, warped.weight, warped.flags, photons * inside, choice, (), box)
            kept.append(member)
            continue
        at = slice(part.y0 - box.y0, part.y1 - box.y0), slice(part.x0 - box.x0, part.x1 - box.x0)
        if _take_better(
            whole.data[at], whole.weight[at], whole.flags[at], whole.photon_variance[at], whole.choice[at],
            warped.data, warped.weight, warped.flags, photons, len(kept),
        ):  # fmt: skip
            kept.append(member)
    return replace(whole or _nothing(box), members=tuple(replace(m, source=None) for m in kept))


def _nothing(box: Box) -> Aligned:
    """Return a reference that has no pixel."""
    data, weight, photons = np.zeros((3, *box.shape), np.float32)
    flags = np.full(box.shape, _OUTSIDE, np.uint16)
    return Aligned(data, weight, flags, photons, np.full(box.shape, -1, np.int8), (), box)


@njit(cache=True, nogil=True)
def _take_better(
    data: Float32,
    weight: Float32,
    flags: Flags,
    photons: Float32,
    choice: np.ndarray,
    own_data: Float32,
    own_weight: Float32,
    own_flags: Flags,
    own_photons: Float32,
    index: int,
) -> bool:
    """Take the pixels of a reference that are better than those so far, in place; tell if there are any."""
    found = False
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            if own_flags[y, x] & _OUTSIDE:
                continue
            if choice[y, x] < 0 or own_weight[y, x] > weight[y, x]:
                data[y, x], weight[y, x] = own_data[y, x], own_weight[y, x]
                flags[y, x], photons[y, x] = own_flags[y, x], own_photons[y, x]
                choice[y, x] = index
                found = True
    return found
