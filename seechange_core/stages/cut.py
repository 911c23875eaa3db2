"""Cut small images around detections out of the new image, the reference and the difference."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from seechange_core.flags import PixelFlag
from seechange_core.frames import CalibratedImage, Detections, Int, Stamps, SubtractionFrame
from seechange_core.numerics.background import level_map
from seechange_core.params import Params, param

CODE_VERSION = "2"

Pixel = TypeVar("Pixel", bound=np.generic)


class CutParams(Params):
    """Parameters of the cutouts."""

    size_pix: int = param(41, "Side of a cutout, odd", unit="pixel", ge=11, le=501)


def cut(new: CalibratedImage, sub: SubtractionFrame, detections: Detections, params: CutParams) -> Stamps:
    """Cut stamps centred on the pixel of each detection.

    Parameters
    ----------
    new
        The image that was subtracted from; its background is removed in the stamps.
    sub
        Its subtraction.
    detections
        Where to cut.
    params
        Parameters; an even size is made odd by one more pixel.

    Returns
    -------
    Stamps
        NaN (weight 0, flag OUT_OF_BOUNDS) beyond the section's edge.
    """
    half = params.size_pix // 2
    corners = np.rint(detections.x).astype(np.int64) - half, np.rint(detections.y).astype(np.int64) - half
    size, outside = 2 * half + 1, int(PixelFlag.OUT_OF_BOUNDS)
    weight, flags = sub.reference_weight, sub.reference_flags
    # Older differences did not keep these; where the reference was missing, so is the difference.
    weight = np.zeros_like(sub.score) if weight is None else weight
    flags = sub.image.flags if flags is None else flags
    return Stamps(
        new=_stamps(new.image.data - level_map(new.background), *corners, size, np.nan),
        ref=_stamps(sub.reference, *corners, size, np.nan),
        sub=_stamps(sub.image.data, *corners, size, np.nan),
        new_weight=_stamps(new.image.weight, *corners, size, 0),
        ref_weight=_stamps(weight, *corners, size, 0),
        sub_weight=_stamps(sub.image.weight, *corners, size, 0),
        new_flags=_stamps(new.image.flags, *corners, size, outside),
        ref_flags=_stamps(flags, *corners, size, outside),
        sub_flags=_stamps(sub.image.flags, *corners, size, outside),
        x0=corners[0],
        y0=corners[1],
    )


def _stamps(image: npt.NDArray[Pixel], x0: Int, y0: Int, size: int, outside: float) -> npt.NDArray[Pixel]:
    height, width = image.shape
    out = np.full((len(x0), size, size), outside, image.dtype)
    for k, (x, y) in enumerate(zip(x0.tolist(), y0.tolist(), strict=True)):
        top, bottom, left, right = max(0, y), min(height, y + size), max(0, x), min(width, x + size)
        if top < bottom and left < right:
            out[k, top - y : bottom - y, left - x : right - x] = image[top:bottom, left:right]
    return out
