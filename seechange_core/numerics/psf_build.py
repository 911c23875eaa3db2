"""Building a PSF from stars.

The model is a grid of pixels whose quintic spline is shifted onto each star. What the stars show beyond the
model is shifted back and added, pixel by pixel, by weighted least squares in a polynomial of the position
(after Anderson & King 2000, PASP 112, 1360, section 3): the model is fitted through the same interpolation it
will be used with, and unusable pixels need no filling. Beyond two FWHM, where single pixels carry little
signal, the profile is taken as round and nearly a power law.

The sum over a circle of radius ``size // 2`` is 1: *that* circle, about five FWHM in radius, defines the
total flux that fluxes fitted with the model refer to.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from seechange_core.frames import Bool, Float, Float32, Int, PsfModel
from seechange_core.numerics.psf import evaluate, fwhm, on_pixels, shift, terms
from seechange_core.numerics.watershed import Labels

_ROUNDS, _ROUNDS_AGAIN = 4, 3
_CLIP_SIGMA = 5.0
_MODEL_TRUST = 0.01
_WING_TRUST = 0.1
_FLOOR_APERTURE_FWHM = 2.0


@dataclass(frozen=True, eq=False)
class StarStamps:
    """Stars cut out of an image, neighbours and background removed.

    Attributes
    ----------
    data
        (n, size, size) float32, electrons.
    variance
        (n, size, size) float32, of the background; infinite where unusable.
    x, y
        (n,) positions in the image, pixels; a stamp's middle pixel is the one nearest to them.
    flux
        (n,) total fluxes, electrons.
    gain
        Photons per electron of data (1 for a single image).
    """

    data: Float32
    variance: Float32
    x: Float
    y: Float
    flux: Float
    gain: float

    def select(self, rows: Bool | Int) -> "StarStamps":
        """Return some of the stars."""
        return StarStamps(
            self.data[rows], self.variance[rows], self.x[rows], self.y[rows], self.flux[rows], self.gain
        )


def cut_stars(
    image: Float32, weight: Float32, x: Float, y: Float, flux: Float, size: int, gain: float
) -> StarStamps:
    """Cut stamps out of an image; pixels outside it are unusable.

    Parameters
    ----------
    image, weight
        (H, W), background removed, 1 / background variance.
    x, y, flux
        (n,) of the stars.
    size
        Odd side of the stamps, pixels.
    gain
        Photons per electron of data.
    """
    half = size // 2
    steps = np.arange(-half, half + 1)
    rows = np.rint(y).astype(int)[:, None, None] + steps[None, :, None]
    columns = np.rint(x).astype(int)[:, None, None] + steps[None, None, :]
    inside = (rows >= 0) & (columns >= 0) & (rows < image.shape[0]) & (columns < image.shape[1])
    at = np.clip(rows, 0, image.shape[0] - 1), np.clip(columns, 0, image.shape[1] - 1)
    w = np.where(inside, weight[at], 0)
    data = np.where(w > 0, image[at], np.float32(0))
    variance = np.where(w > 0, 1 / np.where(w > 0, w, 1), np.inf).astype(np.float32)
    return StarStamps(data, variance, x, y, flux, gain)


def without_others(stars: StarStamps, segmentation: Labels, own: Int) -> StarStamps:
    """Return the stars with the pixels of other sources made unusable.

    Parameters
    ----------
    stars
        As cut from the image.
    segmentation
        (H, W): which source each pixel belongs to, 0 none.
    own
        (n,) each star's number in it.
    """
    owner = cut_stars(
        segmentation.astype(np.float32), np.ones(segmentation.shape, np.float32),
        stars.x, stars.y, stars.flux, stars.data.shape[1], stars.gain,
    ).data  # fmt: skip
    others = (owner != 0) & (owner != own[:, None, None])
    others = ndimage.binary_dilation(others, np.ones((1, 3, 3), bool), 2)
    return replace(stars, variance=np.where(others, np.float32(np.inf), stars.variance))


def with_own_light(stars: StarStamps, psf: PsfModel) -> StarStamps:
    """Return stars cut from residuals with each one's own model added back."""
    own = on_pixels(psf, stars.x, stars.y) * stars.flux[:, None, None].astype(np.float32)
    return replace(stars, data=stars.data + own)


