"""Bad pixels: what a master dark and a master flat show of the detector's defects."""

import numpy as np

from seechange_core.errors import CalibratorMissingError
from seechange_core.flags import PixelFlag
from seechange_core.frames import MasterFrame
from seechange_core.numerics.defects import dark_defects, flat_defects
from seechange_core.params import Params, param


class BadPixelParams(Params):
    """What makes a pixel bad."""

    hot_e_per_s: float = param(
        1.0, "A pixel is hot when its dark current exceeds its surroundings' by this ...", unit="e-/s", gt=0
    )
    hot_n_sigma: float = param(8.0, "... and by this many standard deviations.", unit="sigma", gt=0)
    response_min: float = param(
        0.6, "A pixel is dead below this response relative to its surroundings.", gt=0
    )
    response_max: float = param(1.5, "A pixel is bad above this response relative to its surroundings.", gt=1)
    column_n_sigma: float = param(
        7.0, "A stretch of a column is bad when its median is off by more than this ...", unit="sigma", gt=0
    )
    column_response: float = param(0.05, "... and its response by more than this fraction.", gt=0, lt=1)
    column_rows: int = param(128, "Length of the stretches that columns are judged by.", unit="pix", ge=8)
    column_fraction: float = param(
        0.3, "A stretch with more bad pixels than this fraction is bad as a whole.", gt=0, le=1
    )


def find_bad_pixels(
    dark: MasterFrame | None, flat: MasterFrame | None, params: BadPixelParams
) -> MasterFrame:
    """Find hot pixels in a dark, dead and deviant ones in a flat, and bad columns in both.

    Everything is judged against the pixel's surroundings, so vignetting and glow do no harm.

    Parameters
    ----------
    dark, flat
        Master frames of one section; at least one.
    params
        Settings.

    Returns
    -------
    MasterFrame
        Of kind ``bad_pixels``: BAD_PIXEL in `flags`, data and variance 0.

    Raises
    ------
    CalibratorMissingError
        If there is neither.
    """
    masters = [m for m in (dark, flat) if m is not None]
    if not masters:
        raise CalibratorMissingError(
            "neither a dark nor a flat to find bad pixels in", cure="build a master dark or flat first"
        )
    bad = np.zeros(masters[0].data.shape, dtype=np.bool_)
    stretch = (params.column_rows, params.column_fraction, params.column_n_sigma)
    if dark is not None:
        sigma = np.sqrt(dark.variance)
        bad |= dark_defects(dark.data, sigma, params.hot_e_per_s, params.hot_n_sigma, stretch)
    if flat is not None:
        bad |= flat_defects(
            flat.data, (params.response_min, params.response_max), params.column_response, stretch
        )
    for master in masters:
        bad |= master.flags != 0
    blank = np.zeros(bad.shape, dtype=np.float32)
    flags = np.where(bad, np.uint16(PixelFlag.BAD_PIXEL), np.uint16(0)).astype(np.uint16)
    return MasterFrame("bad_pixels", blank, blank.copy(), flags, min(m.n_frames for m in masters))
