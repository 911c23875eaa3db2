"""Orbits of bodies of which a position and a velocity are known, the classical way."""

import numpy as np

from seechange_core.numerics.kepler import GAUSS, OBLIQUITY, Orbits, observer, to_tt
from seechange_core.numerics.sky import unit_vectors


def orbits_from_states(position: np.ndarray, velocity: np.ndarray, mjd_tt: float | np.ndarray) -> Orbits:
    """Return the osculating ellipses of (3, n) heliocentric states, ICRS axes, au and au/d."""
    cos, sin = np.cos(OBLIQUITY), np.sin(OBLIQUITY)
    turn = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    r, v = turn @ position, turn @ velocity
    distance, gm = np.linalg.norm(r, axis=0), GAUSS**2
    momentum = np.cross(r.T, v.T).T
    eccentricity = np.cross(v.T, momentum.T).T / gm - r / distance
    e = np.linalg.norm(eccentricity, axis=0)
    a = 1 / (2 / distance - np.sum(v * v, axis=0) / gm)
    node = np.arctan2(momentum[0], -momentum[1])
    incl = np.arctan2(np.hypot(momentum[0], momentum[1]), momentum[2])
    to_node = np.array([np.cos(node), np.sin(node), 0 * node])
    across = np.cross(momentum.T, to_node.T).T / np.linalg.norm(momentum, axis=0)
    peri = np.arctan2(np.sum(eccentricity * across, axis=0), np.sum(eccentricity * to_node, axis=0))
    anomaly = np.arctan2(np.sum(r * v, axis=0) / np.sqrt(gm * a), 1 - distance / a)
    mean = anomaly - e * np.sin(anomaly)
    angles = [np.rad2deg(x) % 360 for x in (incl, node, peri, mean)]
    return Orbits(a, e, *angles, np.broadcast_to(mjd_tt, a.shape).astype(float))


def orbits_of_asteroids(objects, site) -> Orbits:
    """Return orbits on which a simulated survey's asteroids are seen where and move as they do.

    One of the many for each: as far from the observer as leaves it bound to the Sun, its speed along the line
    of sight his own.
    """
    found = []
    for row in objects:
        mjd = float(row["epoch_mjd"])
        here = observer(mjd, site)
        motion = (observer(mjd + 1e-3, site) - observer(mjd - 1e-3, site)) / 2e-3
        lon, lat = np.deg2rad(row["ra"]), np.deg2rad(row["dec"])
        east = np.array([-np.sin(lon), np.cos(lon), 0])
        north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
        per_day = np.deg2rad(np.array([row["pmra"], row["pmdec"]]) / 3.6e6) / 365.25
        for delta_au in (1.4, 1.0, 0.7, 0.5, 0.3, 0.2):
            velocity = motion + delta_au * (per_day[0] * east + per_day[1] * north)
            # Where the light came from that arrives then: the body is seen as it was.
            place = here + delta_au * unit_vectors(row["ra"], row["dec"])
            energy = velocity @ velocity / 2 - GAUSS**2 / np.linalg.norm(place)
            if energy < -0.15 * GAUSS**2:  # a below 3.3 au
                break
        delay = 0.0057755183 * delta_au
        found.append(orbits_from_states(place[:, None], velocity[:, None], to_tt(mjd) - delay))
    names = Orbits.__dataclass_fields__
    return Orbits(**{name: np.concatenate([getattr(o, name) for o in found]) for name in names})
