"""Sky level and noise of an image with sources in it.

The level is the plain mean of the pixels that no source reaches. Sources are found on block means at three
scales (4, 12 and 28 pixels), so that faint extended light - wings, galaxies - is masked down to a small
fraction of the noise per pixel; positive and negative excursions are masked alike, so noise does not shift
the mean. The mesh is interpolated by natural cubic splines and corrected by the mean of what remains in each
cell until the *interpolated* map agrees with the unmasked pixels.
"""

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import CubicSpline

from seechange_core.errors import PixelsError
from seechange_core.flags import UNUSABLE
from seechange_core.frames import Background, Bool, Flags, Float, Float32
from seechange_core.numerics.wings import subtract_wings

_Index = npt.NDArray[np.intp]
BLOCK_PIX = 4
_SCALES_BLOCKS = (1, 3, 7)
_GROWTH_BLOCKS = (1, 1, 2)
_ROUNDS = 4
_MIN_FRACTION = 0.1


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
    cells = _cell_of_block(shape, step)
    level, rms = _first_guess(blocks, cells)
    splines = tuple(
        _spline_matrix(n, step, _block_centres(side)) for n, side in zip(level.shape, shape, strict=True)
    )
    for _ in range(_ROUNDS):
        clean = _clean_blocks(blocks, blocks.mean - splines[0] @ level @ splines[1].T, mask_sigma)
        for _ in range(3):
            remains = blocks.mean - splines[0] @ level @ splines[1].T
            level = level + _fill(*_cell_means(remains, clean, cells, step))
    remains = blocks.mean - splines[0] @ level @ splines[1].T
    # Mean square about the interpolated map: E[(d - b)^2] = E[d^2] - 2 b E[d] + b^2.
    about = blocks.square - blocks.mean**2 + remains**2
    variance = _fill(*_cell_means(about, clean, cells, step))
    rms = np.sqrt(np.maximum(variance, 0.0))
    return Background((level + blocks.offset).astype(np.float32), rms.astype(np.float32), step, shape)


def level_map(background: Background) -> Float32:
    """Return the (H, W) float32 sky level, electrons."""
    return _full_map(background.level.astype(float), background)


def without_background(data: Float32, background: Background) -> Float32:
    """Return an image without its sky and without the wings of bright sources, (H, W) float32."""
    left: Float32 = data - level_map(background)
    if background.wings is not None:
        subtract_wings(left, background.wings)
    return left


def rms_map(background: Background) -> Float32:
    """Return the (H, W) float32 sky noise, electrons: never below half the lowest cell."""
    rms = background.rms.astype(float)
    return np.maximum(_full_map(rms, background), np.float32(0.5 * rms.min()))


def _full_map(mesh: Float, background: Background) -> Float32:
    across = [
        _spline_matrix(n, background.step_pix, np.arange(side, dtype=float)).astype(np.float32)
        for n, side in zip(mesh.shape, background.shape, strict=True)
    ]
    # A large constant is added last, so that float32 products lose nothing.
    middle = float(np.median(mesh))
    spread = across[0] @ ((mesh - middle).astype(np.float32) @ across[1].T)
    full: Float32 = spread + np.float32(middle)
    return full


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


def _cell_of_block(shape: tuple[int, int], step: int) -> tuple[_Index, _Index]:
    rows, columns = (np.arange(0, side, BLOCK_PIX) // step for side in shape)
    return rows, columns


def _first_guess(blocks: _Blocks, cells: tuple[_Index, _Index]) -> tuple[Float, Float]:
    """Return the median of block means in each cell, and their scatter."""
    shape = cells[0][-1] + 1, cells[1][-1] + 1
    level = np.zeros(shape)
    found = np.zeros(shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            inside = np.ix_(cells[0] == row, cells[1] == column)
            means = blocks.mean[inside][blocks.count[inside] > BLOCK_PIX]
            if means.size:
                level[row, column] = np.median(means)
                found[row, column] = means.size
    return _fill(level, found / max(found.max(), 1)), found


def _clean_blocks(blocks: _Blocks, remains: Float, mask_sigma: float) -> Float:
    """Return the blocks' weights: their usable pixels, 0 where a source is seen at any scale."""
    clean = np.where(blocks.count > 0, blocks.count, 0.0)
    for scale, growth in zip(_SCALES_BLOCKS, _GROWTH_BLOCKS, strict=True):
        total = ndimage.uniform_filter(remains * clean, scale, mode="constant")
        count = ndimage.uniform_filter(clean, scale, mode="constant")
        # Enough pixels, and the mean over them in units of one full block's noise.
        enough = count > 0.25 * BLOCK_PIX**2
        score = np.where(enough, total / np.sqrt(np.maximum(count, 1e-9)), 0.0)
        seen = score[enough]
        if not seen.size:
            continue
        # The noise is taken from the negative side, where no source is.
        low = -seen[seen < 0]
        sigma = 1.4826 * float(np.median(low)) if low.size else 0.0
        found = np.abs(score) > mask_sigma * sigma if sigma > 0 else np.zeros(score.shape, bool)
        clean = np.where(ndimage.maximum_filter(found, 2 * growth + 1, mode="constant"), 0.0, clean)
    return clean


def _cell_means(
    values: Float, weights: Float, cells: tuple[_Index, _Index], step: int
) -> tuple[Float, Float]:
    """Return the weighted mean in each cell and which fraction of a full cell it rests on."""
    shape = cells[0][-1] + 1, cells[1][-1] + 1
    index = (cells[0][:, None] * shape[1] + cells[1][None, :]).ravel()
    n_cells = shape[0] * shape[1]
    total = np.bincount(index, (values * weights).ravel(), n_cells).reshape(shape)
    count = np.bincount(index, weights.ravel(), n_cells).reshape(shape)
    return total / np.maximum(count, 1e-9), count / step**2


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
