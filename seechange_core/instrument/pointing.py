"""From where the telescope pointed to where a section looked. Right across RA 0 and at the poles."""

from collections.abc import Sequence
from math import atan2, cos, degrees, hypot, radians, sin

from seechange_core.numerics import sky

_STEP_ARCSEC = 60.0  # far enough for the direction, near enough for a plane


def offset_on_sky(
    offset: tuple[float, float], scale_arcsec: float, rotation_deg: float, parity: int
) -> tuple[float, float]:
    """Turn an offset on the detector into one in the tangent plane.

    Parameters
    ----------
    offset
        (x, y), pixels from the pointing.
    scale_arcsec
        Arcsec per pixel.
    rotation_deg
        Position angle of +y, north through east.
    parity
        +1 if east is to the left of north, -1 if mirrored.

    Returns
    -------
    east, north
        Degrees.
    """
    x, y = offset
    turn, size = radians(rotation_deg), scale_arcsec / 3600.0
    east = -parity * x * cos(turn) + y * sin(turn)
    north = parity * x * sin(turn) + y * cos(turn)
    return east * size, north * size


def displace(
    ra: float,
    dec: float,
    offset: tuple[float, float],
    scale_arcsec: float,
    rotation_deg: float | None,
    parity: int | None,
) -> tuple[float, float, float]:
    """Find the sky position of a point of the focal plane.

    Returns
    -------
    ra, dec, doubt_arcmin
        ICRS deg; and how far off that may be because the orientation is unknown (0 if it is known).
    """
    if offset == (0.0, 0.0):
        return ra, dec, 0.0
    if rotation_deg is None or parity is None:
        return ra, dec, hypot(*offset) * scale_arcsec / 60.0
    there_ra, there_dec = sky.deproject(*offset_on_sky(offset, scale_arcsec, rotation_deg, parity), ra, dec)
    return float(there_ra), float(there_dec), 0.0


def rotation_there(
    ra: float, dec: float, offset: tuple[float, float], scale_arcsec: float, rotation_deg: float, parity: int
) -> float:
    """Return the position angle of +y at a point of the focal plane, degrees.

    North is another way there than at the pointing, by several degrees at the edge of a wide field near
    a pole.
    """
    if offset == (0.0, 0.0):
        return rotation_deg
    x, y = offset
    here = displace(ra, dec, offset, scale_arcsec, rotation_deg, parity)
    above = displace(ra, dec, (x, y + _STEP_ARCSEC / scale_arcsec), scale_arcsec, rotation_deg, parity)
    east, north = sky.project(above[0], above[1], here[0], here[1])
    turn = degrees(atan2(float(east), float(north))) - rotation_deg
    return rotation_deg + (turn + 180.0) % 360.0 - 180.0


def outline(
    ra: float,
    dec: float,
    boxes: Sequence[tuple[float, float, float, float]],
    scale_arcsec: float,
    rotation_deg: float,
    parity: int,
) -> list[list[float]]:
    """Return the corners [ra, dec] of the rectangle around boxes (x0, x1, y0, y1), pixels off centre."""
    x0, y0 = min(b[0] for b in boxes), min(b[2] for b in boxes)
    x1, y1 = max(b[1] for b in boxes), max(b[3] for b in boxes)
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    return [list(displace(ra, dec, c, scale_arcsec, rotation_deg, parity)[:2]) for c in corners]
