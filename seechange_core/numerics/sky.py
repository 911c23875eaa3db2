"""Geometry on the celestial sphere: HEALPix cells, cones, footprints, tangent planes.

Everything works through unit vectors, so nothing special happens at RA 0 or at the poles.
Angles are ICRS degrees unless a name says otherwise. Nothing here knows a detector's distortions
beyond what an astropy WCS tells it.
"""

import warnings
from typing import Literal

import numpy as np
import numpy.typing as npt
from astropy import units
from astropy.coordinates import FK4, FK5, FK4NoETerms, SkyCoord
from astropy.time import Time
from astropy.wcs import WCS
from astropy_healpix import boundaries_lonlat, healpix_to_lonlat, lonlat_to_healpix, neighbours

from seechange_core.frames import Bool, Float, Int

HEALPIX_ORDER = 29
"""Order of the nested HEALPix index kept beside every sky position: 0.4 milliarcsecond cells."""


def unit_vectors(ra: npt.ArrayLike, dec: npt.ArrayLike) -> Float:
    """Convert degrees to unit vectors, shape (..., 3)."""
    lon, lat = np.deg2rad(ra), np.deg2rad(dec)
    lon, lat = np.broadcast_arrays(lon, lat)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def from_vectors(vectors: npt.ArrayLike) -> tuple[Float, Float]:
    """Convert vectors (..., 3) of any length to (ra, dec) in degrees, ra in [0, 360)."""
    v = np.asarray(vectors, float)
    ra = np.rad2deg(np.arctan2(v[..., 1], v[..., 0])) % 360.0
    ra = np.where(ra >= 360.0, 0.0, ra)  # -1e-15 % 360 rounds up to 360
    dec = np.rad2deg(np.arctan2(v[..., 2], np.hypot(v[..., 0], v[..., 1])))
    return ra, np.asarray(dec, float)


def separation(ra1: npt.ArrayLike, dec1: npt.ArrayLike, ra2: npt.ArrayLike, dec2: npt.ArrayLike) -> Float:
    """Measure the angle between positions, degrees, exact from microarcseconds to 180 degrees."""
    a, b = unit_vectors(ra1, dec1), unit_vectors(ra2, dec2)
    apart, sum_ = (np.sqrt(np.sum(v * v, axis=-1)) for v in (a - b, a + b))
    return np.asarray(np.rad2deg(2 * np.arctan2(apart, sum_)), float)


def chord(angle_deg: npt.ArrayLike) -> Float:
    """Convert an angle on the sphere to the straight distance between unit vectors, for KD-trees."""
    return np.asarray(2.0 * np.sin(np.deg2rad(angle_deg) / 2.0), float)