def choose_degree(n_stars: int, max_degree: int, stars_per_term: int = 8) -> int:
    """Return the polynomial degree, up to a limit, that a number of stars can carry."""
    degree = 0
    while degree < max_degree and 2 * n_stars >= stars_per_term * (degree + 2) * (degree + 3):
        degree += 1
    return degree


def build(
    stars: StarStamps,
    degree: int,
    image_shape: tuple[int, int],
    fwhm_pix: float,
    start: PsfModel | None = None,
) -> PsfModel:
    """Build a PSF model from stars.

    Parameters
    ----------
    stars
        At least as many as terms of the polynomial.
    degree
        Of the polynomial in position.
    image_shape
        (H, W): positions are scaled to run from -1 to 1 over it.
    fwhm_pix
        About the FWHM: sets where the wings begin.
    start
        An earlier model of the same size to start from.
    """
    height, width = image_shape
    centre, scale = ((width - 1) / 2, (height - 1) / 2), (width / 2, height / 2)
    basis = terms(degree, (stars.x - centre[0]) / scale[0], (stars.y - centre[1]) / scale[1])
    size = stars.data.shape[1]
    coefficients = np.zeros((basis.shape[1], size, size))
    if start is not None:
        shared = min(len(coefficients), len(start.coefficients))
        coefficients[:shared] = start.coefficients[:shared]
    for round_ in range(_ROUNDS if start is None else _ROUNDS_AGAIN):
        first = start is None and round_ == 0
        model = PsfModel(coefficients.astype(np.float32), degree, centre, scale, fwhm_pix)
        coefficients += _correction(stars, model, basis, clip=not first)
        coefficients = _regularised(coefficients, basis.mean(axis=0), fwhm_pix)
    middle = coefficients[0].astype(np.float32)
    return PsfModel(coefficients.astype(np.float32), degree, centre, scale, fwhm(middle), len(stars.x))


def _relative(stars: StarStamps, profiles: Float32) -> tuple[Float32, Float32]:
    """Return (data - model) / flux and its variance, per pixel; the variance is the model's."""
    flux = stars.flux[:, None, None].astype(np.float32)
    known = np.isfinite(stars.variance)
    residual: Float32 = np.where(known, stars.data / flux - profiles, 0).astype(np.float32)
    light = np.maximum(profiles, 0) * flux / stars.gain
    variance: Float32 = ((stars.variance + light) / flux**2).astype(np.float32)
    return residual, variance


def _correction(stars: StarStamps, model: PsfModel, basis: Float, clip: bool) -> Float:
    """Return what to add to the coefficients, from the stars' residuals shifted back."""
    centred = evaluate(model, stars.x, stars.y)
    residual, variance = _relative(stars, on_pixels(model, stars.x, stars.y))
    if clip:
        known = np.isfinite(variance)
        # Neighbours, cosmic rays: a pixel far off in one star only; what all share is the model's error.
        # Of two stars or three the median is as noisy as the faintest: no reason to clip the brightest.
        of_median = np.mean(np.where(known, variance, 0), axis=0) / len(stars.x)
        limit = _CLIP_SIGMA * np.sqrt(variance + of_median + (0.1 * centred) ** 2)
        outlying = np.abs(residual - np.median(residual, axis=0)) > limit
        residual = np.where(outlying, np.float32(0), residual)
        variance = np.where(outlying, np.float32(np.inf), variance)
    back = shift(residual, np.rint(stars.x) - stars.x, np.rint(stars.y) - stars.y)
    # No star counts as better than 1 % of the profile, or the brightest one would be the model.
    weight = 1 / (variance + (_MODEL_TRUST * centred) ** 2)
    normal = np.einsum("nij,na,nb->ijab", weight, basis, basis, optimize=True)
    right = np.einsum("nij,nij,na->ija", weight, back, basis, optimize=True)
    n_terms = basis.shape[1]
    ridge = 1e-6 * np.trace(normal, axis1=2, axis2=3)[..., None, None] / n_terms + 1e-30
    solved = np.linalg.solve(normal + ridge * np.eye(n_terms), right[..., None])[..., 0]
    return np.moveaxis(solved, -1, 0)


