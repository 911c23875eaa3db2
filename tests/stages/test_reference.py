from dataclasses import replace

import numpy as np
import pytest

from seechange_core.errors import NoReference
from seechange_core.flags import PixelFlag
from seechange_core.frames import Box, CalibratedImage, ZeroPointSolution
from seechange_core.numerics import coaddition
from seechange_core.numerics.alignment import align
from seechange_core.numerics.background import level_map
from seechange_core.numerics.noise_spectrum import coadd_noise_power
from seechange_core.numerics.regions import PIXEL_RATIO
from seechange_core.stages.extract import ExtractParams, extract
from seechange_core.stages.reference import (
    InputFacts,
    ReferenceParams,
    coadd,
    coadds_without_each,
    select_inputs,
)
from seechange_core.stages.subtract import SubtractParams, subtract

SIDE = 384


@pytest.fixture(scope="module")
def stack(make_sky, make_wcs):
    """Five dithered images of other seeing and transparency; cosmic-ray leftovers in each one."""
    sky = make_sky(seed=1, side=SIDE, n_stars=150, n_galaxies=15, n_transients=10)
    rng = np.random.default_rng(5)
    images = []
    for i, fwhm in enumerate((4.2, 4.5, 5.6, 4.8, 4.0)):
        wcs = make_wcs(SIDE, rotation_deg=rng.uniform(-0.4, 0.4), shift=rng.uniform(-9, 9, 2))
        image = sky.image(fwhm, wcs, zp=25 + rng.uniform(-0.2, 0.2), label=f"in{i}", vary=0.02)
        data = image.image.data.copy()
        for _ in range(15):
            y, x = rng.integers(30, SIDE - 30, 2)
            data[y : y + 2, x : x + 3] += rng.uniform(200, 2500)
        zero_point = replace(image.zero_point, limiting_mag=23.0 + 0.1 * i)
        images.append(replace(image, image=replace(image.image, data=data), zero_point=zero_point))
    return sky, images, make_wcs(SIDE, shift=(3.3, 7.7))


def test_noise_is_what_the_weight_says_and_flux_is_kept(stack):
    sky, images, grid = stack
    result = coadd(images, grid, ReferenceParams())
    assert result.zero_point == images[4].zero_point.zp  # the deepest one's
    assert result.used == (0, 1, 2, 3, 4)
    usable = result.image.weight > 0
    x, y = grid.to_pixels(*sky.wcs.to_sky(sky.x, sky.y))
    free = np.ones((SIDE, SIDE), bool)
    gx, gy = grid.to_pixels(*sky.wcs.to_sky(sky.gx, sky.gy))
    for a, b, f in zip([*x, *gx], [*y, *gy], [*sky.flux, *sky.g_flux], strict=True):
        r = 11 + int(min(25, f**0.5 / 25))
        free[max(0, int(b) - r) : max(0, int(b) + r + 1), max(0, int(a) - r) : max(0, int(a) + r + 1)] = False
    pixels = (result.image.data * np.sqrt(result.image.weight))[free & usable]
    # Interpolation takes 8 % off the pixels' scatter; the weight is that of sums over many pixels.
    assert np.std(pixels) == pytest.approx(0.92, abs=0.02)
    assert abs(np.mean(pixels)) < 0.03
    bright = (sky.flux > 2e4) & (np.minimum(x, y) > 35) & (np.maximum(x, y) < SIDE - 35)
    alone = np.array(
        [np.sort(np.hypot(sky.x - a, sky.y - b))[1] > 12 for a, b in zip(sky.x, sky.y, strict=True)]
    )
    scale = 10 ** (0.4 * (result.zero_point - 25))
    for a, b, f in zip(x[bright & alone], y[bright & alone], sky.flux[bright & alone], strict=True):
        stamp = result.image.data[round(b) - 8 : round(b) + 9, round(a) - 8 : round(a) + 9]
        assert stamp.sum() / (f * scale) == pytest.approx(0.985, abs=0.04)


