"""DECam: its CCDs, their places on the sky, headers and raw sections as the telescope writes them."""

from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.time import Time
from sqlalchemy import select

from seechange_core import Exposure
from seechange_core.catalogs import LocalCatalog, import_table
from seechange_core.chain.lineage import provenances
from seechange_core.errors import (
    DeadSection,
    FileDamagedError,
    HeaderError,
    IgnoredFile,
    NotFoundError,
    SectionMissingError,
    UserError,
)
from seechange_core.flags import ExposureFlag
from seechange_core.frames import Masters
from seechange_core.instrument import SensorSection, get_instrument_instance, guess_instrument
from seechange_core.numerics.sky import project
from seechange_core.products.ingest import ingest
from seechange_core.settings import load_settings, use_settings
from seechange_core.simulate import SurveyOptions, load_truth, simulate_survey
from seechange_core.stages.astrometry import query_radius_deg, solve
from seechange_core.stages.extract import ExtractParams, extract
from seechange_core.stages.preprocess import PreprocessParams, preprocess
from seechange_core.storage.engine import get_engine, open_session
from seechange_core.storage.orm import Base

ROOT = Path(__file__).parents[2]

#: Cards of a raw exposure of 2013.
CARDS = {
    "PROCTYPE": "RAW", "PRODTYPE": "image", "INSTRUME": "DECam", "TELESCOP": "CTIO 4.0-m telescope",
    "OBS-LONG": 70.81489, "OBS-LAT": -30.16606, "OBS-ELEV": 2215.0, "EXPTIME": 100.0, "DARKTIME": 100.8952999,
    "OBSID": "ct4m20130422t080259", "DATE-OBS": "2013-04-22T08:02:59.601219", "TIME-OBS": "08:02:59.601219",
    "MJD-OBS": 56404.3354121, "TIMESYS": "UTC", "EXPNUM": 200666, "OBJECT": "23740571.0", "OBSTYPE": "object",
    "PROPID": "2013A-0741", "FILTER": "z DECam SDSS c0004 9260.0 1520.0", "RA": "15:49:47.297",
    "DEC": "05:43:04.141", "AIRMASS": 1.34,
}  # fmt: skip

#: Centres of CCDs measured on an exposure at declination -29.5 deg: east offset as an arc along the parallel
#: of the exposure, and north offset, deg.
MEASURED = {
    "S29": (-0.30358, 0.90579), "S31": (0.31197, 0.90294), "S25": (-0.45907, 0.74300),
    "S19": (0.77533, 0.41018), "S1": (-0.93041, 0.09069), "S4": (0.00054, 0.08241),
    "S6": (0.62187, 0.08113), "N4": (-0.00056, -0.08247), "N7": (0.93180, -0.08242),
    "N14": (-0.78177, -0.40426), "N24": (0.62187, -0.57650), "N31": (0.30889, -0.90498),
}  # fmt: skip
DEC_OF_MEASURED = -29.49


@pytest.fixture
def decam(settings):
    return get_instrument_instance("decam")


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    out = tmp_path_factory.mktemp("decam")
    options = SurveyOptions(
        camera="decam", section_names=("N4", "S29", "S7"), window_pix=(256, 512), exposures=1, nights=1,
        reference_exposures=0, n_bias=1, n_dark=1, n_flat=1, transients=0, variables=0, asteroids=0,
        satellites=0.0, rotation=False, pointing_error=False,
    )  # fmt: skip
    simulate_survey(out, options)
    return out


