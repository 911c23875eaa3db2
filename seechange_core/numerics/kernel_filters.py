"""Filters of a patch whose images are matched by a fitted kernel, in the form that ZOGY's have.

With a kernel K that convolves the reference, ``N - K R`` has the noise power ``n^2 + |K|^2 r^2``, and with
one that convolves the new image ``K N - R`` has ``|K|^2 n^2 + r^2``. Dividing by the root of it makes the
noise white (Reiss & Lupton 2016, DMTN-021), and the matched filter of a point source in it is the score. If K
is the ratio of the PSFs this is ZOGY; here the difference needs no PSF, only the score takes the new image's.
"""

import numpy as np

from seechange_core.frames import Float32
from seechange_core.numerics.zogy import (
    Complex,
    Kernels,
    Noise,
    mean_over_frequencies,
    transfer,
    unaliased,
)


def kernel_filters(
    kernel: Float32, psf_new: Complex, psf_ref: Complex, noise: Noise, side: int, convolves_new: bool
) -> Kernels:
    """Work out the filters of a patch from the kernel there.

    Parameters
    ----------
    kernel
        (size, size), its sum the flux ratio.
    psf_new, psf_ref
        (side, side // 2 + 1) transfers. The sharper one's is taken as it is, the other one's for the
        score only if it is the new image's.
    noise
        Sky noise of both images.
    side
        Of the patch, pixels.
    convolves_new
        Whether the kernel is for the new image; otherwise it is for the reference.
    """
    spectrum = transfer(kernel, side)
    one = np.ones_like(spectrum)
    total = np.float32(kernel.sum(dtype=float))
    # In either case the new image's flux scale is kept.
    on_new, on_ref = (spectrum / total, one / total) if convolves_new else (one, spectrum)
    power_new, power_ref = (k.real**2 + k.imag**2 for k in (on_new, on_ref))
    inverse = 1 / (np.float32(noise.new) * power_new + np.float32(noise.ref) * noise.power * power_ref)
    variance = float(1 / inverse[0, 0])
    root = np.sqrt(inverse * np.float32(variance))
    psf = on_new * psf_new
    kept = unaliased(side)
    matched = psf.conj() * (inverse * kept)
    seen = np.asarray((psf * matched).real, np.float32)
    return Kernels(
        side=side,
        new=psf_new if convolves_new else spectrum * psf_ref,
        ref=spectrum * psf_new if convolves_new else psf_ref,
        difference_new=on_new * root,
        difference_ref=on_ref * root,
        score_new=matched * on_new,
        score_ref=matched * on_ref,
        psf=psf * root,
        flux_of_score=mean_over_frequencies(seen, side),
        score_variance=mean_over_frequencies(seen * kept, side),
        variance=variance,
    )
