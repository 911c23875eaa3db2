"""How strong a fringe pattern is in an image."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from seechange_core.frames import Bool, Box, Float, Float32
from seechange_core.numerics.coarse_sky import SkyMesh, cell_edges, coarse_sky
from seechange_core.numerics.stats import mad_sigma

#: Pixels are averaged in blocks of this side: fringes are wider, and faint sources stand out.
BLOCK_PIX = 4
#: A pattern with more noise than this share of its power is no pattern.
_NOISE_SHARE_MAX = 0.8


class FringeFit(NamedTuple):
    """Strength of a pattern.

    Attributes
    ----------
    scale
        Electrons of fringe per electron of sky and unit of pattern; NaN if it cannot be measured.
    error
        Its standard error, from the scatter between parts of the image.
    sky_e
        Sky level that goes with it.
    """

    scale: float
    error: float
    sky_e: float


class _Blocks(NamedTuple):
    """Means over blocks of pixels: data, pattern, the pattern's variance, and how many pixels went in."""

    data: Float32
    pattern: Float32
    variance: Float32
    n_pixels: Float32


def fit_fringes(
    data: Float32,
    usable: Bool,
    pattern: Float32,
    pattern_variance: Float32,
    boxes: Sequence[Box],
    cell_pix: int,
) -> FringeFit:
    """Measure a fringe pattern's strength on the sky of an image.

    Robust regression of blocks of pixels on the pattern times the sky level. What is larger than a
    cell of the mesh is taken out of both alike, amplifier by amplifier; sources are clipped around
    the fitted pattern, so that strong fringes are not taken for them. The pattern's own noise would
    make the slope too small: its share is taken off.

    Parameters
    ----------
    data
        (H, W) float32, electrons, flat-fielded, sky included.
    usable
        (H, W) bool.
    pattern, pattern_variance
        (H, W) float32, per electron of sky.
    boxes
        Where the amplifiers lie in the image.
    cell_pix
        Side of a mesh cell: larger than fringes, smaller than gradients of the sky.

    Returns
    -------
    FringeFit
        NaN if there is no sky above 0, too little of it, or no pattern to measure.
    """
    parts = []
    for place in (box.slices for box in boxes):
        planes = (data[place], usable[place], pattern[place], pattern_variance[place])
        parts.append(_Blocks(*_average(*planes, BLOCK_PIX)))
    good = [_sky_blocks(part, cell_pix) for part in parts]
    if sum(int(g.sum()) for g in good) < 200:
        return FringeFit(np.nan, np.nan, np.nan)
    sky = float(np.median(np.concatenate([p.data[g] for p, g in zip(parts, good, strict=True)])))
    if sky <= 0:
        return FringeFit(np.nan, np.nan, sky)
    scale = error = np.nan
    for _ in range(10):
        before = scale
        flat = [_flatten(p, g, cell_pix) for p, g in zip(parts, good, strict=True)]
        scale, error = _slope(parts, good, flat, sky)
        if not np.isfinite(scale) or abs(scale - before) < 0.05 * error:
            break
        good = _clip(parts, flat, scale * sky, good)
    return FringeFit(scale, error, sky)


@njit(cache=True, nogil=True)
def _average(
    data: Float32, usable: Bool, pattern: Float32, variance: Float32, side: int
) -> tuple[Float32, Float32, Float32, Float32]:
    ny, nx = data.shape[0] // side, data.shape[1] // side
    out = np.zeros((4, ny, nx), dtype=np.float32)
    for j in range(ny):
        for i in range(nx):
            total = first = second = 0.0
            n = 0
            for y in range(j * side, (j + 1) * side):
                for x in range(i * side, (i + 1) * side):
                    if usable[y, x] and np.isfinite(data[y, x]) and np.isfinite(pattern[y, x]):
                        n += 1
                        total += data[y, x]
                        first += pattern[y, x]
                        if np.isfinite(variance[y, x]):
                            second += variance[y, x]
            if n > 0:
                out[0, j, i] = total / n
                out[1, j, i] = first / n
                out[2, j, i] = second / n**2
                out[3, j, i] = n
    return out[0], out[1], out[2], out[3]


