"""What interpolation does to noise: its power spectrum after resampling with the quintic spline.

White noise read at source positions ``p`` and ``p + tau`` by the cardinal spline eta has the covariance
``sum_k eta(p - k) eta(p + tau - k)``: it depends on the fraction of `p`. Averaged over the fractions that
really occur in a patch, at the lags of the target's pixels, it gives the patch's spectrum.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from seechange_core.frames import Float, Float32
from seechange_core.numerics.regions import PIXEL_RATIO
from seechange_core.numerics.resample import CoordinateGrid

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


def _lookup(lags: Float) -> Float:
    """Interpolate the table linearly: (n_lags, n_phases)."""
    table = _covariance_table()
    u = np.clip((lags + _TABLE_REACH) * _PHASES, 0, len(table) - 1.001)
    i = u.astype(int)
    share = (u - i)[:, None]
    return np.asarray(table[i] * (1 - share) + table[i + 1] * share)


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
    sx, sy = np.meshgrid(np.linspace(*x, _SAMPLES), np.linspace(*y, _SAMPLES))
    px, py = grid.at(np.rint(sx.ravel()), np.rint(sy.ravel()))
    bins = np.rint(px * _PHASES).astype(int) % _PHASES, np.rint(py * _PHASES).astype(int) % _PHASES
    counts = np.bincount(bins[0] * _PHASES + bins[1], minlength=_PHASES**2)
    histogram = counts.reshape(_PHASES, _PHASES) / px.size
    jacobian = grid.jacobian(float(np.mean(x)), float(np.mean(y)))
    tau_x, tau_y = jacobian @ _lags()
    covariance = np.sum(_lookup(tau_x) * (_lookup(tau_y) @ histogram.T), axis=1)
    return _to_power(covariance / covariance.sum(), side)


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
    lag = np.arange(-_REACH, _REACH + 1, dtype=np.int64)
    line = _lookup(pixel_ratio * lag.astype(float)).mean(axis=1)
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
