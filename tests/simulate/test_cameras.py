"""What decam and ls4 write against what is known of the real cameras' files."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import Angle
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS

from seechange_core.simulate import make_world, plan_observations, simulate_section, simulate_survey
from seechange_core.simulate.camera import Camera
from seechange_core.simulate.cameras import Frame, decam, ls4
from seechange_core.simulate.cameras.times import sexagesimal
from seechange_core.simulate.geometry import project

#: Cards of DECam_00200666 (2013-04-22): both kinds of CCD, all boxes; and CRPIX, which counts trimmed pixels.
REAL = {
    "S1": {
        "CCDNUM": 25, "TRIMSEC": "[57:2104,51:4146]", "DATASEC": "[57:2104,51:4146]",
        "DETSEC": "[12289:14336,1:4096]", "CCDSEC": "[1:2048,1:4096]", "TRIMSECA": "[1081:2104,51:4146]",
        "DETSECA": "[13313:14336,1:4096]", "CCDSECA": "[1025:2048,1:4096]", "AMPSECA": "[2048:1025,4096:1]",
        "DATASECA": "[1081:2104,51:4146]", "BIASSECA": "[2105:2154,51:4146]",
        "PRESECA": "[2155:2160,51:4146]", "POSTSECA": "[1081:2104,1:50]", "TRIMSECB": "[57:1080,51:4146]",
        "DETSECB": "[12289:13312,1:4096]",
        "CCDSECB": "[1:1024,1:4096]", "AMPSECB": "[1:1024,4096:1]", "DATASECB": "[57:1080,51:4146]",
        "BIASSECB": "[7:56,51:4146]", "PRESECB": "[1:6,51:4146]", "POSTSECB": "[57:1080,1:50]",
        "DETPOS": "S1", "EXTNAME": "S1", "FPA": "DECAM_BKP1", "LTV1": 56.0, "LTV2": 50.0,
        "CRPIX1": 2151.2, "CRPIX2": 14826.0,
    },
    "N1": {
        "CCDNUM": 32, "TRIMSEC": "[57:2104,1:4096]", "DATASEC": "[57:2104,1:4096]",
        "DETSEC": "[14337:16384,1:4096]", "CCDSEC": "[1:2048,1:4096]", "TRIMSECA": "[57:1080,1:4096]",
        "DETSECA": "[14337:15360,1:4096]", "CCDSECA": "[1:1024,1:4096]", "AMPSECA": "[1:1024,1:4096]",
        "DATASECA": "[57:1080,1:4096]", "BIASSECA": "[7:56,1:4096]", "PRESECA": "[1:6,1:4096]",
        "POSTSECA": "[57:1080,4097:4146]", "TRIMSECB": "[1081:2104,1:4096]",
        "DETSECB": "[15361:16384,1:4096]", "CCDSECB": "[1025:2048,1:4096]", "AMPSECB": "[2048:1025,1:4096]",
        "DATASECB": "[1081:2104,1:4096]", "BIASSECB": "[2105:2154,1:4096]", "PRESECB": "[2155:2160,1:4096]",
        "POSTSECB": "[1081:2104,4097:4146]", "LTV1": 56.0, "LTV2": 0.0,
        "CRPIX1": -103.2001, "CRPIX2": 14826.0,
    },
    "S8": {"CCDNUM": 19, "DETSEC": "[10241:12288,2049:6144]", "CRPIX1": 4405.6, "CRPIX2": 12696.33},
    "S9": {"CCDNUM": 20, "DETSEC": "[10241:12288,6145:10240]"},
    "N2": {"CCDNUM": 33, "DETSEC": "[14337:16384,4097:8192]", "CRPIX1": -103.2001, "CRPIX2": 10566.67},
}  # fmt: skip
#: Where CCDs were measured to look, degrees east and north of the pointing (solved exposure of 2023-08-04).
MEASURED = {
    "S29": (-0.30358, 0.90579), "N31": (0.30889, -0.90498), "N7": (0.93180, -0.08242),
    "S4": (0.00054, 0.08241), "N25": (-0.47298, -0.73648), "S1": (-0.93041, 0.09069),
    "S24": (0.62033, 0.57431),
    "N14": (-0.78177, -0.40426),
}  # fmt: skip
#: The same of LS4, from the middle of the mosaic.
MEASURED_LS4 = {
    "NE_D": (-3.1559, 0.8743),
    "NW_B": (0.6103, 2.0588),
    "SW_E": (1.3038, -1.5326),
    "SE_H": (-3.1834, -0.3261),
}
MIDDLE_LS4 = (-0.9478, 0.2558)


def extension(camera, section):
    """Cards of a section's one extension, without its pixels."""
    frame = decam_frame(camera)
    ((_, cards),) = decam.units(camera, frame, section, None)
    return cards


