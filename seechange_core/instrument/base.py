"""The contract between a camera and the pipeline: what a subclass of `Instrument` says and does.

One instrument is one file in the folder ``instruments``. Its class sets the properties of camera and
telescope in ``__init__`` and ends with ``super().__init__()``; it says what its sections are and where
they lie (`Sectioned`); and it replaces what does not fit its files in the default FITS reading
(`SectionFiles`) and in the understanding of headers (`HeaderFacts`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from seechange_core.errors import DeadSection, HeaderError, UserError
from seechange_core.frames import Amplifier, Box, Cards, PointingHint, Prepared, RawFrame
from seechange_core.instrument import registry
from seechange_core.instrument.facts import HeaderFacts, read_exp_time
from seechange_core.instrument.files import Paths, SectionFiles
from seechange_core.instrument.fits_reader import kept_open
from seechange_core.instrument.header import as_is, as_number, as_text, find_card
from seechange_core.instrument.pointing import displace, outline, rotation_there
from seechange_core.instrument.sections import Sections
from seechange_core.instrument.sensor_section import SectionId


class Instrument(SectionFiles, HeaderFacts):
    """A camera on a telescope.

    A subclass must define ``__init__``, `get_section_ids` and `_make_new_section`; with several sections
    also `get_section_offsets`; with a filter array `get_section_filter_array_index`. It may replace
    any other method that is not called final.

    Parameters
    ----------
    **properties
        Attributes to set, over those of the subclass.

    Attributes
    ----------
    name
        What settings, folders and Dagster call it: letters, digits and underscores.
    telescope, site, filter_array, sections
        See `HeaderFacts` and `Sectioned`.
    pixel_scale_arcsec, scale_tolerance
        Nominal scale, and its relative uncertainty.
    rotation_deg, rotation_tolerance_deg, parity
        Nominal orientation of the camera: position angle of +y (north through east), its uncertainty,
        and +1 (east to the left) or -1 (mirrored); None if unknown.
    pointing_radius_arcmin
        How far off the pointing may be.
    gain, read_noise, dark_current, saturation_limit, non_linearity_limit
        e-/ADU, e-, e-/s, ADU, ADU: used where neither header nor section has a value.
    size_x, size_y
        Of a trimmed section, pixels.
    header_instrument, header_telescope
        What its files say in INSTRUME and TELESCOP, to know them by; None if that does not matter.
    CODE_VERSION
        Raised whenever the class reads other pixels, values or times out of the same files: all that was made
        of them is then outdated.
    image_types, trust_sections
        Options that any instrument has in the settings: see `HeaderFacts`; and names of properties for which
        a section's own value goes before the header's: among gain, read_noise, saturation_limit,
        non_linearity_limit. It counts for all amplifiers of the section.
    needs_settings
        True for a class that means nothing without options in the settings.
    """

    CODE_VERSION: ClassVar[str] = "1"
    needs_settings: ClassVar[bool] = False
    pixel_scale_arcsec: float | None = None
    scale_tolerance: float = 0.03
    rotation_deg: float | None = None
    rotation_tolerance_deg: float = 5.0
    parity: int | None = None
    pointing_radius_arcmin: float = 5.0
    gain: float | None = None
    read_noise: float | None = None
    dark_current: float | None = None
    saturation_limit: float | None = None
    non_linearity_limit: float | None = None
    defective: bool = False
    size_x: int | None = None
    size_y: int | None = None
    header_instrument: str | None = None
    header_telescope: str | None = None
    identifier: str | None = None
    trust_sections: tuple[str, ...] = ()

    def __init__(self, **properties: Any) -> None:
        for key, value in properties.items():
            if not hasattr(self, key):
                raise UserError(f"an instrument has no property {key!r}", cure="see Instrument's attributes")
            setattr(self, key, value)
        self.sections = {}
        registry.register(self)

    # --- Recognising its files ------------------------------------------------------------------

    def get_filename_regex(self) -> list[str]:
        """Return regular expressions to search for in the names of this instrument's files."""
        return []

    def get_header_values(self) -> list[tuple[Sequence[str], str]]:
        """Return what the headers of all its files say: keywords, first choice first, and the value."""
        translations = self._get_header_keyword_translations()
        wanted = {"instrument": self.header_instrument, "telescope": self.header_telescope}
        return [(translations[name], value) for name, value in wanted.items() if value is not None]

    def matches_header(self, cards: Cards) -> bool:
        """Tell whether a raw global header has all of `get_header_values`."""
        wanted = self.get_header_values()
        found = [find_card(cards, keywords) for keywords, _ in wanted]
        return bool(wanted) and None not in found and not self.find_header_mismatch(cards)

    def find_header_mismatch(self, cards: Cards) -> str:
        """Return which of `get_header_values` is another one in a raw global header, in words, or ''."""
        for keywords, value in self.get_header_values():
            card = find_card(cards, keywords)
            if card is not None and as_text(card[1]).lower() != value.strip().lower():
                return f"{card[0]} is {as_text(card[1])!r}, not {value!r}"
        return ""

    def group_files(self, path: Path) -> tuple[str, list[str]] | None:
        """Tell which files beside one belong to the same exposure, e.g. its mask and weight.

        Parameters
        ----------
        path
            Any file of the exposure; its folder is looked into.

        Returns
        -------
        tuple
            What the names of all its files begin with, and what completes it to each of them, the main
            image first; None if the file stands alone.

        Raises
        ------
        UserError
            If the main image is not there.
        """
        return None

    # --- What the pipeline asks for -------------------------------------------------------------

    def band_of(self, filter_name: str) -> str:
        """Return the catalog band to calibrate a filter with; by default the one of the same name."""
        return filter_name

    def get_pointing_hint(
        self, ra: float | None, dec: float | None, section_id: SectionId, sections: Sections | None = None
    ) -> PointingHint:
        """Return what is known of a section's place on the sky.

        Parameters
        ----------
        ra, dec
            Where the telescope pointed, ICRS deg.
        section_id, sections
            Which section; whose, as for `get_property`.

        Raises
        ------
        HeaderError
            If the pointing or the pixel scale is not known.
        """
        if ra is None or dec is None:
            raise HeaderError(
                "nothing says where the telescope pointed",
                cure=self.missing_value_cure.replace("the card", "the cards RA and DEC"),
                section=section_id,
            )
        scale = self._pixel_scale(section_id, sections)
        offset = (
            float(self.get_property(section_id, "offset_x", sections)),
            float(self.get_property(section_id, "offset_y", sections)),
        )
        rotation = self.rotation_deg
        there_ra, there_dec, doubt = displace(ra, dec, offset, scale, rotation, self.parity)
        if rotation is not None and self.parity is not None:
            rotation = rotation_there(ra, dec, offset, scale, rotation, self.parity)
        return PointingHint(
            ra=there_ra,
            dec=there_dec,
            radius_arcmin=self.pointing_radius_arcmin + doubt,
            pixel_scale_arcsec=scale,
            scale_tolerance=self.scale_tolerance,
            rotation_deg=rotation,
            rotation_tolerance_deg=self.rotation_tolerance_deg,
            parity=self.parity,
        )

    def get_footprint(
        self, ra: float | None, dec: float | None, sections: Sections | None = None
    ) -> list[list[float]] | None:
        """Return the nominal corners of the mosaic, four [ra, dec]; None if something needed is unknown."""
        if ra is None or dec is None or self.rotation_deg is None or self.parity is None:
            return None
        boxes = []
        for section_id in self.get_section_ids():
            x, y, width, height = (
                self.get_property(section_id, p, sections)
                for p in ("offset_x", "offset_y", "size_x", "size_y")
            )
            if width is None or height is None:
                return None
            boxes.append((x - width / 2, x + width / 2, y - height / 2, y + height / 2))
        scale = self._pixel_scale(self.get_section_ids()[0], sections)
        return outline(ra, dec, boxes, scale, self.rotation_deg, self.parity)

    def load_raw_frame(
        self, filepath: Paths, section_id: SectionId, sections: Sections | None = None
    ) -> RawFrame:
        """Read a section with what is known of its amplifiers.

        Gain, read noise and saturation come from the header if it has them, then from the section, then
        from the instrument; those in `trust_sections` from the section first.

        Parameters
        ----------
        filepath
            The exposure's file or files.
        section_id, sections
            Which section; whose, as for `get_property`.

        Raises
        ------
        DeadSection
            If the section is known to be defective.
        FileDamagedError, SectionMissingError, PixelsError, HeaderError
            If it cannot be read, or lacks a needed value.
        """
        if self.get_property(section_id, "defective", sections):
            row = self._loaded(sections)[section_id]
            dated = row.defective and (row.validity_start is not None or row.validity_end is not None)
            when = f", {row.validity}" if dated else ""
            raise DeadSection(f"{self.name} lists it as defective{when}", section=section_id)
        with kept_open():
            own = self.read_section_header(filepath, section_id)
            cards = {**self.read_header(filepath), **own}
            data = self.load_section_image(filepath, section_id)
            found = self.extract_header_info(cards, ["exp_time"])
            context = SectionContext(section_id, sections, cards, data.shape, data.dtype)
            return RawFrame(
                data=data,
                amplifiers=self._get_amplifiers(context),
                exposure_time_s=read_exp_time(self._needed(found, "exp_time")),
                header=own,
                prepared=self._read_prepared(filepath, context),
            )

    def _read_prepared(self, filepath: Paths, context: "SectionContext") -> Prepared | None:
        """Tell what the observatory's own pipeline did to a section already, with its weight and mask."""
        return None

    def _get_amplifiers(self, context: "SectionContext") -> tuple[Amplifier, ...]:
        """Describe the amplifiers of a section; by default one that reads all of it, without overscan."""
        whole = Box(0, context.shape[0], 0, context.shape[1])
        return (self._amplifier(context, "", whole, None, whole),)

    def _amplifier(
        self,
        context: "SectionContext",
        name: str,
        raw: Box,
        overscan: Box | None,
        image: Box,
        *,
        mirrored: bool = False,
        defective: bool = False,
    ) -> Amplifier:
        """Make an amplifier; its own keywords end with its name (GAINA), those for all don't (GAIN)."""
        gain = self._header_first("gain", name, context)
        read_noise = self._header_first("read_noise", name, context)
        saturation = self._header_first("saturation_limit", name, context)
        if gain is None or gain <= 0:
            raise _impossible("gain", gain, name, context.section_id)
        if read_noise is None or read_noise < 0:
            raise _impossible("read_noise", read_noise, name, context.section_id)
        if saturation is None:
            saturation = float(np.iinfo(context.dtype).max) if context.dtype.kind in "ui" else np.inf
        non_linear = self._header_first("non_linearity_limit", name, context)
        return Amplifier(
            name,
            raw,
            overscan,
            image,
            gain,
            read_noise,
            saturation,
            non_linear_adu=np.inf if non_linear is None else non_linear,
            mirrored=mirrored,
            defective=defective,
        )

    def _header_first(self, prop: str, suffix: str, context: "SectionContext") -> float | None:
        """Return a property from the header, else from the section, else from the instrument.

        For those in `trust_sections` the section goes first.
        """
        if prop in self.trust_sections:
            trusted = getattr(self._loaded(context.sections)[context.section_id], prop)
            if trusted is not None:
                return float(trusted)
        keywords = self._get_header_keyword_translations().get(prop, (prop,))
        card = find_card(context.cards, [f"{k}{suffix}" for k in keywords]) or find_card(
            context.cards, keywords
        )
        if card is None:
            own = self.get_property(context.section_id, prop, context.sections)
            return None if own is None else float(own)
        converter = self._get_header_values_converters().get(prop, as_is)
        return as_number(converter(card[1]), card[0])

    def _pixel_scale(self, section_id: SectionId, sections: Sections | None) -> float:
        scale = self.get_property(section_id, "pixel_scale_arcsec", sections)
        if scale is None:
            raise HeaderError(f"the pixel scale of {self.name} is not known", cure="state pixel_scale_arcsec")
        return float(scale)


@dataclass(frozen=True)
class SectionContext:
    """What is at hand when a section's amplifiers are described.

    Attributes
    ----------
    section_id, sections
        Which section; whose, as for `Instrument.get_property`.
    cards
        Global header with the section's own on top.
    shape, dtype
        Of the raw array.
    """

    section_id: SectionId
    sections: Sections | None
    cards: Cards
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _impossible(prop: str, seen: float | None, amplifier: str, section_id: SectionId) -> HeaderError:
    return HeaderError(
        f"the {prop} of {f'amplifier {amplifier}' if amplifier else 'the section'} is {seen}",
        cure=f"correct the card, or store the right value with the section (replace_section) and name "
        f"{prop} in trust_sections of the instrument's settings",
        section=section_id,
    )
