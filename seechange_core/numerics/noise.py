"""The noise of calibration frames, measured on their differences."""

from collections.abc import Sequence

import numpy as np

from seechange_core.errors import PixelsError
from seechange_core.frames import Float, Float32
from seechange_core.numerics.stats import clipped_stats


def noise_ratios(
    pixels: Sequence[Sequence[Float32]], floors: Float, levels: Float, *, photon_noise: bool
) -> Float:
    """Compare the scatter of frames with what is predicted for them.

    Each frame is differenced with up to eight others: fixed patterns cancel, and the robust width of the
    difference over its predicted width is the ratio.

    Parameters
    ----------
    pixels
        One list per frame, one array of electrons per amplifier.
    floors
        (n_frames, n_amplifiers) predicted variance at zero light, e-^2.
    levels
        (n_frames,) brightness of each frame: the second of a pair is scaled to the first.
    photon_noise
        True if the electrons themselves add their number to the variance.

    Returns
    -------
    ndarray
        (n_frames, n_amplifiers) measured over predicted standard deviation.

    Raises
    ------
    PixelsError
        If the frames' shapes differ.
    """
    n, n_amplifiers = floors.shape
    squares = np.full((n, n, n_amplifiers), np.nan)
    if n < 2:
        return np.ones((n, n_amplifiers))
    for i in range(n):
        for j in sorted({(i + step) % n for step in range(1, min(4, n - 1) + 1)} - {i}):
            if np.isfinite(squares[i, j, 0]):
                continue
            scale = levels[i] / levels[j] if levels[i] > 0 and levels[j] > 0 else 1.0
            for a in range(n_amplifiers):
                pair = (pixels[i][a], pixels[j][a])
                square = _pair_noise(*pair, (floors[i, a], floors[j, a]), scale, photon_noise)
                squares[i, j, a] = squares[j, i, a] = square
    typical = np.nanmedian(squares, axis=(0, 1))
    mine = np.array([np.nanmedian(row[np.isfinite(row[:, 0])], axis=0) for row in squares])
    # A pair mixes a frame's own noise half and half with a typical partner's.
    return np.asarray(np.sqrt(np.maximum(2 * mine - typical, 0.25 * typical)))


def _pair_noise(
    first: Float32, second: Float32, floors: tuple[float, float], scale: float, photon_noise: bool
) -> float:
    """Return the variance of ``first - scale * second`` in units of the predicted one."""
    if first.shape != second.shape:
        raise PixelsError(
            f"calibration frames of {first.shape} and {second.shape} pixels (sampled) do not fit together",
            cure="combine frames of one readout mode only",
        )
    expected = floors[0] + scale**2 * floors[1]
    # The mean of the two stands for the light: an observed pixel is a bad guess of its own variance.
    light = np.maximum(first + scale * second, 0) / 2 if photon_noise else np.zeros(1, dtype=np.float32)
    # Not a MAD: differences of whole ADU make it jump in steps of one.
    return clipped_stats((first - scale * second) / np.sqrt(expected + light * (1 + scale))).sigma ** 2
