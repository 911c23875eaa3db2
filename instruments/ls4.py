"""LS4Cam on the ESO 1.0-m Schmidt telescope at La Silla: the La Silla Schmidt Southern Survey.

32 CCDs of 2048 x 4096 pixels with two amplifiers each, about 1" per pixel and 20 square degrees, under an
array of four filters, one over each quadrant: i twice, g and z (arXiv:2503.14579).

One file per exposure, compressed: a primary header without data, then one 16-bit extension per amplifier in
the order in which its pixels were read. ``NE_A_RIGHT`` has the low columns of CCD NE_A, ``NE_A_LEFT`` the
high ones from the edge inwards, mirrored; each is prescan, data and overscan. Here the two are joined as
the detector lies: right amplifier, then the left one turned back.

PROVISIONAL, because nothing public says so in detail: the cards and their values, the widths of prescan and
overscan, how extensions are called and stored, the filters' order, gain, noise and saturation (they come from
the header where it has them), the regular grid on which the CCDs are laid, and a mosaic centred on the
telescope's pointing (`LS4Options` can move it).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seechange_core.errors import (
    FileDamagedError,
    HeaderError,
    SectionAbsent,
    SectionMissingError,
    SeeChangeError,
    UserError,
)
from seechange_core.frames import Amplifier, Box
from seechange_core.instrument import Instrument, Paths, SectionContext, SectionId, SensorSection, as_paths
from seechange_core.instrument.fits_reader import UnitReport, check_unit, list_units, read_cards, read_pixels
from seechange_core.instrument.header import as_angle_deg, as_text, find_card, parse_box, parse_directed_box
from seechange_core.numerics.timing import Site
from seechange_core.params import Params, param

#: Where the CCDs lie: rows from north to south, columns along +x.
LAYOUT = (
    ("NE_H", "NE_G", "NE_F", "NE_E", "NW_D", "NW_C", "NW_B", "NW_A"),
    ("NE_D", "NE_C", "NE_B", "NE_A", "NW_H", "NW_G", "NW_F", "NW_E"),
    ("SE_H", "SE_G", "SE_F", "SE_E", "SW_D", "SW_C", "SW_B", "SW_A"),
    ("SE_D", "SE_C", "SE_B", "SE_A", "SW_H", "SW_G", "SW_F", "SW_E"),
)
QUADRANTS = ("NE", "NW", "SE", "SW")
SECTIONS = tuple(f"{quadrant}_{letter}" for quadrant in QUADRANTS for letter in "ABCDEFGH")
#: From centre to centre of neighbours, pixels.
PITCH_X, PITCH_Y = 2236.0, 4247.0
#: The amplifiers of a CCD, each with the letter that its cards get in a section's header (GAINA, ...).
AMPLIFIERS = {"RIGHT": "A", "LEFT": "B"}
#: Cards that tell one amplifier of a section from the other, by what they are called in the section's header.
_OWN_CARDS = {"GAIN": "GAIN", "RDNOISE": "RDNOISE", "SATURATE": "SATURAT", "CCDSEC": "CCDSEC"}
#: Cards of an amplifier's extension that mean nothing for the whole section.
_DROPPED = frozenset(
    {"EXTNAME", "AMP_NAME", "DATASEC", "BIASSEC", "PRESEC", "CHECKSUM", "DATASUM", *_OWN_CARDS}
)


class LS4Options(Params):
    """What the settings can say about the camera, under ``instruments: {ls4: ...}``."""

    center_x_pix: float = param(
        0.0, "Centre of the mosaic from where the telescope points, along +x (east)", unit="pix"
    )
    center_y_pix: float = param(
        0.0, "Centre of the mosaic from where the telescope points, along +y (north)", unit="pix"
    )
    search_radius_arcmin: float = param(5.0, "How far off the pointing may be", unit="arcmin", gt=0)


@dataclass(frozen=True)
class _Half:
    """One amplifier's extension, and where its boxes are in the joined array."""

    name: str
    data: Box
    overscan: Box | None
    ccd: Box
    mirrored: bool
    width: int
    cards: Mapping[str, Any]

    def joined(self, box: Box, start: int) -> Box:
        """Return where a box of the extension is, once it stands from column `start` on."""
        x0, x1 = (self.width - box.x1, self.width - box.x0) if self.mirrored else (box.x0, box.x1)
        return Box(box.y0, box.y1, start + x0, start + x1)


