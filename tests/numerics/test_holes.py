"""Which lost pixels keep a score, against shares of a Gaussian that are known."""

import numpy as np
import pytest
from scipy.special import erf

from seechange_core.numerics.holes import mostly_seen

SIDE = 60


def gaussian(fwhm, half=12):
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    light = np.exp(-(u**2 + v**2) / 2 / (fwhm / 2.355) ** 2)
    return (light / light.sum()).astype(np.float32)


@pytest.mark.parametrize("fwhm", [1.2, 1.6, 2.5, 4.0, 6.0])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_bands_are_bridged_as_far_as_light_reaches_beyond_them(fwhm, width):
    usable = np.ones((SIDE, SIDE), bool)
    usable[:, 30 - width // 2 : 31 + width // 2] = False
    bridged = mostly_seen(usable, ~usable, gaussian(fwhm))
    # Of pixels the share differs from the Gaussian's integral by the sampling.
    u = np.arange(-12, 13)
    power = np.exp(-(u**2) / (fwhm / 2.355) ** 2)
    beyond = power[np.abs(u) > width // 2].sum() / power.sum()
    assert np.all(bridged[15:45, 30] == (beyond > 0.25))
    if fwhm > 3:
        assert beyond == pytest.approx(1 - erf(width / 2 * 2.355 / fwhm), abs=0.03)
    assert not bridged[usable].any()


def test_only_what_is_asked_for_is_looked_at():
    usable = np.ones((SIDE, SIDE), bool)
    usable[10, 10] = usable[30, 30] = False
    lost = np.zeros_like(usable)
    lost[30, 30] = lost[40, 40] = True
    expected = np.zeros_like(usable)
    expected[30, 30] = True
    assert np.array_equal(mostly_seen(usable, lost, gaussian(4.0)), expected)
