"""Masks widened by a margin."""

import numpy as np
from numba import njit

from seechange_core.frames import Bool


def grown(mask: Bool, radius_pix: int) -> Bool:
    """Return the pixels within a radius (rows and columns) of a mask, itself included.

    Parameters
    ----------
    mask
        (H, W).
    radius_pix
        0 returns the mask as it is.
    """
    if radius_pix < 1:
        return mask
    out = np.empty(mask.shape, np.bool_)
    _grow(mask.view(np.uint8), radius_pix, out.view(np.uint8))
    return out


@njit(cache=True, nogil=True)
def _grow(mask, radius, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Grow along each row, then count down the rows for how long a pixel goes on being one of the mask."""
    height, width = mask.shape
    line = np.empty(width + 2 * radius, np.uint8)
    zero, one, longest = np.uint16(0), np.uint16(1), np.uint16(2 * radius + 1)
    left = np.zeros(width, np.uint16)
    for y in range(height + radius):
        line[:] = 0
        if y < height:
            line[radius : radius + width] = mask[y]
            seen = 1
            while seen < 2 * radius + 1:
                # The first of 1, 2, 4, ... neighbours learns of the others.
                step = min(seen, 2 * radius + 1 - seen)
                _join(line, line[step:])
                seen += step
        for x in range(width):
            rest = left[x] - one if left[x] > zero else zero
            left[x] = longest if line[x] else rest
        if y >= radius:
            for x in range(width):
                out[y - radius, x] = left[x] > zero


@njit(cache=True, nogil=True)
def _join(first, second):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add what is in the second to the first, in place; no pixel is read after it was changed."""
    for x in range(len(second)):
        first[x] |= second[x]
