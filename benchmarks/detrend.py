"""Detrending and cosmic rays of one CCD: cost, and what they leave, against the simulated truth.

Detrending is `preprocess` without its search for cosmic rays, from arrays in memory to arrays in memory. The
noise model is judged in blank sky: pixels where the true sources give less than a fiftieth of the sky's
sigma and no particle passed.

Cosmic rays are judged by the charge that particles left, brought behind the flat. A *hit* pixel got more
than 5 sigma (of sky, reading and sources together); a *false* one is flagged though it got less than 1
sigma; a star's *core* is what lies within 1 pixel of the centre of an unsaturated star of S/N above 20 that
no particle came within 3 pixels of.
"""

import importlib.util
import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import label

from benchmarks import ccds
from benchmarks.ccds import Ccd
from benchmarks.peers import Cost, row, timed
from seechange_core.frames import Bool, Float32, ImageFrame
from seechange_core.numerics.coarse_sky import coarse_sky
from seechange_core.numerics.lacosmic import find_cosmic_rays
from seechange_core.numerics.star_shape import sharp_star_fwhm
from seechange_core.simulate.section import sky_level
from seechange_core.stages.preprocess import PreprocessParams, preprocess

HIT_SIGMA, CLEAN_SIGMA, CORE_SNR = 5.0, 1.0, 20.0


class Truth(NamedTuple):
    """What is true of each pixel of a calibrated CCD, and of its stars.

    Attributes
    ----------
    light_e
        (H, W) float32, sky and sources, electrons.
    sources_e
        (H, W) float32, sources alone.
    particles_e
        (H, W) float32, what cosmic rays left, behind the flat.
    sigma_e
        (H, W) float32, predicted noise of everything but particles; infinite in unusable pixels.
    cores
        Rows and columns of the pixels in the cores of stars.
    n_stars
        How many stars these belong to.
    """

    light_e: Float32
    sources_e: Float32
    particles_e: Float32
    sigma_e: Float32
    cores: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    n_stars: int


