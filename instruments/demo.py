"""DemoCam on the DemoScope: the camera of ``seechange simulate``, a mosaic of two-amplifier CCDs.

One file per exposure: a primary header without data, then one 16-bit extension ``SEC00``, ``SEC01``, ...
per section, laid out along x as data of A, overscan of A, overscan of B, data of B.
"""

import re
from collections.abc import Sequence
from math import ceil, sqrt

from seechange_core.errors import HeaderError, SectionAbsent, SeeChangeError, SettingsError
from seechange_core.frames import Amplifier
from seechange_core.instrument import Instrument, SectionContext, SectionId, SensorSection
from seechange_core.instrument.files import Paths, as_paths
from seechange_core.instrument.fits_reader import list_names
from seechange_core.instrument.header import find_card, parse_box
from seechange_core.numerics.timing import Site
from seechange_core.params import Params, param

_SECTION = re.compile(r"SEC\d\d")


class DemoOptions(Params):
    """What the settings can say about the camera, under ``instruments: {demo: ...}``."""

    sections: int = param(4, "Sections, in a mosaic filled row by row from the lower left", ge=1, le=100)
    section_size_pix: int = param(1024, "Side of a section", unit="pix", ge=64, le=8192)
    gap_pix: int = param(40, "Gap between sections", unit="pix", ge=0)
    pixel_scale_arcsec: float = param(0.27, "Nominal pixel scale", unit="arcsec", gt=0)
    parity: int = param(1, "1: north up and east left; -1: mirrored", ge=-1, le=1)


class DemoInstrument(Instrument):
    """The simulated camera.

    Parameters
    ----------
    name
        What to call it.
    **options
        Fields of `DemoOptions`.
    """

    def __init__(self, name: str = "demo", **options: object) -> None:
        self.options = DemoOptions.checked(dict(options), f"instruments.{name}")
        self.name = name
        self.telescope = "DemoScope"
        self.header_instrument = "DemoCam"
        self.site = Site(-30.17, -70.81, 2200.0)
        self.pixel_scale_arcsec = self.options.pixel_scale_arcsec
        self.rotation_deg = 0.0
        self.parity = self.options.parity
        self.pointing_radius_arcmin = 2.0
        self.gain = 2.0
        self.read_noise = 5.0
        self.dark_current = 0.02
        self.saturation_limit = 60000.0
        self.size_x = self.size_y = self.options.section_size_pix
        super().__init__()

    def get_section_ids(self) -> list[SectionId]:
        """Return 0, 1, 2, ..."""
        return list(range(self.options.sections))

    def _make_new_section(self, section_id: SectionId) -> SensorSection:
        self.check_section_id(section_id)
        return SensorSection(section_id, self.name)

    def get_section_offsets(self, section_id: SectionId) -> tuple[float, float]:
        """Return a section's centre, (x, y) pixels from the mosaic's centre."""
        self.check_section_id(section_id)
        columns = ceil(sqrt(self.options.sections))
        rows = ceil(self.options.sections / columns)
        row, column = divmod(int(section_id), columns)
        pitch = self.options.section_size_pix + self.options.gap_pix
        return (column - (columns - 1) / 2) * pitch, (row - (rows - 1) / 2) * pitch

    def get_filename_regex(self) -> list[str]:
        """Return the pattern of ``demo_YYYYMMDD_HHMMSS_sci.fits`` and its kin."""
        return [r"(^|/)demo_\d{8}_\d{6}_(sci|bias|dark|flat)\.fits"] if self.name == "demo" else []

    def get_section_unit(self, section_id: SectionId) -> str:
        """Return the section's EXTNAME, e.g. ``SEC03``."""
        return f"SEC{int(section_id):02d}"

    def find_unreadable_sections(self, filepath: Paths) -> dict[SectionId, SeeChangeError]:
        """Also compare the number and the size of sections with the settings: where each lies depends on it.

        Raises
        ------
        SettingsError
            If the file has more sections than the settings say, or larger or smaller ones.
        """
        bad = super().find_unreadable_sections(filepath)
        found = [name for path in as_paths(filepath) for name in list_names(path) if _SECTION.fullmatch(name)]
        said, has = self.options.sections, max((int(name[3:]) + 1 for name in found), default=0)
        cure = f"set instruments.{self.name}.sections to {has}"
        if has > said and len(bad) < said:
            raise SettingsError(f"the file has {has} sections, and the settings say {said}", cure=cure)
        for section_id, error in bad.items():
            if isinstance(error, SectionAbsent) and int(section_id) >= has:
                bad[section_id] = SectionAbsent(f"{error.message}; if it never has it, {cure}")
        self._check_size(filepath, [i for i in self.get_section_ids() if i not in bad])
        return bad

    def _check_size(self, filepath: Paths, readable: Sequence[SectionId]) -> None:
        """Refuse sections of another size, where the file says of what size they are."""
        said = self.options.section_size_pix
        for section_id in readable[:1]:
            card = find_card(self.read_section_header(filepath, section_id), ["CCDSECA"])
            height = said if card is None else parse_box(card[1], "CCDSECA").shape[0]
            if height != said:
                raise SettingsError(
                    f"the file's sections have {height} pixels on a side, and the settings say {said}",
                    cure=f"set instruments.{self.name}.section_size_pix to {height}",
                )

    def _get_header_keyword_translations(self) -> dict[str, Sequence[str]]:
        return {**super()._get_header_keyword_translations(), "saturation_limit": ("SATURAT",)}

    def _get_amplifiers(self, context: SectionContext) -> tuple[Amplifier, ...]:
        if find_card(context.cards, ["DATASECA"]) is None:
            return super()._get_amplifiers(context)
        return tuple(self._read_amplifier(context, name) for name in "AB")

    def _read_amplifier(self, context: SectionContext, name: str) -> Amplifier:
        boxes = {}
        for keyword in (f"DATASEC{name}", f"BIASSEC{name}", f"CCDSEC{name}"):
            card = find_card(context.cards, [keyword])
            if card is None:
                raise HeaderError(
                    f"the card {keyword} is missing", cure="take the file again", section=context.section_id
                )
            boxes[keyword[:-1]] = parse_box(card[1], keyword)
        return self._amplifier(context, name, boxes["DATASEC"], boxes["BIASSEC"], boxes["CCDSEC"])
