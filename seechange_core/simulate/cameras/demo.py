"""DemoCam on the DemoScope: a mosaic of square sections of any number and size.

Files are plain FITS: a primary header, then ``SEC00``, ``SEC01``, ... each laid out along x as data of
A, overscan of A, overscan of B, data of B.
"""

from collections.abc import Iterator
from math import ceil, hypot, sqrt
from typing import TYPE_CHECKING, Any

from seechange_core.simulate.cameras.layout import CameraLayout, CcdLayout
from seechange_core.simulate.cameras.times import iso, utc_of

if TYPE_CHECKING:
    from seechange_core.simulate.camera import Camera
    from seechange_core.simulate.cameras import Frame, Unit
    from seechange_core.simulate.options import SurveyOptions

OVERSCAN_PIX = 24
FILE_KINDS = {"science": "sci", "bias": "bias", "dark": "dark", "flat": "flat", "twilight_flat": "flat"}
COMPRESSED = False


def section_ids(options: "SurveyOptions") -> list[int]:
    """Return 0, 1, 2, ..."""
    return list(range(options.sections))


def layout(options: "SurveyOptions") -> CameraLayout:
    """Return ceil(sqrt(N)) sections to a row, filled from the lower left."""
    size, pitch = options.section_size_pix, options.section_size_pix + options.gap_pix
    columns = ceil(sqrt(options.sections))
    rows = -(-options.sections // columns)
    ccds = []
    for number in section_ids(options):
        row, column = divmod(number, columns)
        centre = (column - (columns - 1) / 2) * pitch, (row - (rows - 1) / 2) * pitch
        ccds.append(CcdLayout(number, number, centre, ("A", "B")))
    extent = columns * pitch - options.gap_pix, rows * pitch - options.gap_pix
    half_diagonal = hypot(*extent) / 2
    return CameraLayout(
        name="demo",
        ccds=tuple(ccds),
        width=size,
        height=size,
        extent_pix=extent,
        half_diagonal_pix=half_diagonal,
        pixel_scale_arcsec=options.pixel_scale_arcsec,
        rotation_deg=0.0,
        parity=options.parity,
        # 4 pixels at 1500 pixels from the axis, as the cube of the distance.
        distortion_pix=4.0 * min(4.0, (half_diagonal / 1500.0) ** 3),
        columns=(("data", 0), ("overscan", OVERSCAN_PIX)),
        gain_e_adu=options.gain_e_adu,
        read_noise_e=options.read_noise_e,
        zero_points=dict.fromkeys("griz", 25.9),
        dark_sky=dict.fromkeys("griz", 20.9),
    )


def file_name(frame: "Frame") -> str:
    """Return ``demo_YYYYMMDD_HHMMSS_<sci|bias|dark|flat>.fits``, the time being the start."""
    return f"demo_{utc_of(frame.mjd_start):%Y%m%d_%H%M%S}_{FILE_KINDS[frame.kind]}.fits"


def primary_cards(camera: "Camera", frame: "Frame") -> dict[str, Any]:
    """Return the cards of the primary HDU."""
    options = camera.options
    return {
        "TELESCOP": "DemoScope",
        "INSTRUME": "DemoCam",
        "OBSTYPE": frame.kind,
        "DATE-OBS": iso(frame.mjd_start, "milliseconds"),
        "MJD-OBS": round(frame.mjd_start, 8),
        "EXPTIME": frame.exposure_time_s,
        "FILTER": options.band,
        "OBJECT": "demo-field" if frame.kind == "science" else frame.kind,
        "PROPID": "DEMO-2026A",
        "RA": round(frame.ra, 7),
        "DEC": round(frame.dec, 7),
        "AIRMASS": round(frame.airmass, 4),
        "SITELAT": options.site_latitude_deg,
        "SITELONG": options.site_longitude_deg,
        "SITEELEV": options.site_elevation_m,
        "NEXTEND": len(camera.sections),
    }


def units(camera: "Camera", frame: "Frame", section: int, raw: Any) -> Iterator["Unit"]:
    """Return the section's one extension."""
    yield raw, section_cards(camera, section)


def section_cards(camera: "Camera", section: int) -> dict[str, Any]:
    """Return the cards of a section: amplifiers, gains and where their pixels are (1-based)."""
    cards: dict[str, Any] = {"EXTNAME": f"SEC{section:02d}", "SECID": section}
    for amplifier, area in zip(camera.amplifiers(section), camera.raw_areas(section), strict=True):
        name = amplifier.name
        for keyword, box in zip(
            ("DATASEC", "BIASSEC", "CCDSEC"), (area.data, area.overscan, area.image), strict=True
        ):
            cards[f"{keyword}{name}"] = box.card()
        cards[f"GAIN{name}"] = amplifier.gain
        cards[f"RDNOISE{name}"] = amplifier.read_noise_e
        cards[f"SATURAT{name}"] = amplifier.saturation_adu
    return cards
