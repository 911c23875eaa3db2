"""Solve for a section's world coordinates: sources + reference stars -> `WcsSolution`.

First `numerics.asterism` finds the pose among all those the hint allows; then positions are fitted
with a tangent plane and as much SIP distortion as the stars themselves ask for. A solution that
chance could have produced, or that fits badly, is refused.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from seechange_core.errors import NoCatalog, NoSolution, NoStars
from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import Bool, CatalogStars, Float, PointingHint, Sources, WcsSolution
from seechange_core.numerics import sky
from seechange_core.numerics.asterism import Pose, PoseLimits, find_pose
from seechange_core.numerics.distortion import PlateFit, Projection, fit_plate
from seechange_core.numerics.fitting import left_out_loss
from seechange_core.numerics.matching import match_plane
from seechange_core.params import Params, param

CODE_VERSION = "2"

_DEEPER = (1.0, 2.0)  # the search is repeated with this many times the bright stars
#: With so many stars that are not saturated or masked, and then not blended, the others are left out.
_ENOUGH_WHOLE, _ENOUGH_ALONE = 20, 100
_ENOUGH_ON_THE_WAY = 400
_WILD = 2.0  # an error in the corners above this many times the residuals of a plain tangent plane


class AstrometryParams(Params):
    """Parameters of the astrometric solution."""

    min_snr: float = param(5.0, "Sources fainter than this are not used.", ge=0.0)
    n_bright: int = param(20, "Brightest detections whose pairs vote for the pose.", ge=4, le=60)
    n_verify: int = param(100, "Brightest detections that verify a pose.", ge=4, le=1000)
    verify_radius_pix: float = param(
        4.0, "A detection this near to a star supports a pose.", unit="pix", gt=0.0
    )
    max_log10_chance: float = param(
        -13.0, "A pose that chance produces more often than 10 to this power is refused.", le=-6.0
    )
    match_radius_pix: float = param(2.0, "Largest distance of a match at the end.", unit="pix", gt=0.0)
    max_order: int = param(5, "Highest degree of the distortion polynomial; 1 for none.", ge=1, le=5)
    distortion_prior_pix: float = param(
        2.0, "How far a term of the distortion may bend the edges, 1 sigma.", unit="pix", gt=0.0
    )
    projection: Projection = param(
        "TAN-SIP", "How distortion is written; SCAMP, SWarp and SExtractor take no notice of SIP."
    )
    centroid_floor_pix: float = param(
        0.005, "Error of every centroid, added in quadrature to the measured one.", unit="pix", ge=0.0
    )
    clip_sigma: float = param(3.5, "Matches beyond this many sigma are outliers.", gt=1.0)
    min_matches: int = param(8, "Fewer stars than this make no solution.", ge=6)
    max_rms_pix: float = param(
        0.5, "A solution with larger residuals per axis is refused.", unit="pix", gt=0.0
    )


@dataclass(frozen=True, eq=False)
class _Field:
    """The inputs of one solution, cut to what is usable, brightest first."""

    x: Float
    y: Float
    error_pix: Float
    whole: Bool
    alone: Bool
    ra: Float
    dec: Float
    error_arcsec: Float
    shape: tuple[int, int]
    hint: PointingHint

    @property
    def centre(self) -> tuple[float, float]:
        return (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2

    def brightest(self, n: int) -> Self:
        """Return the field with its `n` brightest sources only."""
        return replace(
            self,
            x=self.x[:n],
            y=self.y[:n],
            error_pix=self.error_pix[:n],
            whole=self.whole[:n],
            alone=self.alone[:n],
        )


def query_radius_deg(hint: PointingHint, shape: tuple[int, int]) -> float:
    """Give the radius of the cone of catalog stars that `solve` needs around the hint."""
    half_diagonal = np.hypot(*shape) / 2 * hint.pixel_scale_arcsec * (1 + hint.scale_tolerance) / 3600
    return float(hint.radius_arcmin / 60 + half_diagonal)


def solve(
    sources: Sources,
    catalog: CatalogStars,
    hint: PointingHint,
    shape: tuple[int, int],
    params: AstrometryParams | None = None,
) -> WcsSolution:
    """Find where on the sky a section lies.

    Parameters
    ----------
    sources
        Of the section, in any order.
    catalog
        Reference stars at the epoch of the exposure, over at least `query_radius_deg`.
    hint
        What is known beforehand.
    shape
        (H, W) of the section.
    params
        Defaults if None.

    Returns
    -------
    WcsSolution
        TAN, or what `projection` says where the stars carry a distortion, with its reference pixel at the
        section's centre.

    Raises
    ------
    NoStars
        If fewer sources than `min_matches` are usable.
    NoCatalog
        If the catalog has fewer stars than that.
    NoSolution
        If no pose is beyond chance, or the best one fits badly.
    """
    params = params or AstrometryParams()
    field = _prepare(sources, catalog, hint, shape, params)
    pose = _find_pose(field, params)
    plate = _refine(field, pose, params)
    solution = WcsSolution(
        plate.cards(shape, params.projection),
        shape,
        rms_mas=plate.fit.rms * 1e3,
        n_matched=int(np.count_nonzero(plate.fit.used)),
        error_mas=float(plate.plane_error(*field.centre)[0]) * 1e3,
    )
    _check(solution, params)
    covered = sky.polygon_contains(*sky.footprint(solution.wcs, shape), field.ra, field.dec)
    return replace(solution, n_catalog=int(np.count_nonzero(covered)))


def _prepare(
    sources: Sources,
    catalog: CatalogStars,
    hint: PointingHint,
    shape: tuple[int, int],
    params: AstrometryParams,
) -> _Field:
    snr = sources.snr
    good = np.isfinite(snr) & (snr >= params.min_snr) & np.isfinite(sources.x) & np.isfinite(sources.y)
    # A cosmic ray or a bad pixel mimics a star; a saturated star is still one, only badly centred.
    broken = int(UNUSABLE & ~PixelFlag.SATURATED & ~PixelFlag.BLEED)
    good &= (sources.flags & broken) == 0
    if np.count_nonzero(good) < params.min_matches:
        raise NoStars(
            f"{np.count_nonzero(good)} of {len(sources)} sources are usable for astrometry, "
            f"{params.min_matches} needed",
            cure="look at the image; for a sparse field lower astrometry.min_snr or astrometry.min_matches",
        )
    s = sources.select(np.flatnonzero(good)[np.argsort(-sources.flux_psf[good], kind="stable")])
    known = np.isfinite(catalog.ra) & np.isfinite(catalog.dec)
    if np.count_nonzero(known) < params.min_matches:
        raise NoCatalog(
            f"{np.count_nonzero(known)} catalog stars around {hint.ra:.4f} {hint.dec:+.4f}, "
            f"{params.min_matches} needed",
            cure="import a deeper catalog that covers this field",
        )
    c = catalog.select(np.flatnonzero(known)[np.argsort(catalog.mag[known], kind="stable")])  # NaN sorts last
    error = np.sqrt((s.x_err**2 + s.y_err**2) / 2)
    error = np.where(np.isfinite(error), error, 1.0)
    catalog_error = np.where(np.isfinite(c.position_err_mas), c.position_err_mas, 1000.0) / 1e3
    return _Field(
        s.x, s.y, np.hypot(error, params.centroid_floor_pix),
        (s.flags & int(UNUSABLE)) == 0, ~s.blended, c.ra, c.dec, catalog_error, shape, hint,
    )  # fmt: skip


def _find_pose(field: _Field, params: AstrometryParams) -> Pose:
    hint = field.hint
    limits = PoseLimits(
        hint.pixel_scale_arcsec, hint.scale_tolerance, hint.radius_arcmin * 60,
        hint.rotation_deg, hint.rotation_tolerance_deg, hint.parity,
    )  # fmt: skip
    xi, eta = _project(field.ra, field.dec, hint.ra, hint.dec)
    front = np.flatnonzero(np.isfinite(xi))
    x0, y0 = field.centre
    best: Pose | None = None
    for deeper in _DEEPER:
        pose = find_pose(
            field.x - x0,
            field.y - y0,
            xi[front],
            eta[front],
            field.shape,
            limits,
            n_bright=int(deeper * params.n_bright),
            n_verify=params.n_verify,
            radius_pix=params.verify_radius_pix,
        )
        if pose is not None and (best is None or pose.log10_chance < best.log10_chance):
            best = pose
        if best is not None and best.log10_chance <= params.max_log10_chance:
            return best
    found = (
        "no pose at all"
        if best is None
        else (
            f"the best pose matches {best.n_matched} of {best.n_tried} bright sources, "
            f"which chance does with probability 1e{best.log10_chance:.0f}"
        )
    )
    raise NoSolution(
        f"no astrometric match within {hint.radius_arcmin:g} arcmin of {hint.ra:.4f} {hint.dec:+.4f} "
        f"at {hint.pixel_scale_arcsec:g} arcsec/pix: {found} (wanted 1e{params.max_log10_chance:.0f})",
        cure="check pointing, pixel scale, rotation and parity of the instrument, or the catalog's depth",
    )


def _refine(field: _Field, pose: Pose, params: AstrometryParams) -> PlateFit:
    """Match again and again on shrinking radii with a growing polynomial; return the last fit."""
    hint = field.hint
    x0, y0 = field.centre
    ra0, dec0 = _deproject(pose.matrix[0, 2], pose.matrix[1, 2], hint.ra, hint.dec)
    first = _deproject(*pose.apply(field.x - x0, field.y - y0), hint.ra, hint.dec)
    xi, eta = _project(*first, float(ra0), float(dec0))
    wide = 1.5 * max(params.verify_radius_pix, params.match_radius_pix)
    middle = max(0.6 * wide, params.match_radius_pix)
    # The way there needs no more than some hundred bright stars; the last fit takes all.
    bright = field.brightest(_ENOUGH_ON_THE_WAY)
    rows = slice(0, len(bright.x))
    plate = _match_and_fit(
        bright, (xi[rows], eta[rows]), (float(ra0), float(dec0)), wide * pose.scale, 2, params
    )
    for some, radius_pix in (
        (bright, middle),
        (bright, params.match_radius_pix),
        (field, params.match_radius_pix),
    ):
        plane = plate.plane(some.x, some.y)
        centre = plate.ra0, plate.dec0
        plate = _match_and_fit(some, plane, centre, radius_pix * pose.scale, params.max_order, params)
    return plate


def _match_and_fit(
    field: _Field,
    plane: tuple[Float, Float],
    centre: tuple[float, float],
    radius_arcsec: float,
    top_order: int,
    params: AstrometryParams,
) -> PlateFit:
    """Match sources at their plane coordinates; fit every order the stars can carry; choose one."""
    found = match_plane(*plane, *_project(field.ra, field.dec, *centre), radius_arcsec)
    rows, stars = found.first, found.second
    # Saturated and masked stars are centred worse than they say, blended ones a little: left out if there are
    # enough others.
    for good, enough in ((field.whole, _ENOUGH_WHOLE), (field.alone, _ENOUGH_ALONE)):
        kept = good[rows]
        if np.count_nonzero(kept) >= max(enough, 2 * params.min_matches):
            rows, stars = rows[kept], stars[kept]
    if len(rows) < params.min_matches:
        raise NoSolution(
            f"only {len(rows)} stars match within {radius_arcsec:.2g} arcsec, {params.min_matches} needed",
            cure="use a deeper catalog, or raise astrometry.match_radius_pix",
        )
    pixels = field.x[rows], field.y[rows]
    positions = field.ra[stars], field.dec[stars]
    errors = np.hypot(field.error_pix[rows] * field.hint.pixel_scale_arcsec, field.error_arcsec[stars])
    fits = [
        fit_plate(
            pixels, positions, errors, field.centre, centre, order, params.clip_sigma,
            params.distortion_prior_pix * field.hint.pixel_scale_arcsec,
        )
        for order in range(1, min(top_order, params.max_order) + 1)
    ]  # fmt: skip
    return _choose(fits, errors, field.shape, params.clip_sigma)


def _project(ra: Float, dec: Float, ra0: float, dec0: float) -> tuple[Float, Float]:
    xi, eta = sky.project(ra, dec, ra0, dec0)
    return xi * 3600, eta * 3600


def _deproject(xi: npt.ArrayLike, eta: npt.ArrayLike, ra0: float, dec0: float) -> tuple[Float, Float]:
    return sky.deproject(np.asarray(xi) / 3600, np.asarray(eta) / 3600, ra0, dec0)


def _choose(fits: list[PlateFit], errors: Float, shape: tuple[int, int], clip_sigma: float) -> PlateFit:
    """Take the order that predicts left-out stars best, and is not wild in the corners.

    Not the lowest that does nearly as well: a distortion left out costs more than the noise of its terms.
    """
    total = np.hypot(errors, min(f.fit.scatter for f in fits))
    corners = np.array([0, shape[1], shape[1], 0]), np.array([0, 0, shape[0], shape[0]])
    best, lowest = fits[0], np.mean(left_out_loss(fits[0].fit, total, clip_sigma))
    for plate in fits[1:]:
        loss = np.mean(left_out_loss(plate.fit, total, clip_sigma))
        if loss < lowest and np.max(plate.plane_error(*corners)) <= _WILD * fits[0].fit.rms:
            best, lowest = plate, loss
    return best


def _check(solution: WcsSolution, params: AstrometryParams) -> None:
    rms_pix = solution.rms_mas / 1e3 / solution.pixel_scale_arcsec
    if solution.n_matched < params.min_matches or rms_pix > params.max_rms_pix:
        raise NoSolution(
            f"{solution.n_matched} stars fit with {solution.rms_mas:.0f} mas ({rms_pix:.2f} pix) per axis; "
            f"at least {params.min_matches} and at most {params.max_rms_pix:g} pix wanted",
            cure="check the image for trailing and the catalog's epoch, or relax astrometry.max_rms_pix",
        )
