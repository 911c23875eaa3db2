"""The camera: how its sections are laid out, and what is fixed in each of them."""

from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from seechange_core.simulate.cameras import chosen_sections, format_of, layout_of
from seechange_core.simulate.cameras.layout import AmplifierArea, CameraLayout, CcdLayout, SectionId
from seechange_core.simulate.options import SurveyOptions
from seechange_core.simulate.psf import Float, Float32

Bool = npt.NDArray[np.bool_]

DARK_CURRENT_E_S = 0.02
#: Detectors are kept until they have this many pixels in all; the others are made anew for every frame.
KEPT_PIX = 40_000_000
#: Share of the signal an amplifier loses at the saturation level.
NONLINEARITY = 0.02


@dataclass(frozen=True)
class SimulatedAmplifier:
    """One of the two readouts of a section.

    Attributes
    ----------
    name
        E.g. A (left) or B (right).
    gain, read_noise_e
        e-/ADU and e-.
    bias_adu
        Mean level, ADU.
    curvature
        The signal of e electrons reads ``e (1 - curvature e)``, per electron; 0 when linear.
    saturation_adu, full_well_adu
        Raw level that the header calls saturated, and at which wells are full.
    works
        False: it reads noise only.
    """

    name: str
    gain: float
    read_noise_e: float
    bias_adu: float
    curvature: float
    saturation_adu: int = 60_000
    full_well_adu: float = 62_000.0
    works: bool = True

    @property
    def full_well_e(self) -> float:
        """Electrons a pixel can hold."""
        return (self.full_well_adu - self.bias_adu) * self.gain

    @property
    def saturation_e(self) -> float:
        """Electrons that a linear amplifier reads at the header's saturation."""
        return (self.saturation_adu - self.bias_adu) * self.gain


@dataclass(frozen=True, eq=False)
class Detector:
    """What is fixed in a section.

    Attributes
    ----------
    response
        (H, W) float32, relative response to light, median 1: the true flat. Near 0 in dead pixels.
    throughput
        What the median pixel collects relative to the whole camera's nominal.
    dark_e_s
        (H, W) float32, dark current, hot pixels included.
    bias_adu
        (H, W) float32, fixed pattern above the overscan's level.
    bad
        (H, W) bool: dead and hot pixels, and bad columns.
    amplifiers
        Of the left and of the right half.
    areas
        Where their pixels go in the raw array.
    crosstalk
        (2, 2) float64 ``[victim, source]``: ADU in one per ADU of signal in the other at the same moment.
    dead
        The section gives no signal at all.
    """

    response: Float32
    throughput: float
    dark_e_s: Float32
    bias_adu: Float32
    bad: Bool
    amplifiers: tuple[SimulatedAmplifier, SimulatedAmplifier]
    areas: tuple[AmplifierArea, AmplifierArea]
    crosstalk: Float
    dead: bool


