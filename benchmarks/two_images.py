"""The best that a new image and the exposures before it allow: the reference is as noisy as it is deep.

The static sky is not known: the best guess of it is the optimal sum of the earlier exposures (Zackay &
Ofek 2017, ApJ 836, 188, eq. 7), which has noise of its own. With power spectra of signal over noise
``N = |P_n|^2 / s_n^2`` of the new image and ``R = sum_i |F_i P_i|^2 / s_i^2`` of the earlier ones the S/N
of a change of flux f is that of the proper difference (Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27):
``f^2 sum_k N R / (N + R)``, where a static sky without noise gives ``f^2 sum_k N``.

`proper_score` makes that score of real pixels: matched filters of the noise in each exposure, true PSFs,
true variances, nothing left of the static sky. The filters ``R / (N + R)`` and ``N / (N + R)`` are each
tile's own, and change with what the earlier exposures know of a pixel relative to the new one: on strips
that few of them reach, in holes. The variance is propagated pixel by pixel, so that the score is of unit
width everywhere.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, next_fast_len, rfft2

from benchmarks.pairs import Pair
from benchmarks.static_sky import Exposed, blocks, without_static

Float32 = npt.NDArray[np.float32]
Complex = npt.NDArray[np.complex64]

_TILE_PIX = 256
#: What the earlier exposures know of a pixel, relative to the usual: the filter of the nearest one is taken.
_LEVELS = 2.0 ** np.arange(-5, 3)
#: Power below this share of the largest carries nothing.
_NOTHING = 1e-7
#: A place of which less than this share of the usual is known has no score.
_SEEN = 1e-3


def earlier_of(pair: Pair) -> list[Exposed]:
    """Return the exposures of a pair's reference."""
    return [without_static(pair, index, image.image) for index, image in enumerate(pair.inputs())]


def proper_score(new: Exposed, earlier: Sequence[Exposed]) -> Float32:
    """Return the score of what changed in units of its standard deviation, (H, W), 0 where nothing is known.

    Parameters
    ----------
    new
        With what changed.
    earlier
        Without.
    """
    height, width = new.left.shape
    score = np.zeros((height, width), np.float32)
    widest = max(e.field.fwhm_pix for e in (new, *earlier))
    half = int(np.ceil(4 * widest))
    for top, left in blocks(height, width, _TILE_PIX):
        target = score[top : top + _TILE_PIX, left : left + _TILE_PIX]
        side = next_fast_len(_TILE_PIX + 4 * half, real=True)
        planes = [_Plane(new, 1.0, (top, left), (0, 0, 0.0, 0.0), half, side)]
        for one in earlier:
            move = _move(new, one, left + _TILE_PIX / 2, top + _TILE_PIX / 2)
            planes.append(_Plane(one, 10 ** (0.4 * (one.zp - new.zp)), (top, left), move, half, side))
        target[:] = _score(planes, side)[: target.shape[0], : target.shape[1]]
    return score


def _move(new: Exposed, other: Exposed, x: float, y: float) -> tuple[int, int, float, float]:
    """Return whole and broken pixels from a place of the new image to the same of another one."""
    px, py = other.sky_map.to_pixels(*new.sky_map.to_sky(np.array([x]), np.array([y])))
    dx, dy = float(px[0]) - x, float(py[0]) - y
    return round(dx), round(dy), dx - round(dx), dy - round(dy)


class _Plane:
    """One exposure around a tile, as spectra.

    Attributes
    ----------
    star
        Transform of a star in the middle of the origin, times its scale.
    signal
        Transform of weight times pixels.
    weight
        Transform of the weight.
    power
        The star's power, times the usual weight here: information by frequency.
    information, usual
        Inverse variance of a star's flux from this exposure alone: (tile, tile) at each place; where it has
        neither holes nor light.
    """

    def __init__(
        self, of: Exposed, scale: float, corner: tuple[int, int], move: tuple[int, int, float, float],
        half: int, side: int,
    ) -> None:  # fmt: skip
        top, left = corner
        dx, dy, fx, fy = move
        x, y = left + dx + _TILE_PIX / 2 + of.offset[0], top + dy + _TILE_PIX / 2 + of.offset[1]
        stamp = np.zeros((side, side), np.float32)
        size = 2 * half + 1
        stamp[:size, :size] = scale * of.field.stamp(x, y, size, fx, fy)
        stamp = np.roll(stamp, (-half, -half), (0, 1))
        # The wings of the filters are wider than the PSF.
        reach = 2 * half
        box = top + dy - reach, left + dx - reach, _TILE_PIX + 2 * reach
        weight = _cut(of.usable, *box)
        self.reach = reach
        self.star: Complex = rfft2(stamp)
        self.signal: Complex = rfft2(weight * _cut(of.left, *box), (side, side))
        self.weight: Complex = rfft2(weight, (side, side))
        self.power = of.usual * np.abs(self.star) ** 2
        self.usual = of.usual * float(np.sum(stamp**2))
        self.information = self.filtered(self.weight, rfft2(stamp**2))

    def filtered(self, what: Complex, kernel: Complex) -> Float32:
        """Return the sum of a plane times a kernel around each place of the tile."""
        side = what.shape[0]
        whole = irfft2(what * kernel.conj(), (side, side))
        tile = slice(self.reach, self.reach + _TILE_PIX)
        return np.asarray(whole[tile, tile], np.float32)


def _cut(plane: Float32, top: int, left: int, side: int) -> Float32:
    """Return a square of a plane, 0 beyond its rim."""
    square = np.zeros((side, side), np.float32)
    height, width = plane.shape
    y, x = (
        slice(max(top, 0), max(min(top + side, height), 0)),
        slice(max(left, 0), max(min(left + side, width), 0)),
    )
    part = plane[y, x]
    if part.size:
        square[
            y.start - top : y.start - top + part.shape[0], x.start - left : x.start - left + part.shape[1]
        ] = part
    return square


def _score(planes: Sequence[_Plane], side: int) -> Float32:
    """Return the score of a tile, (tile, tile)."""
    new, *earlier = planes
    known, usual = sum(p.information for p in earlier), sum(p.usual for p in earlier)
    seen = (new.information > _SEEN * new.usual) & (known > _SEEN * usual)
    ratio = np.where(seen, known, 1) / usual / (np.where(seen, new.information, 1) / new.usual)
    level = np.argmin(np.abs(np.log2(ratio)[..., None] - np.log2(_LEVELS)), axis=-1)
    power_old = sum(p.power for p in earlier)
    score = np.zeros(seen.shape, np.float32)
    for number in np.unique(level[seen]):
        old = _LEVELS[number] * power_old
        both = new.power + old
        both += _NOTHING * both.max()
        here = seen & (level == number)
        found, variance = np.zeros(seen.shape, np.float32), np.zeros(seen.shape, np.float32)
        for plane, share in ((new, old / both), *((p, -new.power / both) for p in earlier)):
            kernel = plane.star * share
            found += plane.filtered(plane.signal, kernel)
            variance += plane.filtered(plane.weight, rfft2(irfft2(kernel, (side, side)) ** 2))
        score[here] = found[here] / np.sqrt(np.maximum(variance[here], 1e-30))
    return score
