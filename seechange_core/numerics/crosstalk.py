"""What an amplifier's signal leaves in the others of its section, taken off again."""

import numpy as np
from numba import njit

from seechange_core.errors import HeaderError, PixelsError
from seechange_core.frames import Amplifier, Crosstalk, Float, Float32


def coefficients_of(crosstalk: Crosstalk, victim: str, names: tuple[str, ...]) -> dict[str, float]:
    """Return how strongly each amplifier of a section speaks into one of them.

    Parameters
    ----------
    crosstalk
        The table.
    victim
        Name of the amplifier that hears the others.
    names
        All amplifiers of the section.

    Returns
    -------
    dict
        ADU in the victim per ADU of signal, by the name of the source; zeros are left out.

    Raises
    ------
    PixelsError
        If the table is no square of finite numbers with a diagonal of 0.
    HeaderError
        If the victim is not in the table, or hears an amplifier that the section does not have.
    """
    table = np.asarray(crosstalk.coefficients, dtype=np.float64)
    n = len(crosstalk.amplifiers)
    if table.shape != (n, n) or not np.isfinite(table).all() or np.diagonal(table).any():
        raise PixelsError(
            f"the crosstalk table of {n} amplifiers has shape {table.shape}, or values that make no sense",
            cure="it must be square, finite, and 0 on its diagonal",
        )
    if victim not in crosstalk.amplifiers:
        raise HeaderError(
            f"the crosstalk table has no amplifier {victim}, only {', '.join(crosstalk.amplifiers)}",
            cure="name its amplifiers as the instrument does",
        )
    row = table[crosstalk.amplifiers.index(victim)]
    heard = {name: float(c) for name, c in zip(crosstalk.amplifiers, row, strict=True) if c != 0}
    unknown = sorted(set(heard) - set(names))
    if unknown:
        raise HeaderError(
            f"amplifier {victim} hears {', '.join(unknown)} by the crosstalk table, "
            f"and the section has only {', '.join(names)}",
            cure="name the table's amplifiers as the instrument does",
        )
    return heard


def subtract_ghost(
    signal: Float32, victim: Amplifier, source_adu: Float32, source: Amplifier, zero_adu: Float, share: float
) -> None:
    """Take off, in place, what one amplifier left in another one.

    Pixels that are equally far from their amplifier's first one are read at the same moment. A source
    pixel counts as it was digitised: where it is saturated its ghost is that of the full scale, for wells
    that are full hold no more. What is not finite leaves nothing.

    Parameters
    ----------
    signal
        (rows, width) float32, C order: the victim's signal, ADU.
    victim, source
        The two amplifiers.
    source_adu
        (rows, width of the source) float32, raw ADU of the same rows.
    zero_adu
        (rows,) float64, zero level of the source.
    share
        ADU in the victim per ADU of the source's signal.
    """
    _subtract(signal, victim.mirrored, source_adu, source.mirrored, zero_adu, share)


@njit(cache=True, nogil=True)
def _subtract(
    signal: Float32, mirrored: bool, source: Float32, source_mirrored: bool, zero: Float, share: float
) -> None:
    width, source_width = signal.shape[1], source.shape[1]
    for y in range(min(signal.shape[0], source.shape[0])):
        for k in range(min(width, source_width)):
            value = source[y, source_width - 1 - k if source_mirrored else k]
            if np.isfinite(value):
                signal[y, width - 1 - k if mirrored else k] -= share * (value - zero[y])
