"""Fill unusable pixels with plausible local values, so that filters do not ring at them."""

import numpy as np
from numba import njit

from seechange_core.frames import Bool, Float32

_MIN_NEIGHBOURS = 3


@njit(cache=True, nogil=True)
def _fill_near(data: Float32, usable: Bool, known: Bool) -> int:
    """Fill pixels with enough usable neighbours within 2 pixels, by inverse squared distance, in place."""
    height, width = data.shape
    remaining = 0
    for y in range(height):
        for x in range(width):
            known[y, x] = True
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
                data[y, x] = total / norm
            else:
                known[y, x] = False
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
    fill_in_place(out, usable, default)
    return out


def fill_in_place(data: Float32, usable: Bool, default: float = 0.0) -> None:
    """Replace unusable pixels by their neighbourhood, in place; see `fill_unusable`."""
    known = np.empty(data.shape, np.bool_)
    if _fill_near(data, usable, known):
        _pull_push(data, known, default)


def _pull_push(data: Float32, known: Bool, default: float) -> None:
    """Fill what is not known from averages of 2 x 2 pixels, which are filled likewise, in place."""
    if max(data.shape) <= 1:
        data[~known] = default
        return
    coarse, coarse_known = _averages_of_four(data, known)
    if not coarse_known.all():
        _pull_push(coarse, coarse_known, default)
    _spread_to(data, known, coarse)


@njit(cache=True, nogil=True)
def _averages_of_four(data: Float32, known: Bool) -> tuple[Float32, Bool]:
    """Average blocks of 2 x 2 over what is known, and tell which blocks have anything known."""
    height, width = data.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    mean = np.zeros((rows, columns), np.float32)
    any_known = np.zeros((rows, columns), np.bool_)
    total, count = np.empty((2, 2 * columns), np.float32)
    zero, one = np.float32(0), np.float32(1)
    for v in range(rows):
        total[:], count[:] = 0, 0
        for y in range(2 * v, min(2 * v + 2, height)):
            for x in range(width):
                total[x] += data[y, x] if known[y, x] else zero
                count[x] += one if known[y, x] else zero
        for u in range(columns):
            number = count[2 * u] + count[2 * u + 1]
            mean[v, u] = (total[2 * u] + total[2 * u + 1]) / max(number, one)
            any_known[v, u] = number > zero
    return mean, any_known


@njit(cache=True, nogil=True)
def _spread_to(out: Float32, known: Bool, coarse: Float32) -> None:
    """Fill what is not known from blocks of 2 x 2."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            if not known[y, x]:
                out[y, x] = coarse[y // 2, x // 2]
