"""LS4: 32 CCDs of two amplifiers, one extension each in read-out order, under four filters."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits

from seechange_core import Exposure
from seechange_core.errors import FileDamagedError, HeaderError, NotFoundError, SectionMissingError
from seechange_core.flags import ExposureFlag
from seechange_core.instrument import get_instrument_instance, guess_instrument
from seechange_core.products.ingest import ingest

NAME = "20260211030405s_00042.fits.fz"
WIDTH, HEIGHT, PRESCAN, OVERSCAN = 24, 16, 6, 5  # of the window that is read out of each CCD
X0, Y0 = 1025 - WIDTH // 2, 2049 - HEIGHT // 2  # its first pixel on the CCD, 1-based
HALF = WIDTH // 2
PRIMARY = {
    "TELESCOP": "ESO 1.0-m Schmidt", "INSTRUME": "LS4Cam", "OBSERVAT": "La Silla",
    "STARTOBS": "2026-02-11T03:04:05.678", "DATE-OBS": "2026-02-11T03:04:05.678", "TIMESYS": "UTC",
    "EXPTIME": 45.0, "IMAGETYP": "sky", "TELE-RA": 10.0, "TELE-DEC": -20.5, "EQUINOX": 2000.0,
    "PROJECT": "LS4", "TARGETID": "field 7", "FILTERID": "0", "FILTERS": "i,z,g,i", "AIRMASS": 1.1,
}  # fmt: skip
GAINS = {"RIGHT": 3.5, "LEFT": 3.9}


def truth(seed=0):
    """Pixels of a CCD's window, as they lie on the detector."""
    return np.random.default_rng(seed).integers(1000, 60000, (HEIGHT, WIDTH)).astype(np.uint16)


def amplifier(section, name, ccd, **cards):
    """One amplifier's extension, in the order in which its pixels are read."""
    data = ccd[:, :HALF] if name == "RIGHT" else ccd[:, HALF:][:, ::-1]
    stored = np.full((HEIGHT, PRESCAN + HALF + OVERSCAN), 7, np.uint16)
    stored[:, PRESCAN : PRESCAN + HALF] = data
    stored[:, PRESCAN + HALF :] = 300 if name == "RIGHT" else 400
    first, last = (X0, X0 + HALF - 1) if name == "RIGHT" else (X0 + WIDTH - 1, X0 + HALF)
    rows = f"1:{HEIGHT}"
    header = {
        "EXTNAME": f"{section}_{name}", "CCD_LOC": section, "AMP_NAME": name, "FILTER": "i",
        "GAIN": GAINS[name], "RDNOISE": 6.5, "SATURATE": 50000.0 + len(name),
        "PRESEC": f"[1:{PRESCAN},{rows}]", "DATASEC": f"[{PRESCAN + 1}:{PRESCAN + HALF},{rows}]",
        "BIASSEC": f"[{PRESCAN + HALF + 1}:{PRESCAN + HALF + OVERSCAN},{rows}]",
        "CCDSEC": f"[{first}:{last},{Y0}:{Y0 + HEIGHT - 1}]", "CCDBIN1": 1, "CCDBIN2": 1,
    }  # fmt: skip
    header = {k: v for k, v in {**header, **cards}.items() if v is not None}
    return fits.CompImageHDU(stored, header=fits.Header(header), compression_type="RICE_1")


def write(path, sections=("NE_A", "SW_H"), change=lambda units: units, primary=None, **cards):
    units = [fits.PrimaryHDU(header=fits.Header({**PRIMARY, **(primary or {})}))]
    for seed, section in enumerate(sections):
        units += [amplifier(section, name, truth(seed), **cards) for name in ("RIGHT", "LEFT")]
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(change(units)).writeto(path, overwrite=True)
    return path


@pytest.fixture
def ls4(settings):
    return get_instrument_instance("ls4")


@pytest.fixture
def file(settings):
    return write(settings.data_root / NAME)


# --- The camera -------------------------------------------------------------------------------------


