"""What is known at the places where something changed: variables and minor planets of local tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from seechange_core.catalogs.movers import Movers, read_movers
from seechange_core.catalogs.variables import read_variables
from seechange_core.frames import Float, Int
from seechange_core.numerics.kepler import drift_arcsec, ephemeris, passing, to_tt
from seechange_core.numerics.sky import chord, project, unit_vectors
from seechange_core.numerics.timing import Site
from seechange_core.settings import Settings

#: Of a minor planet predicted to be so much fainter than what was seen, it was not seen.
_TOO_FAINT_MAG = 2.0


@dataclass(frozen=True, eq=False)
class Sightings:
    """What was seen, one entry per good detection.

    Attributes
    ----------
    exposure
        (n,) number of the exposure.
    mjd_mid
        (n,) its middle, MJD (UTC).
    ra, dec
        (n,) ICRS deg.
    mag
        (n,) NaN where the flux is not positive.
    sites
        Where each exposure was taken; None where that is unknown.
    """

    exposure: Int
    mjd_mid: Float
    ra: Float
    dec: Float
    mag: Float
    sites: Sequence[Site | None]


class Known(NamedTuple):
    """What a table knows where something was seen: how far from there, arcsec, and what it is."""

    apart_arcsec: float
    words: str


def known_variables(settings: Settings, seen: Sightings) -> list[Known | None]:
    """Say of each sighting which variable it is, as ``name type P days range``; None if none is known there.

    Raises
    ------
    NotFoundError, FileDamagedError, UserError
        If a table of the settings is missing or cannot be read.
    """
    found: list[Known | None] = [None] * len(seen.ra)
    for path in reversed(settings.known.variables):
        table = read_variables(path)
        index, apart = table.nearest(seen.ra, seen.dec, settings.known.variable_radius_arcsec)
        for i in np.flatnonzero(index >= 0):
            found[i] = Known(float(apart[i]), f"{table.words(int(index[i]))} ({apart[i]:.1f}″)")
    return found


def known_movers(settings: Settings, seen: Sightings) -> list[Known | None]:
    """Say of each sighting which minor planet it is, as ``name V mag (offset)``; None if none is known there.

    The prediction is for the middle of the exposure, from its site, in two-body motion: what has moved off
    its ellipse since the epoch of its elements is given a wider radius (`drift_arcsec`).

    Raises
    ------
    NotFoundError, FileDamagedError, UserError
        If a table of the settings is missing or cannot be read.
    """
    found: list[Known | None] = [None] * len(seen.ra)
    if not len(seen.ra):
        return found
    for path in reversed(settings.known.movers):
        table = read_movers(path)
        for night in _nights(seen.mjd_mid):
            _mark_night(settings, table, seen, night, found)
    return found


def _nights(mjd: Float) -> list[Int]:
    """Split sightings where more than half a day lies between them, by time."""
    order = np.argsort(mjd, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(mjd[order]) > 0.5) + 1)


def _mark_night(
    settings: Settings, table: Movers, seen: Sightings, rows: Int, found: list[Known | None]
) -> None:
    """Mark the sightings of one night that minor planets of a table are predicted at."""
    known, mjd = settings.known, seen.mjd_mid[rows]
    days = np.abs(to_tt(float(mjd[0])) - table.orbits.epoch_mjd)
    usable = np.flatnonzero(days <= known.mover_max_days)
    if not len(usable):
        return
    widest = float(known.mover_radius_arcsec + np.max(drift_arcsec(days[usable])))
    cell = 0.5
    fields = _fields(seen.ra[rows], seen.dec[rows], cell)
    around = cell + widest / 3600
    orbits = table.orbits.take(usable)
    near = usable[passing(orbits, (float(mjd.min()), float(mjd.max())), *fields, around)]
    if not len(near):
        return
    radius = known.mover_radius_arcsec + drift_arcsec(days[near])
    for number in np.unique(seen.exposure[rows]):
        here = rows[seen.exposure[rows] == number]
        _mark_exposure(table, near, radius, seen, here, found)


def _fields(ra: Float, dec: Float, radius_deg: float) -> tuple[Float, Float]:
    """Return some of many positions, so that each is within a radius of one of them."""
    vectors = unit_vectors(ra, dec)
    tree, left = cKDTree(vectors), np.ones(len(ra), bool)
    chosen = []
    while left.any():
        first = int(np.flatnonzero(left)[0])
        chosen.append(first)
        left[tree.query_ball_point(vectors[first], float(chord(radius_deg)))] = False
    return ra[chosen], dec[chosen]


def _mark_exposure(
    table: Movers, near: Int, radius: Float, seen: Sightings, here: Int, found: list[Known | None]
) -> None:
    """Mark the sightings of one exposure: each takes the nearest body, each body the nearest sighting."""
    mjd, site = float(seen.mjd_mid[here[0]]), seen.sites[here[0]]
    place = ephemeris(table.orbits.take(near), mjd, site)
    v = place.magnitude(table.h[near], table.g[near])
    tree = cKDTree(unit_vectors(seen.ra[here], seen.dec[here]))
    directions = unit_vectors(place.ra, place.dec)
    pairs = []
    for body, hits in enumerate(tree.query_ball_point(directions, chord(radius / 3600))):
        for k in hits:
            i = int(here[k])
            if v[body] > seen.mag[i] + _TOO_FAINT_MAG:
                continue
            x, y = project(seen.ra[i], seen.dec[i], float(place.ra[body]), float(place.dec[body]))
            pairs.append((3600 * float(np.hypot(x, y)), body, i))
    bodies: set[int] = set()
    seen_now: set[int] = set()
    for apart, body, i in sorted(pairs):
        if body in bodies or i in seen_now:
            continue
        bodies.add(body)
        seen_now.add(i)
        bright = f" V {v[body]:.1f}" if np.isfinite(v[body]) else ""
        found[i] = Known(apart, f"{table.name[near[body]]}{bright} ({apart:.1f}″)")
