"""Proper image subtraction (ZOGY) of a whole section, tile by tile; `zogy` has the algebra of one tile."""

import numpy as np
from numba import njit
from scipy.fft import rfft2

from seechange_core.flags import PixelFlag
from seechange_core.frames import Bool, Float32
from seechange_core.numerics.holes import Plane, fill_holes, moved_psf
from seechange_core.numerics.noise_spectrum import cardinal_transfer
from seechange_core.numerics.paired import Errors, Paired, Planes
from seechange_core.numerics.psf import evaluate
from seechange_core.numerics.psf_field import with_wings
from seechange_core.numerics.residual_pixels import (
    fill_lost,
    find_hits,
    light_covariance,
    prediction_error,
)
from seechange_core.numerics.tiles import Mosaic, Tile, Tiling
from seechange_core.numerics.translient import translient_patch
from seechange_core.numerics.zogy import (
    Kernels,
    Noise,
    PatchResult,
    make_kernels,
    matched_to_new,
    matched_to_ref,
    stamp_of,
    subtract_patch,
    transfer,
)

_LOST_VARIANCE = 2.5
_ENOUGH = 1000
_WINGS = 1.35
"""PSFs are carried on to so many times the radius of the larger one's stamps."""


def zogy_planes(pair: Paired, errors: Errors, translient: bool = False) -> Planes:
    """Subtract the reference by proper subtraction (Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27).

    Every tile has the PSFs and the sky noise of its middle, and the noise spectrum of the interpolated
    reference; every pixel its own variance in the score (eq. 25).

    Parameters
    ----------
    pair
        Both images.
    errors
        What the score counts as noise beyond that of the pixels.
    translient
        Whether the dipoles are wanted too.
    """
    return TiledSubtraction(pair, errors, translient).run()


