"""Coefficients of the quintic spline that passes through an image's pixels."""

import numpy as np
from numba import njit

from seechange_core.frames import Float32

_POLES = (
    float(np.sqrt(67.5 - np.sqrt(4436.25)) + np.sqrt(26.25) - 6.5),
    float(np.sqrt(67.5 + np.sqrt(4436.25)) - np.sqrt(26.25) - 6.5),
)
_GAIN = float(np.prod([(1 - z) * (1 - 1 / z) for z in _POLES]))
_BAND = 32
"""Columns that are filtered side by side: they stay in the cache."""
_FADED = 1e-9
"""Beyond the pixels where a power of the pole is less than this, nothing counts for its first value."""


def quintic_coefficients(image: Float32) -> Float32:
    """Return the coefficients of the interpolating spline of order 5, mirrored at the edges, (H, W) float32.

    Two recursive filters along each axis (Unser, Aldroubi & Eden 1993, IEEE Trans. Signal Process. 41, 821),
    on many lines at once.

    Parameters
    ----------
    image
        (H, W) float32, finite.
    """
    out = np.array(image, np.float32)
    for plane in (out, out.T):
        _filter_columns(plane, np.array(_POLES, np.float32), np.float32(_GAIN))
    return out


@njit(cache=True, nogil=True)
def _filter_columns(plane, poles, gain):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Filter along y, in place, a band of columns at a time."""
    height, width = plane.shape
    if height < 2:
        return
    work = np.empty((height, _BAND), np.float32)
    for left in range(0, width, _BAND):
        n = min(_BAND, width - left)
        for y in range(height):
            for x in range(n):
                work[y, x] = plane[y, left + x] * gain
        for k in range(len(poles)):
            _one_pole(work, poles[k], n)
        for y in range(height):
            for x in range(n):
                plane[y, left + x] = work[y, x]


@njit(cache=True, nogil=True)
def _one_pole(work, z, n):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Run the causal and the anticausal filter of a pole down and up the first n columns."""
    height = work.shape[0]
    period = 2 * height - 2
    reach = min(period, int(np.ceil(np.log(_FADED) / np.log(abs(z)))))
    first = np.zeros(n, np.float32)
    for k in range(reach):
        # Mirrored about the first and the last pixel.
        row = k % period
        row = min(row, period - row)
        for x in range(n):
            first[x] += z**k * work[row, x]
    for x in range(n):
        work[0, x] = first[x] / (1 - z**period) if reach == period else first[x]
    last = z / (z * z - np.float32(1))
    for y in range(1, height):
        for x in range(n):
            work[y, x] += z * work[y - 1, x]
    for x in range(n):
        work[height - 1, x] = last * (work[height - 1, x] + z * work[height - 2, x])
    for y in range(height - 2, -1, -1):
        for x in range(n):
            work[y, x] = z * (work[y + 1, x] - work[y, x])
