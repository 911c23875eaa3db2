"""Resample an image onto another pixel grid without moving or losing light.

Interpolating B-splines of order 5 (Thevenaz, Blu & Unser 2000, IEEE TMI 19, 739): the prefilter makes
them pass through the samples, so centroids stay put where truncated kernels shift them.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import Bool, Box, Flags, Float, Float32, WcsSolution
from seechange_core.numerics.inpaint import fill_unusable
from seechange_core.numerics.spline import quintic_coefficients
from seechange_core.numerics.spline_reading import STEP_PIX, read_spline

_MARGIN = 16
"""Pixels around a cut-out of the source that the prefilter needs to forget its edge."""


@dataclass(frozen=True, eq=False)
class CoordinateGrid:
    """Where the pixels of a target box fall in a source image.

    Attributes
    ----------
    x, y
        (ny, nx) source pixels at target pixels ``box.y0 + STEP_PIX * i``, ``box.x0 + STEP_PIX * j``.
    area
        (ny, nx) source pixels per target pixel.
    box
        Of the target; may reach beyond its image.
    """

    x: Float
    y: Float
    area: Float
    box: Box

    @property
    def target(self) -> tuple[Float, Float]:
        """(ny, nx) target pixels of the nodes, x and y."""
        i, j = np.indices(self.x.shape, dtype=float)
        return np.asarray(self.box.x0 + STEP_PIX * j), np.asarray(self.box.y0 + STEP_PIX * i)

    def spread(self, values: Float) -> Float32:
        """Interpolate (ny, nx) values at the nodes to the (h, w) pixels of the box, bilinearly.

        Equal values take no memory: the result is then one number seen (h, w) times, and read-only.
        """
        if np.ptp(values) == 0:
            return np.broadcast_to(np.float32(values.flat[0]), self.box.shape)
        out = np.empty(self.box.shape, np.float32)
        _spread(values.astype(np.float32), out)
        return out

    def at(self, x: Float, y: Float) -> tuple[Float, Float]:
        """Convert target pixels to source pixels (bilinear)."""
        u, v = (np.asarray(x) - self.box.x0) / STEP_PIX, (np.asarray(y) - self.box.y0) / STEP_PIX
        j = np.clip(u.astype(int), 0, self.x.shape[1] - 2)
        i = np.clip(v.astype(int), 0, self.x.shape[0] - 2)
        fx, fy = u - j, v - i

        def blend(a: Float) -> Float:
            lower = a[i, j] * (1 - fx) + a[i, j + 1] * fx
            upper = a[i + 1, j] * (1 - fx) + a[i + 1, j + 1] * fx
            return np.asarray(lower * (1 - fy) + upper * fy)

        return blend(self.x), blend(self.y)

    def jacobian(self, x: float, y: float) -> Float:
        """Return d(source x, source y) / d(target x, target y) at a target pixel, (2, 2)."""
        return np.asarray(self.jacobians(np.array([x]), np.array([y]))[0], float)

    def jacobians(self, x: Float, y: Float) -> Float:
        """Return those of many target pixels, (n, 2, 2)."""
        u, v = self.at(np.concatenate([x + 8, x - 8, x, x]), np.concatenate([y, y, y + 8, y - 8]))
        right, left, above, below = np.array([u, v]).reshape(2, 4, -1).transpose(1, 0, 2)
        return np.moveaxis(np.array([right - left, above - below]), (0, 1, 2), (2, 1, 0)) / 16

    def part(self, around: Box) -> tuple["CoordinateGrid", tuple[slice, slice]]:
        """Return the grid of a smaller box, widened to begin at a node, and which nodes it has."""
        first_i = max((around.y0 - self.box.y0) // STEP_PIX, 0)
        first_j = max((around.x0 - self.box.x0) // STEP_PIX, 0)
        y0, x0 = self.box.y0 + first_i * STEP_PIX, self.box.x0 + first_j * STEP_PIX
        box = Box(y0, min(around.y1, self.box.y1), x0, min(around.x1, self.box.x1))
        count_i, count_j = -(-box.shape[0] // STEP_PIX) + 1, -(-box.shape[1] // STEP_PIX) + 1
        nodes = slice(first_i, first_i + count_i), slice(first_j, first_j + count_j)
        return CoordinateGrid(self.x[nodes], self.y[nodes], self.area[nodes], box), nodes

    def shifted(self, dx: float, dy: float) -> "CoordinateGrid":
        """Return the grid that reads the source `dx`, `dy` source pixels further on."""
        return CoordinateGrid(self.x + dx, self.y + dy, self.area, self.box)


@dataclass(frozen=True, eq=False)
class Warped:
    """An image on another grid.

    Attributes
    ----------
    data
        (h, w) float32, flux per target pixel; 0 outside the source.
    weight
        (h, w) float32: 1 / (noise power per target pixel), i.e. what the variance would be if the
        noise were white; sums over apertures and PSF fits get their right errors from it. The
        pixels' own scatter is smaller, because interpolation correlates neighbours.
    flags
        (h, w) uint16: those of the nearest source pixel and its 8 neighbours.
    """

    data: Float32
    weight: Float32
    flags: Flags


def coordinate_grid(source: WcsSolution, target: WcsSolution, box: Box | None = None) -> CoordinateGrid:
    """Map a box of the target to source pixels through both WCSs.

    Parameters
    ----------
    source, target
        WCS of the pixels to read and of the pixels to make.
    box
        Of target pixels; the whole target by default.
    """
    if box is None:
        box = Box(0, target.shape[0], 0, target.shape[1])
    ty = box.y0 + STEP_PIX * np.arange(-(-box.shape[0] // STEP_PIX) + 1.0)
    tx = box.x0 + STEP_PIX * np.arange(-(-box.shape[1] // STEP_PIX) + 1.0)
    grid_y, grid_x = np.meshgrid(ty, tx, indexing="ij")
    ra, dec = target.to_sky(grid_x.ravel(), grid_y.ravel())
    x, y = source.to_pixels(ra, dec)
    x, y = x.reshape(grid_x.shape), y.reshape(grid_x.shape)
    dxy, dxx = np.gradient(x, STEP_PIX)
    dyy, dyx = np.gradient(y, STEP_PIX)
    return CoordinateGrid(x, y, np.abs(dxx * dyy - dxy * dyx), box)


def warp(
    data: Float32,
    weight: Float32,
    flags: Flags,
    source: WcsSolution,
    target: WcsSolution,
    box: Box | None = None,
) -> Warped:
    """Resample an image, its weight and its flags onto the pixels of another WCS.

    Parameters
    ----------
    data
        (H, W) float32, background removed or smooth; unusable pixels may hold anything.
    weight
        (H, W) float32, 1 / variance, 0 where unusable.
    flags
        (H, W) uint16 `PixelFlag` bits.
    source, target
        WCS of the input and of the output.
    box
        Of target pixels to make; may reach beyond the target's image. The whole target by default.
    """
    return warp_by_grid(data, weight, flags, coordinate_grid(source, target, box))


def warp_by_grid(
    data: Float32, weight: Float32, flags: Flags, grid: CoordinateGrid, known: Bool | None = None
) -> Warped:
    """Resample with the coordinates already known; see `warp`.

    Pixels that are `known`, (H, W), are interpolated across as they are though they are unusable: the cores
    of saturated stars that were rebuilt, without which the spline rings into the pixels around.
    """
    prepared = prepare(data, weight, flags, grid, known)
    return gather(prepared, grid)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A part of a source ready to be read anywhere.

    Attributes
    ----------
    coefficients
        (h, w) float32 of the spline.
    weight, flags
        (h, w); flags are those of a pixel and its 8 neighbours.
    box
        Which part of the source.
    """

    coefficients: Float32
    weight: Float32
    flags: Flags
    box: Box


