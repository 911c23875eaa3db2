"""What moves: detections of one night that lie on a straight line, run through at a steady rate."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from seechange_core.frames import Bool, Float, Int
from seechange_core.numerics.sky import chord, project, unit_vectors

#: Slower than this, two detections are taken for one place, whatever their errors.
SAME_PLACE_ARCSEC = 0.3
#: Errors of astrometry between exposures that the errors of positions know nothing of.
_FLOOR_ARCSEC = 0.1
#: A position fits a line, or two are apart, at so many standard deviations.
_FITS_SIGMA, _APART_SIGMA = 3.5, 5.0
#: Over what area the density of detections is counted.
_AROUND_ARCSEC = 400.0
#: How far magnitudes of one asteroid may differ beyond their errors: it rotates, and colours are unknown.
_SAME_MAG = 0.7


@dataclass(frozen=True, eq=False)
class Detections:
    """Positive detections of one night, one entry each.

    Attributes
    ----------
    mjd
        (n,) middle of the exposure.
    exposure
        (n,) number of the exposure: of one, a tracklet has at most one detection.
    ra, dec, err_arcsec
        (n,) ICRS deg, and the error per axis.
    mag
        (n,) NaN fits any.
    steady
        (n,) True where something is known to stand still: seen there in other nights.
    """

    mjd: Float
    exposure: Int
    ra: Float
    dec: Float
    err_arcsec: Float
    mag: Float
    steady: Bool


@dataclass(frozen=True)
class Tracklet:
    """Detections of one thing that moves.

    Attributes
    ----------
    members
        Indices of the detections, in order of time.
    rate_arcsec_h, angle_deg
        Its motion; towards where, from north through east.
    chance
        How many such lines are expected through its first detection by chance.
    """

    members: tuple[int, ...]
    rate_arcsec_h: float
    angle_deg: float
    chance: float


def find_tracklets(
    seen: Detections, *, max_rate_arcsec_h: float = 200.0, max_chance: float = 0.02
) -> list[Tracklet]:
    """Find what moves in a straight line through two or more exposures of a night.

    Of every pair of detections far enough apart to have moved, and of like magnitude, the line through them
    is followed to all other exposures. How many lines like it chance makes follows from the density of
    unexplained detections around: two suffice where they are close together and the field is clean, and in
    a crowd of false detections three or four are asked for. Each detection is given to one line, the longest
    and least likely by chance.

    Parameters
    ----------
    seen
        All good detections of the night.
    max_rate_arcsec_h
        Faster is not looked for; main-belt asteroids make 20 to 60.
    max_chance
        Lines that chance makes more often are dropped.

    Returns
    -------
    list of Tracklet
        Disjoint, the surest first.
    """
    free = np.flatnonzero(~seen.steady & ~_stays(seen))
    if len(free) < 2:
        return []
    hours = float(np.ptp(seen.mjd[free])) * 24
    reach = min(max(max_rate_arcsec_h * hours, _AROUND_ARCSEC), 3600.0)
    tree = cKDTree(unit_vectors(seen.ra[free], seen.dec[free]))
    n_exposures = len(np.unique(seen.exposure))
    near = tree.query_ball_point(tree.data, float(chord(reach / 3600)))
    lines = []
    for i, around in zip(free, near, strict=True):
        others = free[np.array(around)]
        others = others[(others != i) & _alike(seen, int(i), others)]
        lines += _lines_from(seen, int(i), others, n_exposures, max_rate_arcsec_h)
    return [_fitted(seen, line) for line in _disjoint([x for x in lines if x.chance <= max_chance])]


def _stays(seen: Detections) -> Bool:
    """Tell which detections have another one of the night at their place."""
    widest = 2 * _APART_SIGMA * float(np.max(seen.err_arcsec, initial=0.0)) + SAME_PLACE_ARCSEC
    tree = cKDTree(unit_vectors(seen.ra, seen.dec)) if len(seen.ra) else None
    stays = np.zeros(len(seen.ra), bool)
    if tree is None:
        return stays
    pairs = tree.query_pairs(float(chord(widest / 3600)), output_type="ndarray")
    first, second = pairs[seen.exposure[pairs[:, 0]] != seen.exposure[pairs[:, 1]]].T
    apart = np.rad2deg(np.linalg.norm(tree.data[first] - tree.data[second], axis=1)) * 3600
    error = np.hypot(seen.err_arcsec[first], seen.err_arcsec[second])
    close = apart <= np.maximum(SAME_PLACE_ARCSEC, _APART_SIGMA / 2 * error)
    stays[first[close]] = stays[second[close]] = True
    return stays


def _alike(seen: Detections, i: int, others: Int) -> Bool:
    apart = np.abs(seen.mag[others] - seen.mag[i])
    return np.asarray(~(apart > _SAME_MAG))


def _lines_from(seen: Detections, i: int, others: Int, n_exposures: int, max_rate: float) -> list[Tracklet]:
    """Return the lines that begin at a detection."""
    x, y = (3600 * v for v in project(seen.ra[others], seen.dec[others], seen.ra[i], seen.dec[i]))
    hours, apart = 24 * (seen.mjd[others] - seen.mjd[i]), np.hypot(x, y)
    own = 1 + np.count_nonzero(apart <= _AROUND_ARCSEC)
    density = own / (np.pi * _AROUND_ARCSEC**2) / n_exposures
    error = np.hypot(seen.err_arcsec[others], _FLOOR_ARCSEC)
    start = np.hypot(seen.err_arcsec[i], _FLOOR_ARCSEC)
    moved = apart > np.maximum(SAME_PLACE_ARCSEC, _APART_SIGMA * np.hypot(error, start))
    ends = np.flatnonzero((hours > 0) & moved & (apart <= max_rate * hours))
    lines = []
    for j in ends:
        rate = np.array([x[j], y[j]]) / hours[j]
        spread = np.hypot(error, np.hypot(start, np.hypot(start, error[j]) * hours / hours[j]))
        off = np.hypot(x - rate[0] * hours, y - rate[1] * hours) / spread
        fits = np.flatnonzero((off <= _FITS_SIGMA) & (hours > 0))
        best: dict[int, int] = {int(seen.exposure[others[j]]): int(j)}
        for k in fits[np.argsort(off[fits])]:
            best.setdefault(int(seen.exposure[others[k]]), int(k))
        best.pop(int(seen.exposure[i]), None)
        # By chance: one detection of another exposure within the distance, each further one on the line.
        chance = density * (n_exposures - 1) * np.pi * float(apart[j]) ** 2
        for k in set(best.values()) - {int(j)}:
            chance *= min(1.0, density * np.pi * (_FITS_SIGMA * float(spread[k])) ** 2)
        members = (i, *(int(others[k]) for k in sorted(best.values(), key=lambda k: hours[k])))
        angle = float(np.rad2deg(np.arctan2(rate[0], rate[1])) % 360)
        lines.append(Tracklet(members, float(np.hypot(*rate)), angle, chance))
    return lines


def _disjoint(lines: list[Tracklet]) -> list[Tracklet]:
    """Give each detection to one line: the longest, of these the least likely by chance."""
    taken: set[int] = set()
    chosen = []
    for line in sorted(lines, key=lambda line: (-len(line.members), line.chance)):
        if taken.isdisjoint(line.members):
            chosen.append(line)
            taken.update(line.members)
    return chosen


def _fitted(seen: Detections, line: Tracklet) -> Tracklet:
    """Give a tracklet the motion fitted to all its detections."""
    rows = np.array(line.members)
    x, y = (3600 * v for v in project(seen.ra[rows], seen.dec[rows], seen.ra[rows[0]], seen.dec[rows[0]]))
    hours = 24 * (seen.mjd[rows] - seen.mjd[rows[0]])
    weight = np.hypot(seen.err_arcsec[rows], _FLOOR_ARCSEC) ** -2
    middle = np.average(hours, weights=weight)
    lever = weight * (hours - middle) / np.sum(weight * (hours - middle) ** 2)
    east, north = float(lever @ x), float(lever @ y)
    angle = float(np.rad2deg(np.arctan2(east, north)) % 360)
    return replace(line, rate_arcsec_h=float(np.hypot(east, north)), angle_deg=angle)
