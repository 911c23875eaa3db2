"""Bias frames, darks and dome flats of one section."""

import numpy as np
import numpy.typing as npt

from seechange_core.simulate.camera import Camera
from seechange_core.simulate.charge import add_cosmic_rays, bleed, read_out
from seechange_core.simulate.psf import Float
from seechange_core.simulate.section import collect, cosmic_ray_hits, section_rng

KINDS = ("bias", "dark", "flat")
FLAT_TIME_S = 5.0


def dark_time_s(camera: Camera, kind: str) -> float:
    """Return the time a calibration frame collects dark current."""
    return {"bias": 0.0, "dark": camera.options.dark_time_s, "flat": FLAT_TIME_S}[kind]


def simulate_calibration(camera: Camera, kind: str, index: int, section: int) -> npt.NDArray[np.uint16]:
    """Make one raw calibration frame of a section.

    Parameters
    ----------
    camera
        Whose section it is.
    kind
        ``bias``, ``dark`` or ``flat``.
    index
        Number of the frame among its kind.
    section
        0 to N - 1.

    Returns
    -------
    (H, W + 48) uint16, ADU, laid out as a science frame.
    """
    options, detector = camera.options, camera.detector(section)
    rng = section_rng(camera, 2 + KINDS.index(kind), index, section)
    time_s = dark_time_s(camera, kind)
    light = np.zeros((camera.size, camera.size))
    if kind == "flat":
        lamp = float(np.random.default_rng([options.seed, 501, index]).uniform(0.9, 1.1))
        light = lamp * options.flat_level_e * detector.throughput * dome_illumination(camera, section)
    charge = collect(light, detector, time_s, rng, photon_noise=options.photon_noise)
    add_cosmic_rays(charge, cosmic_ray_hits(camera, time_s), rng)
    if options.saturation:
        bleed(charge, detector)
    return read_out(charge, detector, rng)


def dome_illumination(camera: Camera, section: int) -> Float:
    """Return the dome's light relative to the sky's: the flat's error, (H, W), mean 1 over the mosaic."""
    angle = np.random.default_rng([camera.options.seed, 502]).uniform(0, 2 * np.pi)
    dx, dy = camera.focal_offset(section)
    x, y = np.arange(camera.size) + dx, (np.arange(camera.size) + dy)[:, None]
    along = (x * np.cos(angle) + y * np.sin(angle)) / camera.half_diagonal_pix
    return np.asarray(1 + 0.5 * camera.options.flat_gradient * along)
