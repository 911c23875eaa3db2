"""Sums in circular apertures and adaptive second moments.

A pixel cut by the circle counts with exactly the area inside. Unusable pixels count as 0: sum the residuals
of a fit and add the model's own share (`numerics.scene`), and the model stands in for them.
"""

import math
from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from seechange_core.frames import Float, Float32

_FWHM_PER_SIGMA = 2.3548200450309493
_MOMENT_STEPS = 30


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
def _quadrant(x: float, y: float, r: float) -> float:
    """Return the area of the circle of radius r within 0 < u < x, 0 < v < y, signed with x and y."""
    a = min(abs(x), r)
    b = min(abs(y), r)
    if a * a + b * b <= r * r:
        area = a * b
    else:
        # Below u0 the height is b, beyond it the circle's own: integral of sqrt(r^2 - u^2).
        u0 = math.sqrt(r * r - b * b)
        upper = 0.5 * (a * math.sqrt(max(r * r - a * a, 0.0)) + r * r * math.asin(a / r))
        lower = 0.5 * (u0 * b + r * r * math.asin(u0 / r))
        area = b * u0 + upper - lower
    return area if (x >= 0) == (y >= 0) else -area


@nb.njit(cache=True, nogil=True)
def overlap(dx: float, dy: float, r: float) -> float:
    """Return how much of the unit pixel centred at (dx, dy) lies within the circle of radius r at 0."""
    far = math.sqrt((abs(dx) + 0.5) ** 2 + (abs(dy) + 0.5) ** 2)
    if far <= r:
        return 1.0
    near = math.sqrt(max(abs(dx) - 0.5, 0.0) ** 2 + max(abs(dy) - 0.5, 0.0) ** 2)
    if near >= r:
        return 0.0
    x0, x1, y0, y1 = dx - 0.5, dx + 0.5, dy - 0.5, dy + 0.5
    return _quadrant(x1, y1, r) - _quadrant(x0, y1, r) - _quadrant(x1, y0, r) + _quadrant(x0, y0, r)


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
    height, width = data.shape
    for k in range(len(x)):
        for m in range(len(radii)):
            r = radii[m]
            # Pixels further from the edge than half their diagonal are not cut by it.
            inner, outer = max(r - 0.71, 0.0) ** 2, (r + 0.71) ** 2
            flux = 0.0
            variance = 0.0
            seen = 0.0
            if not (math.isfinite(x[k]) and math.isfinite(y[k])):
                out[0, k, m] = np.nan
                out[1, k, m] = np.nan
                continue
            for j in range(math.floor(y[k] - r), math.ceil(y[k] + r) + 1):
                for i in range(math.floor(x[k] - r), math.ceil(x[k] + r) + 1):
                    r2 = (i - x[k]) ** 2 + (j - y[k]) ** 2
                    if r2 >= outer:
                        continue
                    area = 1.0 if r2 <= inner else overlap(i - x[k], j - y[k], r)
                    if area <= 0.0 or j < 0 or i < 0 or j >= height or i >= width:
                        continue
                    w = weight[j, i]
                    if w > 0 and math.isfinite(data[j, i]):
                        seen += area
                        flux += area * data[j, i]
                        variance += area / w
                        if light.size > 0:
                            variance += area * max(light[j, i], 0.0) * inverse_gain
            good = seen > 0.0
            out[0, k, m] = flux if good else np.nan
            out[1, k, m] = math.sqrt(variance) if good else np.nan
            out[2, k, m] = seen / (np.pi * r * r)


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
    start = (fwhm_pix / _FWHM_PER_SIGMA) ** 2
    image, weights = (np.ascontiguousarray(a, np.float32) for a in (data, weight))
    _moments(image, weights, np.array(x, float), np.array(y, float), start, float(max_shift_pix), out)
    xx, yy, xy, new_x, new_y = out
    root = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    middle = (xx + yy) / 2
    with np.errstate(invalid="ignore"):
        size = _FWHM_PER_SIGMA * np.sqrt(np.sqrt(xx * yy - xy**2))
        elongation = np.sqrt((middle + root) / (middle - root))
    return Moments(size, elongation, 0.5 * np.arctan2(2 * xy, xx - yy), new_x, new_y)


@nb.njit(cache=True, nogil=True)
def _moments(
    data: Float32, weight: Float32, x: Float, y: Float, start: float, max_shift: float, out: Float
) -> None:
    for k in range(len(x)):
        xx, yy, xy = start, start, 0.0
        cx, cy = x[k], y[k]
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
            change = abs(new_xx - xx) + abs(new_yy - yy) + abs(new_xy - xy)
            xx, yy, xy = new_xx, new_yy, new_xy
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
    reach_x = math.ceil(4 * math.sqrt(xx))
    reach_y = math.ceil(4 * math.sqrt(yy))
    total = sum_x = sum_y = sum_xx = sum_yy = sum_xy = 0.0
    if not (abs(x) < 1e9 and abs(y) < 1e9):
        return total, sum_x, sum_y, sum_xx, sum_yy, sum_xy
    column, row = math.floor(x + 0.5), math.floor(y + 0.5)
    for j in range(max(0, row - reach_y), min(data.shape[0], row + reach_y + 1)):
        dy = j - y
        for i in range(max(0, column - reach_x), min(data.shape[1], column + reach_x + 1)):
            dx = i - x
            q = a * dx * dx + b * dy * dy + 2 * c * dx * dy
            if q > 16.0 or not weight[j, i] > 0 or not math.isfinite(data[j, i]):
                continue
            value = math.exp(-0.5 * q) * data[j, i]
            total += value
            sum_x += value * dx
            sum_y += value * dy
            sum_xx += value * dx * dx
            sum_yy += value * dy * dy
            sum_xy += value * dx * dy
    return total, sum_x, sum_y, sum_xx, sum_yy, sum_xy