def test_quadrants_and_their_filters(ls4):
    ids = ls4.get_section_ids()
    assert len(ids) == len(set(ids)) == 32
    by_quadrant = {q: {ls4.get_section_filter_array_index(s) for s in ids if s[:2] == q} for q in
                   ("NE", "NW", "SE", "SW")}  # fmt: skip
    assert by_quadrant == {"NE": {0}, "NW": {1}, "SE": {2}, "SW": {3}}
    assert sorted(ls4.filter_array) == ["g", "i", "i", "z"]
    with pytest.raises(NotFoundError, match="its sections are NE_A, NE_B"):
        ls4.get_section_filter_array_index("NE_I")


def test_ccds_lie_in_their_quadrants_without_touching(ls4):
    places = np.array([ls4.get_section_offsets(s) for s in ls4.get_section_ids()])
    for section, (x, y) in zip(ls4.get_section_ids(), places, strict=True):
        # The camera's names have east at -x; on the sky it is at +x.
        assert (x < 0, y > 0) == (section[1] == "E", section[0] == "N")
    apart = np.abs(places[:, None] - places[None])
    overlap = (apart[..., 0] < 2048) & (apart[..., 1] < 4096)
    assert overlap.sum() == 32  # each with itself
    area = 32 * 2048 * 4096 * (ls4.pixel_scale_arcsec / 3600) ** 2
    assert area == pytest.approx(20.0, rel=0.1)


def test_each_ccd_s_pointing(ls4, file):
    exposure = Exposure(NAME)
    center = SkyCoord(150.0 * u.deg, -20.5 * u.deg)
    for section in ("NE_A", "SW_H", "SE_D"):
        hint = exposure.get_pointing_hint(section)
        x, y = ls4.get_section_offsets(section)
        there = SkyCoord(hint.ra * u.deg, hint.dec * u.deg).transform_to(center.skyoffset_frame())
        # Tangent plane: north along +y, east along +x.
        assert np.tan(there.lon.rad) * 206264.806 == pytest.approx(x * 1.0177, abs=1.0)
        assert np.tan(there.lat.rad) / np.cos(there.lon.rad) * 206264.806 == pytest.approx(
            y * 1.0177, abs=1.0
        )
        assert hint.parity == -1
        # +y of the mosaic is north at its centre; the meridian of a CCD beside it runs a little askew.
        askew = (hint.ra - 150.0) * np.sin(np.radians((hint.dec - 20.5) / 2))
        assert hint.rotation_deg == pytest.approx(askew, abs=0.1)


def test_the_mosaic_can_be_moved_against_the_pointing(tmp_path):
    from seechange_core.settings import load_settings, use_settings

    path = tmp_path / "settings.yaml"
    path.write_text("instruments: {ls4: {center_x_pix: -100, center_y_pix: 50}}")
    with use_settings(load_settings(path, environ={})):
        moved = get_instrument_instance("ls4")
    assert moved.get_section_offsets("NE_A") == (-0.5 * 2236 - 100, 0.5 * 4247 + 50)


# --- Its files --------------------------------------------------------------------------------------


def test_an_exposure_s_columns(file):
    exposure = Exposure(NAME)
    assert (exposure.instrument, exposure.telescope, exposure.type) == ("ls4", "ESO 1.0-m Schmidt", "science")
    assert (exposure.filter, exposure.filter_array) == (None, ["i", "z", "g", "i"])
    assert (exposure.ra, exposure.dec, exposure.night) == (150.0, -20.5, "2026-02-10")
    assert (exposure.project, exposure.target, exposure.airmass) == ("LS4", "field 7", 1.1)
    assert exposure.mjd == pytest.approx(61082.127843495, abs=1e-8)
    assert [exposure.get_section_filter(s) for s in ("NE_A", "NW_B", "SE_C", "SW_D")] == ["i", "z", "g", "i"]
    assert len(exposure.footprint) == 4


def test_the_header_s_filters_win(settings):
    write(settings.data_root / NAME, primary={"FILTERS": "g, r, i, z"})
    exposure = Exposure(NAME)
    assert exposure.filter_array == ["g", "r", "i", "z"]
    assert exposure.get_section_filter("SE_A") == "i"
    write(settings.data_root / NAME, primary={"FILTERS": "g,r"})
    with pytest.raises(HeaderError, match=r"FILTERS = 'g,r' does not name 4 filters"):
        Exposure(NAME)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("sky", "science"), ("bias", "bias"), ("dark", "dark"), ("domeflat", "flat"),
        ("pmskyflat", "twilight_flat"), ("amskyflat", "twilight_flat"),
    ],
)  # fmt: skip
def test_kinds_of_exposures(settings, value, kind):
    write(settings.data_root / NAME, primary={"IMAGETYP": value})
    assert Exposure(NAME).type == kind


