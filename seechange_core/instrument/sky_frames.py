"""In which frame a header's right ascension and declination are, and the same place in ICRS."""

import re
from typing import Any, Literal, NamedTuple

from seechange_core.errors import HeaderError
from seechange_core.frames import Cards
from seechange_core.instrument.header import as_text, find_card
from seechange_core.numerics.sky import to_icrs

_EQUINOX = re.compile(r"(?P<kind>[JB]?)\s*(?P<year>\d{4}(?:\.\d*)?)\Z", re.IGNORECASE)
#: Years that an equinox can be, generously.
_YEARS = (1850.0, 2150.0)
#: FITS: before this year an equinox without a frame is one of FK4.
_FK5_SINCE = 1984.0


class SkyFrame(NamedTuple):
    """A frame of equatorial coordinates.

    Attributes
    ----------
    name
        icrs, fk5, or fk4 (with or without the E-terms of aberration).
    equinox
        Year, Julian for fk5 and Besselian for fk4; means nothing for icrs.
    """

    name: Literal["icrs", "fk5", "fk4", "fk4-no-e"]
    equinox: float = 2000.0

    def to_icrs(self, ra: float, dec: float) -> tuple[float, float]:
        """Return a place, deg, in ICRS."""
        if self.name == "icrs" or (self.name == "fk5" and self.equinox == 2000.0):
            return ra, dec  # ICRS and FK5 of 2000 agree to 0.02 arcsec
        return to_icrs(ra, dec, self.name, self.equinox)


def read_sky_frame(cards: Cards) -> SkyFrame:
    """Read the frame of RA and DEC from RADESYS and EQUINOX (or RADECSYS, EPOCH, as they once were).

    As the FITS standard has it: without RADESYS an equinox before 1984 is one of FK4, a later one (that
    of the date too) of FK5; with neither it is ICRS, to which an equinox means nothing.

    Raises
    ------
    HeaderError
        If the frame is another, or the equinox no year.
    """
    system, equinox = find_card(cards, ["RADESYS", "RADECSYS"]), find_card(cards, ["EQUINOX", "EPOCH"])
    name = None if system is None else as_text(system[1]).upper()
    if name == "ICRS" or (name is None and equinox is None):
        return SkyFrame("icrs")
    kind, year = (None, None) if equinox is None else _read_equinox(*equinox)
    if name is None:
        name = "FK4" if kind == "B" or (kind != "J" and (year or 2000.0) < _FK5_SINCE) else "FK5"
    if name == "FK5":
        return SkyFrame("fk5", 2000.0 if year is None else year)
    if name in {"FK4", "FK4-NO-E"}:
        return SkyFrame("fk4" if name == "FK4" else "fk4-no-e", 1950.0 if year is None else year)
    raise HeaderError(
        f"RADESYS = {name!r} is none of the frames ICRS, FK5, FK4 and FK4-NO-E",
        cure="correct the card, or describe the camera as one of kind generic with its equinox",
    )


def _read_equinox(keyword: str, value: Any) -> tuple[str, float]:
    """Read an equinox: a year, which J or B may stand before."""
    match = _EQUINOX.match(as_text(value))
    year = float(match["year"]) if match is not None else 0.0
    if match is None or not _YEARS[0] <= year <= _YEARS[1]:
        raise HeaderError(
            f"{keyword} = {value!r} is no year of an equinox",
            cure="correct the card, or describe the camera as one of kind generic with its equinox",
        )
    return match["kind"].upper(), year
