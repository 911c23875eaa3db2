"""How faint a change would have been seen."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seechange_core.frames.types import Float, Float32


@dataclass(frozen=True, eq=False)
class Depth:
    """How faint a change a difference image shows, from place to place.

    Attributes
    ----------
    limit_e
        (ny, nx) float32, electrons: of the point source that is found in half of all cases; median over the
        searched pixels of cells of `step_pix` pixels; NaN where nothing was searched. The last row and
        column may hang over the edge.
    searched
        (ny, nx) float32: fraction of each cell's pixels in the section that were searched, 0 to 1.
    step_pix
        Side of a cell.
    shape
        (H, W) of the section.
    sigma
        `limit_e` in units of the noise of a point source's flux.
    """

    limit_e: Float32
    searched: Float32
    step_pix: int
    shape: tuple[int, int]
    sigma: float

    @property
    def median_e(self) -> float:
        """Median limit over the searched section, electrons; NaN if nothing was searched."""
        known = np.isfinite(self.limit_e)
        if not known.any():
            return float("nan")
        limit, weight = self.limit_e[known], (self.searched * self._pixels())[known]
        order = np.argsort(limit)
        passed = np.cumsum(weight[order])
        return float(limit[order][np.searchsorted(passed, passed[-1] / 2)])

    @property
    def searched_fraction(self) -> float:
        """Fraction of the section that was searched, 0 to 1."""
        pixels = self._pixels()
        return float(np.sum(self.searched * pixels) / np.sum(pixels))

    def limit_at(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Float:
        """Return the flux limit at 0-based pixels, electrons.

        Between the middles of cells it is interpolated; NaN outside the section and where less than half of
        the cell was searched.
        """
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        inside = (x >= -0.5) & (y >= -0.5) & (x < self.shape[1] - 0.5) & (y < self.shape[0] - 0.5)
        u, v = np.where(inside, x, 0.0), np.where(inside, y, 0.0)
        ny, nx = self.limit_e.shape
        column = np.clip(((u + 0.5) / self.step_pix).astype(int), 0, nx - 1)
        row = np.clip(((v + 0.5) / self.step_pix).astype(int), 0, ny - 1)
        known = inside & (self.searched[row, column] >= 0.5)
        return np.where(known, self._between(u, v), np.nan)

    def _between(self, x: Float, y: Float) -> Float:
        """Interpolate between the middles of the cells that have a limit."""
        ny, nx = self.limit_e.shape
        (top, below), (left, right) = _neighbours(y, self.step_pix, ny), _neighbours(x, self.step_pix, nx)
        total, weight = np.zeros(x.shape), np.zeros(x.shape)
        for row, share_y in (top, below):
            for column, share_x in (left, right):
                limit, share = self.limit_e[row, column], share_y * share_x
                total += np.where(np.isfinite(limit), share * np.nan_to_num(limit), 0.0)
                weight += np.where(np.isfinite(limit), share, 0.0)
        return np.asarray(np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan), float)

    def _pixels(self) -> Float:
        """Return how many pixels of the section each cell has."""
        height, width = (
            np.minimum(self.step_pix, side - self.step_pix * np.arange(n))
            for side, n in zip(self.shape, self.limit_e.shape, strict=True)
        )
        return np.outer(height, width).astype(float)


def _neighbours(at: Float, step: int, n: int) -> tuple[tuple[npt.NDArray[np.int64], Float], ...]:
    """Return the two cells whose middles lie around positions along an axis, with the share of each."""
    where = np.clip((at + 0.5) / step - 0.5, 0, n - 1)
    low = np.minimum(where.astype(np.int64), max(n - 2, 0))
    high = np.minimum(low + 1, n - 1)
    return (low, 1 - (where - low)), (high, where - low)
