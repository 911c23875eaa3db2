"""The camera: how its sections are laid out, and what is fixed in each of them."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from seechange_core.simulate.options import SurveyOptions
from seechange_core.simulate.psf import Float, Float32

Bool = npt.NDArray[np.bool_]

OVERSCAN_PIX = 24
BIAS_LEVEL_ADU = (1000.0, 1080.0)
#: Raw level at which wells are full; the header's saturation lies a little below.
FULL_WELL_ADU = 62_000.0
SATURATION_ADU = 60_000
DARK_CURRENT_E_S = 0.02
#: Share of the signal an amplifier loses at the saturation level.
NONLINEARITY = 0.02


@dataclass(frozen=True)
class SimulatedAmplifier:
    """One of the two readouts of a section.

    Attributes
    ----------
    name
        A (left) or B (right).
    gain, read_noise_e
        e-/ADU and e-.
    bias_adu
        Mean level, ADU.
    curvature
        The signal of e electrons reads ``e (1 - curvature e)``, per electron; 0 when linear.
    """

    name: str
    gain: float
    read_noise_e: float
    bias_adu: float
    curvature: float

    @property
    def full_well_e(self) -> float:
        """Electrons a pixel can hold."""
        return (FULL_WELL_ADU - self.bias_adu) * self.gain


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
        A and B.
    dead
        The section gives no signal at all.
    """

    response: Float32
    throughput: float
    dark_e_s: Float32
    bias_adu: Float32
    bad: Bool
    amplifiers: tuple[SimulatedAmplifier, SimulatedAmplifier]
    dead: bool

    def full_well_map(self) -> Float:
        """(2,) full wells in electrons, of the left and the right half."""
        return np.array([amplifier.full_well_e for amplifier in self.amplifiers])