def decam_frame(camera):
    o = plan_observations(camera)[0]
    return Frame("science", 3, o.mjd_start, o.exposure_time_s, o.header_ra, o.header_dec, o.airmass)


@pytest.fixture(scope="module")
def full(options):
    """DECam at full size; nothing is drawn."""
    return Camera(options(camera="decam"))


@pytest.mark.parametrize("section", REAL)
def test_decam_boxes_are_those_of_a_real_exposure(full, section):
    cards = extension(full, section)
    for key, value in REAL[section].items():
        expected = pytest.approx(value, abs=0.02) if key.startswith("CRPIX") else value
        assert cards[key] == expected, key


def test_decam_has_62_ccds_that_do_not_overlap(full):
    assert sorted(decam.ccd_number(s) for s in full.sections) == list(range(1, 63))
    assert (full.sections[0], full.sections[17], full.sections[36]) == ("S1", "N25", "N4")
    boxes = {extension(full, s)["DETSEC"] for s in full.sections}
    assert len(boxes) == 62
    centres = np.array([full.section_offset(s) for s in full.sections])
    apart = np.abs(centres[:, None] - centres) + np.eye(62)[:, :, None] * 1e6
    assert ((apart[..., 0] > 2048) | (apart[..., 1] > 4096)).all()


@pytest.mark.parametrize("section", MEASURED)
def test_decam_ccds_look_where_they_were_measured_to(full, section):
    """Within 40 arcsec over two degrees: that night's rotation, and what real optics do beyond ours."""
    observation = plan_observations(full)[0]
    view = observation.sky_map(full, section)
    east, north = project(*view.to_sky(1023.5, 2047.5), observation.ra, observation.dec)
    turn = np.deg2rad(observation.rotation_deg - 90)
    east, north = east * np.cos(turn) - north * np.sin(turn), east * np.sin(turn) + north * np.cos(turn)
    dra, ddec = MEASURED[section]
    assert np.hypot(east - dra * 3600, north - ddec * 3600) < 40


@pytest.mark.parametrize("camera", ["decam", "ls4"])
def test_axes_run_as_the_cameras_do(perfect, camera):
    """DECam: x to the south, y to the east. LS4: x to the east, y to the north."""
    made = Camera(perfect(camera=camera))
    observation = plan_observations(made)[0]
    for section in made.sections:
        x, y = np.array([1000.0, 1100.0, 1000.0]), np.array([2000.0, 2000.0, 2100.0])
        ra, dec = observation.sky_map(made, section).to_sky(x, y)
        east, north = project(ra, dec, ra[0], dec[0])
        along_x, along_y = np.array([east[1], north[1]]), np.array([east[2], north[2]])
        scale = 100 * made.pixel_scale_arcsec
        expected = ([0, -scale], [scale, 0]) if camera == "decam" else ([scale, 0], [0, scale])
        # Meridians converge: away from the boresight north is not quite the field's.
        assert along_x == pytest.approx(expected[0], abs=0.006 * scale)
        assert along_y == pytest.approx(expected[1], abs=0.006 * scale)