def _cell(cell_pix: int) -> int:
    return max(4, cell_pix // BLOCK_PIX)


def _sky_blocks(part: _Blocks, cell_pix: int) -> Bool:
    """Return which blocks are sky at first sight; the scatter in a cell includes its fringes."""
    known: Bool = part.n_pixels >= BLOCK_PIX**2 / 2
    mesh = coarse_sky(part.data, known, _cell(cell_pix))
    near: Bool = np.abs(part.data - mesh.level_rows()) < 3 * mesh.sigma_rows()
    return known & near


def _flatten(part: _Blocks, good: Bool, cell_pix: int) -> tuple[Float32, Float32]:
    """Take the mean over mesh cells off data and pattern; a linear step, the same for both."""
    y_edges, x_edges = (cell_edges(n, _cell(cell_pix)) for n in good.shape)
    weight = np.where(good, part.n_pixels, np.float32(0))
    total = _cell_sums(weight, y_edges, x_edges)
    flat = []
    for plane in (part.data, part.pattern):
        sums = _cell_sums(weight * plane, y_edges, x_edges)
        # A cell without sky takes the mean of all.
        mean = np.where(total > 0, sums / np.maximum(total, 1), sums.sum() / max(float(total.sum()), 1.0))
        flat.append(plane - SkyMesh(mean, mean, y_edges, x_edges).level_rows())
    return flat[0], flat[1]


def _cell_sums(plane: Float32, y_edges: np.ndarray, x_edges: np.ndarray) -> Float:
    rows = np.add.reduceat(plane.astype(np.float64), y_edges[:-1], axis=0)
    return np.asarray(np.add.reduceat(rows, x_edges[:-1], axis=1))


def _slope(
    parts: list[_Blocks], good: list[Bool], flat: list[tuple[Float32, Float32]], sky: float
) -> tuple[float, float]:
    """Return the slope of data on pattern, in units of the sky, and its jackknife error."""
    sums = []
    for part, mask, (data, pattern) in zip(parts, good, flat, strict=True):
        weight = np.where(mask, part.n_pixels, np.float32(0))
        planes = (weight * data * pattern, weight * pattern**2, weight * part.variance)
        edges = [cell_edges(n, max(8, n // 8)) for n in mask.shape]
        sums += [np.array([_cell_sums(plane, *edges).ravel() for plane in planes])]
    xy, xx, noise = np.concatenate(sums, axis=1)
    if xx.size < 4 or xx.sum() <= 0 or noise.sum() > _NOISE_SHARE_MAX * xx.sum():
        return np.nan, np.nan
    signal = xx - noise
    scale = xy.sum() / signal.sum()
    # Each part of the image left out in turn: what is common to neighbouring pixels counts too.
    others = (xy.sum() - xy) / (signal.sum() - signal)
    error = np.sqrt((1 - 1 / xy.size) * np.sum((others - others.mean()) ** 2))
    return float(scale / sky), float(error / sky)


def _clip(
    parts: list[_Blocks], flat: list[tuple[Float32, Float32]], strength: float, good: list[Bool]
) -> list[Bool]:
    """Keep the blocks within 3 sigma of the fitted pattern; those clipped before may come back."""
    residuals = [data - np.float32(strength) * pattern for data, pattern in flat]
    kept = np.concatenate([r[g] for r, g in zip(residuals, good, strict=True)])
    # A third of the blocks is plenty.
    centre, sigma = float(np.median(kept[::3])), np.float32(mad_sigma(kept[::3]))
    return [
        (part.n_pixels >= BLOCK_PIX**2 / 2) & (np.abs(residual - np.float32(centre)) < 3 * sigma)
        for part, residual in zip(parts, residuals, strict=True)
    ]
