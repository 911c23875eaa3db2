"""What imperfect PSFs, scales and rebuilt cores leave of static light in a difference, measured on itself.

Of static light that the matched filter sees at T electrons, an error of the PSF or of the flux scale leaves
a residual in proportion to T: on the source itself, and around it to where its light reaches. How much is no
assumption here: the residuals at and around all static sources of the image tell it, in zones of distance
and bins of brightness; saturated stars, whose cores were rebuilt, and those where fewer images than usual
made the reference, whose PSF is another, apart from the others. The mean PSF of m of n images differs from
that of all in proportion to sqrt(1/m - 1/n): stars on strips of all kinds tell one number together. Quantiles
of many sources are not impressed by a few that really changed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.special import chdtri

from seechange_core.frames import Bool, Float, Float32, Int
from seechange_core.numerics.growth import grown

_REACHES_FWHM = (1.0, 2.0, 4.0)
"""The brightest static light within so many FWHM (rows and columns) may leave something, each with its own
relative error; that of the pixel's own light comes first."""
_DOMINATES = 0.5
"""A pixel tells the error of the first zone in which it sees so much of the brightest light around."""
_BIN = 0.3
"""Least width of a bin of brightness, in powers of ten."""
_FEWEST = (25, 60, 150, 400)
"""Independent elements (FWHM squared) that a bin needs, by reach: about ten sources."""
_MOST_BLANK = 0.1
"""What blank sky shows of variance beyond its noise, up to this much, is not the light's fault."""
_SPARSE = 50
_MOST_PIXELS = 300_000
_CHANCE = 0.85
"""Standard deviation of the width of one element: less than one of it is no sign of an error."""
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
    least, telling
        Light fainter than this, in sigma of the score, leaves nothing worth counting; or says less about
        errors than real changes on it would, so that it has the error of the faintest bin.
    """

    quantile: float
    highest: float
    defaults: tuple[float, ...]
    least: float = 30.0
    telling: float = 80.0


_REBUILT = _Kind(0.9, 0.1, (0.01, 0.01, 0.0025, 0.0005))
"""Saturated stars, some of which are rebuilt much worse than others."""
_ODD = _Kind(0.7, 0.3, (0.1, 0.05, 0.01, 0.0), least=5.0, telling=12.0)
"""Light where fewer images than usual made the reference, times `odd`."""
_LEAST_ODD = np.float32(1 / 3)
"""Beside such pixels: of nine tenths of the images."""


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
    odd: Float32,
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
    usable
        (H, W): pixels whose score counts.
    hot
        (H, W): pixels of saturated stars, which are measured apart from the others.
    odd
        (H, W) float32: how far from the usual one the reference's PSF is expected to be, in any unit: 0 where
        it is not, ``sqrt(1 / s - 1)`` where a share s of the usual images made it. Measured apart as well.
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
    usual = _Kind(0.7, 0.02, (default, 0.0, 0.0, 0.0))
    away, parts = usable, np.zeros(score.shape, np.uint8)
    others = []
    for part, (mask, kind) in enumerate(((hot, _REBUILT), (odd > 0, _ODD)), 1):
        if mask.any():
            parts[grown(mask, round(fwhm_pix)) & (parts == 0)] = part
            away = away & ~grown(mask, round((_REACHES_FWHM[-1] + 1) * fwhm_pix))
            others.append((part, usable, kind))
    for part, seen, kind in ((0, away, usual), *others):
        of_kind = light * np.maximum(odd, _LEAST_ODD) if kind is _ODD else light
        scene = _Scene.of(of_kind, parts, part, sigma, fwhm_pix, kind.least)
        _count(scene, score, seen, kind, factor)
    return factor


def _count(scene: "_Scene", score: Float32, seen: Bool, kind: _Kind, factor: Float32) -> None:
    """Measure what light leaves, where it reaches farthest first, and add it to `factor`, in place."""
    zones, counts = scene.zones(seen)
    blank = score.ravel()[_every(zones, _BLANK, counts[_BLANK], _SPARSE)]
    beyond = np.float32(
        np.clip(_width(blank, np.ones_like(blank), kind.quantile) ** 2 - 1, 0, _MOST_BLANK)
        if len(blank)
        else 0
    )
    tables = np.zeros((scene.reaches + 1, _STEPS * _DECADES), np.float32)
    for k in range(scene.reaches, -1, -1):
        index = _every(zones, k, counts[k], max(1, counts[k] // _MOST_PIXELS))
        known = factor.ravel()[index] + beyond + scene.excess(index, tables)
        law = _law(score.ravel()[index], scene.seen_light(index, k), known, scene.fwhm_pix, _FEWEST[k], kind)
        tables[k] = (law or Law(np.zeros(1), np.array([kind.defaults[k]]))).table()
    scene.add(factor, tables)


_NOT_SEEN, _BLANK = 255, 254


@njit(cache=True, nogil=True)
def _every(zones, zone, count, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the place of every `step`-th of the `count` pixels of a zone."""
    out = np.empty(-(-count // step), np.int64)
    flat, found = zones.ravel(), 0
    for place in range(flat.size):
        if flat[place] == zone:
            if found % step == 0:
                out[found // step] = place
            found += 1
    return out


@njit(cache=True, nogil=True)
def _block_max(light, parts, part, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the brightest of one part of the light in each block; 0 where the block has none of it."""
    rows, columns = -(-light.shape[0] // step), -(-light.shape[1] // step)
    out = np.zeros((rows, columns), light.dtype)
    for y in range(light.shape[0]):
        v = y // step
        for x in range(light.shape[1]):
            if parts[y, x] == part:
                u = x // step
                out[v, u] = max(out[v, u], light[y, x])
    return out


@njit(cache=True, nogil=True)
def _widened(plane, half, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Fill `out` with the largest values within `half` rows and columns."""
    height, width = plane.shape
    column = np.empty(width, plane.dtype)
    for y in range(height):
        column[:] = plane[y]
        for v in range(max(0, y - half), min(height, y + half + 1)):
            for x in range(width):
                column[x] = plane[v, x] if plane[v, x] > column[x] else column[x]
        row = out[y]
        row[:] = column
        for d in range(1, min(half + 1, width)):
            for x in range(width - d):
                row[x] = column[x + d] if column[x + d] > row[x] else row[x]
            for x in range(d, width):
                row[x] = column[x - d] if column[x - d] > row[x] else row[x]


@dataclass(frozen=True, eq=False)
class _Scene:
    """One part of the static light, and the brightest of it within each reach, on blocks of `step` pixels."""

    light: Float32
    parts: npt.NDArray[np.uint8]
    part: int
    sigma: Float32
    around: Float32
    step: int
    fwhm_pix: float
    least: float

    @classmethod
    def of(
        cls,
        light: Float32,
        parts: npt.NDArray[np.uint8],
        part: int,
        sigma: Float32,
        fwhm_pix: float,
        least: float,
    ) -> "_Scene":
        step = max(2, int(fwhm_pix / 2))
        blocks, before = _block_max(light, parts, part, step), 0
        around = np.empty((len(_REACHES_FWHM), *blocks.shape), np.float32)
        for reach, plane in zip(_REACHES_FWHM, around, strict=True):
            half = max(before + 1, round(reach * fwhm_pix / step))
            _widened(blocks, half - before, plane)
            blocks, before = plane, half
        return cls(light, parts, part, sigma, around, step, fwhm_pix, least)

    @property
    def reaches(self) -> int:
        """Number of reaches."""
        return len(self.around)

    def zones(self, seen: Bool) -> tuple[npt.NDArray[np.uint8], list[int]]:
        """Return for each pixel the first reach that sees a good part of the brightest light around it.

        The second result tells how many pixels each zone has.
        """
        out = np.empty(self.light.shape, np.uint8)
        counts = _zones(
            self.light, self.parts, self.part, self.sigma, self.around, self.step, seen,
            np.float32(self.least), np.float32(_DOMINATES), out,
        )  # fmt: skip
        return out, counts.tolist()

    def seen_light(self, index: Int, zone: int) -> Float32:
        """Return own light (zone 0) or the brightest within a reach of some pixels, in sigma."""
        if zone == 0:
            own = self.parts.ravel()[index] == self.part
            light = np.where(own, np.maximum(self.light.ravel()[index], 0), np.float32(0))
        else:
            y, x = np.divmod(index, self.light.shape[1])
            light = self.around[zone - 1][y // self.step, x // self.step]
        return np.asarray(light / self.sigma.ravel()[index], np.float32)

    def excess(self, index: Int, tables: Float32) -> Float32:
        """Return the excess variance of some pixels."""
        total = np.zeros(len(index), np.float32)
        for k in range(self.reaches + 1):
            if tables[k].any():
                log = _STEPS * np.log10(np.maximum(self.seen_light(index, k), np.float32(1)))
                total += np.interp(log, np.arange(tables.shape[1]), tables[k]).astype(np.float32)
        return total

    def add(self, factor: Float32, tables: Float32) -> None:
        """Add the excess variance of all pixels to an image, in place."""
        _add(
            self.light, self.parts, self.part, self.sigma, self.around, self.step, tables,
            tables.any(axis=1), np.float32(self.least), _STEPS, factor,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _zones(light, parts, part, sigma, around, step, seen, least, dominates, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    last = around.shape[0] - 1
    counts = np.zeros(256, np.int64)
    for y in range(light.shape[0]):
        v = y // step
        for x in range(light.shape[1]):
            u = x // step
            most = around[last, v, u]
            if not seen[y, x]:
                zone = _NOT_SEEN
            elif most <= least * sigma[y, x]:
                zone = _BLANK
            elif parts[y, x] == part and light[y, x] >= dominates * most:
                zone = 0
            else:
                zone = 1
                while around[zone - 1, v, u] < dominates * most:
                    zone += 1
            out[y, x] = zone
            counts[zone] += 1
    return counts


@njit(cache=True, nogil=True, fastmath=True)
def _add(light, parts, part, sigma, around, step, tables, useful, least, steps, factor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    n, end = around.shape[0], tables.shape[1] - 2
    for y in range(light.shape[0]):
        v = y // step
        for x in range(light.shape[1]):
            u = x // step
            if around[n - 1, v, u] <= least * sigma[y, x]:
                continue
            for k in range(n + 1):
                if not useful[k] or (k == 0 and parts[y, x] != part):
                    continue
                bright = light[y, x] if k == 0 else around[k - 1, v, u]
                if bright > sigma[y, x]:
                    place = steps * np.log10(bright / sigma[y, x])
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
    telling = int(np.count_nonzero(light > kind.telling))
    while telling - start >= enough:
        stop = max(start + enough, int(np.searchsorted(-log, _BIN - log[start])))
        if telling - stop < enough:
            stop = telling
        pick = order[start:stop]
        middles.append(float(np.median(log[start:stop])))
        chance = _CHANCE * fwhm_pix / np.sqrt(stop - start)
        errors.append(_error(residual[pick], light[pick], known[pick], kind, float(chance)))
        start = stop
    return Law(np.array(middles[::-1]), np.array(errors[::-1])) if errors else None


def _error(residual: Float32, light: Float32, known: Float32, kind: _Kind, chance: float) -> float:
    """Return the relative error that gives residuals unit width; 0 if they have it within chance without."""
    if _width(residual, known, kind.quantile) <= 1 + chance:
        return 0.0
    # Each pixel tells what the square of the error would have to be for its residual to be the quantile.
    squared = (np.square(residual) / chdtri(1, 1 - kind.quantile) - known) / np.square(light)
    return min(float(np.sqrt(max(np.quantile(squared, kind.quantile), 0.0))), kind.highest)


def _width(residual: Float32, variance: Float32, quantile: float) -> float:
    """Return the width of residuals in units of what is expected."""
    power = np.quantile(np.square(residual) / variance, quantile)
    return float(np.sqrt(power / chdtri(1, 1 - quantile)))
