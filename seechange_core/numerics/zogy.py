"""Proper image subtraction (ZOGY: Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27) of one patch of sky.

Both images are in electrons of the new one, so the flux ratios of the paper are 1. The reference may be
coloured: its noise power is ``noise_ref * power``, where the paper has a constant. Every PSF and kernel is
taken as it is at the middle of the patch.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.fft import fft, irfft2, rfft, rfft2

from seechange_core.frames import Float, Float32

Complex = npt.NDArray[np.complex64]

_LEAST_TRANSFER = np.float32(3e-4)
"""Where less light gets through to the reference, its transfer goes over to this, and the new image's own
white noise is left. Both PSFs vanish at high frequencies, and which one is smaller there is chance; the
reference's noise there, which interpolation has all but removed, would be blown up by what is badly known of
it. And what a model has there has phases at random: filters made of it would spread whatever is sharp, like
the core of a saturated star that the edge of the patch cuts, over all of the patch."""
_ALIASED = 0.35, 0.5
"""Frequencies, cycles per pixel along a row or a column, between which the score leaves off. Light that is
sharper than pixels can show folds back there, with a sign that depends on where in its pixel a star lies: it
alternates from pixel to pixel along the star's row and column. With a FWHM of 1.5 pixels that is up to 20
sigma at stars of 500, and leaving it off costs sources 1 % of their S/N; what is well sampled has nothing
there."""
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
    score_variance
        Of S in blank sky.
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
    score_variance: float
    variance: float

    @property
    def sharpness(self) -> float:
        """Variance of the difference in blank sky over that of a point-source flux."""
        return self.variance * self.flux_of_score**2 / self.score_variance


def transfer(stamp: Float32, side: int) -> Complex:
    """Return the Fourier transform of a centred stamp on a square patch of `side` pixels.

    First along its own rows alone: the others are empty.
    """
    half = stamp.shape[0] // 2
    rows = np.zeros((len(stamp), side), np.float32)
    rows[:, : half + 1], rows[:, side - half :] = stamp[:, half:], stamp[:, :half]
    hat = rfft(rows)
    plane = np.zeros((side, side // 2 + 1), np.complex64)
    plane[: half + 1], plane[side - half :] = hat[half:], hat[:half]
    return np.asarray(fft(plane, axis=0, overwrite_x=True))


def stamp_of(spectrum: Complex, side: int, size: int) -> Float32:
    """Return the central (size, size) stamp of a transfer function."""
    if side % 4 == 0 and size < side // 2:
        # On every other frequency what lies further out wraps around, beyond the stamp or next to nothing.
        spectrum, side = spectrum[::2, ::2], side // 2
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
    shares = np.empty((4, *psf_new.shape), np.float32)
    scale, on_new, on_ref, matched = (plane.ravel() for plane in shares)
    # Complex numbers are pairs of real ones in what is compiled, and loops short: many run at once.
    new, out, one = _reals(psf_new), _reals(filters), np.float32(1)
    _kept_from_zero(_reals(psf_ref), out[0])
    variances = np.float32(noise.new), np.float32(noise.ref)
    _shares(new, out[0], noise.power.ravel(), *variances, scale, on_new, on_ref, matched)
    _times_real(out[0], scale, one, out[1])
    _times_real(new, scale, one, out[2])
    _times(new, out[1], out[5])
    kept = unaliased(side)
    shares[1:3] *= kept
    _times_real(new, on_new, -one, out[3])
    _times_real(out[0], on_ref, -one, out[4])
    seen = shares[3] * kept
    return Kernels(
        side=side,
        new=psf_new,
        ref=ref,
        difference_new=difference_new,
        difference_ref=difference_ref,
        score_new=score_new,
        score_ref=score_ref,
        psf=psf,
        flux_of_score=mean_over_frequencies(seen, side),
        score_variance=mean_over_frequencies(seen * kept, side),
        variance=noise.new + noise.ref,
    )


@cache
def unaliased(side: int) -> Float32:
    """Return how much of each frequency a score takes, (side, side // 2 + 1): see `_ALIASED`."""
    start, end = _ALIASED

    def along(frequency: Float) -> Float:
        beyond = np.clip((np.abs(frequency) - start) / (end - start), 0, 1)
        return np.asarray(np.cos(np.pi / 2 * beyond) ** 2)

    y, x = (np.asarray(of(side), float) for of in (np.fft.fftfreq, np.fft.rfftfreq))
    return np.outer(along(y), along(x)).astype(np.float32)


def _reals(spectra: Complex) -> Float32:
    """Return spectra as real and imaginary parts in turn: (n,) of one, (count, n) of several."""
    return spectra.view(np.float32).reshape(*spectra.shape[:-2], -1)


@njit(cache=True, nogil=True, error_model="numpy")
def _kept_from_zero(ref: Float32, out: Float32) -> None:
    """See `_LEAST_TRANSFER`."""
    one, least = np.float32(1), _LEAST_TRANSFER
    for k in range(len(ref) // 2):
        re, im = ref[2 * k], ref[2 * k + 1]
        power = re * re + im * im
        share = power / (power + least * least)
        out[2 * k], out[2 * k + 1] = re * share + least * (one - share), im * share


@njit(cache=True, nogil=True, error_model="numpy")
def _shares(
    new: Float32,
    ref: Float32,
    power: Float32,
    var_new: np.float32,
    var_ref: np.float32,
    scale: Float32,
    on_new: Float32,
    on_ref: Float32,
    matched: Float32,
) -> None:
    """Work out the real factors of the filters, and the power spectrum of a point source in S."""
    total = var_new + var_ref
    tiny = np.float32(1e-20) * total
    for k in range(len(power)):
        power_new = new[2 * k] * new[2 * k] + new[2 * k + 1] * new[2 * k + 1]
        power_ref = ref[2 * k] * ref[2 * k] + ref[2 * k + 1] * ref[2 * k + 1]
        inverse = np.float32(1) / (var_new * power_ref + var_ref * power[k] * power_new + tiny)
        scale[k] = np.sqrt(inverse * total)
        on_new[k], on_ref[k] = power_ref * inverse, power_new * inverse
        matched[k] = power_new * power_ref * inverse


@njit(cache=True, nogil=True)
def _times_real(a: Float32, by: Float32, sign: np.float32, out: Float32) -> None:
    """Multiply with a real factor; conjugate if the sign is -1."""
    for k in range(len(by)):
        out[2 * k], out[2 * k + 1] = a[2 * k] * by[k], sign * a[2 * k + 1] * by[k]


@njit(cache=True, nogil=True)
def _times(a: Float32, b: Float32, out: Float32) -> None:
    for k in range(len(a) // 2):
        re, im = 2 * k, 2 * k + 1
        out[re], out[im] = a[re] * b[re] - a[im] * b[im], a[re] * b[im] + a[im] * b[re]


def mean_over_frequencies(half: Float32, side: int) -> float:
    """Return the mean over all frequencies of a real spectrum of which rfft2 keeps half."""
    total = 2 * float(half.sum(dtype=float)) - float(half[:, 0].sum(dtype=float))
    return (total - float(half[:, -1].sum(dtype=float)) if side % 2 == 0 else total) / side**2


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
    """
    side = kernels.side
    # Fourier transforms of several planes at once: most of them are small, and calls cost, too.
    planes = np.zeros((4, side, side), np.float32)
    planes[0], planes[1] = var_new, var_ref
    _squared(kernels, noise, planes[2:])
    hats = _reals(np.asarray(rfft2(planes)))
    n, r = _reals(np.asarray(rfft2(new))), _reals(np.asarray(rfft2(ref)))
    score_new, score_ref = _reals(kernels.score_new), _reals(kernels.score_ref)
    spectra = np.empty((4, *kernels.new.shape), np.complex64)
    out = _reals(spectra)
    _two_products(
        n, _reals(kernels.difference_new), r, _reals(kernels.difference_ref), np.float32(-1), out[0]
    )
    _two_products(n, score_new, r, score_ref, np.float32(-1), out[1])
    _times(r, score_ref, out[2])
    _two_products(hats[0], hats[2], hats[1], hats[3], np.float32(1), out[3])
    difference, score, static, variance = irfft2(spectra, (side, side))
    # Rounding may take a very small variance below zero beside a very bright star.
    least = np.float32(1e-3 * kernels.flux_of_score)
    flux = np.float32(1 / kernels.flux_of_score)
    sigma_x, sigma_y = (np.float32(sigma) for sigma in shift_sigma)
    light = np.empty_like(static)
    _normalise(score, variance, static, sigma_x, sigma_y, least, flux, light)
    return PatchResult(difference, score, variance, light)


@njit(cache=True, nogil=True)
def _two_products(a: Float32, b: Float32, c: Float32, d: Float32, sign: np.float32, out: Float32) -> None:
    """Return a b + sign c d."""
    for k in range(len(a) // 2):
        re, im = 2 * k, 2 * k + 1
        out[re] = a[re] * b[re] - a[im] * b[im] + sign * (c[re] * d[re] - c[im] * d[im])
        out[im] = a[re] * b[im] + a[im] * b[re] + sign * (c[re] * d[im] + c[im] * d[re])


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
