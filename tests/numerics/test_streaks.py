"""Trails of known brightness are found and masked to their edges; nothing else is."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from seechange_core.numerics.radon import find_segments
from seechange_core.numerics.star_width import star_fwhm
from seechange_core.numerics.streaks import find_streaks
from seechange_core.simulate.scene import make_psf_field, scene
from seechange_core.simulate.trails import Trail, draw_trail, line_profile

SKY, READ = 500.0, 5.0
NOISE = np.sqrt(SKY + READ**2)
SHAPE = (700, 600)


class Field:
    """Stars, trails of a surface S/N on them, and the noise of all."""

    def __init__(self, fwhm=4.0, n_stars=150, seed=1, shape=SHAPE):
        self.stars = scene(shape, n_stars, seed, fwhm, SKY, READ, aureole_fraction=0.02)
        self.light = np.zeros(shape)
        self.fwhm, self.seed = fwhm, seed

    def add(self, snr, x, y, angle_deg, length=np.inf):
        ridge = float(line_profile(np.zeros(1))[0]) / self.fwhm
        trail = Trail(x, y, np.deg2rad(angle_deg), snr * NOISE / ridge, length)
        draw_trail(self.light, trail, self.stars.psf_field)
        return self

    def search(self, extra=0.0, **options):
        rng = np.random.default_rng(self.seed)
        data = rng.poisson(self.stars.expected + self.light + extra) - SKY
        data = (data + rng.normal(0, READ, data.shape)).astype(np.float32)
        excluded = data > 60_000
        variance = np.full(data.shape, NOISE**2, np.float32)
        kept = data.copy(), variance.copy(), excluded.copy()
        found = find_streaks(data, variance, excluded, **options)
        assert all(np.array_equal(a, b) for a, b in zip(kept, (data, variance, excluded), strict=True))
        return found


@pytest.mark.parametrize("fwhm", [2.0, 4.0])
@pytest.mark.parametrize("snr", [1.0, 3.0, 30.0])
@pytest.mark.parametrize("angle_deg", [3.0, 48.0, 90.0, 151.0])
def test_satellites_are_masked_from_edge_to_edge(fwhm, snr, angle_deg):
    field = Field(fwhm).add(snr, 280, 370, angle_deg)
    found = field.search()
    (streak,) = found.found
    assert abs((streak.angle_deg - angle_deg + 90) % 180 - 90) < 0.3
    assert streak.surface_snr == pytest.approx(snr, rel=0.2, abs=0.15)
    assert streak.brightness_e == pytest.approx(streak.surface_snr * NOISE, rel=1e-3)
    assert streak.width_pix == pytest.approx(np.hypot(fwhm, 0.9), rel=0.35)
    bright = field.light > NOISE
    assert found.mask[bright].mean() > 0.99 if bright.any() else True
    assert found.mask[field.light > 0.7 * field.light.max()].mean() > 0.99
    # Beyond the wings nothing is lost.
    assert not found.mask[field.light < 0.003 * NOISE].any()


def full_wells(light_e, rng, bleeds=False):
    """Data of an image, its sky taken off, and what is flagged: full pixels and those that touch them."""
    data = rng.poisson(light_e) - SKY + rng.normal(0, READ, light_e.shape)
    full = (data > 60_000) | bleeds
    return np.where(full, 60_000, data).astype(np.float32), binary_dilation(full, np.ones((3, 3)))


@pytest.mark.parametrize("snr", [300.0, 1000.0, 5000.0, 50_000.0])
@pytest.mark.parametrize("angle_deg", [0.4, 37.0, 89.6, 151.0])
def test_the_brightest_satellites_are_masked_as_well(snr, angle_deg):
    """From 2700 on the ridge is saturated, along columns and rows as well; the trail is drawn to 8 FWHM."""
    field = Field().add(snr, 280, 370, angle_deg)
    data, excluded = full_wells(field.stars.expected + field.light, np.random.default_rng(2))
    found = find_streaks(data, np.full(SHAPE, NOISE**2, np.float32), excluded)
    (streak,) = found.found
    assert abs((streak.angle_deg - angle_deg + 90) % 180 - 90) < 0.3
    assert (found.mask | excluded)[field.light > NOISE].mean() > 0.99
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    a = np.deg2rad(angle_deg)
    assert not found.mask[np.abs((x - 280) * np.sin(a) - (y - 370) * np.cos(a)) > 16 * field.fwhm].any()


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("edge_to_edge", [False, True])
@pytest.mark.parametrize("along_rows", [False, True])
def test_bleeding_stars_with_halos_are_no_trails(seed, edge_to_edge, along_rows):
    rng = np.random.default_rng(seed)
    field = Field(4.5, 150, seed, (1000, 900))
    y, x = np.mgrid[:1000, :900]
    light, bleeds = field.stars.expected.copy(), np.zeros((1000, 900), bool)
    for _ in range(8):
        u, v = x - rng.uniform(100, 800), y - rng.uniform(100, 900)
        light += 10 ** rng.uniform(5, 7) * (1 + 0.24 * (u**2 + v**2)) ** -1.5
        across, along = (v, u) if along_rows else (u, v)
        length, width = rng.uniform(60, 500), rng.uniform(0.5, 4)
        taper = 1 if edge_to_edge else np.maximum(0, 1 - np.abs(along) / length)
        bleeds |= np.abs(across) <= width * taper - 0.01
    data, excluded = full_wells(light, rng, bleeds)
    assert not find_streaks(data, np.full(data.shape, NOISE**2, np.float32), excluded).found


def test_two_crossing_satellites_of_unlike_brightness():
    field = Field().add(20.0, 300, 300, 35).add(1.0, 300, 400, 120)
    found = field.search()
    assert len(found.found) == 2
    assert found.mask[field.light > 0.7 * NOISE].mean() > 0.98


@pytest.mark.parametrize(("fwhm", "snr"), [(4.0, 3.0), (4.0, 10.0), (2.0, 5.0)])
def test_short_trails_have_ends(fwhm, snr):
    """Of ten on blank sky all are found, nine in ten pixels above the noise are masked, none far beyond."""
    places = [(100.0 + 130 * (i % 4), 90.0 + 200 * (i // 4)) for i in range(10)]
    field = Field(fwhm, 0)
    for i, (x, y) in enumerate(places):
        field.add(snr, x, y, 17 + 36.5 * i, (8 + i) * fwhm)
    found = field.search(fwhm_pix=fwhm)
    assert len(found.found) == 10
    for streak in found.found:
        i = int(
            np.argmin(
                [
                    np.hypot((streak.x0 + streak.x1) / 2 - x, (streak.y0 + streak.y1) / 2 - y)
                    for x, y in places
                ]
            )
        )
        # Half a FWHM is put on at either end.
        assert streak.length_pix == pytest.approx((9 + i) * fwhm, abs=2.5 * fwhm)
    assert found.mask[field.light > NOISE].mean() > 0.95
    assert not found.mask[field.light < 0.001 * NOISE].any()


def galaxy(x, y, light_e, scale, ratio, angle_deg, fwhm=4.0):
    """An inclined exponential disc, blurred."""
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    a = np.deg2rad(angle_deg)
    s, t = (u - x) * np.cos(a) + (v - y) * np.sin(a), (v - y) * np.cos(a) - (u - x) * np.sin(a)
    disc = np.exp(-np.hypot(s, t / ratio) / scale)
    ky, kx = np.fft.fftfreq(SHAPE[0])[:, None], np.fft.rfftfreq(SHAPE[1])
    sigma = fwhm / 2.3548
    blur = np.exp(-2 * np.pi**2 * sigma**2 * (kx**2 + ky**2))
    return light_e * np.fft.irfft2(np.fft.rfft2(disc / disc.sum()) * blur, SHAPE)


@pytest.mark.parametrize("light_e", [5e3, 3e4, 1e5, 4e5])
@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.2])
def test_edge_on_galaxies_are_no_trails(light_e, ratio):
    places = [(90.0 + 140 * (i % 4), 90.0 + 170 * (i // 4)) for i in range(16)]
    extra = sum(galaxy(x, y, light_e, 3 + 0.6 * i, ratio, 13 * i) for i, (x, y) in enumerate(places))
    assert find_nothing(Field(4.0, 0), np.maximum(extra, 0))


def find_nothing(field, extra=0.0, **options):
    return not field.search(extra, **options).found


@pytest.mark.parametrize("fwhm", [1.6, 3.0, 5.0])
@pytest.mark.parametrize("n_stars", [0, 200, 2000])
def test_stars_are_no_trails(fwhm, n_stars):
    assert find_nothing(Field(fwhm, n_stars, seed=n_stars + int(fwhm)), fwhm_pix=fwhm)


def test_rows_of_stars_steps_and_single_columns_are_no_trails():
    extra = np.zeros(SHAPE)
    psf = make_psf_field(SHAPE, 4.0)
    for k in range(14):
        psf.draw(extra, 40 + 16 * k, 300 + 3 * k, 2e4)
    extra[:, 200] += 60
    extra[:, 400:] += 20
    assert find_nothing(Field(4.0, 50), extra)


def test_halo_of_a_bright_star_and_its_fading_spikes_are_no_trails():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    r = np.hypot(x - 300, y - 350)
    spikes = np.exp(-0.5 * ((x - 300.2) / 1.7) ** 2) + np.exp(-0.5 * ((y - 350.3) / 1.7) ** 2)
    extra = 3e6 / (r**2 + 300) + 4000 * spikes * np.exp(-r / 40)
    assert find_nothing(Field(4.0, 50), extra)


def test_nothing_to_look_at():
    data, ones = np.zeros((64, 64), np.float32), np.ones((64, 64), np.float32)
    assert not find_streaks(data, ones, np.ones((64, 64), bool)).found
    assert not find_streaks(data, ones, np.zeros((64, 64), bool)).found


def test_significance_of_a_line_is_that_of_its_light():
    """1000 realisations' worth of pixels: a line of 0.8 sigma over 256 pixels, all directions alike."""
    rng = np.random.default_rng(3)
    expected = 0.8 * np.sqrt(256 / 1.5)
    measured = []
    for k in range(12):
        values = rng.normal(size=(256, 256))
        t = np.arange(256)
        line = np.rint(60 + 0.11 * k * t).astype(int)
        inside = line < 256
        rows, columns = (t[inside], line[inside]) if k % 2 else (line[inside], t[inside])
        values[rows, columns] += 0.8
        best = find_segments(
            np.clip(values, -3, 3).astype(np.float32), np.ones(values.shape, bool), threshold=5
        )[0]
        measured.append(best.significance / (expected * np.sqrt(inside.sum() / 256)))
    # The transform's own lines differ from these by half a pixel here and there.
    assert 0.7 < np.median(measured) < 1.05


