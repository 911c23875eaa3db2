"""Bringing a reference onto a new image's pixels: ours and SWarp's Lanczos kernels.

Timed on the reference and a new image of `pairs`: background, image, weight, flags and both distortions. The
quality is that of a noiseless field of stars, drawn at known places of the sky on the reference's pixels with
the PSF's width, warped, and compared with the same stars drawn on the new image's pixels.
``star_residual_percent`` is the root of the summed squared residual of a star over that of the star (median);
``centroid_mas`` how far its centre moved (median), from the residual's projection on the star's slopes;
``flux_error_percent`` what of its light is missing or too much in a stamp of 5 FWHM (median of the absolute
value). The same at other widths tells where stars become too narrow for pixels: what is interpolated between
samples that do not determine it is wrong for every kernel.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import pairs
from benchmarks.peers import Cost, row, timed
from benchmarks.swarp import swarp
from seechange_core.flags import UNUSABLE
from seechange_core.frames import Box, CalibratedImage, WcsSolution
from seechange_core.numerics.alignment import Aligned, align
from seechange_core.numerics.background import level_map
from seechange_core.numerics.resample import warp
from seechange_core.simulate.scene import make_psf_field

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

#: FWHM before integration over pixels, pixels.
WIDTHS_PIX = (1.2, 1.5, 2.0, 2.5, 3.0)
_KERNELS = ("LANCZOS3", "LANCZOS4")
_SPACING_FWHM = 12.0
_LEAST_SPACING_PIX = 48.0
_SIDE_PIX = 1024
_FLUX_E = 1e6


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Measure one CCD."""
    pair = pairs.load(kind, seed)
    new, reference = pair.new("worse"), pair.reference()
    _, cost = timed(ours, new, reference)
    quality = _quality(_ours, new.wcs, reference)
    found = []
    for kernel in _KERNELS:
        theirs = _on_pair(new, reference, kernel)
        if theirs is not None:
            peer = _quality(partial(_swarp, kernel=kernel), new.wcs, reference)
            found.append(row("alignment", kind, seed, cost, quality, f"SWarp {kernel}", theirs, peer))
    return found or [row("alignment", kind, seed, cost, quality)]


def ours(new: CalibratedImage, reference: CalibratedImage) -> int:
    """Align as the subtraction does, but for its margin; return the number of usable pixels."""
    height, width = new.image.shape
    aligned: Aligned = align(new, [reference], Box(0, height, 0, width))
    return int(np.count_nonzero(aligned.usable))


def _on_pair(new: CalibratedImage, reference: CalibratedImage, kernel: str) -> Cost | None:
    frame = reference.image
    weight = np.where(frame.flags & np.uint16(UNUSABLE), np.float32(0), frame.weight)
    warped = swarp(frame.data - level_map(reference.background), weight, reference.wcs, new.wcs, kernel)
    return None if warped is None else warped[2]


def _ours(data: Float32, source: WcsSolution, target: WcsSolution) -> Float32:
    return warp(data, np.ones(data.shape, np.float32), np.zeros(data.shape, np.uint16), source, target).data


def _swarp(data: Float32, source: WcsSolution, target: WcsSolution, kernel: str) -> Float32:
    warped = swarp(data, np.ones(data.shape, np.float32), source, target, kernel)
    if warped is None:
        raise RuntimeError("SWarp is gone")
    return warped[0]


def _quality(resample: Any, target: WcsSolution, reference: CalibratedImage) -> dict[str, float]:
    source = reference.wcs
    own = _figures(resample, source, target, reference.psf.fwhm_pix)
    values = {
        name: own[k] for k, name in enumerate(("star_residual_percent", "centroid_mas", "flux_error_percent"))
    }
    for width in WIDTHS_PIX:
        residual, centroid, flux = _figures(resample, source, target, width)
        values |= {
            f"fwhm{width:g}_residual_percent": residual, f"fwhm{width:g}_centroid_mas": centroid,
            f"fwhm{width:g}_flux_error_percent": flux,
        }  # fmt: skip
    return values


def _figures(
    resample: Any, source: WcsSolution, target: WcsSolution, fwhm: float
) -> tuple[float, float, float]:
    """Return residual (per cent), shift of the centre (mas) and error of the flux (per cent) of a star."""
    rng = np.random.default_rng(5)
    step = max(_SPACING_FWHM * fwhm, _LEAST_SPACING_PIX)
    height, width = target.shape
    top, left = (height - _SIDE_PIX) // 2, (width - _SIDE_PIX) // 2
    n = int(_SIDE_PIX // step)
    x, y = (
        a.ravel() for a in np.meshgrid(left + (np.arange(n) + 0.5) * step, top + (np.arange(n) + 0.5) * step)
    )
    x, y = x + rng.uniform(-2, 2, x.size), y + rng.uniform(-2, 2, x.size)
    field = make_psf_field((height, width), fwhm)
    drawn = np.zeros(source.shape)
    scale = target.pixel_scale_arcsec / source.pixel_scale_arcsec
    replace(field, fwhm_pix=fwhm * scale).draw(
        drawn, *source.to_pixels(*target.to_sky(x, y)), np.full(x.size, _FLUX_E)
    )
    warped = resample(drawn.astype(np.float32), source, target)
    wanted = np.zeros(target.shape)
    field.draw(wanted, x, y, np.full(x.size, _FLUX_E))
    left_over = warped - wanted
    half = int(np.ceil(2.5 * fwhm))
    figures = np.empty((3, x.size))
    for k in range(x.size):
        i, j = round(x[k]), round(y[k])

        def star(dx: float, dy: float, k: int = k, i: int = i, j: int = j) -> Float:
            return _FLUX_E * field.stamp(i, j, 2 * half + 1, x[k] - i + dx, y[k] - j + dy)

        own = left_over[j - half : j + half + 1, i - half : i + half + 1]
        slopes = [(star(dx, dy) - star(-dx, -dy)) / 0.02 for dx, dy in ((0.01, 0.0), (0.0, 0.01))]
        shift = np.hypot(*(np.sum(own * slope) / np.sum(slope**2) for slope in slopes))
        figures[:, k] = (
            100 * np.sqrt(np.sum(own**2) / np.sum(star(0, 0) ** 2)),
            1000 * target.pixel_scale_arcsec * float(shift),
            100 * abs(np.sum(own)) / _FLUX_E,
        )
    residual, centroid, flux = np.median(figures, axis=1)
    return float(residual), float(centroid), float(flux)
