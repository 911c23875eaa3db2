import numpy as np
import pytest
from scipy.special import erf

from seechange_core.frames import PsfModel
from seechange_core.numerics.psf import constant, draw, evaluate, shift


def gaussian(size, fwhm, dx=0.0, dy=0.0):
    """A Gaussian integrated over pixels: exact at every sub-pixel phase."""
    sigma = fwhm / 2.3548200450309493
    steps = np.arange(size) - size // 2

    def row(centre):
        low, high = (steps - centre - 0.5) / sigma, (steps - centre + 0.5) / sigma
        return 0.5 * (erf(high / np.sqrt(2)) - erf(low / np.sqrt(2)))

    return np.outer(row(dy), row(dx))


def centroid(stamp):
    y, x = np.indices(stamp.shape) - stamp.shape[0] // 2
    return (stamp * x).sum() / stamp.sum(), (stamp * y).sum() / stamp.sum()


@pytest.mark.parametrize(
    ("fwhm", "worst"), [(2.0, 5e-3), (2.5, 3e-3), (3.0, 1.2e-3), (4.0, 2e-4), (6.0, 2e-5)]
)
@pytest.mark.parametrize("step", [(0.5, -0.5), (0.31, 0.07), (-2.4, 3.8)])
def test_shift_keeps_flux_and_centroid_and_profile(fwhm, worst, step):
    moved = shift(gaussian(41, fwhm), *step)
    truth = gaussian(41, fwhm, *step)
    assert moved.sum() == pytest.approx(1, abs=2e-6)
    assert centroid(moved.astype(float)) == pytest.approx(step, abs=1e-5)
    assert np.abs(moved - truth).max() < worst * truth.max()


def test_shift_there_and_back_is_identity():
    stamp = gaussian(31, 3.5)
    assert shift(shift(stamp, 0.3, 0.4), -0.3, -0.4) == pytest.approx(stamp, abs=2e-3 * stamp.max())
    assert shift(stamp, 0, 0) == pytest.approx(stamp, abs=1e-7)


def test_shift_broadcasts_and_keeps_shape():
    stamps = np.stack([gaussian(21, 3), gaussian(21, 4)])
    assert shift(stamps, 0.2, np.array([0.1, 0.3])).shape == (2, 21, 21)
    assert shift(stamps[0], np.array([0.1, 0.2, 0.3]), 0.0).shape == (3, 21, 21)


def test_evaluate_follows_the_polynomial():
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(6, 5, 5)).astype(np.float32)
    model = PsfModel(coefficients, 2, (50.0, 40.0), (100.0, 80.0), 3.0)
    u, v = 0.2, -0.25
    expected = sum(c * t for c, t in zip(coefficients, [1, u, v, u * u, u * v, v * v], strict=True))
    stamps = evaluate(model, [70.0, 50.0], [20.0, 40.0])
    assert stamps.dtype == np.float32
    assert stamps[0] == pytest.approx(expected, abs=1e-6)
    assert stamps[1] == pytest.approx(coefficients[0], abs=1e-6)


def test_constant_normalises_and_measures_fwhm():
    model = constant(7 * gaussian(41, 4.0))
    assert model.coefficients.sum() == pytest.approx(1, abs=1e-6)
    # Pixels widen a Gaussian of 4.0 to sqrt(4^2 + 2.355^2 / 12) = 4.06.
    assert model.fwhm_pix == pytest.approx(4.057, rel=0.01)
    with pytest.raises(ValueError, match="odd side"):
        constant(np.ones((4, 4)))
    with pytest.raises(ValueError, match="positive sum"):
        constant(np.zeros((5, 5)))


def test_draw_matches_exact_pixels_and_handles_edges():
    model = constant(gaussian(41, 4.0))
    image = draw(model, np.array([50.3, -1.0, np.nan, 500.0]), np.array([60.7, 30.0, 5.0, 5.0]),
                   np.array([1000.0, 1000.0, 1.0, 1.0]), (100, 120))  # fmt: skip
    exact = 1000 * gaussian(41, 4.0, 0.3, -0.3)
    assert image[41:82, 30:71] == pytest.approx(exact, abs=2e-4 * exact.max())
    left = 1000 * gaussian(41, 4.0)[:, 21:].sum()
    assert image.sum() == pytest.approx(1000 + left, rel=1e-4)
