"""Fill unusable pixels with plausible local values, so that filters do not ring at them."""

import numpy as np
from numba import njit

from seechange_core.frames import Bool, Float32

_MIN_NEIGHBOURS = 3


@njit(cache=True, nogil=True)
def _fill_near(data: Float32, usable: Bool, out: Float32, left: Bool) -> int:
    """Fill pixels with enough usable neighbours within 2 pixels, by inverse squared distance."""
    height, width = data.shape
    remaining = 0
    for y in range(height):
        for x in range(width):
            left[y, x] = False
            if usable[y, x]:
                continue
            total = 0.0
            norm = 0.0
            count = 0
            for v in range(max(0, y - 2), min(height, y + 3)):
                for u in range(max(0, x - 2), min(width, x + 3)):
                    if usable[v, u]:
                        d2 = (v - y) * (v - y) + (u - x) * (u - x)
                        w = 1.0 / (d2 * d2)
                        total += w * data[v, u]
                        norm += w
                        count += 1
            if count >= _MIN_NEIGHBOURS:
                out[y, x] = total / norm
            else:
                left[y, x] = True
                remaining += 1
    return remaining


def fill_unusable(data: Float32, usable: Bool, default: float = 0.0) -> Float32:
    """Replace unusable pixels by their neighbourhood.

    Isolated ones take the mean of the usable pixels within 2 pixels, weighted by the inverse fourth
    power of distance; the inside of larger holes is filled from ever coarser averages (pull-push).

    Parameters
    ----------
    data
        (H, W) float32; unusable pixels may be NaN.
    usable
        (H, W) bool.
    default
        Value where the whole image is unusable.

    Returns
    -------
    Float32
        (H, W), equal to `data` where usable.
    """
    out = np.array(data, np.float32)
    left = np.empty(data.shape, np.bool_)
    if _fill_near(out, usable, out, left):
        total, count = _sums_of_four(out, left)
        coarse = np.asarray(total / np.maximum(count, np.float32(1e-6)), np.float32)
        _spread_to(out, left, _pull_push(coarse, np.minimum(count, np.float32(1)), default))
    return out


@njit(cache=True, nogil=True)
def _sums_of_four(data: Float32, left: Bool) -> tuple[Float32, Float32]:
    """Sum blocks of 2 x 2 over what is not left to fill, and count it."""
    height, width = data.shape
    total = np.zeros(((height + 1) // 2, (width + 1) // 2), np.float32)
    count = np.zeros(total.shape, np.float32)
    for y in range(height):
        for x in range(width):
            if not left[y, x]:
                total[y // 2, x // 2] += data[y, x]
                count[y // 2, x // 2] += np.float32(1)
    return total, count


@njit(cache=True, nogil=True)
def _spread_to(out: Float32, left: Bool, coarse: Float32) -> None:
    """Fill what is left from blocks of 2 x 2."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            if left[y, x]:
                out[y, x] = coarse[y // 2, x // 2]


def _pull_push(data: Float32, weight: Float32, default: float) -> Float32:
    """Average 2 x 2 recursively, then fill each level from the coarser one."""
    if weight.all():
        return data
    if max(data.shape) <= 1:
        return np.full_like(data, default)
    height, width = data.shape
    coarse_weight = _halved(weight)
    coarse = np.asarray(_halved(data * weight) / np.maximum(coarse_weight, np.float32(1e-6)), np.float32)
    filled = _pull_push(coarse, np.minimum(coarse_weight, 1).astype(np.float32), default)
    fine = np.repeat(np.repeat(filled, 2, 0), 2, 1)[:height, :width]
    return weight * data + (1 - weight) * fine


def _halved(image: Float32) -> Float32:
    """Sum blocks of 2 x 2; odd sides are padded with zeros."""
    height, width = image.shape
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2)))
    rows = image[::2] + image[1::2]
    return np.asarray(rows[:, ::2] + rows[:, 1::2])
