"""DECam on the Blanco 4-m telescope: 62 CCDs of 2048 x 4096, as its raw exposures show them.

Known from headers of raw and calibrated exposures (one of 2013 with all extensions, and those of
2013 to 2017): the names and numbers of the CCDs, the order of the extensions, every box of both
amplifiers (amplifier A reads the left half of the N CCDs and the right half of the S CCDs; the S CCDs are
read from their last row, so that the rows beyond lie below the image, not above it as in the N CCDs), the
pitch of the mosaic from CRPIX (2254.4 pixels along x, 4259.33 along y), that x runs south and y east, the
names and the spelling of the cards, and how files are named. The pixel scale, 0.2626 arcsec, is the mean
that measured places of the CCDs' centres give over that pitch.

Assumed: gains, read noise and saturation are drawn within the spread that the CCDs show (4.0 e-/ADU, 6 e-,
46,000 ADU), not each CCD's own; CCDs are not rotated against each other; the optics shrink the corners by
20 pixels, radially; CRPIX counts trimmed pixels. The cards of the guider, the hexapod and the weather are
left out, and the eight focus CCDs.
"""

from collections.abc import Iterator
from math import asin, degrees, hypot
from typing import TYPE_CHECKING, Any

from seechange_core.simulate.cameras.layout import Area, CameraLayout, CcdLayout
from seechange_core.simulate.cameras.times import iso, sexagesimal, utc_of

if TYPE_CHECKING:
    from seechange_core.simulate.camera import Camera
    from seechange_core.simulate.cameras import Frame, Unit
    from seechange_core.simulate.options import SurveyOptions

WIDTH, HEIGHT = 2048, 4096
PITCH_X, PITCH_Y = 2254.4, 4259.33
#: CCDs in the rows of the mosaic, from the middle outwards.
ROWS = (7, 6, 6, 5, 4, 3)
#: Extensions come in this order: three backplanes of read-out electronics.
_ORDER = (
    "S1 S2 S3 N1 N2 N3 S8 S9 S14 S15 S20 S25 N8 N9 N14 N15 N20 N25 "
    "S10 S11 S12 S13 S18 S19 S16 S17 S21 S22 S23 S24 S26 S27 S28 S29 S30 S31 "
    "N4 N5 N6 N7 S4 S5 S6 S7 N10 N11 N12 N13 N18 N19 N16 N17 N21 N22 N23 N24 N26 N27 N28 N29 N30 N31"
)
ORDER = tuple(_ORDER.split())
BACKPLANES = ((18, "DECAM_BKP1"), (36, "DECAM_BKP3"), (62, "DECAM_BKP4"))
DETSIZE = "[1:29400,1:29050]"
#: From the row of the mosaic where CCD coordinates begin to that of the left amplifier's DETSEC.
DETECTOR_X, DETECTOR_Y = 14336, 12288

FILTERS = {
    "g": "g DECam SDSS c0001 4720.0 1520.0",
    "r": "r DECam SDSS c0002 6415.0 1480.0",
    "i": "i DECam SDSS c0003 7835.0 1470.0",
    "z": "z DECam SDSS c0004 9260.0 1520.0",
}
FILE_KINDS = {"science": "o", "bias": "z", "dark": "d", "flat": "f", "twilight_flat": "s"}
OBSTYPES = {
    "science": "object", "bias": "zero", "dark": "dark", "flat": "dome flat", "twilight_flat": "sky flat",
}  # fmt: skip
#: Files are named after the moment they are handed over, this long after the exposure.
HANDOVER_S = 48.0
COMPRESSED = True


def section_ids(_options: "SurveyOptions") -> list[str]:
    """Return the CCDs' names in the order of the extensions."""
    return list(ORDER)


def ccd_number(section: str) -> int:
    """Return CCDNUM, 1 to 62: from the farthest row of the S half to that of the N half."""
    index = int(section[1:])
    if section[0] == "N":
        return 31 + index
    first = 1
    for row, count in enumerate(ROWS):
        if first <= index < first + count:
            return sum(ROWS[row + 1 :]) + index - first + 1
        first += count
    raise ValueError(f"DECam has no CCD {section}")


def place(section: str) -> tuple[float, float]:
    """Return a CCD's row and column: half rows of CCDs south of the boresight, and CCDs east of it."""
    index = int(section[1:])
    for row, count in enumerate(ROWS):
        if index <= count:
            south = row + 0.5 if section[0] == "N" else -row - 0.5
            return south, index - 1 - (count - 1) / 2
        index -= count
    raise ValueError(f"DECam has no CCD {section}")


