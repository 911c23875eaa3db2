import numpy as np
import pytest

from seechange_core.numerics.detection import find, gaussian_kernel, half_sample_mode
from seechange_core.simulate.scene import scene


def test_sources_are_found_and_numbered():
    s = scene((400, 400), 40, seed=1, flux_range=(5000.0, 1e5), min_separation_pix=30, border_pix=20)
    data, error = s.data - np.float32(s.sky_e), np.sqrt(s.background_variance)
    mask = np.zeros(s.shape, bool)
    mask[:, :100] = True
    peaks, segmentation = find(
        data, error, mask, sigma=4, fwhm_pix=4.1, min_area_pix=3, deblend_contrast=0.005
    )
    assert len(peaks) == pytest.approx(np.sum(s.x > 100), abs=2)
    owner = segmentation[np.rint(peaks.y).astype(int), np.rint(peaks.x).astype(int)]
    assert owner.tolist() == list(range(1, len(peaks) + 1))
    # A source may reach a pixel or two over the edge, where the filter still sees it.
    assert not (segmentation[:, :96] > 0).any()


def test_faint_neighbours_of_nothing_are_not_swallowed():
    s = scene((800, 800), 150, seed=2, flux_range=(900.0, 2500.0), min_separation_pix=40, border_pix=20)
    peaks, _ = find(
        s.data - np.float32(s.sky_e), np.sqrt(s.background_variance), np.zeros(s.shape, bool),
        sigma=4, fwhm_pix=4.1, min_area_pix=3, deblend_contrast=0.005,
    )  # fmt: skip
    close = np.hypot(peaks.x[:, None] - s.x, peaks.y[:, None] - s.y).min(axis=0) < 3
    assert close[s.flux_e > 1200].mean() > 0.97


def test_kernel_and_mode():
    assert gaussian_kernel(4.0).sum() == pytest.approx(1)
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(4, 0.05, 60), rng.uniform(4, 12, 80)]
    assert half_sample_mode(values) == pytest.approx(4, abs=0.15)
    assert half_sample_mode(np.array([2.0])) == 2
