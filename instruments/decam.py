"""DECam on the Blanco 4-m telescope at Cerro Tololo: 62 CCDs of two amplifiers each, by name (N4, S29, ...).

Raw exposures (``c4d_YYMMDD_HHMMSS_ori.fits.fz``, and ``zri``, ``dri``, ``fri``, ... for calibrations) have
one extension per CCD, 2160 x 4146 pixels: the two amplifiers' data side by side between their overscans.
Which amplifier is where, its gain, noise and saturation come from the cards.

Exposures that the observatory's Community Pipeline has calibrated come as three files: image (``ooi``),
mask (``ood``) and weight (``oow``); they enter as already `Prepared`. Their pixels are still ADU, on a
scale that is the same for both amplifiers: the cards' two gains differ by what the flat has taken out, so
their mean holds for both. Their weight counts the photons of each pixel's own sources; here it becomes that
of the sky behind them. A mask's *difference detection* (a pixel unlike other exposures of the field) is
dropped: it may be the transient that is looked for. So are its satellite trails, which often are none, and
before version 4.8 its cosmic rays, which some runs mixed up with those; both are as the Legacy Surveys do it.
Early exposures in r lose 100 rows at a glowing edge. The pipeline subtracts no dark, and none is
asked for: it would have to come before the flat.

PROVISIONAL: SATURATA and SATURATB count from the zero level and are taken as raw levels, overscan included,
which flags a few per cent too early; the non-linearity limit is the observatory's advice for normal
observing; S7 A counts as defective at all times (since when is not published to the day), and N30 and S30
as dead between the dates in `_decam_layout`, good to a day; the bands that stand in for VR and the narrow
filters; products of pipelines before version 3.5 are read by their description, none was at hand.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instruments import _decam_layout as layout
from instruments import _decam_products as products
from seechange_core.errors import (
    HeaderError,
    PixelsError,
    SectionAbsent,
    SectionMissingError,
    SeeChangeError,
    UserError,
)
from seechange_core.flags import PixelFlag
from seechange_core.frames import Amplifier, Box, Prepared
from seechange_core.instrument import Instrument, Paths, SectionContext, SectionId, SensorSection, as_paths
from seechange_core.instrument.fits_reader import Unit, read_pixels
from seechange_core.instrument.header import Converter, as_number, as_text, find_card, parse_box
from seechange_core.numerics.timing import Site

#: Names of a calibrated exposure's files: what is common, which of the three, what follows.
_PRODUCT = re.compile(r"(?P<common>.*c4d_\d{6}_\d{6}_)oo(?P<role>[idw])(?P<rest>[_.].+)\Z")
_COLUMNS = re.compile(r"\[\s*(\d+)\s*:\s*(\d+)")
_ROLES = "idw"  # image, mask (data quality), weight
_BANDS = {"Y": "y", "VR": "r", "N964": "z", "N708": "r", "N673": "r", "N662": "r", "N540": "g", "N501": "g"}


class DECamInstrument(Instrument):
    """The Dark Energy Camera.

    Parameters
    ----------
    name
        What to call it.
    **properties
        Attributes of `Instrument` to set.
    """

    def __init__(self, name: str = "decam", **properties: Any) -> None:
        self.name = name
        self.telescope = "CTIO 4.0-m telescope"
        self.header_instrument = "DECam"
        self.site = Site(-30.16606, -70.81489, 2215.0)
        self.size_x, self.size_y = layout.SIZE_X, layout.SIZE_Y
        self.pixel_scale_arcsec = 0.263
        self.scale_tolerance = 0.01
        self.rotation_deg, self.rotation_tolerance_deg = 90.0, 1.0  # +y is east
        self.parity = -1  # +x is south
        self.pointing_radius_arcmin = 2.0
        self.gain = 4.0
        self.read_noise = 7.0
        self.saturation_limit = 44000.0
        self.non_linearity_limit = 22000.0
        super().__init__(**properties)

    # --- Sections -------------------------------------------------------------------------------

    def get_section_ids(self) -> Sequence[SectionId]:
        """Return N1 to N31 and S1 to S31."""
        return layout.names()

    def get_section_offsets(self, section_id: SectionId) -> tuple[float, float]:
        """Return where a CCD's centre looks: (x, y) pixels of the nominal scale, distortion folded in."""
        self.check_section_id(section_id)
        return layout.sky_offset_pix(str(section_id), float(self.pixel_scale_arcsec or layout.SCALE_ARCSEC))

    def _make_new_section(self, section_id: SectionId) -> SensorSection:
        self.check_section_id(section_id)
        number = layout.ccd_number(str(section_id))
        return SensorSection(section_id, self.name, identifier=f"CCDNUM {number}")

    def _make_section_at(self, section_id: SectionId, mjd: float) -> SensorSection:
        section = self._make_new_section(section_id)
        period = layout.DEAD.get(str(section_id))
        if period is None:
            return section
        if layout.dead_at(str(section_id), mjd):
            section.defective = True
            section.validity_start, section.validity_end = period.start, period.end
        elif mjd < period.start:
            section.validity_end = period.start
        else:
            section.validity_start = period.end
        return section

    # --- Files ----------------------------------------------------------------------------------

    def get_filename_regex(self) -> list[str]:
        """Return the patterns of raw and of calibrated files, and of raw ones as the camera names them."""
        return [r"(^|/)c4d_\d{6}_\d{6}_([a-z]ri|oo[idw])[_.]", r"(^|/)DECam_\d{8}\.fits"]

    def group_files(self, path: Path) -> tuple[str, list[str]] | None:
        """Find image, mask and weight of a calibrated exposure, whichever of them is given."""
        match = _PRODUCT.match(path.name)
        if match is None:
            return None
        common, rest = match["common"], match["rest"]
        here = [r for r in _ROLES if path.with_name(f"{common}oo{r}{rest}").is_file()]
        if "i" not in here:
            raise UserError(
                f"its image {common}ooi{rest} is not beside it",
                cure="put mask and weight into the image's folder",
                file=str(path),
            )
        return (common, [f"oo{r}{rest}" for r in here]) if len(here) > 1 else None

    def _place(self, filepath: Paths, section_id: SectionId) -> tuple[Path, Unit]:
        self.check_section_id(section_id)
        return as_paths(filepath)[0], str(section_id)

    def _places(self, filepath: Paths, section_id: SectionId) -> list[tuple[Path, Unit]]:
        self.check_section_id(section_id)
        return [(path, str(section_id)) for path in as_paths(filepath)]

    def find_unreadable_sections(self, filepath: Paths) -> dict[SectionId, SeeChangeError]:
        """Return the sections that cannot be read; a CCD that was dead then is not missed."""
        bad = super().find_unreadable_sections(filepath)
        found = self.extract_header_info(self.read_header(filepath), ["mjd"])
        if "mjd" not in found or len(bad) == len(self.get_section_ids()):
            return bad
        mjd = as_number(found["mjd"], "mjd")
        return {
            section_id: error
            for section_id, error in bad.items()
            if not (
                isinstance(error, SectionMissingError | SectionAbsent)
                and layout.dead_at(str(section_id), mjd)
            )
        }

    # --- Headers --------------------------------------------------------------------------------

    def get_auxiliary_exposure_header_keys(self) -> list[str]:
        """Return number, id, processing, dark time and the filter's whole name."""
        return ["expnum", "obsid", "proctype", "prodtype", "plver", "filter_name", "dark_time"]

    def _get_header_keyword_translations(self) -> dict[str, Sequence[str]]:
        own = {"filter_name": ("FILTER",), "dark_time": ("DARKTIME",)}
        return {**super()._get_header_keyword_translations(), **own}

    def _get_header_values_converters(self) -> dict[str, Converter]:
        return {
            "filter": lambda name: as_text(name).split()[0],  # 'g DECam SDSS c0001 4720.0 1520.0'
            # The card calls it east longitude and gives the western one.
            "longitude_deg": lambda degrees: -abs(float(degrees)),
        }

    def _get_image_types(self) -> dict[str, str]:
        return {**super()._get_image_types(), "standard": "science"}

    def band_of(self, filter_name: str) -> str:
        """Return the catalog band of a filter; the nearest one for those that no catalog has."""
        return _BANDS.get(filter_name, filter_name)

    # --- Amplifiers -----------------------------------------------------------------------------

    def _get_amplifiers(self, context: SectionContext) -> tuple[Amplifier, ...]:
        if products.is_calibrated(context.cards, context.section_id):
            return products.amplifiers(context, [self._amplifier_of_product(context, n) for n in "AB"])
        if find_card(context.cards, ["DATASECA"]) is None:
            raise HeaderError(
                "the card DATASECA is missing",
                cure="give raw files, or the ooi, ood and oow of the Community Pipeline",
                section=context.section_id,
            )
        boxes = {n: [_box(context, f"{k}{n}") for k in ("DATASEC", "BIASSEC", "CCDSEC")] for n in "AB"}
        # A window of a CCD is an image of its own.
        y0, x0 = (min(ccd[axis] for *_, ccd in boxes.values()) for axis in (0, 2))
        return tuple(
            self._amplifier(
                context,
                name,
                data,
                overscan,
                Box(ccd.y0 - y0, ccd.y1 - y0, ccd.x0 - x0, ccd.x1 - x0),
                mirrored=_is_mirrored(context, name, data),
                defective=_is_defective(context, name),
            )
            for name, (data, overscan, ccd) in boxes.items()
        )

    def _amplifier_of_product(self, context: SectionContext, name: str) -> Amplifier:
        """Describe an amplifier of a calibrated section by its cards; its place is still to be found."""
        whole = Box(0, context.shape[0], 0, context.shape[1])
        return self._amplifier(context, name, whole, None, whole, defective=_is_defective(context, name))

    # --- Calibrated products --------------------------------------------------------------------

    def _read_prepared(self, filepath: Paths, context: SectionContext) -> Prepared | None:
        if not products.is_calibrated(context.cards, context.section_id):
            return None
        planes = {}
        for path in as_paths(filepath)[1:]:
            match = _PRODUCT.match(path.name)
            if match is None or match["role"] not in "dw":
                raise UserError(
                    "it is neither mask (ood) nor weight (oow)",
                    cure="list the files as group_files does",
                    file=str(path),
                )
            plane = read_pixels(path, str(context.section_id))
            if plane.shape != context.shape:
                raise PixelsError(
                    f"it has {plane.shape} pixels where the image has {context.shape}",
                    cure="download the three files again, of one and the same processing",
                    file=str(path),
                    section=context.section_id,
                )
            planes[match["role"]] = plane
        flags = products.read_mask(planes["d"], context.cards) if "d" in planes else None
        glowing = products.glowing_rows(context)
        if glowing is not None:
            flags = np.zeros(context.shape, np.uint16) if flags is None else flags
            flags[glowing] |= np.uint16(PixelFlag.BAD_PIXEL)
        weight = None
        if "w" in planes:
            boxes = [a.image for a in self._get_amplifiers(context)]
            weight = products.background_weight(planes["w"], flags, boxes)
        return Prepared(products.steps_done(context.cards), weight, flags)


def _box(context: SectionContext, keyword: str) -> Box:
    card = find_card(context.cards, [keyword])
    if card is None:
        raise HeaderError(
            f"the card {keyword} is missing", cure="take the file again", section=context.section_id
        )
    return parse_box(card[1], keyword)


def _is_mirrored(context: SectionContext, name: str, data: Box) -> bool:
    """Tell whether an amplifier reads its rows from their right end: AMPSEC is written in that order."""
    card = find_card(context.cards, [f"AMPSEC{name}"])
    match = _COLUMNS.match(as_text(card[1])) if card is not None else None
    if match is None:
        return data.x0 >= context.shape[1] // 2
    return int(match[1]) > int(match[2])


def _is_defective(context: SectionContext, name: str) -> bool:
    card = find_card(context.cards, [f"VALID{name}"])
    return (card is not None and card[1] is False) or (context.section_id, name) in layout.UNSTABLE_AMPLIFIERS