def layout(_options: "SurveyOptions") -> CameraLayout:
    """Return the mosaic: six rows of CCDs north and six south of the boresight."""
    ccds = []
    for number, section in enumerate(ORDER):
        south, east = place(section)
        north_half = section[0] == "S"  # the S CCDs look at the northern half of the field
        names = ("B", "A") if north_half else ("A", "B")
        centre = (south * PITCH_X, east * PITCH_Y)
        ccds.append(CcdLayout(section, number, centre, names, reads_from_top=north_half))
    corners = [(abs(c.centre[0]) + WIDTH / 2, abs(c.centre[1]) + HEIGHT / 2) for c in ccds]
    return CameraLayout(
        name="decam",
        ccds=tuple(ccds),
        width=WIDTH,
        height=HEIGHT,
        extent_pix=(2 * max(x for x, _ in corners), 2 * max(y for _, y in corners)),
        half_diagonal_pix=max(hypot(x, y) for x, y in corners),
        pixel_scale_arcsec=0.2626,
        rotation_deg=90.0,
        parity=-1,
        distortion_pix=-20.0,
        columns=(("prescan", 6), ("overscan", 50), ("data", 0)),
        postscan_rows=50,
        gain_e_adu=4.0,
        gain_spread=0.07,
        read_noise_e=6.0,
        saturation_adu=46_000,
        saturation_spread=0.1,
        bias_adu=(2100.0, 2250.0),
        bias_spread_adu=150.0,
        nonlinearity_spread=0.5,
        zero_points={"g": 26.6, "r": 26.8, "i": 26.75, "z": 26.5},
        dark_sky={"g": 22.0, "r": 20.9, "i": 20.0, "z": 18.7},
    )


def file_name(frame: "Frame") -> str:
    """Return ``c4d_YYMMDD_HHMMSS_ori.fits.fz`` and the like: o object, z zero, d dark, f dome, s sky flat."""
    handed_over = frame.mjd_start + (frame.exposure_time_s + HANDOVER_S) / 86400
    return f"c4d_{utc_of(handed_over):%y%m%d_%H%M%S}_{FILE_KINDS[frame.kind]}ri.fits.fz"


def primary_cards(camera: "Camera", frame: "Frame") -> dict[str, Any]:
    """Return the cards of the primary HDU."""
    start = utc_of(frame.mjd_start)
    end = frame.mjd_start + frame.exposure_time_s / 86400
    exposed = frame.kind not in ("bias", "dark")
    name = f"DECam_{1_000_000 + frame.number:08d}"
    ra, dec = sexagesimal(frame.ra / 15), sexagesimal(frame.dec)
    open_s = frame.exposure_time_s if exposed else 0.0
    return {
        "NEXTEND": len(camera.sections), "PROCTYPE": "RAW", "PRODTYPE": "image", "DETSIZE": DETSIZE,
        "PIXSCAL1": 0.27, "PIXSCAL2": 0.27, "FILENAME": f"{name}.fits",
        "OBS-LONG": 70.81489, "TELESCOP": "CTIO 4.0-m telescope", "OBSERVAT": "CTIO", "OBS-LAT": -30.16606,
        "OBS-ELEV": 2215.0, "INSTRUME": "DECam",
        "EXPREQ": frame.exposure_time_s, "EXPTIME": frame.exposure_time_s,
        "DARKTIME": round(frame.exposure_time_s + 0.9, 7),
        "OBSID": f"ct4m{start:%Y%m%dt%H%M%S}",
        "DATE-OBS": iso(frame.mjd_start), "TIME-OBS": iso(frame.mjd_start)[11:],
        "MJD-OBS": round(frame.mjd_start, 8), "MJD-END": round(end, 9), "OPENSHUT": iso(frame.mjd_start),
        "TIMESYS": "UTC", "EXPNUM": 1_000_000 + frame.number,
        "OBJECT": "simulated field" if frame.kind == "science" else OBSTYPES[frame.kind],
        "OBSTYPE": OBSTYPES[frame.kind], "CAMSHUT": "Open" if open_s else "Closed",
        "PROGRAM": "Simulated survey", "OBSERVER": "SeeChange", "PROPOSER": "SeeChange", "DTPI": "SeeChange",
        "PROPID": "2026A-0001", "EXCLUDED": "", "SEQID": "", "SEQNUM": 1, "SEQTOT": 1, "AOS": True,
        "BCAM": False, "GUIDER": 1, "SKYSTAT": True,
        "FILTER": FILTERS[camera.options.band], "FILTPOS": "cassette_1",
        "INSTANCE": f"DECam_{start:%Y%m%d}", "ERRORS": "None", "TELEQUIN": 2000.0, "TELSTAT": "Track",
        "RADESYS": "FK5", "EQUINOX": 2000.0, "RA": ra, "DEC": dec, "TELRA": ra, "TELDEC": dec,
        "ZD": round(90 - degrees(asin(min(1.0, 1 / frame.airmass))), 2),
        "AIRMASS": round(frame.airmass, 2), "HDRVER": "13",
        "DTSITE": "ct", "DTTELESC": "ct4m", "DTINSTRU": "decam", "DTPROPID": "2026A-0001",
        "DTCALDAT": iso(frame.mjd_start - 0.75)[:10],
        "DTUTC": iso(end + HANDOVER_S / 86400, "seconds"), "DTOBSERV": "NOAO",
        "DTACQNAM": f"/data_local/images/DTS/2026A-0001/{name}.fits.fz",
        "DTNSANAM": file_name(frame),
    }  # fmt: skip


