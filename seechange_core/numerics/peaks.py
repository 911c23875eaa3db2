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


def local_extremes(image: Float32, threshold: float, border: int = 1) -> Peaks:
    """Find the peaks above a threshold and the troughs below its negative, as `local_maxima` does.

    Returns
    -------
    Peaks
        The largest absolute value first; `value` has its sign.
    """
    y, x = _extremes(np.ascontiguousarray(image, np.float32), np.float32(threshold), max(1, border))
    value = image[y, x].astype(float)
    order = np.lexsort((x, y, -np.abs(value)))
    return Peaks(y[order], x[order], value[order])


@njit(cache=True, nogil=True)
def _extremes(image: Float32, threshold: np.float32, border: int) -> tuple[Int, Int]:
    ys = []
    xs = []
    for y in range(border, image.shape[0] - border):
        line = image[y]
        for x in range(border, image.shape[1] - border):
            if not abs(line[x]) > threshold:
                continue
            sign = np.float32(1) if line[x] > 0 else np.float32(-1)
            highest = True
            for j in range(-1, 2):
                for i in range(-1, 2):
                    # Of equal neighbours the first one wins.
                    first = j < 0 or (j == 0 and i < 0)
                    rise = sign * (image[y + j, x + i] - line[x])
                    if rise > 0 or (first and rise == 0):
                        highest = False
            if highest:
                ys.append(y)
                xs.append(x)
    return np.array(ys, np.int64), np.array(xs, np.int64)


def climb(score: Float32, weight: Float32, peaks: Peaks, n_steps: int) -> SubPixel:
    """Climb from extremes of a score to those of the flux it stands for, ``score / sqrt(weight)``.

    Where the noise is uneven, near a bright star, the score leans away from the source.

    Parameters
    ----------
    score, weight
        (H, W) float32; pixels of weight 0 have no flux.
    peaks
        Where to start, with the sign of the extreme in `value`; at least a pixel from the rim.
    n_steps
        To neighbouring pixels, at most.

    Returns
    -------
    SubPixel
        In units of flux, turned positive.
    """
    y, x = peaks.y.copy(), peaks.x.copy()
    boxes = np.empty((len(y), 3, 3))
    _climb(score, weight, np.sign(peaks.value), n_steps, y, x, boxes)
    return _paraboloid(boxes, y, x)


@njit(cache=True, nogil=True)
def _climb(score: Float32, weight: Float32, sign: Float, n_steps: int, y: Int, x: Int, boxes: Float) -> None:
    """Move (y, x) in place, and fill `boxes` with the flux around where they end."""
    height, width = score.shape
    for k in range(len(y)):
        _flux_around(score, weight, sign[k], y[k], x[k], boxes[k])
        for _ in range(n_steps):
            best = np.argmax(boxes[k])
            j, i = best // 3 - 1, best % 3 - 1
            if boxes[k, 1, 1] >= boxes[k, j + 1, i + 1]:
                break
            if not (1 <= y[k] + j < height - 1 and 1 <= x[k] + i < width - 1):
                break
            y[k] += j
            x[k] += i
            _flux_around(score, weight, sign[k], y[k], x[k], boxes[k])


@njit(cache=True, nogil=True)
def _flux_around(score: Float32, weight: Float32, sign: float, y: int, x: int, box: Float) -> None:
    for j in range(3):
        for i in range(3):
            w = weight[y + j - 1, x + i - 1]
            box[j, i] = sign * score[y + j - 1, x + i - 1] / np.sqrt(w) if w > 0 else 0.0


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


def refine(image: Float32, peaks: Peaks) -> SubPixel:
    """Fit a paraboloid to the 3 x 3 pixels around each peak; it moves the peak by at most a pixel."""
    offset = np.arange(-1, 2)
    boxes = image[peaks.y[:, None, None] + offset[:, None], peaks.x[:, None, None] + offset]
    return _paraboloid(boxes.astype(float), peaks.y, peaks.x)


def _paraboloid(boxes: Float, y: Int, x: Int) -> SubPixel:
    """Fit (n, 3, 3) pixels around (y, x)."""
    s = {(j, i): boxes[:, j + 1, i + 1] for j in (-1, 0, 1) for i in (-1, 0, 1)}
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
        np.asarray(cyy, float),
        np.asarray(cxx, float),
        cxy,
    )
