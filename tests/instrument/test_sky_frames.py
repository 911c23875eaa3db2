"""Pointings of other frames and equinoxes against catalogs, and precession written out by hand."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import FK4, SkyCoord
from astropy.time import Time

from seechange_core.errors import HeaderError
from seechange_core.instrument import get_instrument_instance
from seechange_core.numerics.sky import separation

MJD = Time("2021-07-02T02:00:00").mjd
CARDS = {"OBSTYPE": "science", "EXPTIME": 0.0, "MJD-OBS": MJD, "FILTER": "r"}
#: Catalogued places: J2000 (ICRS) and B1950.
PLACES = {
    "3C 273": (("12:29:06.6997", "+02:03:08.598"), ("12:26:33.246", "+02:19:43.47")),
    "3C 48": (("01:37:41.2994", "+33:09:35.134"), ("01:34:49.826", "+32:54:20.52")),
}


def pointing(ra, dec, **cards):
    facts = get_instrument_instance("demo").read_facts({**CARDS, "RA": ra, "DEC": dec, **cards})
    return facts.ra, facts.dec


def degrees(place):
    found = SkyCoord(*place, unit=(u.hourangle, u.deg))
    return found.ra.deg, found.dec.deg


def lieske(ra, dec, julian_year):
    """Precess from 2000 to a mean equinox (IAU 1976, as Meeus gives it in chapter 21)."""
    t = (julian_year - 2000.0) / 100.0
    zeta = np.deg2rad((2306.2181 * t + 0.30188 * t**2 + 0.017998 * t**3) / 3600)
    z = np.deg2rad((2306.2181 * t + 1.09468 * t**2 + 0.018203 * t**3) / 3600)
    theta = np.deg2rad((2004.3109 * t - 0.42665 * t**2 - 0.041833 * t**3) / 3600)
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    east = np.cos(d) * np.sin(a + zeta)
    level = np.cos(theta) * np.cos(d) * np.cos(a + zeta) - np.sin(theta) * np.sin(d)
    up = np.sin(theta) * np.cos(d) * np.cos(a + zeta) + np.cos(theta) * np.sin(d)
    return np.rad2deg(np.arctan2(east, level) + z) % 360, np.rad2deg(np.arcsin(up))


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(
    "cards",
    [{"RADESYS": "FK4", "EQUINOX": 1950.0}, {"EPOCH": 1950.0}, {"EQUINOX": "B1950"}, {"RADECSYS": "FK4"}],
)
def test_b1950_is_precessed(settings, name, cards):
    new, old = PLACES[name]
    assert separation(*pointing(*old, **cards), *degrees(new)) * 3600 < 1.0  # what such lists agree to
    kept = degrees(old)
    assert separation(*kept, *degrees(new)) * 60 > 10  # minutes of arc off if it were left


@pytest.mark.parametrize("place", [(10.0, -30.0), (359.9, 0.1), (200.0, 88.0)])
@pytest.mark.parametrize(
    "cards", [{"EQUINOX": 2021.5}, {"EPOCH": "J2021.5"}, {"RADESYS": "FK5", "EQUINOX": 2021.5}]
)
def test_coordinates_of_date_are_precessed(settings, place, cards):
    assert separation(*pointing(*lieske(*place, 2021.5), **cards), *place) * 3600 < 0.05


@pytest.mark.parametrize(
    "cards",
    [{}, {"RADESYS": "ICRS"}, {"RADESYS": "ICRS", "EQUINOX": 2021.5}, {"RADESYS": "FK5", "EQUINOX": 2000.0},
     {"EPOCH": 2000.0}, {"EQUINOX": "J2000"}, {"RADESYS": "FK5", "RADECSYS": "ICRS", "EQUINOX": 2000.0}],
)  # fmt: skip
def test_what_is_icrs_stays(settings, cards):
    assert pointing(10.0, -30.0, **cards) == (10.0, -30.0)


@pytest.mark.parametrize(
    "cards", [{"RADESYS": "GAPPT"}, {"RADESYS": "galactic"}, {"EQUINOX": "now"}, {"EQUINOX": 0.0}]
)
def test_what_is_not_known_is_refused(settings, cards):
    with pytest.raises(HeaderError, match=r"(RADESYS|EQUINOX) = "):
        pointing(10.0, -30.0, **cards)
    facts = get_instrument_instance("demo").read_facts(
        {**CARDS, "OBSTYPE": "bias", "RA": 1.0, "DEC": 1.0, **cards}
    )
    assert facts.ra is None


def test_fk4_of_another_equinox_agrees_with_astropy(settings):
    there = SkyCoord(150.0 * u.deg, 20.0 * u.deg, frame="icrs").transform_to(
        FK4(equinox=Time(1975.0, format="byear"))
    )
    found = pointing(there.ra.deg, there.dec.deg, RADESYS="FK4", EQUINOX=1975.0)
    assert separation(*found, 150.0, 20.0) * 3600 < 1e-3