class LS4Instrument(Instrument):
    """The LS4 camera.

    Parameters
    ----------
    name
        What to call it.
    **options
        Fields of `LS4Options`.
    """

    def __init__(self, name: str = "ls4", **options: object) -> None:
        self.options = LS4Options.checked(dict(options), f"instruments.{name}")
        self.name = name
        self.telescope = "ESO 1.0-m Schmidt"
        self.header_instrument = "LS4Cam"
        self.site = Site(-29.2567, -70.7377, 2347.0)
        self.pixel_scale_arcsec = 1.0177
        self.rotation_deg = 0.0
        self.parity = -1  # +y is north and +x east
        self.pointing_radius_arcmin = self.options.search_radius_arcmin
        self.filter_array = ["i", "z", "g", "i"]
        # Of the same kind of CCD in another camera: for files that say nothing.
        self.gain = 4.0
        self.read_noise = 7.0
        self.saturation_limit = 44000.0
        self.size_x, self.size_y = 2048, 4096
        super().__init__()

    # --- Sections -------------------------------------------------------------------------------

    def get_section_ids(self) -> list[SectionId]:
        """Return NE_A, ..., SW_H."""
        return list(SECTIONS)

    def _make_new_section(self, section_id: SectionId) -> SensorSection:
        self.check_section_id(section_id)
        return SensorSection(section_id, self.name)

    def get_section_offsets(self, section_id: SectionId) -> tuple[float, float]:
        """Return a section's centre, (x, y) pixels from where the telescope points."""
        self.check_section_id(section_id)
        row = next(r for r, names in enumerate(LAYOUT) if section_id in names)
        column = LAYOUT[row].index(str(section_id))
        x, y = (column - 3.5) * PITCH_X, (1.5 - row) * PITCH_Y
        return x + self.options.center_x_pix, y + self.options.center_y_pix

    def get_section_filter_array_index(self, section_id: SectionId) -> int:
        """Return which filter covers a section: that of its quadrant."""
        self.check_section_id(section_id)
        return QUADRANTS.index(str(section_id)[:2])

    # --- Headers --------------------------------------------------------------------------------

    def get_filename_regex(self) -> list[str]:
        """Return the pattern of ``YYYYMMDDHHMMSS<kind>_NNNNN.fits.fz``."""
        return [r"(^|/)\d{14}[sbdfem]_\d{5}\.fits(\.fz)?$"]

    def _get_header_keyword_translations(self) -> dict[str, Sequence[str]]:
        return {
            **super()._get_header_keyword_translations(),
            "date_obs": ("STARTOBS", "DATE-OBS"),
            "ra": ("TELE-RA",),
            "dec": ("TELE-DEC",),
            "filter": ("FILTERS",),
            "project": ("PROJECT",),
            "target": ("TARGETID", "OBJECT"),
            "saturation_limit": ("SATURAT",),
        }

    def _get_header_values_converters(self) -> dict[str, Any]:
        return {"ra": lambda hours: as_angle_deg(hours, "TELE-RA", text_is_hours=True, number_is_hours=True)}

    def _get_image_types(self) -> dict[str, str]:
        twilight = ("pmskyflat", "amskyflat")
        return {**super()._get_image_types(), **dict.fromkeys(twilight, "twilight_flat")}

    def _read_filter_array(self, found: Mapping[str, Any]) -> list[str] | None:
        """Return the filters that the header names, or the usual ones."""
        if "filter" not in found:
            return self.filter_array
        names = [name.strip() for name in as_text(found["filter"]).split(",")]
        if len(names) != len(QUADRANTS) or not all(names):
            raise HeaderError(
                f"FILTERS = {found['filter']!r} does not name {len(QUADRANTS)} filters",
                cure="correct the card",
            )
        return names

    def read_section_header(self, filepath: Paths, section_id: SectionId) -> dict[str, Any]:
        """Read the raw header of one section: what its amplifiers' headers share, and GAINA, GAINB, ..."""
        _, right, left = self._read_halves(filepath, section_id)
        shared = {
            k: v for k, v in right.cards.items() if k not in _DROPPED and left.cards.get(k, _DROPPED) == v
        }
        header: dict[str, Any] = {"EXTNAME": str(section_id), **shared}
        start = 0
        for half in (right, left):
            letter = AMPLIFIERS[half.name]
            own = {f"{to}{letter}": half.cards[k] for k, to in _OWN_CARDS.items() if k in half.cards}
            header |= {f"AMPNAME{letter}": half.name, **own}
            header[f"DATASEC{letter}"] = _section_text(half.joined(half.data, start))
            if half.overscan is not None:
                header[f"BIASSEC{letter}"] = _section_text(half.joined(half.overscan, start))
            start += half.width
        header["NAXIS1"] = start
        return header

    # --- Pixels ---------------------------------------------------------------------------------

    def get_section_unit(self, section_id: SectionId) -> None:
        """Return None: no one extension holds a section."""
        self.check_section_id(section_id)

    def load_section_image(self, filepath: Paths, section_id: SectionId) -> npt.NDArray[Any]:
        """Read the pixels of one section as its detector lies: right amplifier, then left one turned back."""
        path, right, left = self._read_halves(filepath, section_id)
        images = []
        for half in (right, left):
            image = read_pixels(path, f"{section_id}_{half.name}")
            images.append(image[:, ::-1] if half.mirrored else image)
        return np.hstack(images)

    def find_unreadable_sections(self, filepath: Paths) -> dict[SectionId, SeeChangeError]:
        """Return the sections of which an amplifier is lost or incomplete, with the reasons."""
        path = self._one_file(filepath)
        reports: list[UnitReport] | None = None
        bad: dict[SectionId, SeeChangeError] = {}
        for section_id in self.get_section_ids():
            try:
                reports = list_units(path) if reports is None else reports
                for name in AMPLIFIERS:
                    check_unit(reports, f"{section_id}_{name}", path)
            except (FileDamagedError, SectionMissingError, SectionAbsent) as error:
                bad[section_id] = error
        return bad

    def _get_amplifiers(self, context: SectionContext) -> tuple[Amplifier, ...]:
        """Describe both amplifiers by the cards that `read_section_header` made."""
        boxes: dict[str, tuple[Box, Box | None, Box, bool]] = {}
        for name, letter in AMPLIFIERS.items():
            ccd, mirrored = parse_directed_box(context.cards[f"CCDSEC{letter}"], f"CCDSEC{letter}")
            bias = find_card(context.cards, [f"BIASSEC{letter}"])
            overscan = None if bias is None else parse_box(bias[1], bias[0])
            boxes[name] = (parse_box(context.cards[f"DATASEC{letter}"], name), overscan, ccd, mirrored)
        x0, y0 = min(b[2].x0 for b in boxes.values()), min(b[2].y0 for b in boxes.values())
        found = []
        for name, (raw, overscan, ccd, mirrored) in boxes.items():
            image = Box(ccd.y0 - y0, ccd.y1 - y0, ccd.x0 - x0, ccd.x1 - x0)
            amplifier = self._amplifier(context, AMPLIFIERS[name], raw, overscan, image, mirrored=mirrored)
            found.append(replace(amplifier, name=name))
        return tuple(found)

    def _read_halves(self, filepath: Paths, section_id: SectionId) -> tuple[Path, _Half, _Half]:
        """Read the headers of both amplifiers, in the order of their columns on the CCD."""
        self.check_section_id(section_id)
        path = self._one_file(filepath)
        right, left = (
            _describe(name, read_cards(path, f"{section_id}_{name}"), section_id) for name in AMPLIFIERS
        )
        if right.ccd.x1 != left.ccd.x0 or (right.ccd.y0, right.ccd.y1) != (left.ccd.y0, left.ccd.y1):
            raise HeaderError(
                f"the amplifiers' CCDSEC {right.cards['CCDSEC']}, {left.cards['CCDSEC']} are no neighbours",
                cure="correct the cards",
                section=section_id,
            )
        return path, right, left

    def _one_file(self, filepath: Paths) -> Path:
        paths = as_paths(filepath)
        if len(paths) != 1:
            raise UserError(f"{len(paths)} files for an exposure of {self.name}", cure="give its one file")
        return paths[0]


