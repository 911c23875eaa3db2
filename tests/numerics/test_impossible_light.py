"""Tracks of particles against everything that shines, at a PSF that is barely sampled."""

import numpy as np
import pytest
from scipy.ndimage import correlate, label

from seechange_core.numerics.impossible_light import impossible_light
from seechange_core.numerics.peaks import local_maxima
from seechange_core.numerics.psf import constant

NOISE = 40.0
SHAPE = (120, 160)


def spot(y, x, flux, width):
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = np.exp(-((v - y) ** 2 + (u - x) ** 2) / 2 / width**2)
    return flux * light / (2 * np.pi * width**2)


@pytest.mark.parametrize("error", [-0.05, 0.0, 0.05])
@pytest.mark.parametrize("fwhm", [1.5, 2.0, 3.0, 4.0, 5.0])
def test_bright_sources_survive_a_psf_of_a_wrong_width(fwhm, error):
    rng = np.random.default_rng(5)
    width = fwhm / 2.355
    v, u = np.mgrid[-9:10, -9:10]
    psf = constant(np.exp(-(u**2 + v**2) / 2 / (width * (1 + error)) ** 2))
    stamp = psf.coefficients[0]
    unit = NOISE * 2 * np.sqrt(np.pi) * width
    light = np.zeros(SHAPE)
    for k, snr in enumerate((100, 300, 1000, 3000)):
        flux = (snr**2 + np.sqrt(snr**4 + 4 * (snr * unit) ** 2)) / 2
        for row in (25, 60, 95):
            light += spot(row + rng.random(), 25 + 34 * k + rng.random(), flux, width)
    data = (light + rng.normal(0, np.sqrt(NOISE**2 + light))).astype(np.float32)
    score = (correlate(data, stamp) / float(np.sqrt(np.sum(stamp**2))) / NOISE).astype(np.float32)
    weight = np.full(SHAPE, NOISE**-2, np.float32)
    assert np.count_nonzero(local_maxima(score, 5.0, border=20).x) >= 12
    assert not impossible_light(score, np.ones(SHAPE, bool), data, weight, 1.0, psf).any()


@pytest.mark.parametrize("fwhm", [1.9, 4.0])
def test_tracks_are_told_from_stars_pairs_and_trails(fwhm):
    rng = np.random.default_rng(3)
    width = fwhm / 2.355
    v, u = np.mgrid[-9:10, -9:10]
    psf = constant(np.exp(-(u**2 + v**2) / 2 / width**2))
    stamp = psf.coefficients[0]
    unit = NOISE / float(np.sqrt(np.sum(stamp**2)))
    light = np.zeros(SHAPE)
    for k, snr in enumerate((7, 10, 20, 40, 80, 200)):
        light += spot(20 + rng.random(), 20 + 24 * k + rng.random(), snr * unit, width)
    light += spot(60.3, 30.4, 30 * unit, width) + spot(61.1, 30.4 + fwhm, 25 * unit, width)
    for step in np.linspace(0, 14, 60):
        light += spot(60 + step / 2, 70 + step, unit, width)
    track = np.zeros(SHAPE, bool)
    for k in range(14):
        track[80 + k, 120 + k // 3 : 122 + k // 3] = True
    charge = np.where(track, rng.uniform(4, 32, SHAPE) * NOISE, 0)
    data = (light + charge + rng.normal(0, NOISE, SHAPE) * np.sqrt(1 + light / NOISE**2)).astype(np.float32)
    score = (correlate(data, stamp) / float(np.sqrt(np.sum(stamp**2))) / NOISE).astype(np.float32)
    weight = np.full(SHAPE, NOISE**-2, np.float32)
    found = impossible_light(score, np.ones(SHAPE, bool), data, weight, 1.0, psf)
    pieces, _ = label(score > 5)
    hit = np.unique(pieces[found & (pieces > 0)])
    assert np.array_equal(hit, np.unique(pieces[track & (pieces > 0)]))
    assert np.mean(found[track & (score > 3)]) > 0.7
    assert not impossible_light(score, np.zeros(SHAPE, bool), data, weight, 1.0, psf).any()
