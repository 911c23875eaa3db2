"""What an exposure's global header says, in uniform names and units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from seechange_core.errors import HeaderError, IgnoredFile
from seechange_core.frames import Cards
from seechange_core.instrument.header import Converter, as_angle_deg, as_number, as_text, translate
from seechange_core.instrument.sky_frames import SkyFrame, read_sky_frame
from seechange_core.instrument.times import read_start
from seechange_core.numerics.timing import Site, mid_mjd, night_of

#: What an image type can be: kinds of exposures, or ignored.
EXPOSURE_KINDS = ("science", "bias", "dark", "flat", "twilight_flat")
IGNORED = "ignored"

#: Values of the image-type card, lower case, and what they are.
IMAGE_TYPES: dict[str, str] = {
    **dict.fromkeys(("science", "object", "light", "light frame", "sci", "target", "sky"), "science"),
    **dict.fromkeys(("bias", "zero", "bias frame"), "bias"),
    **dict.fromkeys(("dark", "dark frame"), "dark"),
    **dict.fromkeys(("flat", "flat field", "flat frame", "dome flat", "domeflat", "lamp flat"), "flat"),
    **dict.fromkeys(
        ("sky flat", "skyflat", "twilight", "twilight flat", "twilightflat", "twilight_flat"), "twilight_flat"
    ),
    **dict.fromkeys(("focus", "pointing", "acquisition", "junk", "test"), IGNORED),
}


@dataclass(frozen=True)
class ExposureFacts:
    """The columns of an Exposure that come from its header.

    Attributes
    ----------
    type
        science, bias, dark, flat (of a dome or lamp, or it is not said) or twilight_flat.
    mjd, mjd_mid
        Start and middle of the exposure, MJD (UTC).
    night
        Local date of the evening, YYYY-MM-DD.
    exp_time
        Seconds.
    filter, filter_array
        Short name of the filter; names of the filters of an array.
    ra, dec
        Pointing, ICRS deg; None if not known.
    project, target, telescope, airmass
        None where the header does not say.
    header
        Further values by uniform name.
    """

    type: str
    mjd: float
    mjd_mid: float
    night: str
    exp_time: float
    filter: str | None = None
    filter_array: list[str] | None = None
    ra: float | None = None
    dec: float | None = None
    project: str | None = None
    target: str | None = None
    telescope: str | None = None
    airmass: float | None = None
    header: dict[str, Any] = field(default_factory=dict)


def _needed_value(found: Mapping[str, Any], name: str, keywords: tuple[str, ...], cure: str) -> Any:
    """Return a value that must be there.

    Raises
    ------
    HeaderError
        Naming the cards that were looked for.
    """
    if name not in found:
        raise HeaderError(
            f"no {name}: the header has none of the cards {', '.join(keywords)}, or they are blank",
            cure=cure,
        )
    return found[name]


def read_exposure_type(value: Any, kinds: Mapping[str, str], instrument: str = "NAME") -> str:
    """Tell science, bias, dark, flat and twilight_flat apart by the image-type card.

    Parameters
    ----------
    value
        Of the card.
    kinds
        What its values mean: one of `EXPOSURE_KINDS`, or `IGNORED`.
    instrument
        Name, for the cure.

    Raises
    ------
    IgnoredFile
        If such files are ignored.
    HeaderError
        If the value is unknown.
    """
    text = as_text(value).lower()
    setting = f"instruments: {{{instrument}: {{image_types: {{{text}: science}}}}}}"
    known = {key.lower(): kind for key, kind in kinds.items()}
    if text not in known:
        raise HeaderError(
            f"image type {value!r} is unknown",
            cure=f"say in the settings what it is, e.g. {setting}; or instead of science, "
            f"{', '.join(EXPOSURE_KINDS[1:])} or {IGNORED}",
        )
    if known[text] == IGNORED:
        raise IgnoredFile(
            f"{text}: files of this image type are passed over",
            cure=f"to use them: {setting} in the settings",
        )
    return known[text]


def read_exp_time(value: Any) -> float:
    """Read an exposure time, seconds; not negative."""
    seconds = as_number(value, "exposure time")
    if seconds < 0:
        raise HeaderError(f"exposure time = {seconds} s is negative", cure="correct the card")
    return seconds


def read_pointing(found: Mapping[str, Any]) -> tuple[float, float] | None:
    """Read the pointing, deg in the header's frame, or None if the header has neither coordinate.

    Raises
    ------
    HeaderError
        If one of the two is missing or out of range.
    """
    if "ra" not in found and "dec" not in found:
        return None
    for name, other in (("ra", "dec"), ("dec", "ra")):
        if name not in found:
            raise HeaderError(f"the header has {other} and no {name}", cure="give both or neither")
    ra, dec = as_number(found["ra"], "ra"), as_number(found["dec"], "dec")
    if not (-360.0 <= ra <= 360.0 and -90.0 <= dec <= 90.0):
        raise HeaderError(f"the pointing ra = {ra}, dec = {dec} is not on the sky", cure="correct the cards")
    return ra % 360.0, dec


def _optional_number(found: Mapping[str, Any], name: str) -> float | None:
    """Read a number that nothing depends on: None where it is missing or no number."""
    try:
        return as_number(found[name], name) if name in found else None
    except HeaderError:
        return None


def read_site(found: Mapping[str, Any], default: Site | None) -> Site | None:
    """Return the site of the header, or the instrument's own where the header has none."""
    if "latitude_deg" not in found or "longitude_deg" not in found:
        return default
    elevation = found.get("elevation_m", default.elevation_m if default is not None else 0.0)
    return Site(
        as_number(found["latitude_deg"], "latitude"),
        as_number(found["longitude_deg"], "longitude"),
        as_number(elevation, "elevation"),
    )


