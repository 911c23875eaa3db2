import numpy as np
import pytest
from scipy.spatial import cKDTree

from seechange_core.errors import DeadSection, NoStars, PixelsError
from seechange_core.flags import PixelFlag
from seechange_core.frames import ImageFrame
from seechange_core.numerics.background import level_map
from seechange_core.numerics.psf import fwhm
from seechange_core.simulate.scene import scene
from seechange_core.stages.extract import ExtractParams, extract


def image_of(data, variance, flags=None, **options):
    flags = np.zeros(data.shape, np.uint16) if flags is None else flags
    weight = np.where(flags > 0, 0, 1 / variance).astype(np.float32)
    return ImageFrame(data.astype(np.float32), weight, flags, 60.0, **options)


def image_of_scene(s):
    return image_of(s.data, s.background_variance)


def true_within(s, psf):
    """Return the true fluxes in the PSF's total-flux system: the light within its circle."""
    half = psf.size // 2
    inside = np.hypot(*np.indices((psf.size, psf.size)) - half) <= half
    return s.flux_e * np.array([s.psf(x, y, psf.size)[inside].sum() for x, y in zip(s.x, s.y, strict=True)])


def match(s, sources, radius=2.0):
    distance, row = cKDTree(np.c_[sources.x, sources.y]).query(np.c_[s.x, s.y])
    return distance < radius, row


def width(pulls):
    return 1.4826 * np.median(np.abs(pulls - np.median(pulls)))


ISOLATED = {"min_separation_pix": 30, "border_pix": 20, "flux_range": (300.0, 5e5)}


@pytest.fixture(scope="module")
def isolated():
    """Three fields of isolated stars with true fluxes and S/N, matched."""
    rows = []
    for seed in range(3):
        s = scene((1024, 1024), 450, seed=seed, psf_variation=0.03, **ISOLATED)
        found = extract(image_of_scene(s), ExtractParams())
        near, row = match(s, found.sources)
        area = 4 * np.pi * (4.1 / 2.355) ** 2 * 1.25
        snr = s.flux_e / np.sqrt(s.flux_e + s.background_variance[0, 0] * area)
        true = true_within(s, found.psf)
        # The common scale is as good as the sum over the PSF's wings: a sky 0.005 of its rms too high takes
        # 0.1 % off them. A zero point takes it up.
        bright = near & (snr > 100)
        scale = np.median(found.sources.flux_psf[row[bright]] / true[bright])
        assert scale == pytest.approx(1, abs=0.004)
        rows.append((s, found, near, row, snr, scale * true))
    return rows


@pytest.mark.parametrize(("low", "high"), [(6, 12), (12, 30), (30, 100), (100, 700)])
def test_pulls_of_isolated_stars(isolated, low, high):
    pulls = {"flux": [], "x": [], "y": []}
    for s, found, near, row, snr, true in isolated:
        use = near & (snr > low) & (snr < high)
        q = found.sources.select(row[use])
        pulls["flux"].append((q.flux_psf - true[use]) / q.flux_psf_err)
        pulls["x"].append((q.x - s.x[use]) / q.x_err)
        pulls["y"].append((q.y - s.y[use]) / q.y_err)
    for name, values in pulls.items():
        joined = np.concatenate(values)
        n = len(joined)
        assert n > 80
        assert width(joined) == pytest.approx(1, abs=0.1 + 3 / np.sqrt(2 * n)), name
        assert abs(np.median(joined)) < 0.1 + 3 * 1.25 / np.sqrt(n), name


def test_completeness_purity_and_stars(isolated):
    for s, found, near, _, snr, _ in isolated:
        # Threshold 4.25: of the stars at 8, 1 in 11,000 is below it, of those from 5 to 8 one in thirty.
        assert near[snr > 8].mean() > 0.99
        assert near[(snr > 5) & (snr < 8)].mean() > 0.85
        back, _ = cKDTree(np.c_[s.x, s.y]).query(np.c_[found.sources.x, found.sources.y])
        assert np.sum(back > 4) <= 10
        real = found.sources.select(back < 1)
        assert real.is_star[real.snr > 20].mean() > 0.98
        assert not real.blended.mean() > 0.05


def test_psf_and_background(isolated):
    for s, found, *_ in isolated:
        # Cosines of 0.75 % beside the quadratic: seen by stars of S/N 100 to 700.
        assert found.psf.degree >= 2
        assert 0 < found.psf.floor < 0.002
        middle = s.psf(511, 511, found.psf.size).astype(np.float32)
        # `fwhm` counts eighths of a pixel squared: good to 0.5 %.
        assert found.psf.fwhm_pix == pytest.approx(fwhm(middle), rel=0.006)
        bias = (level_map(found.background).mean() - s.sky_e) / np.sqrt(s.background_variance[0, 0])
        # The limit, with 80 % of the pixels, is 0.001; faint stars and wings add to it.
        assert abs(bias) < 0.01