@dataclass(frozen=True)
class Camera:
    """A mosaic of CCDs, or some of them, or a window in each; `SurveyOptions` say which."""

    options: SurveyOptions

    @property
    def layout(self) -> CameraLayout:
        """How it is built."""
        return layout_of(self.options)

    @property
    def sections(self) -> tuple[SectionId, ...]:
        """Names of the CCDs in the files, in the order of their extensions."""
        return chosen_sections(self.options)

    def ccd(self, section: SectionId) -> CcdLayout:
        """Return one CCD's place and amplifiers."""
        return self.layout.by_section[section]

    @property
    def width(self) -> int:
        """Pixels along x that are read out of each CCD."""
        return self.options.window_pix[0] if self.options.window_pix else self.layout.width

    @property
    def height(self) -> int:
        """Pixels along y that are read out of each CCD."""
        return self.options.window_pix[1] if self.options.window_pix else self.layout.height

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a trimmed section."""
        return self.height, self.width

    @property
    def window_origin(self) -> tuple[int, int]:
        """CCD pixel (x, y) that is the section's first: the window lies in the middle."""
        return (self.layout.width - self.width) // 2, (self.layout.height - self.height) // 2

    @property
    def extent_pix(self) -> tuple[float, float]:
        """Width and height of the mosaic, gaps included."""
        return self.layout.extent_pix

    @property
    def half_diagonal_pix(self) -> float:
        """From the boresight to the mosaic's corner."""
        return self.layout.half_diagonal_pix

    @property
    def pixel_scale_arcsec(self) -> float:
        """In the middle of the mosaic."""
        return self.layout.pixel_scale_arcsec

    def band(self, section: SectionId) -> str:
        """Return the filter over a section."""
        filters = self.layout.filters
        return filters[self.ccd(section).filter_index] if filters else self.options.band

    @property
    def bands(self) -> tuple[str, ...]:
        """Return all filters that sections of the files are under."""
        return tuple(dict.fromkeys(self.band(section) for section in self.sections))

    def zero_point_mag(self, band: str) -> float:
        """Return the magnitude that gives one electron a second above the atmosphere."""
        asked = self.options.zero_point_mag
        return self.layout.zero_points[band] if asked is None else asked

    @property
    def faint_mag(self) -> float:
        """Return the r magnitude of the faintest stars and galaxies."""
        asked = self.options.faint_mag
        return self.layout.faint_mag if asked is None else asked

    def section_offset(self, section: SectionId) -> tuple[float, float]:
        """Where the middle of a section lies from the boresight, pixels."""
        return self.ccd(section).centre

    def focal_offset(self, section: SectionId) -> tuple[float, float]:
        """Return what takes a section's 0-based pixels to focal-plane positions when added."""
        dx, dy = self.section_offset(section)
        return dx - (self.width - 1) / 2, dy - (self.height - 1) / 2

    def raw_areas(self, section: SectionId) -> tuple[AmplifierArea, AmplifierArea]:
        """Return where the amplifiers' pixels lie in a section's raw array."""
        return self.layout.raw_areas(self.ccd(section), self.width, self.height)

    def section_cards(self, section: SectionId) -> dict[str, Any]:
        """Return what the cards of a section say about its amplifiers."""
        return format_of(self.options.camera).section_cards(self, section)

    def amplifiers(self, section: SectionId) -> tuple[SimulatedAmplifier, SimulatedAmplifier]:
        """Return a section's left and right amplifier."""
        return _make_amplifiers(self, section, _detector_rng(self, section))

    def detector(self, section: SectionId) -> Detector:
        """Return what is fixed in a section."""
        return _KEPT.detector(self, section)


class _Kept:
    """Detectors of one camera, kept as long as there is room, and the one asked for last.

    The first ones stay: sections are visited in turn, so that the one just left is wanted last.
    """

    def __init__(self) -> None:
        self.camera: Camera | None = None
        self.made: dict[SectionId, Detector] = {}
        self.last: tuple[SectionId, Detector] | None = None
        self.lock = Lock()

    def detector(self, camera: Camera, section: SectionId) -> Detector:
        with self.lock:
            if self.camera != camera:
                self.camera, self.made, self.last = camera, {}, None
            if section in self.made:
                return self.made[section]
            if self.last is not None and self.last[0] == section:
                return self.last[1]
            self.last = None  # two of them beside those that are kept would be one too many
            detector = _make_detector(camera, section)
            if (len(self.made) + 1) * camera.width * camera.height <= KEPT_PIX:
                self.made[section] = detector
            else:
                self.last = section, detector
            return detector


_KEPT = _Kept()


