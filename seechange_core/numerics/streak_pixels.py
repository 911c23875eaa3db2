"""Pixels of the search for trails: blocks, the shapes in them, and the bands that are masked."""

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.frames import Bool, Float, Float32


def binned(data: Float32, variance: Float32, excluded: Bool, bin_pix: int) -> tuple[Float32, Bool]:
    """Return (values in units of their noise, whether half of the pixels count) of blocks of pixels."""
    shape = tuple(-(-size // bin_pix) for size in data.shape)
    values, valid = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    _bin(data, variance, excluded, bin_pix, values, valid)
    return values, valid


@njit(cache=True, nogil=True)
def _bin(data: Float32, variance: Float32, excluded: Bool, size: int, values: Float32, valid: Bool) -> None:
    height, width = data.shape
    for j in range(values.shape[0]):
        for i in range(values.shape[1]):
            total, noise2, count = 0.0, 0.0, 0
            for y in range(j * size, min(height, (j + 1) * size)):
                for x in range(i * size, min(width, (i + 1) * size)):
                    if not excluded[y, x]:
                        total += data[y, x]
                        noise2 += variance[y, x]
                        count += 1
            if 2 * count >= size * size and noise2 > 0:
                values[j, i] = total / np.sqrt(noise2)
                valid[j, i] = True


@njit(cache=True, nogil=True)
def smoothed(values: Float32, valid: Bool) -> Float32:
    """Return the significance of the sum over 3 x 3 values; 0 where the middle one does not count."""
    height, width = values.shape
    smooth = np.zeros(values.shape, np.float32)
    for j in range(1, height - 1):
        for i in range(1, width - 1):
            if valid[j, i]:
                total, count = 0.0, 0
                for y in range(j - 1, j + 2):
                    for x in range(i - 1, i + 2):
                        total += values[y, x]
                        count += valid[y, x]
                smooth[j, i] = total / np.sqrt(count)
    return smooth


@njit(cache=True, nogil=True)
def moments(labels: npt.NDArray[np.int32], count: int) -> Float:
    """Return mean x and y, variances of x and y, and covariance of each label, (count, 5)."""
    out = np.zeros((count + 1, 6))
    for j in range(labels.shape[0]):
        for i in range(labels.shape[1]):
            k = labels[j, i]
            if k:
                out[k, 0] += 1
                out[k, 1] += i
                out[k, 2] += j
                out[k, 3] += float(i) * i
                out[k, 4] += float(j) * j
                out[k, 5] += float(i) * j
    for k in range(1, count + 1):
        n = out[k, 0]
        x, y = out[k, 1] / n, out[k, 2] / n
        out[k, 1], out[k, 2] = x, y
        out[k, 3] = out[k, 3] / n - x * x + 1 / 12
        out[k, 4] = out[k, 4] / n - y * y + 1 / 12
        out[k, 5] = out[k, 5] / n - x * y
    return out[1:, 1:]


@njit(cache=True, nogil=True)
def fill(mask: Bool, x0: float, y0: float, x1: float, y1: float, half_width: float) -> None:
    """Set the pixels within a distance of a segment."""
    length = np.hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    low, high = min(y0, y1) - half_width, max(y0, y1) + half_width
    for y in range(max(0, int(np.ceil(low))), min(mask.shape[0], int(np.floor(high)) + 1)):
        # Where the band around the endless line crosses this row, within the box of the segment.
        left, right = min(x0, x1) - half_width, max(x0, x1) + half_width
        if abs(dy) > 1e-6:
            middle, reach = x0 + (y - y0) * dx / dy, half_width / abs(dy)
            left, right = max(left, middle - reach), min(right, middle + reach)
        for x in range(max(0, int(np.ceil(left))), min(mask.shape[1], int(np.floor(right)) + 1)):
            t = min(max((x - x0) * dx + (y - y0) * dy, 0.0), length)
            if np.hypot(x - x0 - t * dx, y - y0 - t * dy) <= half_width:
                mask[y, x] = True
