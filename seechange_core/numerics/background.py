"""Sky level and noise of an image with sources in it.

The level is the plain mean of the pixels that no source reaches. Sources are found on block means at three
scales (4, 12 and 28 pixels), so that faint extended light - wings, galaxies - is masked down to a small
fraction of the noise per pixel; positive and negative excursions are masked alike, so noise does not shift
the mean. The mesh is interpolated by natural cubic splines and corrected by the mean of what remains in each
cell until the *interpolated* map agrees with the unmasked pixels.
"""

import math
from dataclasses import dataclass

import numba as nb
import numpy as np
from scipy import ndimage
from scipy.interpolate import CubicSpline

from seechange_core.errors import PixelsError
from seechange_core.flags import UNUSABLE
from seechange_core.frames import Background, Bool, Box, Flags, Float, Float32
from seechange_core.numerics.wings import subtract_wings

BLOCK_PIX = 4
_SCALES_BLOCKS = (1, 3, 7)
_GROWTH_BLOCKS = (1, 1, 2)
_ROUNDS = 4
_MIN_FRACTION = 0.1
#: The noise of block means is the median of about so many.
_NOISE_SAMPLE = 50_000


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Sums over blocks of `BLOCK_PIX` pixels: usable pixels, their mean and mean square about `offset`."""

    count: Float
    mean: Float
    square: Float
    offset: float


def usable_pixels(data: Float32, weight: Float32, flags: Flags) -> Bool:
    """Return the (H, W) mask of pixels that may enter a measurement."""
    usable: Bool = (weight > 0) & np.isfinite(data) & ((flags & np.uint16(UNUSABLE)) == 0)
    return usable


def estimate(
    data: Float32,
    weight: Float32,
    flags: Flags,
    mask: Bool | None = None,
    *,
    step_pix: int = 128,
    mask_sigma: float = 3.0,
) -> Background:
    """Estimate the background of an image.

    Parameters
    ----------
    data
        (H, W) float32, electrons, sky included.
    weight, flags
        (H, W) of the image; pixels of weight 0 or with unusable flags are left out.
    mask
        (H, W), True where a source is known; None if none is. Sources are searched for in any case.
    step_pix
        About how large a mesh cell is to be; cells are made to fill the image evenly.
    mask_sigma
        Excursions of block means beyond this many of their own sigmas count as sources.

    Returns
    -------
    Background
        Level and rms (of single pixels, sources masked), electrons. The level's bias is below
        1 % of the rms in fields that are not crowded.

    Raises
    ------
    PixelsError
        If no pixel is usable.
    """
    usable = usable_pixels(data, weight, flags)
    n_usable = int(np.count_nonzero(usable))
    if n_usable == 0:
        raise PixelsError(
            f"none of {data.size} pixels is usable",
            cure="look at its flags: masks or the raw frame are wrong",
        )
    if mask is not None and np.count_nonzero(usable & ~mask) > _MIN_FRACTION * n_usable:
        usable &= ~mask
    shape = (data.shape[0], data.shape[1])
    step = _even_step(shape, step_pix)
    blocks = _block_means(data, usable)
    level, found = _first_guess(blocks.mean, blocks.count, step // BLOCK_PIX)
    level = _fill(level, found / max(found.max(), 1))
    splines = tuple(
        _spline_matrix(n, step, _block_centres(side)) for n, side in zip(level.shape, shape, strict=True)
    )
    for _ in range(_ROUNDS):
        clean = _clean_blocks(blocks, blocks.mean - splines[0] @ level @ splines[1].T, mask_sigma)
        for _ in range(3):
            remains = blocks.mean - splines[0] @ level @ splines[1].T
            level = level + _fill(*_cell_means(remains, clean, step))
    remains = blocks.mean - splines[0] @ level @ splines[1].T
    # Mean square about the interpolated map: E[(d - b)^2] = E[d^2] - 2 b E[d] + b^2.
    about = blocks.square - blocks.mean**2 + remains**2
    variance = _fill(*_cell_means(about, clean, step))
    rms = np.sqrt(np.maximum(variance, 0.0))
    return Background((level + blocks.offset).astype(np.float32), rms.astype(np.float32), step, shape)


def level_map(background: Background, box: Box | None = None) -> Float32:
    """Return the sky level, electrons: (H, W) float32, or that of a box of pixels alone."""
    mesh = background.level.astype(float)
    spans = (slice(0, n) for n in background.shape) if box is None else box.slices
    across = [
        _spline_matrix(n, background.step_pix, np.arange(s.start, s.stop, dtype=float)).astype(np.float32)
        for n, s in zip(mesh.shape, spans, strict=True)
    ]
    # A large constant is added last, so that float32 products lose nothing.
    middle = float(np.median(mesh))
    spread = across[0] @ ((mesh - middle).astype(np.float32) @ across[1].T)
    spread += np.float32(middle)
    return np.asarray(spread, np.float32)


def without_background(data: Float32, background: Background) -> Float32:
    """Return an image without its sky and without the wings of bright sources, (H, W) float32."""
    left = level_map(background)
    np.subtract(data, left, out=left)
    if background.wings is not None:
        subtract_wings(left, background.wings)
    return left


def _even_step(shape: tuple[int, int], step_pix: int) -> int:
    """Return the cell size, a multiple of the block, that best fills the longer side without a sliver."""
    side = max(shape)
    cells = max(1, round(side / step_pix))
    return max(BLOCK_PIX, BLOCK_PIX * int(np.ceil(side / cells / BLOCK_PIX)))


def _block_centres(side: int) -> Float:
    """Return the mean pixel coordinate of each block along an axis; the last one may be narrower."""
    starts = np.arange(0, side, BLOCK_PIX)
    return (starts + np.minimum(starts + BLOCK_PIX, side) - 1) / 2


def _block_means(data: Float32, usable: Bool) -> _Blocks:
    sample = data[::8, ::8][usable[::8, ::8]]
    offset = float(np.median(sample if sample.size else data[usable]))
    count, total, square = _block_sums(data, usable, offset)
    n = np.maximum(count, 1)
    return _Blocks(count, total / n, square / n, offset)


@nb.njit(cache=True, nogil=True)
def _block_sums(data: Float32, usable: Bool, offset: float) -> tuple[Float, Float, Float]:
    height, width = data.shape
    rows = (height + BLOCK_PIX - 1) // BLOCK_PIX
    columns = (width + BLOCK_PIX - 1) // BLOCK_PIX
    count = np.zeros((rows, columns))
    total = np.zeros((rows, columns))
    square = np.zeros((rows, columns))
    for y in range(height):
        row = y // BLOCK_PIX
        for x in range(width):
            if usable[y, x]:
                column = x // BLOCK_PIX
                value = data[y, x] - offset
                count[row, column] += 1.0
                total[row, column] += value
                square[row, column] += value * value
    return count, total, square


@nb.njit(cache=True, nogil=True)
def _first_guess(mean: Float, count: Float, cell_blocks: int) -> tuple[Float, Float]:
    """Return the median of block means in each cell, and how many it is of."""
    side = cell_blocks
    level = np.zeros(((mean.shape[0] + side - 1) // side, (mean.shape[1] + side - 1) // side))
    found = np.zeros(level.shape)
    values = np.empty(side * side)
    for row in range(level.shape[0]):
        for column in range(level.shape[1]):
            n = 0
            for j in range(row * side, min((row + 1) * side, mean.shape[0])):
                for i in range(column * side, min((column + 1) * side, mean.shape[1])):
                    if count[j, i] > BLOCK_PIX:
                        values[n] = mean[j, i]
                        n += 1
            if n > 0:
                level[row, column] = np.median(values[:n])
                found[row, column] = n
    return level, found


def _clean_blocks(blocks: _Blocks, remains: Float, mask_sigma: float) -> Float:
    """Return the blocks' weights: their usable pixels, 0 where a source is seen at any scale."""
    clean = blocks.count.copy()
    for scale, growth in zip(_SCALES_BLOCKS, _GROWTH_BLOCKS, strict=True):
        score, low = _scores(remains, clean, scale // 2)
        # The noise is taken from the negative side, where no source is.
        low = low[:: max(1, len(low) // _NOISE_SAMPLE)]
        if low.size:
            _mask(clean, score, mask_sigma * 1.4826 * float(np.median(low)), growth)
    return clean


@nb.njit(cache=True, nogil=True)
def _scores(remains: Float, clean: Float, half: int) -> tuple[Float32, Float32]:
    """Return the mean in squares of blocks, in units of one pixel's noise, and minus those below 0.

    It is 0 where less than a quarter of a square is clean.
    """
    rows, columns = clean.shape
    enough = 0.25 * (BLOCK_PIX * (2 * half + 1)) ** 2
    score = np.zeros((rows, columns), np.float32)
    low = np.empty(rows * columns, np.float32)
    n = 0
    # Running sums down the columns, with a rim of nothing on both sides, and along the row.
    total = np.zeros(columns + 2 * half + 1)
    count = np.zeros(columns + 2 * half + 1)
    for y in range(-half, rows):
        if y + half < rows:
            for x in range(columns):
                count[half + 1 + x] += clean[y + half, x]
                total[half + 1 + x] += remains[y + half, x] * clean[y + half, x]
        if y - half > 0:
            for x in range(columns):
                count[half + 1 + x] -= clean[y - half - 1, x]
                total[half + 1 + x] -= remains[y - half - 1, x] * clean[y - half - 1, x]
        if y < 0:
            continue
        row_total = np.sum(total[: 2 * half + 1])
        row_count = np.sum(count[: 2 * half + 1])
        for x in range(columns):
            row_total += total[x + 2 * half + 1] - total[x]
            row_count += count[x + 2 * half + 1] - count[x]
            if row_count > enough:
                value = np.float32(row_total / math.sqrt(row_count))
                score[y, x] = value
                if value < 0:
                    low[n] = -value
                    n += 1
    return score, low[:n]


@nb.njit(cache=True, nogil=True)
def _mask(clean: Float, score: Float32, limit: float, growth: int) -> None:
    """Set blocks to 0 in place where the score is beyond the limit, and around there."""
    rows, columns = clean.shape
    for y in range(rows):
        for x in range(columns):
            if abs(score[y, x]) > limit:
                for j in range(max(0, y - growth), min(rows, y + growth + 1)):
                    clean[j, max(0, x - growth) : min(columns, x + growth + 1)] = 0.0


def _cell_means(values: Float, weights: Float, step: int) -> tuple[Float, Float]:
    """Return the weighted mean in each cell and which fraction of a full cell it rests on."""
    total, count = _cell_sums(values, weights, step // BLOCK_PIX)
    return total / np.maximum(count, 1e-9), count / step**2


@nb.njit(cache=True, nogil=True)
def _cell_sums(values: Float, weights: Float, cell_blocks: int) -> tuple[Float, Float]:
    rows, columns = values.shape
    total = np.zeros(((rows + cell_blocks - 1) // cell_blocks, (columns + cell_blocks - 1) // cell_blocks))
    count = np.zeros(total.shape)
    for y in range(rows):
        row = y // cell_blocks
        for column in range(total.shape[1]):
            line, weight = 0.0, 0.0
            for x in range(column * cell_blocks, min((column + 1) * cell_blocks, columns)):
                line += values[y, x] * weights[y, x]
                weight += weights[y, x]
            total[row, column] += line
            count[row, column] += weight
    return total, count


def _fill(values: Float, fraction: Float) -> Float:
    """Return the mesh with cells that rest on too few pixels replaced by their neighbours' mean."""
    bad = fraction < _MIN_FRACTION
    if not bad.any():
        return values
    if bad.all():
        bad = fraction <= 0
        if bad.all():
            return np.zeros(values.shape)
    filled = np.where(bad, 0.0, values)
    weights = np.where(bad, 0.0, fraction)
    known = ~bad
    while not known.all():
        total = ndimage.uniform_filter(filled * weights, 3, mode="constant")
        count = ndimage.uniform_filter(weights, 3, mode="constant")
        new = ~known & (count > 1e-6)
        filled[new] = total[new] / count[new]
        weights[new] = _MIN_FRACTION
        known |= new
    return filled


def _spline_matrix(n_cells: int, step: int, at: Float) -> Float:
    """Return the (len(at), n_cells) matrix that interpolates cell values by a natural cubic spline.

    Beyond the outermost cell centres it goes on in a straight line.
    """
    if n_cells == 1:
        return np.ones((len(at), 1))
    centres = np.arange(n_cells) * step + (step - 1) / 2
    spline = CubicSpline(centres, np.eye(n_cells), bc_type="natural")
    inside = np.clip(at, centres[0], centres[-1])
    matrix: Float = spline(inside) + spline(inside, 1) * (at - inside)[:, None]
    return matrix
