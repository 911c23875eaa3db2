"""Straight lines in an image: the fast Radon transform, with the sums of all line segments on its way.

After Brady (1998, SIAM J. Comput. 27, 107) and Nir, Zackay & Ofek (2018, AJ 156, 229, section 2): sums
along the lines of 2n rows are those of two lines of n rows, one above the other. All lines that cross the
image cost log2(H) additions per pixel, and the sums over segments of 2^m rows come for nothing.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.frames import Bool, Float, Float32

Packed = npt.NDArray[np.int32]

#: A value and a count travel in one int32: the value in steps of 1 / `_STEPS` above the lowest 12 bits.
_STEPS = 32
_COUNT_BITS = 12
_COUNT = (1 << _COUNT_BITS) - 1
#: So that neither sum overflows along a line.
_LARGEST_VALUE = 3.9
_MOST_ROWS = 2048


class Segment(NamedTuple):
    """A straight line through an image of values, and how far it stands out.

    Attributes
    ----------
    significance
        Contrast to the parallel lines on either side, sigma.
    x0, y0, x1, y1
        Ends, 0-based pixels of the image given.
    """

    significance: float
    x0: float
    y0: float
    x1: float
    y1: float


def find_segments(
    values: Float32, valid: Bool, *, threshold: float, shortest: int = 32, apart: int = 3
) -> list[Segment]:
    """Find straight segments that are brighter than their surroundings, of all directions and places.

    Segments have dyadic lengths and places: a line is found several times, as a whole and in parts. The
    contrast is the mean along it less those along the lines `apart` to either side, so that neither halos nor
    gradients count; the noise is that of independent pixels.

    Parameters
    ----------
    values
        (H, W) float32 in units of their noise, clipped by the caller to what one pixel may say; at most
        3.9 in absolute value, and H and W at most 2048.
    valid
        (H, W) bool: pixels that count.
    threshold
        Least significance, sigma.
    shortest
        Least number of rows (or columns) that a segment crosses; at least as many valid pixels, less a
        quarter, are wanted.
    apart
        Distance of the lines compared with, pixels.

    Returns
    -------
    list of Segment
        Most significant first; of each small range of directions and places the best.

    Raises
    ------
    ValueError
        If the image is too large or a value too high for the integers that are summed.
    """
    if max(values.shape) > _MOST_ROWS or (
        values.size and np.abs(values[valid]).max(initial=0) > _LARGEST_VALUE
    ):
        raise ValueError(f"values of {values.shape} pixels or beyond {_LARGEST_VALUE} cannot be summed")
    sample = values[valid]
    if sample.size < 2 * shortest:
        return []
    variance = float(np.mean(sample.astype(np.float64) ** 2) - np.mean(sample) ** 2)
    packed = np.where(valid, (np.rint(values * _STEPS).astype(np.int32) << _COUNT_BITS) | 1, 0).astype(
        np.int32
    )
    found: list[Segment] = []
    for transposed in (False, True):
        for mirrored in (False, True):
            image = packed.T if transposed else packed
            image = np.ascontiguousarray(image[:, ::-1] if mirrored else image)
            for row in _transform(image, variance, threshold, shortest, apart):
                significance, y0, x0, y1, x1 = (float(v) for v in row)
                if mirrored:
                    x0, x1 = image.shape[1] - 1 - x0, image.shape[1] - 1 - x1
                if transposed:
                    x0, y0, x1, y1 = y0, x0, y1, x1
                found.append(Segment(significance, x0, y0, x1, y1))
    return sorted(found, reverse=True)


def _transform(image: Packed, variance: float, threshold: float, shortest: int, apart: int) -> Float:
    """Find lines that lean to larger x by at most 45 degrees; (n, 5): significance, y0, x0, y1, x1."""
    height, width = image.shape
    rows = 1 << max(0, int(height - 1).bit_length())
    sums = np.zeros((rows, rows + width), np.int32)
    sums[:height, rows:] = image
    other = np.zeros_like(sums)
    found = []
    block = 1
    while block < rows:
        _double(sums, other, block, rows)
        sums, other = other, sums
        block *= 2
        if block >= shortest:
            found.append(_peaks(sums, block, rows, height, variance, threshold, int(0.75 * shortest), apart))
    return np.concatenate(found) if found else np.empty((0, 5))


@njit(cache=True, nogil=True)
def _double(sums: Packed, out: Packed, block: int, rows: int) -> None:
    """Join blocks of rows in pairs: shift s of the pair is s // 2 in each, and (s + 1) // 2 between them."""
    width = sums.shape[1]
    for base in range(0, sums.shape[0], 2 * block):
        for s in range(2 * block):
            lower, upper, target = sums[base + s // 2], sums[base + block + s // 2], out[base + s]
            step = (s + 1) // 2
            start = rows - s
            for x in range(start, width - step):
                target[x] = lower[x] + upper[x + step]
            for x in range(width - step, width):
                target[x] = lower[x]


@njit(cache=True, nogil=True)
def _mean(packed: int) -> tuple[float, int]:
    count = packed & _COUNT
    if count == 0:
        return 0.0, 0
    return (packed >> _COUNT_BITS) / (_STEPS * float(count)), count


@njit(cache=True, nogil=True)
def _peaks(
    sums: Packed,
    block: int,
    rows: int,
    height: int,
    variance: float,
    threshold: float,
    fewest: int,
    apart: int,
) -> Float:
    """Return the best line of each group of 8 shifts and 16 places above the threshold."""
    width = sums.shape[1]
    groups, places = (block + 7) // 8, (width + 15) // 16
    best = np.zeros((groups, places, 3))
    found = np.empty((0, 5))
    for base in range(0, min(height, sums.shape[0]), block):
        best[:] = 0.0
        count = 0
        for s in range(block):
            line = sums[base + s]
            for x in range(max(rows - s, apart), width - apart):
                if (line[x] & _COUNT) < fewest or line[x] <= _COUNT:
                    continue
                mean, n = _mean(line[x])
                # Cheaper than the neighbours, and rarely passed: without them it would be as significant.
                if mean * mean * n < 0.25 * threshold * threshold * variance:
                    continue
                left, n_left = _mean(line[x - apart])
                right, n_right = _mean(line[x + apart])
                if min(n_left, n_right) < fewest:
                    continue
                noise2 = variance * (1.0 / n + 0.25 / n_left + 0.25 / n_right)
                snr = (mean - 0.5 * (left + right)) / np.sqrt(noise2)
                if snr > threshold and snr > best[s // 8, x // 16, 0]:
                    count += best[s // 8, x // 16, 0] == 0.0
                    best[s // 8, x // 16, 0] = snr
                    best[s // 8, x // 16, 1] = s
                    best[s // 8, x // 16, 2] = x
        if count:
            fresh = np.empty((found.shape[0] + count, 5))
            fresh[: found.shape[0]] = found
            k = found.shape[0]
            for i in range(groups):
                for j in range(places):
                    if best[i, j, 0] > 0.0:
                        x0 = best[i, j, 2] - rows
                        fresh[k, 0] = best[i, j, 0]
                        fresh[k, 1] = base
                        fresh[k, 2] = x0
                        fresh[k, 3] = base + block - 1
                        fresh[k, 4] = x0 + best[i, j, 1]
                        k += 1
            found = fresh
    return found