class Pixels(NamedTuple):
    """What a search for cosmic rays starts from: sky subtracted, variance, unusable pixels, the sky."""

    light: Float32
    variance: Float32
    excluded: Bool
    sky: Float32


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Return the rows of one CCD: detrending, and cosmic rays against astroscrappy."""
    ccd = ccds.load(kind, seed)
    plain, cost = timed(_detrend, kind, seed)
    cost = Cost(plain[1], cost.mb)
    frame: ImageFrame = plain[0]
    truth = true_pixels(ccd, frame)
    found = [row("detrending", kind, seed, cost, noise_quality(frame, truth))]
    pixels = search_input(frame)
    hits, ours = timed(_ours, pixels, ccd.preprocess_params)
    quality = hit_quality(hits, truth)
    if importlib.util.find_spec("astroscrappy") is None:
        return [*found, row("cosmic rays", kind, seed, ours, quality)]
    for rounds in (4, 1):
        theirs, cost = timed(_astroscrappy, pixels, rounds, warm=False)
        peer = f"astroscrappy, {rounds} it."
        found.append(row("cosmic rays", kind, seed, ours, quality, peer, cost, hit_quality(theirs, truth)))
    return found


def search_input(frame: ImageFrame) -> Pixels:
    """Return what a search for cosmic rays starts from, the same for all who search."""
    excluded = ~(frame.weight > 0)
    sky = coarse_sky(frame.data, ~excluded).level_rows()
    with np.errstate(divide="ignore"):
        variance = np.where(excluded, np.median(1 / frame.weight[~excluded]), 1 / frame.weight)
    return Pixels(frame.data - sky, variance.astype(np.float32), excluded, sky)


# --- Truth ----------------------------------------------------------------------------------------


def true_pixels(ccd: Ccd, frame: ImageFrame) -> Truth:
    """Return the truth behind a calibrated image without a search for cosmic rays."""
    flat = ccd.masters().flat
    response = np.ones_like(frame.data) if flat is None else flat.data
    light = ccd.expected().astype(np.float32)
    sources = light - _true_sky(ccd)
    particles = ccd.cosmic_ray_e() / np.where(response > 0, response, 1)
    usable = frame.weight > 0
    with np.errstate(divide="ignore"):
        variance = 1 / frame.weight + np.maximum(sources, 0) / np.where(response > 0, response, 1)
    sigma = np.where(usable, np.sqrt(variance), np.inf).astype(np.float32)
    cores, n_stars = _cores(ccd, particles / sigma, sigma)
    return Truth(light, sources.astype(np.float32), particles.astype(np.float32), sigma, cores, n_stars)


def _true_sky(ccd: Ccd) -> Float32:
    world = ccd.world
    return sky_level(
        world.camera, world.observations[0].under(world.camera, ccd.section), ccd.section
    ).astype(np.float32)


def _cores(ccd: Ccd, significance: Float32, sigma: Float32) -> tuple[Any, int]:
    stars = ccd.truth[(ccd.truth["kind"] == "star") & ~ccd.truth["saturated"]]
    height, width = sigma.shape
    rows, columns, count = [], [], 0
    area = 2.27 * float(ccd.summary["seeing_fwhm_pix"]) ** 2
    for x, y, flux in zip(stars["x"], stars["y"], stars["flux_e"], strict=True):
        i, j = round(x), round(y)
        if not (4 <= i < width - 4 and 4 <= j < height - 4):
            continue
        background = float(np.median(sigma[j - 4 : j + 5, i - 4 : i + 5])) ** 2
        if flux / np.sqrt(flux + area * background) < CORE_SNR:
            continue
        if np.any(significance[j - 3 : j + 4, i - 3 : i + 4] > CLEAN_SIGMA):
            continue
        near = [(v, u) for v in range(j - 1, j + 2) for u in range(i - 1, i + 2)]
        near = [(v, u) for v, u in near if (v - y) ** 2 + (u - x) ** 2 <= 1]
        rows += [v for v, _ in near]
        columns += [u for _, u in near]
        count += 1
    return (np.array(rows), np.array(columns)), count


# --- Quality --------------------------------------------------------------------------------------


def noise_quality(frame: ImageFrame, truth: Truth) -> dict[str, float]:
    """Compare the noise of blank sky with what the weights say: whole section, and worst of 8 x 4 parts."""
    blank = (frame.weight > 0) & (truth.sources_e < 0.02 * truth.sigma_e) & (truth.particles_e == 0)
    pulls = (frame.data - truth.light_e) * np.sqrt(frame.weight)
    parts = []
    for lines in np.array_split(np.arange(frame.shape[0]), 8):
        for columns in np.array_split(np.arange(frame.shape[1]), 4):
            place = np.s_[lines[0] : lines[-1] + 1, columns[0] : columns[-1] + 1]
            parts.append(float(np.std(pulls[place][blank[place]], dtype=np.float64)))
    return {
        "noise_over_predicted": float(np.std(pulls[blank], dtype=np.float64)),
        "worst_part_off_percent": 100 * max(abs(part - 1) for part in parts),
        "level_off_sigma": float(np.mean(pulls[blank], dtype=np.float64)),
        "blank_pixels": float(blank.sum()),
    }


def hit_quality(found: Bool, truth: Truth) -> dict[str, float]:
    """Judge the pixels that were found; see the module for the words."""
    significance = truth.particles_e / truth.sigma_e
    usable = np.isfinite(truth.sigma_e)
    found = found & usable
    hit = significance > HIT_SIGMA
    events, _ = label(significance > CLEAN_SIGMA, np.ones((3, 3), int))
    brightest = np.unique(events[hit])
    seen = np.unique(events[hit & found])
    false = found & (significance < CLEAN_SIGMA)
    touched = found[truth.cores]
    return {
        "complete_percent": 100 * float(np.mean(found[hit])),
        "events_percent": 100 * seen.size / max(brightest.size, 1),
        "false_pixels": float(false.sum()),
        "false_without_charge": float((false & (truth.particles_e == 0)).sum()),
        "core_pixels_touched": float(touched.sum()),
        "hit_pixels": float(hit.sum()),
        "stars": float(truth.n_stars),
    }


# --- What is timed --------------------------------------------------------------------------------


def _detrend(kind: str, seed: int) -> tuple[ImageFrame, float]:
    """Return the frame without cosmic rays, and the CPU seconds of the stage alone: reading is not in it."""
    ccd = ccds.load(kind, seed)
    raw, masters = ccd.raw(), ccd.masters()
    params = ccd.preprocess_params.model_copy(update={"do_cosmic_rays": False, "do_streaks": False})
    start = time.process_time()
    frame = preprocess(raw, masters, params, ccd.band)
    return frame, time.process_time() - start


def _ours(pixels: Pixels, params: PreprocessParams) -> Bool:
    image = pixels.light, pixels.variance, pixels.excluded
    return find_cosmic_rays(
        *image,
        n_sigma=params.cosmic_ray_sigma,
        neighbour_sigma=params.cosmic_ray_neighbour_sigma,
        star_fwhm_pix=sharp_star_fwhm(*image, params.cosmic_ray_star_fwhm_pix),
        iterations=params.cosmic_ray_iterations,
    )


def _astroscrappy(pixels: Pixels, rounds: int) -> Bool:
    from astroscrappy import detect_cosmics  # noqa: PLC0415 - may not be installed

    variance = pixels.variance + np.maximum(pixels.light, 0)
    found, _ = detect_cosmics(
        pixels.light + pixels.sky, inmask=pixels.excluded, inbkg=pixels.sky, invar=variance,
        sigclip=4.5, sigfrac=0.3, objlim=5.0, gain=1.0, satlevel=np.inf, niter=rounds, cleantype="meanmask",
    )  # fmt: skip
    return np.asarray(found, dtype=np.bool_)
