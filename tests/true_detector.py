"""A detector whose every imperfection is known: what preprocess must undo."""

from dataclasses import dataclass, field

import numpy as np

from seechange_core.frames import Amplifier, Box, Crosstalk, LinearityLaw, MasterFrame, Masters, RawFrame

FULL_ADU = 50000.0


@dataclass
class TrueDetector:
    """Two amplifiers side by side, read towards each other's far ends."""

    gains: tuple[float, float] = (2.0, 2.4)
    read_noises: tuple[float, float] = (5.0, 6.0)
    height: int = 320
    half: int = 256
    overscan: int = 40
    seed: int = 1
    curvature: float = 0.0  # share of the signal lost at FULL_ADU
    crosstalk: tuple[float, float] = (0.0, 0.0)  # into A, into B
    fringe_rms: float = 0.0
    fringe_scale: float = 1.0
    illumination_rms: float = 0.0
    flat_structure: bool = True
    bias_structure_adu: float = 1.0
    dark_e_s: float = 0.02
    row_jitter_adu: float = 0.0
    level_adu: tuple[float, float] = (1000.0, 1130.0)
    drift_adu: float = 1.3  # of the zero level, from the first row to the last
    rng: np.random.Generator = field(init=False)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        rng, (h, w) = self.rng, self.shape
        y, x = np.mgrid[:h, :w]
        self.bias_adu = self.bias_structure_adu * (rng.normal(0, 1, (h, w)) + 2 * np.sin(x / 40))
        self.dark = self.dark_e_s * (1 + 0.2 * rng.normal(size=(h, w))).clip(0)
        self.dark[rng.random((h, w)) < 0.001] += 1.0
        self.flat = np.ones((h, w))
        if self.flat_structure:
            self.flat *= 1 - 0.15 * ((x / w - 0.4) ** 2 + (y / h - 0.5) ** 2) * 2
            self.flat *= 1 + 0.01 * rng.normal(size=(h, w))
        self.flat /= np.median(self.flat)
        self.fringe = np.sin(x / 9 + y / 14 + 2 * np.sin(y / 60)) * self.fringe_rms * np.sqrt(2)
        self.fringe -= np.median(self.fringe)
        tilt = (x / w - 0.5) + 0.4 * np.cos(y / h * 3)
        self.illumination = 1 + self.illumination_rms * tilt / np.std(tilt)
        self.illumination /= np.median(self.illumination)

    @property
    def shape(self):
        return self.height, 2 * self.half

    @property
    def amplifiers(self):
        h, w, o = self.height, self.half, self.overscan
        raw = Box(0, h, 0, w), Box(0, h, w + 2 * o, 2 * w + 2 * o)
        over = Box(0, h, w, w + o), Box(0, h, w + o, w + 2 * o)
        image = Box(0, h, 0, w), Box(0, h, w, 2 * w)
        return tuple(
            Amplifier(
                *(name, raw[i], over[i] if o else None, image[i], self.gains[i], self.read_noises[i]),
                saturation_adu=60000.0,
                mirrored=i == 1,
            )
            for i, name in enumerate("AB")
        )

    @property
    def law(self):
        measured = np.linspace(0, FULL_ADU, 200)
        table = np.stack([measured, measured])
        return LinearityLaw(("A", "B"), table, self._true(table))

    def _true(self, measured):
        return measured * (1 + self.curvature * measured / FULL_ADU)

    def _measured(self, true):
        if not self.curvature:
            return true
        c = self.curvature / FULL_ADU
        return (np.sqrt(1 + 4 * c * true) - 1) / (2 * c)

    @property
    def crosstalk_table(self):
        return Crosstalk(("A", "B"), np.array([[0, self.crosstalk[0]], [self.crosstalk[1], 0]]))

    def light(self, sky, sources=0.0):
        """Mean charge that light leaves: `sources` and sky are electrons of a uniform detector."""
        sky = sky * (1 + self.fringe_scale * self.fringe)
        return (sky + sources) * self.illumination * self.flat

    def expose(self, sky=0.0, time_s=0.0, sources=0.0, *, rounded=True, noise=True):
        """Make a raw section of ADU."""
        mean = self.light(sky, sources) + self.dark * time_s
        return self.read(self.rng.poisson(mean) if noise else mean, time_s, rounded=rounded, noise=noise)

    def read(self, charge, time_s, *, rounded=True, noise=True):
        h, o = self.height, self.overscan
        raw = np.zeros((h, 2 * self.half + 2 * o))
        signal = [self._measured(charge[a.image.slices] / a.gain) for a in self.amplifiers]
        jitter = self.row_jitter_adu * self.rng.normal(size=h)
        for i, a in enumerate(self.amplifiers):
            level = (self.level_adu[i] + self.drift_adu * np.arange(h) / h + jitter)[:, None]
            sigma = self.read_noises[i] / a.gain * noise
            ghost = self.crosstalk[i] * signal[1 - i][:, ::-1]
            pixels = signal[i] + ghost + self.bias_adu[a.image.slices]
            raw[a.raw.slices] = pixels + level + sigma * self.rng.normal(size=pixels.shape)
            if o:
                raw[a.overscan.slices] = level + sigma * self.rng.normal(size=(h, o))
        if rounded:
            raw = np.clip(np.rint(raw), 0, 65535).astype(np.uint16)
        return RawFrame(raw, self.amplifiers, time_s)

    def masters(self, n_frames=0, **more):
        """Return perfect masters (0), or as noisy as a mean of so many frames leaves them."""
        gain, noise = (np.empty(self.shape) for _ in range(2))
        for a in self.amplifiers:
            gain[a.image.slices], noise[a.image.slices] = a.gain, a.read_noise_e
        read2 = noise**2 + gain**2 / 12
        dark_time, flat_e = 300.0, 20000.0

        def made(kind, data, variance):
            variance = np.broadcast_to(variance, self.shape) / n_frames if n_frames else np.zeros(self.shape)
            noisy = data + np.sqrt(variance) * self.rng.normal(size=self.shape)
            flags = np.zeros(self.shape, np.uint16)
            return MasterFrame(
                kind, noisy.astype(np.float32), variance.astype(np.float32), flags, n_frames or 99
            )

        return Masters(
            crosstalk=self.crosstalk_table,
            linearity=self.law,
            bias=made("bias", self.bias_adu * gain, read2),
            dark=made("dark", self.dark, (read2 + self.dark * dark_time) / dark_time**2),
            flat=made("flat", self.flat, self.flat / flat_e),
            fringe=made("fringe", self.fringe, 1e-6),
            illumination=made("illumination", self.illumination, 0.0),
            bad_pixels=made("bad_pixels", np.zeros(self.shape), 0.0),
            **more,
        )