def _radius(size: int) -> Float:
    steps = np.arange(size) - size // 2
    radius: Float = np.hypot(steps[:, None], steps[None, :])
    return radius


def _regularised(coefficients: Float, at_stars: Float, fwhm_pix: float) -> Float:
    """Return coefficients with smooth wings, unit sum and the centroid on the middle pixel.

    The wings are those of the profile that the stars have on average, whose terms are `at_stars`: the first
    term alone, that of the image's middle, is known less well.
    """
    radius = _radius(coefficients.shape[1])
    core = np.clip((3 * fwhm_pix - radius) / fwhm_pix, 0, 1)
    inside = radius <= coefficients.shape[1] // 2
    average = np.tensordot(at_stars, coefficients, axes=1)
    wings = np.where(inside, _wings(average, radius, fwhm_pix), 0)
    change = _wing_change(average, coefficients, radius, fwhm_pix)
    change[0] = 1 - change[1:] @ at_stars[1:]
    result = np.where(inside, core * coefficients, 0) + change[:, None, None] * (1 - core) * wings
    result /= result[0].sum()
    result[1:] -= result[1:].sum(axis=(1, 2))[:, None, None] * result[0]
    return _centred(result, radius, fwhm_pix)


def _wing_change(profile: Float, coefficients: Float, radius: Float, fwhm_pix: float) -> Float:
    """Return the relative change of a profile's wings with each term, from that of its width.

    The wings of single terms drown in noise. Where the profile ``f^-2 g(r / f)`` is wider by a share d, the
    sum of its squares is less by 2 d and a wing ``r^-n`` of it brighter by (n - 2) d.
    """
    core = radius <= fwhm_pix
    wider = -(coefficients * profile)[:, core].sum(axis=1) / np.sum(profile[core] ** 2)
    inner, outer = ((radius > low * fwhm_pix) & (radius <= (low + 1) * fwhm_pix) for low in (2, 3))
    light = [float(profile[ring].mean()) if ring.any() else 0.0 for ring in (inner, outer)]
    if not light[0] > light[1] > 0:
        return np.zeros(len(wider))
    slope = np.log(light[0] / light[1]) / np.log(radius[outer].mean() / radius[inner].mean())
    change: Float = np.clip(slope - 2, 0, 3) * wider
    return change