@pytest.fixture
def exposures(survey, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(f"path: {{data_root: {survey}}}\ndatabase_url: sqlite:///{tmp_path}/x.db\n")
    with use_settings(load_settings(path, environ={})):
        files = sorted((survey / "raw").glob("*.fits.fz"))
        yield {e.type: e for e in (Exposure(str(f)) for f in files)}


def cards_of(name, rows=40):
    """Return a section's cards for an image of some rows."""
    left, right = ("A", "B") if name[0] == "N" else ("B", "A")
    first = 1 if name[0] == "N" else 21  # the rows read out after the image lie above it, or below it
    span = f"{first}:{first + rows - 1}"
    backwards = f"{rows}:1" if name[0] == "S" else f"1:{rows}"
    return {
        "EXTNAME": name, "GAINA": 4.1, "GAINB": 3.9, "RDNOISEA": 6.1, "RDNOISEB": 6.3, "SATURATA": 43266.0,
        "SATURATB": 44935.0, "VALIDA": True, "VALIDB": True,
        f"DATASEC{left}": f"[57:1080,{span}]", f"DATASEC{right}": f"[1081:2104,{span}]",
        f"BIASSEC{left}": f"[7:56,{span}]", f"BIASSEC{right}": f"[2105:2154,{span}]",
        f"CCDSEC{left}": f"[1:1024,1:{rows}]", f"CCDSEC{right}": f"[1025:2048,1:{rows}]",
        f"AMPSEC{left}": f"[1:1024,{backwards}]", f"AMPSEC{right}": f"[2048:1025,{backwards}]",
    }  # fmt: skip


def write(path, sections=("N4", "S7"), primary=None, own=None, packed=True):
    """Write a raw exposure of few rows; `own` are cards of its sections, None takes one away."""
    units = [fits.PrimaryHDU(header=fits.Header({**CARDS, **(primary or {})}))]
    kind = fits.CompImageHDU if packed else fits.ImageHDU
    for n, name in enumerate(sections):
        cards = {k: v for k, v in {**cards_of(name), **(own or {})}.items() if v is not None}
        pixels = np.full((60, 2160), 2000 + n, np.uint16)
        units.append(kind(pixels, header=fits.Header(cards), name=name))
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(units).writeto(path)
    return path


# --- CCDs -----------------------------------------------------------------------------------------


def test_there_are_62_ccds(decam):
    names = decam.get_section_ids()
    assert len(set(names)) == 62
    sections = decam.fetch_sections()
    numbers = {name: sections[name].identifier for name in names}
    assert sorted(numbers.values()) == sorted(f"CCDNUM {n}" for n in range(1, 63))
    known = {"S29": 1, "S30": 2, "S21": 9, "S11": 22, "S1": 25, "S7": 31, "N1": 32, "N2": 33, "N6": 37}
    known |= {"N15": 46, "N26": 57, "N29": 60, "N30": 61, "N31": 62}
    assert {n: numbers[n] for n in known} == {n: f"CCDNUM {i}" for n, i in known.items()}
    for wrong in ("N32", "S0", "X1", "n4", 35):
        with pytest.raises(NotFoundError, match="decam has no section"):
            decam.check_section_id(wrong)


def test_measured_centres_of_ccds(decam):
    """Up to the turn of the whole camera, which differs by some tenths of a degree from night to night."""
    sections = decam.fetch_sections()
    hints = [decam.get_pointing_hint(40.0, DEC_OF_MEASURED, name, sections) for name in MEASURED]
    measured = np.array(list(MEASURED.values())) / [np.cos(np.radians(DEC_OF_MEASURED)), 1.0]
    east, north = project(40.0 + measured[:, 0], DEC_OF_MEASURED + measured[:, 1], 40.0, DEC_OF_MEASURED)
    x, y = project([h.ra for h in hints], [h.dec for h in hints], 40.0, DEC_OF_MEASURED)
    seen, nominal = east + 1j * north, x + 1j * y
    turn = np.angle(np.vdot(nominal, seen))
    assert abs(np.degrees(turn)) < 0.3
    assert np.abs(seen - nominal * np.exp(1j * turn)).max() * 3600 < 2.0


def test_ccds_do_not_overlap_and_fill_their_rows(decam):
    """Published gaps: 201 pixels along the long edges, 153 along the short ones."""
    x4, y4 = decam.get_section_offsets("N4")
    gap = decam.get_section_offsets("N5")[1] - y4 - 4096
    assert gap == pytest.approx(153, abs=15)
    assert 2 * x4 - 2048 == pytest.approx(201, abs=15)
    assert decam.get_section_offsets("S4") == pytest.approx((-x4, 0.0), abs=1e-6)
    assert y4 == pytest.approx(0.0, abs=1e-6)


def test_x_runs_south_and_y_east(decam):
    sections = decam.fetch_sections()
    centre = SkyCoord(150.0, -30.0, unit="deg")
    places = {
        n: SkyCoord(h.ra, h.dec, unit="deg")
        for n in ("N4", "S4", "N5", "N3")
        for h in [decam.get_pointing_hint(centre.ra.deg, centre.dec.deg, n, sections)]
    }
    assert places["S4"].position_angle(places["N4"]).deg == pytest.approx(180.0, abs=0.1)
    assert places["N3"].position_angle(places["N5"]).deg == pytest.approx(90.0, abs=0.5)
    assert places["N4"].separation(places["S4"]).arcmin == pytest.approx(9.9, abs=0.1)


def test_the_footprint_is_two_degrees_wide(decam):
    corners = decam.get_footprint(359.5, 0.0, decam.fetch_sections())
    sky = SkyCoord(corners, unit="deg")
    sides = [sky[i].separation(sky[(i + 1) % 4]).deg for i in range(4)]
    assert sides == pytest.approx([1.97, 2.16, 1.97, 2.16], abs=0.05) or sides == pytest.approx(
        [2.16, 1.97, 2.16, 1.97], abs=0.05
    )


# --- Dead CCDs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "date", "dead"),
    [
        ("N30", "2012-11-07T09:00:00", False),
        ("N30", "2012-11-07T20:00:00", True),
        ("N30", "2026-01-01T00:00:00", True),
        ("S30", "2013-11-29T05:00:00", False),
        ("S30", "2014-06-01T00:00:00", True),
        ("S30", "2017-01-01T00:00:00", False),
        ("S7", "2020-01-01T00:00:00", False),
    ],
)
def test_ccds_are_dead_at_their_dates(decam, name, date, dead):
    section = decam.get_sections(dateobs=date)[name]
    assert bool(section.defective) is dead
    assert bool(decam.get_property(name, "defective", decam.get_sections(dateobs=date))) is dead