def _make_detector(camera: Camera, section: SectionId) -> Detector:
    options, shape = camera.options, camera.shape
    rng = _detector_rng(camera, section)
    amplifiers = _make_amplifiers(camera, section, rng)
    throughput = float(rng.uniform(0.95, 1.05))
    response = _smooth_response(camera, section, rng)
    if options.edge_roll_off:
        response *= _edge_roll_off(camera)
    bias = _bias_pattern(shape, rng) if options.bias_structure else np.zeros(shape, np.float32)
    dark = np.zeros(shape)
    bad = np.zeros(shape, bool)
    if options.dark_current:
        dark += DARK_CURRENT_E_S * (1 + 0.1 * rng.standard_normal(shape)).clip(0.2)
    middle = float(np.median(response))
    response /= middle
    if options.bad_pixels:
        bad = _add_defects(response, dark if options.dark_current else None, rng)
    dead = str(section) in options.dead_sections
    return Detector(
        response=response.astype(np.float32),
        throughput=0.0 if dead else throughput * middle,
        dark_e_s=dark.astype(np.float32),
        bias_adu=bias.astype(np.float32),
        bad=bad,
        amplifiers=amplifiers,
        areas=camera.raw_areas(section),
        crosstalk=true_crosstalk(camera, section),
        dead=dead,
    )


def _detector_rng(camera: Camera, section: SectionId) -> np.random.Generator:
    return np.random.default_rng([camera.options.seed, 101, camera.ccd(section).number])


def _make_amplifiers(
    camera: Camera, section: SectionId, rng: np.random.Generator
) -> tuple[SimulatedAmplifier, SimulatedAmplifier]:
    options, layout, ccd = camera.options, camera.layout, camera.ccd(section)
    # What came later has draws of its own, so that the older numbers stay what they were.
    later = np.random.default_rng([options.seed, 102, ccd.number])

    def one(side: int) -> SimulatedAmplifier:
        noise_e = layout.read_noise_e if options.read_noise_e > 0 else 0.0
        gain = round(layout.gain_e_adu * float(_within(rng, layout.gain_spread)), 3)
        noise = round(noise_e * float(_within(rng, layout.read_noise_spread)), 2)
        spread = layout.bias_spread_adu
        bias = round(layout.bias_adu[side] + float(rng.uniform(-spread, spread)), 1)
        saturation = round(layout.saturation_adu * float(_within(later, layout.saturation_spread)))
        bend = (
            NONLINEARITY * float(_within(later, layout.nonlinearity_spread)) if options.nonlinearity else 0.0
        )
        return SimulatedAmplifier(
            name=ccd.amplifiers[side],
            gain=gain,
            read_noise_e=noise,
            bias_adu=bias,
            curvature=bend / (saturation * gain),
            saturation_adu=saturation,
            full_well_adu=1.04 * saturation if layout.saturation_spread else layout.full_well_adu,
            works=f"{section}-{ccd.amplifiers[side]}" not in options.bad_amplifiers,
        )

    return one(0), one(1)


def _within(rng: np.random.Generator, spread: float) -> float:
    """Draw a factor that differs from 1 by at most a spread."""
    return rng.uniform(1 - spread, 1 + spread)


def true_crosstalk(camera: Camera, section: SectionId) -> Float:
    """Return the coefficients of a section's two amplifiers, (2, 2) float64 ``[victim, source]``.

    As in DECam, where they are some 5e-4, amplifier B receives a negative ghost, A a somewhat weaker positive
    one, and every CCD has its own numbers.
    """
    size = camera.options.crosstalk
    if size == 0:
        return np.zeros((2, 2))
    rng = np.random.default_rng([camera.options.seed, 103, camera.ccd(section).number])
    names = camera.ccd(section).amplifiers
    first = names.index(min(names))
    coefficients = np.zeros((2, 2))
    coefficients[first, 1 - first] = 0.8 * size * rng.uniform(0.5, 1.5)
    coefficients[1 - first, first] = -size * rng.uniform(0.5, 1.5)
    return coefficients


