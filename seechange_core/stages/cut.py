"""Cut small images around detections out of the new image, the reference and the difference."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from seechange_core.flags import PixelFlag
from seechange_core.frames import CalibratedImage, Detections, Int, Stamps, SubtractionFrame
from seechange_core.numerics.background import level_map
from seechange_core.params import Params, param

CODE_VERSION = "1"

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
    x0 = np.rint(detections.x).astype(np.int64) - half
    y0 = np.rint(detections.y).astype(np.int64) - half
    size = 2 * half + 1
    level = new.image.data - level_map(new.background)
    return Stamps(
        new=_stamps(level, x0, y0, size, np.nan),
        ref=_stamps(sub.reference, x0, y0, size, np.nan),
        sub=_stamps(sub.image.data, x0, y0, size, np.nan),
        new_flags=_stamps(new.image.flags, x0, y0, size, int(PixelFlag.OUT_OF_BOUNDS)),
        sub_weight=_stamps(sub.image.weight, x0, y0, size, 0),
        x0=x0,
        y0=y0,
    )


def _stamps(image: npt.NDArray[Pixel], x0: Int, y0: Int, size: int, outside: float) -> npt.NDArray[Pixel]:
    height, width = image.shape
    out = np.full((len(x0), size, size), outside, image.dtype)
    for k, (x, y) in enumerate(zip(x0.tolist(), y0.tolist(), strict=True)):
        top, bottom, left, right = max(0, y), min(height, y + size), max(0, x), min(width, x + size)
        if top < bottom and left < right:
            out[k, top - y : bottom - y, left - x : right - x] = image[top:bottom, left:right]
    return out