def test_apertures_approach_the_total(isolated):
    s, found, near, row, snr, true = isolated[0]
    use = near & (snr > 100)
    ratio = found.sources.flux_aper[row[use]] / true[use][:, None]
    middle = np.median(ratio, axis=0)
    assert np.all(np.diff(middle) > 0)
    half = found.psf.size // 2
    stamp, radius = s.psf(511, 511, found.psf.size), np.hypot(*np.indices((2 * half + 1,) * 2) - half)
    # Whole pixels tell the light in circles well enough where little of it is at their rims.
    within = [stamp[radius <= k * found.psf.fwhm_pix].sum() / stamp[radius <= half].sum() for k in (2, 3, 5)]
    assert middle[0] == pytest.approx(0.838, abs=0.02)
    assert middle[1:] == pytest.approx(within, abs=0.003)
    assert s.data.dtype == np.float32


def test_saturated_star_is_one_flagged_source_and_no_psf_star():
    s = scene((512, 512), 80, seed=4, **ISOLATED)
    limit = 5000.0
    flags = np.where(s.data >= limit, int(PixelFlag.SATURATED), 0).astype(np.uint16)
    found = extract(
        image_of(np.minimum(s.data, limit), s.background_variance, flags, saturation_e=limit), ExtractParams()
    )
    near, row = match(s, found.sources)
    hit = (flags[np.rint(s.y).astype(int), np.rint(s.x).astype(int)] > 0) & near
    assert hit.sum() > 5
    assert np.all(found.sources.flags[row[hit]] & PixelFlag.SATURATED)
    back = cKDTree(np.c_[found.sources.x, found.sources.y]).query_ball_point(np.c_[s.x, s.y][hit], 10)
    assert all(len(found_near) == 1 for found_near in back)
    # Fitted on the wings alone, it still tells the flux to some percent.
    assert np.median(found.sources.flux_psf[row[hit]] / true_within(s, found.psf)[hit]) == pytest.approx(
        1, abs=0.05
    )


def test_bad_pixels_are_flagged_and_do_not_bias():
    s = scene((512, 512), 100, seed=5, **ISOLATED)
    rng = np.random.default_rng(0)
    flags = np.where(rng.random(s.shape) < 0.01, int(PixelFlag.BAD_PIXEL), 0).astype(np.uint16)
    data = np.where(flags > 0, rng.choice([np.nan, 1e6, -1e4], s.shape), s.data)
    found = extract(image_of(data, s.background_variance, flags), ExtractParams())
    near, row = match(s, found.sources)
    bright = near & (s.flux_e > 3000)
    assert near[s.flux_e > 3000].mean() > 0.97
    q = found.sources.select(row[bright])
    pulls = (q.flux_psf - true_within(s, found.psf)[bright]) / q.flux_psf_err
    assert abs(np.median(pulls)) < 0.6
    assert width(pulls) < 1.4


@pytest.mark.parametrize("fwhm_pix", [1.7, 2.5, 8.0])
def test_other_samplings(fwhm_pix):
    s = scene((768, 768), 150, seed=6, fwhm_pix=fwhm_pix, **{**ISOLATED, "flux_range": (3000.0, 3e5)})
    found = extract(image_of_scene(s), ExtractParams())
    near, row = match(s, found.sources)
    assert near.mean() > 0.99
    q = found.sources.select(row[near])
    ratio = q.flux_psf / true_within(s, found.psf)[near]
    assert np.median(ratio) == pytest.approx(1, abs=0.006)
    bright = s.flux_e[near] > 3e4
    # Photons and sky allow 0.0035 at FWHM 1.7 and 2.5, 0.005 at 8.
    assert width(ratio[bright]) < 0.007
    # A width of 150 pulls is good to 0.1.
    for pulls in ((q.x - s.x[near]) / q.x_err, (q.y - s.y[near]) / q.y_err):
        assert width(pulls) == pytest.approx(1, abs=0.3)


def test_same_input_same_output_and_input_untouched():
    s = scene((300, 300), 40, seed=7)
    image = image_of_scene(s)
    before = image.data.copy()
    first, second = extract(image, ExtractParams()), extract(image, ExtractParams())
    assert np.array_equal(image.data, before)
    for name, column in first.sources.columns().items():
        assert np.array_equal(column, getattr(second.sources, name), equal_nan=True), name
    assert np.array_equal(first.psf.coefficients, second.psf.coefficients)


def test_typed_stops():
    rng = np.random.default_rng(0)
    shape, variance = (256, 256), np.full((256, 256), 25.0)
    with pytest.raises(PixelsError, match="none of"):
        extract(image_of(np.full(shape, np.nan), variance), ExtractParams())
    with pytest.raises(PixelsError, match="none of"):
        extract(image_of(np.full(shape, 9.0), variance, np.ones(shape, np.uint16)), ExtractParams())
    with pytest.raises(DeadSection, match="every usable pixel is 0"):
        extract(image_of(np.zeros(shape), variance), ExtractParams())
    with pytest.raises(DeadSection, match="no source"):
        extract(image_of(rng.normal(0, 5, shape), variance), ExtractParams())
    with pytest.raises(NoStars, match="no source at all"):
        extract(image_of(rng.poisson(400, shape), np.full(shape, 400.0)), ExtractParams())
    with pytest.raises(NoStars, match="5 are needed"):
        extract(image_of_scene(scene(shape, 3, seed=1)), ExtractParams())
