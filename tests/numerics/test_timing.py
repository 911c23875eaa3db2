"""Nights, mid-exposure and barycentric times against definitions and an independent ephemeris."""

from datetime import UTC, datetime, timedelta, timezone

import erfa
import numpy as np
import pytest
from astropy.time import Time

from seechange_core.errors import UserError
from seechange_core.numerics.timing import (
    Site,
    bjd_tdb,
    clock_to_mjd,
    evening_to_mjd,
    iso_to_mjd,
    mid_mjd,
    mjd_to_iso,
    night_of,
    to_mjd,
)

LIGHT_DAYS_PER_AU = 499.004783836 / 86400.0
#: Sun / planet mass ratios, Mercury to Neptune, Earth with Moon (IAU 2009).
MASS_RATIOS = (6023600.0, 408523.72, 328900.56, 3098703.6, 1047.3486, 3497.898, 22902.98, 19412.24)


@pytest.mark.parametrize(
    "moment",
    [
        57388.5,
        "2016-01-01T12:00:00.000",
        "2016-01-01 12:00:00Z",
        datetime(2016, 1, 1, 12),
        datetime(2016, 1, 1, 7, tzinfo=timezone(timedelta(hours=-5))),
        datetime(2016, 1, 1, 12, tzinfo=UTC),
        Time("2016-01-01T12:00:36.000", scale="tai"),
        np.float64(57388.5),
    ],
)
def test_people_write_times_in_many_ways(moment):
    assert to_mjd(moment) == pytest.approx(57388.5, abs=1e-9)


@pytest.mark.parametrize("moment", ["yesterday", "", "2016-13-01T00:00:00", 2457388.5, float("nan"), True])
def test_what_is_no_time_is_refused(moment):
    with pytest.raises(UserError, match=r"not a time|not an MJD"):
        to_mjd(moment)


def test_clocks_on_other_scales():
    utc = iso_to_mjd("2017-06-01T03:00:00")
    assert iso_to_mjd("2017-05-31T22:00:00", "local", -5.0) == pytest.approx(utc, abs=1e-9)
    assert iso_to_mjd("2017-06-01T03:00:37", "tai") == pytest.approx(utc, abs=1e-9)
    assert iso_to_mjd("2017-06-01T03:01:09.184", "tt") == pytest.approx(utc, abs=1e-9)
    assert clock_to_mjd(utc - 5 / 24, "local", -5.0) == pytest.approx(utc, abs=1e-9)
    assert clock_to_mjd(utc + 37 / 86400, "tai") == pytest.approx(utc, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "scale", "hours", "utc"),
    [
        ("2016-12-31T23:59:60.25", "utc", 0.0, "2016-12-31T23:59:60.25"),
        ("2017-01-01T08:59:60.25", "local", 9.0, "2016-12-31T23:59:60.25"),
        ("2016-12-31T13:59:60.25", "local", -10.0, "2016-12-31T23:59:60.25"),
        ("2017-01-01T09:00:00", "local", 9.0, "2017-01-01T00:00:00"),
        ("2017-01-01T08:00:00", "local", 9.0, "2016-12-31T23:00:00"),
        ("2016-12-31T20:00:00", "local", -10.0, "2017-01-01T06:00:00"),
        ("2017-01-01T00:00:36.25", "tai", 0.0, "2016-12-31T23:59:60.25"),
        ("2017-01-01 00:01:08.434", "tt", 0.0, "2016-12-31T23:59:60.25"),
        ("2017-01-01T05:44", "local", 5.75, "2016-12-31T23:59:00"),
        ("2015-12-31T23:59:60", "utc", 0.0, "2016-01-01T00:00:00"),  # no leap second: rounded up
    ],
)
def test_clocks_around_a_leap_second(text, scale, hours, utc):
    found = Time(iso_to_mjd(text, scale, hours), format="mjd", scale="utc")
    assert (found - Time(utc, scale="utc")).sec == pytest.approx(0.0, abs=2e-5)


@pytest.mark.parametrize("text", ["2016-12-31T23:59:61", "2016-12-31T24:00:00", "2016-02-30", "2016-12-31T1"])
def test_times_that_no_clock_shows(text):
    with pytest.raises(UserError, match="is not a time"):
        iso_to_mjd(text)


@pytest.mark.parametrize("mjd", [57753.999999, 60000.25, 88069.0])
def test_a_time_in_words_and_back(mjd):
    assert iso_to_mjd(mjd_to_iso(mjd)) == pytest.approx(mjd, abs=1e-8)


