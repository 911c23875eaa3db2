"""Proper image subtraction (ZOGY: Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27) of one patch of sky.

Both images are in electrons of the new one, so the flux ratios of the paper are 1. The reference may be
coloured: its noise power is ``noise_ref * power``, where the paper has a constant. Every PSF and kernel is
taken as it is at the middle of the patch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, rfft2

from seechange_core.frames import Float32

Complex = npt.NDArray[np.complex64]

_LEAST_TRANSFER = np.float32(3e-4)
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
    plane = irfft2(spectrum, (side, side))
    half = size // 2
    return np.ascontiguousarray(np.roll(plane, (half, half), (0, 1))[:size, :size], np.float32)


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
    psf_ref = _floored(psf_ref)
    power_new = psf_new.real**2 + psf_new.imag**2
    power_ref = psf_ref.real**2 + psf_ref.imag**2
    floor = np.float32(1e-20 * (noise.new + noise.ref))
    inverse = np.float32(1) / (
        np.float32(noise.new) * power_ref + np.float32(noise.ref) * noise.power * power_new + floor
    )
    root = np.sqrt(inverse)
    variance = noise.new + noise.ref
    scaled = root * np.float32(np.sqrt(variance))
    matched = np.asarray(power_new * power_ref * inverse, np.float32)
    return Kernels(
        side=side,
        new=psf_new,
        ref=psf_ref,
        difference_new=psf_ref * scaled,
        difference_ref=psf_new * scaled,
        score_new=psf_new.conj() * (power_ref * inverse),
        score_ref=psf_ref.conj() * (power_new * inverse),
        psf=psf_new * psf_ref * scaled,
        flux_of_score=_sum_over_frequencies(matched, side) / side**2,
        variance=variance,
    )


def _floored(spectrum: Complex) -> Complex:
    """Keep a transfer away from 0: where no light gets through, the new image's own white noise is left.

    Both PSFs vanish at high frequencies, and which one is smaller there is chance. The reference's noise
    there, which interpolation has all but removed, would be blown up by what is badly known of it.
    """
    size = np.abs(spectrum)
    return np.asarray(
        spectrum * np.maximum(np.float32(1), _LEAST_TRANSFER / np.maximum(size, 1e-12)), np.complex64
    )


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
    power = old.real**2 + old.imag**2
    kernel = wanted * old.conj() * ((1 + _RESTORE**2) / (power + np.float32(_RESTORE**2)))
    return np.asarray(irfft2(image_hat * kernel, (side, side)), np.float32)


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
    shape = (kernels.side, kernels.side)
    new_hat, ref_hat = rfft2(new), rfft2(ref) if ref_hat is None else ref_hat
    # Fourier transforms of several planes at once: most of them are small, and calls cost, too.
    hats = rfft2(np.stack([var_new, var_ref, *_squared(kernels, noise)]))
    static_hat = ref_hat * kernels.score_ref
    spectra = np.stack([
        new_hat * kernels.difference_new - ref_hat * kernels.difference_ref,
        new_hat * kernels.score_new - static_hat,
        static_hat,
        hats[0] * hats[2] + hats[1] * hats[3],
    ])  # fmt: skip
    difference, score, static, variance = irfft2(spectra, shape)
    # Rounding may take a very small variance below zero beside a very bright star.
    least = np.float32(1e-3 * kernels.flux_of_score)
    variance = np.maximum(variance, least)
    if shift_sigma[0] or shift_sigma[1]:
        slope_y, slope_x = _slopes(static)
        variance += (
            np.float32(shift_sigma[0] ** 2) * slope_x**2 + np.float32(shift_sigma[1] ** 2) * slope_y**2
        )
    flux = np.float32(1 / kernels.flux_of_score)
    return PatchResult(difference, score / np.sqrt(variance), variance * flux**2, static * flux)


def _squared(kernels: Kernels, noise: Noise) -> tuple[Float32, Float32]:
    """Return the squares of the score's filters, which act on variances, as (side, side) planes.

    They are narrow: on every other frequency they wrap around at half of the patch, where nothing is left.
    """
    side = kernels.side
    every = 2 if side % 4 == 0 else 1
    own = side // every
    thinned = np.stack([kernels.score_new[::every, ::every], kernels.score_ref[::every, ::every]])
    thinned[1] *= np.sqrt(noise.power[::every, ::every])
    small = np.square(irfft2(thinned, (own, own)))
    if every == 1:
        return small[0], small[1]
    planes = np.zeros((2, side, side), np.float32)
    half = own // 2
    for rows in (slice(half), slice(-half, None)):
        for columns in (slice(half), slice(-half, None)):
            planes[:, rows, columns] = small[:, rows, columns]
    return planes[0], planes[1]


def _slopes(image: Float32) -> tuple[Float32, Float32]:
    """Return central differences along y and x, periodic."""
    half = np.float32(0.5)
    slope_y = (np.roll(image, -1, 0) - np.roll(image, 1, 0)) * half
    slope_x = (np.roll(image, -1, 1) - np.roll(image, 1, 1)) * half
    return slope_y, slope_x
