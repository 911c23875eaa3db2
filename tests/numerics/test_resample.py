import numpy as np
import pytest

from seechange_core.flags import PixelFlag
from seechange_core.frames import Box, WcsSolution
from seechange_core.numerics.noise_spectrum import coadd_noise_power, warped_noise_power
from seechange_core.numerics.resample import coordinate_grid, warp

N = 320


def make_wcs(ra=0.001, dec=20.0, shift=(0.0, 0.0), rotation=0.0, scale=0.27, sip=None, mirror=1):
    s, r = scale / 3600, np.deg2rad(rotation)
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec,
        "CRPIX1": N / 2 + shift[0], "CRPIX2": N / 2 + shift[1],
        "CD1_1": -s * np.cos(r) * mirror, "CD1_2": s * np.sin(r),
        "CD2_1": s * np.sin(r) * mirror, "CD2_2": s * np.cos(r),
    }  # fmt: skip
    if sip:
        cards |= {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 3, "B_ORDER": 3, **sip}
    return WcsSolution(cards, (N, N))


def stars(x, y, flux, fwhm, side=N):
    yy, xx = np.mgrid[:side, :side]
    sigma = fwhm / 2.3548
    image = np.zeros((side, side))
    for a, b, f in zip(x, y, flux, strict=True):
        image += f / (2 * np.pi * sigma**2) * np.exp(-((xx - a) ** 2 + (yy - b) ** 2) / 2 / sigma**2)
    return image.astype(np.float32)


def moments(image, x, y, reach=13):
    out = []
    for a, b in zip(x, y, strict=True):
        i, j = round(b), round(a)
        stamp = image[i - reach : i + reach + 1, j - reach : j + reach + 1].astype(float)
        v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        total = stamp.sum()
        out.append((total, (u * stamp).sum() / total + j, (v * stamp).sum() / total + i))
    return np.array(out).T


def plain(image):
    return image, np.full(image.shape, 0.25, np.float32), np.zeros(image.shape, np.uint16)


def lattice():
    y, x = np.mgrid[40:290:48, 40:290:48].astype(float)
    rng = np.random.default_rng(1)
    return (x + rng.uniform(-3, 3, x.shape)).ravel(), (y + rng.uniform(-3, 3, x.shape)).ravel()


def test_values_at_the_nodes_are_spread_over_the_pixels():
    """What is linear over the target comes out exactly, on any box; a constant takes no memory."""
    box = Box(-7, 90, 13, 150)
    grid = coordinate_grid(make_wcs(), make_wcs(shift=(3.3, -2.1)), box)
    x, y = grid.target
    spread = grid.spread(2 + 0.01 * x - 0.02 * y)
    i, j = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
    assert spread.dtype == np.float32
    assert spread == pytest.approx(2 + 0.01 * j - 0.02 * i, abs=1e-5)
    constant = grid.spread(np.full(x.shape, 1.25))
    assert constant.shape == box.shape
    assert np.all(constant == 1.25)
    assert constant.strides == (0, 0)


DISTORTED = {"A_2_0": 3e-6, "A_0_2": -2e-6, "B_1_1": 4e-6, "B_3_0": 2e-9}


@pytest.mark.parametrize(
    ("source", "fwhm", "flux_tol", "centre_tol"),
    [
        (make_wcs(ra=359.999, shift=(3.3, -4.6), rotation=0.4), 4.0, 2e-6, 2e-4),
        (make_wcs(ra=359.999, shift=(3.3, -4.6), rotation=0.4), 2.2, 3e-3, 2e-3),
        (make_wcs(shift=(1.5, 0.5), rotation=27.0), 4.0, 2e-6, 2e-4),
        (make_wcs(shift=(0.5, 0.5), mirror=-1), 4.0, 2e-6, 2e-4),
        (make_wcs(shift=(2.2, 5.1), sip=DISTORTED), 4.0, 3e-4, 1e-3),
    ],
)
def test_flux_and_centroids_survive(source, fwhm, flux_tol, centre_tol):
    target = make_wcs()
    x, y = lattice()
    tx, ty = target.to_pixels(*source.to_sky(x, y))
    seen = (np.minimum(tx, ty) > 15) & (np.maximum(tx, ty) < N - 16)
    result = warp(*plain(stars(x, y, np.full(x.size, 1e4), fwhm)), source, target)
    flux, cx, cy = moments(result.data, tx[seen], ty[seen])
    assert seen.sum() > 15
    assert np.abs(flux / 1e4 - 1).max() < flux_tol
    assert max(np.abs(cx - tx[seen]).max(), np.abs(cy - ty[seen]).max()) < centre_tol  # 1e-3 pixel = 0.3 mas


def test_identity_gives_the_same_pixels():
    rng = np.random.default_rng(2)
    image = rng.normal(100, 10, (N, N)).astype(np.float32)
    result = warp(*plain(image), make_wcs(), make_wcs())
    assert np.abs(result.data - image).max() < 2e-3
    assert np.allclose(result.weight, 0.25, rtol=1e-5)
    assert not result.flags.any()


