"""How well an aligned reference sits on a new image: shift, scatter and flux ratio of their common stars."""

from dataclasses import dataclass

import numpy as np

from seechange_core.frames import Bool, CommonStars, Float, Float32, PsfModel
from seechange_core.numerics.alignment import Shift
from seechange_core.numerics.peaks import Peaks, local_maxima, merge_close
from seechange_core.numerics.psf_fit import PsfFits, fit
from seechange_core.numerics.stats import mad_sigma

_MAX_STARS = 300
_MIN_STARS = 8
_N_SIGMA = 3.0
_MEDIAN_OF_NORMAL = 0.6745
_MEDIAN_SPREAD = 1.16
"""Relative standard deviation of the median absolute value of n normal deviates, times sqrt(n)."""
_WANDER = 3.0
"""Towards a corner, two astrometric solutions part by up to so many times their error at the centre."""
_FAR = 5.0
"""An astrometric solution is off by hardly more than so many times its error."""
_CONCENTRATION = 0.05
"""Stars have the same flux in an aperture and by PSF within this fraction; galaxies don't."""


@dataclass(frozen=True, eq=False)
class Registration:
    """What common stars say.

    Attributes
    ----------
    shift
        New minus reference positions, pixels.
    sigma_x, sigma_y
        Registration error left at a random place after correcting it, pixels.
    flux_ratio, flux_ratio_err
        New flux over aligned reference flux.
    flux_scatter
        Relative scatter of single stars beyond their noise.
    n_stars
        Stars used.
    """

    shift: Shift
    sigma_x: float
    sigma_y: float
    flux_ratio: float
    flux_ratio_err: float
    flux_scatter: float
    n_stars: int

    def summary(self) -> CommonStars:
        """Return its numbers."""
        x_pix, y_pix = self.shift.coefficients[0].tolist()
        return CommonStars(
            self.n_stars, x_pix, y_pix, self.sigma_x, self.sigma_y,
            self.flux_ratio, self.flux_ratio_err, self.flux_scatter,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two images on common pixels.

    Attributes
    ----------
    data, weight
        (H, W), background removed; weight 0 where unusable.
    psf
        On these pixels.
    gain
        Photons per unit of data.
    """

    data: Float32
    weight: Float32
    psf: PsfModel
    gain: float


def register(
    new: Side, ref: Side, x: Float, y: Float, solution_error_pix: float, min_snr: float = 50.0
) -> Registration | None:
    """Measure the registration on stars that both images show well.

    Parameters
    ----------
    new, ref
        The images, the reference aligned and scaled to the new one, at least around the candidates.
    x, y
        Candidates (see `find_candidates`), pixels.
    solution_error_pix
        Error of the difference of the two astrometric solutions at the centre: how much the shift may
        vary over the image where few stars can say.
    min_snr
        Of the stars' fluxes in both images.

    Returns
    -------
    Registration or None
        None if there are too few stars to say anything.
    """
    fwhm = max(new.psf.fwhm_pix, ref.psf.fwhm_pix)
    dx, dy = _coarse_shift(ref, x, y, search_radius_pix(fwhm, solution_error_pix))
    clean = _all_usable(ref, x - dx, y - dy, _reach_pix(fwhm))
    x, y = x[clean], y[clean]
    if len(x) < _MIN_STARS:
        return None
    a, b = _fit(new, x, y), _fit(ref, x - dx, y - dy)
    good = (a.flux > min_snr * a.flux_err) & (b.flux > min_snr * b.flux_err) & _pointlike(ref, b)
    good &= _pointlike(new, a)
    good &= (a.usable_fraction > 0.98) & (b.usable_fraction > 0.98)
    good &= np.hypot(a.x - b.x - dx, a.y - b.y - dy) < 1.0
    if np.count_nonzero(good) < _MIN_STARS:
        return None
    a, b = a.select(good), b.select(good)
    return _summary(a, b, (dx, dy), new.data.shape, _WANDER * solution_error_pix)


def search_radius_pix(fwhm_pix: float, solution_error_pix: float) -> int:
    """Return how far from its place in the new image a star is looked for in the reference.

    The error of an astrometric solution is its own word: what it may be wrong by is allowed one FWHM more. A
    candidate has no rival within three.
    """
    return int(np.ceil(min(fwhm_pix + _FAR * solution_error_pix, 2 * fwhm_pix)))


def _coarse_shift(ref: Side, x: Float, y: Float, radius: int) -> tuple[float, float]:
    """Return new minus reference positions to a pixel: the median of where the reference is brightest."""
    offsets = []
    height, width = ref.data.shape
    for j, i in zip(np.rint(y).astype(int), np.rint(x).astype(int), strict=True):
        if not (radius <= j < height - radius and radius <= i < width - radius):
            continue
        window = slice(j - radius, j + radius + 1), slice(i - radius, i + radius + 1)
        if (ref.weight[window] > 0).all():
            offsets.append(np.unravel_index(np.argmax(ref.data[window]), (2 * radius + 1, 2 * radius + 1)))
    if len(offsets) < _MIN_STARS:
        return 0.0, 0.0
    row, column = np.median(np.array(offsets), axis=0)
    return float(radius - column), float(radius - row)


def find_candidates(new: Side, fwhm_pix: float) -> tuple[Float, Float]:
    """Return x and y of bright isolated peaks of the new image with only usable pixels around.

    Parameters
    ----------
    new
        The new image.
    fwhm_pix
        The larger FWHM of both images.
    """
    usable = new.weight > 0
    if not usable.any():
        return np.zeros(0), np.zeros(0)
    sigma = float(1 / np.sqrt(np.median(new.weight[::4, ::4][usable[::4, ::4]])))
    radius = _reach_pix(fwhm_pix)
    peaks = local_maxima(np.where(usable, new.data, np.float32(0)), 10 * sigma, border=radius + 1)
    peaks = peaks.select(slice(0, 10 * _MAX_STARS))
    keep = merge_close(peaks.y, peaks.x, 0.6 * radius) & _isolated(peaks, 2.0 * radius)
    y, x = (a[keep][: 3 * _MAX_STARS].astype(float) for a in (peaks.y, peaks.x))
    clean = _all_usable(new, x, y, radius)
    return x[clean][:_MAX_STARS], y[clean][:_MAX_STARS]


def _reach_pix(fwhm_pix: float) -> int:
    return int(np.ceil(1.5 * fwhm_pix))


def _all_usable(side: Side, x: Float, y: Float, radius: int) -> Bool:
    """Tell around which positions all pixels are usable."""
    boxes = (
        side.weight[max(j - radius, 0) : j + radius + 1, max(i - radius, 0) : i + radius + 1]
        for j, i in zip(np.rint(y).astype(int), np.rint(x).astype(int), strict=True)
    )
    return np.array([(box > 0).all() for box in boxes], bool)


def _isolated(peaks: Peaks, radius: float) -> Bool:
    """Tell which peaks have no other one of a tenth of their height within a radius."""
    distance2 = (peaks.y[:, None] - peaks.y) ** 2 + (peaks.x[:, None] - peaks.x) ** 2
    rival = (distance2 < radius**2) & (peaks.value[None, :] > 0.1 * peaks.value[:, None])
    np.fill_diagonal(rival, False)
    return np.asarray(~rival.any(axis=1), bool)


def _fit(side: Side, x: Float, y: Float) -> PsfFits:
    radius = 1.3 * side.psf.fwhm_pix
    start = np.zeros(len(x))
    return fit(
        side.data, side.weight, side.psf, x, y, start, radius_pix=radius, gain=side.gain, free_position=True
    )


def _pointlike(side: Side, fits: PsfFits) -> Bool:
    """Compare fits with a narrow and a wide radius: a galaxy gains light."""
    wide = fit(
        side.data, side.weight, side.psf, fits.x, fits.y, np.zeros(len(fits)),
        radius_pix=2.2 * side.psf.fwhm_pix, gain=np.inf,
    )  # fmt: skip
    core = fit(
        side.data, side.weight, side.psf, fits.x, fits.y, np.zeros(len(fits)),
        radius_pix=0.7 * side.psf.fwhm_pix, gain=np.inf,
    )  # fmt: skip
    excess = wide.flux / core.flux - 1
    noise = wide.flux_err / np.maximum(np.abs(wide.flux), wide.flux_err)
    return np.asarray(np.abs(excess) < _CONCENTRATION + 2 * noise, bool)


def _summary(
    a: PsfFits, b: PsfFits, coarse: tuple[float, float], shape: tuple[int, ...], wander_pix: float
) -> Registration:
    scale = max(shape) / 2
    shift = Shift(np.zeros((6, 2)), ((shape[1] - 1) / 2, (shape[0] - 1) / 2), scale)
    basis = shift.basis(a.x, a.y)
    prior = np.array([1.0, *[max(wander_pix, 1e-4)] * 5])
    sigmas = []
    for axis, (delta, error) in enumerate(
        ((a.x - b.x, np.hypot(a.x_err, b.x_err)), (a.y - b.y, np.hypot(a.y_err, b.y_err)))
    ):
        fitted = _robust_fit(basis, delta - coarse[axis], error, prior)
        shift.coefficients[:, axis] = fitted.coefficients
        shift.coefficients[0, axis] += coarse[axis]
        sigmas.append(float(np.hypot(fitted.scatter, fitted.formal)))
    error = np.hypot(a.flux_err / a.flux, b.flux_err / b.flux)
    ratio = _robust_fit(np.ones((len(a), 1)), a.flux / b.flux, error, np.array([np.inf]))
    return Registration(
        shift, sigmas[0], sigmas[1], float(ratio.coefficients[0]), ratio.formal, ratio.scatter, len(a)
    )


@dataclass(frozen=True, eq=False)
class _Fit:
    """Coefficients, scatter of single stars beyond their errors, and the model's own mean error."""

    coefficients: Float
    scatter: float
    formal: float


def _robust_fit(basis: Float, values: Float, errors: Float, prior: Float) -> _Fit:
    """Fit a linear model with a prior width for each coefficient, clipping outliers.

    The scatter beyond the known errors is that of the bright stars, whose errors are small: a fit that
    took no notice of it would throw them out.
    """
    scatter = float(mad_sigma(values - np.median(values)))
    keep = np.abs(values - np.median(values)) < _N_SIGMA * np.hypot(errors, scatter)
    coefficients: Float = np.zeros(basis.shape[1])
    formal = 0.0
    for _ in range(8):
        weight = keep / (errors**2 + scatter**2)
        normal = (basis.T * weight) @ basis + np.diag(prior**-2.0)
        covariance = np.linalg.inv(normal)
        coefficients = np.asarray(covariance @ (basis.T @ (weight * values)), float)
        formal = float(np.sqrt(np.mean(np.einsum("ij,jk,ik->i", basis, covariance, basis))))
        residual = values - basis @ coefficients
        scatter = _scatter(residual[keep], errors[keep])
        keep = np.abs(residual) < _N_SIGMA * np.hypot(errors, scatter)
    return _Fit(coefficients, scatter, formal)


def _scatter(residual: Float, errors: Float) -> float:
    """Return the scatter beyond the known errors, of the half of the stars whose errors are smallest.

    They alone can tell; and the median of theirs does not follow a tail of blends and variables. What few
    stars show by chance, one standard deviation of that median, is not counted.
    """
    best = np.argsort(errors, kind="stable")[: max(_MIN_STARS // 2, len(errors) // 2)]
    seen = float(np.median(np.abs(residual[best]))) / _MEDIAN_OF_NORMAL
    chance = 1 + _MEDIAN_SPREAD / np.sqrt(len(best))
    return float(np.sqrt(max(seen**2 - chance**2 * float(np.median(errors[best] ** 2)), 0.0)))