def prepare(
    data: Float32, weight: Float32, flags: Flags, grid: CoordinateGrid, known: Bool | None = None
) -> Prepared | None:
    """Prefilter the part of a source that a grid needs; None if they don't overlap. See `warp_by_grid`."""
    cut = source_box(grid, data.shape)
    if cut is None:
        return None
    usable = (flags[cut.slices] & np.uint16(UNUSABLE)) == 0
    usable &= weight[cut.slices] > 0
    filled = fill_unusable(data[cut.slices], usable if known is None else usable | known[cut.slices])
    coefficients = quintic_coefficients(filled)
    return Prepared(coefficients, weight[cut.slices], _dilated(flags[cut.slices], usable), cut)


def gather(prepared: Prepared | None, grid: CoordinateGrid) -> Warped:
    """Read a prepared source at the places of a grid, which may differ a little from the one it was for."""
    shape = grid.box.shape
    out = np.zeros(shape, np.float32)
    out_weight = np.zeros(shape, np.float32)
    out_flags = np.full(shape, PixelFlag.OUT_OF_BOUNDS, np.uint16)
    if prepared is not None:
        read_spline(
            prepared.coefficients, prepared.weight, prepared.flags, grid.x - prepared.box.x0,
            grid.y - prepared.box.y0, grid.area, out, out_weight, out_flags,
        )  # fmt: skip
    return Warped(out, out_weight, out_flags)


