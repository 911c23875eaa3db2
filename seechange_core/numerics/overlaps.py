"""What sources that overlap lose in accuracy, because neither is known when the other is fitted.

A fit of one source with its neighbours' models taken away knows its own pixels' noise only. The errors of a
fit of all of them together are the diagonal of the inverse of the whole normal matrix; its off-diagonal terms
are the overlaps of the models and their slopes (Stetson 1987, PASP 99, 191, section III). Where the noise is
alike under both, these follow from the autocorrelation of the PSF alone.
"""

import numpy as np
from scipy.fft import fft2, fftfreq, ifft2
from scipy.ndimage import map_coordinates, spline_filter
from scipy.spatial import cKDTree

from seechange_core.frames import Float, Int, PsfModel

#: Neighbours further away take nothing; of those nearer, so many at most (the nearest) are followed.
_REACH_FWHM, _MOST = 1.7, 10
#: What is known of each parameter beforehand is no worse than this many sigma: two sources at one place stay
#: finite.
_WORST_SIGMA = 100.0
#: Sources whose matrices are inverted at a time.
_BATCH = 4096
#: Orders of derivatives by x and y, and where each stands in the table.
_ORDERS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
#: The derivative that couples parameter i (flux, x, y) of one source with parameter j of the other, its sign.
_COUPLING = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
_SIGN = np.array([[1, 1, 1], [-1, -1, -1], [-1, -1, -1]])


def error_growth(
    psf: PsfModel, x: Float, y: Float, x_err: Float, y_err: Float, max_shift_pix: float
) -> Float:
    """Return by how much overlapping neighbours raise the errors of fits of flux and position.

    Parameters
    ----------
    psf
        Of the image; the one in its middle is taken.
    x, y
        (n,) fitted positions, pixels.
    x_err, y_err
        (n,) errors of fits of each source alone, pixels.
    max_shift_pix
        Positions were not free to move farther: what is known of a faint neighbour's even so.

    Returns
    -------
    ndarray
        (n, 3) factors, 1 or more, of the errors of flux, x and y; 1 where the position is not finite.
    """
    growth = np.ones((len(x), 3))
    rows, near = _neighbours(x, y, _REACH_FWHM * psf.fwhm_pix)
    table = _autocorrelation(psf)
    prior = np.stack([np.zeros(len(x)), x_err, y_err], axis=1) / max_shift_pix
    prior = np.maximum(np.where(np.isfinite(prior), prior, 1.0), 1 / _WORST_SIGMA) ** 2
    for start in range(0, len(rows), _BATCH):
        some = slice(start, start + _BATCH)
        growth[rows[some]] = _of_groups(table, x, y, prior, near[some])
    return growth


def _neighbours(x: Float, y: Float, radius: float) -> tuple[Int, Int]:
    """Return the sources that have neighbours, and (m, k) themselves and these; -1 where no more are."""
    rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    most = min(_MOST + 1, len(rows))
    if most < 2:
        return rows[:0], np.zeros((0, 1), int)
    places = np.c_[x[rows], y[rows]]
    distance, found = cKDTree(places).query(places, k=most, distance_upper_bound=radius)
    # Itself comes first, whatever lies at the same place.
    found = np.where(np.isfinite(distance), found, -1)
    own = np.arange(len(rows))[:, None]
    others = np.where(found == own, -1, found)
    others = np.take_along_axis(others, np.argsort(others < 0, axis=1, kind="stable"), axis=1)[:, : most - 1]
    crowded = (others >= 0).any(axis=1)
    group = np.concatenate([own, others], axis=1)[crowded]
    return rows[crowded], np.where(group >= 0, rows[group], -1)


def _autocorrelation(psf: PsfModel) -> Float:
    """Return spline coefficients of the PSF's autocorrelation and its derivatives, (6, 2 s, 2 s), 0 at s."""
    stamp = psf.coefficients[0].astype(float)
    side = 2 * len(stamp)
    power = np.abs(fft2(stamp, (side, side))) ** 2
    k = 2j * np.pi * fftfreq(side)
    planes = [np.fft.fftshift(ifft2(power * k[None, :] ** i * k[:, None] ** j).real) for i, j in _ORDERS]
    return np.stack([spline_filter(p) for p in planes])


def _of_groups(table: Float, x: Float, y: Float, prior: Float, group: Int) -> Float:
    """Return the factors of the first of each group."""
    there = group >= 0
    # How far each lies from each: (m, k, k).
    dx = x[group][:, None, :] - x[group][:, :, None]
    dy = y[group][:, None, :] - y[group][:, :, None]
    both = there[:, :, None] & there[:, None, :]
    middle = table.shape[1] // 2
    places = np.stack([dy[both] + middle, dx[both] + middle])
    values = np.zeros((6, *both.shape))
    for plane, coefficients in zip(values, table, strict=True):
        plane[both] = map_coordinates(coefficients, places, prefilter=False, order=3)
    # <dP(r - a)/da, P(r - b)> is minus the autocorrelation's slope at b - a, <P, dP/db> is the slope.
    blocks = values[_COUPLING] * _SIGN[..., None, None, None]
    own = np.sqrt(blocks[[0, 1, 2], [0, 1, 2], :, 0, 0])
    blocks /= own[:, None, :, None, None] * own[None, :, :, None, None]
    m, k = group.shape
    matrix = blocks.transpose(2, 3, 0, 4, 1).reshape(m, 3 * k, 3 * k)
    # An empty place is a source that overlaps with nobody.
    diagonal = np.where(there[..., None], 1 + prior[group], 1.0).reshape(m, 3 * k)
    matrix[:, np.arange(3 * k), np.arange(3 * k)] = diagonal
    first = np.linalg.inv(matrix)[:, [0, 1, 2], [0, 1, 2]]
    return np.asarray(np.sqrt(np.maximum(first, 1.0)))