def test_noise_has_no_lines():
    values = np.clip(np.random.default_rng(4).normal(size=(512, 256)), -3, 3).astype(np.float32)
    assert not find_segments(values, np.ones(values.shape, bool), threshold=6.5)


def test_values_that_would_overflow_are_refused():
    with pytest.raises(ValueError, match="cannot be summed"):
        find_segments(np.full((64, 64), 5, np.float32), np.ones((64, 64), bool), threshold=6)


@pytest.mark.parametrize("fwhm", [2.0, 4.0, 8.0])
def test_width_of_stars(fwhm):
    made = scene((512, 512), 60, 2, fwhm, SKY, READ, min_separation_pix=6 * fwhm, flux_range=(5e4, 3e5))
    data = made.data - np.float32(SKY)
    measured = star_fwhm(data, made.background_variance, np.zeros(data.shape, bool))
    # Its own pixel widens a star.
    assert measured == pytest.approx(np.hypot(fwhm, 0.9), rel=0.08)
    assert star_fwhm(data * 0, made.background_variance, np.zeros(data.shape, bool), 3.5) == 3.5


@pytest.mark.parametrize("snr", [60.0, 300.0])
@pytest.mark.parametrize(("n_stars", "shape"), [(0, (300, 280)), (6, (300, 280)), (40, SHAPE)])
@pytest.mark.parametrize("angle_deg", [0.4, 13.0, 22.5, 45.0, 73.0, 104.0, 158.0])
def test_bright_trails_do_not_set_the_width_of_stars(angle_deg, n_stars, shape, snr):
    """There are more peaks of noise on the trail than stars, and they are long in some directions."""
    field = Field(4.0, n_stars, seed=int(angle_deg), shape=shape).add(
        snr, shape[1] / 2, shape[0] / 2, angle_deg
    )
    data = np.random.default_rng(2).poisson(field.stars.expected + field.light) - SKY
    data, variance = data.astype(np.float32), np.full(shape, NOISE**2, np.float32)
    assert star_fwhm(data, variance, data > 60_000) == pytest.approx(4.1, rel=0.12)
    found = find_streaks(data, variance, data > 60_000)
    (streak,) = found.found
    assert abs((streak.angle_deg - angle_deg + 90) % 180 - 90) < 0.5
    assert found.mask[field.light > NOISE].mean() > 0.98
