"""The sums of a stack of images on a common grid, tile by tile, and the coadds that can be made of them.

Memory holds the sums and one tile of each image: images may lie on disk and be read where they are sliced.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from seechange_core.frames import Bool, Box, CalibratedImage, Flags, Float, Float32, WcsSolution
from seechange_core.numerics.alignment import flux_scale
from seechange_core.numerics.background import level_map
from seechange_core.numerics.resample import (
    CoordinateGrid,
    Warped,
    coordinate_grid,
    edge_taper,
    source_box,
    warp_by_grid,
)
from seechange_core.numerics.stack import StackSums, Tolerance, find_outliers, stack_median
from seechange_core.numerics.star_cores import fill_cores

_TILE_BYTES = 150e6
"""Warped pixels kept in memory at a time."""
_BYTES_PER_PIXEL = 15
_HALO_PIX = 3
"""Clipping looks so far around a pixel."""


@dataclass(frozen=True)
class StackInput:
    """One image with the numbers that put it on the common scale.

    Attributes
    ----------
    image
        Its arrays may be anything that gives arrays when sliced.
    zp
        Zero point of the common scale; the pixels are scaled by the image's own at their place.
    boost
        Factor on its statistical weight.
    taper_pix
        Within so many pixels of its edge its weight falls to nothing, so that the stack's PSF does not jump
        where one input more begins.
    tolerance
        Of clipping.
    """

    image: CalibratedImage
    zp: float
    boost: float
    taper_pix: float
    tolerance: Tolerance

    def aligned(self, grid: WcsSolution, box: Box) -> tuple[Warped, Float32] | None:
        """Warp it onto a box of the grid, background removed, on the common flux scale.

        Returns
        -------
        tuple
            The pixels, and the factor on their statistical weight; None if it does not touch the box.
        """
        frame = self.image.image
        places = coordinate_grid(self.image.wcs, grid, box)
        cut = source_box(places, frame.shape)
        if cut is None:
            return None
        weight, flags = np.asarray(frame.weight[cut.slices]), np.asarray(frame.flags[cut.slices])
        data = np.asarray(frame.data[cut.slices]) - level_map(self.image.background, cut)
        near = CoordinateGrid(places.x - cut.x0, places.y - cut.y0, places.area, box)
        filled, known = fill_cores(data, weight, flags, self.image.psf, frame.gain, (cut.x0, cut.y0))
        w = warp_by_grid(filled, weight, flags, near, known)
        scale = places.spread(flux_scale(self.image.zero_point, places, self.zp))
        np.multiply(w.data, scale, out=w.data)
        np.divide(w.weight, scale * scale, out=w.weight)
        return w, np.float32(self.boost) * edge_taper(places, frame.shape, self.taper_pix)


@dataclass(frozen=True, eq=False)
class _Kept:
    """Which pixels of an image went into a tile's sums: what takes it out again exactly."""

    tile: Box
    index: int
    bits: npt.NDArray[np.uint8]

    def mask(self) -> Bool:
        count = self.tile.shape[0] * self.tile.shape[1]
        return np.unpackbits(self.bits, count=count).reshape(self.tile.shape).astype(bool)


class Stack:
    """The sums over all inputs.

    Parameters
    ----------
    inputs
        Images; more than one.
    grid
        Pixels to make.
    remember
        Note which pixels were clipped, for `without`.

    Attributes
    ----------
    sums
        (H, W) each.
    clipped
        (n, 2): pixels clipped and pixels usable of each input.
    """

    def __init__(self, inputs: Sequence[StackInput], grid: WcsSolution, remember: bool = False) -> None:
        self.inputs, self.grid = inputs, grid
        self.sums = StackSums.empty(grid.shape)
        self.clipped: Float = np.zeros((len(inputs), 2))
        self._kept: list[_Kept] | None = [] if remember else None
        for tile in _tiles(grid.shape, len(inputs)):
            self._add(tile)

    def without(self, index: int) -> StackSums:
        """Return the sums without one input; what was clipped stays clipped.

        Raises
        ------
        ValueError
            If what was clipped was not noted.
        """
        if self._kept is None:
            raise ValueError("the stack was made without `remember`")
        sums = StackSums(*(array.copy() for array in vars(self.sums).values()))
        for kept in self._kept:
            if kept.index == index:
                pair = self.inputs[index].aligned(self.grid, _grown(kept.tile))
                assert pair is not None  # it was there when the sums were made
                _accumulate(sums, kept.tile, pair, kept.mask(), -1)
        return sums

    def _add(self, tile: Box) -> None:
        """Add all inputs to one tile."""
        box = _grown(tile)
        found = [(i, pair) for i, one in enumerate(self.inputs) if (pair := one.aligned(self.grid, box))]
        if not found:
            return
        median = stack_median([w.data for _, (w, _) in found], [w.weight for _, (w, _) in found])
        for index, pair in found:
            warped = pair[0]
            keep = find_outliers(warped.data, warped.weight, median, self.inputs[index].tolerance)[_INNER]
            usable = warped.weight[_INNER] > 0
            self.clipped[index] += np.count_nonzero(usable & ~keep), np.count_nonzero(usable)
            _accumulate(self.sums, tile, pair, keep, 1)
            if self._kept is not None:
                self._kept.append(_Kept(tile, index, np.packbits(keep)))


_INNER = slice(_HALO_PIX, -_HALO_PIX), slice(_HALO_PIX, -_HALO_PIX)


def _accumulate(sums: StackSums, tile: Box, pair: tuple[Warped, Float32], keep: Bool, sign: int) -> None:
    warped, share = pair
    part = StackSums(*(array[tile.slices] for array in vars(sums).values()))
    inner: tuple[Float32, Float32, Flags] = (
        warped.data[_INNER],
        warped.weight[_INNER],
        warped.flags[_INNER],
    )
    part.add(*inner, keep, share[_INNER], sign)


def _grown(tile: Box) -> Box:
    return Box(tile.y0 - _HALO_PIX, tile.y1 + _HALO_PIX, tile.x0 - _HALO_PIX, tile.x1 + _HALO_PIX)


def _tiles(shape: tuple[int, int], n: int) -> list[Box]:
    """Cut a grid into tiles of which all inputs fit in memory together."""
    side = max(128, int(np.sqrt(_TILE_BYTES / (_BYTES_PER_PIXEL * n))))
    rows, columns = (np.linspace(0, size, -(-size // side) + 1).astype(int) for size in shape)
    return [
        Box(int(y0), int(y1), int(x0), int(x1)) for y0, y1 in pairwise(rows) for x0, x1 in pairwise(columns)
    ]
