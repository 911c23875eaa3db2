"""What is known at the places where something changed: variables and minor planets of local tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from seechange_core.catalogs.movers import Movers, read_movers
from seechange_core.catalogs.variables import read_variables
from seechange_core.frames import Bool, Float, Int
from seechange_core.numerics.kepler import Ephemeris, drift_arcsec, ephemeris, passing, to_tt
from seechange_core.numerics.sky import chord, project, unit_vectors
from seechange_core.numerics.timing import Site
from seechange_core.settings import Settings

#: A minor planet predicted to be so much fainter or brighter than what was seen is not what was seen: light
#: curves, colours and errors of H together make less.
_OFF_MAG = 2.0
#: Motion off the predicted one by so many of its errors, and by this share of it, is another.
_OFF_SIGMA, _OFF_SHARE = 5.0, 0.05


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
    err_arcsec
        (n,) 1-sigma errors of the positions per axis.
    thing
        (n,) number of the object, or of the line, that it is one sighting of.
    steady
        (n,) whether something was seen at its place in another night.
    """

    exposure: Int
    mjd_mid: Float
    ra: Float
    dec: Float
    mag: Float
    sites: Sequence[Site | None]
    err_arcsec: Float
    thing: Int
    steady: Bool


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
    its ellipse since the epoch of its elements is given a wider radius (`drift_arcsec`). What has been at its
    place in another night is none; nor is what moved otherwise than predicted between exposures of a night.

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
    known, rows = settings.known, rows[~seen.steady[rows]]
    if not len(rows):
        return
    mjd = seen.mjd_mid[rows]
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
    numbers, first = np.unique(seen.exposure[rows], return_index=True)
    places = {
        int(number): ephemeris(table.orbits.take(near), float(seen.mjd_mid[i]), seen.sites[i])
        for number, i in zip(numbers, rows[first], strict=True)
    }
    again = _seen_again(seen, rows)
    for number in places:
        here = rows[seen.exposure[rows] == number]
        _mark_exposure(table, near, radius, seen, here, again, places, found)


def _seen_again(seen: Sightings, rows: Int) -> dict[int, int]:
    """Return for each sighting of a night the one of the same thing that is furthest from it in time."""
    again: dict[int, int] = {}
    for thing in np.unique(seen.thing[rows]):
        of = rows[seen.thing[rows] == thing]
        ends = of[[np.argmin(seen.mjd_mid[of]), np.argmax(seen.mjd_mid[of])]]
        for i in of.tolist():
            j = int(ends[np.argmax(np.abs(seen.mjd_mid[ends] - seen.mjd_mid[i]))])
            if seen.exposure[j] != seen.exposure[i]:
                again[i] = j
    return again


def _moves_alike(seen: Sightings, i: int, j: int, body: int, places: Mapping[int, Ephemeris]) -> bool:
    """Tell whether a thing moved from one sighting to another as a body is predicted to."""
    here, there = places[int(seen.exposure[i])], places[int(seen.exposure[j])]
    told = project(float(here.ra[body]), float(here.dec[body]), float(there.ra[body]), float(there.dec[body]))
    moved = project(seen.ra[i], seen.dec[i], float(seen.ra[j]), float(seen.dec[j]))
    off = 3600 * float(np.hypot(moved[0] - told[0], moved[1] - told[1]))
    error = _OFF_SIGMA * float(np.hypot(seen.err_arcsec[i], seen.err_arcsec[j]))
    return off <= error + _OFF_SHARE * 3600 * float(np.hypot(*told))


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
    table: Movers,
    near: Int,
    radius: Float,
    seen: Sightings,
    here: Int,
    again: Mapping[int, int],
    places: Mapping[int, Ephemeris],
    found: list[Known | None],
) -> None:
    """Mark the sightings of one exposure: each takes the nearest body, each body the nearest sighting."""
    place = places[int(seen.exposure[here[0]])]
    v = place.magnitude(table.h[near], table.g[near])
    tree = cKDTree(unit_vectors(seen.ra[here], seen.dec[here]))
    directions = unit_vectors(place.ra, place.dec)
    pairs = []
    for body, hits in enumerate(tree.query_ball_point(directions, chord(radius / 3600))):
        for k in hits:
            i = int(here[k])
            if abs(v[body] - seen.mag[i]) > _OFF_MAG:
                continue
            if i in again and not _moves_alike(seen, i, again[i], body, places):
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