def _describe(name: str, cards: Mapping[str, Any], section_id: SectionId) -> _Half:
    """Read where an amplifier's pixels are in its extension and on the CCD."""
    found = {}
    for keyword in ("DATASEC", "CCDSEC", "NAXIS1"):
        card = find_card(cards, [keyword])
        if card is None:
            raise HeaderError(
                f"the card {keyword} of amplifier {name} is missing",
                cure="take the file again",
                section=section_id,
            )
        found[keyword] = card[1]
    data = parse_box(found["DATASEC"], "DATASEC")
    ccd, mirrored = parse_directed_box(found["CCDSEC"], "CCDSEC")
    if data.shape != ccd.shape:
        raise HeaderError(
            f"DATASEC = {found['DATASEC']} and CCDSEC = {found['CCDSEC']} of amplifier {name} differ in size",
            cure="correct the cards; binned files are not understood",
            section=section_id,
        )
    bias = find_card(cards, ["BIASSEC"])
    overscan = None if bias is None else parse_box(bias[1], "BIASSEC")
    return _Half(name, data, overscan, ccd, mirrored, int(found["NAXIS1"]), cards)


def _section_text(box: Box) -> str:
    return f"[{box.x0 + 1}:{box.x1},{box.y0 + 1}:{box.y1}]"
