"""Trails of satellites and fast asteroids: straight, evenly bright, about as wide as a star.

Long ones are found in a coarse image whose pixels were clipped, so that stars say little, by the fast Radon
transform (`numerics.radon`); short ones among the elongated shapes above a threshold. All are then judged on
the pixels themselves (`numerics.streak_profile`): galaxies fade from the middle outwards, rows of stars have
gaps, defects are sharper than a star, edges have one side.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import ndimage

from seechange_core.frames import Bool, Float, Float32
from seechange_core.numerics import streak_profile as profile
from seechange_core.numerics.radon import Segment, find_segments
from seechange_core.numerics.star_width import star_fwhm

#: What one coarse pixel may say for or against a long trail, sigma.
_CLIP = 2.5
#: Significance of lines that are looked at, and of trails that are believed, sigma.
_CANDIDATE_SIGMA, _TRAIL_SIGMA = 7.0, 8.0
#: Shapes are pixels above one of these in the smoothed image, and at least so elongated.
_SHAPE_SIGMAS, _SHAPE_ELONGATION = (3.0, 5.0, 9.0, 16.0), 2.2
#: Trails this long, in FWHM, cannot be galaxies.
_LONG_FWHM = 40.0
#: Longer shapes are left to the other search, which sees all from 128 pixels, or 32 FWHM, up.
_LONGEST_SHAPE_FWHM = 80.0
#: By how much the best galaxy must fit worse than a trail, chi square.
_LEAST_GAIN = 9.0
#: Largest share of a short trail's pixels that may differ from it.
_MOST_STRANGE = 0.15
#: Widths that trails may have, in FWHM: satellites are out of focus; short and sharp are particles' tracks.
_LONG_WIDTHS, _SHORT_WIDTHS = (0.6, 4.0), (0.75, 1.5)
#: How often a line is followed beyond its ends.
_MOST_GROWTH = 4
#: Steps that a short trail is looked at in: what is fitted grows as their cube.
_MOST_STEPS = 100
#: Most lines that are looked at per image, of either kind.
_MOST_LINES, _MOST_SHAPES = 60, 300
#: Where the light of a trail has fallen to this, in units of the noise of a pixel, its mask ends.
_MASKED_TO = 0.4


class Streak(NamedTuple):
    """A trail that was found.

    Attributes
    ----------
    x0, y0, x1, y1
        Its ends, 0-based pixels; at or beyond the image's edge where it leaves the image.
    angle_deg
        Of its direction, counter-clockwise from +x, 0 to 180.
    width_pix
        FWHM across.
    surface_snr
        Brightness of its ridge in units of the background noise of one pixel.
    brightness_e
        The same in electrons per pixel.
    half_width_pix
        Half the width that is masked.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    angle_deg: float
    width_pix: float
    surface_snr: float
    brightness_e: float
    half_width_pix: float

    @property
    def length_pix(self) -> float:
        """Distance of its ends, pixels."""
        return float(np.hypot(self.x1 - self.x0, self.y1 - self.y0))


class Streaks(NamedTuple):
    """What `find_streaks` returns: (H, W) bool of the pixels that trails touch, and the trails."""

    mask: Bool
    found: tuple[Streak, ...]


class _Image(NamedTuple):
    data: Float32
    variance: Float32
    excluded: Bool
    fwhm_pix: float


def find_streaks(
    data: Float32,
    variance: Float32,
    excluded: Bool,
    *,
    min_snr: float = 0.3,
    min_length_fwhm: float = 5.0,
    fwhm_pix: float | None = None,
) -> Streaks:
    """Find the trails of satellites and of fast asteroids.

    The *surface S/N* of a trail is the height of its ridge above the sky, electrons per pixel, over the
    standard deviation of the background in one pixel. Per resolution element (a piece as long as it is wide:
    FWHM w pixels) the S/N is 0.84 w times that: 3 per element is 0.9 per pixel at w = 4, 1.8 at w = 2.

    Parameters
    ----------
    data
        (H, W) float32, electrons, sky subtracted; finite where not excluded.
    variance
        (H, W) float32, background variance, electrons^2; positive where not excluded.
    excluded
        (H, W) bool, pixels known to be unusable.
    min_snr
        Surface S/N from which trails are reported. Long ones are found from about 0.2, short ones from 1 to
        2, the fainter the better the PSF is sampled.
    min_length_fwhm
        Least length of a trail, in FWHM of the PSF.
    fwhm_pix
        FWHM of the PSF, pixels; None: measured on the image's stars.

    Returns
    -------
    Streaks
        Each masked to where its light, wings scaled from the PSF, falls below 0.4 of a pixel's noise.
    """
    if fwhm_pix is None:
        fwhm_pix = star_fwhm(data, variance, excluded)
    image = _Image(data, variance, excluded, max(1.2, fwhm_pix))
    mask = np.zeros(data.shape, dtype=np.bool_)
    found: list[Streak] = []
    for lines, judge in ((_long_lines, _judge_long), (_short_lines, _judge_short)):
        for line in lines(image, mask, min_length_fwhm):
            streak = None if _is_masked(mask, line) else judge(image, line, min_snr, min_length_fwhm)
            if streak is not None:
                found.append(streak)
                _fill(mask, *streak[:4], streak.half_width_pix)
                # What is left beside it is no second trail.
                image = image._replace(excluded=excluded | mask)
    return Streaks(mask, tuple(found))