TRANSLATIONS: dict[str, tuple[str, ...]] = {
    "mjd": ("MJD-OBS", "MJD", "MJD-BEG"),
    "date_obs": ("DATE-OBS", "DATE-BEG", "DATEOBS"),
    "exp_time": ("EXPTIME", "EXPOSURE"),
    "filter": ("FILTER", "FILTNAM", "FILT"),
    "type": ("OBSTYPE", "IMAGETYP", "IMAGETYPE"),
    "ra": ("RA", "TELRA", "OBJCTRA"),
    "dec": ("DEC", "TELDEC", "OBJCTDEC"),
    "project": ("PROPID", "PROJECT", "PROPOSAL", "PROGID"),
    "target": ("OBJECT", "TARGET", "FIELD"),
    "telescope": ("TELESCOP", "TELESCOPE"),
    "instrument": ("INSTRUME", "INSTRUMENT"),
    "airmass": ("AIRMASS", "SECZ"),
    "gain": ("GAIN", "EGAIN"),
    "read_noise": ("RDNOISE", "READNOIS"),
    "saturation_limit": ("SATURATE", "SATURAT"),
    "latitude_deg": ("SITELAT", "OBS-LAT"),
    "longitude_deg": ("SITELONG", "OBS-LONG"),
    "elevation_m": ("SITEELEV", "OBS-ELEV"),
}

#: Uniform names that become columns of an Exposure or are needed to make them.
_FACTS = ("mjd", "date_obs", "exp_time", "filter", "type", "ra", "dec", "project", "target", "telescope")
_SITE = ("latitude_deg", "longitude_deg", "elevation_m")


