"""What a search finds at a place, told from the forced flux there, whatever shines there now."""

import numpy as np
import pytest

from seechange_core.chain.could_see import found_in_half
from seechange_core.flags import PixelFlag
from seechange_core.frames import Depth
from seechange_core.numerics.depth import flux_noise
from seechange_core.numerics.psf import constant, draw
from seechange_core.numerics.psf_fit import fit

SIDE, SIGMA = 61, 5.0
PSF = constant((1 + (np.hypot(*np.mgrid[-20:21, -20:21]) / 3.9) ** 2) ** -3.0)
DEPTH = Depth(np.full((2, 2), 300.0, np.float32), np.ones((2, 2), np.float32), 64, (SIDE, SIDE), SIGMA)


@pytest.mark.parametrize("gain", [1.0, 5.0])
@pytest.mark.parametrize("variance", [100.0, 2500.0])
@pytest.mark.parametrize("shining", [-500.0, 0.0, 1e3, 1e4, 1e5])
def test_of_a_place_it_is_the_noise_without_the_photons_of_what_changed(variance, shining, gain):
    """The noise of a place on a star is that of the weights; a transient there adds its own to the error."""
    weight = np.full((SIDE, SIDE), 1 / variance, np.float32)
    x = y = np.array([30.2])
    truth = max(SIGMA * float(flux_noise(np.array([1 / variance]), PSF, x, y)[0]), 300.0)
    light = draw(PSF, x, y, np.array([shining]), weight.shape).astype(np.float32)
    found = fit(light, weight, PSF, x, y, np.zeros(1), radius_pix=8.0, gain=gain)
    forced = {"x": x, "y": y, "flux": np.array([shining]), "flux_err": found.flux_err, "flags": np.zeros(1)}
    limit = found_in_half(DEPTH, forced, gain)[0]
    # Where its photons are nearly all of the noise, what is left depends on the wings; never too deep.
    assert 0.9 * truth < limit < (1.12 if shining < 1e5 else 1.4) * truth
    if shining == 1e5 and variance == 100.0:
        assert SIGMA * found.flux_err[0] > 1.3 * truth  # what it would be with them


def test_where_nothing_was_measured_or_scored_there_is_no_depth():
    flux = np.array([0.0, np.nan, 0.0, 0.0, 0.0])
    x = np.array([30.0, 30.0, 30.0, 30.0, 99.0])
    flags = np.array([0, 0, PixelFlag.SATURATED, PixelFlag.COSMIC_RAY, 0])
    forced = {"x": x, "y": np.full(5, 30.0), "flux": flux, "flux_err": np.full(5, 10.0), "flags": flags}
    assert np.isfinite(found_in_half(DEPTH, forced, 1.0)).tolist() == [True, False, False, True, False]
    assert np.isnan(found_in_half(None, forced, 1.0)).all()
