"""Times: nights, the middle of an exposure, and the barycentre of the Solar System.

Times are Modified Julian Dates, UTC unless a name says otherwise. Nothing is fetched from the
network: the tables that come with astropy do for the accuracy stated.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from astropy import units
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.time import Time, TimeDelta
from astropy.utils import iers
from astropy.utils.exceptions import AstropyWarning

from seechange_core.errors import UserError
from seechange_core.frames import Float

Moment: TypeAlias = datetime | date | Time | float | int | str
"""What people write a time as: a `datetime`, an astropy `Time`, an MJD, or ``YYYY-MM-DDTHH:MM:SS.SSS``."""

TimeScale = Literal["utc", "tai", "tt", "local"]
"""What a camera's clock shows; ``local`` is UTC plus a number of hours."""

MJD_ZERO = date(1858, 11, 17)
_CLOCK = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d(?:\.\d*)?))?)?Z?\Z"
)
#: Years in which astronomers have pointed electronic cameras at the sky, generously.
PLAUSIBLE_MJD = (30000.0, 100000.0)


class Site(NamedTuple):
    """Where a telescope stands.

    Attributes
    ----------
    latitude_deg, longitude_deg
        Geodetic, WGS84; north and east are positive.
    elevation_m
        Above the ellipsoid, metres.
    """

    latitude_deg: float
    longitude_deg: float
    elevation_m: float = 0.0

    @property
    def location(self) -> EarthLocation:
        """The astropy location."""
        return EarthLocation.from_geodetic(
            self.longitude_deg * units.deg, self.latitude_deg * units.deg, self.elevation_m * units.m
        )


@contextmanager
def _far_years() -> Iterator[None]:
    """Keep ERFA from warning that leap seconds of years to come are not known: a validity may end there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*dubious year", category=Warning)
        yield


@_far_years()
def to_mjd(moment: Moment) -> float:
    """Convert a time as people write it to MJD (UTC).

    Parameters
    ----------
    moment
        A `datetime` without time zone is UTC (with one it is converted); so is a string; a date is its
        first moment; a number is an MJD (UTC) already.

    Raises
    ------
    UserError
        If it cannot be read as a time, or is no MJD of an age with electronic cameras.
    """
    if isinstance(moment, bool):
        raise UserError(f"{moment!r} is not a time", cure="give a date, an ISO string or an MJD")
    if isinstance(moment, int | float | np.number):
        return _plausible(float(moment), moment)
    if isinstance(moment, Time):
        if not moment.isscalar or moment.scale == "local":
            raise UserError(
                f"{moment!r} is not one moment of UTC", cure="give a scalar Time of another scale"
            )
        return _plausible(float(moment.utc.mjd), moment)
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return float(Time(aware).utc.mjd)
    return iso_to_mjd(moment.isoformat() if isinstance(moment, date) else moment)


def mjd_now() -> float:
    """Return the present time, MJD (UTC)."""
    return to_mjd(datetime.now(UTC))


@_far_years()
def mjd_to_iso(mjd: float) -> str:
    """Write an MJD (UTC) as ``YYYY-MM-DDTHH:MM:SS.SSS``."""
    return str(Time(mjd, format="mjd", scale="utc").isot)


@_far_years()
def iso_to_mjd(text: str, scale: TimeScale = "utc", utc_offset_hours: float = 0.0) -> float:
    """Convert ``YYYY-MM-DD[THH:MM[:SS[.SSS]]]`` of a camera's clock to MJD (UTC).

    Parameters
    ----------
    text
        A trailing ``Z`` and a blank in place of the ``T`` are fine; leap seconds (``:60``) too. Where
        there was none, ``:60`` is what rounding makes of 59.999: the next minute.
    scale
        What the clock shows.
    utc_offset_hours
        For a ``local`` clock: its reading minus UTC, hours, east positive.

    Raises
    ------
    UserError
        If it is no such date.
    """
    minute, seconds = _split_clock(text)
    if scale == "local":
        # By the calendar: a clock that is hours ahead of UTC is so across leap seconds too.
        minute -= timedelta(hours=utc_offset_hours)
    clock = Time(minute.isoformat(), format="isot", scale="utc" if scale == "local" else scale)
    return _plausible(float((clock + TimeDelta(seconds, format="sec")).utc.mjd), text)


def _split_clock(text: str) -> tuple[datetime, float]:
    """Split date and time of day into the beginning of their minute, and the seconds since then."""
    match = _CLOCK.match(text.strip())
    try:
        if match is None or float(match["second"] or 0.0) >= 61.0:
            raise ValueError
        day = date.fromisoformat(match["date"])
        hour, minute = int(match["hour"] or 0), int(match["minute"] or 0)
        return datetime(day.year, day.month, day.day, hour, minute), float(match["second"] or 0.0)
    except ValueError:
        raise UserError(f"{text!r} is not a time", cure="write YYYY-MM-DDTHH:MM:SS.SSS") from None


@_far_years()
def clock_to_mjd(mjd: float, scale: TimeScale = "utc", utc_offset_hours: float = 0.0) -> float:
    """Convert an MJD of a camera's clock to MJD (UTC); parameters and errors as `iso_to_mjd`."""
    _plausible(mjd, mjd)
    if scale == "local":
        return mjd - utc_offset_hours / 24.0
    return float(Time(mjd, format="mjd", scale=scale).utc.mjd)


