"""Trails of satellites and fast asteroids: straight, evenly bright, about as wide as a star.

Long ones are found by the fast Radon transform (`numerics.radon`) in a coarse image: bright ones in its
logarithm, in which also saturated cores count, then faint ones where its pixels are clipped, so that stars
say little; short ones among the elongated shapes above a threshold. All are then judged on the pixels
themselves (`numerics.streak_profile`): galaxies fade from the middle outwards, rows of stars have gaps,
defects are sharper than a star, edges have one side, and what bleeds has nothing beside it. Where elongated
shapes are all parallel, the stars themselves are trailed, and no short trail is told from them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from seechange_core.frames import Bool, Float, Float32
from seechange_core.numerics import streak_pixels as pixels
from seechange_core.numerics import streak_profile as profile
from seechange_core.numerics.radon import Segment, find_segments
from seechange_core.numerics.star_width import star_fwhm
from seechange_core.numerics.streak_fit import TrailFit, fit_trail

#: What one coarse pixel may say for or against a long trail, sigma.
_CLIP = 2.5
#: Coarse pixels, sigma, between which bright trails are looked for, in the logarithm, and the values given.
_BRIGHT_FROM, _BRIGHT_TO, _BRIGHT_VALUE = 10.0, 1e5, 3.5
#: Unusable pixels this far above the noise may be saturated by a trail.
_CORE_SIGMA = 300.0
#: What a pixel may say for the place of a line, sigma: of a faint one, of a bright one.
_FAINT_CLIP, _BRIGHT_CLIP = 4.0, 1e6
#: Significance of lines that are looked at, and of trails that are believed, sigma.
_CANDIDATE_SIGMA, _TRAIL_SIGMA = 7.0, 8.0
#: Significance from which bright lines are looked at, sigma: a trail that crosses a corner has twice that.
_BRIGHT_SIGMA = 12.0
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
#: Surface S/N from which the wings of a trail are measured: the PSF's differ, and saturation hides the ridge.
_WINGS_SNR = 50.0
#: How often a line is followed beyond its ends.
_MOST_GROWTH = 6
#: Steps that a short trail is looked at in: what is fitted grows as their cube.
_MOST_STEPS = 64
#: Most lines that are looked at per image, of either kind.
_MOST_LINES, _MOST_SHAPES = 60, 300
#: From so many shapes on, and when their common direction is so strong (1: all are parallel), they are stars.
_STAR_SHAPES, _STARS_PARALLEL = 20, 0.65
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
    """What is looked at, and for; `saturated` are pixels that count, None if they are among the excluded."""

    data: Float32
    variance: Float32
    excluded: Bool
    fwhm_pix: float
    min_snr: float
    min_length_fwhm: float
    saturated: Bool | None = None


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
        Each masked to where its light falls below 0.4 of a pixel's noise; of bright trails that is measured,
        of others the wings are scaled from the PSF.
    """
    if fwhm_pix is None:
        fwhm_pix = star_fwhm(data, variance, excluded)
    image = _Image(data, variance, excluded, max(1.2, fwhm_pix), min_snr, min_length_fwhm)
    mask = np.zeros(data.shape, dtype=np.bool_)
    cores = _with_cores(image)
    found = _search(cores, mask, _bright_lines(cores), _judge_bright)
    rest = image._replace(excluded=excluded | mask)
    found += _search(rest, mask, _long_lines(rest), _judge_long)
    rest = image._replace(excluded=excluded | mask)
    shapes = _short_lines(rest)
    if not _are_stars(shapes):
        found += _search(rest, mask, shapes, _judge_short)
        return Streaks(mask, tuple(found))
    mask[:] = False
    found = [streak for streak in found if streak.length_pix > _LONG_FWHM * image.fwhm_pix]
    for streak in found:
        pixels.fill(mask, *streak[:4], streak.half_width_pix)
    return Streaks(mask, tuple(found))


def _search(
    image: _Image,
    mask: Bool,
    lines: list[profile.Line],
    judge: Callable[[_Image, profile.Line], Streak | None],
) -> list[Streak]:
    """Return the lines that are trails; the mask, in which they are set, hides what is left beside them."""
    found: list[Streak] = []
    unusable = image.excluded
    for line in lines:
        streak = None if _is_masked(mask, line) else judge(image, line)
        if streak is not None:
            found.append(streak)
            pixels.fill(mask, *streak[:4], streak.half_width_pix)
            image = image._replace(excluded=unusable | mask)
    return found


def _is_masked(mask: Bool, line: profile.Line) -> bool:
    """Tell whether a third of a line is on trails already found."""
    t = np.linspace(line.start, line.stop, 64)
    x, y = np.rint(line.x + t * line.dx).astype(int), np.rint(line.y + t * line.dy).astype(int)
    inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    return bool(np.count_nonzero(mask[y[inside], x[inside]]) > t.size / 3)


