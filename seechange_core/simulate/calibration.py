"""Bias frames, darks, dome flats and twilight flats of one section."""

import numpy as np
import numpy.typing as npt

from seechange_core.simulate.camera import Camera
from seechange_core.simulate.cameras.layout import SectionId
from seechange_core.simulate.charge import add_cosmic_rays, bleed, read_out
from seechange_core.simulate.psf import Float, PsfField
from seechange_core.simulate.section import collect, cosmic_ray_hits, section_rng

KINDS = ("bias", "dark", "flat", "twilight_flat")
FLAT_TIME_S = 5.0
#: Each twilight flat has this share of the light of the one before.
TWILIGHT_FADES = 0.85
#: Stars in a twilight flat, per million pixels, and how bright they are, electrons.
TWILIGHT_STARS = 12.0
TWILIGHT_STAR_E = (3e4, 1e7)
TWILIGHT_FWHM_PIX = 4.5


def dark_time_s(camera: Camera, kind: str) -> float:
    """Return the time a calibration frame collects dark current."""
    times = {
        "bias": 0.0,
        "dark": camera.options.dark_time_s,
        "flat": FLAT_TIME_S,
        "twilight_flat": FLAT_TIME_S,
    }
    return times[kind]


def simulate_calibration(camera: Camera, kind: str, index: int, section: SectionId) -> npt.NDArray[np.uint16]:
    """Make one raw calibration frame of a section.

    Parameters
    ----------
    camera
        Whose section it is.
    kind
        ``bias``, ``dark``, ``flat`` or ``twilight_flat``.
    index
        Number of the frame among its kind.
    section
        Its name.

    Returns
    -------
    uint16, ADU, laid out as a science frame.
    """
    options, detector, number = camera.options, camera.detector(section), camera.ccd(section).number
    rng = section_rng(camera, 2 + KINDS.index(kind), index, number)
    time_s = dark_time_s(camera, kind)
    light = np.zeros(camera.shape)
    if kind == "flat":
        lamp = float(np.random.default_rng([options.seed, 501, index]).uniform(0.9, 1.1))
        light = lamp * options.flat_level_e * detector.throughput * dome_illumination(camera, section)
    elif kind == "twilight_flat":
        light = detector.throughput * twilight_level_e(camera, index) * np.ones(camera.shape)
        if not detector.dead:
            _add_stars(light, rng)
    charge = collect(light, detector, time_s, rng, photon_noise=options.photon_noise)
    add_cosmic_rays(charge, cosmic_ray_hits(camera, time_s), rng)
    if options.saturation:
        bleed(charge, detector)
    return read_out(charge, detector, rng)


def twilight_level_e(camera: Camera, index: int) -> float:
    """Return the sky's level in a twilight flat, electrons in a nominal pixel: even over the field."""
    return camera.options.flat_level_e * TWILIGHT_FADES**index


def _add_stars(light: Float, rng: np.random.Generator) -> None:
    """Add stars at places that differ from frame to frame, in place."""
    height, width = light.shape
    count = int(rng.poisson(TWILIGHT_STARS * light.size / 1e6))
    x, y = rng.uniform(-20, width + 20, count), rng.uniform(-20, height + 20, count)
    # Counts grow by 10 ** 0.2 a magnitude: as 1 / sqrt(flux).
    low, high = TWILIGHT_STAR_E[0] ** -0.5, TWILIGHT_STAR_E[1] ** -0.5
    PsfField(TWILIGHT_FWHM_PIX).draw(light, x, y, rng.uniform(high, low, count) ** -2.0)


def dome_illumination(camera: Camera, section: SectionId) -> Float:
    """Return the dome's light relative to the sky's: the flat's error, (H, W), mean 1 over the mosaic."""
    options = camera.options
    angle = np.random.default_rng([options.seed, 502]).uniform(0, 2 * np.pi)
    dx, dy = camera.focal_offset(section)
    x, y = np.arange(camera.width) + dx, (np.arange(camera.height) + dy)[:, None]
    along = (x * np.cos(angle) + y * np.sin(angle)) / camera.half_diagonal_pix
    light = np.asarray(1 + 0.5 * options.flat_gradient * along)
    if options.flat_radial:
        rho2 = (x * x + y * y) / camera.half_diagonal_pix**2
        light = light * (1 + options.flat_radial * (0.5 - rho2))
    return light
