"""Peers of the subtraction: ZOGY as most write it (Zackay, Ofek & Gal-Yam 2016), on a SWarped reference.

Twelve float32 FFTs of the whole image: the PSFs of its centre, one number for each image's noise in the
filter, every pixel's own variance in the score; with or without the term for astrometric noise (eqs.
30-33), whose sigma is what common stars scatter by. Unusable pixels of either image are 0 in both and have
no score. PSFs, backgrounds, weights and zero points are our pipeline's: what is compared is the subtraction.
"""

from collections.abc import Iterator

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from benchmarks.peers import Cost, timed_each
from benchmarks.swarp import swarp
from seechange_core.flags import UNUSABLE
from seechange_core.frames import Bool, CalibratedImage, Float32, PsfModel
from seechange_core.numerics.background import level_map
from seechange_core.numerics.peaks import local_maxima
from seechange_core.numerics.psf import evaluate
from seechange_core.numerics.psf_field import fit_field, warp_stamps
from seechange_core.numerics.psf_fit import fit
from seechange_core.numerics.resample import coordinate_grid
from seechange_core.numerics.stats import mad_sigma

_STARS = 500


class Inputs:
    """Both images on the new one's pixels and flux scale, as the peers get them.

    Attributes
    ----------
    new, ref
        (H, W) float32, backgrounds removed, 0 where `bad`.
    new_variance, ref_variance
        (H, W) float32, sources included.
    new_psf, ref_psf
        Stamps of the centre.
    sigma
        Scatter of common stars in x and y, pixels.
    cost
        Of the alignment.
    """

    def __init__(
        self, new: CalibratedImage, reference: CalibratedImage, warped: tuple[Float32, Float32, Cost]
    ) -> None:
        data, weight, self.cost = warped
        ratio = np.float32(10 ** (0.4 * (new.zero_point.zp - reference.zero_point.zp)))
        frame = new.image
        usable = (frame.weight > 0) & (frame.flags & np.uint16(UNUSABLE) == 0) & (weight > 0)
        self.bad: Bool = ~usable
        self.new = np.where(usable, frame.data - level_map(new.background), np.float32(0))
        self.ref = np.where(usable, data * ratio, np.float32(0))
        ref_weight = np.where(usable, weight / ratio**2, 0).astype(np.float32)
        new_weight = np.where(usable, frame.weight, np.float32(0))
        self.new_variance = _variance(self.new, new_weight, frame.gain)
        self.ref_variance = _variance(self.ref, ref_weight, reference.image.gain / float(ratio))
        self.new_psf = _at_centre(new.psf, new.image.shape)
        self.ref_psf = _on_new(new, reference)
        model = fit_field(self.ref_psf[None], np.zeros(1), np.zeros(1), new.image.shape, 0, 0, 0.0)
        self.sigma = _scatter(
            (self.new, new_weight, new.psf, frame.gain),
            (self.ref, ref_weight, model, reference.image.gain / float(ratio)),
        )


def _scatter(*sides: tuple[Float32, Float32, PsfModel, float]) -> tuple[float, float]:
    """Return what the positions of bright common stars scatter by between both images, pixels."""
    data, weight, *_ = sides[0]
    peaks = local_maxima(data, 50 / float(np.sqrt(np.median(weight[weight > 0]))), border=20)
    x, y = (np.asarray(a[:_STARS], float) for a in (peaks.x, peaks.y))
    fits = [
        fit(
            image,
            w,
            psf,
            x,
            y,
            np.zeros(len(x)),
            radius_pix=1.3 * psf.fwhm_pix,
            gain=gain,
            free_position=True,
        )
        for image, w, psf, gain in sides
    ]
    good = np.hypot(fits[0].x - fits[1].x, fits[0].y - fits[1].y) < 1
    for one in fits:
        good &= (one.flux > 50 * one.flux_err) & (one.usable_fraction > 0.98)
    if np.count_nonzero(good) < 8:
        return 0.0, 0.0
    return (
        float(mad_sigma((fits[0].x - fits[1].x)[good])),
        float(mad_sigma((fits[0].y - fits[1].y)[good])),
    )


def _variance(data: Float32, weight: Float32, gain: float) -> Float32:
    usual = np.float32(1 / np.median(weight[weight > 0]))
    sky = np.where(weight > 0, 1 / np.where(weight > 0, weight, 1), usual)
    return np.asarray(sky + np.maximum(data, 0) / gain, np.float32)


