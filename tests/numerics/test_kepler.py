"""Orbits against integrations of the equation of motion, a published place, and the planets themselves."""

import sys
from pathlib import Path

import erfa
import numpy as np
import pytest
from astropy import units
from astropy.coordinates import get_body_barycentric, get_body_barycentric_posvel
from astropy.time import Time
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

sys.path.append(str(Path(__file__).parents[1]))
from true_orbits import orbits_from_states

from seechange_core.numerics.kepler import (
    GAUSS,
    LIGHT_DAYS_AU,
    Ephemeris,
    Orbits,
    drift_arcsec,
    eccentric_anomaly,
    ephemeris,
    heliocentric,
    passing,
    to_tt,
)
from seechange_core.numerics.sky import from_vectors, separation
from seechange_core.numerics.timing import Site, tables_at_hand

SITE = Site(-30.17, -70.81, 2200.0)
EPOCH = 60000.0


def belt(n: int, seed: int = 1) -> Orbits:
    """Draw orbits of a main belt."""
    rng = np.random.default_rng(seed)
    node, peri, mean = rng.uniform(0, 360, (3, n))
    e = np.clip(rng.rayleigh(0.12, n), 0, 0.4)
    return Orbits(rng.uniform(2.1, 3.3, n), e, rng.rayleigh(7, n), node, peri, mean, np.full(n, EPOCH))


def odd(n: int, seed: int = 2) -> Orbits:
    """Draw orbits of all kinds: steep, retrograde, close to the Sun and to a parabola."""
    rng = np.random.default_rng(seed)
    node, peri, mean = rng.uniform(0, 360, (3, n))
    return Orbits(
        10 ** rng.uniform(-0.3, 1.3, n), rng.uniform(0, 0.98, n), rng.uniform(0, 180, n), node, peri, mean,
        EPOCH + rng.uniform(-50, 50, n),
    )  # fmt: skip


def test_keplers_equation_holds_for_any_ellipse():
    e, m = (g.ravel() for g in np.meshgrid([0, 0.1, 0.5, 0.9, 0.99, 0.9999], np.linspace(-20, 20, 4001)))
    found = eccentric_anomaly(m, e)
    assert np.abs(np.remainder(found - e * np.sin(found) - m + np.pi, 2 * np.pi) - np.pi).max() < 1e-12


def test_states_and_elements_are_each_other():
    orbits = odd(300)
    same = orbits_from_states(*heliocentric(orbits, EPOCH), EPOCH)
    for mjd in (EPOCH, EPOCH + 77):
        for one, other in zip(heliocentric(orbits, mjd), heliocentric(same, mjd), strict=True):
            assert np.abs(one - other).max() < 1e-7 * np.abs(one).max()


def newton(orbits: Orbits, days, planets=()) -> np.ndarray:
    """Integrate Newton's law from the epoch: (3, n, len(days)) au from the Sun; planets pull both."""
    n = len(orbits)

    def law(t, y):
        r = y[: 3 * n].reshape(3, n)
        pull = -(GAUSS**2) * r / np.sum(r * r, axis=0) ** 1.5
        for inverse_mass, place in planets:
            p = place(t)[:, None]
            d = p - r
            pull = pull + GAUSS**2 / inverse_mass * (
                d / np.sum(d * d, axis=0) ** 1.5 - p / np.sum(p * p) ** 1.5
            )
        return np.concatenate([y[3 * n :], pull.ravel()])

    start = np.concatenate([v.ravel() for v in heliocentric(orbits, EPOCH)])
    times = EPOCH + np.asarray(days, float)
    run = solve_ivp(law, (EPOCH, times[-1]), start, "DOP853", times, rtol=1e-11, atol=1e-13)
    return run.y[: 3 * n].reshape(3, n, len(days))


def earth(mjd: float, site: Site | None) -> np.ndarray:
    """Return the observer's place from the Sun, by astropy's own way."""
    with tables_at_hand():
        clock = Time(mjd, format="mjd", scale="utc")
        place = get_body_barycentric("earth", clock) - get_body_barycentric("sun", clock)
        if site is not None:
            place += site.location.get_gcrs_posvel(clock)[0]
        return place.xyz.to_value(units.au)


def test_two_body_places_are_those_of_an_independent_integration():
    """With light time found by stepping back along the integrated path; better than a milliarcsecond."""
    orbits, mjd = belt(20), EPOCH + 60
    days = to_tt(mjd) - EPOCH + np.linspace(-0.04, 0, 9)
    path = newton(orbits, days)
    here = earth(mjd, SITE)
    late = np.linalg.norm(path - here[:, None, None], axis=0) * LIGHT_DAYS_AU  # at each moment of leaving
    ra, dec = np.empty((2, len(orbits)))
    for i in range(len(orbits)):
        left = days[-1] - days  # time until we look
        leaving = float(CubicSpline((left - late[i])[::-1], days[::-1])(0))
        seen = CubicSpline(days, path[:, i].T)(leaving) - here
        ra[i], dec[i] = from_vectors(seen)
    found = ephemeris(orbits, mjd, SITE)
    assert separation(ra, dec, found.ra, found.dec).max() * 3.6e6 < 1.0