def units(camera: "Camera", frame: "Frame", section: str, raw: Any) -> Iterator["Unit"]:
    """Return the section's one extension."""
    x, y = camera.section_offset(section)
    pointing = {"CRVAL1": round(frame.ra, 6), "CRVAL2": round(frame.dec, 6)}
    reference = {"CRPIX1": round(camera.width / 2 - x, 4), "CRPIX2": round(camera.height / 2 - y, 4)}
    yield raw, {**section_cards(camera, section), **reference, **_sky_cards(), **pointing}


def _sky_cards() -> dict[str, Any]:
    """Return the nominal world coordinates that are the same for all CCDs: x to the south, y to the east."""
    scale = 0.2626 / 3600
    cards: dict[str, Any] = {
        "WCSAXES": 2, "RADESYS": "FK5", "EQUINOX": 2000.0, "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV",
        "CUNIT1": "deg", "CUNIT2": "deg", "CD1_1": 0.0, "CD1_2": scale, "CD2_1": -scale, "CD2_2": 0.0,
    }  # fmt: skip
    for axis in (1, 2):
        cards |= {f"PV{axis}_{term}": 1.0 if term == 1 else 0.0 for term in range(11)}
    return cards


def section_cards(camera: "Camera", section: str) -> dict[str, Any]:
    """Return the cards of a section: names, boxes, and what its amplifiers are like."""
    number, ccd = ccd_number(section), camera.ccd(section)
    left, right = camera.raw_areas(section)
    window_x, window_y = camera.window_origin
    south, east = place(section)
    detector_x = DETECTOR_X + round((south - 0.5) * WIDTH)
    detector_y = DETECTOR_Y + round(east * HEIGHT)
    on_ccd = Area(0, camera.height, 0, camera.width).moved(window_x, window_y)
    good = Area(left.data.y0, left.data.y1, left.data.x0, right.data.x1)
    cards: dict[str, Any] = {
        "EXTNAME": f"{section}", "BUNIT": "adu", "DETSIZE": DETSIZE, "TRIMSEC": good.card(),
        "DATASEC": good.card(), "DETSEC": on_ccd.moved(detector_x, detector_y).card(),
        "CCDSEC": on_ccd.card(),
    }  # fmt: skip
    for side, area in sorted(enumerate((left, right)), key=lambda pair: pair[1].name):
        image = area.image.moved(window_x, window_y)
        cards |= {
            f"TRIMSEC{area.name}": area.data.card(),
            f"DETSEC{area.name}": image.moved(detector_x, detector_y).card(),
            f"CCDSEC{area.name}": image.card(),
            f"AMPSEC{area.name}": image.card(flip_x=side == 1, flip_y=ccd.reads_from_top),
            f"DATASEC{area.name}": area.data.card(),
            f"BIASSEC{area.name}": area.overscan.card(),
            f"PRESEC{area.name}": area.prescan.card() if area.prescan else "",
            f"POSTSEC{area.name}": area.postscan.card() if area.postscan else "",
        }
    cards |= {"DETECTOR": f"S3-{number:03d}_simulated", "CCDNUM": number, "DETPOS": section}
    for amplifier in sorted(camera.amplifiers(section), key=lambda a: a.name):
        cards |= {
            f"GAIN{amplifier.name}": amplifier.gain,
            f"RDNOISE{amplifier.name}": amplifier.read_noise_e,
            f"SATURAT{amplifier.name}": float(amplifier.saturation_adu),
        }
    plane = next(name for last, name in BACKPLANES if ccd.number < last)
    return cards | {
        "FPA": plane, "INHERIT": True, "CCDBIN1": 1, "CCDBIN2": 1, "DHEINF": "MNSN fermi hardware",
        "DHEFIRM": "demo30", "LTM1_1": 1.0, "LTM2_2": 1.0, "LTV1": float(left.data.x0),
        "LTV2": float(left.data.y0), "VALIDA": True, "VALIDB": True,
    }  # fmt: skip
