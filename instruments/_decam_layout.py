"""Facts about DECam's focal plane: which CCDs there are, where they lie on the sky, and when they worked.

The CCDs stand in twelve rows from north (S29 to S31) to south (N29 to N31), 33.816 mm apart; within a row
they are 63.890 mm apart from west to east, rows being centred. Pixels are 15 micrometres; x runs south, y
east. The optics' distortion is radial: a point at r pixels from the axis lies ``SCALE_ARCSEC r (1 +
DISTORTION (r / 10^4)^2)`` from it in the tangent plane. Both constants are a fit to the centres of 59 CCDs
measured on one exposure with an astrometric solution; it leaves 0.4 arcsec rms, 1.1 arcsec at worst, once
that exposure's turn of 0.27 deg is taken out: the camera's orientation varies by some tenths of a degree.
"""

from typing import NamedTuple

from seechange_core.numerics.timing import to_mjd

SIZE_X, SIZE_Y = 2048, 4096

SCALE_ARCSEC = 0.26312
DISTORTION = -0.001548

_ROW_PITCH_PIX = 33.816 / 0.015
_COLUMN_PITCH_PIX = 63.890 / 0.015
_ROWS = ((1, 7), (8, 13), (14, 19), (20, 24), (25, 28), (29, 31))


class Period(NamedTuple):
    """When a CCD did not work: from `start` until before `end`, MJD (UTC); None: to this day."""

    start: float
    end: float | None


#: CCDs that gave no image. N30 died of too much light on the morning of 2012-11-07 (the flats taken at 10:30
#: UT were still good, those at 20:19 no more); S30 fell silent and came back by itself.
DEAD: dict[str, Period] = {
    "N30": Period(to_mjd("2012-11-07T12:00:00"), None),
    "S30": Period(to_mjd("2013-11-30T00:00:00"), to_mjd("2016-12-29T00:00:00")),
}

#: Amplifiers that give an image of no use: the gain of S7 A is not stable.
UNSTABLE_AMPLIFIERS = frozenset({("S7", "A")})


def names() -> list[str]:
    """Return the names of the CCDs: N1 to N31, S1 to S31."""
    return [f"{side}{n}" for side in "NS" for n in range(1, 32)]


def ccd_number(name: str) -> int:
    """Return the number (CCDNUM) of a CCD, 1 to 62: row by row from the north, each row from the west."""
    row, place, _ = _row_of(name)
    if name[0] == "N":
        return 31 + int(name[1:])
    return sum(last - first + 1 for first, last in _ROWS[row + 1 :]) + place + 1


def place_pix(name: str) -> tuple[float, float]:
    """Return where a CCD's centre stands in the focal plane, (x, y) pixels from the optical axis."""
    row, place, in_row = _row_of(name)
    x = (row + 0.5) * _ROW_PITCH_PIX
    return (x if name[0] == "N" else -x), (place - (in_row - 1) / 2) * _COLUMN_PITCH_PIX


def sky_offset_pix(name: str, scale_arcsec: float) -> tuple[float, float]:
    """Return where a CCD's centre looks: (x, y) in the tangent plane from the axis, of a given scale."""
    x, y = place_pix(name)
    stretch = SCALE_ARCSEC / scale_arcsec * (1 + DISTORTION * (x * x + y * y) / 1e8)
    return x * stretch, y * stretch


def dead_at(name: str, mjd: float) -> bool:
    """Tell whether a CCD gave no image at an MJD (UTC)."""
    period = DEAD.get(name)
    return period is not None and period.start <= mjd and (period.end is None or mjd < period.end)


def _row_of(name: str) -> tuple[int, int, int]:
    """Return a CCD's row, counted from the middle, its place in it and how many are in it."""
    number = int(name[1:])
    for row, (first, last) in enumerate(_ROWS):
        if first <= number <= last:
            return row, number - first, last - first + 1
    raise ValueError(name)