@pytest.mark.parametrize("section", ["S1", "N31", "N10"])
def test_the_headers_world_coordinates_are_the_nominal_ones(perfect, section):
    """TPV as astropy reads it, on trimmed pixels, against the truth without rotation and distortion."""
    camera = Camera(perfect(camera="decam"))
    cards = extension(camera, section)
    nominal = WCS({k: v for k, v in cards.items() if k not in ("LTV1", "LTV2", "LTM1_1", "LTM2_2")})
    x, y = np.array([0.0, 2047.0, 300.0]), np.array([0.0, 4095.0, 2000.0])
    ra, dec = plan_observations(camera)[0].sky_map(camera, section).to_sky(x, y)
    # CRPIX of the middle is 1024, not 1024.5, in the real files too.
    assert np.array(nominal.all_world2pix(ra, dec, 0)) == pytest.approx(
        np.array([x - 0.5, y - 0.5]), abs=0.05
    )


@pytest.mark.parametrize("section", MEASURED_LS4)
def test_ls4_ccds_look_where_they_were_measured_to(options, section):
    """A regular grid is within some arcminutes of a field of five degrees."""
    x, y = Camera(options(camera="ls4")).section_offset(section)
    dx, dy = (m - c for m, c in zip(MEASURED_LS4[section], MIDDLE_LS4, strict=True))
    assert (x * 1.0177 / 3600, y * 1.0177 / 3600) == pytest.approx((dx, dy), abs=0.07)


def test_a_window_keeps_the_geometry(perfect):
    whole, part = (Camera(perfect(camera="decam", window_pix=w)) for w in (None, (512, 256)))
    observation = plan_observations(whole)[0]
    assert part.window_origin == (768, 1920)
    for section in ("S29", "N4"):
        ra, dec = observation.sky_map(part, section).to_sky([0.0, 511.0], [0.0, 255.0])
        x, y = observation.sky_map(whole, section).to_pixels(ra, dec)
        assert (x[0], y[0], x[1], y[1]) == pytest.approx((768, 1920, 1279, 2175), abs=1e-6)
    cards = extension(part, "N4")
    assert (cards["CCDSEC"], cards["CCDSECA"]) == ("[769:1280,1921:2176]", "[769:1024,1921:2176]")
    assert (cards["DATASECA"], cards["BIASSECB"]) == ("[57:312,1:256]", "[569:618,1:256]")
    assert cards["DETSEC"] == "[15105:15616,14209:14464]"
    assert cards["CRPIX1"] == pytest.approx(extension(whole, "N4")["CRPIX1"] - 768)


@pytest.fixture(scope="module")
def decam_files(tmp_path_factory, options):
    chosen = options(camera="decam", section_names=("S4", "N4"), window_pix=(256, 128), exposures=1, nights=1,
                     reference_exposures=0, n_twilight=1, band="z", dead_sections=("S4",))  # fmt: skip
    return simulate_survey(tmp_path_factory.mktemp("decam"), chosen)


@pytest.fixture(scope="module")
def ls4_files(tmp_path_factory, options):
    chosen = options(camera="ls4", section_names=("NE_A", "SE_H", "NW_E"), window_pix=(128, 256), exposures=1,
                     nights=1, reference_exposures=0, n_twilight=1, star_density=2.0)  # fmt: skip
    return simulate_survey(tmp_path_factory.mktemp("ls4"), chosen)


def test_decam_files_are_named_and_packed_as_the_telescope_does(decam_files):
    kinds = {path.name.split("_")[3]: path for path in decam_files.raw_files}
    types = {"ori": "object", "zri": "zero", "dri": "dark", "fri": "dome flat", "sri": "sky flat"}
    assert {name.removesuffix(".fits.fz") for name in kinds} == set(types)
    for name, path in kinds.items():
        with fits.open(path, disable_image_compression=True) as hdus:
            assert hdus[0].header["OBSTYPE"] == types[name[:3]]
            assert hdus[0].header["FILTER"] == "z DECam SDSS c0004 9260.0 1520.0"
            packed = hdus[1].header
            assert (packed["ZCMPTYPE"], packed["ZBITPIX"], packed["ZTENSION"]) == ("RICE_1", 16, "IMAGE")
            assert (packed["ZTILE1"], packed["ZTILE2"]) == (packed["ZNAXIS1"], 1)
        with fits.open(path) as hdus:
            assert [hdu.name for hdu in hdus[1:]] == ["N4", "S4"]
            assert hdus[1].data.shape == (128 + 50, 256 + 112)
            assert hdus[1].data.dtype == np.uint16
            start = Time(hdus[0].header["DATE-OBS"])
            assert start.mjd == pytest.approx(hdus[0].header["MJD-OBS"], abs=2e-8)
            handed_over = Time(hdus[0].header["DTUTC"])
            assert handed_over.strftime("c4d_%y%m%d_%H%M%S") == path.name[:17]


