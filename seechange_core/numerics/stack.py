"""Average aligned images with clipping that spares stars, as sums that an image can be taken out of again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.flags import PixelFlag
from seechange_core.frames import Bool, Flags, Float32

Counts = npt.NDArray[np.int16]

_SATURATED = int(PixelFlag.SATURATED)
_OUTSIDE = int(PixelFlag.OUT_OF_BOUNDS)
_GROW = 0.35
"""Around a clipped pixel, this fraction of the tolerance is enough: interpolation spreads hits."""
_ROWS = 16
"""Rows whose medians are found at a time."""
_GROW_PIX = 2


@dataclass(frozen=True)
class Tolerance:
    """How far an image may lie from the stack's median before a pixel of it is clipped.

    Attributes
    ----------
    n_sigma
        In units of its noise.
    peak
        Plus this fraction of the highest median pixel within one pixel.
    slope
        Plus this fraction of the difference of the highest and lowest median pixel within one pixel.
    photons
        Variance per unit of the median: the noise of the sources themselves.
    """

    n_sigma: float
    peak: float
    slope: float
    photons: float


@dataclass(frozen=True, eq=False)
class StackSums:
    """Running sums over images, (H, W) each; `add` changes them in place.

    Attributes
    ----------
    flux, weight, noise
        float32: sum of w d, of w, and of w^2 times variance.
    covered, saturated
        int16: images that reach this pixel, and those saturated there.
    """

    flux: Float32
    weight: Float32
    noise: Float32
    covered: Counts
    saturated: Counts

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "StackSums":
        """Start at nothing."""
        flux, weight, noise = (np.zeros(shape, np.float32) for _ in range(3))
        return cls(flux, weight, noise, np.zeros(shape, np.int16), np.zeros(shape, np.int16))

    def add(
        self, data: Float32, weight: Float32, flags: Flags, keep: Bool, boost: Float32, sign: int = 1
    ) -> None:
        """Add an image (sign 1), or take it out again (sign -1).

        Parameters
        ----------
        data, weight, flags
            (H, W), on the common flux scale.
        keep
            (H, W), False where clipped.
        boost
            (H, W) factor on this image's statistical weight.
        sign
            1 or -1.
        """
        _add(
            data, weight, flags, keep, boost, sign,
            self.flux, self.weight, self.noise, self.covered, self.saturated,
        )  # fmt: skip

    @property
    def depth(self) -> float:
        """How many images a typical pixel has: sections side by side don't add up; 1 if there is none."""
        reached = self.covered[self.covered > 0]
        return float(np.median(reached)) if reached.size else 1.0

    @property
    def thin(self) -> Bool:
        """(H, W): pixels that fewer than half as many images reach as a typical one."""
        return np.asarray(2 * self.covered < self.depth, bool)

    def mean(self, min_inputs: int = 1) -> tuple[Float32, Float32, Flags]:
        """Return the average, its weight and its flags (SATURATED where half of the images are).

        Pixels that fewer than `min_inputs` images reach, or than a typical pixel has, are OUT_OF_BOUNDS.
        """
        least = min(min_inputs, self.depth) if min_inputs > 1 else 1
        flags = np.zeros(self.weight.shape, np.uint16)
        flags[2 * self.saturated >= np.maximum(self.covered, 1)] |= np.uint16(PixelFlag.SATURATED)
        empty = self.weight <= 0
        flags[empty & (flags == 0)] |= np.uint16(PixelFlag.NO_DATA)
        flags[self.covered < least] = np.uint16(PixelFlag.OUT_OF_BOUNDS)
        safe = np.where(empty, np.float32(1), self.weight)
        data = np.where(empty, np.float32(0), self.flux / safe)
        weight = np.where(flags > 0, np.float32(0), safe * safe / np.where(empty, np.float32(1), self.noise))
        return data, weight, flags


@njit(cache=True, nogil=True)
def _add(
    data: Float32,
    weight: Float32,
    flags: Flags,
    keep: Bool,
    boost: Float32,
    sign: int,
    flux: Float32,
    total: Float32,
    noise: Float32,
    covered: Counts,
    saturated: Counts,
) -> None:
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            if flags[y, x] & _OUTSIDE == 0:
                covered[y, x] += sign
                if flags[y, x] & _SATURATED:
                    saturated[y, x] += sign
            w = weight[y, x] * boost[y, x]
            if w > 0 and keep[y, x]:
                flux[y, x] += sign * w * data[y, x]
                total[y, x] += sign * w
                noise[y, x] += sign * w * boost[y, x]
                if sign < 0 and total[y, x] <= np.float32(1e-5) * w:
                    flux[y, x] = 0
                    total[y, x] = 0
                    noise[y, x] = 0