def test_flux_is_conserved_when_pixels_change_size():
    x, y = lattice()
    source, target = make_wcs(), make_wcs(scale=0.36)
    tx, ty = target.to_pixels(*source.to_sky(x, y))
    result = warp(*plain(stars(x, y, np.full(x.size, 1e4), 4.5)), source, target)
    flux, *_ = moments(result.data, tx, ty)
    assert np.abs(flux / 1e4 - 1).max() < 1e-4


def test_interpolated_coordinates_follow_the_distortion():
    source, target = make_wcs(sip=DISTORTED, rotation=1.0), make_wcs()
    rng = np.random.default_rng(3)
    tx, ty = rng.uniform(20, N - 20, (2, 400))
    gx, gy = coordinate_grid(source, target).at(tx, ty)
    x, y = source.to_pixels(*target.to_sky(tx, ty))
    assert np.hypot(gx - x, gy - y).max() < 3e-4  # 0.1 mas


def test_weight_gives_the_right_error_of_sums():
    rng = np.random.default_rng(4)
    source, target = make_wcs(rotation=0.7, shift=(4.2, 3.9), scale=0.3), make_wcs()
    pulls = []
    for _ in range(6):
        noise = rng.normal(0, 2, (N, N)).astype(np.float32)
        result = warp(*plain(noise), source, target)
        inner = slice(40, 280)
        sums = result.data[inner, inner].reshape(20, 12, 20, 12).sum((1, 3))
        variance = (1 / result.weight[inner, inner]).reshape(20, 12, 20, 12).sum((1, 3))
        pulls.append(sums / np.sqrt(variance))
    assert np.std(pulls) == pytest.approx(1, abs=0.04)


def test_flags_spread_to_neighbours_and_outside_is_marked():
    image, weight, flags = plain(np.full((N, N), 50, np.float32))
    image, weight = image.copy(), weight.copy()
    flags[100, 120], weight[100, 120], image[100, 120] = PixelFlag.COSMIC_RAY, 0, 1e5
    flags[200:203, 200:203], weight[200:203, 200:203], image[200:203, 200:203] = (
        PixelFlag.SATURATED,
        0,
        np.nan,
    )
    source, target = make_wcs(), make_wcs(shift=(10.4, -7.3))
    result = warp(image, weight, flags, source, target)
    marked = result.flags == PixelFlag.COSMIC_RAY
    assert marked.sum() == 9
    ys, xs = np.nonzero(marked)
    assert (xs.mean(), ys.mean()) == pytest.approx((130, 93))
    assert np.all(result.weight[marked] == 0)
    outside = result.flags & PixelFlag.OUT_OF_BOUNDS > 0
    assert outside.mean() == pytest.approx(1 - (N - 10.4) * (N - 7.3) / N**2, abs=0.003)
    assert np.all(result.weight[outside] == 0)
    # What was masked leaves no trace around it.
    assert np.abs(result.data[~outside] - 50).max() < 1e-3


def test_a_box_is_a_part_of_the_whole_even_beyond_the_target():
    rng = np.random.default_rng(5)
    image = rng.normal(0, 1, (N, N)).astype(np.float32)
    source, target = make_wcs(rotation=0.2, shift=(30.0, 20.0)), make_wcs()
    whole = warp(*plain(image), source, target)
    part = warp(*plain(image), source, target, Box(64, 192, -32, 96))
    assert np.allclose(part.data[:, 32:], whole.data[64:192, :96], atol=2e-3)
    assert part.weight[:, :32].any()


def test_far_away_is_all_outside():
    image = np.ones((N, N), np.float32)
    result = warp(*plain(image), make_wcs(ra=180.0, dec=-20.0), make_wcs())
    assert np.all(result.flags == PixelFlag.OUT_OF_BOUNDS)
    assert not result.weight.any()


@pytest.mark.parametrize(("rotation", "scale"), [(0.4, 0.27), (0.0, 0.3), (20.0, 0.22)])
def test_noise_power_is_predicted(rotation, scale):
    rng = np.random.default_rng(6)
    source, target = make_wcs(rotation=rotation, shift=(3.3, 6.1)), make_wcs(scale=scale)
    grid = coordinate_grid(source, target)
    side, total, predicted = 64, 0.0, 0.0
    window = np.outer(np.hanning(side), np.hanning(side))
    for n in range(6):
        result = warp(*plain(rng.normal(0, 2, (N, N)).astype(np.float32)), source, target)
        for i in (96, 160):
            for j in (96, 160):
                patch = result.data[i : i + side, j : j + side] * window * np.sqrt(result.weight[i, j])
                total = total + np.abs(np.fft.rfft2(patch)) ** 2 / (window**2).sum()
                if n == 0:
                    predicted = predicted + warped_noise_power(grid, (j, j + 63), (i, i + 63), side)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    for low, high in ((0.05, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5)):
        ring = (frequency >= low) & (frequency < high)
        assert total[ring].mean() / 24 == pytest.approx(predicted[ring].mean() / 4, rel=0.07)


def test_dithered_noise_is_half_at_the_nyquist_frequency():
    power = coadd_noise_power(64, 1.0)
    assert power[0, 0] == pytest.approx(1, abs=1e-6)
    assert power[0, -1] == pytest.approx(0.5, abs=0.01)
    assert power[32, -1] == pytest.approx(0.25, abs=0.01)
