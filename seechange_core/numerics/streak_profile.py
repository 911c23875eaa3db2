"""How bright an image is along a straight line: what tells a trail from stars, galaxies and defects.

A trail is as bright at one end as at the other, as wide as the PSF or a little wider, and has two sides.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from scipy import ndimage

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.frames import Bool, Float, Float32

#: Light across a point source drawn out to a line, relative to the ridge, at distances in FWHM: turbulence
#: (Fried 1966), whose wings fall as r^(-8/3).
_DISTANCE_FWHM = np.array([0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0])
_LINE_LIGHT = np.array(
    [1.0, 0.847, 0.526, 0.257, 0.111, 0.0246, 0.00898, 0.00257, 0.00113, 3.7e-4, 1.7e-4, 2.6e-5]
)
#: Pixels on either side of a line say at most this much, sigma.
_SIDE_CLIP = 3.0
#: Light beside the saturated core of a trail, on average over four FWHM, is at least this, sigma.
_FLANK_SIGMA = 3.0


class Line(NamedTuple):
    """A directed straight line: a point on it, a unit direction, and the stretch of it looked at, pixels."""

    x: float
    y: float
    dx: float
    dy: float
    start: float
    stop: float

    def at(self, t: float) -> tuple[float, float]:
        """Return the point at a distance along the line."""
        return self.x + t * self.dx, self.y + t * self.dy


class Along(NamedTuple):
    """Surface brightness along a line, in steps, in units of the noise of one pixel.

    Attributes
    ----------
    step
        Length of a step, pixels.
    value, sigma
        (n,) float64: mean of the ridge less its sides, and its noise; NaN and inf where pixels are missing.
    left, right
        (n,) float64: the ridge less one side only.
    """

    step: int
    value: Float
    sigma: Float
    left: Float
    right: Float

    @property
    def known(self) -> Bool:
        """Steps with enough pixels."""
        return np.isfinite(self.value)


def line_light(distance_fwhm: Float) -> Float:
    """Return the light across a line relative to its ridge, at distances in FWHM."""
    return np.asarray(np.exp(np.interp(np.abs(distance_fwhm), _DISTANCE_FWHM, np.log(_LINE_LIGHT))))


def reach_fwhm(level: float) -> float:
    """Return the distance, in FWHM, where a line's light has fallen to a fraction of its ridge."""
    return float(np.interp(-np.log(max(level, 1e-9)), -np.log(_LINE_LIGHT), _DISTANCE_FWHM))


def line_between(x0: float, y0: float, x1: float, y1: float) -> Line:
    """Return the line from one point to another."""
    length = float(np.hypot(x1 - x0, y1 - y0))
    return Line(x0, y0, (x1 - x0) / length, (y1 - y0) / length, 0.0, length)


def chord(line: Line, shape: tuple[int, int]) -> Line:
    """Return the line from edge to edge of an image."""
    low, high = -np.inf, np.inf
    for origin, direction, size in ((line.x, line.dx, shape[1]), (line.y, line.dy, shape[0])):
        if abs(direction) > 1e-9:
            a, b = (-0.5 - origin) / direction, (size - 0.5 - origin) / direction
            low, high = max(low, min(a, b)), min(high, max(a, b))
    return line._replace(start=low, stop=high)


def refined(
    data: Float32, variance: Float32, excluded: Bool, line: Line, reach: float, fwhm_pix: float, clip: float
) -> Line:
    """Return a line moved and turned to where most light lies, its ends moved by at most `reach`.

    A pixel counts up to `clip`, in units of its noise: below the ridge of a bright trail its wings would do.
    """
    half = int(np.ceil(reach + fwhm_pix)) + 1
    pieces = int(np.clip((line.stop - line.start) / max(fwhm_pix, 3.0), 4, 24))
    light = np.nan_to_num(_across(data, variance, excluded, *line, half, pieces, clip))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / (fwhm_pix / FWHM_PER_SIGMA)) ** 2)
    smooth = np.array([np.convolve(row, kernel, "same") for row in light])
    # A star says no more than the trail itself would.
    smooth = np.minimum(smooth, 1.2 * max(float(np.median(smooth.max(axis=1))), 1e-6))
    offsets = np.arange(-reach, reach + 0.01, 0.5)
    share = (np.arange(pieces) + 0.5) / pieces
    at_start, at_stop = np.meshgrid(offsets, offsets, indexing="ij")
    score = np.zeros(at_start.shape)
    for row, s in zip(smooth, share, strict=True):
        score += np.interp(at_start * (1 - s) + at_stop * s, np.arange(-half, half + 1), row)
    i, j = np.unravel_index(int(np.argmax(score)), score.shape)
    ends = [
        (x - offset * line.dy, y + offset * line.dx)
        for (x, y), offset in ((line.at(line.start), offsets[i]), (line.at(line.stop), offsets[j]))
    ]
    return line_between(*ends[0], *ends[1])


