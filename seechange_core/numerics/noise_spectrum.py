"""What interpolation does to noise: its power spectrum after resampling with the quintic spline.

White noise read at source positions ``p`` and ``p + tau`` by the cardinal spline eta has the covariance
``sum_k eta(p - k) eta(p + tau - k)``: it depends on the fraction of `p`. Averaged over the fractions that
really occur in a patch, at the lags of the target's pixels, it gives the patch's spectrum.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.ndimage import map_coordinates

from seechange_core.frames import Float, Float32
from seechange_core.numerics.regions import PIXEL_RATIO
from seechange_core.numerics.resample import CoordinateGrid
from seechange_core.numerics.spline_reading import STEP_PIX

_PHASES = 16
_REACH = 8
"""Lags, in target pixels, beyond which the covariance is below 0.1 %."""
_TABLE_REACH = 16
_SAMPLES = 24


def cardinal_transfer(f: npt.NDArray[np.floating]) -> Float:
    """Return the Fourier transform of the quintic cardinal spline at frequencies in cycles per pixel."""
    spline = (66 + 52 * np.cos(2 * np.pi * f) + 2 * np.cos(4 * np.pi * f)) / 120
    return np.asarray(np.sinc(f) ** 6 / spline)


@cache
def _covariance_table() -> Float:
    """Tabulate the 1-d covariance: (lag, phase), lags from -16 to 16 in steps of 1 / 16, phases i / 16."""
    impulse = np.zeros(129)
    impulse[64] = 1
    steps = np.arange(-40 * _PHASES, 40 * _PHASES + 1)
    eta = map_coordinates(impulse, [64 + steps / _PHASES], order=5)
    table = np.empty((2 * _TABLE_REACH * _PHASES + 1, _PHASES))
    whole = np.arange(-20, 21) * _PHASES + 40 * _PHASES
    for phase in range(_PHASES):
        first = eta[whole + phase]
        for n, lag in enumerate(range(-_TABLE_REACH * _PHASES, _TABLE_REACH * _PHASES + 1)):
            shifted = whole + phase + lag
            inside = (shifted >= 0) & (shifted < len(eta))
            table[n, phase] = first[inside] @ eta[shifted[inside]]
    return table


def warped_noise_power(
    grid: CoordinateGrid, x: tuple[float, float], y: tuple[float, float], side: int
) -> Float32:
    """Return the power spectrum of white noise after the warp, in a patch of the target.

    Parameters
    ----------
    grid
        The warp's coordinates.
    x, y
        First and last pixel of the patch, target pixels.
    side
        Of the Fourier transform that the spectrum is for.

    Returns
    -------
    Float32
        (side, side // 2 + 1) as `scipy.fft.rfft2` orders them, 1 at frequency 0: relative to white
        noise of the variance 1 / `Warped.weight`.
    """
    steps = np.arange(_SAMPLES) / (_SAMPLES - 1)
    columns = (np.rint(x[0] + (x[1] - x[0]) * steps) - grid.box.x0) / STEP_PIX
    rows = (np.rint(y[0] + (y[1] - y[0]) * steps) - grid.box.y0) / STEP_PIX
    tau_x, tau_y = grid.jacobian((x[0] + x[1]) / 2, (y[0] + y[1]) / 2) @ _lags()
    share = _shares(grid.x, grid.y, columns, rows)
    return _to_power(_mean_covariance(share, tau_x, tau_y, _covariance_table()), side)


@njit(cache=True, nogil=True)
def _shares(grid_x: Float, grid_y: Float, columns: Float, rows: Float) -> Float:
    """Say how often places, counted in nodes, fall on each fraction of a source pixel in y and x."""
    share = np.zeros((_PHASES, _PHASES))
    for v in rows:
        i = min(max(int(v), 0), grid_x.shape[0] - 2)
        for u in columns:
            j = min(max(int(u), 0), grid_x.shape[1] - 2)
            at_y, at_x = _between(grid_y, i, j, v - i, u - j), _between(grid_x, i, j, v - i, u - j)
            share[int(np.rint(at_y * _PHASES)) % _PHASES, int(np.rint(at_x * _PHASES)) % _PHASES] += 1
    return share / (len(rows) * len(columns))


@njit(cache=True, nogil=True)
def _between(nodes: Float, i: int, j: int, v: float, u: float) -> float:
    lower = nodes[i, j] * (1 - u) + nodes[i, j + 1] * u
    upper = nodes[i + 1, j] * (1 - u) + nodes[i + 1, j + 1] * u
    return float(lower * (1 - v) + upper * v)


@njit(cache=True, nogil=True)
def _mean_covariance(share: Float, tau_x: Float, tau_y: Float, table: Float) -> Float:
    """Return the covariance at every lag, averaged over the fractions of source pixels; their sum is 1."""
    out, inner = np.empty(len(tau_x)), np.empty(_PHASES)
    along_x, along_y = np.empty(_PHASES), np.empty(_PHASES)
    for n in range(len(tau_x)):
        _interpolate(table, tau_x[n], along_x)
        _interpolate(table, tau_y[n], along_y)
        inner[:] = 0
        for j in range(_PHASES):
            for i in range(_PHASES):
                inner[i] += share[j, i] * along_y[j]
        out[n] = np.sum(inner * along_x)
    out /= out.sum()
    return out


@njit(cache=True, nogil=True)
def _interpolate(table: Float, lag: float, out: Float) -> None:
    """Read the table at a lag, for all phases, linearly."""
    u = min(max((lag + _TABLE_REACH) * _PHASES, 0.0), len(table) - 1.001)
    i = int(u)
    for phase in range(_PHASES):
        out[phase] = table[i, phase] + (u - i) * (table[i + 1, phase] - table[i, phase])


@cache
def _lags() -> Float:
    """Return every lag of two target pixels, x and y, (2, n_lags)."""
    lag = np.arange(-_REACH, _REACH + 1, dtype=float)
    lag_y, lag_x = np.meshgrid(lag, lag, indexing="ij")
    return np.array([lag_x.ravel(), lag_y.ravel()])


@cache
def coadd_noise_power(side: int, pixel_ratio: float = PIXEL_RATIO) -> Float32:
    """Return the power spectrum of noise interpolated once at all phases alike, as in a dithered coadd.

    Parameters
    ----------
    side
        Of the Fourier transform that the spectrum is for.
    pixel_ratio
        Side of the coadd's pixels in those of its inputs.

    Returns
    -------
    Float32
        (side, side // 2 + 1), 1 at frequency 0.
    """
    lag = np.arange(-_REACH, _REACH + 1, dtype=float)
    line, phases = np.empty(len(lag)), np.empty(_PHASES)
    for n in range(len(lag)):
        _interpolate(_covariance_table(), pixel_ratio * lag[n], phases)
        line[n] = phases.mean()
    covariance = np.outer(line, line).ravel()
    power = _to_power(covariance / covariance.sum(), side)
    power.flags.writeable = False
    return power


def _to_power(covariance: Float, side: int) -> Float32:
    """Return the real part of the transform of a covariance at lags of -`_REACH` to `_REACH`."""
    plane = covariance.reshape(2 * _REACH + 1, 2 * _REACH + 1).astype(np.float32)
    (cos_y, sin_y), (cos_x, sin_x) = _waves(side, side), _waves(side, side // 2 + 1)
    power = cos_y @ plane @ cos_x.T - sin_y @ plane @ sin_x.T
    return np.asarray(np.maximum(power, np.float32(1e-4)), np.float32)


@cache
def _waves(side: int, count: int) -> tuple[Float32, Float32]:
    """Return cosine and sine of every lag at the first frequencies of a transform, (count, n_lags)."""
    phase = 2 * np.pi / side * np.outer(np.arange(count), np.arange(-_REACH, _REACH + 1))
    return np.cos(phase).astype(np.float32), np.sin(phase).astype(np.float32)