AFTER_S30 = {"MJD-OBS": 57134.3, "DATE-OBS": "2015-04-22T07:12:00.000"}


def test_a_dead_ccd_says_since_when(decam, tmp_path):
    path = write(tmp_path / "data" / "c4d_150422_080530_ori.fits.fz", ("N4", "S30"), AFTER_S30)
    exposure = Exposure(path.name)
    with pytest.raises(DeadSection, match=r"S30: decam lists it as defective, .*2013-11-30.*2016-12-29"):
        exposure.load_raw_frame("S30")
    assert exposure.load_raw_frame("N4").image_shape == (40, 2048)


def test_what_the_database_says_of_a_ccd_wins(database, decam):
    with open_session(database) as session:
        session.add(SensorSection("N30", "decam", defective=False, gain=3.5, validity_start=58000.0))
        session.commit()
        assert decam.get_sections(session, 57000.0)["N30"].defective is True
        assert decam.get_sections(session, 59000.0)["N30"].defective is False


def test_sections_saved_for_some_time_hold_for_that_time_and_no_longer(database, decam):
    """S30 has times of its own: healthy, dead, healthy again."""
    with open_session(database) as session:
        decam.fetch_sections(session, "2018-06-01T00:00:00")
        for name in ("N4", "S30"):
            decam.sections[name].gain = 9.9
        decam.commit_sections(session, "2015-01-01T00:00:00", "2019-01-01T00:00:00")
    with open_session(database) as session:
        gains = {}
        for year in (2014, 2015, 2018, 2020):
            sections = decam.fetch_sections(session, f"{year}-06-01T00:00:00")
            gains[year] = [decam.get_property(name, "gain") for name in ("N4", "S30")]
            assert bool(sections["S30"].defective) is (year in {2014, 2015})
    assert gains == {2014: [4.0, 4.0], 2015: [9.9, 4.0], 2018: [9.9, 9.9], 2020: [4.0, 4.0]}


def test_sections_of_one_time_are_not_saved_for_another(database, decam):
    decam.fetch_sections(dateobs="2018-06-01T00:00:00")
    with open_session(database) as session, pytest.raises(UserError, match=r"S30: .* valid from 2016-12-29"):
        decam.commit_sections(session, "2014-01-01T00:00:00", "2015-01-01T00:00:00")
    with open_session(database) as session:
        assert session.scalars(select(SensorSection)).all() == []


def test_a_replaced_ccd_is_dead_when_the_old_one_was(database, decam):
    with open_session(database) as session:
        decam.replace_section(session, "S30", "2013-01-01T00:00:00", gain=3.5)
        dates = ("2012-12-01", "2013-02-01", "2014-06-01", "2018-01-01")
        rows = [decam.get_sections(session, f"{date}T00:00:00")["S30"] for date in dates]
    assert [row.gain for row in rows] == [None, 3.5, None, None]
    assert [bool(row.defective) for row in rows] == [False, False, True, False]


