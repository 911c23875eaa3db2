"""Sums in circular apertures and adaptive second moments.

A pixel cut by the circle counts with exactly the area inside. Unusable pixels count as 0: sum the residuals
of a fit and add the model's own share (`numerics.scene`), and the model stands in for them.
"""

import math
from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.frames import Float, Float32

_MOMENT_STEPS = 30
#: The weight ends at so many of its sigmas.
_MOMENT_REACH = 4.0
#: Positions beyond this are no positions.
_FAR_PIX = 1e9


def sum_circles(
    data: Float32,
    weight: Float32,
    x: Float,
    y: Float,
    radii_pix: npt.ArrayLike,
    *,
    model: Float32 | None = None,
    gain: float = 1.0,
) -> tuple[Float, Float, Float]:
    """Sum an image in circles around positions.

    Parameters
    ----------
    data
        (H, W) float32, background removed.
    weight
        (H, W) float32, 1 / background variance; 0 where unusable.
    x, y
        (n,) centres, pixels.
    radii_pix
        (m,) radii, pixels.
    model
        (H, W) float32, the sources' light, whose photon noise is added. None: it is left out.
    gain
        Photons per unit of flux; infinite if `weight` already has the sources' noise.

    Returns
    -------
    flux, flux_err, usable_fraction
        (n, m) float64; the last is the share of the circle's area on usable pixels. Flux and error are NaN
        where no pixel is usable.
    """
    radii = np.array(np.atleast_1d(radii_pix), float)
    # One memory layout for the compiled kernel, whatever the caller has.
    image, weights = (np.ascontiguousarray(a, np.float32) for a in (data, weight))
    light = np.zeros((0, 0), np.float32) if model is None else np.ascontiguousarray(model, np.float32)
    out = np.zeros((3, len(x), len(radii)))
    _sum_circles(image, weights, light, np.array(x, float), np.array(y, float), radii, 1 / gain, out)
    return out[0], out[1], out[2]


@nb.njit(cache=True, nogil=True)
def _part(x0: float, x1: float, y0: float, y1: float, r: float) -> float:
    """Return the area of a rectangle in the first quadrant that lies within the circle of radius r at 0."""
    r2 = r * r
    if x1 * x1 + y1 * y1 <= r2:
        return (x1 - x0) * (y1 - y0)
    if x0 * x0 + y0 * y0 >= r2:
        return 0.0
    # The circle leaves the rectangle's upper side at `top` and its lower one at `right`; between them the
    # height is the circle's own, and its integral a triangle, a sector and what is below y0.
    top = math.sqrt(r2 - y1 * y1) if y1 < r else 0.0
    right = math.sqrt(r2 - y0 * y0)
    low, high = max(x0, top), min(x1, right)
    y_low, y_high = math.sqrt(max(r2 - low * low, 0.0)), math.sqrt(max(r2 - high * high, 0.0))
    angle = math.asin(min((high * y_low - low * y_high) / r2, 1.0))
    under = 0.5 * (high * y_high - low * y_low + r2 * angle)
    return (low - x0) * (y1 - y0) + under - y0 * (high - low)


@nb.njit(cache=True, nogil=True)
def overlap(dx: float, dy: float, r: float) -> float:
    """Return how much of the unit pixel centred at (dx, dy) lies within the circle of radius r at 0."""
    x0, x1, y0, y1 = abs(dx) - 0.5, abs(dx) + 0.5, abs(dy) - 0.5, abs(dy) + 0.5
    area = _part(max(x0, 0.0), x1, max(y0, 0.0), y1, r)
    # What lies beyond an axis is mirrored.
    if x0 < 0:
        area += _part(0.0, -x0, max(y0, 0.0), y1, r)
    if y0 < 0:
        area += _part(max(x0, 0.0), x1, 0.0, -y0, r)
        if x0 < 0:
            area += _part(0.0, -x0, 0.0, -y0, r)
    return area


@nb.njit(cache=True, nogil=True)
def _sum_circles(
    data: Float32,
    weight: Float32,
    light: Float32,
    x: Float,
    y: Float,
    radii: Float,
    inverse_gain: float,
    out: Float,
) -> None:
    """Fill `out` with flux, error and usable share; `light` is empty if there is none."""
    for k in range(len(x)):
        for m in range(len(radii)):
            if not (abs(x[k]) < _FAR_PIX and abs(y[k]) < _FAR_PIX):
                out[0, k, m] = np.nan
                out[1, k, m] = np.nan
                continue
            seen, flux, variance = _sum_circle(data, weight, light, x[k], y[k], radii[m], inverse_gain)
            good = seen > 0.0
            out[0, k, m] = flux if good else np.nan
            out[1, k, m] = math.sqrt(variance) if good else np.nan
            out[2, k, m] = seen / (np.pi * radii[m] * radii[m])


