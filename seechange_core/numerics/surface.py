"""Smooth surfaces over an image: Legendre polynomials fitted to cells of pixels, with their error."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.polynomial import legendre

from seechange_core.frames import Bool, Float, Float32
from seechange_core.numerics.stats import MAD_TO_SIGMA


class Cells(NamedTuple):
    """Clipped means of square cells of an image.

    Attributes
    ----------
    u, v
        (m,) float64, mean position of a cell's usable pixels along x and y, -1 to 1 over the image.
    value, error
        (m,) float64, its clipped mean and the standard error of that.
    """

    u: Float
    v: Float
    value: Float
    error: Float


def cell_means(data: Float32, usable: Bool, cell_pix: int, n_sigma: float) -> Cells:
    """Average an image in cells; those with less than a quarter of usable pixels are left out.

    Parameters
    ----------
    data
        (H, W) float32.
    usable
        (H, W) bool.
    cell_pix
        Side of a cell; the last ones are stretched to fit.
    n_sigma
        Clip pixels further than this from the cell's median.

    Returns
    -------
    Cells
        In no particular order.
    """
    height, width = data.shape
    found = []
    for y0, y1 in pairwise(_edges(height, cell_pix)):
        for x0, x1 in pairwise(_edges(width, cell_pix)):
            here = usable[y0:y1, x0:x1]
            values = data[y0:y1, x0:x1][here]
            if values.size < max(4, 0.25 * here.size):
                continue
            mean, error = _clipped_mean(values, n_sigma)
            u, v = (x0 + x1) / 2, (y0 + y1) / 2
            if values.size < here.size:
                y, x = np.nonzero(here)
                u, v = x0 + x.mean() + 0.5, y0 + y.mean() + 0.5
            found.append((2 * u / width - 1, 2 * v / height - 1, mean, error))
    return Cells(*np.array(found, dtype=np.float64).reshape(-1, 4).T)


def _edges(length: int, cell: int) -> list[int]:
    return [int(edge) for edge in np.linspace(0, length, max(1, round(length / cell)) + 1)]


def _clipped_mean(values: Float32, n_sigma: float) -> tuple[float, float]:
    off = values - np.median(values)
    size = np.abs(off)
    sigma = MAD_TO_SIGMA * float(np.median(size)) or float(np.std(off))
    kept = off[size <= n_sigma * sigma]
    return float(np.median(values)) + float(kept.mean()), float(kept.std()) / np.sqrt(kept.size)


class Surface(NamedTuple):
    """A sum of products of Legendre polynomials over an image.

    Attributes
    ----------
    coefficients
        (d + 1, d + 1) float64, of ``P_j(v) P_i(u)`` at ``[j, i]``.
    modes
        (k, d + 1, d + 1) float64: independent errors of one sigma each; the squares of the surfaces that
        they make add up to the variance.
    """

    coefficients: Float
    modes: Float

    def evaluate(self, shape: tuple[int, int]) -> tuple[Float32, Float32]:
        """Return the surface and its variance at all pixels, (H, W) float32 each."""
        degree = self.coefficients.shape[0] - 1
        rows, columns = (
            legendre.legvander((2 * np.arange(n) + 1) / n - 1, degree).astype(np.float32) for n in shape
        )
        variance = np.zeros(shape, dtype=np.float32)
        for mode in self.modes.astype(np.float32):
            variance += (rows @ mode @ columns.T) ** 2
        return rows @ self.coefficients.astype(np.float32) @ columns.T, variance


def fit_surface(cells: Cells, degree: int, n_sigma: float) -> Surface:
    """Fit a surface to cells, weighted by their errors; cells that stand out are left out.

    Where the cells scatter by more than their errors, the errors of the surface grow by as much.

    Parameters
    ----------
    cells
        At least one.
    degree
        Highest total degree; lower where there are too few cells: two for each coefficient at least.
    n_sigma
        Leave out cells further than this from the surface.

    Returns
    -------
    Surface
        Of the degree asked for or lower.
    """
    terms = [(j, i) for j in range(degree + 1) for i in range(degree + 1) if j + i <= degree]
    while 2 * len(terms) > cells.value.size and degree > 0:
        degree -= 1
        terms = [(j, i) for j, i in terms if j + i <= degree]
    basis_v, basis_u = legendre.legvander(cells.v, degree), legendre.legvander(cells.u, degree)
    error = np.maximum(cells.error, 1e-3 * float(np.median(cells.error)) + 1e-12)
    design = np.stack([basis_v[:, j] * basis_u[:, i] for j, i in terms], axis=1) / error[:, None]
    target = cells.value / error
    used = np.ones(target.size, dtype=np.bool_)
    for _ in range(10):
        solution = np.linalg.lstsq(design[used], target[used], rcond=None)[0]
        off = np.abs(target - design @ solution)
        freedom = max(1 - len(terms) / int(used.sum()), 0.1)
        # Never less than their own errors: then what stands out of few cells is chance.
        scatter = max(MAD_TO_SIGMA * float(np.median(off[used])) / np.sqrt(freedom), 1.0)
        kept = off <= n_sigma * scatter
        if (kept == used).all() or kept.sum() < len(terms):
            break
        used = kept
    rest = (target - design @ solution)[used]
    reduced = float(np.sum(rest**2)) / max(int(used.sum()) - len(terms), 1)
    covariance = np.linalg.pinv(design[used].T @ design[used]) * max(reduced, 1.0)
    values, vectors = np.linalg.eigh(covariance)
    coefficients = np.zeros((degree + 1, degree + 1))
    modes = np.zeros((len(terms), degree + 1, degree + 1))
    for t, (j, i) in enumerate(terms):
        coefficients[j, i] = solution[t]
        modes[:, j, i] = vectors[t] * np.sqrt(np.maximum(values, 0))
    return Surface(coefficients, modes)
