"""PTF and ZTF: images of one CCD or quadrant each, already detrended, from the 48-inch at Palomar.

PTF, as it is; ZTF, and both side by side, from the settings::

    instruments:
      ptf: {}
      ztf: {kind: ptf, survey: ztf}

Each file is an exposure of its own with one section. Its zero level is off and it is flat-fielded; it is in
DN, with GAIN and READNOI for what follows; no dark was taken off, because none is needed, and none is asked
for: it would have to come before the flat. The mask that is published with it (``_mask_`` or ``mskimg`` in
place of ``_scie_`` or ``sciimg``) belongs to it if it lies beside it; without it, a mask of our own is asked
for, unless ``parameters: {preprocess: {do_bad_pixels: false}}``. Sources: Laher et al. 2014
(arXiv:1404.1953), Masci et al. 2019 (arXiv:1902.01872) and the archives' pages.

PROVISIONAL: gain, noise and saturation for files that do not state theirs; how the images lie on the sky is
not assumed, though the options can say it. Ghosts, halos and dirt in the masks are not flagged here.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seechange_core.errors import HeaderError, PixelsError, SeeChangeError, UserError
from seechange_core.flags import CalibrationStep, PixelFlag
from seechange_core.frames import Cards, Flags, Prepared
from seechange_core.instrument import Instrument, Paths, SectionContext, SectionId, SensorSection, as_paths
from seechange_core.instrument.facts import ExposureFacts
from seechange_core.instrument.fits_reader import Unit, check_unit, list_units, read_pixels
from seechange_core.instrument.header import as_number, as_text, find_card
from seechange_core.instrument.times import read_clock, read_moment, read_time_scale
from seechange_core.numerics import sky
from seechange_core.numerics.timing import Site, clock_to_mjd, mid_mjd
from seechange_core.params import Params, param

_SECTION_ID = 0
#: Names of the science images; in the mask's, another word stands for the group.
_NAMES = {
    "ptf": re.compile(r"(?:^|/)PTF_\d{12}_i_p_(scie)_.*_c\d{2}\.fits(?:\.gz|\.fz)?$"),
    "ztf": re.compile(r"(?:^|/)ztf_\d{14}_\d{6}_z[gri]_c\d{2}_[a-z]_q[1-4]_(sciimg)\.fits(?:\.gz|\.fz)?$"),
}
_MASKS = {"ptf": ("scie", "mask"), "ztf": ("sciimg", "mskimg")}
#: Bits of the surveys' masks and what they are here.
_BITS = {
    "ptf": {
        0: PixelFlag.STREAK,
        2: PixelFlag.BAD_PIXEL,  # high dark current
        4: PixelFlag.BAD_PIXEL,  # noisy or hot
        6: PixelFlag.BLEED,
        7: PixelFlag.COSMIC_RAY,
        8: PixelFlag.SATURATED,
        9: PixelFlag.BAD_PIXEL,  # dead
        10: PixelFlag.NO_DATA,
    },
    "ztf": {
        0: PixelFlag.STREAK,
        2: PixelFlag.BAD_PIXEL,  # low responsivity
        3: PixelFlag.BAD_PIXEL,  # high responsivity
        4: PixelFlag.BAD_PIXEL,  # noisy
        7: PixelFlag.COSMIC_RAY,
        8: PixelFlag.SATURATED,
        9: PixelFlag.BAD_PIXEL,  # dead
        10: PixelFlag.NO_DATA,
    },
}


class PTFOptions(Params):
    """What the settings can say, under ``instruments: {NAME: {kind: ptf, ...}}``."""

    survey: Literal["ptf", "ztf"] = param("ptf", "Whose files and conventions")
    rotation_deg: float | None = param(
        None, "Position angle of +y, north through east; none: unknown", unit="deg"
    )
    parity: Literal[1, -1] | None = param(None, "1: east left of north; -1: mirrored; none: unknown")


class PTFInstrument(Instrument):
    """Either survey's camera, one CCD or quadrant at a time.

    Parameters
    ----------
    name
        What to call it.
    **options
        Fields of `PTFOptions`.
    """

    def __init__(self, name: str = "ptf", **options: object) -> None:
        o = self.options = PTFOptions.checked(dict(options), f"instruments.{name}")
        self.name = name
        self.telescope = "Palomar 48-inch"
        self.header_instrument = {"ptf": "PTF/MOSAIC", "ztf": "ZTF/MOSAIC"}[o.survey]
        self.site = Site(33.3483, -116.8597, 1706.0)
        self.pixel_scale_arcsec = 1.01
        self.rotation_deg, self.parity = o.rotation_deg, o.parity
        self.pointing_radius_arcmin = 3.0
        # For files that do not say.
        self.gain, self.read_noise = {"ptf": (1.7, 5.1), "ztf": (6.2, 10.0)}[o.survey]
        self.saturation_limit = {"ptf": 50000.0, "ztf": 55000.0}[o.survey]
        self.size_x, self.size_y = {"ptf": (2048, 4096), "ztf": (3072, 3080)}[o.survey]
        super().__init__()

    def get_section_ids(self) -> list[SectionId]:
        """Return its one section, 0."""
        return [_SECTION_ID]

    def _make_new_section(self, section_id: SectionId) -> SensorSection:
        self.check_section_id(section_id)
        return SensorSection(section_id, self.name)

    def band_of(self, filter_name: str) -> str:
        """Return the catalog band of a filter: Mould R is calibrated with r."""
        return {"R": "r"}.get(filter_name, filter_name)

    # --- Recognising its files ------------------------------------------------------------------

    def get_filename_regex(self) -> list[str]:
        """Return the pattern of the names of images and masks."""
        image, mask = _MASKS[self.options.survey]
        return [_NAMES[self.options.survey].pattern.replace(f"({image})", f"({image}|{mask})")]

    def group_files(self, path: Path) -> tuple[str, list[str]] | None:
        """Tell whether a science image has its mask beside it; given either of the two."""
        image, mask = _MASKS[self.options.survey]
        pattern = _NAMES[self.options.survey]
        if pattern.search(path.name) is None:
            science = _renamed(path.name, mask, image)
            if pattern.search(science) is None:
                return None
            if not (path.parent / science).is_file():
                raise UserError(
                    f"it is a mask, and its image {science} is not beside it",
                    cure="put both into one folder",
                    file=str(path),
                )
            return self.group_files(path.parent / science)
        companion = _renamed(path.name, image, mask)
        if not (path.parent / companion).is_file():
            return None
        start = pattern.search(path.name).start(1)  # type: ignore[union-attr]
        return path.name[:start], [path.name[start:], companion[start:]]

    # --- Headers --------------------------------------------------------------------------------

    def _place(self, filepath: Paths, section_id: SectionId) -> tuple[Path, Unit]:
        self.check_section_id(section_id)
        return as_paths(filepath)[0], None

    def read_header(self, filepath: Paths) -> dict[str, Any]:
        """Read the header of the unit with the image, over the primary one's."""
        return {**super().read_header(filepath), **self.read_section_header(filepath, _SECTION_ID)}

    def get_auxiliary_exposure_header_keys(self) -> list[str]:
        """Return what tells the survey's fields, CCDs and quadrants apart."""
        return ["field_id", "ccd_id", "quadrant_id"]

    def _get_header_keyword_translations(self) -> dict[str, Sequence[str]]:
        return {
            **super()._get_header_keyword_translations(),
            "mjd": ("OBSMJD",),
            "date_obs": ("SHUTOPEN", "UTC-OBS"),
            "exp_time": ("AEXPTIME", "EXPTIME", "EXPOSURE"),
            "type": ("IMGTYP", "IMGTYPE", "IMAGETYP"),
            "project": ("PTFPID", "PROGRMID"),
            "target": ("PTFFIELD", "FIELDID"),
            "read_noise": ("READNOI",),
            "saturation_limit": ("SATURVAL", "SATURATE"),
            "field_id": ("PTFFIELD", "FIELDID"),
            "ccd_id": ("CCDID", "CCD_ID"),
            "quadrant_id": ("QID",),
        }

    def _get_header_values_converters(self) -> dict[str, Any]:
        return {"filter": lambda name: re.sub(r"^ZTF[_ ]", "", as_text(name))}

    def _read_times(self, cards: Cards, found: Mapping[str, Any], exp_time: float) -> tuple[float, float]:
        """Return start and middle; the shutter's own time has milliseconds, OBSMJD may not."""
        if "date_obs" not in found:
            return super()._read_times(cards, found, exp_time)
        scale = read_time_scale(cards)
        start = read_clock(as_text(found["date_obs"]), "date_obs", scale)
        mjd = as_number(found["mjd"], "OBSMJD") if "mjd" in found else None
        other = start if mjd is None else read_moment(lambda: clock_to_mjd(mjd, scale))
        if abs(start - other) * 86400.0 > max(exp_time, 5.0):
            raise HeaderError(
                f"the shutter opened at {found['date_obs']}, and OBSMJD = {found['mjd']} is another time",
                cure="correct the cards",
            )
        return start, mid_mjd(start, exp_time)

    def read_facts(self, cards: Cards, extra: Sequence[str] = ()) -> ExposureFacts:
        """Read what an Exposure keeps of its header; it points where the image's centre does."""
        return super().read_facts({**cards, **_center(cards)}, extra)

    # --- Pixels ---------------------------------------------------------------------------------

    def find_unreadable_sections(self, filepath: Paths) -> dict[SectionId, SeeChangeError]:
        """Return the one section with the reason if image or mask cannot be read."""
        bad = super().find_unreadable_sections(filepath)
        for path in as_paths(filepath)[1:]:
            try:
                check_unit(list_units(path), None, path)
            except SeeChangeError as error:
                bad.setdefault(_SECTION_ID, error)
        return bad

    def _read_prepared(self, filepath: Paths, context: SectionContext) -> Prepared:
        steps = CalibrationStep.OVERSCAN | CalibrationStep.BIAS | CalibrationStep.FLAT
        paths = as_paths(filepath)
        if len(paths) < 2:
            return Prepared(int(steps))
        mask = read_pixels(paths[1])
        if mask.shape != context.shape or mask.dtype.kind not in "ui":
            raise PixelsError(
                f"the mask is {mask.shape} {mask.dtype}, the image {context.shape}",
                cure="give the mask that belongs to the image",
                file=str(paths[1]),
            )
        flags = _translate(mask, _BITS[self.options.survey])
        return Prepared(int(steps | CalibrationStep.BAD_PIXELS), flags=flags)


