"""What imperfect PSFs, scales and rebuilt cores leave of static light in a difference, measured on itself.

Of static light that the matched filter sees at T electrons, an error of the PSF or of the flux scale leaves
a residual in proportion to T: on the source itself, and around it to where its light reaches. How much is no
assumption here: the residuals at and around all static sources of the image tell it, in zones of distance
and bins of brightness; saturated stars, whose cores were rebuilt, apart from the others. Quantiles of many
sources are not impressed by a few that really changed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.ndimage import maximum_filter
from scipy.special import chdtri

from seechange_core.frames import Bool, Float, Float32, Int

_REACHES_FWHM = (1.0, 2.0, 4.0)
"""The brightest static light within so many FWHM (rows and columns) may leave something, each with its own
relative error; that of the pixel's own light comes first."""
_LEAST_LIGHT = 30.0
"""Static light fainter than this, in sigma of the score, leaves nothing worth counting."""
_DOMINATES = 0.5
"""A pixel tells the error of the first zone in which it sees so much of the brightest light around."""
_TELLING = 80.0
"""Light fainter than this, in sigma, says less about errors than real changes on it would: it has the error
of the faintest bin."""
_BIN = 0.3
"""Least width of a bin of brightness, in powers of ten."""
_FEWEST = (25, 60, 150, 400)
"""Independent elements (FWHM squared) that a bin needs, by reach: about ten sources."""
_MOST = 6000
_MOST_BLANK = 0.1
"""What blank sky shows of variance beyond its noise, up to this much, is not the light's fault."""
_SPARSE = 50
_MOST_PIXELS = 300_000
_CHANCE = 0.85
"""Standard deviation of the width of one element: less than one of it is no sign of an error."""
_HALVINGS = 14
_STEPS = 20
_DECADES = 8


class _Kind(NamedTuple):
    """How the errors of one kind of source are found.

    Attributes
    ----------
    quantile
        Of the absolute residuals: what fewer sources than that leave, real changes among them, is no error.
    highest
        Relative error: a subtraction that leaves more of stars has failed, and is to look like it.
    defaults
        Relative errors of own light and by reach, where too few sources tell any.
    """

    quantile: float
    highest: float
    defaults: tuple[float, ...]


_REBUILT = _Kind(0.9, 0.1, (0.01, 0.01, 0.0025, 0.0005))
"""Saturated stars, some of which are rebuilt much worse than others."""


@dataclass(frozen=True, eq=False)
class Law:
    """Relative error as a function of brightness; constant beyond the first and last bins.

    Attributes
    ----------
    log_light, error
        (n_bins,): middle of the bins, log10 of the light in sigma of the score, ascending.
    """

    log_light: Float
    error: Float

    def table(self) -> Float32:
        """Return the excess variance of the score by log10 of the light, in steps of 1 / 20."""
        log = np.arange(_STEPS * _DECADES) / _STEPS
        return np.asarray((np.interp(log, self.log_light, self.error) * 10**log) ** 2, np.float32)


def excess_variance(
    score: Float32,
    light: Float32,
    sigma: Float32,
    usable: Bool,
    hot: Bool,
    fwhm_pix: float,
    default: float,
) -> Float32:
    """Return by what factor the variance of the score exceeds that of its noise, by what static light leaves.

    Parameters
    ----------
    score
        (H, W) float32, in sigma of the noise alone.
    light
        (H, W) float32: static light through the score's filter: a star's flux at its place, electrons.
    sigma
        (H, W) float32: noise of a point-source flux at each pixel, electrons.
    usable, hot
        (H, W): pixels whose score counts; pixels of saturated stars.
    fwhm_pix
        Of the difference's PSF.
    default
        Relative error of each pixel's own light where too few sources tell any.

    Returns
    -------
    Float32
        (H, W), 1 or more.
    """
    factor = np.ones(score.shape, np.float32)
    step = max(2, int(fwhm_pix / 2))
    rebuilt = _grown(hot, fwhm_pix, step)
    away = usable & ~_grown(hot, (_REACHES_FWHM[-1] + 1) * fwhm_pix, step)
    nothing = np.float32(0)
    scene = _Scene.of(np.where(rebuilt, nothing, light), sigma, fwhm_pix, step)
    _count(scene, score, away, _Kind(0.7, 0.02, (default, 0.0, 0.0, 0.0)), factor)
    if rebuilt.any():
        scene = _Scene.of(np.where(rebuilt, light, nothing), sigma, fwhm_pix, step)
        _count(scene, score, usable, _REBUILT, factor)
    return factor


