"""What the dome's light got wrong: the smooth ratio of twilight to dome flat."""

import numpy as np

from seechange_core.errors import BadDataError, PixelsError
from seechange_core.frames import Bool, MasterFrame
from seechange_core.numerics.surface import cell_means, fit_surface
from seechange_core.params import Params, param

CODE_VERSION = "1"

#: Pixels with less response than this tell nothing of the illumination.
_RESPONSE_MIN = 0.2


class IlluminationParams(Params):
    """How the illumination correction is made."""

    smooth_pix: int = param(64, "Side of the cells that the ratio is averaged in.", unit="pix", ge=8)
    degree: int = param(4, "Total degree of the polynomial through the cells.", ge=0, le=8)
    n_sigma: float = param(
        4.0, "Leave out pixels of a cell, and cells, that stand out by more.", unit="sigma", gt=1
    )


def illumination_of(twilight: MasterFrame, flat: MasterFrame, params: IlluminationParams) -> MasterFrame:
    """Return the smooth response to the sky that is left after the dome flat.

    Both flats hold the same pixels' response; their ratio is how differently sky and dome light the
    section. Small-scale differences (dust that moved, colour, bad pixels) are left out: those of the dome
    flat, with its many photons, stay.

    Parameters
    ----------
    twilight, flat
        Masters of one section and filter.
    params
        Settings.

    Returns
    -------
    MasterFrame
        Of kind ``illumination``: median 1; its variance is that of the smooth surface. No flags: the
        surface is known everywhere.

    Raises
    ------
    PixelsError
        If their shapes differ.
    BadDataError
        If hardly a pixel is good in both.
    """
    if twilight.data.shape != flat.data.shape:
        raise PixelsError(
            f"the twilight flat is {twilight.data.shape} pixels, the flat {flat.data.shape}",
            cure="rebuild both from frames of this camera and readout mode",
        )
    usable = _usable(twilight) & _usable(flat)
    ratio = np.divide(twilight.data, flat.data, out=np.ones_like(flat.data), where=usable)
    cells = cell_means(ratio, usable, params.smooth_pix, params.n_sigma)
    if not cells.value.size:
        raise BadDataError(
            f"only {usable.mean():.1%} of the pixels are good in both the twilight flat and the flat",
            cure="look at both flats and at their flags",
        )
    data, variance = fit_surface(cells, params.degree, params.n_sigma).evaluate(ratio.shape)
    middle = np.median(data)
    return MasterFrame(
        kind="illumination",
        data=data / middle,
        variance=variance / middle**2,
        flags=np.zeros(data.shape, dtype=np.uint16),
        n_frames=twilight.n_frames,
        exposure_time_s=twilight.exposure_time_s,
    )


def _usable(master: MasterFrame) -> Bool:
    good: Bool = (master.flags == 0) & (master.data >= _RESPONSE_MIN) & np.isfinite(master.data)
    return good
