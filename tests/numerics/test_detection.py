import numpy as np
import pytest

from seechange_core.numerics.detection import bright_peaks, find
from seechange_core.simulate.scene import make_psf_field, scene, simulate_image


def stars(shape, x, y, flux_e, **options):
    return simulate_image(shape, x, y, flux_e, psf_field=make_psf_field(shape, 4.1), **options)


def search(s, hidden=None, **options):
    weight = (1 / s.background_variance).astype(np.float32)
    if hidden is not None:
        weight[hidden] = 0
    rules = {"sigma": 4, "fwhm_pix": 4.1, "min_area_pix": 1, "deblend_contrast": 0.01, **options}
    return find(s.data - np.float32(s.sky_e), weight, **rules)


def test_sources_are_found_and_numbered():
    s = scene((400, 400), 40, seed=1, flux_range=(5000.0, 1e5), min_separation_pix=30, border_pix=20)
    hidden = np.zeros(s.shape, bool)
    hidden[:, :100] = True
    peaks, segmentation = search(s, hidden)
    assert len(peaks) == pytest.approx(np.sum(s.x > 100), abs=2)
    owner = segmentation[np.rint(peaks.y).astype(int), np.rint(peaks.x).astype(int)]
    assert owner.tolist() == list(range(1, len(peaks) + 1))
    # A source may reach a pixel or two over the edge, where the filter still sees it.
    assert not (segmentation[:, :95] > 0).any()


def test_faint_neighbours_of_nothing_are_not_swallowed():
    s = scene((800, 800), 150, seed=2, flux_range=(900.0, 2500.0), min_separation_pix=40, border_pix=20)
    peaks, _ = search(s)
    close = np.hypot(peaks.x[:, None] - s.x, peaks.y[:, None] - s.y).min(axis=0) < 3
    assert close[s.flux_e > 1200].mean() > 0.97


def test_noise_alone_gives_as_many_as_its_maxima_above_the_threshold():
    noise = np.random.default_rng(0).normal(0, 10, (1000, 1000)).astype(np.float32)
    weight = np.full(noise.shape, 0.01, np.float32)
    peaks, _ = find(noise, weight, sigma=4, fwhm_pix=4.0, min_area_pix=1, deblend_contrast=0.01)
    # Maxima of a Gaussian field above u per area (Adler 1981): u exp(-u^2 / 2) / (2 pi)^1.5 / (2 sigma^2).
    expected = 1e6 * 4 * np.exp(-8) / (2 * np.pi) ** 1.5 / (2 * (4 / 2.3548) ** 2)
    assert len(peaks) == pytest.approx(expected, abs=4 * np.sqrt(expected))


@pytest.mark.parametrize(("ratio", "apart"), [(1.0, 1.5), (0.1, 2.4), (0.01, 3.0)])
def test_close_pairs_are_parted(ratio, apart):
    x = [100.0, 100.0 + apart * 4.1]
    s = stars((200, 220), x, [100.0, 100.0], [1e6, ratio * 1e6])
    peaks, _ = search(s)
    near = np.hypot(peaks.x - 100, peaks.y - 100) < 30
    assert peaks.merged[near].all()
    assert np.sort(peaks.x[near]) == pytest.approx(x, abs=1.2)


def test_a_bright_star_stays_one_source_however_noisy_its_wings():
    for seed in range(3):
        s = stars((300, 300), [150.3], [149.8], [3e7], seed=seed)
        peaks, _ = search(s)
        assert np.sum(np.hypot(peaks.x - 150.3, peaks.y - 149.8) < 45) == 1


def test_shapes_and_sums_of_a_bright_source():
    s = stars((100, 100), [50.2], [49.6], [1e6])
    peaks, segmentation = search(s)
    inside = segmentation == 1
    data = s.data - np.float32(s.sky_e)
    assert peaks.n_pixels[0] == inside.sum()
    assert peaks.peak[0] == data[inside].max()
    assert peaks.flux[0] == pytest.approx(np.maximum(data[inside], 0).sum(), rel=1e-6)
    assert (peaks.x[0], peaks.y[0]) == pytest.approx((50.2, 49.6), abs=0.05)
    assert peaks.elongation[0] == pytest.approx(1, abs=0.15)


def test_bright_peaks_are_the_highest_of_usable_surroundings():
    s = scene((400, 400), 40, seed=1, flux_range=(2e4, 1e5), min_separation_pix=30, border_pix=20)
    weight = (1 / s.background_variance).astype(np.float32)
    first = int(np.argmin(s.x))
    weight[round(s.y[first]), round(s.x[first])] = 0
    x, y, value = bright_peaks(s.data - np.float32(s.sky_e), weight, 30)
    assert len(x) == 30
    assert np.all(np.diff(value) <= 0)
    assert np.hypot(x[:, None] - s.x, y[:, None] - s.y).min(axis=1).max() < 2
    assert np.hypot(x - s.x[first], y - s.y[first]).min() > 3
