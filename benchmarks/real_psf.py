"""The PSF of real, undersampled frames against PSFEx's, on their stars.

    SEECHANGE_REAL_DATA=FOLDER python -m benchmarks.real_psf [FRAMES]

Some of the 27 frames of ``tres1/`` (FWHM 1.9 to 2.6 pixels), the median of the darks taken off. A third of
the bright stars without neighbours is hidden while both PSFs are made, then fitted with them, each drawn as
its own programs do, position, flux and a sloping sky free. Per frame: reduced chi square within 3 FWHM, the
median of these stars, of their brighter half, and of those of that half with a centre near to that of a pixel
or between pixels; and for how many stars our model is the better one.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from benchmarks.decam_cutouts import RADIUS_FWHM, fit_star, without
from benchmarks.psf import OurPsf, psfex_of
from seechange_core.flags import PixelFlag
from seechange_core.frames import ImageFrame, Sources
from seechange_core.numerics.matching import neighbour_distance
from seechange_core.stages.extract import ExtractParams, extract

FULL_WELL_ADU, HOT_ADU = 50_000.0, 300.0
MIN_SNR, ALONE_PIX, EDGE_PIX = 60.0, 8.0, 15.0
#: One star of so many is kept from the models.
JUDGED_OF = 3


def frame(path: Path, dark: Any) -> ImageFrame:
    """Return a light with the dark taken off, in electrons; noise as neighbouring pixels have it."""
    gain = float(fits.getheader(path)["EGAIN"])
    data = ((fits.getdata(path) - dark) * gain).astype(np.float32)
    noise = 1.4826 * np.median(np.abs(np.diff(data, axis=0))) / np.sqrt(2)
    hot = dark > np.median(dark) + HOT_ADU
    weight = np.where(hot, 0, noise**-2).astype(np.float32)
    flags = np.where(hot, np.uint16(PixelFlag.BAD_PIXEL), np.uint16(0))
    return ImageFrame(data, weight, flags, 60.0, saturation_e=FULL_WELL_ADU * gain)


def bright_stars(s: Sources, image: ImageFrame) -> Sources:
    """Return the stars that can judge a PSF."""
    good = s.is_star & ~s.blended & (s.flags == 0) & (s.snr > MIN_SNR) & (s.peak < 0.6 * image.saturation_e)
    good &= neighbour_distance(s.x, s.y) > ALONE_PIX
    for place, side in zip((s.x, s.y), image.shape[::-1], strict=True):
        good &= np.abs(place - (side - 1) / 2) < side / 2 - EDGE_PIX
    return s.select(good)


def compare(image: ImageFrame) -> dict[str, Any]:
    """Return the stars' S/N, distances from a pixel's centre, and (n, 2) chi2 with our PSF and PSFEx's."""
    first = extract(image, ExtractParams())
    stars = bright_stars(first.sources, image)
    stars = stars.select(np.arange(len(stars)) % JUDGED_OF == 0)
    rest = image
    for x, y in zip(stars.x, stars.y, strict=True):
        rest = without(rest, x, y, RADIUS_FWHM * first.psf.fwhm_pix)
    found = extract(rest, ExtractParams())
    ours, theirs = OurPsf(found.psf), psfex_of(rest, "coarse")[0]
    size = found.psf.size
    chi2 = [
        [
            fit_star(
                image,
                lambda dx, dy, m=model, c=x, r=y: m.star(float(round(c)), float(round(r)), size, dx, dy),
                x, y, RADIUS_FWHM * found.psf.fwhm_pix, size,
            ).chi2
            for model in (ours, theirs)
        ]
        for x, y in zip(stars.x, stars.y, strict=True)
    ]  # fmt: skip
    phase = np.maximum(np.abs(stars.x - np.rint(stars.x)), np.abs(stars.y - np.rint(stars.y)))
    return {"fwhm_pix": found.psf.fwhm_pix, "snr": stars.snr, "phase": phase, "chi2": np.array(chi2)}


def main(n_frames: int) -> None:
    """Compare some frames, evenly spread over the night, and print a line for each."""
    folder = Path(os.environ["SEECHANGE_REAL_DATA"]) / "tres1"
    dark = np.median([fits.getdata(f).astype(np.float32) for f in sorted(folder.glob("*d.fit.gz"))], axis=0)
    lights = [f for f in sorted(folder.glob("*.fit.gz")) if not f.name.endswith("d.fit.gz")]
    print(
        "chi2, ours / PSFEx    FWHM   stars      all       bright    centred   between   ours is better for"
    )
    for i in np.linspace(0, len(lights) - 1, n_frames).round().astype(int):
        made = compare(frame(lights[i], dark))
        chi2, phase = made["chi2"], made["phase"]
        bright = made["snr"] > np.median(made["snr"])
        groups = (phase >= 0, bright, bright & (phase < 0.3), bright & (phase >= 0.4))
        words = "  ".join("{:.2f}/{:.2f}".format(*np.median(chi2[g], axis=0)) for g in groups)
        better = np.mean(chi2[:, 0] < chi2[:, 1])
        print(f"{lights[i].name:<20}{made['fwhm_pix']:>6.2f}{len(chi2):>8}  {words}  {100 * better:.0f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
