"""Where minor planets are: two-body orbits around the Sun, seen from a telescope.

Elements are heliocentric, osculating, referred to the ecliptic and equinox J2000, as the Minor Planet Center
publishes them; times are MJD. The pull of the planets is left out: an orbit is good near its epoch only, and
`drift_arcsec` says how good.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt
from astropy import units
from astropy.coordinates import get_body_barycentric
from astropy.time import Time

from seechange_core.frames import Float, Int
from seechange_core.numerics.sky import from_vectors, unit_vectors
from seechange_core.numerics.timing import Site, tables_at_hand

#: Gauss's constant: the mean motion of a body at 1 au, rad/d.
GAUSS = 0.01720209895
#: Light travels 1 au in so many days.
LIGHT_DAYS_AU = 0.0057755183
#: Obliquity of the ecliptic of J2000 (IAU 1976, as in published elements), rad.
OBLIQUITY = np.deg2rad(84381.448 / 3600)
_EARTH_RADIUS_AU = 4.26e-5
_CHUNK = 16384


@dataclass(frozen=True, eq=False)
class Orbits:
    """Elliptical orbits, one entry per body.

    Attributes
    ----------
    a_au, e
        (n,) semimajor axis; eccentricity, 0 to below 1.
    incl_deg, node_deg, peri_deg
        (n,) inclination, longitude of the ascending node, argument of the perihelion.
    mean_anomaly_deg
        (n,) at the epoch.
    epoch_mjd
        (n,) MJD (TT).
    """

    a_au: Float
    e: Float
    incl_deg: Float
    node_deg: Float
    peri_deg: Float
    mean_anomaly_deg: Float
    epoch_mjd: Float

    def __len__(self) -> int:
        return len(self.a_au)

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_] | slice) -> Self:
        """Return some of them."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def axes(self) -> tuple[Float, Float]:
        """Return the directions of perihelion and, a quarter turn ahead, of motion there: (3, n), ICRS."""
        node, incl, peri = (np.deg2rad(v) for v in (self.node_deg, self.incl_deg, self.peri_deg))
        cn, sn, ci, si, cp, sp = (f(v) for v in (node, incl, peri) for f in (np.cos, np.sin))
        p = np.array([cn * cp - sn * sp * ci, sn * cp + cn * sp * ci, sp * si])
        q = np.array([-cn * sp - sn * cp * ci, -sn * sp + cn * cp * ci, cp * si])
        return _to_equator(p), _to_equator(q)


def _to_equator(vectors: Float) -> Float:
    """Turn (3, n) vectors from the ecliptic to the equator of J2000."""
    cos, sin = np.cos(OBLIQUITY), np.sin(OBLIQUITY)
    x, y, z = vectors
    return np.array([x, cos * y - sin * z, sin * y + cos * z])


def eccentric_anomaly(mean_anomaly: Float, e: Float) -> Float:
    """Solve Kepler's equation E - e sin E = M to 1e-13 rad.

    The third-order iteration of Danby (1987, Cel. Mech. 40, 303, eq. 9), which from his starting value needs
    three or four rounds for any eccentricity below 1.

    Parameters
    ----------
    mean_anomaly, e
        (n,) rad, any number of turns; 0 to below 1.

    Returns
    -------
    (n,) rad, within half a turn of 0.
    """
    m = np.remainder(mean_anomaly + np.pi, 2 * np.pi) - np.pi
    found = m + np.copysign(0.85 * e, m)
    for _ in range(12):
        sin, cos = e * np.sin(found), e * np.cos(found)
        error = found - sin - m
        slope = 1 - cos
        step = -error / (slope - 0.5 * error * sin / slope)
        step = -error / (slope + 0.5 * step * (sin + step * cos / 3))
        found = found + step
        if np.max(np.abs(step), initial=0.0) < 1e-13:
            break
    return np.asarray(found)


def heliocentric(orbits: Orbits, mjd_tt: npt.ArrayLike) -> tuple[Float, Float]:
    """Return positions (3, n) au and velocities (3, n) au/d from the Sun, ICRS axes, at one or n times."""
    p, q = orbits.axes()
    motion = GAUSS * orbits.a_au**-1.5
    days = np.asarray(mjd_tt, float) - orbits.epoch_mjd
    anomaly = eccentric_anomaly(np.deg2rad(orbits.mean_anomaly_deg) + motion * days, orbits.e)
    cos, sin, root = np.cos(anomaly), np.sin(anomaly), np.sqrt(1 - orbits.e**2)
    position = orbits.a_au * ((cos - orbits.e) * p + root * sin * q)
    speed = orbits.a_au * motion / (1 - orbits.e * cos)
    return position, speed * (-sin * p + root * cos * q)


def observer(mjd_utc: float, site: Site | None) -> Float:
    """Return where a telescope, or the middle of the Earth, is from the Sun: (3,) au, ICRS axes.

    From the ephemeris that comes with astropy (ERFA's ``epv00``, good to 10 km); nothing is fetched.
    """
    with tables_at_hand():
        clock = Time(mjd_utc, format="mjd", scale="utc")
        earth, sun = (get_body_barycentric(body, clock, ephemeris="builtin") for body in ("earth", "sun"))
        place = earth - sun
        if site is not None:
            place += site.location.get_gcrs_posvel(clock)[0]
    return np.asarray(place.xyz.to_value(units.au), float)


