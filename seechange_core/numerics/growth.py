"""Masks widened by a margin."""

from numba import njit

from seechange_core.frames import Bool


def grown(mask: Bool, radius_pix: int) -> Bool:
    """Return the pixels within a radius (rows and columns) of a mask, itself included.

    Parameters
    ----------
    mask
        (H, W).
    radius_pix
        0 returns the mask as it is.
    """
    if radius_pix < 1:
        return mask
    out = mask.copy()
    _grow(mask, radius_pix, out)
    return out


@njit(cache=True, nogil=True)
def _grow(mask: Bool, radius: int, out: Bool) -> None:
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            if not mask[y, x]:
                continue
            # Inside of a mask there is nothing to reach that its rim doesn't.
            inside = True
            for v in range(max(0, y - 1), min(height, y + 2)):
                for u in range(max(0, x - 1), min(width, x + 2)):
                    inside = inside and mask[v, u]
            if not inside:
                out[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1] = True
