"""A transit in a light curve, on images and on differences: how deep, when, and how steady others are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from seechange_core import chain
from seechange_core.chain.ensemble import EnsembleZeroPoints
from seechange_core.chain.light_curves import Kind, all_epochs, force_epoch
from seechange_core.settings import Settings, use_settings

Float = npt.NDArray[np.float64]
KINDS: tuple[Kind, ...] = ("image", "difference")
N_STARS = 50


@dataclass(frozen=True)
class Ephemeris:
    """What is known of a transit far better than one night can tell.

    Attributes
    ----------
    ra, dec
        Of its star, ICRS deg.
    middle
        BJD (TDB).
    duration_d, ingress_d
        From first to last contact, and from first to second.
    """

    ra: float
    dec: float
    middle: float
    duration_d: float
    ingress_d: float


#: HJD (UTC) 2456095.677 from the planet's ephemeris. BJD (TDB) is 66.2 s later, as TT - UTC was then, and
#: heliocentre and barycentre differ by less than 4 s more.
EPHEMERIDES = {"tres1": Ephemeris(286.0409, 36.6325, 2456095.677 + 66.2 / 86400, 0.1042, 0.0128)}


@dataclass(frozen=True)
class Transit:
    """A trapezoid on a sloping line, fitted by least squares; its errors are those the scatter shows."""

    depth: float
    depth_err: float
    middle: float
    middle_err: float
    rms: float


def fit_transit(of: Ephemeris, bjd: Float, light: Float, error: Float) -> Transit:
    """Fit a transit to light in units of the star's.

    Parameters
    ----------
    of
        What is known.
    bjd, light, error
        (n,) each.
    """
    time = bjd - of.middle

    def residuals(p: Float) -> Float:
        depth, middle, level, slope = p
        inside = np.clip((of.duration_d / 2 - np.abs(time - middle)) / of.ingress_d, 0, 1)
        return np.asarray(light - level - slope * time + depth * inside)

    # The corners of a trapezoid make local minima: start from several mid-times.
    starts = [(0.02, middle, np.median(light), 0.0) for middle in np.linspace(-0.02, 0.02, 9)]
    scale = (0.01, 0.01, 0.01, 0.1)
    fits = [
        least_squares(lambda p: residuals(p) / error, start, x_scale=scale, diff_step=1e-4)
        for start in starts
    ]
    best = min(fits, key=lambda fit: fit.cost)
    covariance = np.linalg.inv(best.jac.T @ best.jac) * 2 * best.cost / (len(time) - 4)
    errors = np.sqrt(np.diag(covariance))
    rms = float(np.sqrt(np.sum(residuals(best.x) ** 2) / (len(time) - 4)))
    return Transit(best.x[0], errors[0], of.middle + best.x[1], errors[1], rms)


def light_of(
    settings: Settings, of: Ephemeris, ensemble: EnsembleZeroPoints, on: Kind
) -> tuple[Float, Float, Float]:
    """Return a star's times (BJD TDB), all its light in units of its median, and the errors."""
    curve = ensemble.apply(chain.position_light_curve(settings, of.ra, of.dec, on), on)
    scale = 10 ** (-0.4 * curve.zp)
    light = (curve.flux if on == "image" else curve.total_flux) * scale
    level = np.median(light)
    return curve.bjd_tdb, light / level, curve.flux_err * scale / level


def steadiness(settings: Settings, ensemble: EnsembleZeroPoints, on: Kind) -> Float:
    """Return by what the brightest comparison stars scatter from frame to frame, as a part of their light."""
    stars = ensemble.stars.select(ensemble.stars.used)
    stars = stars.select(np.argsort(stars.mag)[:N_STARS])
    with use_settings(settings):
        epochs = all_epochs(settings, on)
        flux = np.array([force_epoch(settings, e, stars.ra, stars.dec, on).flux for e in epochs])
    zp = [ensemble.zero_points[e.exposure.name, e.rows.image.section_id].zp for e in epochs]
    light = flux * 10 ** (0.4 * (stars.mag - np.array(zp)[:, None]))
    return np.asarray(1.4826 * np.nanmedian(np.abs(light - np.nanmedian(light, axis=0)), axis=0))


def judge(settings: Settings, of: Ephemeris) -> Iterator[str]:
    """Yield depth, time and scatter, and what steady stars scatter by, on images and on differences."""
    ensemble = chain.ensemble_at(settings, of.ra, of.dec)
    yield from ensemble.describe()
    for on in KINDS:
        bjd, light, error = light_of(settings, of, ensemble, on)
        t = fit_transit(of, bjd, light, error)
        yield (
            f"transit on {on}s: {len(bjd)} epochs, depth {100 * t.depth:.2f} +- {100 * t.depth_err:.2f} %, "
            f"{1440 * (t.middle - of.middle):+.1f} +- {1440 * t.middle_err:.1f} min from the ephemeris, "
            f"scatter around it {1085.7 * t.rms:.1f} mmag, error bars {1085.7 * np.median(error):.1f}"
        )
        parts = 1085.7 * steadiness(settings, ensemble, on)
        yield (
            f"stars on {on}s: the 10 brightest scatter by {np.median(parts[:10]):.1f} mmag (median of MADs), "
            f"the {len(parts)} brightest by {np.median(parts):.1f}"
        )
