"""The limits that differences are measured by are what their equations say."""

from dataclasses import dataclass

import numpy as np
import pytest

from benchmarks.static_sky import Exposed
from benchmarks.two_images import proper_score
from seechange_core.simulate import PsfField

SIDE, AT = 240, (130, 110)
FLUX_E, SIGMA_E = 5000.0, 20.0


@dataclass(frozen=True)
class Shifted:
    """Pixels of a plane that is dithered."""

    dx: float
    dy: float

    def to_sky(self, x, y):
        return x - self.dx, y - self.dy

    def to_pixels(self, x, y):
        return x + self.dx, y + self.dy


def exposed(fwhm, sigma, left=None, at=(0.0, 0.0), zp=25.0, seen=slice(None)):
    shape = (SIDE, SIDE)
    bad = np.ones(shape, bool)
    bad[:, seen] = False
    left = np.zeros(shape, np.float32) if left is None else np.where(bad, 0, left).astype(np.float32)
    weight = np.full(shape, sigma**-2, np.float32)
    return Exposed(left, weight, bad, ~bad, PsfField(fwhm, 0.1), (0.0, 0.0), Shifted(*at), zp)


def star(fwhm):
    plane = np.zeros((SIDE, SIDE))
    PsfField(fwhm, 0.1).draw(plane, *AT, FLUX_E)
    return plane


def power(fwhm, sigma, scale=1.0):
    stamp = PsfField(fwhm, 0.1).stamp(0, 0, SIDE - 1)
    return np.abs(np.fft.fft2(scale * stamp)) ** 2 / sigma**2


@pytest.mark.parametrize("fwhm", [3.0, 5.0])
def test_a_change_has_the_significance_of_the_proper_difference(fwhm):
    new = exposed(fwhm, SIGMA_E, star(fwhm))
    earlier = [exposed(4.0, 1.5 * SIGMA_E, at=(3.3, -2.6)), exposed(3.6, 1.2 * SIGMA_E, zp=25.5)]
    N, R = power(fwhm, SIGMA_E), power(4.0, 1.5 * SIGMA_E) + power(3.6, 1.2 * SIGMA_E, 10**0.2)
    expected = FLUX_E * np.sqrt(np.mean(N * R / (N + R)))
    perfect = FLUX_E * np.sqrt(np.mean(N))
    score = proper_score(new, earlier)
    assert expected < 0.9 * perfect  # what is measured here tells one limit from the other
    assert score[AT[1], AT[0]] == pytest.approx(expected, rel=0.005)
    assert score[AT[1], AT[0]] == score.max()
    deep = [exposed(4.0, 1e-3 * SIGMA_E)]
    assert proper_score(new, deep)[AT[1], AT[0]] == pytest.approx(perfect, rel=0.005)


def test_noise_has_unit_width_also_where_one_exposure_alone_reaches():
    rng = np.random.default_rng(3)
    scores = []
    for _ in range(4):
        noise = [rng.normal(0, SIGMA_E, (SIDE, SIDE)) for _ in range(3)]
        earlier = [
            exposed(4.0, SIGMA_E, noise[1], (7.4, 0.2)),
            exposed(4.0, SIGMA_E, noise[2], seen=slice(SIDE // 2)),
        ]
        scores.append(proper_score(exposed(3.0, SIGMA_E, noise[0]), earlier))
    both, alone = (np.array(scores)[:, 20:-20, of] for of in (slice(20, 100), slice(140, 220)))
    assert np.std(both) == pytest.approx(1, abs=0.02)
    assert np.std(alone) == pytest.approx(1, abs=0.02)


def test_places_that_no_earlier_exposure_has_seen_have_no_score():
    score = proper_score(exposed(3.0, SIGMA_E, star(3.0)), [exposed(3.0, SIGMA_E, seen=slice(SIDE // 2))])
    assert np.all(score[:, SIDE // 2 + 15 :] == 0)
    assert np.any(score[:, : SIDE // 2] != 0)