def look_along(
    data: Float32, variance: Float32, excluded: Bool, line: Line, step: int, fwhm_pix: float
) -> Along:
    """Measure the light along a line.

    Parameters
    ----------
    data, variance, excluded
        (H, W) sky-subtracted image, variance of its background, unusable pixels.
    line
        Where.
    step
        Pixels along the line that are averaged.
    fwhm_pix
        Of the PSF: the ridge is as wide, the sides lie two to four of it away.
    """
    core = round(0.45 * fwhm_pix)
    near, far = int(np.ceil(2 * fwhm_pix)) + 1, int(np.ceil(4 * fwhm_pix)) + 2
    sums = _steps(data, variance, excluded, *line, step, core, near, far)
    counts = sums[:, 1::2]
    with np.errstate(invalid="ignore", divide="ignore"):
        ridge, left, right = (sums[:, 2 * k] / counts[:, k] for k in range(3))
        sides = (sums[:, 2] + sums[:, 4]) / (counts[:, 1] + counts[:, 2])
        sigma = np.sqrt(1 / counts[:, 0] + 1 / (counts[:, 1] + counts[:, 2]))
    poor = (counts[:, 0] < 0.5 * step * (2 * core + 1)) | (counts[:, 1] + counts[:, 2] < 4)
    value = np.where(poor, np.nan, ridge - sides)
    return Along(step, value, np.where(poor, np.inf, sigma), ridge - left, ridge - right)


def bright_stretch(along: Along, first: int, last: int) -> tuple[int, int, float]:
    """Return the stretch of a line that is uniformly bright, and how bright: the most likely one.

    The likelihood of a step being on the trail against off it, summed, is largest between its ends
    (Kadane's maximal subarray); a single step says no more than a few others can outweigh.

    Parameters
    ----------
    along
        Brightness along the line.
    first, last
        Steps where it certainly is bright, the last one excluded.

    Returns
    -------
    first, last, brightness
        The last one excluded; brightness in units of the noise; 0 if there is none.
    """
    level = 0.0
    for _ in range(3):
        inside = along.value[first:last]
        inside = inside[np.isfinite(inside)]
        if inside.size < 3:
            return first, last, 0.0
        level = float(np.median(inside))
        if level <= 0:
            return first, last, 0.0
        value = np.clip(along.value, -level, 2 * level)
        score = (value * level - level**2 / 2) / (along.sigma**2 + (0.3 * level) ** 2)
        first, last = _largest_sum(np.nan_to_num(score))
    return first, last, level


