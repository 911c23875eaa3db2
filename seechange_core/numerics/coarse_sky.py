"""Sky level and scatter on a coarse mesh, for noise models."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.frames import Bool, Float, Float32
from seechange_core.numerics.stats import mad_sigma

Edges = npt.NDArray[np.int64]

#: Standard deviation of a Gaussian over that of what is left of it within 3 sigma.
_UNCLIPPED = 1.0134
#: Share of a cell, in per cent, that counts as dark, and the pairs of pixels a cell must have.
_DARKEST = 25.0
_FEWEST_PAIRS = 100


@dataclass(frozen=True, eq=False)
class SkyMesh:
    """Sky level and scatter of an image, known at the centres of mesh cells.

    Attributes
    ----------
    level, sigma
        (ny, nx) float64; NaN everywhere if no pixel was usable.
    y_edges, x_edges
        (ny + 1,) and (nx + 1,) int64: first pixels of the cells.
    """

    level: Float
    sigma: Float
    y_edges: Edges
    x_edges: Edges

    def level_rows(self, rows: slice = slice(None)) -> Float32:
        """Return the level of some rows of the image, (rows, W) float32."""
        return self._spread(self.level, rows)

    def sigma_rows(self, rows: slice = slice(None)) -> Float32:
        """Return the scatter of some rows of the image, (rows, W) float32."""
        return self._spread(self.sigma, rows)

    def _spread(self, mesh: Float, rows: slice) -> Float32:
        """Interpolate linearly between the centres of the cells, and beyond them."""
        (top, bottom, down), (left, right, along) = self._between
        share = down[rows, None]
        lines = mesh[top[rows]] * (1 - share) + mesh[bottom[rows]] * share
        out = np.empty((lines.shape[0], left.size), np.float32)
        _fill_lines(lines.astype(np.float32), left, right, along.astype(np.float32), out)
        return out

    @cached_property
    def _between(self) -> tuple[tuple[Edges, Edges, Float], tuple[Edges, Edges, Float]]:
        return _neighbours(self.y_edges), _neighbours(self.x_edges)


@njit(cache=True, nogil=True)
def _fill_lines(lines: Float32, left: Edges, right: Edges, along: Float32, out: Float32) -> None:
    for y in range(out.shape[0]):
        line = lines[y]
        for x in range(out.shape[1]):
            first = line[left[x]]
            out[y, x] = first + along[x] * (line[right[x]] - first)


def coarse_sky(
    data: Float32, usable: Bool, cell_pix: int = 64, sigma_min: float = 0.0, step: int = 2
) -> SkyMesh:
    """Measure sky level and scatter of a whole image on a coarse mesh.

    Each cell gives the mean and sigma of its usable pixels within 3 sigma (the mean, for a median of
    whole ADU moves in steps of one); cells drowned in a bright object are replaced by the median of
    the 3 x 3 cells around. Good to a few per cent of the sky's scatter, which is plenty for a variance;
    photometry wants `numerics.background`.

    Parameters
    ----------
    data
        (H, W) float32; what is not finite is left out.
    usable
        (H, W) bool.
    cell_pix
        Side of a cell.
    sigma_min
        Scatter that the pixels have for certain: clipping is never closer than three times this.
    step
        Of cells of 48 pixels and more, only every so many rows are looked at.

    Returns
    -------
    SkyMesh
        All NaN where no pixel is usable.
    """
    height, width = data.shape
    y_edges, x_edges = cell_edges(height, cell_pix), cell_edges(width, cell_pix)
    level = np.full((y_edges.size - 1, x_edges.size - 1), np.nan)
    sigma = level.copy()
    step = step if cell_pix >= 48 else 1
    for j, (y0, y1) in enumerate(pairwise(y_edges)):
        lines = data[y0:y1:step]
        good = usable[y0:y1:step] & np.isfinite(lines)
        for i, (x0, x1) in enumerate(pairwise(x_edges)):
            cell = lines[:, x0:x1][good[:, x0:x1]]
            # Mostly masked cells say little: their neighbours speak for them.
            if cell.size >= max(1, 0.2 * lines.shape[0] * (x1 - x0)):
                level[j, i], sigma[j, i] = _sky_of_cell(cell, sigma_min)
    return SkyMesh(_smooth(level), _smooth(sigma), y_edges, x_edges)


def neighbour_noise(data: Float32, usable: Bool, mesh: SkyMesh) -> Float:
    """Measure the noise of single pixels in each cell of a mesh, even where stars crowd.

    It is the scatter of the differences between two pixels side by side, there where the pixels above and
    below them are dark: what chose the place has no part in the noise found there.

    Parameters
    ----------
    data
        (H, W) float32; what is not finite is left out. Noise that neighbours share is not seen.
    usable
        (H, W) bool.
    mesh
        Whose cells.

    Returns
    -------
    ndarray
        (ny, nx) float64; as `mesh.sigma` where a cell has too few pixels.
    """
    good = usable & np.isfinite(data)
    known = np.where(good, data, np.float32(np.nan))
    pairs = known[1:-1, 1:] - known[1:-1, :-1]
    around = known[:-2, 1:] + known[:-2, :-1] + known[2:, 1:] + known[2:, :-1]
    sigma = mesh.sigma.copy()
    for j, (y0, y1) in enumerate(pairwise(mesh.y_edges)):
        for i, (x0, x1) in enumerate(pairwise(mesh.x_edges)):
            cell = slice(max(y0 - 1, 0), y1 - 1), slice(max(x0 - 1, 0), x1 - 1)
            both = np.isfinite(pairs[cell]) & np.isfinite(around[cell])
            if np.count_nonzero(both) < _FEWEST_PAIRS:
                continue
            levels = around[cell][both]
            dark = levels <= np.percentile(levels, _DARKEST)
            sigma[j, i] = _scatter_about_zero(pairs[cell][both][dark]) / np.sqrt(2)
    return _smooth(sigma)


def _scatter_about_zero(differences: Float32) -> float:
    """Return the standard deviation of differences within 3 sigma: a median of whole ADU moves in steps."""
    width = max(mad_sigma(differences), 1e-6)
    for _ in range(4):
        kept = differences[np.abs(differences) <= 3 * width]
        width = float(np.sqrt(np.mean(kept.astype(np.float64) ** 2))) * _UNCLIPPED
    return width


def cell_edges(length: int, cell: int) -> Edges:
    """Return the first pixels of cells of about `cell` pixels that fill `length`, and the end."""
    return np.linspace(0, length, max(1, round(length / cell)) + 1).astype(np.int64)


def _sky_of_cell(cell: Float32, sigma_min: float) -> tuple[float, float]:
    """Return the mean and sigma of a cell's pixels after clipping at 3 sigma."""
    cell = np.sort(cell)
    low, high = 0, cell.size
    for _ in range(12):
        middle = cell[(low + high) // 2]
        # The lower half of the sky's distribution is free of stars: its width sets the clip.
        width = max(float(middle - cell[low + int(0.1587 * (high - low))]), sigma_min, 1e-6)
        new_low = int(np.searchsorted(cell, np.float32(middle - 3 * width)))
        new_high = int(np.searchsorted(cell, np.float32(middle + 3 * width), "right"))
        if (new_low, new_high) == (low, high):
            break
        low, high = new_low, new_high
    kept = cell[low:high] - middle
    mean = float(np.sum(kept, dtype=np.float64)) / kept.size
    square = float(np.dot(kept, kept)) / kept.size
    return float(middle) + mean, float(np.sqrt(max(square - mean**2, 0.0))) * _UNCLIPPED


def _smooth(mesh: Float) -> Float:
    """Replace cells that stand out, or have no value, by the median of their neighbourhood."""
    if mesh.size == 1:
        return mesh
    padded = np.pad(mesh, 1, constant_values=np.nan)
    ny, nx = mesh.shape
    stack = np.array([padded[j : j + ny, i : i + nx] for j in range(3) for i in range(3)])
    known = np.isfinite(stack)
    count = known.sum(axis=0)
    ordered = np.sort(np.where(known, stack, np.inf), axis=0)
    low = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0)[None], axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, 8)[None], axis=0)[0]
    with np.errstate(invalid="ignore"):
        smooth: Float = np.where(count > 0, (low + high) / 2, np.nan)
        ordinary = np.abs(mesh - smooth) <= 3 * mad_sigma(mesh - smooth)
    smooth[ordinary] = mesh[ordinary]
    if np.isfinite(smooth).any():
        smooth[~np.isfinite(smooth)] = np.nanmedian(smooth)
    return smooth


def _neighbours(edges: Edges) -> tuple[Edges, Edges, Float]:
    """Return for each pixel two cells, and its place from the first one's centre (0) to the other's (1)."""
    centres = (edges[:-1] + edges[1:] - 1) / 2
    pixels = np.arange(edges[-1])
    if centres.size == 1:
        return np.zeros_like(pixels), np.zeros_like(pixels), np.zeros(pixels.size)
    first = np.clip(np.searchsorted(centres, pixels) - 1, 0, centres.size - 2)
    return first, first + 1, (pixels - centres[first]) / (centres[first + 1] - centres[first])
