"""LS4 on the ESO 1.0-m Schmidt telescope: 32 CCDs of 2048 x 4096 in four quadrants under a filter array.

Published (arXiv:2503.14579): 32 fully depleted CCDs, some 20 square degrees at 1 arcsec a pixel, two
quadrants under i, one under g and one under z. From public code of the survey: the names of the CCDs and
which quadrant has which filter, the cards CCD_LOC, AMP_NAME, STARTOBS, IMAGETYP, TELE-RA (hours) and
TELE-DEC, how files are named, that the amplifier called LEFT reads the half at high x, and measured centres
of the CCDs, of which the grid here (2236 by 4247 pixels at 1.0177 arcsec, y to the north, x to the east) is
the mean.

Provisional, to be corrected when files can be seen: that each amplifier is an extension in its order of
read-out; the widths of prescan and overscan; gains, noise and saturation; the letters for bias and dome
flat in names and their IMAGETYP; the cards not named above; the boresight, here in the middle of the
mosaic; no distortion is known, 8 pixels at the corner are assumed, and stars of 1.8 arcsec without seeing.
"""

from collections.abc import Iterator
from math import hypot
from typing import TYPE_CHECKING, Any

import numpy as np

from seechange_core.simulate.cameras.layout import CameraLayout, CcdLayout
from seechange_core.simulate.cameras.times import iso, utc_of

if TYPE_CHECKING:
    from seechange_core.simulate.camera import Camera
    from seechange_core.simulate.cameras import Frame, Unit
    from seechange_core.simulate.options import SurveyOptions

WIDTH, HEIGHT = 2048, 4096
PITCH_X, PITCH_Y = 2236.0, 4247.0
#: The mosaic from the north, rows from the west.
GRID = (
    "NE_H NE_G NE_F NE_E NW_D NW_C NW_B NW_A",
    "NE_D NE_C NE_B NE_A NW_H NW_G NW_F NW_E",
    "SE_H SE_G SE_F SE_E SW_D SW_C SW_B SW_A",
    "SE_D SE_C SE_B SE_A SW_H SW_G SW_F SW_E",
)
QUADRANTS = ("NE", "NW", "SE", "SW")
FILTERS = ("i", "z", "g", "i")
FILE_KINDS = {"science": "s", "bias": "b", "dark": "d", "flat": "f", "twilight_flat": "e"}
IMAGE_TYPES = {
    "science": "sky", "bias": "bias", "dark": "dark", "flat": "domeflat", "twilight_flat": "pmskyflat",
}  # fmt: skip
COMPRESSED = True


def section_ids(_options: "SurveyOptions") -> list[str]:
    """Return the CCDs' names, quadrant by quadrant."""
    return [f"{quadrant}_{letter}" for quadrant in QUADRANTS for letter in "ABCDEFGH"]


def layout(options: "SurveyOptions") -> CameraLayout:
    """Return the mosaic: four rows of eight."""
    places = {name: (c, r) for r, row in enumerate(GRID) for c, name in enumerate(row.split())}
    ccds = []
    for number, section in enumerate(section_ids(options)):
        column, row = places[section]
        centre = (column - 3.5) * PITCH_X, (1.5 - row) * PITCH_Y
        index = QUADRANTS.index(section[:2])
        ccds.append(CcdLayout(section, number, centre, ("RIGHT", "LEFT"), filter_index=index))
    extent = 7 * PITCH_X + WIDTH, 3 * PITCH_Y + HEIGHT
    return CameraLayout(
        name="ls4",
        ccds=tuple(ccds),
        width=WIDTH,
        height=HEIGHT,
        extent_pix=extent,
        half_diagonal_pix=hypot(*extent) / 2,
        pixel_scale_arcsec=1.0177,
        rotation_deg=0.0,
        parity=-1,
        distortion_pix=8.0,
        columns=(("prescan", 6), ("data", 0), ("overscan", 50)),
        faint_mag=22.5,
        blur_arcsec=1.8,
        filters=FILTERS,
        gain_e_adu=2.2,
        gain_spread=0.1,
        read_noise_e=7.0,
        saturation_adu=55_000,
        saturation_spread=0.05,
        bias_adu=(1500.0, 1700.0),
        bias_spread_adu=100.0,
        nonlinearity_spread=0.5,
        zero_points={"g": 23.2, "r": 23.3, "i": 23.2, "z": 22.9},
        dark_sky={"g": 22.0, "r": 20.9, "i": 20.0, "z": 18.7},
    )


