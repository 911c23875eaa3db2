import numpy as np
import pytest

from seechange_core.numerics.brighter_fatter import growth, relative_widths
from seechange_core.numerics.psf import fwhm
from seechange_core.numerics.psf_build import build, cut_stars
from seechange_core.simulate.psf import PsfField

FWHM, SIZE, SKY_E = 4.2, 43, 300.0
#: Of a star of flux 1 in the middle of a pixel.
PEAK = PsfField(FWHM, e1=0.04, aureole_fraction=0.0).stamp(0.0, 0.0, SIZE).max()
#: Pixels widen all stars: what is seen grows a little less than what falls on them.
WIDTHS = [fwhm(PsfField(width, e1=0.04, aureole_fraction=0.0).stamp(0.0, 0.0, SIZE)) for width in (4.2, 5.46)]
SEEN = np.log(WIDTHS[1] / WIDTHS[0]) / np.log(1.3)


def stamps_that_grow(per_peak, seed, n=100):
    """Stars at sub-pixel places, each as wide as its peak makes it: 1 + per_peak for a peak of 1e5."""
    rng = np.random.default_rng(seed)
    side = SIZE + 4
    columns = 10
    image = np.full((side * -(-n // columns), side * columns), SKY_E)
    x = side * (np.arange(n) % columns + 0.5) + rng.uniform(-0.5, 0.5, n)
    y = side * (np.arange(n) // columns + 0.5) + rng.uniform(-0.5, 0.5, n)
    peak = np.exp(rng.uniform(np.log(2e3), np.log(9e4), n))
    flux = peak / PEAK
    for k in range(n):
        field = PsfField(FWHM * (1 + per_peak * peak[k] / 1e5), e1=0.04, aureole_fraction=0.0)
        field.draw(image, x[k], y[k], flux[k])
    data = (rng.poisson(image) - SKY_E).astype(np.float32)
    # The light within the stamp's circle is what the model calls all of it.
    cut = cut_stars(data, np.full(data.shape, 1 / SKY_E, np.float32), x, y, 0.99 * flux, SIZE, 1.0)
    return cut, build(cut, 0, data.shape, FWHM)


@pytest.mark.parametrize("per_peak", [0.0, 0.01, 0.03])
def test_growth_is_measured_within_its_error(per_peak):
    found = np.array([growth(*stamps_that_grow(per_peak, seed), 2 * FWHM) for seed in range(8)])
    pulls = (found[:, 0] - SEEN * per_peak) / found[:, 1]
    assert found[:, 1].max() < 0.002
    assert abs(pulls.mean()) < 1.0
    assert 0.6 < np.sqrt(np.mean((pulls - pulls.mean()) ** 2)) < 1.5


def test_a_wider_star_is_as_much_wider():
    _, psf = stamps_that_grow(0.0, 3)
    wide, _ = stamps_that_grow(0.04, 3)
    widths, errors = relative_widths(wide, psf, 2 * FWHM)
    peaks = wide.flux / 0.99 * PEAK / 1e5
    pulls = (widths - SEEN * 0.04 * peaks) / errors
    assert abs(np.median(pulls)) < 0.5
    assert 1.4826 * np.median(np.abs(pulls)) == pytest.approx(1, abs=0.3)


def test_few_stars_and_stars_of_one_peak_cannot_tell():
    cut, psf = stamps_that_grow(0.02, 5)
    assert np.isnan(growth(cut.select(np.arange(6)), psf, 2 * FWHM)).all()
    faint = np.flatnonzero(cut.flux < 1.5 * cut.flux.min())
    assert np.isnan(growth(cut.select(np.resize(faint, 12)), psf, 2 * FWHM)).all()