def _count(scene: "_Scene", score: Float32, seen: Bool, kind: _Kind, factor: Float32) -> None:
    """Measure what light leaves, where it reaches farthest first, and add it to `factor`, in place."""
    zones = scene.zones(seen)
    blank = score[zones == _BLANK][::_SPARSE]
    beyond = np.float32(
        np.clip(_width(blank, np.ones_like(blank), kind.quantile) ** 2 - 1, 0, _MOST_BLANK)
        if len(blank)
        else 0
    )
    tables = np.zeros((scene.reaches + 1, _STEPS * _DECADES), np.float32)
    for k in range(scene.reaches, -1, -1):
        index = np.flatnonzero(zones == k)
        index = index[:: max(1, len(index) // _MOST_PIXELS)]
        known = factor.ravel()[index] + beyond + scene.excess(index, tables)
        law = _law(score.ravel()[index], scene.light(index, k), known, scene.fwhm_pix, _FEWEST[k], kind)
        tables[k] = (law or Law(np.zeros(1), np.array([kind.defaults[k]]))).table()
    scene.add(factor, tables)


_NOT_SEEN, _BLANK = 255, 254


def _grown(mask: Bool, radius_pix: float, step: int) -> Bool:
    """Return the blocks of `step` pixels within a radius of a mask, as pixels."""
    height, width = mask.shape
    blocks = _block_max(mask.view(np.uint8), step)
    grown = maximum_filter(blocks, size=2 * round(radius_pix / step) + 1, mode="constant") > 0
    return np.asarray(np.repeat(np.repeat(grown, step, 0), step, 1)[:height, :width], bool)


@njit(cache=True, nogil=True)
def _block_max(plane, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    rows, columns = -(-plane.shape[0] // step), -(-plane.shape[1] // step)
    out = np.empty((rows, columns), plane.dtype)
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            v, u = y // step, x // step
            if (y % step == 0 and x % step == 0) or plane[y, x] > out[v, u]:
                out[v, u] = plane[y, x]
    return out


@dataclass(frozen=True, eq=False)
class _Scene:
    """Static light, and the brightest of it within each reach, on blocks of `step` pixels."""

    own: Float32
    sigma: Float32
    around: Float32
    step: int
    fwhm_pix: float

    @classmethod
    def of(cls, light: Float32, sigma: Float32, fwhm_pix: float, step: int) -> "_Scene":
        blocks = _block_max(light, step)
        planes, before = [], 0
        for reach in _REACHES_FWHM:
            half = max(before + 1, round(reach * fwhm_pix / step))
            blocks = maximum_filter(blocks, size=2 * (half - before) + 1, mode="nearest")
            planes.append(blocks)
            before = half
        return cls(light, sigma, np.stack(planes), step, fwhm_pix)

    @property
    def reaches(self) -> int:
        """Number of reaches."""
        return len(self.around)

    def zones(self, seen: Bool) -> npt.NDArray[np.uint8]:
        """Return for each pixel the first reach that sees a good part of the brightest light around it."""
        out = np.empty(self.own.shape, np.uint8)
        _zones(self.own, self.sigma, self.around, self.step, seen, _LEAST_LIGHT, _DOMINATES, out)
        return out

    def light(self, index: Int, zone: int) -> Float32:
        """Return own light (zone 0) or the brightest within a reach of some pixels, in sigma."""
        if zone == 0:
            light = np.maximum(self.own.ravel()[index], 0)
        else:
            y, x = np.divmod(index, self.own.shape[1])
            light = self.around[zone - 1][y // self.step, x // self.step]
        return np.asarray(light / self.sigma.ravel()[index], np.float32)

    def excess(self, index: Int, tables: Float32) -> Float32:
        """Return the excess variance of some pixels."""
        total = np.zeros(len(index), np.float32)
        for k in range(self.reaches + 1):
            if tables[k].any():
                log = _STEPS * np.log10(np.maximum(self.light(index, k), np.float32(1)))
                total += np.interp(log, np.arange(tables.shape[1]), tables[k]).astype(np.float32)
        return total

    def add(self, factor: Float32, tables: Float32) -> None:
        """Add the excess variance of all pixels to an image, in place."""
        _add(self.own, self.sigma, self.around, self.step, tables, _LEAST_LIGHT, _STEPS, factor)


@njit(cache=True, nogil=True)
def _zones(own, sigma, around, step, seen, least, dominates, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    last = around.shape[0] - 1
    for y in range(own.shape[0]):
        v = y // step
        for x in range(own.shape[1]):
            u = x // step
            most = around[last, v, u]
            if not seen[y, x]:
                out[y, x] = _NOT_SEEN
            elif most <= least * sigma[y, x]:
                out[y, x] = _BLANK
            elif own[y, x] >= dominates * most:
                out[y, x] = 0
            else:
                k = 0
                while around[k, v, u] < dominates * most:
                    k += 1
                out[y, x] = k + 1


@njit(cache=True, nogil=True, fastmath=True)
def _add(own, sigma, around, step, tables, least, steps, factor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    n, end = around.shape[0], tables.shape[1] - 2
    for y in range(own.shape[0]):
        v = y // step
        for x in range(own.shape[1]):
            u = x // step
            if around[n - 1, v, u] <= least * sigma[y, x]:
                continue
            for k in range(n + 1):
                light = own[y, x] if k == 0 else around[k - 1, v, u]
                if light > sigma[y, x]:
                    place = steps * np.log10(light / sigma[y, x])
                    cell = min(int(place), end)
                    share = np.float32(place - cell)
                    factor[y, x] += tables[k, cell] * (1 - share) + tables[k, cell + 1] * share


def _law(
    residual: Float32, light: Float32, known: Float32, fwhm_pix: float, fewest: float, kind: _Kind
) -> Law | None:
    """Measure the relative error of light in bins of brightness, from the brightest downwards."""
    enough = max(12, round(fewest * fwhm_pix**2))
    order = np.argsort(-light)
    log = np.log10(np.maximum(light[order], 1))
    middles, errors = [], []
    start = 0
    telling = int(np.count_nonzero(light > _TELLING))
    while telling - start >= enough:
        stop = max(start + enough, int(np.searchsorted(-log, _BIN - log[start])))
        if telling - stop < enough:
            stop = telling
        pick = order[start : stop : max(1, (stop - start) // _MOST)]
        middles.append(float(np.median(log[start:stop])))
        chance = _CHANCE * fwhm_pix / np.sqrt(stop - start)
        errors.append(_error(residual[pick], light[pick], known[pick], kind, float(chance)))
        start = stop
    return Law(np.array(middles[::-1]), np.array(errors[::-1])) if errors else None


def _error(residual: Float32, light: Float32, known: Float32, kind: _Kind, chance: float) -> float:
    """Return the relative error that gives residuals unit width."""
    squared = np.square(light)
    low, high = 0.0, kind.highest
    if _width(residual, known, kind.quantile) <= 1 + chance:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = np.asarray(known + squared * np.float32(middle**2), np.float32)
        if _width(residual, expected, kind.quantile) > 1:
            low = middle
        else:
            high = middle
    return high


def _width(residual: Float32, variance: Float32, quantile: float) -> float:
    """Return the width of residuals in units of what is expected."""
    power = np.quantile(np.square(residual) / variance, quantile)
    return float(np.sqrt(power / chdtri(1, 1 - quantile)))