def _smooth_response(camera: Camera, section: SectionId, rng: np.random.Generator) -> Float:
    """Vignetting over the mosaic, dust shadows, and the pixels' own response (0.6 % rms)."""
    width, height = camera.width, camera.height
    noise = rng.standard_normal(camera.shape)
    dust = rng.uniform(0, 1, (8, 4))
    response = np.ones(camera.shape)
    if not camera.options.flat_structure:
        return response
    x, y = np.arange(width, dtype=float), np.arange(height, dtype=float)[:, None]
    dx, dy = camera.focal_offset(section)
    rho2 = ((x + dx) ** 2 + (y + dy) ** 2) / camera.half_diagonal_pix**2
    response *= 1 - 0.10 * rho2 - 0.03 * rho2**2
    for fx, fy, radius, depth in dust:
        # The shadow of a grain out of focus: a ring, since the mirror has a hole.
        around = tuple(
            slice(max(0, int(f * size) - 35), int(f * size) + 36) for f, size in ((fy, height), (fx, width))
        )
        r = np.hypot(x[around[1]] - fx * width, y[around[0]] - fy * height)
        ring = np.exp(-((r - 8 - 14 * radius) ** 2) / (2 * 3.0**2))
        response[around] *= 1 - (0.005 + 0.02 * depth) * ring
    response *= 1 + 0.006 * noise
    return response


def _edge_roll_off(camera: Camera) -> Float:
    """Response lost near a CCD's edges, where field lines bend: 12 %, gone 20 pixels inwards; (H, W)."""

    def profile(full: int, start: int, size: int) -> Float:
        number = np.arange(start, start + size)
        distance = np.minimum(number, full - 1 - number).astype(float)
        return np.asarray(1 - 0.12 * np.exp(-distance / 6.0))

    x0, y0 = camera.window_origin
    along_x = profile(camera.layout.width, x0, camera.width)
    along_y = profile(camera.layout.height, y0, camera.height)
    return np.asarray(along_x * along_y[:, None])


def _bias_pattern(shape: tuple[int, int], rng: np.random.Generator) -> Float:
    """Columns, a slope that starts at each amplifier, and pixel structure, some ADU in all."""
    height, width = shape
    columns = 0.8 * rng.standard_normal(width)
    y = np.arange(height)[:, None] / height
    from_amp = np.minimum(np.arange(width), np.arange(width)[::-1]) / (width / 2)
    glow = 6.0 * np.exp(-from_amp / 0.08) * np.exp(-y / 0.15)
    return np.asarray(columns + 3.0 * y + glow + 0.3 * rng.standard_normal(shape))


def _add_defects(response: Float, dark: Float | None, rng: np.random.Generator) -> Bool:
    """Dead pixels, clumps and columns into `response`, hot ones into `dark`; return where they are."""
    height, width = response.shape
    area = height * width / 1024**2
    dead = np.zeros(response.shape, bool)
    count = max(4, int(150 * area))
    x, y = rng.integers(0, width, count), rng.integers(0, height, count)
    dead[y, x] = True
    for _ in range(max(1, int(3 * area))):
        cx, cy = int(rng.integers(0, width)), int(rng.integers(0, height))
        dead[max(0, cy - 2) : cy + 3, max(0, cx - 2) : cx + 3] = True
    for column in rng.integers(0, width, max(1, round(3 * width / 1024))):
        dead[rng.integers(0, height // 2) :, column] = True
    response[dead] *= rng.uniform(0.0, 0.35, int(dead.sum()))
    hot = np.zeros(response.shape, bool)
    if dark is not None:
        count = max(4, int(250 * area))
        x, y = rng.integers(0, width, count), rng.integers(0, height, count)
        hot[y, x] = True
        dark[hot] += np.exp(rng.uniform(np.log(2.0), np.log(400.0), int(hot.sum())))
        for column in rng.integers(0, width, max(1, round(width / 1024))):
            start = int(rng.integers(0, height // 2))
            dark[start:, column] += 15.0
            hot[start:, column] = True
    return dead | hot