def test_both_amplifiers_are_joined_as_the_detector_lies(file):
    exposure = Exposure(NAME)
    for seed, section in enumerate(("NE_A", "SW_H")):
        raw = exposure.load_raw_frame(section)
        assert raw.data.dtype == np.uint16
        assert raw.data.shape == (HEIGHT, 2 * (PRESCAN + HALF + OVERSCAN))
        trimmed = np.zeros(raw.image_shape, np.uint16)
        for amp in raw.amplifiers:
            trimmed[amp.image.slices] = raw.data[amp.raw.slices]
        np.testing.assert_array_equal(trimmed, truth(seed))
        right, left = raw.amplifiers
        assert (right.name, left.name) == ("RIGHT", "LEFT")
        assert (right.mirrored, left.mirrored) == (False, True)
        assert np.all(raw.data[right.overscan.slices] == 300)
        assert np.all(raw.data[left.overscan.slices] == 400)
        assert right.overscan.shape == left.overscan.shape == (HEIGHT, OVERSCAN)
        # Overscans meet in the middle, and the amplifiers' first pixels are at the edges.
        assert right.overscan.x1 == left.overscan.x0 == raw.data.shape[1] // 2


def test_each_amplifier_s_own_cards_win(file):
    exposure = Exposure(NAME)
    for section in exposure.sections.values():
        section.gain, section.read_noise, section.saturation_limit = 1.0, 1.0, 1.0
    right, left = exposure.load_raw_frame("NE_A").amplifiers
    assert (right.gain, right.read_noise_e, right.saturation_adu) == (3.5, 6.5, 50005.0)
    assert (left.gain, left.read_noise_e, left.saturation_adu) == (3.9, 6.5, 50004.0)


def test_without_cards_the_section_speaks_and_then_the_camera(settings):
    write(settings.data_root / NAME, GAIN=None, RDNOISE=None, SATURATE=None)
    exposure = Exposure(NAME)
    exposure.sections["NE_A"].gain = 3.3
    exposure.sections["NE_A"].non_linearity_limit = 40000.0
    for amp in exposure.load_raw_frame("NE_A").amplifiers:
        assert (amp.gain, amp.read_noise_e, amp.saturation_adu) == (3.3, 7.0, 44000.0)
        assert amp.non_linear_adu == 40000.0
    assert exposure.load_raw_frame("SW_H").amplifiers[0].gain == 4.0


def test_a_section_s_header_is_that_of_both_amplifiers(file):
    header = Exposure(NAME).section_headers["SW_H"]
    assert (header["EXTNAME"], header["CCD_LOC"], header["GAINA"], header["GAINB"]) == (
        "SW_H", "SW_H", 3.5, 3.9,
    )  # fmt: skip
    assert (header["DATASECA"], header["DATASECB"]) == (f"[7:18,1:{HEIGHT}]", f"[29:40,1:{HEIGHT}]")
    assert "GAIN" not in header
    assert all(len(key) <= 8 for key in header)


def test_a_lost_amplifier_costs_its_section_alone(database):
    path = write(database.data_root / "x" / NAME, change=lambda units: [*units[:2], *units[3:]])
    exposure = ingest(path, database)
    assert exposure.bitflag == ExposureFlag.SECTIONS_LOST
    assert "no extension 'NE_A_LEFT'" in exposure.unreadable_sections["NE_A"]
    assert "NE_A_LEFT" not in exposure.unreadable_sections["NE_B"]
    assert "SW_H" not in exposure.unreadable_sections
    assert len(exposure.unreadable_sections) == 31
    with pytest.raises(SectionMissingError, match="NE_A_LEFT"):
        exposure.load_raw_frame("NE_A")
    assert exposure.load_raw_frame("SW_H").image_shape == (HEIGHT, WIDTH)


