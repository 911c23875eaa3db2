"""Light curves of places, on images made up of their solutions."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.wcs import WCS

from seechange_core.chain import light_curves as module
from seechange_core.chain.light_curves import Epoch, position_light_curve
from seechange_core.frames import ForcedFluxes, WcsSolution, ZeroPointSolution

SHAPE = (400, 400)
ZP, TILT_MAG = 28.0, 0.015


def epoch(number, left, tilt_mag):
    """Make an image that reaches from a right ascension on, its zero point tilted along columns."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [left, 2.0], [1, 201], [1e-3 / 3.6, 1e-3 / 3.6]
    astrometry = WcsSolution(dict(wcs.to_header()), SHAPE)
    zero_point = ZeroPointSolution(ZP, 0.01, "r", spatial_mag=(tilt_mag, 0.0), shape=SHAPE)
    rows = SimpleNamespace(
        wcs=SimpleNamespace(solution=lambda: astrometry),
        zero_point=SimpleNamespace(solution=lambda: zero_point, zp_err=0.01, bitflag=0),
        image=SimpleNamespace(section_id="0", filter="r"),
    )
    exposure = SimpleNamespace(name=f"e{number}", mjd_mid=60000.0 + number, site=None)
    return Epoch(exposure, rows, None)


@pytest.mark.parametrize("on", ["image", "difference"])
def test_a_star_has_its_magnitude_at_both_edges_of_tilted_images(settings, monkeypatch, on):
    """The telescope moves: one star lies at the left edge of one image and at the right of the next."""
    width = 399e-3 / 3.6
    epochs = [epoch(0, 150.0, TILT_MAG), epoch(1, 150.0 - width, TILT_MAG), epoch(2, 150.0, 0.0)]
    local = ZP + np.array([-TILT_MAG, TILT_MAG, 0.0])
    fluxes = dict(zip(("e0", "e1", "e2"), 10 ** (0.4 * (local - 17.0)), strict=True))

    def force(_settings, epoch, ra, _dec, _on):
        flux, one = np.full(len(ra), fluxes[epoch.exposure.name]), np.ones(len(ra))
        return ForcedFluxes(one, one, flux, one, one, np.zeros(len(ra), int), one)

    monkeypatch.setattr(module, "epochs_at", lambda *_: epochs)
    monkeypatch.setattr(module, "force_epoch", force)
    curve = position_light_curve(settings, 150.0, 2.0, on)
    assert curve.zp == pytest.approx(local, abs=1e-4)
    assert curve.mag == pytest.approx(17.0, abs=1e-4)
    assert curve.limiting_mag - local == pytest.approx(-2.5 * np.log10(5), abs=1e-4)
