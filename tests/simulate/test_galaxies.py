import numpy as np
import pytest
from astropy.table import Table

from seechange_core.simulate.galaxies import BULGE_NU, DISK_NU, draw_galaxies, half_light_scale
from seechange_core.simulate.geometry import SkyMap
from seechange_core.simulate.psf import PsfField

PIXELS = SkyMap(150.0, 2.0, 0.0, 1, 0.27, (127.5, 127.5), (0.0, 0.0), 1500.0, 0.0)


def draw(psf, half_light, *, flux=1e6, ratio=1.0, angle=0.0, bulge=0.0, x=128.3, y=127.7):
    ra, dec = PIXELS.to_sky(np.array([x]), np.array([y]))
    image = np.zeros((256, 256))
    shape = Table({"half_light_arcsec": [half_light], "axis_ratio": [ratio], "angle_deg": [angle],
                   "bulge_fraction": [bulge]})  # fmt: skip
    draw_galaxies(image, PIXELS, psf, (0.0, 0.0), ra, dec, np.array([flux]), shape)
    return image


@pytest.mark.parametrize("fwhm_pix", [1.2, 2.0, 4.4])
def test_a_galaxy_of_no_size_is_a_star(fwhm_pix):
    """Two ways to draw (Fourier space, quadrature), one answer."""
    psf = PsfField(fwhm_pix, e1=0.05, e2=-0.1)
    star = np.zeros((256, 256))
    psf.draw(star, 128.3, 127.7, 1e6)
    assert np.abs(draw(psf, 1e-5, bulge=0.3) - star).max() < 1e-3 * star.max()


def test_exponential_disk_matches_its_formula():
    """Far larger than the PSF, the disk is exp(-1.678 r / r_half), with half of its light within r_half."""
    assert 1 / half_light_scale(DISK_NU) == pytest.approx(1.67835, abs=1e-4)
    image = draw(PsfField(1.0, aureole_fraction=0.0), 3.0)
    y, x = np.mgrid[:256, :256]
    radius = np.hypot(x - 128.3, y - 127.7) * 0.27
    assert image[radius < 3.0].sum() / image.sum() == pytest.approx(0.5, abs=0.01)
    slope = np.log(image[128, 160] / image[128, 145]) / (radius[128, 160] - radius[128, 145])
    assert slope == pytest.approx(-1.678 / 3.0, rel=0.02)


def test_bulge_is_more_concentrated_but_as_bright():
    psf = PsfField(3.0)
    disk, bulge = draw(psf, 1.0), draw(psf, 1.0, bulge=1.0)
    assert bulge.max() > 1.5 * disk.max()
    assert bulge.sum() == pytest.approx(disk.sum(), rel=5e-3)
    assert half_light_scale(BULGE_NU) > half_light_scale(DISK_NU)


def test_position_angle_is_north_through_east():
    """With north up and east left, angle 45 runs from lower right to upper left."""
    image = draw(PsfField(2.0, aureole_fraction=0.0), 2.0, ratio=0.3, angle=45.0)
    y, x = np.mgrid[:256, :256]
    assert ((x - 128.3) * (y - 127.7) * image).sum() < 0
    image = draw(PsfField(2.0, aureole_fraction=0.0), 2.0, ratio=0.3, angle=0.0)
    assert ((y - 127.7) ** 2 * image).sum() > 3 * ((x - 128.3) ** 2 * image).sum()


def test_galaxies_are_cut_at_the_edges():
    inside = draw(PsfField(3.0), 1.0, x=2.0, y=254.0)
    assert 0.2e6 < inside.sum() < 0.8e6
    assert draw(PsfField(3.0, aureole_fraction=0.0), 1.0, x=-300.0, y=100.0).sum() == 0
