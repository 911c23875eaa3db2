import numpy as np
import pytest

from seechange_core.errors import NoStars
from seechange_core.frames import ImageFrame
from seechange_core.numerics.psf import evaluate
from seechange_core.simulate.psf import PsfField
from seechange_core.simulate.scene import make_psf_field, scene, simulate_image
from seechange_core.stages.extract import ExtractParams, extract


def extracted(s, flags=None, **options):
    flags = np.zeros(s.shape, np.uint16) if flags is None else flags
    weight = np.where(flags > 0, 0, 1 / s.background_variance).astype(np.float32)
    return extract(ImageFrame(s.data, weight, flags, 60.0, **options), ExtractParams())


def residual(s, found, fwhm):
    """Misfit of the model in the middle, sqrt(sum of squares) within 3 FWHM, relative to the true PSF."""
    y, x = s.shape[0] // 2, s.shape[1] // 2
    size = found.psf.size
    inside = np.hypot(*np.indices((size, size)) - size // 2) <= 3 * fwhm
    model, true = evaluate(found.psf, x, y)[0] * inside, s.psf(x, y, size) * inside
    model, true = model / model.sum(), true / true.sum()
    return np.sqrt(np.sum((model - true) ** 2) / np.sum(true**2))


@pytest.mark.parametrize(("fwhm", "worst"), [(2.0, 0.01), (4.0, 0.02)])
def test_a_crowd_of_half_a_source_per_hundred_pixels_has_stars(fwhm, worst):
    s = scene((512, 512), 1310, seed=1, fwhm_pix=fwhm, flux_range=(300.0, 5e5), psf_variation=0.0)
    found = extracted(s)
    assert found.psf.n_stars >= 40
    assert residual(s, found, fwhm) < worst


def test_fifteen_stars_among_ten_times_as_many_galaxies():
    rng = np.random.default_rng(4)
    shape, fwhm = (1500, 1500), 4.0
    stars = scene(shape, 15, seed=2, fwhm_pix=fwhm, flux_range=(2e4, 3e5), psf_variation=0.0, border_pix=40)
    light = stars.expected.copy()
    for _ in range(150):
        x, y = rng.uniform(30, 1470, 2)
        wide = fwhm * np.sqrt(1 + rng.uniform(0.3, 1.5) ** 2)
        galaxy = PsfField(wide, e1=rng.uniform(-0.2, 0.2), e2=rng.uniform(-0.2, 0.2))
        galaxy.draw(light, x, y, rng.uniform(2e4, 3e5))
    data = rng.poisson(light).astype(np.float32)
    weight = (1 / stars.background_variance).astype(np.float32)
    found = extract(ImageFrame(data, weight, np.zeros(shape, np.uint16), 60.0), ExtractParams())
    assert 8 <= found.psf.n_stars <= 18
    true = float(stars.psf(750, 750, found.psf.size, unit_sum=True).max())
    assert evaluate(found.psf, 750, 750)[0].max() == pytest.approx(true, rel=0.02)


@pytest.mark.parametrize(("fwhm", "worst"), [(1.3, 0.04), (12.0, 0.05)])
def test_very_sharp_and_very_wide_stars(fwhm, worst):
    s = scene((700, 700), 100, seed=6, fwhm_pix=fwhm, flux_range=(3e3 * fwhm, 3e5 * fwhm), psf_variation=0.0)
    found = extracted(s)
    assert found.psf.n_stars >= 40
    assert residual(s, found, fwhm) < worst


def test_two_fifths_of_the_pixels_masked():
    s = scene((600, 600), 120, seed=7, fwhm_pix=4.0, flux_range=(1e4, 5e5), psf_variation=0.0)
    flags = (np.random.default_rng(0).random(s.shape) < 0.4).astype(np.uint16)
    found = extracted(s, flags)
    assert found.psf.n_stars >= 20
    assert residual(s, found, 4.0) < 0.03


def test_the_message_counts_why_stars_fail():
    s = simulate_image(
        (300, 300), [50.2, 150.4, 250.1, 60.7], [50.3, 140.2, 240.8, 200.1], [1e6, 1e6, 700.0, 800.0],
        psf_field=make_psf_field((300, 300), 4.0), sky_e=50.0,
    )  # fmt: skip
    with pytest.raises(NoStars, match=r"0 of \d+ sources .* 5 are needed: \d+ too faint, 2 too bright"):
        extracted(s, saturation_e=2e4)