def test_light_is_as_noisy_as_the_images_that_made_a_pixel(stack):
    """On the left only the last one reaches: there its photons are counted, elsewhere those of all five."""
    _, images, grid = stack
    parts = []
    for one in images[:4]:
        frame, weight = one.image, one.image.weight.copy()
        weight[:, : SIDE // 3] = 0
        parts.append(replace(one, image=replace(frame, weight=weight)))
    result = coadd([*parts, images[4]], grid, ReferenceParams())
    level = replace(images[4].background, level=np.zeros((2, 2), np.float32))
    zero_point = ZeroPointSolution(result.zero_point, 0.002, "r")
    ref = CalibratedImage(result.image, level, images[4].psf, grid, zero_point)
    new = replace(images[4], wcs=grid, zero_point=zero_point)
    photons = align(new, [ref], Box(0, SIDE, 0, SIDE)).photon_variance
    assert np.median(photons[50:-50, 30:100]) == pytest.approx(1.0, rel=0.02)  # the gain of each is 1
    scales = 10 ** (0.4 * (result.zero_point - np.array([one.zero_point.zp for one in images])))
    shares = np.array([one.psf.fwhm_pix**-2 for one in images]) / scales**2
    together = np.sum(shares**2 * scales) / shares.sum() ** 2
    assert np.median(photons[50:-50, 240:350]) == pytest.approx(together, rel=0.1)


def test_outliers_are_clipped_and_stars_are_not(stack, make_sky):
    sky, images, grid = stack
    result = coadd(images, grid, ReferenceParams())
    assert np.all(result.clipped_fraction < 4e-3)
    assert np.all(result.clipped_fraction > 3e-4)
    # Without cosmic rays almost nothing is clipped, whatever the seeing does to star cores.
    clean = [sky.image(f, i.wcs, vary=0.02) for f, i in zip((4.0, 5.0, 6.5, 4.4, 4.0), images, strict=True)]
    quiet = coadd(clean, grid, ReferenceParams())
    assert quiet.clipped_fraction.max() < 1e-4


def test_tilted_zero_points_leave_no_tilt_in_the_coadd(stack, tilted):
    """Stars of inputs with opposite tilts, one far deeper, come out as those of inputs without any."""
    sky, images, grid = stack
    flat = [images[0], replace(images[1], image=replace(images[1].image, weight=images[1].image.weight / 9))]
    x, y = (np.round(v).astype(int) for v in grid.to_pixels(*sky.wcs.to_sky(sky.x, sky.y)))
    bright = (sky.flux > 5e3) & (np.minimum(x, y) > 20) & (np.maximum(x, y) < SIDE - 20)
    for inputs, tilts in ((flat, (0.05, -0.05)), (flat[:1], (0.05,))):
        params = ReferenceParams(clip_sigma=50.0)
        expected = coadd(inputs, grid, params)
        found = coadd([tilted(i, t) for i, t in zip(inputs, tilts, strict=True)], grid, params)
        ratio = [
            np.divide(*(r.image.data[b - 4 : b + 5, a - 4 : a + 5].sum() for r in (found, expected)))
            for a, b in zip(x[bright], y[bright], strict=True)
        ]
        assert np.ptp(x[bright]) > 0.7 * SIDE
        assert np.array(ratio) == pytest.approx(1, abs=5e-4)
        both = (found.image.weight > 0) & (expected.image.weight > 0)
        assert found.image.weight[both] == pytest.approx(expected.image.weight[both], rel=2e-3)
        assert found.zero_point == expected.zero_point


def test_source_noise_follows_from_the_gain(make_sky, make_wcs):
    """Stacks of flat light: the scatter above the sky's must be data / gain."""
    sky = make_sky(seed=3, side=192, n_stars=0, n_galaxies=0, n_transients=1)
    rng = np.random.default_rng(1)
    grid, light = make_wcs(192, shift=(2.5, 3.5)), 5e4
    images = []
    for i, zp in enumerate((25.0, 24.6, 25.2)):
        image = sky.image(4.5, make_wcs(192, shift=rng.uniform(-4, 4, 2)), zp=zp, label=str(i))
        electrons = light * 10 ** (0.4 * (zp - 25))
        data = image.image.data + rng.normal(electrons, electrons**0.5, (192, 192))
        images.append(replace(image, image=replace(image.image, data=data.astype(np.float32))))
    result = coadd(images, grid, ReferenceParams(clip_sigma=50.0))
    inner = result.image.data[24:168, 24:168].reshape(12, 12, 12, 12).mean((1, 3))
    variance = (np.mean(inner) / result.image.gain + 1 / np.median(result.image.weight)) / 144
    assert np.std(inner) == pytest.approx(np.sqrt(variance), rel=0.15)


def test_leaving_out_in_one_pass_equals_leaving_out_by_hand(stack):
    _, images, grid = stack
    for k, result in enumerate(coadds_without_each(images, grid, ReferenceParams())):
        rest = [image for i, image in enumerate(images) if i != k]
        direct = coadd(rest, grid, ReferenceParams())
        scale = np.float32(10 ** (0.4 * (direct.zero_point - result.zero_point)))
        both = (result.image.weight > 0) & (direct.image.weight > 0)
        sigmas = ((result.image.data * scale - direct.image.data) * np.sqrt(direct.image.weight))[both]
        assert k not in result.used
        assert np.std(sigmas) < 0.12  # the clipping sees one image less
        assert np.mean(np.abs(sigmas) > 0.5) < 2e-3
        assert result.image.gain / scale == pytest.approx(direct.image.gain, rel=1e-4)
    with pytest.raises(NoReference, match="nothing left"):
        next(coadds_without_each(images[:1], grid, ReferenceParams()))


@pytest.mark.parametrize("ratio", [PIXEL_RATIO, 1.0])
def test_noise_has_the_spectrum_that_the_subtraction_expects(ratio, make_sky, make_wcs):
    """Pure noise in eight dithers that are shifts alone: pixels alike are read at one phase."""
    side, rng = 416, np.random.default_rng(3)
    one = make_sky(seed=8, side=side, n_stars=2, n_galaxies=1, n_transients=1).image(4.0, make_wcs(side))
    images = []
    for shift in rng.uniform(-6, 6, (8, 2)):
        noise = level_map(one.background) + rng.normal(0, 30, (side, side)).astype(np.float32)
        frame = replace(one.image, data=noise, weight=np.full_like(noise, 1 / 900))
        wcs = make_wcs(side, shift=(round(shift[0]) + 0.1, shift[1]))
        images.append(replace(one, image=frame, wcs=wcs))
    result = coadd(images, make_wcs(side, scale=0.27 * ratio), ReferenceParams())
    inner = slice(32, 32 + 336)
    pixels = (result.image.data * np.sqrt(result.image.weight))[inner, inner]
    power = np.abs(np.fft.rfft2(pixels - pixels.mean())) ** 2 / pixels.size
    expected = coadd_noise_power(336, ratio)
    fy, fx = np.abs(np.fft.fftfreq(336))[:, None], np.fft.rfftfreq(336)
    bands = [(np.maximum(fx, fy) >= f) & (np.maximum(fx, fy) < f + 0.1) for f in (0, 0.2, 0.3, 0.4)]
    found = [power[band].sum() / expected[band].sum() for band in bands]
    assert found[:3] == pytest.approx([1, 1, 1], abs=0.04)
    if ratio == 1:
        assert found[3] > 1.08  # most of these dithers are near a phase that leaves the noise as it is
    else:
        assert found[3] == pytest.approx(1, abs=0.03)


def test_tiles_make_no_difference(stack, monkeypatch):
    _, images, grid = stack
    whole = coadd(images, grid, ReferenceParams())
    monkeypatch.setattr(coaddition, "_TILE_BYTES", 15.0 * 130**2 * 5)
    banded = coadd(images, grid, ReferenceParams())
    different = np.abs(banded.image.data - whole.image.data) * np.sqrt(whole.image.weight)
    assert np.quantile(different, 0.999) < 2e-3


def test_saturation_by_majority_and_missing_pixels(stack):
    _, images, grid = stack
    flagged = []
    for i, image in enumerate(images):
        x, y = (round(float(v)) for v in image.wcs.to_pixels(*grid.to_sky(200, 150)))
        flags, weight = image.image.flags.copy(), image.image.weight.copy()
        bit = PixelFlag.SATURATED if i < 3 else PixelFlag.BAD_PIXEL
        flags[y - 1 : y + 2, x - 1 : x + 2], weight[y - 1 : y + 2, x - 1 : x + 2] = bit, 0
        flagged.append(replace(image, image=replace(image.image, flags=flags, weight=weight)))
    result = coadd(flagged, grid, ReferenceParams())
    assert result.image.flags[150, 200] & PixelFlag.SATURATED
    assert result.image.weight[150, 200] == 0
    two = coadd(flagged[2:], grid, ReferenceParams())
    assert two.image.flags[150, 200] == PixelFlag.NO_DATA


def test_pixels_of_few_images_count_by_their_weight(stack):
    _, images, grid = stack
    result = coadd(images, grid, ReferenceParams())
    x, y = np.meshgrid(np.arange(SIDE, dtype=float), np.arange(SIDE, dtype=float))
    reached, touched = np.zeros((2, SIDE, SIDE), int)
    for image in images:
        px, py = image.wcs.to_pixels(*grid.to_sky(x.ravel(), y.ravel()))
        rim = np.minimum.reduce([px, py, SIDE - 1 - px, SIDE - 1 - py]).reshape(SIDE, SIDE)
        reached += rim > 1
        touched += rim > -1
    image = result.image
    full = np.median(image.weight[reached == 5])
    for n in (1, 2):
        few = (reached == n) & (touched == n)
        assert few.sum() > 100
        assert np.mean(image.weight[few] > 0) > 0.99
        # Seeing and transparency make inputs differ by a factor of two.
        assert 0.5 * n / 5 < np.median(image.weight[few]) / full < 1.8 * n / 5
        blank = few & (np.abs(image.data) < 5 / np.sqrt(np.maximum(image.weight, 1e-9)))
        assert np.std((image.data * np.sqrt(image.weight))[blank]) < 1.1
        three = coadd(images, grid, ReferenceParams(min_inputs=3)).image
        assert np.all(three.flags[few] == PixelFlag.OUT_OF_BOUNDS)
        assert not three.weight[few].any()
    assert np.all(image.flags[touched == 0] == PixelFlag.OUT_OF_BOUNDS)
    # Asking for more than there are leaves those that all reach.
    many = coadd(images, grid, ReferenceParams(min_inputs=9)).image
    sure = reached == touched
    assert np.all((many.weight > 0)[sure & (reached == 5)] == (image.weight > 0)[sure & (reached == 5)])
    assert not many.weight[sure & (reached < 5)].any()
    assert np.all(result.thin[sure] == (reached[sure] < 2.5))


def test_hits_on_pixels_of_one_image_are_not_taken_for_stars(make_sky, make_wcs):
    """Three images lie on each other, a fourth one reaches on alone: its hits there cannot be clipped."""
    sky = make_sky(seed=6, side=SIDE, n_stars=90, n_galaxies=2, n_transients=1)
    sky.flux = sky.rng.uniform(1e4, 8e4, sky.n_stars)
    shifts = ((1.4, 0.6), (-2.2, 1.7), (0.3, -1.1), (-90.0, 0.2))
    images = [sky.image(4.5, make_wcs(SIDE, shift=s), label=str(i)) for i, s in enumerate(shifts)]
    data, rng = images[3].image.data.copy(), np.random.default_rng(7)
    for y, x in zip(rng.integers(20, SIDE - 20, 60), rng.integers(SIDE - 80, SIDE - 8, 60), strict=True):
        data[y : y + 2, x : x + 2] += rng.uniform(5e3, 2e4)
    images[3] = replace(images[3], image=replace(images[3].image, data=data))
    result = coadd(images, make_wcs(SIDE, shift=(-40.0, 0.0)), ReferenceParams())
    blind, knowing = (extract(result.image, ExtractParams(), trusted) for trusted in (None, ~result.thin))
    assert blind.psf.fwhm_pix < 4.0
    # Interpolated once: 1.5 % wider than 4.5.
    assert knowing.psf.fwhm_pix == pytest.approx(4.55, abs=0.1)


def test_sources_are_listed_where_nothing_is_trusted_for_the_psf(make_sky, make_wcs):
    """Hits that nothing has clipped on the right: the PSF is that of the left, the stars are of both."""
    sky = make_sky(seed=6, side=SIDE, n_stars=90, n_galaxies=2, n_transients=1)
    sky.flux = sky.rng.uniform(1e4, 8e4, sky.n_stars)
    image, rng = sky.image(4.5, make_wcs(SIDE)).image, np.random.default_rng(7)
    data, trusted = image.data.copy(), np.ones(image.shape, bool)
    trusted[:, SIDE // 2 :] = False
    for y, x in zip(rng.integers(20, SIDE - 20, 40), rng.integers(SIDE // 2, SIDE - 8, 40), strict=True):
        data[y : y + 2, x : x + 2] += rng.uniform(5e3, 2e4)
    found = extract(replace(image, data=data), ExtractParams(), trusted)
    assert found.psf.fwhm_pix == pytest.approx(4.5, abs=0.1)
    right = np.flatnonzero((sky.x > SIDE // 2 + 8) & (sky.x < SIDE - 8) & (np.abs(sky.y - SIDE / 2) < 180))
    listed = found.sources
    apart = np.hypot(listed.x - sky.x[right, None], listed.y - sky.y[right, None])
    near = apart.argmin(axis=1)
    assert len(right) > 25
    assert np.mean(apart.min(axis=1) < 1) > 0.9
    assert np.median(listed.flux_psf[near] / sky.flux[right]) == pytest.approx(1, abs=0.05)


def test_a_coadd_serves_as_a_reference(stack, make_sky):
    sky, images, grid = stack
    result = coadd(images, grid, ReferenceParams())
    shares = np.array(
        [np.median(i.image.weight) * 10 ** (0.8 * i.zero_point.zp) / i.psf.fwhm_pix**2 for i in images]
    )
    shares /= shares.sum()
    stamps = sum(s * i.psf.coefficients for s, i in zip(shares, images, strict=True))
    fwhm = float(sum(s * i.psf.fwhm_pix for s, i in zip(shares, images, strict=True)))
    psf = replace(images[0].psf, coefficients=stamps.astype(np.float32), fwhm_pix=fwhm)
    empty = replace(images[0].background, level=np.zeros((2, 2), np.float32))
    zero_point = ZeroPointSolution(result.zero_point, 0.002, "r")
    ref = CalibratedImage(result.image, empty, psf, grid, zero_point, "coadd")
    new = sky.image(4.6, transients=True)
    sub = subtract(new, [ref], SubtractParams())
    blank = sky.blank() & (sub.image.weight > 0)
    assert np.std((sub.image.data * np.sqrt(sub.image.weight))[blank]) == pytest.approx(1, abs=0.02)
    assert np.std(sub.score[blank]) == pytest.approx(1, abs=0.05)
    # At the rim not all inputs contribute and the coadd's PSF is another one.
    y, x = np.nonzero(np.abs(sub.score[16:-16, 16:-16]) > 6)
    assert not sky.static(x + 16, y + 16, radius=20).any()


def test_inputs_are_chosen_with_reasons(stack):
    facts = [
        InputFacts("sharp", 1.0, 23.0),
        InputFacts("deep", 1.2, 23.4),
        InputFacts("blurred", 2.4, 23.1),
        InputFacts("shallow", 1.1, 21.5),
        InputFacts("unknown", 1.1, float("nan")),
        InputFacts("good", 1.1, 22.9),
    ]
    chosen = select_inputs(facts, ReferenceParams(max_images=2, min_images=2))
    assert [facts[i].label for i in chosen.chosen] == ["deep", "sharp"]
    assert set(chosen.rejected) == {"blurred", "shallow", "unknown", "good"}
    assert "seeing 2.40" in chosen.rejected["blurred"]
    assert "limiting magnitude 21.50" in chosen.rejected["shallow"]
    strict = select_inputs(facts, ReferenceParams(max_seeing_arcsec=1.05, min_images=1))
    assert [facts[i].label for i in strict.chosen] == ["sharp"]
    with pytest.raises(NoReference, match=r"1 of 6 .* 3 needed .*set reference\.min_images to 1"):
        select_inputs(facts, ReferenceParams(max_seeing_arcsec=1.05))
    with pytest.raises(NoReference, match="0 of 0"):
        select_inputs([], ReferenceParams())


def test_nothing_to_combine_is_a_stop(stack, make_wcs):
    _, images, grid = stack
    with pytest.raises(NoReference):
        coadd([], grid, ReferenceParams())
    with pytest.raises(NoReference, match="touches the grid"):
        coadd(images, make_wcs(SIDE, ra=120.0), ReferenceParams())