@dataclass(frozen=True)
class Camera:
    """A mosaic of square sections, ceil(sqrt(N)) to a row, filled from the lower left."""

    options: SurveyOptions

    @property
    def size(self) -> int:
        """Side of a section, pixels."""
        return self.options.section_size_pix

    @property
    def grid(self) -> tuple[int, int]:
        """Number of columns and rows of the mosaic."""
        columns = int(np.ceil(np.sqrt(self.options.sections)))
        return columns, -(-self.options.sections // columns)

    @property
    def extent_pix(self) -> tuple[float, float]:
        """Width and height of the mosaic, gaps included."""
        columns, rows = self.grid
        pitch = self.size + self.options.gap_pix
        return columns * pitch - self.options.gap_pix, rows * pitch - self.options.gap_pix

    @property
    def half_diagonal_pix(self) -> float:
        """From the middle of the mosaic to its corner."""
        return float(np.hypot(*self.extent_pix)) / 2

    def section_offset(self, section: int) -> tuple[float, float]:
        """Where the middle of a section lies from the middle of the mosaic, pixels."""
        columns, rows = self.grid
        row, column = divmod(section, columns)
        pitch = self.size + self.options.gap_pix
        return (column - (columns - 1) / 2) * pitch, (row - (rows - 1) / 2) * pitch

    def focal_offset(self, section: int) -> tuple[float, float]:
        """Return what takes a section's 0-based pixels to focal-plane positions when added."""
        middle = (self.size - 1) / 2
        dx, dy = self.section_offset(section)
        return dx - middle, dy - middle

    def detector(self, section: int) -> Detector:
        """Return what is fixed in a section; made once per process."""
        return _make_detector(self, section)


@lru_cache(maxsize=16)
def _make_detector(camera: Camera, section: int) -> Detector:
    options = camera.options
    rng = np.random.default_rng([options.seed, 101, section])
    shape = (camera.size, camera.size)
    amplifiers = _make_amplifiers(options, rng)
    throughput = float(rng.uniform(0.95, 1.05))
    response = _smooth_response(camera, section, rng)
    if options.edge_roll_off:
        response *= _edge_roll_off(camera.size)
    bias = _bias_pattern(shape, rng) if options.bias_structure else np.zeros(shape, np.float32)
    dark = np.zeros(shape)
    bad = np.zeros(shape, bool)
    if options.dark_current:
        dark += DARK_CURRENT_E_S * (1 + 0.1 * rng.standard_normal(shape)).clip(0.2)
    middle = float(np.median(response))
    response /= middle
    if options.bad_pixels:
        bad = _add_defects(response, dark if options.dark_current else None, rng)
    dead = section in options.dead_sections
    return Detector(
        response=response.astype(np.float32),
        throughput=0.0 if dead else throughput * middle,
        dark_e_s=dark.astype(np.float32),
        bias_adu=bias.astype(np.float32),
        bad=bad,
        amplifiers=amplifiers,
        dead=dead,
    )


def _make_amplifiers(
    options: SurveyOptions, rng: np.random.Generator
) -> tuple[SimulatedAmplifier, SimulatedAmplifier]:
    def one(name: str, level: float) -> SimulatedAmplifier:
        gain = round(options.gain_e_adu * float(rng.uniform(0.95, 1.05)), 3)
        noise = round(options.read_noise_e * float(rng.uniform(0.9, 1.1)), 2)
        bias = round(level + float(rng.uniform(-20, 20)), 1)
        curvature = NONLINEARITY / (SATURATION_ADU * gain) if options.nonlinearity else 0.0
        return SimulatedAmplifier(name, gain, noise, bias, curvature)

    return one("A", BIAS_LEVEL_ADU[0]), one("B", BIAS_LEVEL_ADU[1])


def _smooth_response(camera: Camera, section: int, rng: np.random.Generator) -> Float:
    """Vignetting over the mosaic, dust shadows, and the pixels' own response (0.6 % rms)."""
    size = camera.size
    noise = rng.standard_normal((size, size))
    dust = rng.uniform(0, 1, (8, 4))
    response = np.ones((size, size))
    if not camera.options.flat_structure:
        return response
    x, y = np.arange(size, dtype=float), np.arange(size, dtype=float)[:, None]
    dx, dy = camera.focal_offset(section)
    rho2 = ((x + dx) ** 2 + (y + dy) ** 2) / camera.half_diagonal_pix**2
    response *= 1 - 0.10 * rho2 - 0.03 * rho2**2
    for fx, fy, radius, depth in dust:
        # The shadow of a grain out of focus: a ring, since the mirror has a hole.
        around = tuple(slice(max(0, int(f * size) - 35), int(f * size) + 36) for f in (fy, fx))
        r = np.hypot(x[around[1]] - fx * size, y[around[0]] - fy * size)
        ring = np.exp(-((r - 8 - 14 * radius) ** 2) / (2 * 3.0**2))
        response[around] *= 1 - (0.005 + 0.02 * depth) * ring
    response *= 1 + 0.006 * noise
    return response


def _edge_roll_off(size: int) -> Float:
    """Response lost near the edges, where field lines bend: 12 % at the edge, gone 20 pixels inwards."""
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]).astype(float)
    profile = 1 - 0.12 * np.exp(-distance / 6.0)
    return np.asarray(profile * profile[:, None])


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
    size = response.shape[0]
    area = (size / 1024) ** 2
    dead = np.zeros(response.shape, bool)
    x, y = rng.integers(0, size, (2, max(4, int(150 * area))))
    dead[y, x] = True
    for cx, cy in rng.integers(0, size, (max(1, int(3 * area)), 2)):
        dead[max(0, cy - 2) : cy + 3, max(0, cx - 2) : cx + 3] = True
    for column in rng.integers(0, size, max(1, round(3 * size / 1024))):
        dead[rng.integers(0, size // 2) :, column] = True
    response[dead] *= rng.uniform(0.0, 0.35, int(dead.sum()))
    hot = np.zeros(response.shape, bool)
    if dark is not None:
        x, y = rng.integers(0, size, (2, max(4, int(250 * area))))
        hot[y, x] = True
        dark[hot] += np.exp(rng.uniform(np.log(2.0), np.log(400.0), int(hot.sum())))
        for column in rng.integers(0, size, max(1, round(size / 1024))):
            start = int(rng.integers(0, size // 2))
            dark[start:, column] += 15.0
            hot[start:, column] = True
    return dead | hot