def zone_offset_hours(clock_mjd: float, timezone: str) -> float:
    """Return what a local clock, summer time and all, is ahead of UTC.

    Parameters
    ----------
    clock_mjd
        What the clock shows, as an MJD; milliseconds count.
    timezone
        IANA name, e.g. ``Europe/Berlin``.

    Returns
    -------
    float
        Hours, east positive.

    Raises
    ------
    UserError
        If the clock was put back past that time, so that it showed it twice, or forward over it.
    """
    shown = datetime(MJD_ZERO.year, MJD_ZERO.month, MJD_ZERO.day) + timedelta(
        milliseconds=round(_plausible(clock_mjd, clock_mjd) * 86400e3)
    )
    zone = ZoneInfo(timezone)
    first, second = (shown.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta() for fold in (0, 1))
    if first != second:
        times = "twice" if first > second else "never"
        raise UserError(
            f"clocks in {timezone} showed {shown.isoformat(sep=' ')} {times}: summer time changed",
            cure="state utc_offset_hours for these files",
        )
    return first / timedelta(hours=1)


def evening_to_mjd(mjd: float, evening: str, longitude_deg: float) -> float:
    """Move a moment by whole days into the night of an evening.

    For headers whose date is that of the evening while their time of day goes past midnight.

    Parameters
    ----------
    mjd
        UTC; its time of day counts.
    evening
        Local date, ``YYYY-MM-DD...``.
    longitude_deg
        Of the telescope, east positive; any number of turns.

    Returns
    -------
    float
        The moment, MJD (UTC), between the local mean noons around that night.
    """
    wrong = date.fromisoformat(night_of(mjd, longitude_deg)) - date.fromisoformat(evening[:10])
    return mjd - wrong.days


def _plausible(mjd: float, seen: Any) -> float:
    low, high = PLAUSIBLE_MJD
    if not low <= mjd <= high:
        raise UserError(
            f"{seen!r} is not an MJD between {low:.0f} and {high:.0f}", cure="MJD = JD - 2400000.5"
        )
    return mjd


@_far_years()
def mid_mjd(mjd_start: float, exposure_time_s: float) -> float:
    """Return the middle of an exposure, MJD (UTC), right on days with a leap second too."""
    start = Time(mjd_start, format="mjd", scale="utc")
    return float((start + TimeDelta(exposure_time_s / 2.0, format="sec")).utc.mjd)


def decimal_year(mjd: float) -> float:
    """Return the Julian year of an MJD (UTC): what proper motions are counted in."""
    return 2000.0 + (mjd - 51544.5) / 365.25


def night_of(mjd: float, longitude_deg: float) -> str:
    """Name the night of a time: the local date of its evening.

    A night lasts from local mean noon to the next.

    Parameters
    ----------
    mjd
        UTC.
    longitude_deg
        Of the telescope, east positive; any number of turns.

    Returns
    -------
    str
        ``YYYY-MM-DD``.
    """
    east = (longitude_deg + 180.0) % 360.0 - 180.0
    noons = int(np.floor(mjd + east / 360.0 - 0.5))
    return (MJD_ZERO + timedelta(days=noons)).isoformat()


def bjd_tdb(mjd_utc: npt.ArrayLike, ra: npt.ArrayLike, dec: npt.ArrayLike, site: Site) -> Float:
    """Convert times at a telescope to the barycentre of the Solar System (Eastman et al. 2010, eq. 2).

    Leap seconds, the periodic terms of TDB, the Roemer delay (ephemeris of ERFA's ``epv00``) and the
    telescope's place on the Earth are in; Shapiro and Einstein delays (under 0.1 ms) are not.
    Good to a few milliseconds.

    Parameters
    ----------
    mjd_utc
        Middle of the exposures.
    ra, dec
        ICRS deg, of the source.
    site
        The telescope's place.

    Returns
    -------
    array of float64
        Barycentric Julian dates in TDB, in the broadcast shape; a float64 day near 2.46 million
        resolves 0.04 ms.
    """
    times, lon, lat = np.broadcast_arrays(
        np.asarray(mjd_utc, float), np.asarray(ra, float), np.asarray(dec, float)
    )
    with tables_at_hand():
        clock = Time(times, format="mjd", scale="utc", location=site.location)
        source = SkyCoord(lon * units.deg, lat * units.deg, frame="icrs")
        delay = clock.light_travel_time(source, kind="barycentric", ephemeris="builtin")
        return np.asarray((clock.tdb + delay).jd, float)


@contextmanager
def tables_at_hand() -> Iterator[None]:
    """Use the Earth-rotation tables that came with astropy; past their end UT1 is extrapolated.

    An error of a second in UT1 moves a telescope by 0.5 km, 1.5 microseconds of light; the pole
    wanders by 10 m. So the warnings about either are not worth anybody's time.
    """
    with (
        iers.conf.set_temp("auto_download", False),
        iers.conf.set_temp("auto_max_age", None),
        iers.conf.set_temp("iers_degraded_accuracy", "ignore"),
        _far_years(),
    ):
        warnings.filterwarnings("ignore", message="Tried to get polar motions", category=AstropyWarning)
        yield
