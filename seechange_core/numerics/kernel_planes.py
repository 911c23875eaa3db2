"""Subtraction of a whole section by a fitted kernel, tile by tile; see `kernel_fit` and `kernel_filters`."""

from dataclasses import replace

import numpy as np

from seechange_core.frames import Float32
from seechange_core.numerics.kernel_filters import kernel_filters
from seechange_core.numerics.kernel_fit import KernelField, fit_kernel
from seechange_core.numerics.paired import Errors, Paired, Planes
from seechange_core.numerics.registration import Side
from seechange_core.numerics.zogy import Kernels, Noise, transfer
from seechange_core.numerics.zogy_planes import TiledSubtraction


def kernel_planes(pair: Paired, errors: Errors, degree: int, translient: bool = False) -> Planes:
    """Subtract the reference by a kernel fitted on common sources (Alard & Lupton 1998, ApJ 503, 325).

    The sharper image is convolved, the noise made white again and matched-filtered with the noise of each
    tile, as proper subtraction does it.

    Parameters
    ----------
    pair
        Both images.
    errors
        What the score counts as noise beyond that of the pixels.
    degree
        Of the polynomials by which kernel, flux ratio and differential background vary.
    translient
        Whether the dipoles are wanted too.

    Raises
    ------
    NoStars
        If too few sources are bright enough to fit the kernel on.
    """
    subtraction = _KernelSubtraction(pair, errors, degree, translient)
    scale = subtraction.fitted.sum(axis=(1, 2), dtype=float)
    if subtraction.field.convolves_new:
        scale = 1 / scale
    return replace(subtraction.run(), kernel_error=subtraction.errors.kernel, scale=scale)


class _KernelSubtraction(TiledSubtraction):
    """One subtraction in progress, with the filters of a fitted kernel."""

    def __init__(self, pair: Paired, errors: Errors, degree: int, translient: bool) -> None:
        super().__init__(pair, errors, translient)
        self.field = fit_kernel(*self._sides(), degree)
        self.fitted = self.field.at(pair.plan.x, pair.plan.y)
        self.errors = replace(errors, kernel=max(errors.kernel, self.field.flux_scatter))
        self._remove_background(self.field)

    def _sides(self) -> tuple[Side, Side]:
        """Return both images on the new one's pixels, without holes."""
        inner, aligned = self.pair.inner, self.pair.aligned
        weight = np.where(self.ref_usable[inner], aligned.weight[inner], np.float32(0))
        gain = 1 / max(float(np.median(aligned.photon_variance[self.ref_usable])), 1e-6)
        new = self.pair.new
        return (
            Side(self.filled.new[inner], self.canvas.weight[inner], new.psf, new.image.gain),
            Side(self.filled.ref[inner], weight, self.plan.ref_model(), gain),
        )

    def _remove_background(self, field: KernelField) -> None:
        """Take the differential background away from the image that is not convolved."""
        level: Float32 = np.zeros(self.tiling.canvas_shape, np.float32)
        level[self.pair.inner] = field.background_map(self.tiling.shape)
        if field.convolves_new:
            self.filled = replace(self.filled, ref=self.filled.ref - level)
        else:
            self.filled = replace(self.filled, new=self.filled.new - level)

    def kernels_at(self, index: int, noise: Noise) -> Kernels:
        """Return the filters of a tile."""
        side = self.tiling.side
        return kernel_filters(
            self.fitted[index],
            transfer(self.winged_new[index], side),
            transfer(self.winged_ref[index], side) * self.blur,
            noise,
            side,
            self.field.convolves_new,
        )