def file_name(frame: "Frame") -> str:
    """Return ``YYYYMMDDHHMMSSs_NNNNN.fits.fz``: the start, s sky, b bias, d dark, f dome, e evening flat."""
    return f"{utc_of(frame.mjd_start):%Y%m%d%H%M%S}{FILE_KINDS[frame.kind]}_{frame.number:05d}.fits.fz"


def primary_cards(camera: "Camera", frame: "Frame") -> dict[str, Any]:
    """Return the cards of the primary HDU."""
    return {
        "TELESCOP": "ESO 1.0-m Schmidt", "INSTRUME": "LS4Cam", "OBSERVAT": "La Silla",
        "STARTOBS": iso(frame.mjd_start, "milliseconds"), "DATE-OBS": iso(frame.mjd_start, "milliseconds"),
        "MJD-OBS": round(frame.mjd_start, 8), "TIMESYS": "UTC", "EXPTIME": frame.exposure_time_s,
        "IMAGETYP": IMAGE_TYPES[frame.kind], "TELE-RA": round(frame.ra / 15, 8),
        "TELE-DEC": round(frame.dec, 7), "EQUINOX": 2000.0, "PROJECT": "LS4",
        "TARGETID": "simulated field" if frame.kind == "science" else IMAGE_TYPES[frame.kind],
        "FILTERID": "0", "FILTERS": ",".join(FILTERS), "AIRMASS": round(frame.airmass, 4),
        "NEXTEND": 2 * len(camera.sections),
    }  # fmt: skip


def section_cards(camera: "Camera", section: str) -> dict[str, Any]:
    """Return the cards of a section that both its extensions share."""
    ccd = camera.ccd(section)
    width, height = camera.layout.width, camera.layout.height
    return {
        "CCD_LOC": section, "CCDNUM": ccd.number + 1, "AMP_DIR": "both",
        "FILTER": FILTERS[ccd.filter_index], "FILTERID": "0", "BUNIT": "adu",
        "CCDSIZE": f"[1:{width},1:{height}]",
        "DETSIZE": "[1:{:.0f},1:{:.0f}]".format(*camera.layout.extent_pix), "CCDBIN1": 1, "CCDBIN2": 1,
    }  # fmt: skip


def units(camera: "Camera", frame: "Frame", section: str, raw: Any) -> Iterator["Unit"]:
    """Cut the raw array in two: an extension per amplifier, pixels in the order in which they were read."""
    del frame
    areas = camera.raw_areas(section)
    for side, (amplifier, area) in enumerate(zip(camera.amplifiers(section), areas, strict=True)):
        stored = raw[area.block.slices]
        # The right-hand half is the mirror image of the left-hand one: so are the boxes.
        boxes = areas[0]
        image = area.image.moved(*camera.window_origin)
        yield (
            np.ascontiguousarray(stored[:, ::-1] if side == 1 else stored),
            {
                "EXTNAME": f"{section}_{amplifier.name}",
                **section_cards(camera, section),
                "AMP_NAME": amplifier.name,
                "GAIN": amplifier.gain,
                "RDNOISE": amplifier.read_noise_e,
                "SATURATE": float(amplifier.saturation_adu),
                "DATASEC": boxes.data.card(),
                "BIASSEC": boxes.overscan.card(),
                "PRESEC": boxes.prescan.card() if boxes.prescan else "",
                "CCDSEC": image.card(flip_x=side == 1),
            },
        )
