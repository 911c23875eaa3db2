"""Any small telescope: one CCD, one FITS file per exposure, described in the settings.

::

    instruments:
      backyard:
        kind: generic
        latitude_deg: 39.0
        longitude_deg: -77.0
        time_scale: utc
        time_refers_to: start
        pixel_scale_arcsec: 2.4
        ...

What the header does not say, the settings must; what both lack is an error that names the cards looked for.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import ValidationInfo, field_validator, model_validator

from seechange_core.errors import HeaderError, UserError
from seechange_core.flags import CalibrationStep
from seechange_core.frames import Amplifier, Box, Cards, Prepared
from seechange_core.instrument import Instrument, Paths, SectionContext, SectionId, SensorSection
from seechange_core.instrument.fits_reader import Unit
from seechange_core.instrument.header import as_angle_deg, as_number, as_text, find_card, parse_box
from seechange_core.instrument.sky_frames import SkyFrame
from seechange_core.instrument.times import read_clock, read_moment, read_time_scale
from seechange_core.numerics.timing import (
    Site,
    TimeScale,
    clock_to_mjd,
    decimal_year,
    evening_to_mjd,
    mid_mjd,
    zone_offset_hours,
)
from seechange_core.params import Params, param

#: Uniform names for which the settings may state constants.
CONSTANTS = frozenset(
    ["exp_time", "filter", "type", "ra", "dec", "project", "target", "telescope", "airmass"]
)
#: Uniform names for which the settings may name cards.
CARDS = CONSTANTS | {"gain", "read_noise", "saturation_limit"}
_SECTION_ID = 0


PreparedStep = Literal[
    "overscan", "crosstalk", "linearity", "bias", "dark", "flat", "fringe", "illumination", "bad_pixels",
    "cosmic_rays",
]  # fmt: skip


class GenericOptions(Params):
    """The description of a small telescope, under ``instruments: {NAME: {kind: generic, ...}}``."""

    telescope: str | None = param(None, "Name of the telescope, if the header has none")
    latitude_deg: float = param(..., "Geodetic latitude, north positive", unit="deg", ge=-90, le=90)
    longitude_deg: float = param(..., "Geodetic longitude, east positive", unit="deg", ge=-360, le=360)
    elevation_m: float = param(0.0, "Elevation", unit="m")

    time_scale: Literal["utc", "tai", "tt", "local", "header"] = param(
        ..., "What the camera's clock shows, whatever TIMESYS says; header: what TIMESYS says, or utc"
    )
    utc_offset_hours: float | None = param(
        None, "Clock minus UTC where time_scale is local, all year", unit="h", ge=-14, le=14
    )
    timezone: str | None = param(
        None,
        "In place of utc_offset_hours where the clock follows summer time: IANA name, e.g. Europe/Berlin",
    )
    time_refers_to: Literal["start", "middle", "end"] = param(..., "Which moment of the exposure is recorded")
    time_cards: tuple[str, ...] = param(
        ("DATE-OBS",),
        "One card with date and time, or one with each, in this order",
        min_length=1,
        max_length=2,
    )
    time_format: Literal["iso", "mjd", "jd"] = param("iso", "How the time is written")
    date_is_of: Literal["moment", "evening"] = param(
        "moment", "What an iso date is of: the moment itself, or the local evening on which the night began"
    )

    pixel_scale_arcsec: float = param(..., "Pixel scale, binning included", unit="arcsec", gt=0)
    scale_tolerance: float = param(0.03, "Relative uncertainty of the pixel scale", gt=0, lt=0.5)
    rotation_deg: float | None = param(
        None, "Position angle of +y, north through east; none: unknown", unit="deg"
    )
    rotation_tolerance_deg: float = param(5.0, "Uncertainty of the rotation", unit="deg", gt=0)
    parity: Literal[1, -1] | None = param(None, "1: east left of north; -1: mirrored; none: unknown")
    search_radius_arcmin: float = param(30.0, "How far off the pointing may be", unit="arcmin", gt=0)

    gain: float | None = param(None, "Gain, if the header has none", unit="e-/ADU", gt=0)
    read_noise: float | None = param(None, "Read noise, if the header has none", unit="e-", ge=0)
    saturation_limit: float | None = param(
        None, "Saturation level if the header has none; none: the end of the number range", unit="ADU", gt=0
    )
    extension: int | str | None = param(
        None, "Unit of the file with the image; none: the first one with an image"
    )
    data_section: str | None = param(
        None, "Useful part [x1:x2,y1:y2], or the card that has it; none: all pixels"
    )
    overscan_section: str | None = param(
        None, "Overscan [x1:x2,y1:y2], or the card that has it; none: no overscan"
    )

    prepared_steps: tuple[PreparedStep, ...] = param(
        (), "Steps of calibration that were done to its files before they came here"
    )

    cards: dict[str, str | tuple[str, ...]] = param({}, "Header cards by uniform name, first choice first")
    constants: dict[str, str | float] = param(
        {}, "Values the header lacks, by uniform name; ra and dec in deg"
    )
    ra_unit: Literal["deg", "hours"] = param("deg", "Unit of a right ascension written as a number")
    equinox: float | Literal["date"] | None = param(
        None,
        "Equinox of the header's ra and dec: a year (before 1984: FK4) or date; none: as RADESYS and EQUINOX "
        "say; constants are ICRS",
    )
    filters: dict[str, str] = param({}, "Short names of filters by the header's names")
    bands: dict[str, str] = param({}, "Catalog bands by short filter names")
    filename_regex: str | None = param(None, "What names of its files match")
    match_cards: dict[str, str] = param({}, "Values of header cards that all its files have")

    @field_validator("cards", "constants")
    @classmethod
    def _known_names(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        known = CARDS if info.field_name == "cards" else CONSTANTS
        odd = sorted(set(value) - known)
        if odd:
            raise ValueError(f"{odd[0]!r} is none of {', '.join(sorted(known))}")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(f"{value!r} is no IANA time zone such as Europe/Berlin") from None
        return value

    @field_validator("equinox")
    @classmethod
    def _known_equinox(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float) and not 1850.0 <= value <= 2150.0:
            raise ValueError("an equinox is a year between 1850 and 2150, or date")
        return value

    @field_validator("filename_regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        zones = sum(given is not None for given in (self.utc_offset_hours, self.timezone))
        if zones != (self.time_scale == "local"):
            raise ValueError(
                "one of utc_offset_hours and timezone goes with time_scale local, and with it alone"
            )
        if self.date_is_of == "evening" and self.time_format != "iso":
            raise ValueError("date_is_of goes with time_format iso")
        if ("ra" in self.constants) != ("dec" in self.constants):
            raise ValueError("constants need both ra and dec, or neither")
        return self


class GenericInstrument(Instrument):
    """A telescope described in the settings.

    Parameters
    ----------
    name
        Its name in the settings.
    **options
        Fields of `GenericOptions`.
    """

    needs_settings = True
    missing_value_cure = "write the card, or state the value under constants in the instrument's settings"

    def __init__(self, name: str = "generic", **options: object) -> None:
        o = self.options = GenericOptions.checked(dict(options), f"instruments.{name}")
        self.name = name
        self.telescope = o.telescope
        self.site = Site(o.latitude_deg, o.longitude_deg, o.elevation_m)
        self.pixel_scale_arcsec, self.scale_tolerance = o.pixel_scale_arcsec, o.scale_tolerance
        self.rotation_deg, self.rotation_tolerance_deg = o.rotation_deg, o.rotation_tolerance_deg
        self.parity = o.parity
        self.pointing_radius_arcmin = o.search_radius_arcmin
        self.gain, self.read_noise, self.saturation_limit = o.gain, o.read_noise, o.saturation_limit
        super().__init__()

    def get_section_ids(self) -> list[SectionId]:
        """Return its one section, 0."""
        return [_SECTION_ID]

    def _make_new_section(self, section_id: SectionId) -> SensorSection:
        self.check_section_id(section_id)
        return SensorSection(section_id, self.name)

    def get_section_unit(self, section_id: SectionId) -> Unit:
        """Return the unit that the settings name."""
        self.check_section_id(section_id)
        return self.options.extension

    # --- Recognising its files ------------------------------------------------------------------

    def get_filename_regex(self) -> list[str]:
        """Return the settings' pattern."""
        return [] if self.options.filename_regex is None else [self.options.filename_regex]

    def get_header_values(self) -> list[tuple[Sequence[str], str]]:
        """Return the settings' `match_cards`."""
        return [((key,), value) for key, value in self.options.match_cards.items()]

    def band_of(self, filter_name: str) -> str:
        """Return the catalog band of a filter; by default the one of the same name."""
        return self.options.bands.get(filter_name, filter_name)

    # --- Headers --------------------------------------------------------------------------------

    def read_header(self, filepath: Any) -> dict[str, Any]:
        """Read the header of the unit with the image, over the primary one's."""
        own = self.read_section_header(filepath, _SECTION_ID)
        return {**super().read_header(filepath), **own}

    def extract_header_info(self, cards: Cards, names: Sequence[str]) -> dict[str, Any]:
        """Read uniform names from raw cards; the settings' constants fill in what is absent."""
        constants = {name: value for name, value in self.options.constants.items() if name in names}
        return {**constants, **super().extract_header_info(cards, names)}

    def _get_header_keyword_translations(self) -> dict[str, Sequence[str]]:
        stated = {
            name: (value,) if isinstance(value, str) else value for name, value in self.options.cards.items()
        }
        return {**super()._get_header_keyword_translations(), **stated}

    def _get_header_values_converters(self) -> dict[str, Any]:
        hours = self.options.ra_unit == "hours"
        return {
            "filter": lambda name: self.options.filters.get(as_text(name), as_text(name)),
            "ra": lambda ra: as_angle_deg(ra, "ra", text_is_hours=True, number_is_hours=hours),
        }

    def _read_times(self, cards: Cards, found: Mapping[str, Any], exp_time: float) -> tuple[float, float]:
        moment = self._read_clock(cards)
        if self.options.time_refers_to == "start":
            return moment, mid_mjd(moment, exp_time)
        if self.options.time_refers_to == "middle":
            return mid_mjd(moment, -exp_time), moment
        return mid_mjd(moment, -2.0 * exp_time), mid_mjd(moment, -exp_time)

    def _read_clock(self, cards: Cards) -> float:
        """Return the recorded moment, MJD (UTC)."""
        texts = []
        for keyword in self.options.time_cards:
            card = find_card(cards, [keyword])
            if card is None:
                raise HeaderError(
                    f"no time of observation: the header has no card {keyword}",
                    cure="write the card, or correct time_cards in the settings",
                )
            texts.append(card[1])
        label = "+".join(self.options.time_cards)
        scale: TimeScale = (
            read_time_scale(cards) if self.options.time_scale == "header" else self.options.time_scale
        )
        if self.options.time_format == "iso":
            return self._read_iso("T".join(as_text(t) for t in texts), label, scale)
        number = as_number(texts[0], label) - (2400000.5 if self.options.time_format == "jd" else 0.0)
        return read_moment(lambda: clock_to_mjd(number, scale, self._offset_hours(number)))

    def _read_iso(self, text: str, label: str, scale: TimeScale) -> float:
        """Return the moment of a date with time, MJD (UTC)."""
        clock = read_clock(text, label)
        moment = read_clock(text, label, scale, self._offset_hours(clock))
        if self.options.date_is_of == "moment":
            return moment
        longitude = self.options.longitude_deg
        days = round(evening_to_mjd(moment, text, longitude) - moment)
        if days and self.options.timezone is not None:  # the clock may have been changed on that day
            moment = read_clock(text, label, scale, self._offset_hours(clock + days))
        return moment + days

    def _offset_hours(self, clock_mjd: float) -> float:
        """Return what a local clock is ahead of UTC when it shows this."""
        zone = self.options.timezone
        if zone is None:
            return self.options.utc_offset_hours or 0.0
        try:
            return zone_offset_hours(clock_mjd, zone)
        except UserError as error:
            raise HeaderError(error.message, cure=error.cure) from None

    def _read_sky_frame(self, cards: Cards, mjd: float) -> SkyFrame:
        """Return the frame that the settings state, or else the header; constants are ICRS."""
        equinox = self.options.equinox
        if "ra" in self.options.constants and "ra" not in super().extract_header_info(cards, ["ra"]):
            return SkyFrame("icrs")
        if equinox is None:
            return super()._read_sky_frame(cards, mjd)
        year = decimal_year(mjd) if equinox == "date" else equinox
        return SkyFrame("fk4" if year < 1984.0 else "fk5", year)

    # --- Pixels ---------------------------------------------------------------------------------

    def _get_amplifiers(self, context: SectionContext) -> tuple[Amplifier, ...]:
        whole = Box(0, context.shape[0], 0, context.shape[1])
        raw = self._box(self.options.data_section, context) or whole
        overscan = self._box(self.options.overscan_section, context)
        return (self._amplifier(context, "", raw, overscan, Box(0, raw.shape[0], 0, raw.shape[1])),)

    def _read_prepared(self, filepath: Paths, context: SectionContext) -> Prepared | None:
        """Tell what was done already, as the settings state."""
        if not self.options.prepared_steps:
            return None
        return Prepared(sum(CalibrationStep[name.upper()] for name in set(self.options.prepared_steps)))

    def _box(self, stated: str | None, context: SectionContext) -> Box | None:
        """Return a box that the settings state, or whose card they name."""
        if stated is None:
            return None
        if "[" in stated:
            return parse_box(stated, f"instruments.{self.name}")
        card = find_card(context.cards, [stated])
        if card is None:
            raise HeaderError(
                f"the header has no card {stated}", cure="state the section itself in the settings"
            )
        return parse_box(card[1], card[0])