def is_continuous(along: Along, first: int, last: int, level: float) -> bool:
    """Tell whether light is everywhere on a stretch: rows of stars have gaps, halos have no ridge.

    Steps are averaged until noise cannot hide a gap: half of the brightness must be met in four fifths of
    the pieces, where stars count little more than the trail. Each side alone must show the ridge, too.
    """
    known = np.isfinite(along.value[first:last])
    value = np.minimum(along.value[first:last][known], 1.5 * level)
    sigma = float(np.median(along.sigma[first:last][known]))
    many = int(np.clip(np.ceil((4 * sigma / level) ** 2), 1, max(1, value.size // 5)))
    pieces = value[: value.size // many * many].reshape(-1, many).mean(axis=1)
    if np.count_nonzero(pieces < 0.5 * level) > max(1.0, 0.2 * pieces.size):
        return False
    sides = [side[first:last][known] for side in (along.left, along.right)]
    # A side that is masked all along says nothing; with both masked there is nothing to go by.
    medians = [np.median(side[np.isfinite(side)]) for side in sides if np.isfinite(side).any()]
    return bool(medians) and bool(min(medians) > 0.5 * level)


def is_level(along: Along, first: int, last: int, level: float) -> bool:
    """Tell whether the outer quarters of a stretch are about as bright as its middle; spikes fade."""
    value = along.value[first:last]
    quarter = max(1, value.size // 4)
    error = 3 * 1.25 * float(np.median(along.sigma[first:last][np.isfinite(value)])) / np.sqrt(quarter)
    for part in (value[:quarter], value[-quarter:]):
        known = part[np.isfinite(part)]
        if known.size and float(np.median(known)) < 0.6 * level - error:
            return False
    return True


def fit_width(
    data: Float32, variance: Float32, excluded: Bool, line: Line, fwhm_pix: float
) -> tuple[float, float]:
    """Return FWHM (pixels) and ridge brightness (noise of a pixel) of the light across a line.

    The median of many pieces across is fitted by a Gaussian: stars on the line do not count.
    """
    half = int(np.ceil(6 * fwhm_pix)) + 2
    pieces = int(np.clip((line.stop - line.start) / max(fwhm_pix, 3.0), 3, 64))
    profile = _median_across(_across(data, variance, excluded, *line, half, pieces, 1e6))
    known = np.isfinite(profile)
    u, profile = np.arange(-half, half + 1.0)[known], profile[known]
    best = (np.inf, fwhm_pix, 0.0)
    for width in fwhm_pix * np.geomspace(0.3, 5.0, 30):
        for offset in np.arange(-1.0, 1.01, 0.5):
            near = np.abs(u) < max(1.5 * width, 3.0) + 2 * fwhm_pix
            model = np.exp(-0.5 * ((u[near] - offset) / (width / FWHM_PER_SIGMA)) ** 2)
            design = np.stack([model, np.ones_like(model)], axis=1)
            solution, *_ = np.linalg.lstsq(design, profile[near], rcond=None)
            chi2 = float(np.mean((profile[near] - design @ solution) ** 2))
            if chi2 < best[0] and solution[0] > 0:
                best = (chi2, float(width), float(solution[0]))
    return best[1], best[2]


def _median_across(light: Float) -> Float:
    """Return the median of the pieces at each distance across, NaN where half of them have no pixel."""
    known = np.isfinite(light)
    poor = 2 * known.sum(axis=0) < light.shape[0]
    return np.where(poor, np.nan, np.nanmedian(np.where(poor, 0.0, light), axis=0))


def has_flanks(data: Float32, variance: Float32, excluded: Bool, line: Line, fwhm_pix: float) -> bool:
    """Tell whether pixels beside the core of a line, the saturated ones left out, are evenly bright.

    A bleeding star or a bad line has sky beside it, or the star's halo, which fades from the star.
    """
    half = int(np.ceil(4 * fwhm_pix))
    light = _across(data, variance, excluded, *line, half, 12, 1e6)
    known = np.isfinite(light)
    mean = np.where(known, light, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    typical = float(np.median(mean))
    # Some pieces may lie on stars.
    even = (mean > 0.5 * typical) & (mean < 2 * typical)
    return bool(typical > _FLANK_SIGMA and np.count_nonzero(even) >= 9)


def reach_pix(
    data: Float32, variance: Float32, excluded: Bool, line: Line, about: float, level: float
) -> float:
    """Return how far from a line its light falls to a level, on the brighter side, pixels.

    Parameters
    ----------
    data, variance, excluded
        The image.
    line
        The trail, from end to end.
    about
        Where that is expected; the answer is between a third and three times this.
    level
        In units of the noise of a pixel.
    """
    half = int(np.ceil(4 * about))
    pieces = int(np.clip((line.stop - line.start) / 20, 3, 64))
    profile = _median_across(_across(data, variance, excluded, *line, half, pieces, 1e6))
    # The brighter side: a line that is a little askew has one.
    sides = np.fmax(profile[half:], profile[half::-1])
    far = sides[-(half // 4) :]
    if not np.isfinite(far).any():
        return about
    smooth = ndimage.median_filter(np.nan_to_num(sides - np.nanmedian(far)), 5, mode="nearest")
    first = int(about / 3)
    below = np.flatnonzero(smooth[first : int(3 * about)] < level)
    return float(first + below[0]) + 0.5 if below.size else 3 * about


def strange_share(
    data: Float32, variance: Float32, excluded: Bool, line: Line, width_pix: float, snr: float
) -> float:
    """Return the share of a trail's pixels that are not as bright as the trail should be there.

    The track of a particle is bent, and its charge jumps from pixel to pixel; stars in front count too.

    Parameters
    ----------
    data, variance, excluded
        The image.
    line
        The trail, from end to end.
    width_pix, snr
        Its FWHM, and its ridge in units of the noise of a pixel.
    """
    ends = (line.at(line.start), line.at(line.stop))
    boxes = []
    for axis, size in ((1, data.shape[0]), (0, data.shape[1])):
        low, high = sorted(end[axis] for end in ends)
        boxes.append(slice(max(0, int(low - width_pix)), min(size, int(high + width_pix) + 2)))
    place = (boxes[0], boxes[1])
    y, x = np.mgrid[place]
    t = (x - line.x) * line.dx + (y - line.y) * line.dy
    u = (y - line.y) * line.dx - (x - line.x) * line.dy
    on = (np.abs(u) < 0.75 * width_pix) & (t > line.start) & (t < line.stop) & ~excluded[place]
    if not on.any():
        return 1.0
    noise = np.sqrt(variance[place][on])
    model = snr * line_light(u[on] / width_pix)
    # Its own photons, and what sampling and the wrong width may change.
    sigma = np.sqrt(1 + model / noise + (0.3 * model) ** 2)
    return float(np.mean(np.abs(data[place][on] / noise - model) > 3 * sigma))


@njit(cache=True, nogil=True)
def _largest_sum(score: Float) -> tuple[int, int]:
    best, total = 0.0, 0.0
    start, first, last = 0, 0, 0
    for i in range(score.size):
        total += score[i]
        if total <= 0.0:
            total, start = 0.0, i + 1
        elif total > best:
            best, first, last = total, start, i + 1
    return first, last


@njit(cache=True, nogil=True)
def _across(
    data: Float32, variance: Float32, excluded: Bool, x: float, y: float, dx: float, dy: float,
    start: float, stop: float, half: int, pieces: int, clip: float,
) -> Float:  # fmt: skip
    """Average clipped values in pieces along a line, at each distance across; (pieces, 2 half + 1).

    NaN where there is no pixel.
    """
    sums = np.zeros((pieces, 2 * half + 1))
    counts = np.zeros((pieces, 2 * half + 1))
    length = stop - start
    for k in range(int(length)):
        t = start + k + 0.5
        piece = min(pieces - 1, int((k + 0.5) / length * pieces))
        for u in range(-half, half + 1):
            i, j = int(np.floor(x + t * dx - u * dy + 0.5)), int(np.floor(y + t * dy + u * dx + 0.5))
            if 0 <= j < data.shape[0] and 0 <= i < data.shape[1] and not excluded[j, i]:
                sums[piece, u + half] += min(max(data[j, i] / np.sqrt(variance[j, i]), -clip), clip)
                counts[piece, u + half] += 1
    return np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)


@njit(cache=True, nogil=True)
def _steps(
    data: Float32, variance: Float32, excluded: Bool, x: float, y: float, dx: float, dy: float,
    start: float, stop: float, step: int, core: int, near: int, far: int,
) -> Float:  # fmt: skip
    """Sum ridge, left and right side of each step; (n, 6): sum and count of each."""
    n = max(1, int((stop - start) / step))
    out = np.zeros((n, 6))
    for k in range(n * step):
        t = start + k + 0.5
        for u in range(-far, far + 1):
            distance = abs(u)
            if core < distance < near:
                continue
            i, j = int(np.floor(x + t * dx - u * dy + 0.5)), int(np.floor(y + t * dy + u * dx + 0.5))
            if 0 <= j < data.shape[0] and 0 <= i < data.shape[1] and not excluded[j, i]:
                z = data[j, i] / np.sqrt(variance[j, i])
                part = 0 if distance <= core else (2 if u > 0 else 4)
                out[k // step, part] += z if part == 0 else min(max(z, -_SIDE_CLIP), _SIDE_CLIP)
                out[k // step, part + 1] += 1
    return out
