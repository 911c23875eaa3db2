import numpy as np
import pytest

from seechange_core.simulate.psf import PsfField, core_transform


def moments(stamp):
    y, x = np.mgrid[: stamp.shape[0], : stamp.shape[1]]
    total = stamp.sum()
    mx, my = (stamp * x).sum() / total, (stamp * y).sum() / total
    xx, yy, xy = (
        (stamp * (x - mx) ** 2).sum(), (stamp * (y - my) ** 2).sum(), (stamp * (x - mx) * (y - my)).sum()
    )  # fmt: skip
    return mx, my, xx / total, yy / total, xy / total


@pytest.mark.parametrize("fwhm_pix", [0.9, 1.3, 2.0, 4.4])
def test_pixels_agree_with_the_sampled_fourier_transform(fwhm_pix):
    """Pixel integration by quadrature, against an independent FFT sampled 7 times as finely."""
    e1, e2, size, fine = 0.1, -0.05, 192, 7
    stamp = PsfField(fwhm_pix, e1=e1, e2=e2, aureole_fraction=0.0).stamp(0, 0, 31, dx=0.3, dy=-0.2)
    k = 2 * np.pi * np.fft.fftfreq(size * fine, 1 / fine)
    kx, ky = np.meshgrid(k, k)
    norm = fwhm_pix / np.sqrt(1 - e1**2 - e2**2)
    radius = np.hypot(norm * ((1 + e1) * kx + e2 * ky), norm * (e2 * kx + (1 - e1) * ky))
    blur = core_transform(radius) * np.sinc(kx / 2 / np.pi) * np.sinc(ky / 2 / np.pi)
    shifted = blur * np.exp(-1j * (kx * (size // 2 + 0.3) + ky * (size // 2 - 0.2)))
    exact = (np.fft.ifft2(shifted).real * fine**2)[::fine, ::fine]
    half = size // 2
    exact = exact[half - 15 : half + 16, half - 15 : half + 16]
    assert np.abs(stamp - exact).max() < 1e-3 * exact.max()


def test_all_of_the_light_is_there():
    field = PsfField(4.0)
    assert field.stamp(0, 0, 401).sum() == pytest.approx(1, abs=2e-4)
    assert field.enclosed(1000.0) == pytest.approx(1, abs=1e-9)


def test_enclosed_light_agrees_with_the_stamp():
    field = PsfField(4.0)
    stamp = field.stamp(0, 0, 201)
    y, x = np.mgrid[-100:101, -100:101]
    for radius in (12, 25, 60):
        assert field.enclosed(radius) == pytest.approx(stamp[np.hypot(x, y) < radius].sum(), abs=2e-3)


def test_width_is_the_full_width_at_half_maximum():
    """Drawn so large that pixels hardly matter."""
    field = PsfField(40.0, aureole_fraction=0.0)
    cut = field.stamp(0, 0, 101)[50, 50:]
    half = np.interp(-cut[0] / 2, -cut, np.arange(cut.size))
    assert 2 * half == pytest.approx(40.0, rel=2e-3)


def test_wings_fall_as_they_should():
    """Kolmogorov's -11/3 without the aureole, King's -2 with it: no Moffat does both."""
    radii = np.array([30, 45])
    plain = PsfField(3.0, aureole_fraction=0.0).stamp(0, 0, 101)[50, 50 + radii]
    assert np.log(plain[1] / plain[0]) / np.log(1.5) == pytest.approx(-11 / 3, abs=0.05)
    wide = PsfField(3.0, aureole_fraction=0.05, aureole_core_pix=3.0).stamp(0, 0, 101)[50, 50 + radii]
    assert np.log(wide[1] / wide[0]) / np.log(1.5) == pytest.approx(-2, abs=0.25)


def test_ellipse_points_where_it_says():
    """e1 > 0 is long along x, e2 > 0 along the diagonal x = y; the centre stays."""
    mx, my, xx, yy, xy = moments(PsfField(4.0, e1=0.1, aureole_fraction=0.0).stamp(0, 0, 41))
    assert (mx, my) == pytest.approx((20, 20), abs=1e-6)
    assert xx > 1.2 * yy
    assert xy == pytest.approx(0, abs=1e-6)
    *_, xx, yy, xy = moments(PsfField(4.0, e2=0.1, aureole_fraction=0.0).stamp(0, 0, 41))
    assert xy > 0.1 * xx
    assert xx == pytest.approx(yy)


def test_shape_varies_over_the_field_and_can_be_constant():
    field = PsfField(4.0, curvature=0.05, astigmatism=0.04, wobble=0.01, half_diagonal_pix=1000.0)
    fwhm, e1, _ = field.shape_at([0, 700], [0, 700])
    assert fwhm[1] / fwhm[0] == pytest.approx(1.05, abs=0.02)
    assert abs(e1[1] - e1[0]) < 0.05
    fwhm, e1, e2 = PsfField(4.0, e1=0.02).shape_at([0, 900], [0, -900])
    assert np.ptp(fwhm) == np.ptp(e1) == np.ptp(e2) == 0


def test_stars_outside_the_image_reach_into_it():
    image = np.zeros((50, 50))
    PsfField(4.0).draw(image, -10.0, 25.0, 1e6)
    assert image[25, 0] > 1
    assert image[25, 0] > image[25, 30]
