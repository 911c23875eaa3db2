import numpy as np
import pytest
from astropy.coordinates import get_body
from astropy.time import Time
from astropy.utils import iers

from seechange_core.simulate import ephemeris


@pytest.fixture(autouse=True)
def _offline():
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        yield


@pytest.mark.parametrize("mjd", [60000.2, 60100.7, 60310.3])
def test_sun_moon_and_sidereal_time_agree_with_astropy(mjd):
    """To half a degree: astropy gives J2000, these are of date."""
    time = Time(mjd, format="mjd")
    for name, position in (("sun", ephemeris.sun_position(mjd)), ("moon", ephemeris.moon_position(mjd))):
        body = get_body(name, time)
        apart = ephemeris.separation_deg(body.ra.deg, body.dec.deg, *position)
        assert apart < 0.8
    expected = time.sidereal_time("mean", longitude=-70.8).deg
    assert ephemeris.sidereal_deg(mjd, -70.8) == pytest.approx(expected, abs=0.01)


def test_airmass():
    assert ephemeris.airmass_of(90.0) == pytest.approx(1.0, abs=1e-3)
    assert ephemeris.airmass_of(30.0) == pytest.approx(2.0, rel=0.01)


def test_pole_stands_at_the_latitude():
    assert ephemeris.altitude_deg(123.0, 90.0, 60000.3, 51.0, 4.0) == pytest.approx(51.0)


def test_moonlight_needs_a_moon_above_the_horizon_and_grows_towards_it():
    def full_and_up(m):
        moon = ephemeris.moon_position(m)
        high = ephemeris.altitude_deg(*moon, m, -30.0, -70.0) > 40
        return high and ephemeris.separation_deg(*moon, *ephemeris.sun_position(m)) > 170

    mjd = next(m for m in 60000 + 0.05 * np.arange(800) if full_and_up(m))
    ra, dec = ephemeris.moon_position(mjd)
    near = ephemeris.moonlight_ratio((ra + 20) % 360, dec, mjd, -30.0, -70.0)
    far = ephemeris.moonlight_ratio((ra + 60) % 360, dec, mjd, -30.0, -70.0)
    assert near > far > 1.0
    assert ephemeris.moonlight_ratio(ra, dec, mjd + 0.5, -30.0, -70.0) == 0.0