class HeaderFacts:
    """The part of `Instrument` that understands global headers.

    Attributes
    ----------
    telescope
        Name of the telescope.
    site
        Where it stands; None if unknown (then nights cannot be named).
    filter_array
        Names of the filters in the order of the index; None for one filter over all sections.
    image_types
        What further values of the image-type card mean, as `IMAGE_TYPES`: any instrument's settings may say.
    missing_value_cure
        What to do where the header lacks a needed value.
    """

    name: str
    telescope: str | None = None
    site: Site | None = None
    filter_array: list[str] | None = None
    image_types: Mapping[str, str] = MappingProxyType({})
    missing_value_cure: ClassVar[str] = "write the card, or leave the file out: it cannot be used without"

    def get_auxiliary_exposure_header_keys(self) -> list[str]:
        """Return further lower-case names to keep in an Exposure's `header`."""
        return []

    def _get_header_keyword_translations(self) -> dict[str, Sequence[str]]:
        """Return the raw keywords of each uniform name, first choice first."""
        return dict(TRANSLATIONS)

    def _get_header_values_converters(self) -> dict[str, Converter]:
        """Return functions that turn raw values into uniform units, by uniform name."""
        return {}

    def _get_image_types(self) -> dict[str, str]:
        """Return what the values of the image-type card mean: one of `EXPOSURE_KINDS`, or `IGNORED`.

        What the settings say of it, `image_types`, goes before.
        """
        return dict(IMAGE_TYPES)

    def extract_header_info(self, cards: Cards, names: Sequence[str]) -> dict[str, Any]:
        """Read uniform names from raw cards, converted to uniform units; absent ones are left out."""
        translations, converters = (
            self._get_header_keyword_translations(),
            self._get_header_values_converters(),
        )
        return translate(cards, names, translations, converters)

    def read_facts(self, cards: Cards, extra: Sequence[str] = ()) -> ExposureFacts:
        """Read what an Exposure keeps of its global header.

        Parameters
        ----------
        cards
            Raw global header.
        extra
            Further uniform names for `ExposureFacts.header`.

        Raises
        ------
        IgnoredFile
            If it is a file of a kind that is not processed: focus, pointing, ...
        HeaderError
            If a needed card is missing or cannot be read.
        """
        found = self.extract_header_info(cards, [*_FACTS, "airmass", *_SITE, *extra])
        stated = {key.lower(): kind for key, kind in self.image_types.items()}
        kind = read_exposure_type(
            self._needed(found, "type"), {**self._get_image_types(), **stated}, self.name
        )
        exp_time = read_exp_time(self._needed(found, "exp_time"))
        start, middle = self._read_times(cards, found, exp_time)
        site = read_site(found, self.site)
        longitude = self._needed(found, "longitude_deg") if site is None else site.longitude_deg
        ra, dec = self._read_pointing(cards, found, kind, middle)
        texts = {k: as_text(found[k]) if k in found else None for k in ("project", "target", "telescope")}
        return ExposureFacts(
            type=kind,
            mjd=start,
            mjd_mid=middle,
            night=night_of(middle, longitude),
            exp_time=exp_time,
            filter=self._read_filter(found, kind),
            filter_array=self._read_filter_array(found),
            ra=ra,
            dec=dec,
            project=texts["project"],
            target=texts["target"],
            telescope=texts["telescope"] or self.telescope,
            airmass=_optional_number(found, "airmass"),
            header={k: found[k] for k in (*_SITE, *extra) if k in found},
        )

    def _read_times(self, cards: Cards, found: Mapping[str, Any], exp_time: float) -> tuple[float, float]:
        """Return start and middle of the exposure, MJD (UTC); `found` has the uniform names' values."""
        start = read_start(cards, found, exp_time)
        if start is None:
            start = float(self._needed(found, "date_obs"))  # says that it is not there
        return start, mid_mjd(start, exp_time)

    def _read_pointing(
        self, cards: Cards, found: Mapping[str, Any], kind: str, mjd: float
    ) -> tuple[float | None, float | None]:
        """Return the pointing, ICRS deg; where a calibration frame's telescope looked does not matter."""
        angles = {n: found[n] for n in ("ra", "dec") if n in found}
        try:
            for name, value in angles.items():
                angles[name] = as_angle_deg(value, name, text_is_hours=name == "ra")
            pointing = read_pointing(angles)
            if pointing is None:
                return None, None
            return self._read_sky_frame(cards, mjd).to_icrs(*pointing)
        except HeaderError:
            if kind == "science":
                raise
            return None, None

    def _read_sky_frame(self, cards: Cards, mjd: float) -> SkyFrame:
        """Return the frame of the header's ra and dec, of an exposure at `mjd`."""
        return read_sky_frame(cards)

    def _read_filter(self, found: Mapping[str, Any], kind: str) -> str | None:
        if self.filter_array is not None or kind in {"bias", "dark"}:
            return None
        return as_text(self._needed(found, "filter"))

    def _read_filter_array(self, found: Mapping[str, Any]) -> list[str] | None:
        """Return the filters of the array; a camera whose header names them replaces this."""
        return self.filter_array

    def _needed(self, found: Mapping[str, Any], name: str) -> Any:
        keywords = tuple(self._get_header_keyword_translations().get(name, (name,)))
        return _needed_value(found, name, keywords, self.missing_value_cure)