@pytest.mark.parametrize("trusted", [False, True])
def test_the_readme_s_exchanged_ccd(tmp_path, trusted):
    """Its code and its settings, on either side of the date: linear limits are not in headers, noise is."""
    text = (ROOT / "README.md").read_text()
    part = text.split("**A CCD that was exchanged**")[1]
    code, words = (part.split(f"```{kind}\n")[1].split("```")[0] for kind in ("python", "yaml"))
    options = words if trusted else ""
    path = tmp_path / "settings.yaml"
    path.write_text(f"path: {{data_root: {tmp_path}}}\ndatabase_url: sqlite:///{tmp_path}/x.db\n{options}")
    swap = Time("2026-02-11T18:00:00").mjd
    found = []
    with use_settings(load_settings(path, environ={})) as settings:
        Base.metadata.create_all(get_engine(settings))
        exec(code, {})
        decam = get_instrument_instance("decam")
        for i, mjd in enumerate((swap - 0.5, swap + 0.5)):
            file = write(
                tmp_path / f"c4d_26021{i}_080530_ori.fits.fz",
                ("N4",),
                {"MJD-OBS": mjd, "DATE-OBS": Time(mjd, format="mjd").isot},
            )
            with open_session(settings) as session:
                sections = decam.get_sections(session, mjd)
            amplifiers = decam.load_raw_frame(file, "N4", sections).amplifiers
            found.append([(a.non_linear_adu, a.read_noise_e, a.gain) for a in amplifiers])
        keys = provenances(settings, "decam")
    noise = (6.5, 6.5) if trusted else (6.1, 6.3)
    assert found[0] == [(22000.0, 6.1, 4.1), (22000.0, 6.3, 3.9)]
    assert found[1] == [(25000.0, noise[0], 4.1), (25000.0, noise[1], 3.9)]
    # What changes results is another provenance.
    with use_settings(load_settings(environ={})) as plain:
        same = keys["exposure"].id == provenances(plain, "decam")["exposure"].id
    assert same is not trusted


# --- Headers --------------------------------------------------------------------------------------


def test_a_header(decam):
    facts = decam.read_facts(CARDS, decam.get_auxiliary_exposure_header_keys())
    assert (facts.type, facts.filter, facts.exp_time, facts.airmass) == ("science", "z", 100.0, 1.34)
    assert facts.ra == pytest.approx(15 * (15 + 49 / 60 + 47.297 / 3600))
    assert facts.dec == pytest.approx(5 + 43 / 60 + 4.141 / 3600)
    assert facts.mjd == 56404.3354121  # the start of the exposure
    assert facts.mjd_mid == pytest.approx(56404.3354121 + 50 / 86400)
    assert (facts.project, facts.target) == ("2013A-0741", "23740571.0")
    assert facts.header["filter_name"] == CARDS["FILTER"]
    assert (facts.header["expnum"], facts.header["dark_time"]) == (200666, 100.8952999)


@pytest.mark.parametrize(
    ("date", "night"), [("2013-04-22T08:02:59", "2013-04-21"), ("2013-04-22T23:30:00", "2013-04-22")]
)
def test_nights_are_chilean(decam, date, night):
    """Though the card gives the western longitude as an eastern one: with it the second would be 04-23."""
    cards = {k: v for k, v in CARDS.items() if k != "MJD-OBS"}
    facts = decam.read_facts({**cards, "DATE-OBS": date})
    assert facts.night == night
    assert facts.header["longitude_deg"] == -70.81489


@pytest.mark.parametrize(
    ("obstype", "kind"),
    [
        ("object", "science"), ("standard", "science"), ("zero", "bias"), ("dark", "dark"),
        ("dome flat", "flat"), ("sky flat", "twilight_flat"),
    ],
)  # fmt: skip
def test_kinds_of_exposure(decam, obstype, kind):
    facts = decam.read_facts({**CARDS, "OBSTYPE": obstype})
    assert facts.type == kind
    assert facts.filter == (None if kind in {"bias", "dark"} else "z")


