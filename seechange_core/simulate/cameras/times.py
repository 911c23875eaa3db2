"""Times and angles as headers write them."""

from datetime import UTC, datetime, timedelta


def utc_of(mjd: float) -> datetime:
    """Return a UTC MJD as a datetime, to the millisecond."""
    return datetime(1858, 11, 17, tzinfo=UTC) + timedelta(milliseconds=round(mjd * 86_400_000))


def iso(mjd: float, timespec: str = "microseconds") -> str:
    """Return a UTC MJD as ``YYYY-MM-DDTHH:MM:SS.ffffff``, without a zone."""
    return utc_of(mjd).replace(tzinfo=None).isoformat(timespec=timespec)


def sexagesimal(value: float, digits: int = 3) -> str:
    """Return hours or degrees as ``[-]DD:MM:SS.sss``."""
    unit = 10**digits
    ticks = round(abs(value) * 3600 * unit)
    seconds, fraction = divmod(ticks, unit)
    minutes, seconds = divmod(seconds, 60)
    whole, minutes = divmod(minutes, 60)
    return f"{'-' if value < 0 else ''}{whole:02d}:{minutes:02d}:{seconds:02d}.{fraction:0{digits}d}"
