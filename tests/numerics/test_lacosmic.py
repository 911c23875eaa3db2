import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from seechange_core.numerics.lacosmic import find_cosmic_rays, star_limit
from seechange_core.numerics.star_shape import sharp_star_fwhm


def star_stamp(fwhm, dx, dy, beta=None, size=25, fine=7):
    """A star integrated over its pixels: a Gaussian, or a Moffat of the given beta."""
    grid = (np.arange(size * fine) + 0.5) / fine - 0.5 - size // 2
    r2 = (grid - dx) ** 2 + (grid - dy)[:, None] ** 2
    if beta is None:
        profile = np.exp(-r2 * 4 * np.log(2) / fwhm**2)
    else:
        profile = (1 + r2 * 4 * (2 ** (1 / beta) - 1) / fwhm**2) ** -beta
    stamp = profile.reshape(size, fine, size, fine).mean((1, 3))
    return stamp / stamp.sum()


def star_field(rng, fwhm, beta, n=512, n_stars=200, brightest=6.0):
    model = np.zeros((n, n))
    for _ in range(n_stars):
        x, y = rng.uniform(15, n - 15, 2)
        j, i = int(y), int(x)
        stamp = star_stamp(fwhm, x - i - 0.5, y - j - 0.5, beta)
        model[j - 12 : j + 13, i - 12 : i + 13] += 10 ** rng.uniform(2.5, brightest) * stamp
    return model


def tracks(rng, n=512, n_events=120):
    """Straight tracks of deposited charge, most of them one pixel wide."""
    hits = np.zeros((n, n))
    for _ in range(n_events):
        length, angle = rng.choice([1, 2, 3, 5, 8, 15]), rng.uniform(0, np.pi)
        x, y = rng.uniform(20, n - 20, 2)
        steps = np.linspace(0, length - 1 + 1e-6, 20 * length)
        i = np.rint(x + np.cos(angle) * steps + rng.normal(0, 0.15, steps.size)).astype(int)
        j = np.rint(y + np.sin(angle) * steps + rng.normal(0, 0.15, steps.size)).astype(int)
        np.add.at(hits, (j, i), 10 ** rng.uniform(2.3, 3.6) / 20)
    return hits


def observe(rng, model, hits, sky=1500.0, read_noise=7.0):
    data = rng.poisson(model + sky) + rng.normal(0, read_noise, model.shape) - sky + hits
    return data.astype(np.float32), np.full(model.shape, sky + read_noise**2, np.float32)


SHARP_TO_SOFT = [
    (1.5, None),
    (1.5, 2.5),
    (1.6, 3.0),
    (1.8, 3.0),
    (2.0, None),
    (3.0, 3.0),
    (5.0, None),
    (6.0, 3.0),
]


@pytest.mark.parametrize(("fwhm", "beta"), SHARP_TO_SOFT)
def test_star_cores_stay_untouched_at_any_seeing(fwhm, beta):
    rng = np.random.default_rng(10)
    model = star_field(rng, fwhm, beta)
    data, variance = observe(rng, model, 0)
    excluded = np.zeros(data.shape, bool)
    # With the limit that the image's own stars allow, as the pipeline does.
    found = find_cosmic_rays(
        data, variance, excluded, star_fwhm_pix=sharp_star_fwhm(data, variance, excluded)
    )
    noise = np.sqrt(variance + model)
    # 200 stars up to a million electrons: no pixel that a star lights at 5 sigma or more.
    assert np.sum(found & (model > 5 * noise)) <= 1
    assert found.sum() <= 12


@pytest.mark.parametrize("fwhm", [2.0, 4.0])
def test_finds_hits_and_little_else(fwhm):
    rng = np.random.default_rng(11)
    model, hits = star_field(rng, fwhm, 3.0, brightest=5.5), tracks(rng)
    data, variance = observe(rng, model, hits)
    found = find_cosmic_rays(data, variance, np.zeros(data.shape, bool), star_fwhm_pix=min(fwhm, 2.0))
    snr = hits / np.sqrt(variance + model)
    assert np.mean(found[snr > 5]) > 0.9
    assert np.mean(found[snr > 10]) > 0.96
    near = binary_dilation(hits > 0, np.ones((3, 3)))
    assert np.sum(found & ~near) <= 12
    assert np.sum(found & near & (hits == 0)) <= 0.06 * np.sum(snr > 5)


def test_sharpest_star_is_measured_carefully():
    rng = np.random.default_rng(14)
    excluded = np.zeros((512, 512), bool)
    for fwhm, beta in SHARP_TO_SOFT:
        for hits in (0, tracks(rng, n_events=300)):
            data, variance = observe(rng, star_field(rng, fwhm, beta), hits)
            result = sharp_star_fwhm(data, variance, excluded)
            assert 1.5 <= result <= 1.1 * fwhm
            if fwhm >= 4 and not np.any(hits):
                assert result > 2.5
    # Half as many bright galaxies as sharp stars do not fool it.
    mixed = star_field(rng, 1.6, 3.0) + star_field(rng, 5.0, 3.0, n_stars=100)
    assert sharp_star_fwhm(*observe(rng, mixed, 0), excluded) <= 1.1 * 1.6
    assert sharp_star_fwhm(*observe(rng, 0 * mixed, 0), excluded, 1.8) == 1.8