def test_a_comet_is_where_a_textbook_says():
    """Encke on 1990 October 6.0 TD: Meeus, Astronomical Algorithms (2nd ed.), example 33.b; geocentric."""
    motion = GAUSS * 2.2091404**-1.5
    with tables_at_hand():
        perihelion = Time("1990-10-28", scale="tt").mjd + 0.54502
        seen = float(Time("1990-10-06", scale="tt").utc.mjd)
    mean = np.rad2deg(motion * (to_tt(seen) - perihelion))
    values = (2.2091404, 0.8502196, 11.94524, 334.75006, 186.23352, mean, to_tt(seen))
    comet = ephemeris(Orbits(*(np.array([v]) for v in values)), seen)
    assert separation(comet.ra, comet.dec, 158.558965, 19.158496)[0] * 3600 < 0.1


@pytest.mark.parametrize("body", ["venus", "mars", "jupiter"])
def test_planets_are_where_astropy_has_them(body):
    """From its state at one moment, a day and ten days on: what the other planets pull is small by then."""
    with tables_at_hand():
        epoch = Time(EPOCH, format="mjd", scale="tt")
        planet, sun = get_body_barycentric_posvel(body, epoch), get_body_barycentric_posvel("sun", epoch)
        position, velocity = ((p - s).xyz for p, s in zip(planet, sun, strict=True))
        orbit = orbits_from_states(
            position.to_value(units.au)[:, None], velocity.to_value(units.au / units.d)[:, None], EPOCH
        )
        for days, limit in ((1.0, 0.2), (10.0, 2.0)):
            mjd = EPOCH + days
            found = ephemeris(orbit, mjd, SITE)
            when = Time(mjd, format="mjd", scale="utc") - found.delta_au[0] * LIGHT_DAYS_AU * units.d
            place = (get_body_barycentric(body, when) - get_body_barycentric("sun", when)).xyz
            ra, dec = from_vectors(place.to_value(units.au) - earth(mjd, SITE))
            assert separation(ra, dec, found.ra, found.dec)[0] * 3600 < limit


def test_orbits_drift_as_stated():
    """The pull of Jupiter and Saturn, Mars and the Earth, against two bodies alone."""
    times = np.arange(EPOCH - 2, EPOCH + 210, 2.0)

    def path(number):
        earth_or_other = (lambda t: erfa.epv00(2400000.5, t)[0]) if number == 3 else None
        place = earth_or_other or (lambda t: erfa.plan94(2400000.5, t, number))
        return CubicSpline(times, np.array([place(t)["p"] for t in times]))

    masses = {3: 328900.56, 4: 3098708.0, 5: 1047.3486, 6: 3497.898}
    orbits, days = belt(200, seed=3), [30.0, 100.0, 200.0]
    true = newton(orbits, days, [(mass, path(number)) for number, mass in masses.items()])
    for k, day in enumerate(days):
        here = earth(EPOCH + day, None)[:, None]
        places = [from_vectors((p - here).T) for p in (true[..., k], heliocentric(orbits, EPOCH + day)[0])]
        off = separation(*places[0], *places[1]) * 3600
        assert 0.4 * drift_arcsec(day) < np.percentile(off, 95) < 1.3 * drift_arcsec(day)


def test_all_that_pass_are_found_and_few_others():
    """Of all kinds of orbits: whoever is in one of two fields at any time of a night is among them."""
    orbits, night = odd(20000), (EPOCH + 10, EPOCH + 10.35)
    ra, dec, radius = np.array([150.0, 359.9]), np.array([2.0, -10.0]), 3.0
    found = passing(orbits, night, ra, dec, radius)
    there = np.zeros(len(orbits), bool)
    for mjd in np.linspace(*night, 5):
        place = ephemeris(orbits, float(mjd), SITE)
        for a, d in zip(ra, dec, strict=True):
            there |= separation(place.ra, place.dec, a, d) <= radius
    assert there.sum() > 20 and set(np.flatnonzero(there)) <= set(found)
    assert len(found) < 3 * there.sum() + 20


def test_magnitudes_in_the_h_g_system():
    """Full and 1 au from both it has its absolute magnitude; ten times as far from one, 5 mag less light."""
    one = np.ones(3)
    place = Ephemeris(one, one, np.array([1.0, 10.0, 1.0]), one, np.deg2rad([0.0, 0.0, 20.0]))
    bright, far, side = place.magnitude(15 * one, 0.15 * one)
    assert (bright, far) == pytest.approx((15.0, 20.0)) and 15.8 < side < 16.2