@nb.njit(cache=True, nogil=True)
def _sum_circle(
    data: Float32, weight: Float32, light: Float32, x: float, y: float, r: float, inverse_gain: float
) -> tuple[float, float, float]:
    """Return usable area, flux and variance of one circle, row by row."""
    height, width = data.shape
    seen = flux = variance = 0.0
    for j in range(max(0, math.ceil(y - r - 0.5)), min(height, math.floor(y + r + 0.5) + 1)):
        near, far = max(abs(j - y) - 0.5, 0.0), abs(j - y) + 0.5
        if near >= r:
            continue
        # The row's pixels from `first` on are touched, those from `full` to `rest` are whole.
        touched = math.sqrt(r * r - near * near)
        whole = math.sqrt(r * r - far * far) if far < r else 0.0
        first = max(0, math.ceil(x - touched - 0.5))
        last = min(width, math.floor(x + touched + 0.5) + 1)
        full = min(max(first, math.ceil(x - whole + 0.5)), last)
        rest = min(max(full, math.floor(x + whole - 0.5) + 1), last)
        for side in range(2):
            for i in range(first if side == 0 else rest, full if side == 0 else last):
                w = weight[j, i]
                if w > 0 and math.isfinite(data[j, i]):
                    area = overlap(i - x, j - y, r)
                    seen += area
                    flux += area * data[j, i]
                    variance += area / w
                    if light.size > 0:
                        variance += area * max(light[j, i], np.float32(0)) * inverse_gain
        n, total, noise = _sum_run(data[j, full:rest], weight[j, full:rest])
        seen, flux, variance = seen + n, flux + total, variance + noise
        if light.size > 0:
            for i in range(full, rest):
                if weight[j, i] > 0 and math.isfinite(data[j, i]):
                    variance += max(light[j, i], np.float32(0)) * inverse_gain
    return seen, flux, variance


@nb.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _sum_run(data: Float32, weight: Float32) -> tuple[float, float, float]:
    """Return how many pixels in a row are usable, their sum and their variance."""
    n = total = noise = 0.0
    for i in range(len(data)):
        # Infinite or not a number: the difference is not 0.
        usable = weight[i] > 0 and data[i] - data[i] == 0
        n += 1.0 if usable else 0.0
        total += data[i] if usable else 0.0
        noise += 1.0 / weight[i] if usable else 0.0
    return n, total, noise


@dataclass(frozen=True, eq=False)
class Moments:
    """Adaptive second moments, one entry per source; NaN where they do not converge.

    Attributes
    ----------
    fwhm_pix
        Of the round Gaussian with the same area.
    elongation
        Major over minor axis.
    theta_rad
        Of the major axis, from +x towards +y.
    x, y
        Centre of the weight, pixels: where the source was said to be, or moved to its own centre.
    """

    fwhm_pix: Float
    elongation: Float
    theta_rad: Float
    x: Float
    y: Float


def adaptive_moments(
    data: Float32, weight: Float32, x: Float, y: Float, fwhm_pix: float, *, max_shift_pix: float = 0.0
) -> Moments:
    """Measure sizes and shapes with the elliptical Gaussian weight that matches each source best.

    The fixed point of Bernstein & Jarvis 2002 (AJ 123, 583, section 3.1): half the covariance of the
    Gaussian-weighted profile equals half the weight's own. Unlike isophotal moments the result does not
    shrink with the source's flux. Each step takes the profile for a Gaussian, whose covariance follows
    from the weighted one at once (Hirata & Seljak 2003, MNRAS 343, 459, section 2.1).

    Parameters
    ----------
    data
        (H, W) float32, background removed.
    weight
        (H, W) float32; pixels of weight 0 are left out, which distorts a source with such a core.
    x, y
        (n,) positions, pixels.
    fwhm_pix
        Where to start.
    max_shift_pix
        How far the weight may follow the source's own centre; 0 keeps it where it is.
    """
    out = np.full((5, len(x)), np.nan)
    start = (fwhm_pix / FWHM_PER_SIGMA) ** 2
    image, weights = (np.ascontiguousarray(a, np.float32) for a in (data, weight))
    moments_of_each(image, weights, np.array(x, float), np.array(y, float), start, float(max_shift_pix), out)
    return as_shapes(out)


def as_shapes(moments: Float) -> Moments:
    """Return sizes and shapes from the (5, n) moments xx, yy, xy, x and y of `moments_of_each`."""
    xx, yy, xy, new_x, new_y = moments
    root = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    middle = (xx + yy) / 2
    with np.errstate(invalid="ignore"):
        size = FWHM_PER_SIGMA * np.sqrt(np.sqrt(xx * yy - xy**2))
        elongation = np.sqrt((middle + root) / (middle - root))
    return Moments(size, elongation, 0.5 * np.arctan2(2 * xy, xx - yy), new_x, new_y)


