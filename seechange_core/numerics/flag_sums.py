"""Which pixel flags are near a position."""

import numpy as np

from seechange_core.flags import PixelFlag
from seechange_core.frames import Flags, Float, Int


def flags_within(flags: Flags, x: Float, y: Float, radius_pix: float) -> Int:
    """Return all `PixelFlag` bits within a radius of each position.

    Parameters
    ----------
    flags
        (H, W) uint16.
    x, y
        (n,) pixels.
    radius_pix
        Pixel centres within this distance count, and the nearest pixel always does.

    Returns
    -------
    (n,) int64; `OUT_OF_BOUNDS` is set where the circle leaves the image or the position is not finite.
    """
    finite = np.isfinite(x) & np.isfinite(y)
    x0, y0 = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
    column = np.rint(np.clip(x0, -1e6, 1e6)).astype(np.int64)
    row = np.rint(np.clip(y0, -1e6, 1e6)).astype(np.int64)
    found = np.zeros(len(x0), np.int64)
    reach = int(np.ceil(radius_pix))
    outside = ~finite
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            i, j = column + dx, row + dy
            within = ((i - x0) ** 2 + (j - y0) ** 2 <= radius_pix**2) | ((dx == 0) & (dy == 0))
            inside = (i >= 0) & (j >= 0) & (i < flags.shape[1]) & (j < flags.shape[0])
            outside |= within & ~inside
            take = within & inside
            found[take] |= flags[j[take], i[take]].astype(np.int64)
    found[outside] |= int(PixelFlag.OUT_OF_BOUNDS)
    return found