@pytest.mark.parametrize("longitude", [-76.96, 20.81, 149.07, -155.5, 204.5])
@pytest.mark.parametrize("day_fraction", [0.0, 0.2, 0.49, 0.51, 0.8, 0.999])
def test_the_evening_s_date_and_a_time_of_day(longitude, day_fraction):
    start = iso_to_mjd("2013-06-27") + day_fraction
    moment = evening_to_mjd(start, "2013-06-27", longitude)
    assert night_of(moment, longitude) == "2013-06-27"
    assert (moment - start) % 1.0 == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("utc", "longitude", "night"),
    [
        ("2012-06-17T01:56:40", -76.96, "2012-06-16"),  # Maryland, the evening of the 16th
        ("2012-06-16T17:30:00", -76.96, "2012-06-16"),  # just after local noon (17:08 UTC)
        ("2012-06-16T17:00:00", -76.96, "2012-06-15"),  # just before
        ("2013-07-13T00:57:33", 20.81, "2013-07-12"),  # Sutherland, after midnight
        ("2020-01-01T05:00:00", -70.8, "2019-12-31"),  # Chile, new year
        ("2020-01-01T10:00:00", 149.07, "2020-01-01"),  # Siding Spring: the evening is UTC's morning
        ("2020-01-01T10:00:00", 149.07 - 360.0, "2020-01-01"),
        ("2020-01-01T10:00:00", 204.5, "2019-12-31"),  # Hawaii, longitude counted the long way round
    ],
)
def test_a_night_carries_the_date_of_its_evening(utc, longitude, night):
    assert night_of(to_mjd(utc), longitude) == night


def test_middle_of_an_exposure_across_a_leap_second():
    start = to_mjd("2016-12-31T23:59:30")
    assert mid_mjd(start, 60.0) == pytest.approx(to_mjd("2016-12-31T23:59:60"), abs=1e-10)
    assert mid_mjd(start, 122.0) == pytest.approx(to_mjd("2017-01-01T00:00:30"), abs=1e-10)
    assert mid_mjd(56000.25, 86.4) == pytest.approx(56000.2505, abs=1e-10)


def simon_1994_bjd(mjd: float, tai_minus_utc: float, ra: float, dec: float) -> float:
    """BJD_TDB at the geocentre from the planetary theory of Simon et al. (1994), not ERFA's epv00."""
    tdb = mjd + (tai_minus_utc + 32.184) / 86400.0
    planets = [erfa.plan94(2400000.5, tdb, n)["p"] for n in range(1, 9)]
    sun = -sum(p / m for p, m in zip(planets, MASS_RATIOS, strict=True)) / (
        1 + sum(1 / m for m in MASS_RATIOS)
    )
    earth = planets[2] + sun - erfa.moon98(2400000.5, tdb)["p"] / 82.30057
    lon, lat = np.deg2rad(ra), np.deg2rad(dec)
    towards = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    return 2400000.5 + tdb + float(earth @ towards) * LIGHT_DAYS_PER_AU


@pytest.mark.parametrize(
    ("utc", "leap", "ra", "dec"),
    [
        ("2012-06-17T03:40:00", 34, 286.0409, 36.6325),
        ("2012-07-17T03:40:00", 35, 286.0409, 36.6325),
        ("2020-12-21T00:00:00", 37, 90.0, 23.4),
        ("2024-03-20T12:00:00", 37, 0.0, 0.0),
        ("2024-09-20T12:00:00", 37, 210.0, -89.9),
    ],
)
def test_barycentric_time_agrees_with_another_planetary_theory(utc, leap, ra, dec):
    # The geocentre is up to 21 ms of light from the telescope, and the theories differ by a few ms.
    mjd = to_mjd(utc)
    got = bjd_tdb(mjd, ra, dec, Site(39.0, -77.0, 50.0))
    assert abs(float(got) - simon_1994_bjd(mjd, leap, ra, dec)) * 86400.0 < 0.03


def test_the_telescope_is_not_at_the_centre_of_the_earth():
    mjd = to_mjd("2020-03-20T00:00:00")
    here, there = Site(0.0, 0.0, 0.0), Site(0.0, 180.0, 0.0)
    ra_of_zenith = float(Time(mjd, format="mjd").sidereal_time("mean", "greenwich").deg)
    ahead = float(bjd_tdb(mjd, ra_of_zenith, 0.0, here) - bjd_tdb(mjd, ra_of_zenith, 0.0, there)) * 86400.0
    assert ahead == pytest.approx(2 * 6378137.0 / 299792458.0, abs=2e-4)


def test_barycentric_time_runs_through_a_leap_second():
    mjd = np.array([to_mjd("2016-12-31T23:59:50"), to_mjd("2017-01-01T00:00:10")])
    elapsed = np.diff(bjd_tdb(mjd, 90.0, 66.56, Site(0.0, 0.0)))[0] * 86400.0
    assert elapsed == pytest.approx(21.0, abs=0.005)  # ecliptic pole: hardly any Roemer delay


def test_times_long_after_the_tables_end():
    assert float(bjd_tdb(75000.0, 10.0, 10.0, Site(-30.0, -70.0))) == pytest.approx(2475000.5, abs=0.01)
