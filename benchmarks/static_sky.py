"""What an exposure of a pair holds besides the true static sky: noise, changes, and the pixels that are lost.

The noiseless static sky and the level of each block of 256 pixels are taken from the pixels that our
pipeline made. One is lost only if it is truly bad, full, bled on or changed by a cosmic ray by more than its
noise. Its weight is the inverse of its true variance, the static light's photons included.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation

from benchmarks.pairs import Pair
from seechange_core.frames import ImageFrame
from seechange_core.simulate import Observation, PsfField
from seechange_core.simulate.charge import add_cosmic_rays, bleed
from seechange_core.simulate.geometry import SkyMap
from seechange_core.simulate.section import (
    collect,
    cosmic_ray_hits,
    expected_light,
    section_rng,
    section_zero_point,
)
from seechange_core.simulate.truth import true_sky_e

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

#: Side of the blocks whose level is taken out.
BLOCK_PIX = 256
#: Blank sky: static light and changes below this share of the sky's noise per pixel.
_BLANK = 0.1


@dataclass(frozen=True, eq=False)
class Exposed:
    """An exposure without the static sky.

    Attributes
    ----------
    left
        (H, W) float32 electrons, 0 where `bad`.
    weight
        (H, W) float32, inverse variance, also where `bad`.
    bad, blank
        (H, W): truly lost; good and far from all light.
    field, offset
        PSF over the focal plane, and what leads from pixels to it.
    sky_map
        True world coordinates.
    zp
        True magnitude of one electron.
    """

    left: Float32
    weight: Float32
    bad: Bool
    blank: Bool
    field: PsfField
    offset: tuple[float, float]
    sky_map: SkyMap
    zp: float

    @cached_property
    def usable(self) -> Float32:
        """The weight, 0 where `bad`."""
        return np.where(self.bad, np.float32(0), self.weight)

    @cached_property
    def usual(self) -> float:
        """Median of the weight."""
        return float(np.median(self.weight))


def without_static(
    pair: Pair, index: int, image: ImageFrame, static: Float32 | None = None, lost: Bool | None = None
) -> Exposed:
    """Take the static sky out of an exposure.

    Parameters
    ----------
    pair, index
        Which: exposures are counted from 0.
    image
        It, calibrated.
    static
        (H, W) what it would show without noise and changes; None if nothing changes in it.
    lost
        (H, W) pixels to leave out besides.
    """
    camera, section = pair.world.camera, pair.section
    bare = pair.world.observations[index]
    observation = bare.under(camera, section)
    expected = expected_light(camera, pair.world.sky, bare, section)
    static = expected.astype(np.float32) if static is None else static
    sky = true_sky_e(camera, bare, section)
    bad = _truly_bad(pair, bare, expected)
    bad = bad if lost is None else bad | lost
    usual = 1 / np.median(image.weight[image.weight > 0])
    noise = np.where(image.weight > 0, 1 / np.maximum(image.weight, 1e-30), usual)
    weight = (1 / (noise + np.maximum(static - sky, 0) / image.gain)).astype(np.float32)
    blank = (expected - sky <= _BLANK * np.sqrt(usual)) & ~binary_dilation(bad, np.ones((5, 5), bool))
    left = np.where(bad, np.float32(0), image.data - static)
    _level(left, blank)
    left[bad] = 0
    return Exposed(
        left, weight, bad, blank, observation.psf_field(camera), camera.focal_offset(section),
        observation.sky_map(camera, section), section_zero_point(camera, observation, section),
    )  # fmt: skip


def _truly_bad(pair: Pair, observation: Observation, expected: Float) -> Bool:
    """Collect the charge again, with the same draws as the raw file's, and see what happens to it."""
    camera, section = pair.world.camera, pair.section
    rng = section_rng(camera, 1, observation.index, camera.ccd(section).number)
    detector, seconds = camera.detector(section), camera.options.exposure_time_s
    charge = collect(expected, detector, seconds, rng)
    sigma = np.sqrt(np.maximum(expected, 1) + max(a.read_noise_e for a in detector.amplifiers) ** 2)
    light = charge.copy()
    add_cosmic_rays(charge, cosmic_ray_hits(camera, observation.exposure_time_s), rng)
    bleed(charge, detector)
    bad = detector.bad | (np.abs(charge - light) > sigma)
    half = charge.shape[1] // 2
    for amplifier, columns in zip(detector.amplifiers, (slice(0, half), slice(half, None)), strict=True):
        bad[:, columns] |= charge[:, columns] >= amplifier.saturation_e
    return np.asarray(bad, bool)


def _level(left: Float32, blank: Bool) -> None:
    """Take out, in place and block by block, what detector and calibration leave of a level."""
    for y, x in blocks(*left.shape):
        block = slice(y, y + BLOCK_PIX), slice(x, x + BLOCK_PIX)
        if blank[block].any():
            left[block] -= np.median(left[block][blank[block]])


def blocks(height: int, width: int, side: int = BLOCK_PIX) -> Iterator[tuple[int, int]]:
    """Return the top left corners of the squares an image is cut into."""
    return ((y, x) for y in range(0, height, side) for x in range(0, width, side))
