"""Clouds: how much light they took from each exposure of a night, by the zero points of all."""

import numpy as np

from seechange_core.flags import QualityFlag
from seechange_core.frames import Float
from seechange_core.stages.judge import Verdict, above
from seechange_core.stages.quality_limits import ZeroPointLimits

#: Extinction of clear air by the start of a band's name, mag per airmass (sites of 1 to 3 km).
TYPICAL_EXTINCTION_MAG = {
    **{"u": 0.45, "g": 0.18, "r": 0.10, "i": 0.07, "z": 0.06, "y": 0.06},
    **{"U": 0.50, "B": 0.25, "V": 0.15, "R": 0.10, "I": 0.06, "BP": 0.20, "RP": 0.09, "G": 0.14},
}
#: Share of a night's exposures whose zero points may be too high by mistake.
_TOO_HIGH = 0.2
#: What the clear sky itself varies by.
_CLEAR_MAG = 0.01


def cloud_extinction(
    zp: Float,
    zp_err: Float | float,
    exposure_times_s: Float,
    airmasses: Float,
    band: str,
    limits: ZeroPointLimits,
) -> Float:
    """Tell how much light the clouds took in each exposure of a night of one section in one filter.

    Clouds only ever take light, so the clear sky is the upper envelope of the zero points, reduced to one
    second and to airmass 0. Its level is that of the value that a fifth of the exposures exceed (the highest
    where there are up to five): so many may be too high by mistake, and all others may be clouded. The level
    is the mean of all that agree with that value, or its noise would have it too high. It depends on the set
    of exposures and not on their order.

    Parameters
    ----------
    zp
        (n,) zero points of whole exposures, mag; the airmass is in them.
    zp_err
        (n,), or one for all.
    exposure_times_s, airmasses
        (n,) each; an airmass that is not known (finite) is taken as the mean of the others. A time that is
        not above 0 tells nothing: that exposure is left out.
    band
        Name of the catalog's band, for its typical extinction.
    limits
        To judge by; here, `extinction_mag`.

    Returns
    -------
    ndarray
        (n,) magnitudes below the level of the clear sky; 0 or less where it is clear, 0 of what is left out.
    """
    told = exposure_times_s > 0
    lost = np.zeros(len(zp))
    if not told.any():
        return lost
    clear = zp[told] - clear_zero_point(0.0, exposure_times_s[told], airmasses[told], band, limits)
    error = np.hypot(np.broadcast_to(zp_err, len(zp))[told], _CLEAR_MAG)
    top = np.argsort(-clear, kind="stable")[int(_TOO_HIGH * (len(clear) - 1))]
    alike = np.sort(clear[np.abs(clear - clear[top]) <= 2 * np.hypot(error, error[top])])
    lost[told] = alike.mean() - clear
    return lost


def clear_zero_point(
    one_second_mag: float, exposure_times_s: Float, airmasses: Float, band: str, limits: ZeroPointLimits
) -> Float:
    """Give the zero points of exposures in a clear sky.

    Parameters
    ----------
    one_second_mag
        Zero point of one second at airmass 0.
    exposure_times_s, airmasses
        (n,) each; an airmass that is not known (finite) is taken as the mean of the others, or as 1.
    band
        Name of the catalog's band, for its typical extinction.
    limits
        Here, `extinction_mag`.

    Returns
    -------
    ndarray
        (n,) mag; NaN where the time is not above 0.
    """
    known = np.isfinite(airmasses)
    filled = np.where(known, airmasses, airmasses[known].mean() if known.any() else 1.0)
    times = np.where(exposure_times_s > 0, exposure_times_s, np.nan)
    return np.asarray(one_second_mag + 2.5 * np.log10(times) - _extinction_mag(band, limits) * filled)


def judge_clouds(extinction_mag: float, zp_err: float, limits: ZeroPointLimits) -> Verdict:
    """Judge an exposure by what the clouds took: `CLOUDS` or nothing.

    What is within twice the zero point's error of the limit is given the benefit of the doubt.
    """
    limit = limits.max_cloud_mag + 2 * zp_err
    return above(QualityFlag.CLOUDS, "the clouds took", extinction_mag, limit, "mag")


def _extinction_mag(band: str, limits: ZeroPointLimits) -> float:
    if limits.extinction_mag is not None:
        return limits.extinction_mag
    known = (band[:length] for length in (2, 1))
    # Of a band without a name we know: green light.
    return next((TYPICAL_EXTINCTION_MAG[name] for name in known if name in TYPICAL_EXTINCTION_MAG), 0.15)