def _wings(stamp: Float, radius: Float, fwhm_pix: float) -> Float:
    """Return a round profile for the wings: the mean in rings, drawn to a power law where it is noisy.

    A few hundred pixels of nearly nothing hold the noise of the whole sum; a power law, trusted to 10 % per
    ring, holds it down.
    """
    edges = np.arange(2 * fwhm_pix, stamp.shape[0] // 2 + 1, max(1.0, 0.25 * fwhm_pix))
    ring = np.digitize(radius, edges) - 1
    ring[radius > stamp.shape[0] // 2] = -1
    n = np.array([np.count_nonzero(ring == k) for k in range(len(edges))])
    filled = np.flatnonzero(n >= 8)
    if len(filled) < 3:
        return stamp
    values = np.array([stamp[ring == k].mean() for k in filled])
    errors = np.array([stamp[ring == k].std() for k in filled]) / np.sqrt(n[filled])
    at = np.array([radius[ring == k].mean() for k in filled])
    noise = np.maximum(errors, 1e-3 * np.abs(values).max()) ** 2
    law = _power_law(at, values, noise)
    if not law.any():
        return np.where(radius > edges[0], 0.0, stamp)
    trust = 1 / (_WING_TRUST * law) ** 2
    smooth = np.maximum((values / noise + law * trust) / (1 / noise + trust), 0.01 * law)
    profile: Float = np.exp(np.interp(np.log(np.maximum(radius, 0.5)), np.log(at), np.log(smooth)))
    return profile


def _power_law(at: Float, values: Float, noise: Float) -> Float:
    """Return the best ``A r^-slope`` at the radii, slope 2 to 8; zeros where the best A is not positive."""
    slopes = np.linspace(2, 8, 61)
    shapes = (at / at[0]) ** -slopes[:, None]
    law = np.zeros(len(at))
    for _ in range(3):
        weight = 1 / (noise + (_WING_TRUST * law) ** 2)
        heights = (weight * values * shapes).sum(axis=1) / (weight * shapes**2).sum(axis=1)
        chi2 = (weight * (values - heights[:, None] * shapes) ** 2).sum(axis=1)
        best = int(np.argmin(chi2))
        law = max(heights[best], 0.0) * shapes[best]
    return law


def _centred(coefficients: Float, radius: Float, fwhm_pix: float) -> Float:
    """Return coefficients whose Gaussian-windowed centroid is on the middle pixel, for every term."""
    size = coefficients.shape[1]
    steps = np.arange(size) - size // 2
    window = np.exp(-4 * np.log(2) * (radius / (1.5 * fwhm_pix)) ** 2)
    h = 0.05
    result = coefficients.copy()
    for axis, arm in enumerate((window * steps[:, None], window * steps[None, :])):
        constant = result[0].astype(np.float32)
        move = (np.array([h, -h]), np.zeros(2))
        sides = shift(constant, *(move if axis == 1 else move[::-1]))
        slope = (sides[0].astype(float) - sides[1]) / (2 * h)
        amounts = (result * arm).sum(axis=(1, 2)) / (slope * arm).sum()
        result -= amounts[:, None, None] * slope
    return result


def good_stars(stars: StarStamps, psf: PsfModel, radius_pix: float, max_chi2: float) -> Bool:
    """Return which stars look like the model: reduced chi square, 2 % of model error allowed, below a limit.

    The limit is `max_chi2` times the median where that is above 1: when nearly all disagree, the model is
    at fault.
    """
    profiles = on_pixels(psf, stars.x, stars.y)
    residual, variance = _relative(stars, profiles)
    core = _radius(stars.data.shape[1])[None] <= radius_pix
    known = core & np.isfinite(variance)
    part = np.where(known, residual**2 / (variance + (2 * _MODEL_TRUST * profiles) ** 2), 0)
    chi2 = part.sum(axis=(1, 2)) / np.maximum(known.sum(axis=(1, 2)), 1)
    # Half of the core must have been seen.
    seen = known.sum(axis=(1, 2)) > 0.5 * core.sum()
    limit = max_chi2 * max(1.0, float(np.median(chi2[seen])) if seen.any() else 1.0)
    good: Bool = seen & (chi2 < limit)
    return good


def measure_floor(stars: StarStamps, psf: PsfModel, radius_pix: float) -> float:
    """Return the relative error of PSF fluxes that noise does not explain.

    Compares each bright star's flux within 2 FWHM with what its PSF fit says, takes the scatter of the
    ratio and removes the noise of exactly that difference, both fluxes being sums over the same pixels.
    The model's own statistical error is added in quadrature.

    Parameters
    ----------
    stars
        Cut from the image, neighbours removed.
    radius_pix
        Of the PSF fits.
    """
    profiles = on_pixels(psf, stars.x, stars.y).astype(float)
    residual, variance = _relative(stars, profiles.astype(np.float32))
    radius = _radius(psf.size)[None]
    inverse = np.where((radius <= radius_pix) & np.isfinite(variance), 1 / variance, 0)
    information = (profiles**2 * inverse).sum(axis=(1, 2))
    aperture = (radius <= _FLOOR_APERTURE_FWHM * psf.fwhm_pix) & np.isfinite(variance)
    share = (profiles * aperture).sum(axis=(1, 2))
    # Relative difference of the two fluxes: residuals times levers, whatever the star's own flux.
    lever = aperture / share[:, None, None] - profiles * inverse / information[:, None, None]
    ratio = (lever * residual).sum(axis=(1, 2))
    noise = (lever**2 * np.where(lever != 0, variance, 0)).sum(axis=(1, 2))
    bright = np.argsort(noise, kind="stable")[: max(8, len(noise) // 3)]
    scatter = 1.4826 * float(np.median(np.abs(ratio[bright] - np.median(ratio[bright]))))
    excess = max(scatter**2 - float(np.median(noise[bright])), 0.0)
    statistical = len(psf.coefficients) / float(information.sum())
    return float(np.sqrt(excess + statistical))
