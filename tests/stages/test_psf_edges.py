"""Truth tests of fluxes near edges and corners, of a PSF that varies strongly over the section."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from seechange_core.frames import ImageFrame
from seechange_core.simulate.scene import make_psf_field, scene, simulate_image
from seechange_core.stages.extract import ExtractParams, extract


def measured(variation, seed):
    """Return positions scaled to the section, measured over true flux, pulls and PSF of bright stars."""
    s = scene(
        (1024, 1024), 450, seed=seed, flux_range=(500.0, 5e5), psf_variation=variation, min_separation_pix=25
    )
    weight = (1 / s.background_variance).astype(np.float32)
    found = extract(ImageFrame(s.data, weight, np.zeros(s.shape, np.uint16), 60.0), ExtractParams())
    q, size = found.sources, found.psf.size
    near, row = cKDTree(np.c_[q.x, q.y]).query(np.c_[s.x, s.y])
    use = (near < 2) & (q.snr[row] > 100)
    q, inside = q.select(row[use]), np.hypot(*np.indices((size, size)) - size // 2) <= size // 2
    places = zip(s.x[use], s.y[use], strict=True)
    true = s.flux_e[use] * np.array([s.psf(x, y, size)[inside].sum() for x, y in places])
    u, v = s.x[use] / 512 - 1, s.y[use] / 512 - 1
    return u, v, q.flux_psf / true, (q.flux_psf - true) / q.flux_psf_err, found.psf


def test_stars_outside_a_cluster_are_not_measured_with_its_extrapolated_psf():
    """120 stars in a corner quarter, 15 fainter ones elsewhere."""
    rng = np.random.default_rng(0)
    x, y = np.r_[np.clip(rng.normal(220, 80, (2, 120)), 5, 500).T, rng.uniform(20, 780, (15, 2))].T
    x, y = np.array([p for k, p in enumerate(zip(x, y, strict=True)) if _apart(p, x[:k], y[:k])]).T
    faint = np.arange(len(x)) >= len(x) - 15
    flux = np.exp(np.where(faint, rng.uniform(9, 11, len(x)), rng.uniform(9.9, 12.9, len(x))))
    field = make_psf_field((800, 800), 4.0, ellipticity=0.03, psf_variation=0.05)
    s = simulate_image((800, 800), x, y, flux, psf_field=field, seed=0)
    weight = (1 / s.background_variance).astype(np.float32)
    found = extract(ImageFrame(s.data, weight, np.zeros(s.shape, np.uint16), 60.0), ExtractParams())
    q, size = found.sources, found.psf.size
    near, row = cKDTree(np.c_[q.x, q.y]).query(np.c_[s.x, s.y])
    inside = np.hypot(*np.indices((size, size)) - size // 2) <= size // 2
    light = np.array([s.psf(a, b, size)[inside].sum() for a, b in zip(s.x, s.y, strict=True)])
    off = (q.flux_psf[row] / (s.flux_e * light) - 1)[
        faint & (near < 2) & (np.hypot(s.x - 220, s.y - 220) > 250)
    ]
    assert len(off) >= 8
    assert np.sqrt(np.mean(off**2)) < 0.03
    assert np.abs(off).max() < 0.08


def _apart(place, x, y):
    return not len(x) or np.hypot(x - place[0], y - place[1]).min() > 14


# Width and ellipticity change by that share towards the corners, a quarter of it as no polynomial does. The
# limit of the rms of pulls is 1; what 15 terms do not follow of the waves is most in the corners, and one
# floor for the whole section does not tell it.
@pytest.mark.parametrize(
    ("variation", "degree", "worst_rms"), [(0.0, 2, 1.4), (0.08, 4, 1.7), (0.15, 4, 2.3)]
)
def test_corners_and_edges_are_as_bright_as_the_middle(variation, degree, worst_rms):
    parts = [measured(variation, seed) for seed in (11, 12)]
    u, v, ratio, pull = (np.concatenate([part[k] for part in parts]) for k in range(4))
    for use, most in (
        (np.hypot(u, v) < 0.8, 1.3),
        (np.maximum(np.abs(u), np.abs(v)) > 0.96, worst_rms),
        (np.hypot(u, v) > 1.15, worst_rms),
    ):
        assert use.sum() > 20
        # Two dozen stars of 0.3 to 1 % each.
        assert ratio[use].mean() == pytest.approx(1, abs=0.006)
        assert np.sqrt(np.mean(pull[use] ** 2)) < most
    # No stiffer than the stars ask for, and no softer.
    assert all(part[4].degree == degree for part in parts)