@pytest.mark.parametrize("obstype", ["focus", "pointing", "junk", "Test"])
def test_files_that_need_no_processing(decam, obstype):
    with pytest.raises(IgnoredFile) as caught:
        decam.read_facts({"OBSTYPE": obstype})  # whatever else it lacks
    assert caught.value.kind == obstype.lower()
    assert f"decam: {{image_types: {{{obstype.lower()}: science}}}}" in caught.value.cure
    with pytest.raises(HeaderError, match=r"'lamp' is unknown \(.*decam: {image_types: {lamp: science}}"):
        decam.read_facts({**CARDS, "OBSTYPE": "lamp"})


def test_the_cure_for_an_image_type_works(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("instruments: {decam: {image_types: {Focus: science, object: ignored}, gain: 3.0}}")
    with use_settings(load_settings(path, environ={})):
        decam = get_instrument_instance("decam")
        assert decam.gain == 3.0
        assert decam.read_facts({**CARDS, "OBSTYPE": "focus"}).type == "science"
        assert decam.read_facts({**CARDS, "OBSTYPE": "zero"}).type == "bias"
        with pytest.raises(IgnoredFile):
            decam.read_facts(CARDS)


def test_a_flat_without_a_filter(decam):
    with pytest.raises(HeaderError, match=r"no filter: .*FILTER.* blank \(write the card, or leave the file"):
        decam.read_facts({**CARDS, "OBSTYPE": "dome flat", "FILTER": ""})


@pytest.mark.parametrize(
    ("name", "short", "band"),
    [
        ("u DECam c0006 3500.0 1000.0", "u", "u"),
        ("g DECam SDSS c0001 4720.0 1520.0", "g", "g"),
        ("Y DECam c0005 10095.0 1130.0", "Y", "y"),
        ("VR DECam c0007 6300.0 2600.0", "VR", "r"),
        ("N964 DECam c0008 9645.0 94.0", "N964", "z"),
        ("solid plate 0.0 0.0", "solid", "solid"),
    ],
)
def test_filters(decam, name, short, band):
    assert decam.read_facts({**CARDS, "FILTER": name}).filter == short
    assert decam.band_of(short) == band


@pytest.mark.parametrize(
    "name",
    [
        "c4d_130422_080530_ori.fits.fz", "c4d_130422_080530_ori.fits", "raw/c4d_130422_080530_zri.fits.fz",
        "c4d_130422_080530_ooi_z_v1.fits.fz", "c4d_130422_080530_ood_z_v1.fits.fz", "DECam_00200666.fits.fz",
    ],
)  # fmt: skip
def test_its_files_are_known_by_name(decam, name):
    assert guess_instrument(name) == "decam"


def test_its_files_are_known_by_header(decam):
    assert guess_instrument("whatever.fits", CARDS) == "decam"
    with pytest.raises(NotFoundError):
        guess_instrument("c4d_130422_080530_opi_z_v1.fits.fz")  # resampled: no CCD's pixels


# --- Raw sections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_amplifiers_are_where_the_cards_say(decam, tmp_path, packed):
    path = write(tmp_path / "c4d_130422_080530_ori.fits.fz", packed=packed)
    sections = decam.fetch_sections(dateobs=56404.3)
    for name, order in (("N4", "AB"), ("S7", "BA")):
        raw = decam.load_raw_frame(path, name, sections)
        assert (raw.data.dtype, raw.data.shape, raw.image_shape) == (np.uint16, (60, 2160), (40, 2048))
        first = 0 if name == "N4" else 20
        left, right = (next(a for a in raw.amplifiers if a.name == n) for n in order)
        assert (left.raw, left.image) == ((first, first + 40, 56, 1080), (0, 40, 0, 1024))
        assert (right.raw, right.image) == ((first, first + 40, 1080, 2104), (0, 40, 1024, 2048))
        assert left.overscan == (first, first + 40, 6, 56)
        assert right.overscan == (first, first + 40, 2104, 2154)
        assert (left.mirrored, right.mirrored) == (False, True)
        a, b = raw.amplifiers
        assert (a.gain, a.read_noise_e, a.saturation_adu) == (4.1, 6.1, 43266.0)
        assert (b.gain, b.read_noise_e, b.saturation_adu) == (3.9, 6.3, 44935.0)
        assert a.non_linear_adu == b.non_linear_adu == 22000.0
        assert [a.defective, b.defective] == [name == "S7", False]  # the gain of S7 A is not stable
        assert raw.prepared is None
        assert raw.exposure_time_s == 100.0


def test_what_the_cards_do_not_say_is_nominal(decam, tmp_path):
    lost = ("GAINA", "GAINB", "RDNOISEA", "RDNOISEB", "SATURATA", "SATURATB", "AMPSECA", "AMPSECB", "VALIDA")
    path = write(tmp_path / "a.fits.fz", own=dict.fromkeys(lost) | {"VALIDB": False})
    a, b = decam.load_raw_frame(path, "N4", decam.fetch_sections()).amplifiers
    for amplifier in (a, b):
        assert (amplifier.gain, amplifier.read_noise_e, amplifier.saturation_adu) == (4.0, 7.0, 44000.0)
    assert (a.mirrored, b.mirrored) == (False, True)
    assert (a.defective, b.defective) == (False, True)  # the readout says that its data are not valid


def test_a_window_of_a_ccd(decam, tmp_path):
    own = {
        "DATASECA": "[57:80,1:40]", "BIASSECA": "[7:56,1:40]", "CCDSECA": "[1001:1024,301:340]",
        "DATASECB": "[81:104,1:40]", "BIASSECB": "[105:154,1:40]", "CCDSECB": "[1025:1048,301:340]",
    }  # fmt: skip
    raw = decam.load_raw_frame(write(tmp_path / "a.fits.fz", ("N4",), own=own), "N4", decam.fetch_sections())
    assert raw.image_shape == (40, 48)
    assert [a.image for a in raw.amplifiers] == [(0, 40, 0, 24), (0, 40, 24, 48)]


@pytest.mark.parametrize("lost", ["DATASECA", "BIASSECB", "CCDSECA"])
def test_a_missing_section_card_is_named(decam, tmp_path, lost):
    path = write(tmp_path / "a.fits.fz", own={lost: None})
    with pytest.raises(HeaderError, match=f"N4: the card {lost} is missing"):
        decam.load_raw_frame(path, "N4", decam.fetch_sections())


def test_a_section_is_read_with_one_opening_of_its_file(decam, tmp_path, monkeypatch):
    path = write(tmp_path / "a.fits.fz")
    opened = []
    really_open = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self) or really_open(self, *a, **k))
    decam.load_raw_frame(path, "S7", decam.fetch_sections())
    assert opened == [path]


