"""Local extremes of an image, with sub-pixel positions."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.frames import Bool, Float, Float32, Int


class Peaks(NamedTuple):
    """Local maxima; arrays of (n,).

    Attributes
    ----------
    y, x
        Whole pixels.
    value
        Of the image there.
    """

    y: Int
    x: Int
    value: Float

    def select(self, rows: Bool | slice) -> "Peaks":
        """Return some of them."""
        return Peaks(self.y[rows], self.x[rows], self.value[rows])


def local_maxima(image: Float32, threshold: float, border: int = 1) -> Peaks:
    """Find pixels above a threshold that no neighbour exceeds, highest first (ties: by y, then x).

    Parameters
    ----------
    image
        (H, W) float32, finite.
    threshold
        Strictly above it.
    border
        Pixels at the rim left out, at least 1.
    """
    y, x = _maxima(image, np.float32(threshold), max(1, border))
    value = image[y, x].astype(float)
    order = np.lexsort((x, y, -value))
    return Peaks(y[order], x[order], value[order])


@njit(cache=True, nogil=True)
def _maxima(image: Float32, threshold: np.float32, border: int) -> tuple[Int, Int]:
    ys = []
    xs = []
    for y in range(border, image.shape[0] - border):
        for x in range(border, image.shape[1] - border):
            value = image[y, x]
            if not value > threshold:
                continue
            # Of equal neighbours the first one wins.
            if (
                value > image[y - 1, x - 1] and value > image[y - 1, x] and value > image[y - 1, x + 1]
                and value > image[y, x - 1] and value >= image[y, x + 1]
                and value >= image[y + 1, x - 1] and value >= image[y + 1, x] and value >= image[y + 1, x + 1]
            ):  # fmt: skip
                ys.append(y)
                xs.append(x)
    return np.array(ys, np.int64), np.array(xs, np.int64)


def merge_close(y: npt.NDArray[Any], x: npt.NDArray[Any], radius: float) -> Bool:
    """Keep each point that is not within a radius of an earlier kept one.

    Parameters
    ----------
    y, x
        (n,) positions, the most important first.
    radius
        Same units.
    """
    return np.asarray(_merge(np.asarray(y, float), np.asarray(x, float), radius * radius), bool)


@njit(cache=True, nogil=True)
def _merge(y: Float, x: Float, radius2: float) -> Bool:
    keep = np.ones(len(y), np.bool_)
    for i in range(len(y)):
        for j in range(i):
            if keep[j] and (y[i] - y[j]) ** 2 + (x[i] - x[j]) ** 2 <= radius2:
                keep[i] = False
                break
    return keep


class SubPixel(NamedTuple):
    """Peak positions by a paraboloid; arrays of (n,).

    Attributes
    ----------
    y, x
        Pixels.
    value
        Height of the paraboloid.
    curvature_yy, curvature_xx, curvature_xy
        Minus its second derivatives.
    """

    y: Float
    x: Float
    value: Float
    curvature_yy: Float
    curvature_xx: Float
    curvature_xy: Float


def refine(image: Float32, peaks: Peaks) -> SubPixel:
    """Fit a paraboloid to the 3 x 3 pixels around each peak; it moves the peak by at most a pixel."""
    y, x = peaks.y, peaks.x
    s = {(j, i): image[y + j, x + i].astype(float) for j in (-1, 0, 1) for i in (-1, 0, 1)}
    gx = sum(s[j, 1] - s[j, -1] for j in (-1, 0, 1)) / 6
    gy = sum(s[1, i] - s[-1, i] for i in (-1, 0, 1)) / 6
    cxx = -sum(s[j, 1] - 2 * s[j, 0] + s[j, -1] for j in (-1, 0, 1)) / 3
    cyy = -sum(s[1, i] - 2 * s[0, i] + s[-1, i] for i in (-1, 0, 1)) / 3
    cxy = -(s[1, 1] - s[1, -1] - s[-1, 1] + s[-1, -1]) / 4
    det = cxx * cyy - cxy**2
    good = (cxx > 0) & (cyy > 0) & (det > 0)
    safe = np.where(good, det, 1.0)
    dx = np.where(good, np.clip((gx * cyy - gy * cxy) / safe, -1, 1), 0.0)
    dy = np.where(good, np.clip((gy * cxx - gx * cxy) / safe, -1, 1), 0.0)
    return SubPixel(
        np.asarray(y + dy, float),
        np.asarray(x + dx, float),
        s[0, 0] + 0.5 * (gx * dx + gy * dy),
        cyy,
        cxx,
        cxy,
    )
