"""The flux scale of a difference: that of its references, as common stars bring it to the new image."""

import numpy as np

from seechange_core.constants import MAG_PER_RELATIVE
from seechange_core.frames.solutions import spatial_terms
from seechange_core.numerics.paired import Paired, Planes
from seechange_core.numerics.registration import Registration

#: Tiles for each coefficient of how the ratio varies.
_TILES_PER_TERM = 2


def zero_point_change(
    pair: Paired, planes: Planes, registration: Registration | None
) -> tuple[tuple[float, ...], float]:
    """Return what to add to the new image's zero point so that it is the references', and the error of that.

    A star of constant light is then as bright in the reference as in the new image, whatever the catalog made
    of the two zero points: the difference was made with that very ratio.

    Parameters
    ----------
    pair, planes
        What was subtracted, and what a method made of it.
    registration
        Of common stars; None if there were too few.

    Returns
    -------
    change_mag
        As `ZeroPointSolution.moved` wants it; empty if neither stars nor the method tell the ratio.
    zp_err
        That of the references and of the ratio, mag.
    """
    if registration is None and planes.scale is None:
        return (), np.nan
    ratio, error = 1.0, planes.kernel_error
    if registration is not None:
        ratio, error = registration.flux_ratio, registration.flux_ratio_err / registration.flux_ratio
    zp_err = np.hypot(MAG_PER_RELATIVE * error, max(m.image.zero_point.zp_err for m in pair.aligned.members))
    change = np.array([2.5 * np.log10(ratio)])
    if planes.scale is not None:
        plan = pair.plan
        terms = [np.ones(len(plan.x)), *spatial_terms(plan.x, plan.y, pair.new.image.shape)]
        terms = terms if len(plan.x) >= _TILES_PER_TERM * len(terms) else terms[:1]
        varying = np.linalg.lstsq(np.stack(terms, axis=1), 2.5 * np.log10(planes.scale), rcond=None)[0]
        change = np.array([change[0] + varying[0], *varying[1:]])
    return tuple(change.tolist()), float(zp_err)