class TiledSubtraction:
    """One subtraction in progress; another method gives each tile other filters (`kernels_at`)."""

    def __init__(self, pair: Paired, errors: Errors, translient: bool) -> None:
        self.new, self.canvas, self.aligned = pair.new, pair.canvas, pair.aligned
        self.tiling, self.plan, self.errors = pair.plan.tiling, pair.plan, errors
        self.ref_usable = pair.aligned.usable
        self.pair = pair
        self.dipoles = (Mosaic(pair.plan.tiling), Mosaic(pair.plan.tiling)) if translient else ()
        self.filled = fill_holes(*self._planes(pair))
        self.psf_new = evaluate(pair.new.psf, pair.plan.x, pair.plan.y)
        widest = max(self.psf_new.shape[-1], self.plan.psf_ref.shape[-1])
        reach = min(2 * int(_WINGS * widest / 2) + 1, self.tiling.side - 1)
        self.winged_new = with_wings(self.psf_new, reach)
        self.winged_ref = with_wings(self.plan.psf_ref, reach)
        self.covariance = light_covariance(self.psf_new[len(self.psf_new) // 2])
        self.hits = np.zeros(self.tiling.canvas_shape, bool)
        self.hot = pair.hot()
        self.struck = np.zeros(self.tiling.canvas_shape, bool)
        self.struck[pair.inner] = pair.new.image.flags & np.uint16(PixelFlag.COSMIC_RAY) > 0
        self.blur = _interpolation_blur(self.tiling.side)
        self.taper = self.tiling.taper()
        self.typical_new = 1 / _median(self.canvas.weight, self.canvas.usable)
        self.typical_ref = 1 / _median(self.aligned.weight, self.ref_usable)
        self.photons_new = np.full((self.tiling.side,) * 2, 1 / pair.new.image.gain, np.float32)

    def _planes(self, pair: Paired) -> tuple[Plane, Plane]:
        """Hand over both images for filling, their PSFs counted on the canvas."""
        m = self.tiling.margin
        flags = np.full(self.tiling.canvas_shape, PixelFlag.OUT_OF_BOUNDS, np.uint16)
        flags[pair.inner] = self.new.image.flags
        gain = 1 / max(_median(self.aligned.photon_variance, self.ref_usable), 1e-6)
        return (
            Plane(
                self.canvas.data,
                self.canvas.weight,
                self.canvas.usable,
                flags,
                moved_psf(self.new.psf, m),
                self.new.image.gain,
            ),
            Plane(
                self.aligned.data,
                self.aligned.weight,
                self.ref_usable,
                self.aligned.flags,
                moved_psf(self.plan.ref_model(), m),
                gain,
            ),
        )

    def run(self) -> Planes:
        """Go through all tiles and put the image together."""
        difference, score, variance, light = (Mosaic(self.tiling) for _ in range(4))
        size = max(self.new.psf.size, self.plan.psf_ref.shape[-1])
        sharpness = np.ones(self.tiling.shape, np.float32)
        stamps = np.empty((len(self.plan.tiles), size, size), np.float32)
        for index, tile in enumerate(self.plan.tiles):
            noise = self._noise(index, tile)
            kernels = self.kernels_at(index, noise)
            patch = self._patch(index, tile, kernels, noise)
            difference.add(tile, patch.difference)
            score.add(tile, patch.score)
            variance.add(tile, patch.flux_variance, kernels.sharpness)
            light.add(tile, patch.light)
            sharpness[_core(tile, self.tiling)] = kernels.sharpness
            stamps[index] = stamp_of(kernels.psf, self.tiling.side, size)
        hits = self.hits[self.pair.inner]
        dipoles = np.stack([d.image() for d in self.dipoles]) if self.dipoles else None
        maps = difference.image(), score.image(), variance.image(), light.image()
        return Planes(*maps, sharpness, stamps, dipoles, hits)

    def _noise(self, index: int, tile: Tile) -> Noise:
        m, side = self.tiling.margin, self.tiling.side
        core = slice(tile.y + m, tile.y + side - m), slice(tile.x + m, tile.x + side - m)
        new = _typical_variance(self.canvas.weight[core], self.canvas.usable[core], self.typical_new)
        ref = _typical_variance(self.aligned.weight[core], self.ref_usable[core], self.typical_ref)
        half = self.tiling.core / 2
        x, y = self.plan.x[index], self.plan.y[index]
        member = int(self.plan.members[index])
        power = self.aligned.noise_power(member, (x - half, x + half), (y - half, y + half), side)
        return Noise(new, ref, power)

    def kernels_at(self, index: int, noise: Noise) -> Kernels:
        """Return the filters of a tile."""
        side = self.tiling.side
        psf_ref = transfer(self.winged_ref[index], side) * self.blur
        return make_kernels(transfer(self.winged_new[index], side), psf_ref, noise, side)

    def _patch(self, index: int, tile: Tile, kernels: Kernels, noise: Noise) -> PatchResult:
        span = slice(tile.y, tile.y + self.tiling.side), slice(tile.x, tile.x + self.tiling.side)
        filled = self.filled
        new, ref = filled.new[span], filled.ref[span]
        new_known, ref_known = filled.new_known[span], filled.ref_known[span]
        orphan = new_known & ~ref_known
        if orphan.any():
            ref = np.where(orphan, matched_to_ref(new, kernels), ref)
        ref_hat = np.asarray(rfft2(ref))
        model = matched_to_new(ref_hat, kernels)
        # Of rows that lie side by side many pixels are read at once.
        weight_new, weight_ref, photons_ref = (
            np.ascontiguousarray(plane[span])
            for plane in (self.canvas.weight, self.aligned.weight, self.aligned.photon_variance)
        )
        var_new = _variance(weight_new, noise.new, model, self.photons_new, noise.ref)
        var_ref = _variance(weight_ref, noise.ref, np.ascontiguousarray(ref), photons_ref, noise.ref)
        new = self._mended(index, span, new, model, var_new)
        new, ref = new * self.taper, ref * self.taper
        if self.dipoles:
            found = translient_patch(new, ref, var_new, var_ref, kernels, noise)
            for mosaic, values in zip(self.dipoles, found, strict=True):
                mosaic.add(tile, values)
        return subtract_patch(new, ref, var_new, var_ref, kernels, noise, self.errors.shift_pix)

    def _mended(
        self, index: int, span: tuple[slice, slice], new: Float32, model: Float32, var_new: Float32
    ) -> Float32:
        """Take out hits, and predict lost pixels from the reference and from what changed around them.

        A predicted pixel adds no information: its variance, which is changed in place, makes up for its
        noise being that of its neighbours once more.
        """
        known, usable, hot = self.filled.new_known[span], self.canvas.usable[span], self.hot[span]
        residual = new - model
        wrong = prediction_error(model)
        hits = find_hits(residual, var_new, usable, self.struck[span], wrong, self.psf_new[index])
        self.hits[span] |= hits
        lost = hits | ~known
        if not lost.any():
            return new
        filling = lost & ~hot
        change = fill_lost(residual, usable & ~hot, filling, self.covariance, self.struck[span], hits)
        var_new[filling] *= np.float32(_LOST_VARIANCE)
        var_new[filling] += np.square(wrong[filling])
        return np.where(lost, model + change, new)


def _core(tile: Tile, tiling: Tiling) -> tuple[slice, slice]:
    return slice(tile.y, tile.y + tiling.core), slice(tile.x, tile.x + tiling.core)


def _interpolation_blur(side: int) -> Float32:
    """Return what interpolation does to the reference's PSF, averaged over sub-pixel positions."""
    fy, fx = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    return np.outer(cardinal_transfer(fy), cardinal_transfer(fx)).astype(np.float32)


def _typical_variance(weight: Float32, usable: Bool, default: float) -> float:
    sample = weight[::3, ::3][usable[::3, ::3]]
    return float(1 / np.median(sample)) if sample.size > 50 else default


@njit(cache=True, nogil=True, error_model="numpy")
def _variance(weight: Float32, sky: float, model: Float32, photons: Float32, floor: float) -> Float32:
    """Sky variance where the pixel is known, plus the photon noise of light that stands out."""
    least, base = np.float32(2 * np.sqrt(floor)), np.float32(sky)
    zero, one = np.float32(0), np.float32(1)
    out = np.empty(weight.shape, np.float32)
    for y in range(weight.shape[0]):
        for x in range(weight.shape[1]):
            w, light = weight[y, x], model[y, x]
            variance = one / w if w > 0 else base
            out[y, x] = variance + (light * photons[y, x] if light > least else zero)
    return out


def _median(plane: Float32, usable: Bool) -> float:
    """Return the median of the usable pixels, of every fourth row and column if there are enough."""
    sample = plane[::4, ::4][usable[::4, ::4]]
    return float(np.median(sample if sample.size > _ENOUGH else plane[usable]))