def mean_position(
    ra: npt.ArrayLike, dec: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[float, float]:
    """Average positions (weighted), right across RA 0 and at the poles.

    Raises
    ------
    ValueError
        If there is no position, or they cancel (spread over the whole sky).
    """
    v = np.atleast_2d(unit_vectors(ra, dec))
    w = np.ones(len(v)) if weights is None else np.asarray(weights, float)
    total = np.sum(v * w[:, None], axis=0)
    if len(v) == 0 or np.linalg.norm(total) < 1e-9 * np.sum(np.abs(w)):
        raise ValueError(f"{len(v)} positions have no mean direction")
    mean_ra, mean_dec = from_vectors(total)
    return float(mean_ra), float(mean_dec)


def to_icrs(
    ra: float, dec: float, system: Literal["fk4", "fk4-no-e", "fk5"], equinox: float
) -> tuple[float, float]:
    """Convert mean coordinates of an older frame or of another equinox to ICRS.

    Coordinates of date are FK5 ones whose equinox is the date: nutation and aberration (20 arcsec) stay.
    FK4 ones are taken to be of the epoch of their equinox, as catalogs give them: FK4 turns, by an arcsec
    until now.

    Parameters
    ----------
    ra, dec
        Degrees.
    system
        The frame; ``fk4-no-e`` is FK4 without the E-terms of aberration.
    equinox
        Julian year for FK5, Besselian for FK4.

    Returns
    -------
    ra, dec
        ICRS deg, ra in [0, 360).
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*dubious year", category=Warning)
        if system == "fk5":
            frame = FK5(equinox=Time(equinox, format="jyear", scale="tt"))
        else:
            kind = FK4 if system == "fk4" else FK4NoETerms
            frame = kind(equinox=Time(equinox, format="byear", scale="tt"))
        place = SkyCoord(ra * units.deg, dec * units.deg, frame=frame).icrs
    return float(place.ra.deg) % 360.0, float(place.dec.deg)


# --- HEALPix ------------------------------------------------------------------------------------


def healpix_of(ra: npt.ArrayLike, dec: npt.ArrayLike, order: int = HEALPIX_ORDER) -> Int:
    """Find the nested HEALPix cell (int64) of positions."""
    lon, lat = np.broadcast_arrays(np.asarray(ra, float), np.asarray(dec, float))
    cells = lonlat_to_healpix(lon << units.deg, lat << units.deg, 1 << order, order="nested")
    return np.asarray(cells, np.int64)


def cone_cells(ra: float, dec: float, radius_deg: float, order: int) -> Int:
    """List the cells of one order that may touch a cone: all that do, and at most a rim more.

    Returns
    -------
    array of int64
        Sorted nested indices.
    """
    centre = unit_vectors(ra, dec)
    start = _covering_order(radius_deg, order)
    if start == 0:
        cells = np.arange(12, dtype=np.int64)
    else:
        own = healpix_of(ra, dec, start)
        with np.errstate(invalid="ignore"):  # at eight points of the sphere a cell has only 7 neighbours
            around = np.asarray(neighbours(int(own), 1 << start, order="nested"), np.int64).ravel()
        cells = np.unique(np.append(around[around >= 0], own))
    cells = cells[_may_touch(cells, start, centre, radius_deg)]
    for level in range(start + 1, order + 1):
        cells = (4 * cells[:, None] + np.arange(4)).ravel()
        cells = cells[_may_touch(cells, level, centre, radius_deg)]
    return cells


def cone_ranges(
    ra: float, dec: float, radius_deg: float, order: int = HEALPIX_ORDER, refinement: int = 4
) -> list[tuple[int, int]]:
    """Cover a cone with few ranges of the nested index, for ``lo <= column AND column < hi``.

    The ranges hold every position of the cone and a rim around it: cut on the true `separation`
    afterwards. More `refinement` gives a thinner rim and more ranges (about 10 at 4).

    Parameters
    ----------
    ra, dec, radius_deg
        The cone.
    order
        Order of the index column.
    refinement
        Cells at the end are about ``2**refinement`` times smaller than the cone.

    Returns
    -------
    list of (lo, hi)
        Half-open, sorted, disjoint, python integers.
    """
    level = min(order, _covering_order(radius_deg, order) + refinement)
    cells = cone_cells(ra, dec, radius_deg, level)
    breaks = np.flatnonzero(np.diff(cells) > 1) + 1
    shift = 2 * (order - level)
    return [
        (int(run[0]) << shift, (int(run[-1]) + 1) << shift) for run in np.split(cells, breaks) if len(run)
    ]


def cells_near(ra: npt.ArrayLike, dec: npt.ArrayLike, radius_deg: float) -> tuple[Int, int]:
    """List the cells that hold all that is within a radius of any of many positions.

    Returns
    -------
    cells, order
        Sorted nested indices, and their order: cells a little larger than the radius, at most nine for each
        position.
    """
    order = _covering_order(radius_deg, HEALPIX_ORDER)
    if order == 0:
        return np.arange(12, dtype=np.int64), 0
    own = np.unique(healpix_of(ra, dec, order))
    with np.errstate(invalid="ignore"):  # at eight points of the sphere a cell has only 7 neighbours
        around = np.asarray(neighbours(own, 1 << order, order="nested"), np.int64).ravel()
    return np.union1d(own, around[around >= 0]), order


def cell_ranges(cells: Int, order: int) -> list[tuple[int, int]]:
    """Give the ranges of the index of `HEALPIX_ORDER` that sorted cells of a lower order hold, half-open."""
    shift = 2 * (HEALPIX_ORDER - order)
    runs = np.split(cells, np.flatnonzero(np.diff(cells) > 1) + 1)
    return [(int(run[0]) << shift, (int(run[-1]) + 1) << shift) for run in runs if len(run)]


def cell_cone(cell: int, order: int) -> tuple[float, float, float]:
    """Give a cone (ra, dec, radius_deg) around a nested HEALPix cell, little larger than it must be."""
    lon, lat = boundaries_lonlat(cell, 8, 1 << order, order="nested")
    centre = from_vectors(_cell_centres(np.array([cell]), order)[0])
    ra, dec = float(centre[0]), float(centre[1])
    border = separation(ra, dec, lon.to_value("deg").ravel(), lat.to_value("deg").ravel())
    return ra, dec, 1.01 * float(np.max(border))


def _cell_centres(cells: Int, order: int) -> Float:
    lon, lat = healpix_to_lonlat(cells, 1 << order, order="nested")
    return unit_vectors(lon.to_value("deg"), lat.to_value("deg"))


def _covering_order(radius_deg: float, limit: int) -> int:
    """Find the finest order at which a cell and its neighbours cover a cone centred in the cell.

    A neighbour reaches out by at least half the mean cell size everywhere on the sphere.
    """
    size_at_0 = 58.6
    return int(np.clip(np.floor(np.log2(size_at_0 / (2.0 * max(radius_deg, 1e-9)))), 0, limit))


def _cell_radius_deg(order: int) -> float:
    """Give the largest distance from a cell's centre to its corners (as in HEALPix C++ max_pixrad)."""
    nside = float(1 << order)
    z1, phi = 2.0 / 3.0, np.pi / (4.0 * nside)
    z2 = 1.0 - (1.0 - 1.0 / nside) ** 2 / 3.0
    a = np.array([np.sqrt(1 - z1**2) * np.cos(phi), np.sqrt(1 - z1**2) * np.sin(phi), z1])
    b = np.array([np.sqrt(1 - z2**2), 0.0, z2])
    return float(np.rad2deg(2.0 * np.arcsin(min(1.0, float(np.linalg.norm(a - b)) / 2.0))))


def _may_touch(cells: Int, order: int, centre: Float, radius_deg: float) -> Bool:
    reach = min(180.0, radius_deg * (1 + 1e-9) + 1e-10 + _cell_radius_deg(order))
    distance = np.linalg.norm(_cell_centres(cells, order) - centre, axis=-1)
    return np.asarray(distance <= chord(reach), bool)


# --- Footprints ---------------------------------------------------------------------------------


def footprint(wcs: WCS, shape: tuple[int, int]) -> tuple[Float, Float]:
    """Give the sky positions of an image's four outer corners.

    Parameters
    ----------
    wcs
        Celestial, with or without distortion.
    shape
        (H, W).

    Returns
    -------
    ra, dec
        (4,) degrees, in the order (x, y) = (left, bottom), (right, bottom), (right, top), (left, top);
        the corners of the pixels, not their centres.
    """
    height, width = shape
    x = np.array([-0.5, width - 0.5, width - 0.5, -0.5])
    y = np.array([-0.5, -0.5, height - 0.5, height - 0.5])
    ra, dec = wcs.all_pix2world(x, y, 0)
    return np.asarray(ra, float) % 360.0, np.asarray(dec, float)


def bounding_cone(ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[float, float, float]:
    """Give centre and radius (ra, dec, radius_deg) of a cone that holds all these points."""
    centre_ra, centre_dec = mean_position(ra, dec)
    return centre_ra, centre_dec, float(np.max(separation(centre_ra, centre_dec, ra, dec)))


def polygon_contains(
    corners_ra: npt.ArrayLike, corners_dec: npt.ArrayLike, ra: npt.ArrayLike, dec: npt.ArrayLike
) -> Bool:
    """Tell which points lie in a convex polygon whose sides are great circles.

    Parameters
    ----------
    corners_ra, corners_dec
        (n,) in order, either way round; the polygon is smaller than a hemisphere.
    ra, dec
        Points, any shape.

    Returns
    -------
    array of bool
        True inside and on the border.
    """
    normals = _inward_normals(unit_vectors(corners_ra, corners_dec))
    return np.asarray(np.all(unit_vectors(ra, dec) @ normals.T >= -1e-15, axis=-1), bool)


def polygons_overlap(
    corners_ra1: npt.ArrayLike,
    corners_dec1: npt.ArrayLike,
    corners_ra2: npt.ArrayLike,
    corners_dec2: npt.ArrayLike,
) -> bool:
    """Tell whether two convex polygons share any point, by the separating-axis theorem."""
    a, b = unit_vectors(corners_ra1, corners_dec1), unit_vectors(corners_ra2, corners_dec2)
    if np.dot(a.sum(axis=0), b.sum(axis=0)) < 0:
        return False  # on opposite sides of the sky, where great circles meet again
    separated = [np.any(np.all(_inward_normals(p) @ q.T < -1e-15, axis=1)) for p, q in ((a, b), (b, a))]
    return not any(separated)


def polygons_contain(corners: Float, places: Float) -> Bool:
    """Tell of many convex polygons whether each contains a place of its own, or all the same one.

    Parameters
    ----------
    corners
        (n, m, 3) unit vectors, as for `polygon_contains`.
    places
        (n, 3) or (3,) unit vectors.

    Returns
    -------
    array of bool
        (n,).
    """
    return np.asarray(
        np.all(np.einsum("...ij,...j->...i", _inward_normals(corners), places) >= -1e-15, axis=-1)
    )


def _inward_normals(corners: Float) -> Float:
    """Give the normals of the sides' great circles, pointing to the polygon's middle, (..., n, 3)."""
    normals = np.cross(corners, np.roll(corners, -1, axis=-2))
    sense = np.sign(np.einsum("...ij,...j->...", normals, corners.sum(axis=-2)))
    return np.asarray(normals * sense[..., None, None], float)


# --- Tangent plane ------------------------------------------------------------------------------


def project(ra: npt.ArrayLike, dec: npt.ArrayLike, ra0: float, dec0: float) -> tuple[Float, Float]:
    """Project positions onto the plane that touches the sphere at (ra0, dec0): gnomonic, FITS ``TAN``.

    Returns
    -------
    xi, eta
        Degrees towards east and north (Calabretta & Greisen 2002, section 5.1.3, in standard
        coordinates); NaN a quarter of the sky away and beyond.
    """
    v = unit_vectors(ra, dec)
    east, north, outward = _tangent_axes(ra0, dec0)
    depth = v @ outward
    depth = np.where(depth > 1e-6, depth, np.nan)
    return np.rad2deg(v @ east / depth), np.rad2deg(v @ north / depth)


def deproject(xi: npt.ArrayLike, eta: npt.ArrayLike, ra0: float, dec0: float) -> tuple[Float, Float]:
    """Undo `project`: tangent-plane degrees to (ra, dec)."""
    east, north, outward = _tangent_axes(ra0, dec0)
    u, v = np.broadcast_arrays(np.deg2rad(xi), np.deg2rad(eta))
    return from_vectors(u[..., None] * east + v[..., None] * north + outward)


def offset(
    ra: npt.ArrayLike, dec: npt.ArrayLike, east_deg: npt.ArrayLike, north_deg: npt.ArrayLike
) -> tuple[Float, Float]:
    """Move positions by small angles (degrees on the sky) towards east and north, at any declination."""
    lon, lat = np.deg2rad(ra), np.deg2rad(dec)
    lon, lat = np.broadcast_arrays(lon, lat)
    east = np.stack([-np.sin(lon), np.cos(lon), np.zeros_like(lon)], axis=-1)
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    shift_e, shift_n = np.deg2rad(east_deg), np.deg2rad(north_deg)
    moved = (
        unit_vectors(ra, dec) + np.asarray(shift_e)[..., None] * east + np.asarray(shift_n)[..., None] * north
    )
    return from_vectors(moved)


def _tangent_axes(ra0: float, dec0: float) -> tuple[Float, Float, Float]:
    lon, lat = np.deg2rad(ra0), np.deg2rad(dec0)
    east = np.array([-np.sin(lon), np.cos(lon), 0.0])
    north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    return east, north, unit_vectors(ra0, dec0)