def edge_taper(grid: CoordinateGrid, source_shape: tuple[int, int], width_pix: float) -> Float32:
    """Return how far inside the source each target pixel lies: 0 at its edge, 1 from `width_pix` on.

    Parameters
    ----------
    grid
        Where target pixels fall in the source.
    source_shape
        (H, W) of the source.
    width_pix
        Source pixels.

    Returns
    -------
    Float32
        (h, w) of the grid's box, a small positive number outside the source.
    """
    out = np.empty(grid.box.shape, np.float32)
    _taper(grid.x, grid.y, source_shape[1], source_shape[0], 1 / width_pix, out)
    return out


def source_box(grid: CoordinateGrid, shape: tuple[int, ...]) -> Box | None:
    """Return the part of a source that the target box needs, margins included; None if they don't overlap."""
    good = np.isfinite(grid.x) & np.isfinite(grid.y)
    if not good.any():
        return None
    x, y = grid.x[good], grid.y[good]
    y0, y1 = max(0, int(y.min()) - _MARGIN), min(shape[0], int(np.ceil(y.max())) + _MARGIN)
    x0, x1 = max(0, int(x.min()) - _MARGIN), min(shape[1], int(np.ceil(x.max())) + _MARGIN)
    return Box(y0, y1, x0, x1) if y1 > y0 and x1 > x0 else None


def _dilated(flags: Flags, usable: Bool) -> Flags:
    """Spread each pixel's bits to its 8 neighbours; unusable pixels without a bit get NO_DATA."""
    out = np.empty_like(flags)
    _spread_bits(flags, usable, np.uint16(UNUSABLE), np.uint16(PixelFlag.NO_DATA), out)
    return out


@njit(cache=True, nogil=True)
def _spread_bits(flags: Flags, usable: Bool, named: np.uint16, nameless: np.uint16, out: Flags) -> None:
    height, width = flags.shape
    own = np.zeros((3, width), np.uint16)
    line = np.zeros(width + 2, np.uint16)
    for y in range(height + 1):
        fresh = own[y % 3]
        if y < height:
            for x in range(width):
                bits = flags[y, x]
                fresh[x] = bits if usable[y, x] or bits & named else bits | nameless
        else:
            fresh[:] = 0
        if y > 0:
            line[1:-1] = own[0] | own[1] | own[2]
            for x in range(width):
                out[y - 1, x] = line[x] | line[x + 1] | line[x + 2]


@njit(cache=True, nogil=True)
def _spread(nodes: Float32, out: Float32) -> None:
    """Interpolate between the nodes of a grid."""
    step = np.float32(1 / STEP_PIX)
    for i in range(out.shape[0]):
        row = i // STEP_PIX
        line = nodes[row] + np.float32(i - row * STEP_PIX) * step * (nodes[row + 1] - nodes[row])
        for j in range(out.shape[1]):
            col = j // STEP_PIX
            out[i, j] = line[col] + np.float32(j - col * STEP_PIX) * step * (line[col + 1] - line[col])


@njit(cache=True, nogil=True)
def _taper(grid_x: Float, grid_y: Float, width: int, height: int, slope: float, out: Float32) -> None:
    """Measure how far inside the source each target pixel lies, in units of 1 / slope, from 0.001 to 1."""
    for i in range(out.shape[0]):
        row = i // STEP_PIX
        fy = (i - row * STEP_PIX) / STEP_PIX
        line_x = grid_x[row] * (1 - fy) + grid_x[row + 1] * fy
        line_y = grid_y[row] * (1 - fy) + grid_y[row + 1] * fy
        for j in range(out.shape[1]):
            col = j // STEP_PIX
            fx = (j - col * STEP_PIX) / STEP_PIX
            x = line_x[col] + fx * (line_x[col + 1] - line_x[col])
            y = line_y[col] + fx * (line_y[col + 1] - line_y[col])
            inside = min(x + 1, width - x, y + 1, height - y)
            # Never quite 0: where an input is the only one, it is as good as any.
            out[i, j] = min(1.0, max(1e-3, inside * slope))
