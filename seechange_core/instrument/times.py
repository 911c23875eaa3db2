"""When an exposure began, by header cards that may be coarse, in another time scale, or at odds."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from seechange_core.errors import HeaderError, UserError
from seechange_core.frames import Cards
from seechange_core.instrument.header import as_number, as_text, find_card
from seechange_core.numerics.timing import TimeScale, clock_to_mjd, iso_to_mjd

#: Values of TIMESYS, upper case and without the laboratory in brackets.
_SCALES: dict[str, Literal["utc", "tai", "tt"]] = {
    **dict.fromkeys(("UTC", "UT", "GMT", "UTC APPROXIMATE"), "utc"),
    **dict.fromkeys(("TAI", "IAT"), "tai"),
    **dict.fromkeys(("TT", "TDT", "ET"), "tt"),
}
#: Where the time of day is if the date stands alone.
_TIME_OF_DAY = ("TIME-OBS", "UT", "UTC-OBS", "UTSTART", "UT-START")
#: How far two cards may be apart even in a short exposure: shutters and clocks take their time, seconds.
TOLERANCE_S = 5.0
#: An MJD coarser than this gives way to a finer date, seconds.
_FINE_S = 0.1


class _Reading(NamedTuple):
    """A time as a card has it: MJD (UTC), the unit of its last digit in seconds, and the card in words."""

    mjd: float
    resolution_s: float
    words: str


def read_time_scale(cards: Cards) -> Literal["utc", "tai", "tt"]:
    """Read what the header's times are in by its card TIMESYS: utc (also if it is absent), tai or tt.

    Raises
    ------
    HeaderError
        If it is another scale.
    """
    card = find_card(cards, ["TIMESYS"])
    if card is None:
        return "utc"
    text = as_text(card[1]).partition("(")[0].strip().upper()
    if text not in _SCALES:
        raise HeaderError(
            f"TIMESYS = {card[1]!r} is none of the time scales UTC, TAI and TT",
            cure="correct the card, or describe the camera as one of kind generic with its time_scale",
        )
    return _SCALES[text]


def read_clock(text: str, label: str, scale: TimeScale = "utc", utc_offset_hours: float = 0.0) -> float:
    """Read date and time of a camera's clock as MJD (UTC).

    Raises
    ------
    HeaderError
        If it is no time, or a date alone.
    """
    moment = read_moment(lambda: iso_to_mjd(text, scale, utc_offset_hours))
    if ":" not in text:
        raise HeaderError(
            f"{label} = {text!r} is a date without a time", cure="name the card with the time of day too"
        )
    return moment


def read_moment(read: Callable[[], float]) -> float:
    """Call what reads a time, and make its complaint one about the header."""
    try:
        return read()
    except UserError as error:
        raise HeaderError(f"time of observation: {error.message}", cure="correct the card") from None


def read_start(cards: Cards, found: Mapping[str, Any], exp_time: float) -> float | None:
    """Read when an exposure began from an MJD, a date with time, or both.

    The MJD is taken unless its digits are coarse and the date's finer; a whole day is as coarse as can
    be, and no time of its own. Both are taken to be of the start: an MJD of the middle of a long
    exposure is within what is allowed, and believed.

    Parameters
    ----------
    cards
        Raw header, for TIMESYS and the time of day beside a bare date.
    found
        Values by uniform name: ``mjd``, ``date_obs``.
    exp_time
        Seconds.

    Returns
    -------
    float or None
        MJD (UTC); None if there is neither card.

    Raises
    ------
    HeaderError
        If what is there cannot be read, says the day alone, or the two are further apart than the
        exposure is long, `TOLERANCE_S` and their last digits.
    """
    scale = read_time_scale(cards)
    if "mjd" not in found:
        return _read_date(cards, found, scale).mjd if "date_obs" in found else None
    mjd = _read_mjd(found["mjd"], scale)
    try:
        date = _read_date(cards, found, scale) if "date_obs" in found else None
    except HeaderError:
        date = None  # old ways to write a date, or a day alone: the MJD does without
    if date is None:
        if mjd.resolution_s >= 86400.0:
            raise HeaderError(
                f"{mjd.words} is a whole day, and no card has the time of day",
                cure="write the time of day into DATE-OBS",
            )
        return mjd.mjd
    apart = abs(mjd.mjd - date.mjd) * 86400.0
    if apart > max(exp_time, TOLERANCE_S, mjd.resolution_s, date.resolution_s):
        raise HeaderError(
            f"{mjd.words} and {date.words} are {apart:.0f} s apart",
            cure="correct the one that is wrong, or describe the camera as one of kind generic, whose "
            "time_cards name the right one",
        )
    return date.mjd if date.resolution_s < mjd.resolution_s > _FINE_S else mjd.mjd


def _read_mjd(value: Any, scale: TimeScale) -> _Reading:
    """Read an MJD; a number does not tell the zeros that were written at its end."""
    number = as_number(value, "mjd")
    exponent = Decimal(repr(number)).normalize().as_tuple().exponent
    resolution_s = 86400.0 * 10.0 ** min(0, int(exponent))
    moment = read_moment(lambda: clock_to_mjd(number, scale))
    return _Reading(moment, resolution_s, f"the MJD {value}")


def _read_date(cards: Cards, found: Mapping[str, Any], scale: TimeScale) -> _Reading:
    """Read a date with its time of day, which may be in a card of its own."""
    text, label = as_text(found["date_obs"]), "date_obs"
    if ":" not in text:
        card = find_card(cards, _TIME_OF_DAY)
        if card is not None and ":" in as_text(card[1]):
            text, label = f"{text}T{as_text(card[1])}", f"date_obs+{card[0]}"
            scale = "utc" if card[0].upper().startswith("UT") else scale
    moment = read_clock(text, label, scale)
    clock = text.rstrip("Z")
    decimals = len(clock.partition(".")[2])
    resolution_s = 60.0 if clock.count(":") == 1 else 10.0**-decimals
    return _Reading(moment, resolution_s, f"the date {text}")
