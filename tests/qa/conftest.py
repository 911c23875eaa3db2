"""A calibrated field whose every property is known, without running the pipeline."""

from types import SimpleNamespace

import numpy as np
import pytest

from seechange_core.flags import PixelFlag
from seechange_core.frames import (
    CatalogStars,
    Detections,
    ImageFrame,
    PsfModel,
    Sources,
    Stamps,
    WcsSolution,
    ZeroPointSolution,
)


def gaussian(fwhm, size=25, squeeze=1.0):
    y, x = np.mgrid[:size, :size] - size // 2
    stamp = np.exp(-(x**2 * squeeze + y**2 / squeeze) * 4 * np.log(2) / fwhm**2)
    return (stamp / stamp.sum()).astype(np.float32)


@pytest.fixture(scope="session")
def field():
    rng = np.random.default_rng(21)
    n, size = 300, 1024
    x, y = rng.uniform(20, size - 20, (2, n))
    flux = 10 ** rng.uniform(2.6, 5.5, n)
    err = np.sqrt(flux + 25 * 800)
    scale = 0.27 / 3600
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 0.001, "CRVAL2": 20.0,
        "CRPIX1": 512.5, "CRPIX2": 512.5, "CD1_1": -scale, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": scale,
    }  # fmt: skip
    wcs = WcsSolution(cards, (size, size), rms_mas=12.0, n_matched=n, n_catalog=n)
    ra, dec = wcs.to_sky(x + rng.normal(0, 0.04, n), y + rng.normal(0, 0.04, n))
    color = rng.uniform(0.3, 2, n)
    catalog = CatalogStars(
        ra, dec, np.full(n, 5.0), 30.1 - 2.5 * np.log10(flux) + 0.05 * color + rng.normal(0, 0.01, n),
        np.full(n, 0.01), color, np.ones(n, bool),
    )  # fmt: skip
    one = np.ones(n)
    sources = Sources(
        x, y, one * 0.04, one * 0.04, flux + rng.normal(0, err), err, one, flux[:, None], err[:, None],
        flux / 10, 3.5 * one, 1.1 * one, 0 * one, np.zeros(n, int), np.zeros(n, bool), np.ones(n, bool),
    )  # fmt: skip
    data = rng.normal(800, 30, (size, size)).astype(np.float32)
    for px, py, f in zip(x, y, flux, strict=True):
        j, i = round(py), round(px)
        data[j - 12 : j + 13, i - 12 : i + 13] += (f * gaussian(3.5))[
            : min(25, size - j + 12), : min(25, size - i + 12)
        ]
    flags = np.zeros(data.shape, np.uint16)
    flags[:, 300:303] = PixelFlag.BAD_PIXEL
    flags[600:640, 600:640] = PixelFlag.SATURATED
    weight = np.where(flags == 0, np.float32(1 / 900), np.float32(0))
    image = ImageFrame(data, weight, flags, 60.0)
    terms = np.stack(
        [gaussian(3.5), 0.25 * (gaussian(3.8) - gaussian(3.5)), gaussian(3.5, squeeze=1.1) - gaussian(3.5)]
    )
    psf = PsfModel(terms.astype(np.float32), 1, (511.5, 511.5), (512.0, 512.0), 3.5, 120)
    zero_point = ZeroPointSolution(30.1, 0.002, "r", 0.05, 0.004, 250, 0.012, (), 24.1)
    return SimpleNamespace(
        image=image, sources=sources, catalog=catalog, wcs=wcs, psf=psf, zero_point=zero_point
    )


@pytest.fixture(scope="session")
def found():
    """Stamps and detections of twelve transients on galaxies."""
    rng = np.random.default_rng(22)
    n = 12
    score = rng.uniform(5, 60, n) * rng.choice([1, -1], n, p=[0.8, 0.2])
    one = np.ones(n)
    detections = Detections(
        200 * one, 300 * one, 0.1 * one, 0.1 * one, score, 100 * score, 100 * one, np.zeros(n, int)
    )
    ref = rng.normal(0, 10, (n, 41, 41)) + 20000 * gaussian(7, 41)
    sub = rng.normal(0, 20, (n, 41, 41)) + 60 * score[:, None, None] * gaussian(4, 41)
    weight, flags = np.full((n, 41, 41), 1 / 400, np.float32), np.zeros((n, 41, 41), np.uint16)
    stamps = Stamps(
        (ref + sub).astype(np.float32), ref.astype(np.float32), sub.astype(np.float32),
        weight, weight, weight, flags, flags, flags, np.full(n, 180), np.full(n, 280),
    )  # fmt: skip
    return SimpleNamespace(stamps=stamps, detections=detections)