def test_single_hits_around_and_on_sources_and_edges():
    rng = np.random.default_rng(12)
    data, variance = observe(rng, np.zeros((64, 64)), 0)
    places = [(0, 0), (0, 30), (63, 63), (30, 0), (20, 20), (40, 40), (41, 41)]
    for y, x in places:
        data[y, x] += 1000
    found = find_cosmic_rays(data, variance, np.zeros(data.shape, bool))
    assert all(found[y, x] for y, x in places)
    assert found.sum() <= len(places) + 2


def test_excluded_pixels_are_never_returned_and_do_no_harm():
    rng = np.random.default_rng(13)
    data, variance = observe(rng, np.zeros((128, 128)), 0)
    excluded = np.zeros(data.shape, bool)
    data[30:60, 40] = -1500  # a dead column
    data[80:90, 80:90] = 60000  # a saturated core
    excluded[30:60, 40] = excluded[79:91, 79:91] = True
    before = data.copy()
    found = find_cosmic_rays(data, variance, excluded)
    assert not found[excluded].any()
    assert found.sum() <= 3
    np.testing.assert_array_equal(data, before)


def test_limit_falls_with_the_seeing():
    limits = [star_limit(w) for w in (1.5, 2, 3, 4, 9)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] == 0.5


@pytest.mark.parametrize("fwhm", [2.5, 4.0, 6.0])
def test_bad_columns_through_star_cores_make_few_hits(fwhm):
    """A defect beside the core looks like the core's sharp edge to a careless Laplacian."""
    rng = np.random.default_rng(11)
    model = star_field(rng, fwhm, 3.0, brightest=5.0)
    data, variance = observe(rng, model, 0)
    excluded = np.zeros(data.shape, bool)
    excluded[:, 5::11] = True
    excluded[rng.random(data.shape) < 0.01] = True
    data[excluded] = -500
    found = find_cosmic_rays(
        data, variance, excluded, star_fwhm_pix=sharp_star_fwhm(data, variance, excluded)
    )
    # 200 stars, and a dozen bad columns through each: without any defect it is up to nine pixels.
    assert found.sum() <= 10


def test_hits_beside_a_bad_column_are_found():
    rng = np.random.default_rng(12)
    data, variance = observe(rng, np.zeros((128, 128)), 0)
    excluded = np.zeros(data.shape, bool)
    excluded[:, 60] = True
    data[excluded] = -500
    rows = np.arange(10, 120, 10)
    data[rows, 61] += 2000
    found = find_cosmic_rays(data, variance, excluded)
    assert found[rows, 61].mean() > 0.9


def test_faint_edges_of_bright_tracks_are_found():
    rng = np.random.default_rng(15)
    data, variance = observe(rng, np.zeros((128, 128)), 0)
    columns = np.arange(20, 100)
    data[40, columns] += 3000
    data[41, columns] += 280  # 7 sigma, of which the neighbours leave the Laplacian nothing
    found = find_cosmic_rays(data, variance, np.zeros(data.shape, bool))
    assert found[40, columns].all()
    assert found[41, columns].mean() > 0.97
    assert found.sum() <= 2 * columns.size + 5


@pytest.mark.parametrize("fwhm", [1.8, 4.5])
def test_flanks_of_saturated_stars_are_no_hits_but_what_hit_them_is(fwhm):
    rng = np.random.default_rng(16)
    model = star_field(rng, fwhm, 3.0, brightest=5.0)
    for k in range(4):
        place = 60 + 110 * k
        model[place - 12 : place + 13, place - 12 : place + 13] += 2e7 * star_stamp(fwhm, 0.2, 0.3, 3.0)
    data, variance = observe(rng, model, 0)
    excluded = binary_dilation(model > 1e5)
    data = np.minimum(data, 1e5).astype(np.float32)
    data[60, 70] += 40 * np.sqrt(variance[60, 70] + model[60, 70])
    found = find_cosmic_rays(
        data, variance, excluded, star_fwhm_pix=sharp_star_fwhm(data, variance, excluded)
    )
    assert found[60, 70]
    assert found.sum() <= 15


@pytest.mark.parametrize(
    ("sky", "read_noise"), [(1.0, 0.0), (1.0, 3.0), (5.0, 3.0), (20.0, 3.0), (200.0, 7.0)]
)
def test_few_electrons_make_no_more_hits_than_many(sky, read_noise):
    """Counts of photons stray upwards; hits of 7 sigma and more are found nevertheless."""
    rng = np.random.default_rng(17)
    hits = tracks(rng, 1024)
    empty = np.zeros((1024, 1024), bool)
    found = find_cosmic_rays(*observe(rng, 0.0 * hits, 0, sky, read_noise), empty)
    assert found.sum() <= 20
    data, variance = observe(rng, 0.0 * hits, hits, sky, read_noise)
    found = find_cosmic_rays(data, variance, empty)
    assert found[hits > 10 * np.sqrt(variance)].mean() > 0.98