def test_decam_angles_are_sexagesimal_hours_and_degrees(decam_files):
    science = next(p for p in decam_files.raw_files if "_ori" in p.name)
    header = fits.getheader(science)
    observation = make_world(decam_files.options).observations[0]
    assert Angle(header["RA"], "hourangle").deg == pytest.approx(observation.header_ra, abs=1e-5)
    assert Angle(header["DEC"], "deg").deg == pytest.approx(observation.header_dec, abs=1e-6)
    assert sexagesimal(-0.5 / 3600) == "-00:00:00.500"
    assert sexagesimal(59.99999999 / 60) == "01:00:00.000"
    assert (header["TELESCOP"], header["INSTRUME"]) == ("CTIO 4.0-m telescope", "DECam")


def test_decam_cards_are_those_of_real_headers(decam_files):
    """What calibrated exposures still have of the telescope's cards has the same kind of value in ours."""
    root = os.environ.get("SEECHANGE_REAL_DATA")
    files = sorted(Path(root).glob("decam_cutouts/**/*_ooi_*.fits")) if root else []
    files = [f for f in files if "psfex" not in f.name]
    if not files:
        pytest.skip("no real DECam headers here: set SEECHANGE_REAL_DATA")
    ours = fits.open(next(p for p in decam_files.raw_files if "_ori" in p.name))
    changed = {"NAXIS1", "NAXIS2", "BITPIX", "EXTNAME", "NEXTEND", "CRPIX1", "CRPIX2", "FILENAME"}
    for file in files:
        with fits.open(file) as real:
            for number in (0, 1):
                shared = set(ours[number].header) & set(real[number].header) - changed - {"", "COMMENT"}
                assert len(shared) > (40, 40)[number]
                for key in shared:
                    a, b = ours[number].header[key], real[number].header[key]
                    number_like = isinstance(a, int | float) and isinstance(b, int | float)
                    assert number_like or type(a) is type(b), key
            assert ours[0].header["TELESCOP"] == real[0].header["TELESCOP"]
            assert real[0].header["FILTER"] in decam.FILTERS.values()
            assert real[0].header["OBSTYPE"] == decam.OBSTYPES["science"]
    ours.close()


def test_a_dead_ccd_is_dark_and_its_neighbour_not(decam_files):
    flat = next(p for p in decam_files.raw_files if "_fri" in p.name)
    with fits.open(flat) as hdus:
        level = {h.name: np.median(h.data[50:120, 80:300]) for h in hdus[1:]}
    assert level["S4"] < 3000
    assert level["N4"] > 8000


def test_pixels_come_back_from_the_files(decam_files, ls4_files):
    for survey, section, names in (
        (decam_files, "N4", ["N4"]),
        (ls4_files, "SE_H", ["SE_H_RIGHT", "SE_H_LEFT"]),
    ):
        world = make_world(survey.options)
        raw = simulate_section(world.camera, world.sky, world.observations[0], section).raw
        file = next(p for p in survey.raw_files if p.name == survey.exposures["file"][0])
        with fits.open(file) as hdus:
            parts = [hdus[name].data for name in names]
        if len(parts) == 2:
            parts[1] = parts[1][:, ::-1]
        assert np.array_equal(np.hstack(parts), raw)


