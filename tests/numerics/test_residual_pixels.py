"""What is left of cosmic rays beside their masks, and sources that only look like it, of known truth."""

import numpy as np
import pytest
from scipy.ndimage import correlate

from seechange_core.numerics.growth import grown
from seechange_core.numerics.residual_pixels import (
    fill_lost,
    find_hits,
    light_covariance,
    prediction_error,
)

SIDE, NOISE = 420, 10.0
PLACES = [(y, x) for y in range(20, SIDE - 20, 30) for x in range(20, SIDE - 20, 30)]


def stamp(fwhm, dy=0.0, dx=0.0, half=12):
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    width = fwhm / 2.355
    light = np.exp(-((v - dy) ** 2 + (u - dx) ** 2) / 2 / width**2)
    return (light / (2 * np.pi * width**2)).astype(np.float32)


def mended(data, struck, psf):
    """Return what find_hits says, and the matched filter's score of what is left."""
    variance, dark = np.full(data.shape, NOISE**2, np.float32), np.zeros(data.shape, np.float32)
    data = np.where(struck, np.float32(0), data)
    hits = find_hits(data, variance, ~struck, struck, dark, psf)
    lost = struck | hits
    filled = np.where(lost, fill_lost(data, ~lost, lost, light_covariance(psf), struck, hits), data)
    score = correlate(filled, psf) / (NOISE * float(np.sqrt(np.sum(psf**2))))
    return hits, np.where(lost, 0, score)


def peaks(score, reach):
    return np.array([score[y - reach : y + reach + 1, x - reach : x + reach + 1].max() for y, x in PLACES])


# Of barely sampled stars some cannot be told from what a ray leaves.
@pytest.mark.parametrize(("fwhm", "left"), [(1.9, 0.75), (4.0, 0.25)])
def test_what_is_left_beside_rays_goes(fwhm, left):
    rng = np.random.default_rng(1)
    data, charge = rng.normal(0, NOISE, (2, SIDE, SIDE))[0], np.zeros((SIDE, SIDE))
    for y, x in PLACES:
        at = np.array([y, x], float)
        step = rng.normal(size=2)
        for _ in range(int(rng.integers(12, 30))):
            at += 0.35 * step / np.hypot(*step)
            charge[tuple(np.rint(at + rng.normal(0, 0.4, 2)).astype(int))] += rng.exponential(6) * NOISE
    data = (data + charge).astype(np.float32)
    struck = (charge > 6 * NOISE) & (data > 6 * NOISE)
    psf = stamp(fwhm)
    plain = correlate(np.where(struck, 0, data), psf) / (NOISE * np.sqrt(np.sum(psf**2)))
    _, score = mended(data, struck, psf)
    before, after = (np.mean(peaks(s, 7) > 5) for s in (plain, score))
    assert before > 0.1
    assert after < left * before


@pytest.mark.parametrize("fwhm", [1.9, 4.0])
def test_sources_that_a_ray_has_crossed_stay(fwhm):
    rng = np.random.default_rng(2)
    data = rng.normal(0, NOISE, (SIDE, SIDE))
    struck = np.zeros((SIDE, SIDE), bool)
    unit = NOISE / float(np.sqrt(np.sum(stamp(fwhm) ** 2)))
    snr = 12 * (100 / 12) ** rng.random(len(PLACES))
    for k, (y, x) in enumerate(PLACES):
        box = slice(y - 12, y + 13), slice(x - 12, x + 13)
        data[box] += snr[k] * unit * stamp(fwhm, *rng.uniform(-0.5, 0.5, 2))
        # Through one of the pixels beside the middle.
        column = x + int(rng.choice([-2, -1, 1, 2]))
        struck[y - 4 : y + 5, column] = True
    hits, score = mended(data.astype(np.float32), struck, stamp(fwhm))
    taken = np.array([hits[y - 4 : y + 5, x - 4 : x + 5].sum() for y, x in PLACES])
    assert np.mean(taken) < 2
    assert np.mean(peaks(score, 2) > 5) > 0.97


@pytest.mark.parametrize("fwhm", [2.0, 4.0, 6.0])
def test_noise_does_not_grow_beyond_an_edge(fwhm):
    """Of a source on the edge half is seen: .71 of the whole one's S/N is all there is to have."""
    rng = np.random.default_rng(4)
    data, psf = rng.normal(0, 1, (3000, 40)).astype(np.float32), stamp(fwhm)
    outside, none = np.zeros(data.shape, bool), np.zeros(data.shape, bool)
    outside[:, :16] = True

    def scores(pixels):
        pixels = np.where(outside, np.float32(0), pixels)
        beyond = fill_lost(pixels, ~outside, outside, light_covariance(psf), none, none)
        return correlate(pixels + beyond, psf)[20:-20, 16] / np.sqrt(np.sum(psf**2))

    light = np.zeros(data.shape, np.float32)
    light[1500 - 12 : 1500 + 13, 4:29] = psf / np.sqrt(np.sum(psf**2))
    noise, signal = np.std(scores(data)), scores(light)[1480]
    assert noise < 1.25
    column = np.sum(psf**2, axis=0)
    best = float(np.sqrt(column[12:].sum() / column.sum()))
    assert 0.9 * best < signal / noise < 1.06 * best


def test_blank_sky_and_lone_sources_lose_nothing():
    rng = np.random.default_rng(3)
    psf = stamp(1.9)
    data = rng.normal(0, NOISE, (SIDE, SIDE))
    for y, x in PLACES:
        box = slice(y - 12, y + 13), slice(x - 12, x + 13)
        data[box] += rng.uniform(200, 20000) * stamp(1.9, *rng.uniform(-0.5, 0.5, 2))
    assert not mended(data.astype(np.float32), np.zeros((SIDE, SIDE), bool), psf)[0].any()


def test_what_is_left_beside_rays_is_told_on_stars_as_well_but_not_from_what_these_leave():
    """Stars of 40 sigma per pixel, subtracted to 4 %, and a ray over each: 16 sigma stay beside its mask."""
    rng, psf = np.random.default_rng(7), stamp(4.0)
    model = np.zeros((SIDE, SIDE), np.float32)
    struck, charge = np.zeros(model.shape, bool), np.zeros(model.shape)
    for y, x in PLACES:
        model[y - 12 : y + 13, x - 12 : x + 13] += 40 * NOISE * psf / psf.max()
        struck[y - 8 : y, x + 1] = True
        charge[y, x + 1] = 16 * NOISE
    left = (rng.normal(0, NOISE, model.shape) + 0.04 * model).astype(np.float32)
    variance, wrong = np.full(model.shape, NOISE**2, np.float32), prediction_error(model)
    y, x = np.transpose(PLACES)

    def told(residual):
        return find_hits(residual.astype(np.float32), variance, ~struck, struck, wrong, psf)

    assert np.mean(told(left + charge)[y, x + 1]) > 0.7
    assert np.mean(told(left)[grown(struck, 2)]) < 2e-3


def test_predictions_are_as_wrong_as_the_light_around_is_bright():
    model = np.zeros((40, 40), np.float32)
    model[20, 20] = 1000
    wrong = prediction_error(model)
    far, wing, beside = wrong[2, 2], wrong[20, 26], wrong[20, 21]
    assert far == 0
    assert 0 < wing < beside < 1000


def test_masks_grow_by_rows_and_columns():
    mask = np.zeros((12, 15), bool)
    mask[3, 4] = True
    mask[8:, 9:] = True
    expected = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        expected[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = True
    assert np.array_equal(grown(mask, 2), expected)
    assert np.array_equal(grown(mask, 0), mask)
