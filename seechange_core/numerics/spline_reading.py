"""Read the quintic spline of an image, and its weight and flags, at the places of a grid."""

import numpy as np
from numba import njit

from seechange_core.flags import UNUSABLE
from seechange_core.frames import Flags, Float, Float32

STEP_PIX = 16
"""Spacing of the nodes of a grid; in between, coordinates are linear."""

_UNUSABLE_BITS = int(UNUSABLE)
_NOWHERE = -(1 << 40)


@njit(cache=True, nogil=True)
def read_spline(
    coef: Float32,
    weight: Float32,
    flags: Flags,
    grid_x: Float,
    grid_y: Float,
    grid_area: Float,
    out: Float32,
    out_weight: Float32,
    out_flags: Flags,
) -> None:
    """Interpolate every target pixel from the prefiltered source.

    Of each row of the target the taps are laid side by side first, so that many pixels are read at once: as
    long as they lie one source pixel apart they share taps; where they don't, five more are laid between.

    Parameters
    ----------
    coef
        (h, w) float32, see `spline.quintic_coefficients`.
    weight, flags
        (h, w): read at the nearest pixel.
    grid_x, grid_y, grid_area
        (ny, nx) source pixels, and source pixels per target pixel, at every `STEP_PIX`-th target pixel.
    out, out_weight, out_flags
        (H, W) of the target, filled where it lies within the source: flux and 1 / variance per target pixel.
    """
    (height, width), n = coef.shape, out.shape[1]
    x_low, y_low, place = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    x, y, area = np.empty(n), np.empty(n), np.empty(n)
    x_part, y_part = np.empty(n, np.float32), np.empty(n, np.float32)
    # If no two pixels share any; and rows a power of 2 apart would push each other out of the cache.
    most = 6 * n + 56
    taps, wx, wy = (
        np.empty((6, most), np.float32),
        np.empty((6, most), np.float32),
        np.empty((6, most), np.float32),
    )
    along, across, total = np.zeros(most, np.float32), np.zeros(most, np.float32), np.zeros(most, np.float32)
    for i in range(out.shape[0]):
        _row_of(grid_x, i, x)
        _row_of(grid_y, i, y)
        _row_of(grid_area, i, area)
        for j in range(n):
            if not (x[j] >= -0.5 and y[j] >= -0.5 and x[j] < width - 0.5 and y[j] < height - 0.5):
                x_low[j] = _NOWHERE
                continue
            nearest_x, nearest_y = int(x[j] + 0.5), int(y[j] + 0.5)
            bits = flags[nearest_y, nearest_x]
            out_flags[i, j] = bits
            if not bits & _UNUSABLE_BITS:
                out_weight[i, j] = weight[nearest_y, nearest_x] / area[j]
            x_low[j], y_low[j] = int(np.floor(x[j])), int(np.floor(y[j]))
            x_part[j], y_part[j] = x[j] - x_low[j], y[j] - y_low[j]
        length = _lay_taps(coef, x_low, y_low, x_part, y_part, place, along, across, taps)
        _quintic(along[:length], wx)
        _quintic(across[:length], wy)
        total[:length] = 0
        for k in range(6):
            _read_line(taps[k], wx[0], wx[1], wx[2], wx[3], wx[4], wx[5], wy[k], total[:length])
        for j in range(n):
            if x_low[j] != _NOWHERE:
                out[i, j] = total[place[j]] * np.float32(area[j])


