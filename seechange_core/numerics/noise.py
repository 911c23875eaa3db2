"""The noise of calibration frames, measured on their differences."""

from collections.abc import Sequence

import numpy as np

from seechange_core.errors import PixelsError
from seechange_core.frames import Float, Float32
from seechange_core.numerics.stats import MAD_TO_SIGMA

#: Each frame is compared with so many before it and so many after it.
_NEIGHBOURS = 4
#: Half-width of a distribution's core in sigma, and what the loss of the tails beyond does to its sigma.
_CLIP, _CLIPPED_LOSS = 4.0, 1.00054
#: No frame is taken to be quieter than this times its prediction.
_LEAST = 1e-3


def noise_ratios(
    pixels: Sequence[Sequence[Float32]], floors: Float, levels: Float, *, photon_noise: bool
) -> Float:
    """Compare the scatter of frames with what is predicted for them.

    Each frame is differenced with up to eight others: fixed patterns cancel. Of three frames, the three
    differences give the noise of each by itself (a "three-cornered hat"); a frame's noise is the median
    over such triples, so it is right whoever else is noisy.

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
        (n_frames, n_amplifiers) measured over predicted standard deviation; 0.001 at least, as of frames
        that are the same.

    Raises
    ------
    PixelsError
        If the frames' shapes differ.
    """
    n, n_amplifiers = floors.shape
    if n < 2:
        return np.ones((n, n_amplifiers))
    scale = np.where(levels > 0, levels, 1.0)
    light = np.array([[max(float(np.nanmedian(a)), 0.0) if a.size else 0.0 for a in p] for p in pixels])
    predicted = (floors + (light if photon_noise else 0.0)) / scale[:, None] ** 2
    variances = np.full((n, n, n_amplifiers), np.nan)
    for i in range(n):
        for step in range(1, min(_NEIGHBOURS, n - 1) + 1):
            j = (i + step) % n
            if np.isfinite(variances[i, j, 0]):
                continue
            for a in range(n_amplifiers):
                pair = (pixels[i][a], pixels[j][a])
                expected = float(floors[i, a]), float(floors[j, a])
                square = _pair_noise(*pair, expected, float(scale[i] / scale[j]), photon_noise)
                variances[i, j, a] = variances[j, i, a] = square * (predicted[i, a] + predicted[j, a])
    if n == 2:
        squares = variances[[0, 1], [1, 0]] / predicted.sum(axis=0)
    else:
        squares = np.array([_of_one(variances, i) for i in range(n)]) / predicted
    return np.asarray(np.sqrt(np.maximum(squares, _LEAST**2)))


def _of_one(variances: Float, i: int) -> Float:
    """Return the variance of a frame per amplifier, from those of differences."""
    partners = np.flatnonzero(np.isfinite(variances[i, :, 0]))
    found = [
        (variances[i, j] + variances[i, k] - variances[j, k]) / 2
        for j in partners
        for k in partners
        if j < k and np.isfinite(variances[j, k, 0])
    ]
    return np.asarray(np.median(found, axis=0))


def _pair_noise(
    first: Float32, second: Float32, floors: tuple[float, float], scale: float, photon_noise: bool
) -> float:
    """Return the variance of ``first - scale * second`` in units of the predicted one."""
    if first.shape != second.shape:
        raise PixelsError(
            f"calibration frames of {first.shape} and {second.shape} pixels (sampled) do not fit together",
            cure="combine frames of one readout mode only",
        )
    expected = np.float32(floors[0] + scale**2 * floors[1])
    # The mean of the two stands for the light: an observed pixel is a bad guess of its own variance.
    light = (
        np.maximum(first + scale * second, np.float32(0)) / 2
        if photon_noise
        else np.zeros(1, dtype=np.float32)
    )
    deviation = (first - scale * second) / np.sqrt(expected + light * np.float32(1 + scale))
    return _core_variance(np.asarray(deviation, dtype=np.float32))


def _core_variance(values: Float32) -> float:
    """Return the variance of a sample's Gaussian core, cosmic rays and stars left out.

    The MAD of whole ADU jumps in steps of one, so it only starts a search from the outside.
    """
    sample = values[np.isfinite(values)]
    if not sample.size:
        return np.nan
    size = np.abs(sample - np.median(sample))
    sigma = 2 * MAD_TO_SIGMA * float(np.median(size)) or float(np.std(sample))
    for _ in range(12):
        kept = sample[size <= _CLIP * sigma]
        if not kept.size:
            return 0.0
        before, sigma = sigma, float(np.std(kept, dtype=np.float64)) * _CLIPPED_LOSS
        if abs(sigma - before) < 1e-4 * before:
            break
    return sigma**2
