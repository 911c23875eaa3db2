"""Pixels that are full, the trails they bleed along their columns, and levels that are not linear."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.flags import PixelFlag
from seechange_core.frames import Bool, Flags, Int, RawFrame

_SATURATED = np.uint16(PixelFlag.SATURATED)
_BLEED = np.uint16(PixelFlag.BLEED)
_FULL = np.uint16(PixelFlag.SATURATED | PixelFlag.BLEED)


def flag_levels(flags: Flags, pixels: npt.NDArray[Any], saturation_adu: float, non_linear_adu: float) -> None:
    """Flag an amplifier's saturated and non-linear pixels, in place.

    Parameters
    ----------
    flags
        (H, W) uint16.
    pixels
        (H, W) raw levels, ADU, of any real dtype.
    saturation_adu, non_linear_adu
        Raw levels from which pixels are saturated, and beyond which they are not linear.
    """
    if np.isfinite(non_linear_adu):
        flags[~_reaches(pixels, non_linear_adu, beyond=True)] |= np.uint16(PixelFlag.NON_LINEAR)
    if np.isfinite(saturation_adu):
        flags[_reaches(pixels, saturation_adu)] |= _SATURATED


def _reaches(pixels: npt.NDArray[Any], level: float, *, beyond: bool = False) -> Bool:
    """Compare with a level; integers are compared as such, which is ten times faster."""
    whole = pixels.dtype.kind in "ui" and np.isfinite(level)
    if beyond:
        inside: Bool = pixels <= (int(np.floor(level)) if whole else level)
        return inside if whole else inside | ~np.isfinite(pixels)  # what is no number is NO_DATA
    reached: Bool = pixels >= (int(np.ceil(level)) if whole else level)
    return reached


def flag_trails(flags: Flags, raw: RawFrame, nearly_full_adu: Sequence[float], radius: int) -> None:
    """Flag bleed trails and the surroundings of what is full, in place.

    A nearly full pixel belongs to a trail if nothing but such pixels lies between it and a saturated one in
    its column, across amplifiers too. Then saturated pixels and trails grow.

    Parameters
    ----------
    flags
        (H, W) uint16 of the trimmed image, saturated pixels flagged.
    raw
        The section.
    nearly_full_adu
        Raw level of each amplifier from which its pixels may belong to a trail.
    radius
        Pixels to grow by, in all eight directions; what is gained counts as trail.
    """
    saturated = (flags & _SATURATED) != 0
    columns = np.flatnonzero(saturated.any(axis=0))
    if columns.size == 0:
        return
    nearly = np.zeros((flags.shape[0], columns.size), dtype=np.bool_)
    for amplifier, level in zip(raw.amplifiers, nearly_full_adu, strict=True):
        box = amplifier.image
        first, last = np.searchsorted(columns, [box.x0, box.x1])
        pixels = raw.data[amplifier.raw.slices][:, columns[first:last] - box.x0]
        nearly[box.y0 : box.y1, first:last] = _reaches(pixels, level)
    _connect(flags, nearly, columns)
    if radius > 0:
        y, x = np.nonzero((flags & _FULL) != 0)
        _grow(flags, y, x, radius)


@njit(cache=True, nogil=True)
def _connect(flags: Flags, nearly: Bool, columns: Int) -> None:
    height = flags.shape[0]
    for step in (1, -1):
        # Row by row, so that memory is read in order.
        for k in range(1, height):
            y = k if step == 1 else height - 1 - k
            for i in range(columns.size):
                x = columns[i]
                if nearly[y, i] and flags[y - step, x] & _FULL and not flags[y, x] & _FULL:
                    flags[y, x] |= _BLEED


@njit(cache=True, nogil=True)
def _grow(flags: Flags, rows: Int, columns: Int, radius: int) -> None:
    height, width = flags.shape
    for k in range(rows.size):
        for y in range(max(0, rows[k] - radius), min(height, rows[k] + radius + 1)):
            for x in range(max(0, columns[k] - radius), min(width, columns[k] + radius + 1)):
                if not flags[y, x] & _FULL:
                    flags[y, x] |= _BLEED