# --- Long trails ----------------------------------------------------------------------------------


def _long_lines(image: _Image) -> list[profile.Line]:
    """Return lines that stand out in the clipped, coarse image, the best of those that are nearly alike."""
    bin_pix = _coarse_bin(image)
    coarse, valid = pixels.binned(*image[:3], bin_pix)
    return _lines_in(np.asarray(np.clip(coarse, -_CLIP, _CLIP), np.float32), valid, bin_pix, _CANDIDATE_SIGMA)


def _bright_lines(image: _Image) -> list[profile.Line]:
    """Return lines that stand out in the coarse image's logarithm: the brightest have one ridge there."""
    bin_pix = _coarse_bin(image)
    coarse, valid = pixels.binned(*image[:3], bin_pix)
    share = np.log(np.maximum(coarse, _BRIGHT_FROM) / _BRIGHT_FROM) / np.log(_BRIGHT_TO / _BRIGHT_FROM)
    return _lines_in(_BRIGHT_VALUE * np.minimum(share, np.float32(1)), valid, bin_pix, _BRIGHT_SIGMA)


def _with_cores(image: _Image) -> _Image:
    """Return the image in which unusable pixels count that are bright: those saturated among them."""
    typical = np.float32(_typical_variance(image))
    core = image.excluded & (image.data > _CORE_SIGMA * np.sqrt(typical))
    variance = np.where(core, typical, image.variance)
    return image._replace(variance=variance, excluded=image.excluded & ~core, saturated=core)