def _is_masked(mask: Bool, line: profile.Line) -> bool:
    """Tell whether a third of a line is on trails already found."""
    t = np.linspace(line.start, line.stop, 64)
    x, y = np.rint(line.x + t * line.dx).astype(int), np.rint(line.y + t * line.dy).astype(int)
    inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    return bool(np.count_nonzero(mask[y[inside], x[inside]]) > t.size / 3)


# --- Long trails ----------------------------------------------------------------------------------


def _long_lines(image: _Image, mask: Bool, min_length_fwhm: float) -> list[profile.Line]:
    """Return lines that stand out in the clipped, coarse image, the best of those that are nearly alike."""
    bin_pix = _coarse_bin(image)
    coarse, valid = _binned(*image[:3], mask, bin_pix)
    values = np.clip(coarse, -_CLIP, _CLIP)
    lines: list[profile.Line] = []
    kept: list[Segment] = []
    for segment in find_segments(values, valid, threshold=_CANDIDATE_SIGMA):
        if len(kept) == _MOST_LINES:
            break
        if any(_is_along(segment, other) for other in kept):
            continue
        kept.append(segment)
        ends = (bin_pix * (v + 0.5) - 0.5 for v in segment[1:])
        lines.append(profile.line_between(*ends))
    return lines


def _coarse_bin(image: _Image) -> int:
    height, width = image.data.shape
    return int(max(4, round(image.fwhm_pix), -(-max(height, width) // 2048)))


def _is_along(segment: Segment, other: Segment, near: float = 3.0) -> bool:
    """Tell whether both ends of a segment lie on the (endless) line of another."""
    line = profile.line_between(*other[1:])
    return all(
        abs((y - line.y) * line.dx - (x - line.x) * line.dy) < near
        for x, y in ((segment.x0, segment.y0), (segment.x1, segment.y1))
    )


def _judge_long(
    image: _Image, candidate: profile.Line, min_snr: float, min_length_fwhm: float
) -> Streak | None:
    """Look at a line from edge to edge: return the trail on it, if it is one."""
    fwhm, step, line = image.fwhm_pix, max(3, round(image.fwhm_pix)), candidate
    # A part of a trail may lie a little askew; along all of it, it cannot.
    for _ in range(_MOST_GROWTH):
        line = profile.refined(*image[:3], line, 1.5 * _coarse_bin(image), fwhm)
        whole = profile.chord(line, image.data.shape)
        along = profile.look_along(*image[:3], whole, step, fwhm)
        first = max(0, int(-whole.start / step))
        last = min(along.value.size, first + max(3, int(line.stop / step)))
        first, last, level = profile.bright_stretch(along, first, last)
        if (last - first) * step < 1.2 * line.stop:
            break
        line = whole._replace(start=whole.start + first * step, stop=whole.start + last * step)
    known = along.known[first:last]
    if level <= 0 or known.sum() < 0.5 * known.size or (last - first) * step < min_length_fwhm * fwhm:
        return None
    sigma = float(np.median(along.sigma[first:last][known]))
    if level * np.sqrt(known.sum()) < _TRAIL_SIGMA * 1.25 * sigma:
        return None
    if not profile.is_continuous(along, first, last, level) or not profile.is_level(
        along, first, last, level
    ):
        return None
    if (last - first) * step < _LONG_FWHM * fwhm:
        low, high = max(0, first - 4), min(along.value.size, last + 4)
        part = along._replace(**{name: getattr(along, name)[low:high] for name in along._fields[1:]})
        if not _is_trail(profile.fit_trail(part, fwhm)):
            return None
    # Noise may cut off this many steps of a trail that goes on to the edge.
    doubtful = 3 + 40 * (sigma / level) ** 2
    start = whole.start + (first * step if first > doubtful else 0)
    stop = whole.start + last * step if last < along.value.size - doubtful else whole.stop
    return _streak(image, whole._replace(start=start, stop=stop), _LONG_WIDTHS, min_snr)


def _is_trail(fit: profile.TrailFit) -> bool:
    """Tell whether a trail fits, and much better than any galaxy where its own chi square is made 1."""
    return fit.chi2 < 4.0 and fit.gain > _LEAST_GAIN * max(fit.chi2, 1.0)


def _streak(
    image: _Image, line: profile.Line, widths_fwhm: tuple[float, float], min_snr: float
) -> Streak | None:
    """Measure width and brightness of a trail; None if it is too sharp, too wide or too faint."""
    fwhm = image.fwhm_pix
    width, snr = profile.fit_width(*image[:3], line, fwhm)
    if not widths_fwhm[0] <= width / fwhm <= widths_fwhm[1] or snr < min_snr:
        return None
    half = max(0.6 * width, width * profile.reach_fwhm(_MASKED_TO / snr)) + 0.5
    (x0, y0), (x1, y1) = line.at(line.start - 0.5 * fwhm), line.at(line.stop + 0.5 * fwhm)
    angle = float(np.degrees(np.arctan2(line.dy, line.dx)) % 180)
    noise = float(np.sqrt(np.median(image.variance[:: max(1, image.data.shape[0] // 64), ::7])))
    return Streak(x0, y0, x1, y1, angle, width, snr, snr * noise, half)


# --- Short trails ---------------------------------------------------------------------------------


def _short_lines(image: _Image, mask: Bool, min_length_fwhm: float) -> list[profile.Line]:
    """Return the axes of elongated shapes above the threshold, the longest first."""
    bin_pix = max(1, round(image.fwhm_pix / 2))
    smooth = _smoothed(*_binned(*image[:3], mask, bin_pix))
    lines: list[tuple[float, profile.Line]] = []
    for threshold in _SHAPE_SIGMAS:
        labels, count = ndimage.label(smooth > threshold, np.ones((3, 3)))
        for x, y, xx, yy, xy in _moments(labels, count):
            long2 = 0.5 * (xx + yy) + np.hypot(0.5 * (xx - yy), xy)
            short2 = max(xx + yy - long2, 1 / 12)
            length = np.sqrt(12 * long2) * bin_pix
            short_enough = 0.8 * min_length_fwhm < length / image.fwhm_pix < _LONGEST_SHAPE_FWHM
            if not short_enough or long2 < _SHAPE_ELONGATION**2 * short2:
                continue
            angle = 0.5 * np.arctan2(2 * xy, xx - yy)
            mid_x, mid_y = bin_pix * (x + 0.5) - 0.5, bin_pix * (y + 0.5) - 0.5
            dx, dy = 0.5 * length * np.cos(angle), 0.5 * length * np.sin(angle)
            lines.append((length, profile.line_between(mid_x - dx, mid_y - dy, mid_x + dx, mid_y + dy)))
    return [line for _, line in sorted(lines, key=lambda item: -item[0])[:_MOST_SHAPES]]


def _judge_short(
    image: _Image, candidate: profile.Line, min_snr: float, min_length_fwhm: float
) -> Streak | None:
    """Look at an elongated shape: return the trail that it is, if it is one."""
    fwhm = image.fwhm_pix
    line = profile.refined(*image[:3], candidate, fwhm, fwhm)
    beyond = 2.5 * fwhm + 0.25 * line.stop
    line = line._replace(start=-beyond, stop=line.stop + beyond)
    step = max(1, round(fwhm / 2), int(np.ceil((line.stop - line.start) / _MOST_STEPS)))
    along = profile.look_along(*image[:3], line, step, fwhm)
    if along.known.sum() < 8 or along.known.sum() < 0.6 * along.known.size:
        return None
    fit = profile.fit_trail(along, fwhm)
    if not _is_trail(fit) or (fit.stop - fit.start) * step < min_length_fwhm * fwhm:
        return None
    first, last = int(np.ceil(fit.start)), int(np.floor(fit.stop)) + 1
    if not profile.is_continuous(along, first, last, fit.level):
        return None
    start, stop = (line.start + (v + 0.5) * step for v in (fit.start, fit.stop))
    line = line._replace(start=start, stop=stop)
    width, snr = profile.fit_width(*image[:3], line, fwhm)
    if profile.strange_share(*image[:3], line, width, snr) > _MOST_STRANGE:
        return None
    return _streak(image, line, _SHORT_WIDTHS, min_snr)


# --- Pixels ---------------------------------------------------------------------------------------


def _binned(
    data: Float32, variance: Float32, excluded: Bool, masked: Bool, bin_pix: int
) -> tuple[Float32, Bool]:
    """Return (values in units of their noise, whether half of the pixels count) of blocks of pixels."""
    shape = tuple(-(-size // bin_pix) for size in data.shape)
    values, valid = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    _bin(data, variance, excluded, masked, bin_pix, values, valid)
    return values, valid


@njit(cache=True, nogil=True)
def _bin(
    data: Float32, variance: Float32, excluded: Bool, masked: Bool, size: int, values: Float32, valid: Bool
) -> None:
    height, width = data.shape
    for j in range(values.shape[0]):
        for i in range(values.shape[1]):
            total, noise2, count = 0.0, 0.0, 0
            for y in range(j * size, min(height, (j + 1) * size)):
                for x in range(i * size, min(width, (i + 1) * size)):
                    if not excluded[y, x] and not masked[y, x]:
                        total += data[y, x]
                        noise2 += variance[y, x]
                        count += 1
            if 2 * count >= size * size and noise2 > 0:
                values[j, i] = total / np.sqrt(noise2)
                valid[j, i] = True


@njit(cache=True, nogil=True)
def _smoothed(values: Float32, valid: Bool) -> Float32:
    """Return the significance of the sum over 3 x 3 values; 0 where the middle one does not count."""
    height, width = values.shape
    smooth = np.zeros(values.shape, np.float32)
    for j in range(1, height - 1):
        for i in range(1, width - 1):
            if valid[j, i]:
                total, count = 0.0, 0
                for y in range(j - 1, j + 2):
                    for x in range(i - 1, i + 2):
                        total += values[y, x]
                        count += valid[y, x]
                smooth[j, i] = total / np.sqrt(count)
    return smooth


@njit(cache=True, nogil=True)
def _moments(labels: npt.NDArray[np.int32], count: int) -> Float:
    """Return mean x and y, variances of x and y, and covariance of each label, (count, 5)."""
    out = np.zeros((count + 1, 6))
    for j in range(labels.shape[0]):
        for i in range(labels.shape[1]):
            k = labels[j, i]
            if k:
                out[k, 0] += 1
                out[k, 1] += i
                out[k, 2] += j
                out[k, 3] += float(i) * i
                out[k, 4] += float(j) * j
                out[k, 5] += float(i) * j
    for k in range(1, count + 1):
        n = out[k, 0]
        x, y = out[k, 1] / n, out[k, 2] / n
        out[k, 1], out[k, 2] = x, y
        out[k, 3] = out[k, 3] / n - x * x + 1 / 12
        out[k, 4] = out[k, 4] / n - y * y + 1 / 12
        out[k, 5] = out[k, 5] / n - x * y
    return out[1:, 1:]


@njit(cache=True, nogil=True)
def _fill(mask: Bool, x0: float, y0: float, x1: float, y1: float, half_width: float) -> None:
    """Set the pixels within a distance of a segment."""
    length = np.hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    low, high = min(y0, y1) - half_width, max(y0, y1) + half_width
    for y in range(max(0, int(np.ceil(low))), min(mask.shape[0], int(np.floor(high)) + 1)):
        # Where the band around the endless line crosses this row, within the box of the segment.
        left, right = min(x0, x1) - half_width, max(x0, x1) + half_width
        if abs(dy) > 1e-6:
            middle, reach = x0 + (y - y0) * dx / dy, half_width / abs(dy)
            left, right = max(left, middle - reach), min(right, middle + reach)
        for x in range(max(0, int(np.ceil(left))), min(mask.shape[1], int(np.floor(right)) + 1)):
            t = min(max((x - x0) * dx + (y - y0) * dy, 0.0), length)
            if np.hypot(x - x0 - t * dx, y - y0 - t * dy) <= half_width:
                mask[y, x] = True
