"""Where things stand in the sky, to a fraction of a degree: enough for airmass and moonlight.

Written out here, rather than asked of a library, so that a simulation needs no tables of the Earth's
rotation from the network and is the same for ever.
"""

import numpy as np

J2000_MJD = 51544.5

#: Dark sky at the zenith, r magnitudes per square arcsecond.
DARK_SKY_MAG = 20.9
#: Atmospheric extinction, magnitudes per airmass.
EXTINCTION_MAG = {"g": 0.18, "r": 0.10, "i": 0.07, "z": 0.06}


def sidereal_deg(mjd: float, longitude_deg: float) -> float:
    """Return local mean sidereal time (deg) at a UTC MJD (Meeus, Astronomical Algorithms, eq. 12.4)."""
    return (280.46061837 + 360.98564736629 * (mjd - J2000_MJD) + longitude_deg) % 360.0


def altitude_deg(
    ra_deg: float, dec_deg: float, mjd: float, latitude_deg: float, longitude_deg: float
) -> float:
    """Return the altitude above the horizon (deg), without refraction."""
    hour_angle = np.deg2rad(sidereal_deg(mjd, longitude_deg) - ra_deg)
    dec, latitude = np.deg2rad(dec_deg), np.deg2rad(latitude_deg)
    sine = np.sin(dec) * np.sin(latitude) + np.cos(dec) * np.cos(latitude) * np.cos(hour_angle)
    return float(np.rad2deg(np.arcsin(np.clip(sine, -1, 1))))


def airmass_of(altitude: float) -> float:
    """Return the airmass at an altitude in degrees (Kasten & Young 1989, Appl. Opt. 28, 4735)."""
    return float(1.0 / (np.sin(np.deg2rad(altitude)) + 0.50572 * (altitude + 6.07995) ** -1.6364))


def sun_position(mjd: float) -> tuple[float, float]:
    """Return the Sun's RA and Dec (deg), good to 0.01 deg (Astronomical Almanac, page C5)."""
    return _to_equatorial(_sun_longitude(mjd), 0.0, mjd)


def moon_position(mjd: float) -> tuple[float, float]:
    """Return the Moon's geocentric RA and Dec (deg), good to 0.3 deg (Astronomical Almanac, page D22)."""
    t = (mjd - J2000_MJD) / 36525.0

    def s(phase: float, rate: float) -> float:
        return float(np.sin(np.deg2rad(phase + rate * t)))

    longitude = (
        218.32 + 481267.881 * t
        + 6.29 * s(135.0, 477198.87) - 1.27 * s(259.3, -413335.36) + 0.66 * s(235.7, 890534.22)
        + 0.21 * s(269.9, 954397.74) - 0.19 * s(357.5, 35999.05) - 0.11 * s(186.5, 966404.03)
    )  # fmt: skip
    latitude = (
        5.13 * s(93.3, 483202.02) + 0.28 * s(228.2, 960400.89)
        - 0.28 * s(318.3, 6003.15) - 0.17 * s(217.6, -407332.21)
    )  # fmt: skip
    return _to_equatorial(longitude, latitude, mjd)


def _sun_longitude(mjd: float) -> float:
    days = mjd - J2000_MJD
    anomaly = np.deg2rad(357.528 + 0.9856003 * days)
    return float(280.460 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))


def _to_equatorial(longitude_deg: float, latitude_deg: float, mjd: float) -> tuple[float, float]:
    tilt = np.deg2rad(23.439 - 0.0000004 * (mjd - J2000_MJD))
    lon, lat = np.deg2rad(longitude_deg), np.deg2rad(latitude_deg)
    x = np.cos(lat) * np.cos(lon)
    y = np.cos(tilt) * np.cos(lat) * np.sin(lon) - np.sin(tilt) * np.sin(lat)
    z = np.sin(tilt) * np.cos(lat) * np.sin(lon) + np.cos(tilt) * np.sin(lat)
    return float(np.rad2deg(np.arctan2(y, x)) % 360), float(np.rad2deg(np.arcsin(z)))


def separation_deg(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    """Return the angle between two directions, all in degrees."""
    a1, d1, a2, d2 = np.deg2rad([ra1, dec1, ra2, dec2])
    half = np.sin((d2 - d1) / 2) ** 2 + np.cos(d1) * np.cos(d2) * np.sin((a2 - a1) / 2) ** 2
    return float(np.rad2deg(2 * np.arcsin(np.sqrt(min(1.0, half)))))


def moonlight_ratio(
    ra_deg: float, dec_deg: float, mjd: float, latitude_deg: float, longitude_deg: float
) -> float:
    """Return scattered moonlight in units of the dark sky at the zenith; 0 when the Moon is down.

    Krisciunas & Schaefer 1991, PASP 103, 1033, eqs. 3 and 15 to 21, with the extinction of the r band.
    """
    moon_ra, moon_dec = moon_position(mjd)
    moon_altitude = altitude_deg(moon_ra, moon_dec, mjd, latitude_deg, longitude_deg)
    if moon_altitude <= 0:
        return 0.0
    altitude = altitude_deg(ra_deg, dec_deg, mjd, latitude_deg, longitude_deg)
    phase = 180.0 - separation_deg(moon_ra, moon_dec, *sun_position(mjd))
    illuminance = 10 ** (-0.4 * (3.84 + 0.026 * abs(phase) + 4e-9 * phase**4))
    rho = max(separation_deg(ra_deg, dec_deg, moon_ra, moon_dec), 10.0)
    scattering = 10**5.36 * (1.06 + np.cos(np.deg2rad(rho)) ** 2) + 10 ** (6.15 - rho / 40.0)

    def thickness(above: float) -> float:
        return float((1 - 0.96 * np.cos(np.deg2rad(above)) ** 2) ** -0.5)

    k = EXTINCTION_MAG["r"]
    dimming = 10 ** (-0.4 * k * thickness(moon_altitude)) * (1 - 10 ** (-0.4 * k * thickness(altitude)))
    dark = 34.08 * np.exp(20.7233 - 0.92104 * DARK_SKY_MAG)
    return float(scattering * illuminance * dimming / dark)