def _renamed(name: str, old: str, new: str) -> str:
    """Exchange the part of a name that says image or mask."""
    return re.sub(rf"_{old}(?=[_.])", f"_{new}", name)


def _translate(mask: npt.NDArray[Any], bits: Mapping[int, PixelFlag]) -> Flags:
    """Turn a survey's mask into `PixelFlag` bits."""
    codes = np.arange(1 << 16, dtype=np.uint32)
    table = np.zeros(codes.size, np.uint16)
    for bit, flag in bits.items():
        table |= np.where(codes & (1 << bit), np.uint16(flag), np.uint16(0))
    return table[mask.astype(np.uint16)]


def _center(cards: Cards) -> dict[str, float]:
    """Return RA and DEC of the image's centre by the linear part of its WCS; empty if it has none.

    The telescope's own RA and DEC are those of the whole mosaic. Distortions (the files have them in one
    or two ways) move the centre by seconds of arc, which does not matter here.
    """
    names = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "NAXIS1", "NAXIS2")
    found = {name: find_card(cards, [name]) for name in names}
    matrix = [find_card(cards, [f"CD{i}_{j}"]) for i in (1, 2) for j in (1, 2)]
    if any(card is None for card in (*found.values(), *matrix[:1], *matrix[3:])):
        return {}
    v = {name: as_number(card[1], name) for name, card in found.items() if card is not None}
    cd = [0.0 if card is None else as_number(card[1], card[0]) for card in matrix]
    x, y = (v["NAXIS1"] + 1) / 2 - v["CRPIX1"], (v["NAXIS2"] + 1) / 2 - v["CRPIX2"]
    ra, dec = sky.deproject(cd[0] * x + cd[1] * y, cd[2] * x + cd[3] * y, v["CRVAL1"], v["CRVAL2"])
    return {"RA": float(ra) % 360.0, "DEC": float(dec)}