@njit(cache=True, nogil=True)
def _row_of(nodes: Float, i: int, out: Float) -> None:
    """Interpolate between the nodes of a grid, along one row of pixels."""
    row = i // STEP_PIX
    share = (i - row * STEP_PIX) / STEP_PIX
    line = nodes[row] * (1 - share) + nodes[row + 1] * share
    for col in range(-(-len(out) // STEP_PIX)):
        first, step = line[col], line[col + 1] - line[col]
        for j in range(col * STEP_PIX, min((col + 1) * STEP_PIX, len(out))):
            out[j] = first + (j - col * STEP_PIX) / STEP_PIX * step


@njit(cache=True, nogil=True)
def _lay_taps(coef, x_low, y_low, x_part, y_part, place, along, across, taps):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Lay out the taps of a row of pixels, six lines of them, and say where each pixel's begin.

    The source may be turned: the lines are its rows or its columns, whichever the pixels run along.
    Return how many taps there are in a line.
    """
    n, length, j = len(x_low), 0, 0
    while j < n:
        if x_low[j] == _NOWHERE:
            j += 1
            continue
        dx, dy, end = 1, 0, j + 1
        if end < n and abs(x_low[end] - x_low[j]) + abs(y_low[end] - y_low[j]) == 1:
            dx, dy = x_low[end] - x_low[j], y_low[end] - y_low[j]
        while end < n and x_low[end] == x_low[j] + dx * (end - j) and y_low[end] == y_low[j] + dy * (end - j):
            end += 1
        for k in range(j, end):
            at = length + (k - j if dx + dy > 0 else end - 1 - k)
            place[k] = at
            along[at], across[at] = (x_part[k], y_part[k]) if dx else (y_part[k], x_part[k])
        first = j if dx + dy > 0 else end - 1
        lines = taps[:, length : length + end - j + 5]
        if dx:
            _read_taps(coef, y_low[first], x_low[first], lines)
        else:
            _read_taps(coef.T, x_low[first], y_low[first], lines)
        length, j = length + end - j + 5, end
    return length


@njit(cache=True, nogil=True)
def _read_taps(coef, line, first, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Copy six lines of the source from two before a place on, mirrored at its edges."""
    lines, length = coef.shape
    inside = first >= 2 and first - 2 + out.shape[1] <= length
    for k in range(6):
        source, target = coef[_mirror(line - 2 + k, lines)], out[k]
        if inside:
            target[:] = source[first - 2 : first - 2 + len(target)]
            continue
        for m in range(len(target)):
            target[m] = source[_mirror(first - 2 + m, length)]


@njit(cache=True, nogil=True)
def _read_line(
    line: Float32,
    a: Float32,
    b: Float32,
    c: Float32,
    d: Float32,
    e: Float32,
    f: Float32,
    w: Float32,
    out: Float32,
) -> None:
    """Add what a row of taps gives to the pixels."""
    for j in range(len(out) - 5):
        part = (a[j] * line[j] + b[j] * line[j + 1]) + (c[j] * line[j + 2] + d[j] * line[j + 3])
        out[j] += w[j] * (part + (e[j] * line[j + 4] + f[j] * line[j + 5]))


@njit(cache=True, nogil=True, inline="always")
def _mirror(k: int, n: int) -> int:
    """Reflect an index about the first and last sample."""
    k = abs(k)
    return k if k < n else max(0, 2 * n - 2 - k)


@njit(cache=True, nogil=True)
def _quintic(fractions: Float32, w: Float32) -> None:
    """Fill (6, n) weights of the taps floor - 2 ... floor + 3 at n fractions."""
    for j in range(len(fractions)):
        t = fractions[j]
        t2 = t * t
        last = t * t2 * t2 * np.float32(1 / 120)
        t2 -= t
        t4 = t2 * t2
        h = t - np.float32(0.5)
        q = t2 * (t2 - np.float32(3))
        w[5, j] = last
        w[0, j] = np.float32(1 / 24) * (np.float32(0.2) + t2 + t4) - last
        a = np.float32(1 / 24) * (t2 * (t2 - np.float32(5)) + np.float32(9.2))
        b = np.float32(-1 / 12) * h * (q + np.float32(4))
        w[2, j] = a + b
        w[3, j] = a - b
        a = np.float32(1 / 16) * (np.float32(1.8) - q)
        b = np.float32(1 / 24) * h * (t4 - t2 - np.float32(5))
        w[1, j] = a + b
        w[4, j] = a - b