# --- What the simulator writes --------------------------------------------------------------------


def test_the_simulator_s_exposures_are_understood(exposures):
    assert set(exposures) == {"science", "bias", "dark", "flat"}
    for kind, exposure in exposures.items():
        assert exposure.instrument == "decam"
        assert (exposure.filter is None) == (kind in {"bias", "dark"})
        lost = exposure.instrument_object.find_unreadable_sections(exposure.get_fullpath())
        assert set(exposure.sections) - set(lost) == {"N4", "S29", "S7", "N30"}  # N30 is dead: not missed
    raw = exposures["science"].load_raw_frame("S29")
    sky, zero = exposures["science"], exposures["bias"].load_raw_frame("S29")
    assert raw.image_shape == (512, 256)
    for amplifier in raw.amplifiers:
        level = np.median(raw.data[amplifier.raw.slices])
        pedestal = np.median(raw.data[amplifier.overscan.slices])
        assert level > pedestal + 50
        assert np.median(zero.data[amplifier.raw.slices]) == pytest.approx(pedestal, abs=20)
    assert sky.night == exposures["flat"].night


def test_ccds_look_where_the_simulator_put_them(exposures, survey):
    truth = load_truth(survey).epochs
    exposure = exposures["science"]
    for name in ("N4", "S29", "S7"):
        hint = exposure.get_pointing_hint(name)
        here = (truth["section"] == name) & (truth["file"] == exposure.filename.split("/")[-1])
        stars = truth[here]
        assert len(stars) > 5
        east = (np.asarray(stars["ra"]) - hint.ra) * np.cos(np.radians(hint.dec)) * 3600
        north = (np.asarray(stars["dec"]) - hint.dec) * 3600
        # The nominal place, scale and orientation alone tell where a star is in the window.
        x = 127.5 - north / hint.pixel_scale_arcsec
        y = 255.5 + east / hint.pixel_scale_arcsec
        assert np.median(np.abs(x - stars["x"])) * 0.263 < 15
        assert np.median(np.abs(y - stars["y"])) * 0.263 < 15