def test_a_file_cut_short_costs_the_section_at_its_end(ls4, tmp_path):
    path = write(tmp_path / NAME)
    with fits.open(path) as units:
        # The last amplifier's header is there, its pixels are not.
        end = units[-1].fileinfo()["datLoc"] + 100
    path.write_bytes(path.read_bytes()[:end])
    bad = ls4.find_unreadable_sections(path)
    assert "NE_A" not in bad
    assert isinstance(bad["SW_H"], FileDamagedError)
    with pytest.raises(FileDamagedError, match="SW_H_LEFT"):
        ls4.load_section_image(path, "SW_H")


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"CCDSEC": None}, "the card CCDSEC of amplifier RIGHT is missing"),
        ({"DATASEC": "[7:17,1:16]"}, "differ in size"),
        ({"CCDSEC": f"[{X0}:{X0 + HALF - 1},{Y0}:{Y0 + HEIGHT - 1}]"}, "are no neighbours"),
        ({"CCDSEC": "[1:12,16:1]"}, "is not a section"),
    ],
)
def test_cards_that_contradict_each_other(ls4, tmp_path, cards, words):
    path = write(tmp_path / NAME, **cards)
    with pytest.raises(HeaderError, match=words):
        ls4.load_section_image(path, "NE_A")


def test_its_files_are_recognised(ls4):
    assert guess_instrument(NAME) == "ls4"
    assert guess_instrument("other.fits", PRIMARY) == "ls4"


# --- Files of the simulator -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    from seechange_core.simulate import SurveyOptions, simulate_survey

    options = SurveyOptions(
        camera="ls4", section_names=("NE_A", "SW_E"), window_pix=(256, 256), exposures=1, nights=1,
        reference_exposures=1, n_bias=1, n_dark=1, n_flat=1, n_twilight=1, distortion=False,
    )  # fmt: skip
    return simulate_survey(tmp_path_factory.mktemp("ls4"), options)


@pytest.fixture
def exposures(simulated, settings):
    from seechange_core.settings import use_settings

    path = settings.path.model_copy(update={"data_root": (simulated.folder,)})
    with use_settings(settings.model_copy(update={"path": path})):
        files = sorted(simulated.folder.rglob("*.fits.fz"))
        found = [Exposure(str(f.relative_to(simulated.folder))) for f in files]
        yield {e.type: e for e in found}


def test_all_kinds_of_simulated_files_are_understood(exposures):
    assert set(exposures) == {"bias", "dark", "flat", "twilight_flat", "science"}
    assert {e.instrument for e in exposures.values()} == {"ls4"}


@pytest.mark.parametrize("section", ["NE_A", "SW_E"])
def test_simulated_pixels_come_back_as_the_ccd_has_them(exposures, simulated, section):
    from seechange_core.simulate.section import simulate_section
    from seechange_core.simulate.survey import make_world

    world = make_world(simulated.options)
    made = simulate_section(world.camera, world.sky, world.observations[0], section)
    raw = exposures["science"].load_raw_frame(section)
    np.testing.assert_array_equal(raw.data, made.raw)
    truth = world.camera.detector(section).amplifiers
    assert [a.gain for a in raw.amplifiers] == [pytest.approx(t.gain, abs=1e-3) for t in truth]
    assert [a.saturation_adu for a in raw.amplifiers] == [int(t.saturation_adu) for t in truth]


@pytest.mark.parametrize("section", ["NE_A", "SW_E"])
def test_simulated_stars_are_where_the_pointing_says(exposures, simulated, section):
    exposure = exposures["science"]
    hint = exposure.get_pointing_hint(section)
    stars = simulated.epochs
    keep = np.asarray(stars["section"]) == section
    sky = SkyCoord(np.asarray(stars["ra"])[keep] * u.deg, np.asarray(stars["dec"])[keep] * u.deg)
    offsets = sky.transform_to(SkyCoord(hint.ra * u.deg, hint.dec * u.deg).skyoffset_frame())
    x = np.asarray(stars["x"])[keep] - 127.5
    y = np.asarray(stars["y"])[keep] - 127.5
    east, north = offsets.lon.arcsec, offsets.lat.arcsec
    # Nominal: the telescope points within an arcminute or two, and turns by a fraction of a degree.
    for seen, hinted in ((east, x * 1.0177), (north, y * 1.0177)):
        assert np.all(np.abs(seen - hinted) < 90.0)
        assert np.ptp(seen - hinted) < 5.0
    assert keep.sum() > 20