def _at_centre(psf: PsfModel, shape: tuple[int, int]) -> Float32:
    stamp: Float32 = evaluate(psf, np.array([shape[1] / 2]), np.array([shape[0] / 2]))[0]
    return stamp


def _on_new(new: CalibratedImage, reference: CalibratedImage) -> Float32:
    """Return the reference's PSF at the centre, turned and scaled to the new image's pixels."""
    grid = coordinate_grid(reference.wcs, new.wcs)
    x, y = new.image.shape[1] / 2, new.image.shape[0] / 2
    px, py = grid.at(np.array([x]), np.array([y]))
    stamp: Float32 = warp_stamps(evaluate(reference.psf, px, py), grid.jacobian(x, y)[None])[0]
    return stamp


def zogy(
    new: Float32,
    ref: Float32,
    variances: tuple[Float32, Float32],
    psfs: tuple[Float32, Float32],
    sigma: tuple[float, float] | None,
) -> Float32:
    """Return S_corr (eq. 25), (H, W).

    Parameters
    ----------
    new, ref, variances
        (H, W) float32, of one flux scale.
    psfs
        Stamps of both.
    sigma
        Astrometric noise in x and y, pixels; None leaves that term out.
    """
    shape = tuple(next_fast_len(n, real=True) for n in new.shape)
    noise_new, noise_ref = (np.float32(mad_sigma(a[::3, ::3][a[::3, ::3] != 0]) ** 2) for a in (new, ref))
    P_new, P_ref = (rfft2(plane_of(p, shape)) for p in psfs)
    power_new, power_ref = (p.real**2 + p.imag**2 for p in (P_new, P_ref))
    inverse = 1 / (
        noise_new * power_ref + noise_ref * power_new + np.float32(1e-20) * (noise_new + noise_ref)
    )
    k_new = P_new.conj() * power_ref * inverse
    k_ref = P_ref.conj() * power_new * inverse
    S_new, S_ref = rfft2(_padded(new, shape)) * k_new, rfft2(_padded(ref, shape)) * k_ref
    variance = irfft2(
        rfft2(_padded(variances[0], shape)) * rfft2(irfft2(k_new, shape) ** 2)
        + rfft2(_padded(variances[1], shape)) * rfft2(irfft2(k_ref, shape) ** 2),
        shape,
    )
    if sigma is None:
        score = irfft2(S_new - S_ref, shape)
    else:
        parts = irfft2(S_new, shape), irfft2(S_ref, shape)
        score = parts[0] - parts[1]
        for part in parts:
            slope_y, slope_x = np.gradient(part)
            variance += np.float32(sigma[0] ** 2) * slope_x**2 + np.float32(sigma[1] ** 2) * slope_y**2
    corrected = score / np.sqrt(np.maximum(variance, np.float32(1e-6) * np.median(variance)))
    return np.asarray(corrected[: new.shape[0], : new.shape[1]], np.float32)


def plane_of(stamp: Float32, shape: tuple[int, ...]) -> Float32:
    """Return a PSF in the middle of the origin, of sum 1, on a plane of zeros."""
    plane = np.zeros(shape, np.float32)
    size = stamp.shape[0]
    plane[:size, :size] = stamp / stamp.sum()
    return np.roll(plane, (-(size // 2), -(size // 2)), (0, 1))


def _padded(image: Float32, shape: tuple[int, ...]) -> Float32:
    return np.pad(image, [(0, shape[k] - image.shape[k]) for k in (0, 1)])


def peers(new: CalibratedImage, reference: CalibratedImage) -> Iterator[tuple[str, Float32, Cost]]:
    """Yield name, score and cost, alignment included, of each; none where SWarp is not installed."""
    frame = reference.image
    weight = np.where(frame.flags & np.uint16(UNUSABLE), np.float32(0), frame.weight)
    warped = swarp(frame.data - level_map(reference.background), weight, reference.wcs, new.wcs)
    if warped is None:
        return
    given = Inputs(new, reference, warped)
    images = given.new, given.ref, (given.new_variance, given.ref_variance), (given.new_psf, given.ref_psf)
    # Nothing is compiled here: the first call is as good as the second.
    results = timed_each(zogy, [(*images, sigma) for sigma in (None, given.sigma)], warm=False)
    for name, (score, cost) in zip(("SWarp, plain ZOGY", "..., astrometric"), results, strict=True):
        score[given.bad] = 0
        yield name, score, Cost(cost.cpu_s + given.cost.cpu_s, max(cost.mb, given.cost.mb))
