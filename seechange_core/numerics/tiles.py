"""Cut an image into overlapping square tiles and blend what comes of them back together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from seechange_core.frames import Float32

_ROUNDING = 1e-5


@dataclass(frozen=True)
class Tile:
    """One tile of a canvas.

    Attributes
    ----------
    y, x
        First row and column in the canvas.
    centre_y, centre_x
        Of its core, canvas pixels.
    """

    y: int
    x: int
    centre_y: float
    centre_x: float


@dataclass(frozen=True)
class Tiling:
    """Tiles of one size over an image that lies in the middle of a wider canvas.

    Every tile has a core, a ramp in which it is blended with its neighbours, and a guard that keeps
    what wraps around in a Fourier transform away from both.

    Attributes
    ----------
    shape
        (H, W) of the image.
    core, ramp, guard
        Pixels: sides of a tile's core, width of the blend and of the guard on each side.
    """

    shape: tuple[int, int]
    core: int
    ramp: int
    guard: int

    @property
    def side(self) -> int:
        """Side of a tile."""
        return self.core + 2 * (self.ramp + self.guard)

    @property
    def margin(self) -> int:
        """Pixels of canvas before the image on each axis."""
        return self.ramp + self.guard

    @property
    def counts(self) -> tuple[int, int]:
        """Tiles along y and x."""
        return -(-self.shape[0] // self.core), -(-self.shape[1] // self.core)

    @property
    def canvas_shape(self) -> tuple[int, int]:
        """The image with what the outermost tiles need around it."""
        ny, nx = self.counts
        return ny * self.core + 2 * self.margin, nx * self.core + 2 * self.margin

    def __iter__(self) -> Iterator[Tile]:
        ny, nx = self.counts
        middle = self.margin + (self.core - 1) / 2
        for i in range(ny):
            for j in range(nx):
                y, x = i * self.core, j * self.core
                yield Tile(y, x, y + middle, x + middle)

    def window(self) -> Float32:
        """Return the (side, side) blending weights; those of neighbours add up to 1."""
        t = (np.arange(2 * self.ramp) + 0.5) / (2 * self.ramp) if self.ramp else np.zeros(0)
        rise = np.sin(0.5 * np.pi * t) ** 2
        guard = np.zeros(self.guard)
        line = np.concatenate([guard, rise, np.ones(self.core - 2 * self.ramp), rise[::-1], guard])
        return np.outer(line, line).astype(np.float32)

    def taper(self) -> Float32:
        """Return (side, side) factors that let a tile fall to nothing over the outer half of its guard.

        Filters are as long as a tile: where a bright star is cut, they would carry the step all over it.
        """
        width = self.guard // 2
        line = np.ones(self.side)
        line[:width] = np.sin(0.5 * np.pi * (np.arange(width) + 0.5) / max(width, 1)) ** 2
        line[self.side - width :] = line[:width][::-1]
        return np.outer(line, line).astype(np.float32)


class Mosaic:
    """Sums of windowed tiles over the image; what they have beyond it is dropped."""

    def __init__(self, tiling: Tiling) -> None:
        self.tiling = tiling
        self.total = np.zeros(tiling.shape, np.float32)
        self.window = tiling.window()

    def add(self, tile: Tile, values: Float32, factor: float = 1.0) -> None:
        """Add one tile's (side, side) values, times a factor."""
        m, guard = self.tiling.margin, self.tiling.guard
        _add(self.total, values, self.window, tile.y - m, tile.x - m, guard, np.float32(factor))

    def image(self) -> Float32:
        """Return the blended (H, W) image when all tiles are in.

        At the image's rim only the outermost tile contributes, and its window already falls there.
        """
        image, self.total = self.total, np.zeros((0, 0), np.float32)
        for axis, line in enumerate(_rim(self.tiling)):
            falls = np.flatnonzero(np.abs(line - 1) > _ROUNDING)
            if axis == 0:
                image[falls] /= line[falls, None]
            else:
                image[:, falls] /= line[falls]
        return image


@njit(cache=True, nogil=True)
def _add(
    total: Float32, values: Float32, window: Float32, y: int, x: int, guard: int, factor: np.float32
) -> None:
    """Add windowed values at a corner, which may lie outside; in the guard the window is 0."""
    side = values.shape[0]
    first, last = max(guard, -x), min(side - guard, total.shape[1] - x)
    for i in range(max(guard, -y), min(side - guard, total.shape[0] - y)):
        line, own, share = total[y + i, x + first : x + last], values[i, first:last], window[i, first:last]
        for j in range(last - first):
            line[j] += own[j] * share[j] * factor


def _rim(tiling: Tiling) -> tuple[Float32, Float32]:
    """Return the sum of the windows along y and x of the image: 1 but for the rim."""
    line = tiling.window()[tiling.side // 2]
    sums = []
    for count, length in zip(tiling.counts, tiling.shape, strict=True):
        total = np.zeros(count * tiling.core + 2 * tiling.margin, np.float32)
        for i in range(count):
            total[i * tiling.core : i * tiling.core + tiling.side] += line
        sums.append(total[tiling.margin : tiling.margin + length])
    return sums[0], sums[1]