def stack_median(data: Sequence[Float32], weight: Sequence[Float32]) -> Float32:
    """Return the median of the usable values at each pixel: the lower one of two, 0 of none.

    Parameters
    ----------
    data, weight
        (H, W) float32 of each image; weight 0 where unusable.
    """
    out = np.empty(data[0].shape, np.float32)
    for row in range(0, len(out), _ROWS):
        rows = slice(row, row + _ROWS)
        _medians(np.stack([d[rows] for d in data]), np.stack([w[rows] for w in weight]), out[rows])
    return out


@njit(cache=True, nogil=True)
def _medians(data: Float32, weight: Float32, out: Float32) -> None:
    """Fill the medians of a few rows, ordering all pixels of a row at once; edits `data`."""
    n, rows, width = data.shape
    counts = np.empty(width, np.int64)
    for y in range(rows):
        counts[:] = 0
        for i in range(n):
            for x in range(width):
                if weight[i, y, x] > 0:
                    counts[x] += 1
                else:
                    data[i, y, x] = np.inf
        for last in range(n - 1, 0, -1):
            for i in range(last):
                _order(data[i, y], data[i + 1, y])
        for x in range(width):
            count = counts[x]
            if count == 2:
                out[y, x] = data[0, y, x]
            elif count > 0:
                out[y, x] = np.float32(0.5) * (data[(count - 1) // 2, y, x] + data[count // 2, y, x])
            else:
                out[y, x] = 0


@njit(cache=True, nogil=True)
def _order(low: Float32, high: Float32) -> None:
    """Exchange the values of two rows where the first one's is larger."""
    for x in range(low.size):
        a, b = low[x], high[x]
        low[x] = a if a < b else b
        high[x] = b if a < b else a


def find_outliers(data: Float32, weight: Float32, median: Float32, tolerance: Tolerance) -> Bool:
    """Tell which pixels of an image belong to the same sky as the stack's median.

    The tolerance grows with the light and its gradient around a pixel, because seeing, registration
    and interpolation change star cores by fractions of their light: a star is never an outlier of itself.

    Parameters
    ----------
    data, weight
        (H, W) of one image.
    median
        (H, W) of the stack.
    tolerance
        See `Tolerance`.

    Returns
    -------
    Bool
        (H, W), True for pixels to keep.
    """
    t = tolerance
    return np.asarray(_keep(data, weight, median, t.n_sigma, t.peak, t.slope, t.photons), bool)


@njit(cache=True, nogil=True, error_model="numpy")
def _keep(
    data: Float32,
    weight: Float32,
    median: Float32,
    n_sigma: float,
    peak: float,
    slope: float,
    photons: float,
) -> Bool:
    height, width = data.shape
    excess = np.zeros((height, width), np.float32)
    keep = np.ones((height, width), np.bool_)
    near = (_GROW * n_sigma) ** 2
    for y in range(height):
        for x in range(width):
            w = weight[y, x]
            if w <= 0:
                continue
            m = median[y, x]
            distance = abs(data[y, x] - m)
            # Most pixels are near: they are passed without a division or root.
            if distance * distance * w < near * (1 + w * photons * max(m, np.float32(0))):
                continue
            sigma = np.sqrt(1 / w + photons * max(m, np.float32(0)))
            high, low = _extremes(median, y, x)
            limit = n_sigma * sigma + peak * max(high, np.float32(0)) + slope * (high - low)
            excess[y, x] = distance / limit
            if excess[y, x] > 1:
                keep[y, x] = False
    for y in range(height):
        for x in range(width):
            if excess[y, x] > 1:
                for v in range(max(0, y - _GROW_PIX), min(height, y + _GROW_PIX + 1)):
                    for u in range(max(0, x - _GROW_PIX), min(width, x + _GROW_PIX + 1)):
                        if excess[v, u] > _GROW:
                            keep[v, u] = False
    return keep


@njit(cache=True, nogil=True)
def _extremes(image: Float32, y: int, x: int) -> tuple[np.float32, np.float32]:
    """Return the highest and lowest of a pixel and its neighbours."""
    high = image[y, x]
    low = high
    for v in range(max(0, y - 1), min(image.shape[0], y + 2)):
        for u in range(max(0, x - 1), min(image.shape[1], x + 2)):
            high = max(high, image[v, u])
            low = min(low, image[v, u])
    return high, low
