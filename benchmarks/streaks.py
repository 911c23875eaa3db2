"""Trails put into images of which everything is known: what of them is flagged, and what else.

Satellites across the CCD and short trails of 6 to 25 FWHM, at random places and angles, their photon noise
added. The *surface S/N* is the height of the ridge over the noise of one pixel. Nothing that can be installed
from a package index without an image-display or plotting stack does the same from an array (acstools'
`satdet` and ASTRiDE look for edges and contours in whole files): there is no peer.
"""

import sys
from typing import Any, NamedTuple

import numpy as np

from benchmarks import ccds
from benchmarks.peers import timed
from seechange_core.flags import UNUSABLE
from seechange_core.numerics.coarse_sky import coarse_sky
from seechange_core.numerics.streaks import Streaks, find_streaks
from seechange_core.simulate import PsfField
from seechange_core.simulate.trails import Trail, draw_trail, line_profile

SURFACE_SNR = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 100.0, 1000.0)
#: Of each brightness, in each image.
SATELLITES, ASTEROIDS = 2, 12
LENGTH_FWHM = (6.0, 25.0)
#: A flagged pixel is false beyond this many FWHM from where there is any light to speak of.
FAINT_SIGMA = 0.05


class Frame(NamedTuple):
    """What `find_streaks` is given, and the truth it is judged by."""

    data: Any
    variance: Any
    excluded: Any
    psf: PsfField
    offset: tuple[float, float]
    galaxies: Any


def load(kind: str, seed: int) -> Frame:
    """Return a CCD without trails, its sky subtracted."""
    ccd = ccds.load(kind, seed)
    image = ccd.image()
    excluded = (image.flags & np.uint16(UNUSABLE)) != 0
    variance = np.where(excluded, np.float32(1), 1 / np.maximum(image.weight, np.float32(1e-12)))
    data = image.data - coarse_sky(image.data, ~excluded).level_rows()
    camera, observation = ccd.world.camera, ccd.world.observations[0]
    galaxies = ccd.truth[ccd.truth["kind"] == "galaxy"]
    psf, offset = observation.psf_field(camera), camera.focal_offset(ccd.section)
    return Frame(data, variance.astype(np.float32), excluded, psf, offset, galaxies)


def search(kind: str, seed: int) -> Streaks:
    """Look at a CCD without trails (what is timed)."""
    return search_in(*load(kind, seed)[:3])


def search_in(data: Any, variance: Any, excluded: Any) -> Streaks:
    """Look at an image."""
    return find_streaks(data, variance, excluded)


def inject(frame: Frame, snr: float, length: float, rng: np.random.Generator) -> tuple[Trail, Any]:
    """Draw a trail of a surface S/N somewhere: return it and its mean light, in units of the noise."""
    height, width = frame.data.shape
    x, y, angle = rng.uniform(0.02, 0.98) * width, rng.uniform(0.02, 0.98) * height, rng.uniform(0, np.pi)
    noise = float(np.sqrt(np.median(frame.variance[~frame.excluded][::101])))
    ridge = float(line_profile(np.zeros(1))[0]) / frame.psf.fwhm_pix
    place = x + frame.offset[0], y + frame.offset[1]
    trail = Trail(*place, angle, snr * noise / ridge, length)
    light = np.zeros(frame.data.shape)
    draw_trail(light, trail, frame.psf, frame.offset)
    return trail, light


def measure(frame: Frame, snr: float, satellites: bool, rng: np.random.Generator) -> dict[str, float]:
    """Put trails of one brightness into an image: shares of trails found and of their pixels flagged."""
    lengths = frame.psf.fwhm_pix * rng.uniform(*LENGTH_FWHM, ASTEROIDS)
    lengths = np.full(SATELLITES, np.inf) if satellites else lengths
    trails = [inject(frame, snr, float(length), rng)[1] for length in lengths]
    total = np.sum(trails, axis=0)
    data = frame.data + rng.poisson(total).astype(np.float32)
    mask = search_in(data, frame.variance, frame.excluded).mask
    sigma = np.sqrt(frame.variance)
    lost = [float(np.mean((mask | frame.excluded)[t > sigma])) for t in trails if np.any(t > sigma)]
    fainter = [float(np.mean(mask[(t > 0.5 * sigma) & ~frame.excluded])) for t in trails]
    false = mask & (total < FAINT_SIGMA * sigma)
    return {
        "pixels": float(np.mean(lost)) if lost else float(np.mean(fainter)),
        "found": float(np.mean([share > 0.5 for share in fainter])),
        "false_pix": float(false.sum()),
    }


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Return the benchmark's row for one CCD."""
    frame = load(kind, seed)
    clean, cost = timed(search_in, *frame[:3])
    x, y = (np.clip(np.rint(frame.galaxies[c]).astype(int), 0, n - 1)
            for c, n in (("x", frame.data.shape[1]), ("y", frame.data.shape[0])))  # fmt: skip
    quality = {
        "false_trails": float(len(clean.found)),
        "false_pixels": float(clean.mask.sum()),
        "galaxies_flagged": float(clean.mask[y, x].sum()),
        "galaxies": float(len(frame.galaxies)),
    }
    rng = np.random.default_rng([seed, 5])
    for name, satellites in (("satellite", True), ("short", False)):
        for snr in SURFACE_SNR:
            for key, value in measure(frame, snr, satellites, rng).items():
                quality[f"{name}_snr{snr:g}_{key}"] = value
    return [
        {
            "step": "streaks", "kind": kind, "seed": seed, "ours_cpu_s": cost.cpu_s, "ours_mb": cost.mb,
            "peer": None, "peer_cpu_s": None, "peer_mb": None, "quality": quality, "peer_quality": {},
        }
    ]  # fmt: skip


def main() -> None:
    """Print rows: ``python -m benchmarks.streaks fine 1 2 coarse 1``."""
    kind = ccds.KINDS[0]
    for word in sys.argv[1:]:
        if word in ccds.KINDS:
            kind = word
            continue
        for row in rows(kind, int(word)):
            print(f"{kind} {word}: {row['ours_cpu_s']:.2f} s, {row['ours_mb']:.0f} MB")
            for name, value in row["quality"].items():
                print(f"    {name:32s} {value:10.3f}")


if __name__ == "__main__":
    main()