def test_a_ccd_at_the_edge_of_a_far_southern_field_is_solved(decam, tmp_path):
    """Raw file to astrometric solution; at declination -70 north is 2.6 degrees askew on this CCD."""
    options = SurveyOptions(
        camera="decam", section_names=("N7",), window_pix=(768, 768), dec_deg=-70.0, exposures=1, nights=1,
        reference_exposures=0, n_bias=0, n_dark=0, n_flat=0, transients=0, variables=0, asteroids=0,
        satellites=0.0,
    )  # fmt: skip
    simulate_survey(tmp_path, options)
    import_table(tmp_path / "catalog.ecsv", "stars", tmp_path / "catalogs", epoch=2016.0)
    (file,) = (tmp_path / "raw").glob("*_ori.fits.fz")
    facts = decam.read_facts(decam.read_header(file))
    sections = decam.get_sections(dateobs=facts.mjd)
    raw = decam.load_raw_frame(file, "N7", sections)
    steps = dict.fromkeys(("do_bias", "do_dark", "do_flat", "do_bad_pixels"), False)
    image = preprocess(raw, Masters(), PreprocessParams(**steps))
    hint = decam.get_pointing_hint(facts.ra, facts.dec, "N7", sections)
    assert hint.rotation_deg == pytest.approx(87.4, abs=0.1)
    cone = query_radius_deg(hint, raw.image_shape)
    stars = LocalCatalog(tmp_path / "catalogs", "stars").query(hint.ra, hint.dec, cone, "r", None, 2026.1)
    solution = solve(extract(image, ExtractParams()).sources, stars, hint, raw.image_shape)
    sky = SkyCoord(*solution.wcs.all_pix2world([383.5, 383.5], [383.5, 393.5], 0), unit="deg")
    assert sky[0].separation(SkyCoord(hint.ra, hint.dec, unit="deg")).arcsec < 60
    assert sky[0].position_angle(sky[1]).deg == pytest.approx(hint.rotation_deg, abs=1.0)


# --- Groups of files ------------------------------------------------------------------------------


def test_image_mask_and_weight_belong_together(decam, tmp_path):
    names = [f"c4d_170316_062107_oo{r}_z_ls9.fits.fz" for r in "idw"]
    for name in (*names, "c4d_170316_062107_ooi_z_v1.fits.fz", "c4d_170316_062107_ori.fits.fz"):
        (tmp_path / name).touch()
    for name in names:
        common, rest = decam.group_files(tmp_path / name)
        assert [common + r for r in rest] == names
    for alone in ("c4d_170316_062107_ooi_z_v1.fits.fz", "c4d_170316_062107_ori.fits.fz", "x.fits"):
        assert decam.group_files(tmp_path / alone) is None
    (tmp_path / names[1]).unlink()
    common, rest = decam.group_files(tmp_path / names[2])
    assert [common + r for r in rest] == [names[0], names[2]]
    (tmp_path / names[0]).unlink()
    with pytest.raises(UserError, match=r"its image c4d_170316_062107_ooi_z_ls9\.fits\.fz is not"):
        decam.group_files(tmp_path / names[2])


def test_missing_and_cut_sections(database, tmp_path):
    whole = write(tmp_path / "in" / "c4d_130422_080530_ori.fits.fz", ("N4", "S7", "N5"))
    exposure = ingest(whole, database)
    assert set(exposure.sections) - set(exposure.unreadable_sections) == {"N4", "S7", "N5", "N30"}
    assert exposure.bitflag == ExposureFlag.SECTIONS_LOST
    with pytest.raises(SectionMissingError, match="no extension 'N6'"):
        exposure.load_raw_frame("N6")
    with pytest.raises(DeadSection):
        exposure.load_raw_frame("N30")
    cut = tmp_path / "in" / "c4d_130422_090000_ori.fits.fz"
    with fits.open(whole) as units:
        start = units["N5"].fileinfo()["datLoc"]
    cut.write_bytes(whole.read_bytes()[: start + 100].replace(b"20130422t08", b"20130422t09"))
    found = ingest(cut, database).unreadable_sections
    assert "ends before the image of extension 'N5' does" in found["N5"]
    empty = write(tmp_path / "in" / "c4d_130422_100000_ori.fits.fz", ())
    with pytest.raises((SectionMissingError, FileDamagedError)):
        ingest(empty, database)
