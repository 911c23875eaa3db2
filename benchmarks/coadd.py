"""Making a reference of eight exposures: ours, and SWarp's clipped mean of the same on the same pixels.

``snr_of_limit`` is the depth that comes out: the S/N of a faint point source in the coadd, its PSF and
weight being what the coadd says they are, relative to what all inputs together hold (the root of the sum of
their squares). How true noise and PSF are, `subtraction` shows, where the coadd is what is subtracted.
``fwhm_ratio`` is the width of its PSF over the mean of the inputs'.
"""

from typing import Any

import numpy as np

from benchmarks import pairs
from benchmarks.peers import row, timed
from benchmarks.swarp import swarp_coadd
from seechange_core.flags import UNUSABLE
from seechange_core.frames import CalibratedImage
from seechange_core.numerics.background import level_map
from seechange_core.numerics.psf import evaluate
from seechange_core.stages.reference import ReferenceParams, coadd


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Measure one CCD."""
    pair = pairs.load(kind, seed)
    _, cost = timed(ours, kind, seed)
    inputs, made = pair.inputs(), pair.reference()
    quality = {
        "snr_of_limit": np.sqrt(_information(made) / sum(map(_information, inputs))),
        "fwhm_ratio": made.psf.fwhm_pix / np.mean([i.psf.fwhm_pix for i in inputs]),
    }
    images = (
        (
            i.image.data - level_map(i.background),
            np.where(i.image.flags & np.uint16(UNUSABLE), np.float32(0), i.image.weight),
            i.wcs,
            float(10 ** (0.4 * (inputs[0].zero_point.zp - i.zero_point.zp))),
        )
        for i in inputs
    )
    theirs = swarp_coadd(images, made.wcs)
    if theirs is None:
        return [row("coadd of 8", kind, seed, cost, quality)]
    return [row("coadd of 8", kind, seed, cost, quality, "SWarp, clipped", theirs[2])]


def ours(kind: str, seed: int) -> int:
    """Average the images, read from disk tile by tile; return how many entered."""
    inputs = pairs.load(kind, seed).inputs(whole=False)
    return len(coadd(inputs, pairs.grid_of(inputs), ReferenceParams()).used)


def _information(image: CalibratedImage) -> float:
    """Return the inverse variance of a faint star's flux, on a common scale, in the middle of an image."""
    height, width = image.image.shape
    stamp = evaluate(image.psf, np.array([width / 2]), np.array([height / 2]))[0].astype(float)
    weight = image.image.weight[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    scale = 10 ** (-0.8 * image.zero_point.zp)
    return float(np.median(weight[weight > 0]) * np.sum(stamp**2) / scale)
