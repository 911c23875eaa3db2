"""Exposures in which the telescope moved: said to be trailed, and no hundred satellites."""

import numpy as np
import pytest

from seechange_core.errors import NoStars, Trailed
from seechange_core.flags import QualityFlag
from seechange_core.frames import ImageFrame
from seechange_core.numerics.streaks import find_streaks
from seechange_core.simulate.scene import make_psf_field
from seechange_core.simulate.trails import Trail, draw_trail
from seechange_core.stages.extract import ExtractParams, extract
from seechange_core.stages.judge import flags_of_stop

SKY, READ, SHAPE = 500.0, 5.0, (900, 800)
NOISE = np.sqrt(SKY + READ**2)


def drawn_out(fwhm, length, angles_deg, seed=1):
    """As many stars as angles, drawn out to trails of a length (FWHM and length in pixels), above the sky."""
    rng, psf, light = np.random.default_rng(seed), make_psf_field(SHAPE, fwhm), np.zeros(SHAPE)
    for angle in np.deg2rad(angles_deg):
        x, y, flux = rng.uniform(0, SHAPE[1]), rng.uniform(0, SHAPE[0]), 10 ** rng.uniform(3, 5.3)
        draw_trail(light, Trail(x, y, angle, flux / length, length), psf)
    return (rng.poisson(light + SKY) - SKY + rng.normal(0, READ, SHAPE)).astype(np.float32)


def look(light):
    image = ImageFrame(
        data=light + np.float32(SKY),
        weight=np.full(SHAPE, 1 / NOISE**2, np.float32),
        flags=np.zeros(SHAPE, np.uint16),
        exposure_time_s=60.0,
    )
    return extract(image, ExtractParams())


@pytest.mark.parametrize(("fwhm", "length"), [(2.0, 14.0), (4.0, 14.0), (4.0, 45.0)])
@pytest.mark.parametrize("angle_deg", [0.0, 30.0])
def test_a_trailed_exposure_says_so(fwhm, length, angle_deg):
    light = drawn_out(fwhm, length, [angle_deg] * 120)
    with pytest.raises(Trailed, match=r"in one direction, \d+\.\d : 1") as stop:
        look(light)
    assert flags_of_stop("source_list", stop.value.reason) == QualityFlag.TRAILED | QualityFlag.PSF_FAILED


def test_sources_in_all_directions_are_not_trailed():
    with pytest.raises(NoStars) as stop:
        look(drawn_out(4.0, 25.0, np.linspace(0, 175, 36)))
    assert stop.value.reason == "no_stars"


@pytest.mark.parametrize("fwhm_pix", [None, 4.0])
@pytest.mark.parametrize("angle_deg", [0.0, 20.0, 45.0])
@pytest.mark.parametrize("length", [14.0, 45.0])
def test_trailed_stars_are_no_satellites(length, angle_deg, fwhm_pix):
    light = drawn_out(4.0, length, [angle_deg] * 200)
    found = find_streaks(
        light, np.full(SHAPE, NOISE**2, np.float32), np.zeros(SHAPE, bool), fwhm_pix=fwhm_pix
    )
    assert len(found.found) <= 4