@nb.njit(cache=True, nogil=True)
def moments_of_each(
    data: Float32, weight: Float32, x: Float, y: Float, start: float, max_shift: float, out: Float
) -> None:
    """Fill (5, n) `out` with second moments and centres; `start` is the variance to begin with, pixels^2."""
    for k in range(len(x)):
        xx, yy, xy = start, start, 0.0
        cx, cy = x[k], y[k]
        share, last_xx, last_yy, last_xy = 1.0, 0.0, 0.0, 0.0
        for _ in range(_MOMENT_STEPS):
            total, sx, sy, new_xx, new_yy, new_xy = _weighted(data, weight, cx, cy, xx, yy, xy)
            if not total > 0:
                break
            sx, sy = sx / total, sy / total
            new_xx, new_yy, new_xy = new_xx / total, new_yy / total, new_xy / total
            if max_shift > 0:
                # Of a Gaussian source the weighted mean is half way to its centre.
                new_xx, new_yy, new_xy = new_xx - sx * sx, new_yy - sy * sy, new_xy - sx * sy
                move_x = min(max(cx + 2 * sx, x[k] - max_shift), x[k] + max_shift) - cx
                move_y = min(max(cy + 2 * sy, y[k] - max_shift), y[k] + max_shift) - cy
                cx, cy = cx + move_x, cy + move_y
            else:
                move_x = move_y = 0.0
            new_xx, new_yy, new_xy = _unweighted(xx, yy, xy, new_xx, new_yy, new_xy)
            determinant = new_xx * new_yy - new_xy * new_xy
            if not (new_xx > 0 and new_yy > 0 and 0.01 < determinant < 1e4 * start * start):
                break
            d_xx, d_yy, d_xy = new_xx - xx, new_yy - yy, new_xy - xy
            # Faint sources swing between two sizes: a step that turns back is shortened, and the next ones.
            turns = d_xx * last_xx + d_yy * last_yy + 2 * d_xy * last_xy < 0
            share = max(0.5 * share, 0.1) if turns else min(1.3 * share, 1.0)
            last_xx, last_yy, last_xy = d_xx, d_yy, d_xy
            xx, yy, xy = xx + share * d_xx, yy + share * d_yy, xy + share * d_xy
            change = abs(d_xx) + abs(d_yy) + abs(d_xy)
            if change < 1e-3 * (xx + yy) and move_x * move_x + move_y * move_y < 1e-6 * (xx + yy):
                out[0, k], out[1, k], out[2, k] = xx, yy, xy
                break
        out[3, k], out[4, k] = cx, cy


@nb.njit(cache=True, nogil=True)
def _unweighted(
    xx: float, yy: float, xy: float, m_xx: float, m_yy: float, m_xy: float
) -> tuple[float, float, float]:
    """Return the covariance of a Gaussian that has covariance m under the weight: (m^-1 - w^-1)^-1."""
    w = xx * yy - xy * xy
    m = m_xx * m_yy - m_xy * m_xy
    if m > 0 and m_xx > 0:
        a, b, c = m_yy / m - yy / w, m_xx / m - xx / w, xy / w - m_xy / m
        inverse = a * b - c * c
        # Never more than twice as wide at once: noise can make the profile wider than its weight allows.
        if a > 0 and b > 0 and inverse * w > 1 / 16:
            return b / inverse, a / inverse, -c / inverse
    return 2 * m_xx, 2 * m_yy, 2 * m_xy


@nb.njit(cache=True, nogil=True)
def _weighted(
    data: Float32, weight: Float32, x: float, y: float, xx: float, yy: float, xy: float
) -> tuple[float, float, float, float, float, float]:
    """Return the sums of w d, w d dx, w d dy, w d dx^2, w d dy^2, w d dx dy; w is an elliptical Gaussian."""
    determinant = xx * yy - xy * xy
    a, b, c = yy / determinant, xx / determinant, -xy / determinant
    step = math.exp(-a)
    total = sum_x = sum_y = sum_xx = sum_yy = sum_xy = 0.0
    if not (abs(x) < _FAR_PIX and abs(y) < _FAR_PIX):
        return total, sum_x, sum_y, sum_xx, sum_yy, sum_xy
    reach = _MOMENT_REACH * math.sqrt(yy)
    for j in range(max(0, math.ceil(y - reach)), min(data.shape[0], math.floor(y + reach) + 1)):
        dy = j - y
        # The row's part of the ellipse: a dx^2 + 2 c dx dy + b dy^2 <= reach^2.
        middle = -c * dy / a
        half = math.sqrt(max(_MOMENT_REACH**2 - dy * dy / yy, 0.0) / a)
        first = max(0, math.ceil(x + middle - half))
        end = min(data.shape[1], math.floor(x + middle + half) + 1)
        # The weight along a row is a product of products: the exponential is needed at its start only.
        dx = first - x
        gauss = math.exp(-0.5 * (a * dx * dx + b * dy * dy + 2 * c * dx * dy))
        ratio = math.exp(-0.5 * (a * (2 * dx + 1) + 2 * c * dy))
        row = row_x = row_xx = 0.0
        for i in range(first, end):
            if weight[j, i] > 0 and math.isfinite(data[j, i]):
                dx = i - x
                value = gauss * data[j, i]
                row += value
                row_x += value * dx
                row_xx += value * dx * dx
            gauss *= ratio
            ratio *= step
        total += row
        sum_x += row_x
        sum_y += row * dy
        sum_xx += row_xx
        sum_yy += row * dy * dy
        sum_xy += row_x * dy
    return total, sum_x, sum_y, sum_xx, sum_yy, sum_xy
