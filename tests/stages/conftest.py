"""A camera small enough to simulate in a test: two amplifiers, overscan, everything known."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from seechange_core.frames import Amplifier, Box, RawFrame


@dataclass
class Camera:
    height: int = 256
    half: int = 128
    overscan: int = 24
    gains: tuple[float, float] = (2.0, 2.3)
    read_noises: tuple[float, float] = (5.0, 6.5)
    seed: int = 1
    level_adu: tuple[float, float] = (1000.0, 1100.0)
    row_jitter_adu: float = 0.0

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        h, w = self.shape
        y, x = np.mgrid[:h, :w]
        self.bias_e = 6 * np.sin(x / 9.0) + self.rng.normal(0, 2, (h, w))
        self.dark_e_per_s = 0.05 + 0.02 * self.rng.random((h, w))
        flat = 1 + 0.08 * np.cos((x - w / 2) / w * 2) * np.cos((y - h / 2) / h * 2)
        flat *= 1 + self.rng.normal(0, 0.01, (h, w))
        self.flat = flat / np.median(flat)

    @property
    def shape(self):
        return self.height, 2 * self.half

    @property
    def amplifiers(self):
        h, w, o = self.height, self.half, self.overscan
        raw = (Box(0, h, 0, w), Box(0, h, w + 2 * o, 2 * w + 2 * o))
        over = (Box(0, h, w, w + o), Box(0, h, w + o, w + 2 * o))
        image = (Box(0, h, 0, w), Box(0, h, w, 2 * w))
        return tuple(
            Amplifier(
                name, raw[i], over[i] if o else None, image[i], self.gains[i], self.read_noises[i], 60000.0
            )
            for i, name in enumerate("AB")
        )

    def expose(self, light_e=0.0, time_s=0.0, *, rounded=True, extra_e=0.0):
        """Expose to `light_e` electrons per unit response; `extra_e` is charge without photon noise."""
        h, w = self.shape
        mean = light_e * self.flat + self.dark_e_per_s * time_s
        charge = self.rng.poisson(mean) + self.bias_e + extra_e
        raw = np.zeros((h, w + 2 * self.overscan))
        jitter = self.row_jitter_adu * self.rng.normal(size=h)
        for i, amplifier in enumerate(self.amplifiers):
            level = self.level_adu[i] + 0.004 * np.arange(h) + jitter
            sigma = self.read_noises[i]
            pixels = charge[amplifier.image.slices] + self.rng.normal(0, sigma, amplifier.image.shape)
            raw[amplifier.raw.slices] = pixels / amplifier.gain + level[:, None]
            if amplifier.overscan:
                noise = self.rng.normal(0, sigma, amplifier.overscan.shape) / amplifier.gain
                raw[amplifier.overscan.slices] = noise + level[:, None]
        if rounded:
            raw = np.clip(np.rint(raw), 0, 65535).astype(np.uint16)
        return RawFrame(raw, self.amplifiers, time_s, {"OBJECT": "test"})

    def with_amplifiers(self, raw, **changes):
        return replace(raw, amplifiers=tuple(replace(a, **changes) for a in raw.amplifiers))


@pytest.fixture
def camera():
    return Camera()


@pytest.fixture
def make_camera():
    return Camera
