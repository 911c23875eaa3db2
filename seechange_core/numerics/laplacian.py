"""The Laplacian and the medians that the search for cosmic rays is made of (see `numerics.lacosmic`)."""

import numpy as np
from numba import njit

from seechange_core.frames import Bool, Float, Float32


@njit(cache=True, nogil=True)
def median(values: Float, count: int) -> float:
    """Return the median of the first `count` values, sorting them in place."""
    for i in range(1, count):
        value = values[i]
        k = i
        while k > 0 and values[k - 1] > value:
            values[k] = values[k - 1]
            k -= 1
        values[k] = value
    return float(0.5 * (values[(count - 1) // 2] + values[count // 2]))


@njit(cache=True, nogil=True)
def window_median(image: Float32, y: int, x: int, radius: int, scratch: Float) -> float:
    """Return the median within a square of `2 radius + 1` pixels, cut off at the edges."""
    height, width = image.shape
    count = 0
    for j in range(max(0, y - radius), min(height, y + radius + 1)):
        for i in range(max(0, x - radius), min(width, x + radius + 1)):
            scratch[count] = image[j, i]
            count += 1
    return median(scratch, count)


@njit(cache=True, nogil=True)
def unmasked_median(image: Float32, mask: Bool, y: int, x: int, scratch: Float) -> float:
    """Median of what is not masked within 2 pixels; NaN if nothing."""
    height, width = image.shape
    count = 0
    for j in range(max(0, y - 2), min(height, y + 3)):
        for i in range(max(0, x - 2), min(width, x + 3)):
            if not mask[j, i]:
                scratch[count] = image[j, i]
                count += 1
    return median(scratch, count) if count > 0 else np.nan


@njit(cache=True, nogil=True)
def _between(image: Float32, mask: Bool, y: int, x: int, scratch: Float) -> float:
    """Interpolate a pixel between usable neighbours on opposite sides; else take the median around it.

    Only opposite neighbours know how high the core of a star stands that a bad column runs through.
    """
    height, width = image.shape
    total = 0.0
    count = 0
    if 0 < x < width - 1 and not mask[y, x - 1] and not mask[y, x + 1]:
        total += image[y, x - 1] + image[y, x + 1]
        count += 2
    if 0 < y < height - 1 and not mask[y - 1, x] and not mask[y + 1, x]:
        total += image[y - 1, x] + image[y + 1, x]
        count += 2
    return total / count if count > 0 else unmasked_median(image, mask, y, x, scratch)


@njit(cache=True, nogil=True)
def fill(clean: Float32, wanted: Bool, mask: Bool) -> None:
    """Replace wanted pixels that differ from a star's plateau by what lies around them."""
    height, width = clean.shape
    scratch = np.empty(25)
    for y in range(height):
        for x in range(width):
            if wanted[y, x]:
                value = _between(clean, mask, y, x, scratch)
                # Inside a saturated star there is nothing to replace with, and its plateau is smooth.
                if np.isfinite(value) and not clean[y, x] > value:
                    clean[y, x] = value


@njit(cache=True, nogil=True)
def _beyond(clean: Float32, excluded: Bool, y: int, x: int, dy: int, dx: int) -> float:
    """Return a neighbour's value; of an unusable one, what the pixel and the opposite neighbour let expect.

    A defect beside a star's core would otherwise look like the core's sharp edge: towards a core a straight
    line goes on, away from it an exponential.
    """
    height, width = clean.shape
    v, u = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
    if not excluded[v, u]:
        return float(clean[v, u])
    v, u = min(max(y - dy, 0), height - 1), min(max(x - dx, 0), width - 1)
    here, there = float(clean[y, x]), float(clean[v, u])
    if excluded[v, u]:
        return here
    if there <= here:
        return 2 * here - there
    return here * here / there if here > 0 else here


@njit(cache=True, nogil=True)
def laplacian(clean: Float32, excluded: Bool, y: int, x: int) -> float:
    """Return L+ / 2 of one pixel: an isolated pixel of height A on a flat sky gives A.

    Each of the four subpixels has two neighbours in its own pixel and two in adjacent ones;
    negative second derivatives of each are dropped before averaging.
    """
    twice = 2 * clean[y, x]
    left, right = _beyond(clean, excluded, y, x, 0, -1), _beyond(clean, excluded, y, x, 0, 1)
    down, up = _beyond(clean, excluded, y, x, -1, 0), _beyond(clean, excluded, y, x, 1, 0)
    total: float = (
        max(twice - left - down, 0.0)
        + max(twice - left - up, 0.0)
        + max(twice - right - down, 0.0)
        + max(twice - right - up, 0.0)
    )
    return 0.125 * total


@njit(cache=True, nogil=True)
def laplacian_everywhere(clean: Float32, variance: Float32, excluded: Bool, significance: Float32) -> None:
    """Fill `significance` with L+ / 2 over the background noise."""
    height, width = clean.shape
    zero, two, eighth = np.float32(0), np.float32(2), np.float32(0.125)
    for y in range(height):
        row, out, noise2 = clean[y], significance[y], variance[y]
        below, above = clean[max(y - 1, 0)], clean[min(y + 1, height - 1)]
        # Simple enough for the compiler to take several pixels at a time.
        for x in range(1, width - 1):
            twice = two * row[x]
            left, right, down, up = twice - row[x - 1], twice - row[x + 1], below[x], above[x]
            total = max(left - down, zero) + max(left - up, zero)
            total += max(right - down, zero) + max(right - up, zero)
            out[x] = eighth * total / np.sqrt(noise2[x])
        for x in (0, width - 1):
            out[x] = laplacian(clean, excluded, y, x) / np.sqrt(noise2[x])
    for y in range(height):
        for x in range(width):
            if excluded[y, x]:
                for j in range(max(0, y - 1), min(height, y + 2)):
                    for i in range(max(0, x - 1), min(width, x + 2)):
                        if j == y or i == x:
                            significance[j, i] = laplacian(clean, excluded, j, i) / np.sqrt(variance[j, i])
