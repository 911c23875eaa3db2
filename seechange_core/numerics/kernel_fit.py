"""The kernel that makes one image look like another: fitted on stars, without using any PSF model.

Alard & Lupton 1998, ApJ 503, 325; varying over the image: Alard 2000, A&AS 144, 363; Hu et al. 2022, ApJ 936,
157. The model of a target pixel at q is ``sum_k a_k(q) (B_k * source)(q) + b(q)``, with splines B_k and
polynomials of position a_k and b; the sum of the kernel is the flux ratio, which varies with it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from seechange_core.errors import NoStars
from seechange_core.frames import Bool, Float, Float32, Int
from seechange_core.numerics.kernel_basis import KernelBasis, kernel_basis
from seechange_core.numerics.kernel_stars import choose_stars, cut_stamps, stamp_weights
from seechange_core.numerics.psf import terms
from seechange_core.numerics.registration import Side
from seechange_core.numerics.stats import mad_sigma

_MIN_STARS = 8
_MIN_SNR = 30.0
_STARS_PER_TERM = 12
_ROUNDS = 5
_CLIP = 5.0
_HALF_FWHM = 2.2
_STAMP_FWHM = 2.2
_STEP_FWHM = 0.22
"""Of the sharper image: no kernel between two real PSFs has detail finer than a fraction of it."""
_RIDGE = 1e-10
_VARIES = 0.3
_VARIES_LEAST = 0.02
"""How much a kernel is expected to vary over the image: each spline's share by this fraction of its mean,
but of the largest one at least by the second: where few stars say anything, a polynomial stays near that.
"""


@dataclass(frozen=True, eq=False)
class KernelField:
    """A kernel that varies with position, and what it was made from.

    Attributes
    ----------
    coefficients
        (n_terms, size, size) float32, of the polynomial terms in the order of `psf.terms`.
    background
        (n_terms,): target minus convolved source.
    degree, centre, scale
        Of the polynomial, as for `PsfModel`.
    convolves_new
        Whether the new image is convolved; otherwise the reference is.
    flux_scatter
        Relative scatter of single stars' fluxes about the kernel, beyond their noise.
    n_stars, n_clipped
        Stars used, and left out as variable, blended with a defect or otherwise unlike the others.
    """

    coefficients: Float32
    background: Float
    degree: int
    centre: tuple[float, float]
    scale: tuple[float, float]
    convolves_new: bool
    flux_scatter: float
    n_stars: int
    n_clipped: int

    def terms_at(self, x: Float, y: Float) -> Float:
        """Return the polynomial terms at positions, (n, n_terms)."""
        return terms(self.degree, (x - self.centre[0]) / self.scale[0], (y - self.centre[1]) / self.scale[1])

    def at(self, x: Float, y: Float) -> Float32:
        """Return the kernels at positions, (n, size, size)."""
        weights = self.terms_at(x, y).astype(np.float32)
        return np.asarray(np.tensordot(weights, self.coefficients, axes=1), np.float32)

    def background_map(self, shape: tuple[int, int]) -> Float32:
        """Return the differential background on every pixel, (H, W)."""
        v, u = (
            (np.arange(n) - c) / s for n, c, s in zip(shape, self.centre[::-1], self.scale[::-1], strict=True)
        )
        image = np.zeros(shape, np.float32)
        powers = [(total - p, p) for total in range(self.degree + 1) for p in range(total + 1)]
        for value, (along, across) in zip(self.background, powers, strict=True):
            image += np.outer(value * v**across, u**along).astype(np.float32)
        return image


def fit_kernel(new: Side, ref: Side, degree: int) -> KernelField:
    """Fit the kernel by which the sharper of two images looks like the other one.

    Parameters
    ----------
    new, ref
        The images on common pixels, without holes, backgrounds removed; weight 0 where a pixel is not known.
        Their PSFs only tell which one is sharper, and how large stamps must be.
    degree
        Of the polynomial of position; lowered where there are too few stars.

    Raises
    ------
    NoStars
        If fewer than 8 sources are bright enough.
    """
    convolves_new = _area(new) < _area(ref)
    source, target = (new, ref) if convolves_new else (ref, new)
    fwhm = max(new.psf.fwhm_pix, ref.psf.fwhm_pix)
    basis = kernel_basis(_HALF_FWHM * fwhm, max(1.0, _STEP_FWHM * source.psf.fwhm_pix))
    reach = max(5, int(np.ceil(_STAMP_FWHM * fwhm)))
    y, x = choose_stars(source, target, reach, basis.half, _MIN_SNR)
    if len(x) < _MIN_STARS:
        raise NoStars(
            f"{len(x)} sources above S/N {_MIN_SNR:.0f} to fit a convolution kernel on, {_MIN_STARS} needed",
            cure="set subtract.method to zogy, which needs PSFs only",
        )
    spread = 1 / max(1.0, _area(target) - _area(source))
    weights = stamp_weights(source, target, y, x, reach, spread)
    sums = _sums(source.data, target.data, weights, y, x, basis, reach)
    shape = new.data.shape
    centre, scale = ((shape[1] - 1) / 2, (shape[0] - 1) / 2), (max(shape[1] / 2, 1.0), max(shape[0] / 2, 1.0))
    u, v = (x - centre[0]) / scale[0], (y - centre[1]) / scale[1]
    fitted = _clipped_fit(sums, u, v, degree)
    planes = np.tensordot(fitted.coefficients[:, :-1], basis.images(), axes=1)
    return KernelField(
        planes.astype(np.float32), fitted.coefficients[:, -1], fitted.degree, centre, scale, convolves_new,
        fitted.flux_scatter, int(fitted.keep.sum()), int((~fitted.keep).sum()),
    )  # fmt: skip


def _area(side: Side) -> float:
    """Return the noise-equivalent area of the PSF at the centre, pixels."""
    return float(1 / np.sum(side.psf.coefficients[0].astype(float) ** 2))


@dataclass(frozen=True, eq=False)
class _Sums:
    """What least squares need of each star: everything later is done with these.

    Attributes
    ----------
    normal
        (n, m, m): design^T W design; the last column of the design is the background.
    right
        (n, m): design^T W target.
    power
        (n,): target^T W target.
    count
        (n,): pixels.
    """

    normal: Float
    right: Float
    power: Float
    count: Float


def _sums(
    source: Float32, target: Float32, weights: Float, y: Int, x: Int, basis: KernelBasis, reach: int
) -> _Sums:
    stamps = cut_stamps(source, y, x, reach + basis.half)
    targets = cut_stamps(target, y, x, reach)
    side, wide = 2 * reach + 1, 2 * (reach + basis.half) + 1
    # Convolution along one axis with each spline, as a matrix.
    matrix = np.zeros((len(basis.line), side, wide))
    for row in range(side):
        matrix[:, row, row : row + basis.line.shape[1]] = basis.line[:, ::-1]
    flat = matrix.reshape(-1, wide)
    chosen = np.flatnonzero(basis.used.ravel())
    n, m = len(y), len(chosen) + 1
    normal, right = np.empty((n, m, m)), np.empty((n, m))
    design = np.ones((m, side * side))
    for k in range(n):
        rows = (flat @ stamps[k]).reshape(-1, wide)
        products = (rows @ flat.T).reshape(len(basis.line), side, len(basis.line), side)
        design[:-1] = products.transpose(0, 2, 1, 3).reshape(-1, side * side)[chosen]
        scaled = design * np.sqrt(weights[k]).ravel()
        normal[k] = scaled @ scaled.T
        right[k] = design @ (weights[k] * targets[k]).ravel()
    return _Sums(
        normal,
        right,
        np.sum(weights * targets**2, axis=(1, 2)),
        np.sum(weights > 0, axis=(1, 2)).astype(float),
    )


@dataclass(frozen=True, eq=False)
class _Fit:
    coefficients: Float
    degree: int
    keep: Bool
    flux_scatter: float


def _clipped_fit(sums: _Sums, u: Float, v: Float, degree: int) -> _Fit:
    """Fit all stars, and again without those that fit worse than others of their brightness.

    A star's chi square per pixel is about ``noise + error^2 * power``: no kernel is perfect, and the
    brightest stars would otherwise decide alone, or all be thrown out.
    """
    n = len(u)
    keep, share = np.ones(n, bool), np.ones(n)
    power = sums.power / sums.count
    coefficients = np.zeros((1, sums.right.shape[1]))
    basis = terms(0, u, v)
    used = 0
    for attempt in range(_ROUNDS):
        wanted = 0 if attempt == 0 else _degree(int(keep.sum()), degree)
        if wanted != used:
            used, basis = wanted, terms(wanted, u, v)
        coefficients = _solve(sums, basis, keep * share, coefficients[0])
        chi2 = _chi2(sums, basis @ coefficients) / sums.count
        noise, error2 = _error_law(chi2[keep], power[keep])
        share = 1 / (noise + error2 * power)
        excess = chi2 * share
        limit = np.median(excess[keep]) + _CLIP * max(float(mad_sigma(excess[keep])), 0.1)
        keep = excess < limit
    scatter = _flux_scatter(sums, basis @ coefficients, keep)
    return _Fit(coefficients, used, keep, scatter)


def _degree(n_stars: int, degree: int) -> int:
    while degree > 0 and n_stars < _STARS_PER_TERM * (degree + 1) * (degree + 2) / 2:
        degree -= 1
    return degree


def _solve(sums: _Sums, basis: Float, weight: Float, mean: Float) -> Float:
    """Return the coefficients of all stars' weighted sums, (n_terms, m).

    `mean` is what was found for the first term before: how much the others may vary follows from it.
    """
    n_terms, m = basis.shape[1], sums.right.shape[1]
    pairs = np.einsum("ni,nj->ijn", basis * weight[:, None], basis).reshape(n_terms**2, -1)
    blocks = (pairs @ sums.normal.reshape(len(basis), -1)).reshape(n_terms, n_terms, m, m)
    normal = blocks.transpose(0, 2, 1, 3).reshape(n_terms * m, n_terms * m)
    right = ((basis * weight[:, None]).T @ sums.right).ravel()
    if n_terms > 1:
        width = np.maximum(_VARIES * np.abs(mean), _VARIES_LEAST * np.abs(mean[:-1]).max())
        # The last one is the background, which is free.
        expected = np.append(1 / width[:-1] ** 2, 0.0)
        normal[np.diag_indices_from(normal)] += np.concatenate([np.zeros(m), *[expected] * (n_terms - 1)])
    scale = 1 / np.sqrt(np.diag(normal))
    normal = normal * scale * scale[:, None]
    normal[np.diag_indices_from(normal)] += _RIDGE
    return np.asarray((cho_solve(cho_factor(normal), right * scale) * scale).reshape(n_terms, m), float)


def _chi2(sums: _Sums, values: Float) -> Float:
    """Return each star's chi square for its own kernel, (n,)."""
    bent = np.matmul(sums.normal, values[:, :, None])[:, :, 0]
    return np.asarray(sums.power - 2 * np.sum(values * sums.right, 1) + np.sum(values * bent, 1), float)


def _error_law(chi2: Float, power: Float) -> tuple[float, float]:
    """Return `noise` and `error^2` of chi square per pixel: of the faint half, and of the bright one."""
    order = np.argsort(power, kind="stable")
    faint, bright = order[: len(order) // 2], order[len(order) // 2 :]
    noise = float(np.clip(np.median(chi2[faint]), 0.3, 3.0))
    return noise, max(float(np.median((chi2[bright] - noise) / power[bright])), 0.0)


def _flux_scatter(sums: _Sums, values: Float, keep: Bool) -> float:
    """Return the scatter of the stars' fluxes about the model's, beyond what noise explains."""
    bent = np.matmul(sums.normal, values[:, :, None])[:, :, 0]
    light = np.sum(values * bent, 1)
    ratio, error2 = np.sum(values * sums.right, 1) / light - 1, 1 / light
    best = np.flatnonzero(keep)[np.argsort(error2[keep], kind="stable")[: max(4, int(keep.sum()) // 2)]]
    seen = float(mad_sigma(ratio[best]))
    return float(np.sqrt(max(seen**2 - float(np.median(error2[best])), 0.0)))
