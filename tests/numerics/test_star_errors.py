"""What static light leaves in a score, against residuals of a known relative error."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from seechange_core.numerics.star_errors import excess_variance

SIDE, FWHM, ERROR = 700, 4.0, 0.01
WIDTH = FWHM / 2.355 * 2**0.5
PRIOR = 1e-3


class Field:
    """Stars of 30 to 10000 sigma, each leaving its own share of its light in a score of unit noise."""

    def __init__(self, seed, n=250, error=ERROR, n_hot=0, hot_error=0.05):
        rng = np.random.default_rng(seed)
        self.y, self.x = rng.uniform(20, SIDE - 21, (2, n)).round().astype(int)
        self.flux = 30 * (1e4 / 30) ** rng.random(n)
        self.flux[:n_hot] = 2e4
        relative = rng.normal(0, np.where(np.arange(n) < n_hot, hot_error, error))
        noise = gaussian_filter(rng.normal(size=(SIDE, SIDE)), WIDTH / 2**0.5)
        self.light = np.zeros((SIDE, SIDE), np.float32)
        self.score = (noise / noise.std()).astype(np.float32)
        self.hot = np.zeros((SIDE, SIDE), bool)
        v, u = np.mgrid[-18:19, -18:19]
        self.shape = np.exp(-(u**2 + v**2) / 2 / WIDTH**2).astype(np.float32)
        for k in range(n):
            box = slice(self.y[k] - 18, self.y[k] + 19), slice(self.x[k] - 18, self.x[k] + 19)
            self.light[box] += np.float32(self.flux[k]) * self.shape
            self.score[box] += np.float32(self.flux[k] * relative[k]) * self.shape
        for k in range(n_hot):
            self.hot[self.y[k] - 2 : self.y[k] + 3, self.x[k] - 2 : self.x[k] + 3] = True

    def pulls(self, light=None, score=None):
        """Return factor, and score over what is expected of it."""
        score = self.score if score is None else score
        sigma, usable = np.ones_like(score), ~self.hot
        light = self.light if light is None else light
        factor = excess_variance(score, light, sigma, usable, self.hot, np.zeros_like(score), FWHM, PRIOR)
        return factor, score / np.sqrt(factor)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_score_of_stars_has_unit_width_and_blank_sky_is_left_alone(seed):
    field = Field(seed)
    factor, pulls = field.pulls()
    bright = field.flux > 500
    at = field.y[bright], field.x[bright]
    assert np.std(field.score[at]) > 10
    assert np.std(pulls[at]) == pytest.approx(1, abs=0.25)
    assert np.sqrt(np.median((factor[at] - 1) / field.light[at] ** 2)) == pytest.approx(ERROR, rel=0.3)
    far = gaussian_filter(field.light, 3 * FWHM) < 1e-3
    assert np.all(factor[far] == 1)
    assert np.all(factor >= 1)


def test_without_errors_nothing_is_lost():
    factor, _ = Field(3, error=0.0).pulls()
    assert np.median(factor) == 1
    assert np.quantile(factor, 0.97) < 1.15


def test_what_really_changed_on_a_tenth_of_the_stars_is_no_error():
    field = Field(4)
    plain, _ = field.pulls()
    score = field.score.copy()
    for y, x in zip(field.y[::10], field.x[::10], strict=True):
        score[y - 18 : y + 19, x - 18 : x + 19] += 40 * field.shape
    changed, _ = field.pulls(score=score)
    bright = field.flux > 300
    at = field.y[bright], field.x[bright]
    assert np.median(np.sqrt(changed[at] / plain[at])) == pytest.approx(1, abs=0.25)


def test_saturated_stars_have_their_own_error():
    field = Field(5, error=0.001, n_hot=15)
    factor, _ = field.pulls()
    ring = field.y[:15], field.x[:15] + 3
    own = factor[ring] / field.light[ring] ** 2
    others = field.flux[15:] > 1000
    at = field.y[15:][others], field.x[15:][others]
    assert np.sqrt(np.median(own)) > 0.01
    assert np.sqrt(np.median(factor[at] / field.light[at] ** 2)) < 0.004


def test_too_few_stars_take_the_error_that_was_known_before():
    field = Field(6, n=3)
    factor, _ = field.pulls()
    expected = 1 + (PRIOR * field.light[field.y, field.x]) ** 2
    assert factor[field.y, field.x] == pytest.approx(expected, rel=0.2)


def test_kinds_of_stars_have_their_own_errors():
    field = Field(7, n=400, error=0.001)
    rng = np.random.default_rng(8)
    few = np.zeros((SIDE, SIDE), bool)
    few[:, :200] = True
    worse = few[field.y, field.x]
    extra = np.zeros_like(field.score)
    for k in np.flatnonzero(worse):
        box = slice(field.y[k] - 18, field.y[k] + 19), slice(field.x[k] - 18, field.x[k] + 19)
        extra[box] += np.float32(field.flux[k] * rng.normal(0, 0.02)) * field.shape
    one = np.ones_like(field.score)
    nothing = np.zeros((SIDE, SIDE), bool)
    odd = few.astype(np.float32)
    factor = excess_variance(field.score + extra, field.light, one, ~nothing, nothing, odd, FWHM, PRIOR)
    relative = np.sqrt(factor - 1)[field.y, field.x] / field.light[field.y, field.x]
    bright, clear = field.flux > 1000, field.x > 200 + 6 * FWHM
    assert 0.008 < np.median(relative[bright & worse]) < 0.05
    assert np.median(relative[bright & clear]) < 0.004


@pytest.mark.parametrize("seed", [9, 10])
def test_strips_of_few_images_tell_one_error_together(seed):
    """A half of the images, a third of them, one of eight; faint stars too leave what counts there."""
    field, rng = Field(seed, n=300, error=0.001), np.random.default_rng(seed)
    odd = np.zeros((SIDE, SIDE), np.float32)
    strips = {1.0: slice(0, 120), 2**0.5: slice(300, 400), 7**0.5: slice(600, 700)}
    for value, columns in strips.items():
        odd[:, columns] = value
    error = 0.04 * odd[field.y, field.x]
    extra = np.zeros_like(field.score)
    for k, relative in enumerate(rng.normal(0, error)):
        box = slice(field.y[k] - 18, field.y[k] + 19), slice(field.x[k] - 18, field.x[k] + 19)
        extra[box] += np.float32(field.flux[k] * relative) * field.shape
    score, one = field.score + extra, np.ones_like(field.score)
    nothing = np.zeros((SIDE, SIDE), bool)
    factor = excess_variance(score, field.light, one, ~nothing, nothing, odd, FWHM, PRIOR)
    at = field.y, field.x
    own = np.sqrt(factor[at] - 1) / field.light[at]
    for value, columns in strips.items():
        here = (field.x > columns.start + 5) & (field.x < columns.stop - 5) & (field.flux > 1000)
        assert np.median(own[here] / value) == pytest.approx(0.04, rel=0.4)
    pulls = (score / np.sqrt(factor))[at]
    assert np.std(pulls[error > 0]) == pytest.approx(1, abs=0.25)
    assert np.all(np.abs(pulls[error > 0]) < 5) and np.any(np.abs(score[at][field.flux < 100]) > 5)
    away = (error == 0) & (field.x > 150) & (field.x < 570) & (np.abs(field.x - 350) > 90)
    assert np.median(own[away & (field.flux > 1000)]) < 0.003
