"""Proper image subtraction (ZOGY: Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27) of one patch of sky.

Both images are in electrons of the new one, so the flux ratios of the paper are 1. The reference may be
coloured: its noise power is ``noise_ref * power``, where the paper has a constant. Every PSF and kernel is
taken as it is at the middle of the patch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.fft import irfft2, rfft2

from seechange_core.frames import Float32

Complex = npt.NDArray[np.complex64]

_LEAST_TRANSFER = np.float32(3e-4)
"""The reference's transfer is kept away from 0: where no light gets through, the new image's own white noise
is left. Both PSFs vanish at high frequencies, and which one is smaller there is chance; the reference's noise
there, which interpolation has all but removed, would be blown up by what is badly known of it."""
_RESTORE = 0.02
"""Regularisation of the kernel that takes one PSF to the other, relative to a transfer of 1."""


@dataclass(frozen=True, eq=False)
class Noise:
    """Typical sky noise of a patch.

    Attributes
    ----------
    new, ref
        Variance per pixel, e-^2.
    power
        (side, side // 2 + 1) spectrum of the reference's noise, relative to white noise of variance `ref`.
    """

    new: float
    ref: float
    power: Float32


@dataclass(frozen=True, eq=False)
class Kernels:
    """The filters of a patch, in Fourier space.

    Attributes
    ----------
    side
        Of the patch.
    new, ref
        PSF transfers.
    difference_new, difference_ref
        Applied to the images, give the difference in electrons of the new image (eq. 13 over F_D).
    score_new, score_ref
        Applied to the images, give S (eqs. 28-29; F_r = F_n = 1).
    psf
        Transfer of the difference's PSF (eq. 14).
    flux_of_score
        S of a point source of flux 1 at its position.
    variance
        Of the difference in blank sky, per pixel: 1 / F_D^2 (eq. 15).
    """

    side: int
    new: Complex
    ref: Complex
    difference_new: Complex
    difference_ref: Complex
    score_new: Complex
    score_ref: Complex
    psf: Complex
    flux_of_score: float
    variance: float


def transfer(stamp: Float32, side: int) -> Complex:
    """Return the Fourier transform of a centred stamp on a square patch of `side` pixels."""
    half = stamp.shape[0] // 2
    plane = np.zeros((side, side), np.float32)
    plane[: half + 1, : half + 1] = stamp[half:, half:]
    plane[: half + 1, side - half :] = stamp[half:, :half]
    plane[side - half :, : half + 1] = stamp[:half, half:]
    plane[side - half :, side - half :] = stamp[:half, :half]
    return np.asarray(rfft2(plane))


def stamp_of(spectrum: Complex, side: int, size: int) -> Float32:
    """Return the central (size, size) stamp of a transfer function."""
    at = np.arange(-(size // 2), size - size // 2) % side
    return np.ascontiguousarray(irfft2(spectrum, (side, side))[np.ix_(at, at)], np.float32)


def make_kernels(psf_new: Complex, psf_ref: Complex, noise: Noise, side: int) -> Kernels:
    """Work out the filters from PSF transfers and noise.

    Parameters
    ----------
    psf_new, psf_ref
        (side, side // 2 + 1) transfers.
    noise
        Sky noise of both images.
    side
        Of the patch, pixels.
    """
    ref, difference_new, difference_ref, score_new, score_ref, psf = filters = np.empty(
        (6, *psf_new.shape), np.complex64
    )
    matched = _filters(psf_new, psf_ref, noise.power, np.float32(noise.new), np.float32(noise.ref), filters)
    return Kernels(
        side=side,
        new=psf_new,
        ref=ref,
        difference_new=difference_new,
        difference_ref=difference_ref,
        score_new=score_new,
        score_ref=score_ref,
        psf=psf,
        flux_of_score=_sum_over_frequencies(matched, side) / side**2,
        variance=noise.new + noise.ref,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _filters(
    psf_new: Complex, psf_ref: Complex, power: Float32, var_new: np.float32, var_ref: np.float32, out: Complex
) -> Float32:
    """Fill the filters and return the power spectrum of a point source in S."""
    one, tiny = np.float32(1), np.float32(1e-20)
    matched = np.empty(power.shape, np.float32)
    total = var_new + var_ref
    for y in range(power.shape[0]):
        for x in range(power.shape[1]):
            new, ref = psf_new[y, x], psf_ref[y, x]
            size = np.sqrt(ref.real**2 + ref.imag**2)
            ref = ref * max(one, _LEAST_TRANSFER / max(size, np.float32(1e-12)))
            power_new = new.real**2 + new.imag**2
            power_ref = ref.real**2 + ref.imag**2
            inverse = one / (var_new * power_ref + var_ref * power[y, x] * power_new + tiny * total)
            scale = np.sqrt(inverse * total)
            matched[y, x] = power_new * power_ref * inverse
            out[0, y, x] = ref
            out[1, y, x] = ref * scale
            out[2, y, x] = new * scale
            out[3, y, x] = np.conj(new) * (power_ref * inverse)
            out[4, y, x] = np.conj(ref) * (power_new * inverse)
            out[5, y, x] = new * ref * scale
    return matched


def _sum_over_frequencies(half: Float32, side: int) -> float:
    """Sum over all frequencies of a real spectrum of which rfft2 keeps half."""
    total = 2 * float(half.sum(dtype=float)) - float(half[:, 0].sum(dtype=float))
    return total - float(half[:, -1].sum(dtype=float)) if side % 2 == 0 else total


def matched_to_new(ref_hat: Complex, kernels: Kernels) -> Float32:
    """Predict the new image from the reference's transform: its PSF exchanged, by a regularised kernel."""
    return _exchange(ref_hat, kernels.ref, kernels.new, kernels.side)


def matched_to_ref(new: Float32, kernels: Kernels) -> Float32:
    """Predict the reference from the new image."""
    return _exchange(np.asarray(rfft2(new)), kernels.new, kernels.ref, kernels.side)


def _exchange(image_hat: Complex, old: Complex, wanted: Complex, side: int) -> Float32:
    return np.asarray(irfft2(_exchanged(image_hat, old, wanted), (side, side)), np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def _exchanged(image_hat: Complex, old: Complex, wanted: Complex) -> Complex:
    """Divide by one transfer, regularised, and multiply by another."""
    least, gain = np.float32(_RESTORE**2), np.float32(1 + _RESTORE**2)
    out = np.empty_like(image_hat)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            a = old[y, x]
            out[y, x] = image_hat[y, x] * wanted[y, x] * np.conj(a) * (gain / (a.real**2 + a.imag**2 + least))
    return out


@dataclass(frozen=True, eq=False)
class PatchResult:
    """A subtracted patch.

    Attributes
    ----------
    difference
        (side, side) float32, electrons of the new image.
    score
        S_corr (eq. 25): S over its full standard deviation.
    flux_variance
        Variance of a point-source flux measured at each pixel, e-^2.
    light
        Static light through the same filter: a star's flux at its place, electrons.
    """

    difference: Float32
    score: Float32
    flux_variance: Float32
    light: Float32


def subtract_patch(
    new: Float32,
    ref: Float32,
    var_new: Float32,
    var_ref: Float32,
    kernels: Kernels,
    noise: Noise,
    shift_sigma: tuple[float, float],
    ref_hat: Complex | None = None,
) -> PatchResult:
    """Subtract a patch and score every pixel of it.

    Parameters
    ----------
    new, ref
        (side, side) float32, electrons of the new image, backgrounds removed, without holes.
    var_new, var_ref
        Full variance, sources included, e-^2; the reference's stands for white noise of its power.
    kernels, noise
        Of this patch.
    shift_sigma
        Uncertainty of the registration in x and y, pixels (eqs. 30-33).
    ref_hat
        Transform of `ref`, if it is known.
    """
    side = kernels.side
    new_hat, ref_hat = rfft2(new), rfft2(ref) if ref_hat is None else ref_hat
    # Fourier transforms of several planes at once: most of them are small, and calls cost, too.
    planes = np.zeros((4, side, side), np.float32)
    planes[0], planes[1] = var_new, var_ref
    _squared(kernels, noise, planes[2:])
    spectra = _spectra(
        new_hat, ref_hat, kernels.difference_new, kernels.difference_ref, kernels.score_new,
        kernels.score_ref, rfft2(planes),
    )  # fmt: skip
    difference, score, static, variance = irfft2(spectra, (side, side))
    # Rounding may take a very small variance below zero beside a very bright star.
    least = np.float32(1e-3 * kernels.flux_of_score)
    flux = np.float32(1 / kernels.flux_of_score)
    sigma_x, sigma_y = (np.float32(sigma) for sigma in shift_sigma)
    light = np.empty_like(static)
    _normalise(score, variance, static, sigma_x, sigma_y, least, flux, light)
    return PatchResult(difference, score, variance, light)


@njit(cache=True, nogil=True)
def _spectra(
    new: Complex,
    ref: Complex,
    difference_new: Complex,
    difference_ref: Complex,
    score_new: Complex,
    score_ref: Complex,
    hats: Complex,
) -> Complex:
    """Return the transforms of the difference, S, its static part and its variance, (4, side, side // 2 + 1).

    `hats` are those of both variances and of the squared filters that act on them.
    """
    out = np.empty((4, *new.shape), np.complex64)
    for y in range(new.shape[0]):
        for x in range(new.shape[1]):
            n, r = new[y, x], ref[y, x]
            static = r * score_ref[y, x]
            out[0, y, x] = n * difference_new[y, x] - r * difference_ref[y, x]
            out[1, y, x] = n * score_new[y, x] - static
            out[2, y, x] = static
            out[3, y, x] = hats[0, y, x] * hats[2, y, x] + hats[1, y, x] * hats[3, y, x]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _normalise(
    score: Float32,
    variance: Float32,
    static: Float32,
    sigma_x: np.float32,
    sigma_y: np.float32,
    least: np.float32,
    flux: np.float32,
    light: Float32,
) -> None:
    """Divide S by its standard deviation and bring variance and static light to fluxes, in place.

    The registration's error counts by the slopes of the static light, periodic.
    """
    side, half = score.shape[0], np.float32(0.5)
    for y in range(side):
        above, own, below = static[y - 1], static[y], static[(y + 1) % side]
        for x in range(side):
            left, right = x - 1 if x else side - 1, x + 1 if x + 1 < side else 0
            slope_x = (own[left] - own[right]) * half * sigma_x
            slope_y = (above[x] - below[x]) * half * sigma_y
            full = max(variance[y, x], least) + slope_x**2 + slope_y**2
            score[y, x] /= np.sqrt(full)
            variance[y, x] = full * flux * flux
            light[y, x] = own[x] * flux


def _squared(kernels: Kernels, noise: Noise, out: Float32) -> None:
    """Fill (2, side, side) zeros with the squares of the score's filters, which act on variances.

    They are narrow: on every other frequency they wrap around at half of the patch, where nothing is left.
    """
    side = kernels.side
    every = 2 if side % 4 == 0 else 1
    own = side // every
    thinned = np.stack([kernels.score_new[::every, ::every], kernels.score_ref[::every, ::every]])
    thinned[1] *= np.sqrt(noise.power[::every, ::every])
    small = np.square(irfft2(thinned, (own, own)))
    half = own // 2
    for rows in (slice(half), slice(half - own, None)):
        for columns in (slice(half), slice(half - own, None)):
            out[:, rows, columns] = small[:, rows, columns]
