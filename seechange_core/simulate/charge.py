"""What happens to charge in the detector: cosmic rays, full wells that bleed, readout."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from seechange_core.simulate.camera import Detector, SimulatedAmplifier
from seechange_core.simulate.psf import Float, Float32

#: Charge a particle frees per pixel of its path (15 micrometres at 75 e- each).
IONISATION_E_PIX = 1100.0
#: Depth of the sensitive layer, pixels.
DEPTH_PIX = 13.0
#: Charge diffuses by this much on its way to the pixels (Gaussian sigma).
DIFFUSION_PIX = 0.3
_STEP_PIX = 0.1


def add_cosmic_rays(charge: Float32, hits: float, rng: np.random.Generator) -> int:
    """Add particle tracks to an image in place.

    Half are muons, straight through the layer at angles drawn from the ``cos^2`` law; a third are
    electrons that wander and lose more as they slow down; the rest are single spots.

    Parameters
    ----------
    charge
        (H, W) float32, electrons.
    hits
        Mean number of particles.
    rng
        Generator.

    Returns
    -------
    How many particles there were.
    """
    height, width = charge.shape
    count = int(rng.poisson(hits))
    for _ in range(count):
        kind = rng.uniform()
        if kind < 0.5:
            x, y, energy = _muon(rng)
        elif kind < 0.83:
            x, y, energy = _electron(rng)
        else:
            x, y, energy = np.zeros(8), np.zeros(8), np.full(8, np.exp(rng.uniform(np.log(40), np.log(1500))))
        x = x + rng.uniform(-20, width + 20) + rng.normal(0, DIFFUSION_PIX, x.size)
        y = y + rng.uniform(-20, height + 20) + rng.normal(0, DIFFUSION_PIX, y.size)
        i, j = np.rint(x).astype(int), np.rint(y).astype(int)
        inside = (i >= 0) & (i < width) & (j >= 0) & (j < height)
        np.add.at(charge, (j[inside], i[inside]), energy[inside].astype(np.float32))
    return count


def _muon(rng: np.random.Generator) -> tuple[Float, Float, Float]:
    """Draw a straight track: steps along it and the charge freed in each."""
    cosine = max(rng.uniform() ** (1 / 3), 0.05)
    length = DEPTH_PIX * np.sqrt(1 - cosine**2) / cosine
    angle = rng.uniform(0, 2 * np.pi)
    n = max(8, int(length / _STEP_PIX))
    along = np.linspace(0, length, n)
    total_path = DEPTH_PIX / cosine
    # Fluctuations on the scale of a pixel with a long tail upwards, as Landau's have.
    pixels = int(total_path) + 2
    loss = IONISATION_E_PIX * np.exp(rng.normal(-0.1, 0.45, pixels))
    energy = (
        loss[np.minimum((along / max(length, 1e-9) * total_path).astype(int), pixels - 1)] * total_path / n
    )
    # A track through the layer counts whole; most of a steep one falls in one pixel.
    return along * np.cos(angle), along * np.sin(angle), energy


def _electron(rng: np.random.Generator) -> tuple[Float, Float, Float]:
    """Draw a wandering track that loses more towards its end."""
    length = rng.exponential(15.0) + 2.0
    n = int(length / _STEP_PIX)
    direction = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.5 * np.sqrt(_STEP_PIX), n))
    x, y = np.cumsum(np.cos(direction)) * _STEP_PIX, np.cumsum(np.sin(direction)) * _STEP_PIX
    left = 1 - np.arange(n) / n
    energy = (
        IONISATION_E_PIX * _STEP_PIX * (1 + 1.5 * np.exp(-left / 0.15)) * np.exp(rng.normal(-0.05, 0.3, n))
    )
    return x, y, energy


def bleed(charge: Float32, detector: Detector) -> None:
    """Let full wells spill along their columns, in place: half up, half down; the edges swallow the rest."""
    half = charge.shape[1] // 2
    for amplifier, columns in zip(detector.amplifiers, (slice(0, half), slice(half, None)), strict=True):
        part = charge[:, columns]
        spilling = np.flatnonzero(part.max(axis=0) > amplifier.full_well_e)
        if spilling.size:
            lines = np.ascontiguousarray(part[:, spilling].T)
            _bleed_lines(lines, amplifier.full_well_e)
            part[:, spilling] = lines.T


@njit(cache=True, nogil=True)
def _bleed_lines(lines: Any, full_well: float) -> None:
    """Spill each line's excess both ways."""
    for n in range(lines.shape[0]):
        line = lines[n]
        size = line.size
        half_excess = np.zeros(size)
        for i in range(size):
            if line[i] > full_well:
                half_excess[i] = 0.5 * (line[i] - full_well)
                line[i] = full_well
        for step in (1, -1):
            carried = 0.0
            i = 0 if step == 1 else size - 1
            for _ in range(size):
                carried += half_excess[i]
                taken = min(carried, full_well - line[i])
                line[i] += taken
                carried -= taken
                i += step


def read_out(charge: Float32, detector: Detector, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Digitise an image, each half through its amplifier, crosstalk between them included.

    Parameters
    ----------
    charge
        (H, W) float32, electrons collected.
    detector
        Its amplifiers, where their pixels go, and the bias pattern.
    rng
        Generator, for read noise and the bias level's drift.

    Returns
    -------
    uint16, ADU, laid out as `Detector.areas` says, in the orientation of the CCD.
    """
    drifts = bool(detector.bias_adu.any())
    last = detector.areas[1].block
    raw = np.empty((last.y1, last.x1), np.uint16)
    signals = [
        _signal_adu(charge[area.image.slices], amplifier)
        for amplifier, area in zip(detector.amplifiers, detector.areas, strict=True)
    ]
    for side, (amplifier, area) in enumerate(zip(detector.amplifiers, detector.areas, strict=True)):
        block = area.block
        adu = np.zeros((block.y1 - block.y0, block.x1 - block.x0), np.float32)
        signal = signals[side]
        if (ghost := np.float32(detector.crosstalk[side, 1 - side])) != 0:
            # Both halves are read from their outer ends at the same time.
            signal = signal + ghost * signals[1 - side][:, ::-1]
        adu[area.data.moved(-block.x0, 0).slices] = signal + detector.bias_adu[area.image.slices]
        level = amplifier.bias_adu + (_drift(adu.shape[0], rng) if drifts else np.zeros(adu.shape[0]))
        adu += level.astype(np.float32)[:, None]
        if amplifier.read_noise_e > 0:
            sigma = np.float32(amplifier.read_noise_e / amplifier.gain)
            adu += sigma * rng.standard_normal(adu.shape, dtype=np.float32)
        raw[block.slices] = np.clip(np.rint(adu, out=adu), 0, 65535).astype(np.uint16)
    return raw


def _signal_adu(electrons: Float32, amplifier: SimulatedAmplifier) -> Float32:
    """Turn electrons into what an amplifier makes of them: ADU above its zero level."""
    if not amplifier.works:
        return np.zeros(electrons.shape, np.float32)
    if amplifier.curvature > 0:
        electrons = electrons * (1 - np.float32(amplifier.curvature) * electrons)
    return electrons * np.float32(1 / amplifier.gain)


def _drift(height: int, rng: np.random.Generator) -> Float:
    """How the bias level wanders from row to row in one readout, ADU; the overscan sees it too."""
    y = np.arange(height) / height
    settle = rng.normal(0, 2.0) * np.exp(-y / 0.1)
    return np.asarray(
        rng.normal(0, 3.0) + settle + rng.normal(0, 0.7) * np.sin(2 * np.pi * (y * 1.7 + rng.uniform()))
    )