def _typical_variance(image: _Image) -> float:
    sample = np.s_[:: max(1, image.data.shape[0] // 64), ::7]
    usable = image.variance[sample][~image.excluded[sample]]
    return float(np.median(usable if usable.size else image.variance[sample]))


def _lines_in(values: Float32, valid: Bool, bin_pix: int, threshold: float) -> list[profile.Line]:
    lines: list[profile.Line] = []
    kept: list[Segment] = []
    for segment in find_segments(values, valid, threshold=threshold):
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


def _judge_bright(image: _Image, candidate: profile.Line) -> Streak | None:
    """Look at a line that is bright, saturated perhaps: return the trail on it, if it is one."""
    line = _trail_on(image, candidate, _BRIGHT_CLIP)
    if line is None:
        return None
    unusable = image.excluded if image.saturated is None else image.excluded | image.saturated
    if not profile.has_flanks(image.data, image.variance, unusable, line, image.fwhm_pix):
        return None
    return _streak(image, line, _LONG_WIDTHS)


def _judge_long(image: _Image, candidate: profile.Line) -> Streak | None:
    """Look at a line from edge to edge: return the trail on it, if it is one."""
    line = _trail_on(image, candidate, _FAINT_CLIP)
    return None if line is None else _streak(image, line, _LONG_WIDTHS)


def _trail_on(image: _Image, candidate: profile.Line, clip: float) -> profile.Line | None:
    """Return the trail on a line, from end to end, if it is one."""
    fwhm, step, line = image.fwhm_pix, max(3, round(image.fwhm_pix)), candidate
    # In the logarithm of the image, wings are ridges as well: a bright candidate may lie further off.
    reach = (1.5 if clip == _FAINT_CLIP else 3.0) * _coarse_bin(image)
    # A part of a trail may lie a little askew; along all of it, it cannot.
    for _ in range(_MOST_GROWTH):
        line = profile.refined(*image[:3], line, reach, fwhm, clip)
        whole = profile.chord(line, image.data.shape)
        along = profile.look_along(*image[:3], whole, step, fwhm)
        first = max(0, int(-whole.start / step))
        last = min(along.value.size, first + max(3, int(line.stop / step)))
        first, last, level = profile.bright_stretch(along, first, last)
        if (last - first) * step < 1.2 * line.stop:
            break
        line = whole._replace(start=whole.start + first * step, stop=whole.start + last * step)
    known = along.known[first:last]
    if level <= 0 or known.sum() < 0.5 * known.size or (last - first) * step < image.min_length_fwhm * fwhm:
        return None
    sigma = float(np.median(along.sigma[first:last][known]))
    if level * np.sqrt(known.sum()) < _TRAIL_SIGMA * 1.25 * sigma:
        return None
    stretch = along, first, last, level
    if not profile.is_continuous(*stretch) or not profile.is_level(*stretch):
        return None
    if (last - first) * step < _LONG_FWHM * fwhm:
        low, high = max(0, first - 4), min(along.value.size, last + 4)
        part = along._replace(**{name: getattr(along, name)[low:high] for name in along._fields[1:]})
        if not _is_trail(fit_trail(part, fwhm)):
            return None
    # Noise may cut off this many steps of a trail that goes on to the edge.
    doubtful = 3 + 40 * (sigma / level) ** 2
    start = whole.start + (first * step if first > doubtful else 0)
    stop = whole.start + last * step if last < along.value.size - doubtful else whole.stop
    return whole._replace(start=start, stop=stop)


def _is_trail(fit: TrailFit) -> bool:
    """Tell whether a trail fits, and much better than any galaxy where its own chi square is made 1."""
    return fit.gain > _LEAST_GAIN * max(fit.chi2, 1.0)


def _streak(image: _Image, line: profile.Line, widths_fwhm: tuple[float, float]) -> Streak | None:
    """Measure width and brightness of a trail; None if it is too sharp, too wide or too faint."""
    fwhm = image.fwhm_pix
    width, snr = profile.fit_width(*image[:3], line, fwhm)
    if not widths_fwhm[0] <= width / fwhm <= widths_fwhm[1] or snr < image.min_snr:
        return None
    half = max(0.6 * width, width * profile.reach_fwhm(_MASKED_TO / snr)) + 0.5
    if snr > _WINGS_SNR:
        half = profile.reach_pix(*image[:3], line, half, _MASKED_TO)
    (x0, y0), (x1, y1) = line.at(line.start - 0.5 * fwhm), line.at(line.stop + 0.5 * fwhm)
    angle = float(np.degrees(np.arctan2(line.dy, line.dx)) % 180)
    noise = float(np.sqrt(_typical_variance(image)))
    return Streak(x0, y0, x1, y1, angle, width, snr, snr * noise, half)


# --- Short trails ---------------------------------------------------------------------------------


def _short_lines(image: _Image) -> list[profile.Line]:
    """Return the axes of elongated shapes above the thresholds, the longest first."""
    bin_pix = max(1, round(image.fwhm_pix / 2))
    smooth = pixels.smoothed(*pixels.binned(*image[:3], bin_pix))
    lines: list[profile.Line] = []
    for threshold in _SHAPE_SIGMAS:
        labels, count = ndimage.label(smooth > threshold, np.ones((3, 3)))
        shapes = pixels.moments(labels, count)
        lines += [axis for shape in shapes if (axis := _axis(image, shape, bin_pix)) is not None]
    return sorted(lines, key=lambda line: -line.stop)[:_MOST_SHAPES]


def _are_stars(shapes: list[profile.Line]) -> bool:
    """Tell whether there are many shapes, and most are parallel: then the stars themselves are trailed."""
    directions = [(line.dx + 1j * line.dy) ** 2 for line in shapes]
    return len(shapes) >= _STAR_SHAPES and float(abs(np.mean(directions))) > _STARS_PARALLEL


def _axis(image: _Image, shape: Float, bin_pix: int) -> profile.Line | None:
    """Return the axis of a shape (its moments, in blocks) that is as long as a uniform line with them."""
    x, y, xx, yy, xy = shape
    long2 = 0.5 * (xx + yy) + np.hypot(0.5 * (xx - yy), xy)
    short2 = max(xx + yy - long2, 1 / 12)
    length = np.sqrt(12 * long2) * bin_pix
    short_enough = 0.8 * image.min_length_fwhm < length / image.fwhm_pix < _LONGEST_SHAPE_FWHM
    if not short_enough or long2 < _SHAPE_ELONGATION**2 * short2:
        return None
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    mid_x, mid_y = bin_pix * (x + 0.5) - 0.5, bin_pix * (y + 0.5) - 0.5
    dx, dy = 0.5 * length * np.cos(angle), 0.5 * length * np.sin(angle)
    return profile.line_between(mid_x - dx, mid_y - dy, mid_x + dx, mid_y + dy)


def _judge_short(image: _Image, candidate: profile.Line) -> Streak | None:
    """Look at an elongated shape: return the trail that it is, if it is one."""
    fwhm = image.fwhm_pix
    line = profile.refined(*image[:3], candidate, fwhm, fwhm, _FAINT_CLIP)
    beyond = 2.5 * fwhm + 0.25 * line.stop
    line = line._replace(start=-beyond, stop=line.stop + beyond)
    step = max(1, round(fwhm / 2), int(np.ceil((line.stop - line.start) / _MOST_STEPS)))
    along = profile.look_along(*image[:3], line, step, fwhm)
    if along.known.sum() < 8 or along.known.sum() < 0.6 * along.known.size:
        return None
    fit = fit_trail(along, fwhm)
    if not _is_trail(fit) or (fit.stop - fit.start) * step < image.min_length_fwhm * fwhm:
        return None
    first, last = int(np.ceil(fit.start)), int(np.floor(fit.stop)) + 1
    if not profile.is_continuous(along, first, last, fit.level):
        return None
    start, stop = (line.start + (v + 0.5) * step for v in (fit.start, fit.stop))
    line = line._replace(start=start, stop=stop)
    width, snr = profile.fit_width(*image[:3], line, fwhm)
    if profile.strange_share(*image[:3], line, width, snr) > _MOST_STRANGE:
        return None
    return _streak(image, line, _SHORT_WIDTHS)
