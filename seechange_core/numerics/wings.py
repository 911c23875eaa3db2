"""The light of bright sources beyond their PSF stamps: fitted to the whole image, taken off the sky.

One radial profile serves all sources, in units of their fluxes: straight lines in the logarithm of the
radius, times ``r**-2`` as scattered light falls (King 1971, PASP 83, 199). Its values and a quadratic sky are
fitted together to means over blocks that nothing else reaches.
"""

import math

import numba as nb
import numpy as np

from seechange_core.frames import Bool, Float, Float32

#: Side of the blocks the wings are drawn on, pixels: they are smooth beyond a stamp.
BLOCK_PIX = 8
_MAX_SOURCES = 4000
_REACH_STAMPS = 7.0
_KNOTS = 6
_CLIP_SIGMA = 2.5
_ROUNDS = 6
#: A profile needs this many blocks.
_MIN_BLOCKS = 200


def fit_wings(
    residual: Float32, weight: Float32, x: Float, y: Float, flux: Float, stamp_radius_pix: float
) -> Float32:
    """Return the light of sources beyond a radius, as means over blocks of `BLOCK_PIX` pixels.

    Parameters
    ----------
    residual
        (H, W) float32, electrons: the image without the sources' models, with or without sky.
    weight
        (H, W) float32; 0 where unusable.
    x, y, flux
        (n,) of the sources.
    stamp_radius_pix
        Where the models end.

    Returns
    -------
    (ceil(H / 8), ceil(W / 8)) float32, electrons per pixel; 0 everywhere if the image is too small to tell.
    """
    mean, count = _block_means(residual, weight)
    bright = np.flatnonzero(np.isfinite(x + y + flux) & (flux > 0))
    bright = bright[np.argsort(-flux[bright], kind="stable")][:_MAX_SOURCES]
    light = np.zeros((_KNOTS, *mean.shape))
    near = np.zeros(mean.shape, np.bool_)
    reach = stamp_radius_pix * _REACH_STAMPS
    _add_wings(light, near, x[bright], y[bright], flux[bright], stamp_radius_pix, reach)
    use = (count >= BLOCK_PIX**2 / 2) & ~near
    if np.count_nonzero(use) < _MIN_BLOCKS:
        return np.zeros(mean.shape, np.float32)
    profile = _profile(light, mean, use)
    wings: Float32 = np.einsum("k,kij->ij", profile, light).astype(np.float32)
    return wings


def _profile(light: Float, mean: Float, use: Bool) -> Float:
    """Fit the profile and a quadratic sky to block means, without what stands out; never below 0."""
    v, u = (np.linspace(-1, 1, n) for n in mean.shape)
    u, v = np.meshgrid(u, v)
    terms = np.stack([*light, np.ones_like(u), u, v, u * u, u * v, v * v])[:, use]
    scale = np.maximum(np.sqrt(np.mean(terms**2, axis=1)), 1e-30)
    terms = terms / scale[:, None]
    values = mean[use] - np.median(mean[use])
    left, keep, free = values, np.ones(len(values), bool), np.ones(len(terms), bool)
    found = np.zeros(len(terms))
    for _ in range(_ROUNDS):
        # The noise is that of the lower side, where no source is.
        below = np.median(left) - left
        sigma = 1.4826 * float(np.median(below[below >= 0]))
        keep = np.abs(below) <= _CLIP_SIGMA * sigma
        a = terms[free][:, keep]
        found = np.zeros(len(terms))
        found[free] = np.linalg.lstsq(a @ a.T, a @ values[keep], rcond=1e-10)[0]
        free[:_KNOTS] &= found[:_KNOTS] > 0
        left = values - np.maximum(found, np.where(np.arange(len(terms)) < _KNOTS, 0, -np.inf)) @ terms
    return np.asarray(np.maximum(found[:_KNOTS], 0) / scale[:_KNOTS])


@nb.njit(cache=True, nogil=True)
def _block_means(data: Float32, weight: Float32) -> tuple[Float, Float]:
    height, width = data.shape
    total = np.zeros(((height + BLOCK_PIX - 1) // BLOCK_PIX, (width + BLOCK_PIX - 1) // BLOCK_PIX))
    count = np.zeros(total.shape)
    for y in range(height):
        for x in range(width):
            if weight[y, x] > 0:
                total[y // BLOCK_PIX, x // BLOCK_PIX] += data[y, x]
                count[y // BLOCK_PIX, x // BLOCK_PIX] += 1.0
    return total / np.maximum(count, 1.0), count


@nb.njit(cache=True, nogil=True)
def _add_wings(light: Float, near: Bool, x: Float, y: Float, flux: Float, inner: float, outer: float) -> None:
    """Add each source's share of every knot of the profile to the blocks around it."""
    knots, rows, columns = light.shape
    per_log = (knots - 1) / math.log(outer / inner)
    for k in range(len(x)):
        # Coordinates of the source in blocks, their middles being whole numbers.
        cx, cy = (x[k] + 0.5) / BLOCK_PIX - 0.5, (y[k] + 0.5) / BLOCK_PIX - 0.5
        reach = outer / BLOCK_PIX
        for j in range(max(0, math.ceil(cy - reach)), min(rows, math.floor(cy + reach) + 1)):
            for i in range(max(0, math.ceil(cx - reach)), min(columns, math.floor(cx + reach) + 1)):
                r = BLOCK_PIX * math.sqrt((i - cx) ** 2 + (j - cy) ** 2)
                if r < inner:
                    if k < len(x) // 4 or r < 0.5 * inner:
                        near[j, i] = True
                    continue
                place = math.log(r / inner) * per_log
                first = int(place)
                if first >= knots - 1:
                    continue
                share = place - first
                value = flux[k] * (inner / r) ** 2
                light[first, j, i] += value * (1 - share)
                if first + 1 < knots - 1:
                    light[first + 1, j, i] += value * share


def subtract_wings(data: Float32, wings: Float32) -> None:
    """Take block means off an image in place, interpolated between the blocks' middles."""
    _subtract(data, np.ascontiguousarray(wings))


@nb.njit(cache=True, nogil=True)
def _subtract(data: Float32, wings: Float32) -> None:
    rows, columns = wings.shape
    line = np.empty(columns, np.float32)
    for y in range(data.shape[0]):
        v = min(max((y + 0.5) / BLOCK_PIX - 0.5, 0.0), rows - 1.0)
        j = min(int(v), max(rows - 2, 0))
        below = min(j + 1, rows - 1)
        part = np.float32(v - j)
        for i in range(columns):
            line[i] = wings[j, i] * (1 - part) + wings[below, i] * part
        for x in range(data.shape[1]):
            u = min(max((x + 0.5) / BLOCK_PIX - 0.5, 0.0), columns - 1.0)
            i = min(int(u), max(columns - 2, 0))
            after = min(i + 1, columns - 1)
            share = np.float32(u - i)
            data[y, x] -= line[i] * (1 - share) + line[after] * share