def to_tt(mjd_utc: float) -> float:
    """Convert MJD (UTC) to MJD (TT)."""
    with tables_at_hand():
        return float(Time(mjd_utc, format="mjd", scale="utc").tt.mjd)


@dataclass(frozen=True, eq=False)
class Ephemeris:
    """Where bodies are seen.

    Attributes
    ----------
    ra, dec
        (n,) astrometric place, ICRS deg: among the stars of a catalog, with light time, without aberration.
    delta_au, r_au
        (n,) distance from the observer and from the Sun.
    phase_rad
        (n,) angle Sun - body - observer.
    """

    ra: Float
    dec: Float
    delta_au: Float
    r_au: Float
    phase_rad: Float

    def magnitude(self, h: Float, g: Float) -> Float:
        """Return V magnitudes in the H, G system (Bowell et al. 1989, in Asteroids II, eq. A4)."""
        half = np.tan(self.phase_rad / 2)
        dimming = (1 - g) * np.exp(-3.33 * half**0.63) + g * np.exp(-1.87 * half**1.22)
        return np.asarray(h + 5 * np.log10(self.r_au * self.delta_au) - 2.5 * np.log10(dimming))


def ephemeris(orbits: Orbits, mjd_utc: float, site: Site | None = None) -> Ephemeris:
    """Predict where bodies are seen from a site, or from the middle of the Earth, at one moment."""
    here, mjd_tt = observer(mjd_utc, site), to_tt(mjd_utc)
    position, velocity = heliocentric(orbits, mjd_tt)
    delay = np.zeros(len(orbits))
    for _ in range(2):  # a body moves by 1e-4 of the distance while its light is on its way
        line = position - velocity * delay - here[:, None]
        delay = LIGHT_DAYS_AU * np.linalg.norm(line, axis=0)
    position, _ = heliocentric(orbits, mjd_tt - delay)
    line = position - here[:, None]
    delta, r = np.linalg.norm(line, axis=0), np.linalg.norm(position, axis=0)
    ra, dec = from_vectors(line.T)
    cosine = np.sum(line * position, axis=0) / (delta * r)
    return Ephemeris(ra, dec, delta, r, np.arccos(np.clip(cosine, -1, 1)))


def passing(
    orbits: Orbits,
    mjd_utc: tuple[float, float],
    ra: npt.ArrayLike,
    dec: npt.ArrayLike,
    radius_deg: float,
) -> Int:
    """Find the bodies that may be seen within a radius of any of some places during some time.

    One look at all orbits, in the middle of that time: each may then be as far off as it moves until the
    ends, by twice its speed. So all that are there are found, and few others.

    Parameters
    ----------
    orbits
        Any number: a million take about half a second.
    mjd_utc
        Beginning and end, at most some days apart.
    ra, dec
        (m,) ICRS deg.
    radius_deg
        Around each of the places.

    Returns
    -------
    Indices of the bodies, ascending.
    """
    middle, half_span = (mjd_utc[0] + mjd_utc[1]) / 2, abs(mjd_utc[1] - mjd_utc[0]) / 2
    here, mjd_tt = observer(middle, None), to_tt(middle)
    motion = (observer(middle + 0.5, None) - observer(middle - 0.5, None))[:, None]
    fields_ = np.atleast_2d(unit_vectors(np.atleast_1d(ra), np.atleast_1d(dec)))
    found = []
    for start in range(0, len(orbits), _CHUNK):
        part = orbits.take(slice(start, start + _CHUNK))
        position, velocity = heliocentric(part, mjd_tt)
        line = position - here[:, None]
        distance = np.maximum(np.linalg.norm(line, axis=0), 1e-9)
        # Across the line of sight at most, light time and the Earth's radius included.
        speed = np.linalg.norm(velocity - motion, axis=0)
        far = LIGHT_DAYS_AU * np.linalg.norm(velocity, axis=0) * distance
        reach = np.deg2rad(radius_deg) + (2 * speed * half_span + far + _EARTH_RADIUS_AU) / distance
        found.append(start + _within(line / distance, fields_, reach))
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)


def _within(directions: Float, places: Float, reach: Float) -> Int:
    """Return which of (3, n) directions lie within their reach (rad) of any of (m, 3) places."""
    limit = np.cos(np.minimum(reach, np.pi))
    hit = np.zeros(len(reach), bool)
    for place in places:
        hit |= place @ directions >= limit
    return np.flatnonzero(hit)


#: Main-belt orbits, integrated for a year with the pull of the eight planets and without: 95 % part by less.
DRIFT_ARCSEC_AT_100_D = 12.0


def drift_arcsec(days: npt.ArrayLike) -> Float:
    """Return how far off a main-belt asteroid may be seen, arcsec, so many days from its epoch.

    What the planets' pull, left out here, does to 95 % of them. For a year it grows as the square of the
    time: 1 arcsec in 30 days, 12 in 100, 160 in a year; then faster: 20 arcmin in two. What passes near a
    planet is off by more.
    """
    return np.asarray(DRIFT_ARCSEC_AT_100_D * (np.asarray(days, float) / 100.0) ** 2)
