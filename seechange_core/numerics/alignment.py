"""Bring references onto the pixels and the flux scale of a new image, as one image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import Bool, Box, CalibratedImage, Flags, Float, Float32, ZeroPointSolution
from seechange_core.numerics.background import level_map
from seechange_core.numerics.noise_spectrum import coadd_noise_power, warped_noise_power
from seechange_core.numerics.psf import evaluate
from seechange_core.numerics.psf_field import warp_stamps
from seechange_core.numerics.resample import CoordinateGrid, coordinate_grid, warp_by_grid


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
    """

    image: CalibratedImage
    grid: CoordinateGrid
    scale: Float


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
        The references that touch the box.
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
        counts = np.bincount(self.choice[rows, columns].ravel() + 1, minlength=len(self.members) + 1)[1:]
        return int(np.argmax(counts)) if counts.any() else -1

    def psf_stamps(self, members: np.ndarray, x: Float, y: Float) -> Float32:
        """Return the PSFs of the given members at positions of the new image, on its pixels.

        The interpolation's own blur is not in them (see `noise_spectrum.cardinal_transfer`).
        """
        size = max(m.image.psf.size for m in self.members)
        out = np.zeros((len(x), size, size), np.float32)
        for index, member in enumerate(self.members):
            rows = np.flatnonzero(members == index)
            if not len(rows):
                continue
            px, py = member.grid.at(x[rows], y[rows])
            jacobians = np.array([member.grid.jacobian(a, b) for a, b in zip(x[rows], y[rows], strict=True)])
            edge = (size - member.image.psf.size) // 2
            inner = slice(edge, size - edge)
            out[rows, inner, inner] = warp_stamps(evaluate(member.image.psf, px, py), jacobians)
        return out

    def noise_power(self, member: int, x: tuple[float, float], y: tuple[float, float], side: int) -> Float32:
        """Return the spectrum of a member's noise in a patch, 1 at frequency 0; see `noise_spectrum`."""
        chosen = self.members[member]
        power = warped_noise_power(chosen.grid, x, y, side)
        return power * coadd_noise_power(side) if chosen.image.image.resamplings else power


def flux_scale(source: ZeroPointSolution, grid: CoordinateGrid, zp: Float | float) -> Float:
    """Return what brings a source's fluxes to a zero point (a number, or one per node), (ny, nx)."""
    own = source.zp_at(grid.x, grid.y)
    return np.asarray(10 ** (0.4 * (zp - np.where(np.isfinite(own), own, source.zp))), float)


def align(new: CalibratedImage, references: Sequence[CalibratedImage], box: Box) -> Aligned:
    """Warp references onto a box of the new image's pixels and stitch them.

    Each pixel comes from the reference with the highest weight there: neighbouring references are made
    of the same exposures, so an average would not have less noise. The ratio of the fluxes is that of the
    zero points at each place of both.
    """
    members = []
    for ref in references:
        grid = coordinate_grid(ref.wcs, new.wcs, box)
        scale = flux_scale(ref.zero_point, grid, new.zero_point.zp_at(*grid.target))
        members.append(Member(ref, grid, scale))
    return stitch(members, box)


def stitch(members: Sequence[Member], box: Box) -> Aligned:
    """Warp members with their own grids and scales, and stitch them; see `align`."""
    data = np.zeros(box.shape, np.float32)
    weight = np.zeros(box.shape, np.float32)
    flags = np.zeros(box.shape, np.uint16)
    photons = np.zeros(box.shape, np.float32)
    choice = np.full(box.shape, -1, np.int8)
    kept: list[Member] = []
    outside = np.uint16(PixelFlag.OUT_OF_BOUNDS)
    for member in members:
        frame = member.image.image
        warped = warp_by_grid(
            frame.data - level_map(member.image.background), frame.weight, frame.flags, member.grid
        )
        inside = warped.flags & outside == 0
        scale = member.grid.spread(member.scale)
        scaled = warped.weight / scale
        scaled /= scale
        better = inside & ((choice < 0) | (scaled > weight))
        if not better.any():
            continue
        data[better] = warped.data[better] * scale[better]
        weight[better] = scaled[better]
        flags[better] = warped.flags[better]
        photons[better] = scale[better] / np.float32(frame.gain)
        choice[better] = len(kept)
        kept.append(member)
    flags[choice < 0] = outside
    return Aligned(data, weight, flags, photons, choice, tuple(kept), box)


def moved(aligned: Aligned, shift: Shift, flux_ratio: float, ignore_pix: float) -> Aligned:
    """Align again after the registration and the flux scale were measured.

    Parameters
    ----------
    aligned
        What was measured on.
    shift
        New positions minus reference positions, in pixels of the new image.
    flux_ratio
        New fluxes over aligned reference fluxes.
    ignore_pix
        Shifts below this everywhere are left: the pixels are only scaled.
    """
    members = []
    box = aligned.box
    corner_x, corner_y = (
        np.array([box.x0, box.x1, box.x0, box.x1]),
        np.array([box.y0, box.y0, box.y1, box.y1]),
    )
    if np.max(np.hypot(*shift.at(corner_x, corner_y))) < ignore_pix:
        return _scaled(aligned, flux_ratio)
    for m in aligned.members:
        dx, dy = shift.at(*m.grid.target)
        jacobian = m.grid.jacobian((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
        x = m.grid.x - (jacobian[0, 0] * dx + jacobian[0, 1] * dy)
        y = m.grid.y - (jacobian[1, 0] * dx + jacobian[1, 1] * dy)
        members.append(replace(m, grid=replace(m.grid, x=x, y=y), scale=m.scale * flux_ratio))
    return stitch(members, aligned.box)


def _scaled(aligned: Aligned, flux_ratio: float) -> Aligned:
    """Multiply the fluxes; shift nothing."""
    factor = np.float32(flux_ratio)
    return replace(
        aligned,
        data=aligned.data * factor,
        weight=aligned.weight / (factor * factor),
        photon_variance=aligned.photon_variance * factor,
        members=tuple(replace(m, scale=m.scale * flux_ratio) for m in aligned.members),
    )