def test_ls4_writes_an_extension_per_amplifier_under_its_own_filter(ls4_files):
    kinds = sorted(path.name[14] for path in ls4_files.raw_files)
    assert kinds == ["b", "d", "e", "f", "s"]
    science = next(p for p in ls4_files.raw_files if p.name[14] == "s")
    with fits.open(science) as hdus:
        card = hdus[0].header
        assert Time(card["STARTOBS"]).strftime("%Y%m%d%H%M%S") == science.name[:14]
        assert card["TELE-RA"] * 15 == pytest.approx(150.1, abs=0.1)
        assert card["IMAGETYP"] == "sky"
        names = [f"{s}_{a}" for s in ("NE_A", "NW_E", "SE_H") for a in ("RIGHT", "LEFT")]
        assert [h.name for h in hdus[1:]] == names
        assert [h.header["FILTER"] for h in hdus[1::2]] == ["i", "z", "g"]
        left = hdus["NE_A_LEFT"].header
        assert (left["CCD_LOC"], left["AMP_NAME"], left["CCDSEC"]) == (
            "NE_A",
            "LEFT",
            "[1088:1025,1921:2176]",
        )
        assert (left["PRESEC"], left["DATASEC"], left["BIASSEC"]) == (
            "[1:6,1:256]",
            "[7:70,1:256]",
            "[71:120,1:256]",
        )
    exposures = ls4_files.exposures
    assert dict(zip(exposures["section"], exposures["filter"], strict=True)) == {
        "NE_A": "i",
        "NW_E": "z",
        "SE_H": "g",
    }
    sky = dict(zip(exposures["filter"], exposures["sky_e"], strict=True))
    assert sky["g"] < sky["i"] < sky["z"]


def test_mirrored_amplifiers_are_stored_as_they_are_read(perfect):
    """The pixel next to the right-hand edge of the CCD is the first that the LEFT amplifier reads."""
    camera = Camera(perfect(camera="ls4", section_names=("NE_A",), window_pix=(64, 64)))
    raw = np.zeros((64, 64 + 112), np.uint16)
    left, right = camera.raw_areas("NE_A")
    raw[left.data.slices] = np.arange(32)
    raw[right.data.slices] = np.arange(32, 64)
    frame = decam_frame(camera)
    (low, _), (high, cards) = ls4.units(camera, frame, "NE_A", raw)
    assert list(low[0, 6:38]) == list(range(32))
    assert list(high[0, 6:38]) == list(range(63, 31, -1))
    assert cards["CCDSEC"].startswith("[1056:1025,")


@pytest.mark.parametrize("change", [
    {"camera": "decam", "section_names": ("N32",)}, {"camera": "ls4", "dead_sections": ("N4",)},
    {"camera": "decam", "window_pix": (4096, 2048)}, {"camera": "decam", "window_pix": (511, 512)},
    {"camera": "decam", "bad_amplifiers": ("S7",)}, {"camera": "ls4", "window_pix": (32, 512)},
])  # fmt: skip
def test_what_a_camera_does_not_have_is_refused(options, change):
    with pytest.raises(ValueError, match=r"has no|window_pix"):
        options(**change)


def test_the_sky_is_filled_around_the_chosen_sections_only(options):
    """Stars of the whole field's density wherever the sections look, and none elsewhere."""
    chosen = options(camera="decam", section_names=("S29", "N31"), window_pix=(1024, 1024), star_density=20.0,
                     galaxy_density=0.0, transients=0, variables=0, asteroids=0)  # fmt: skip
    world = make_world(chosen)
    counts, area = [], (1024 * 0.2626 / 60) ** 2
    for section in ("S29", "N31"):
        view = world.observations[0].sky_map(world.camera, section)
        x, y = view.to_pixels(world.sky.objects["ra"], world.sky.objects["dec"])
        counts.append(((np.abs(x - 511.5) < 512) & (np.abs(y - 511.5) < 512)).sum())
    share = 10 ** (0.2 * (world.camera.faint_mag - 23.2)) - 10 ** (0.2 * (12.5 - 23.2))
    expected = 20.0 * area * share
    assert counts == pytest.approx([expected] * 2, abs=4 * np.sqrt(expected))
    assert len(world.sky) < 8 * expected
