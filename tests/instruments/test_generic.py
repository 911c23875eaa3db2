"""Small telescopes described in a few lines, and two real ones where their files are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.coordinates import FK5, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time

from seechange_core import Exposure
from seechange_core.errors import HeaderError, SettingsError
from seechange_core.flags import CalibrationStep
from seechange_core.frames import Masters
from seechange_core.instrument import get_instrument_instance
from seechange_core.products.ingest import ingest
from seechange_core.settings import load_settings, use_settings
from seechange_core.stages.preprocess import PreprocessParams, preprocess

ROOT = Path(__file__).parents[2]
REAL_DATA = Path(os.environ.get("SEECHANGE_REAL_DATA", "/nonexistent"))
real_data = pytest.mark.skipif(
    not (REAL_DATA / "tres1").is_dir(), reason="SEECHANGE_REAL_DATA names no folder with real files"
)

BACKYARD = {
    "kind": "generic",
    "latitude_deg": 39.0,
    "longitude_deg": -77.0,
    "time_scale": "utc",
    "time_refers_to": "start",
    "pixel_scale_arcsec": 2.0,
    "read_noise": 9.0,
    "filename_regex": "^by_",
}
HEADER = {
    "DATE-OBS": "2012-06-17T01:56:40",
    "EXPTIME": 60.0,
    "IMAGETYP": "Light Frame",
    "FILTER": "Filter 2",
    "EGAIN": 0.78,
}


@pytest.fixture
def describe(tmp_path):
    """Make the settings' instrument 'backyard' with changed options; None removes one."""
    stack = []

    def make(**options):
        stated = {k: v for k, v in {**BACKYARD, **options}.items() if v is not None}
        path = tmp_path / "settings.yaml"
        values = {"path": {"data_root": str(tmp_path / "data")}, "instruments": {"backyard": stated}}
        path.write_text(yaml.safe_dump(values))
        stack.append(use_settings(load_settings(path, environ={})))
        stack[-1].__enter__()
        return get_instrument_instance("backyard")

    yield make
    for used in reversed(stack):
        used.__exit__(None, None, None)


def take(tmp_path, pixels=None, name="by_1.fits", **cards):
    header = fits.Header()
    header.update({k: v for k, v in {**HEADER, **cards}.items() if v is not None})
    path = tmp_path / "data" / name
    path.parent.mkdir(exist_ok=True)
    image = np.full((20, 30), 500, np.uint16) if pixels is None else pixels
    fits.PrimaryHDU(image, header=header).writeto(path, overwrite=True)
    return Exposure(name)


def test_a_few_lines_are_enough(describe, tmp_path):
    describe(constants={"ra": 286.0409, "dec": 36.6325, "target": "TrES-1"}, search_radius_arcmin=12.0)
    exposure = take(tmp_path)
    assert (exposure.instrument, exposure.type, exposure.filter) == ("backyard", "science", "Filter 2")
    assert (exposure.ra, exposure.dec, exposure.target) == (286.0409, 36.6325, "TrES-1")
    assert exposure.night == "2012-06-16"
    raw = exposure.load_raw_frame(0)
    (amplifier,) = raw.amplifiers
    assert (amplifier.gain, amplifier.read_noise_e, amplifier.saturation_adu) == (0.78, 9.0, 65535.0)
    assert (amplifier.raw, amplifier.overscan) == ((0, 20, 0, 30), None)
    hint = exposure.get_pointing_hint(0)
    assert (hint.radius_arcmin, hint.pixel_scale_arcsec, hint.rotation_deg, hint.parity) == (
        12.0,
        2.0,
        None,
        None,
    )


def test_without_any_pointing_there_is_no_hint(describe, tmp_path):
    describe()
    exposure = take(tmp_path)
    assert exposure.ra is None
    with pytest.raises(
        HeaderError, match=r"nothing says where .*the cards RA and DEC, or state .* constants in"
    ):
        exposure.get_pointing_hint(0)


@pytest.mark.parametrize(
    ("options", "cards", "start"),
    [
        ({}, {}, "2012-06-17T01:56:40"),
        ({"time_refers_to": "middle"}, {}, "2012-06-17T01:56:10"),
        ({"time_refers_to": "end"}, {}, "2012-06-17T01:55:40"),
        ({"time_scale": "local", "utc_offset_hours": -4}, {}, "2012-06-17T05:56:40"),
        ({"time_scale": "tai"}, {}, "2012-06-17T01:56:06"),  # 34 leap seconds by then
        (
            {"time_cards": ["DATE-OBS", "UT"]},
            {"DATE-OBS": "2012-06-17", "UT": "01:00:00"},
            "2012-06-17T01:00:00",
        ),
        ({"time_cards": ["JD"], "time_format": "jd"}, {"JD": 2456095.75}, "2012-06-17T06:00:00"),
        ({"time_cards": ["MJD"], "time_format": "mjd"}, {"MJD": 56095.25}, "2012-06-17T06:00:00"),
    ],
)
def test_clocks_are_read_as_stated(describe, tmp_path, options, cards, start):
    describe(**options)
    exposure = take(tmp_path, **cards)
    assert exposure.mjd == pytest.approx(Time(start).mjd, abs=1e-8)
    assert (exposure.mjd_mid - exposure.mjd) * 86400 == pytest.approx(30.0, abs=1e-4)


LEAP = "2016-12-31T23:59:60.500"


@pytest.mark.parametrize(
    ("options", "cards", "start"),
    [
        ({}, {"DATE-OBS": LEAP}, LEAP),
        ({}, {"DATE-OBS": "2016-12-31T23:59:59.5"}, "2016-12-31T23:59:59.5"),
        # The leap second came at one in the morning in Berlin, and at seven in the evening in New York.
        ({"time_scale": "local", "utc_offset_hours": 1}, {"DATE-OBS": "2017-01-01T00:59:60.5"}, LEAP),
        ({"time_scale": "local", "utc_offset_hours": -5}, {"DATE-OBS": "2016-12-31T18:59:60.5"}, LEAP),
        # A clock that is hours ahead was so before and after.
        (
            {"time_scale": "local", "utc_offset_hours": 3},
            {"DATE-OBS": "2017-01-01T02:00:00"},
            "2016-12-31T23:00:00",
        ),
        (
            {"time_scale": "local", "utc_offset_hours": -3},
            {"DATE-OBS": "2016-12-31T22:00:00"},
            "2017-01-01T01:00:00",
        ),
        ({"time_scale": "local", "utc_offset_hours": 5.75}, {"DATE-OBS": "2016-12-31T03:00:00"},
         "2016-12-30T21:15:00"),
        ({"time_scale": "tai"}, {"DATE-OBS": "2017-01-01T00:00:36.5"}, LEAP),
        ({"time_scale": "tt"}, {"DATE-OBS": "2017-01-01T00:01:08.684"}, LEAP),
        # An exposure of 60 s that the leap second made end one second later on the clock.
        ({"time_refers_to": "end"}, {"DATE-OBS": "2017-01-01T00:00:10"}, "2016-12-31T23:59:11"),
        ({"time_refers_to": "middle"}, {"DATE-OBS": "2017-01-01T00:00:10"}, "2016-12-31T23:59:41"),
        # What rounding makes of 59.999.
        ({}, {"DATE-OBS": "2015-03-01T12:30:60"}, "2015-03-01T12:31:00"),
        (
            {"time_cards": ["DATE-OBS", "UT"]},
            {"DATE-OBS": "2013-06-28", "UT": " 0:39:56"},
            "2013-06-28T00:39:56",
        ),
    ],
)  # fmt: skip
def test_leap_seconds_and_clocks_of_other_zones(describe, tmp_path, options, cards, start):
    describe(**options)
    exposure = take(tmp_path, **cards)
    want = Time(start, scale="utc")
    assert (Time(exposure.mjd, format="mjd", scale="utc") - want).sec == pytest.approx(0.0, abs=1e-4)
    middle = Time(exposure.mjd_mid, format="mjd", scale="utc")
    assert (middle - want).sec == pytest.approx(30.0, abs=1e-4)  # seconds that passed


@pytest.mark.parametrize("wrong", ["2016-12-31T23:59:61", "2016-12-31T24:00:00", "31/12/16", "2016-12-31T5"])
def test_what_is_no_time_is_refused(describe, tmp_path, wrong):
    describe()
    with pytest.raises(HeaderError, match=r"time of observation: .* is not a time"):
        take(tmp_path, **{"DATE-OBS": wrong})


@pytest.mark.parametrize(
    ("clock", "offset", "utc"),
    [
        ("22:30:00", None, "2012-06-17T22:30:00"),  # at 77 W that is the evening: 17:22
        ("03:30:00", None, "2012-06-18T03:30:00"),
        ("10:00:00", None, "2012-06-18T10:00:00"),
        ("16:59:00", None, "2012-06-18T16:59:00"),  # the end of that night is local noon
        ("17:20:00", None, "2012-06-17T17:20:00"),
        ("23:30:00", -5, "2012-06-18T04:30:00"),
        ("04:30:00", -5, "2012-06-18T09:30:00"),
        ("18:30:00", -5, "2012-06-17T23:30:00"),
    ],
)
def test_a_date_that_is_the_evening_s(describe, tmp_path, clock, offset, utc):
    zone = {} if offset is None else {"time_scale": "local", "utc_offset_hours": offset}
    describe(time_cards=["DATE-OBS", "UT"], date_is_of="evening", **zone)
    exposure = take(tmp_path, **{"DATE-OBS": "2012-06-17", "UT": clock})
    assert exposure.mjd == pytest.approx(Time(utc).mjd, abs=1e-9)
    assert exposure.night == "2012-06-17"


def test_what_others_did_before(describe, tmp_path):
    describe(prepared_steps=["overscan", "flat"])
    raw = take(tmp_path).load_raw_frame(0)
    assert raw.prepared.steps == CalibrationStep.OVERSCAN | CalibrationStep.FLAT
    describe()
    assert take(tmp_path).load_raw_frame(0).prepared is None


def test_a_date_without_a_time_is_refused(describe, tmp_path):
    describe()
    with pytest.raises(HeaderError, match="DATE-OBS = '2012-06-17' is a date without a time"):
        take(tmp_path, **{"DATE-OBS": "2012-06-17"})
    with pytest.raises(HeaderError, match="the header has no card DATE-OBS"):
        take(tmp_path, **{"DATE-OBS": None})


def test_names_of_types_filters_bands_and_cards(describe, tmp_path):
    camera = describe(
        image_types={"Snapshot": "science"},
        filters={"Filter 2": "V"},
        bands={"V": "VT"},
        cards={"gain": "CCDGAIN", "read_noise": ["RON", "NOISE"], "filter": "GLASS"},
        constants={"filter": "clear"},
    )
    exposure = take(tmp_path, IMAGETYP="snapshot", GLASS="Filter 2", CCDGAIN=1.25, NOISE=4.5)
    assert (exposure.type, exposure.filter) == ("science", "V")
    assert camera.band_of("V") == "VT"
    assert camera.band_of("clear") == "clear"
    amplifier = exposure.load_raw_frame(0).amplifiers[0]
    assert (amplifier.gain, amplifier.read_noise_e) == (1.25, 4.5)
    assert take(tmp_path, IMAGETYP="light frame").filter == "clear"
    assert take(tmp_path, IMAGETYP="Dark Frame").type == "dark"


@pytest.mark.parametrize(
    ("unit", "value", "degrees"), [("hours", 1.5, 22.5), ("deg", 22.5, 22.5), ("hours", "01:30:00", 22.5)]
)
def test_right_ascension_in_either_unit(describe, tmp_path, unit, value, degrees):
    describe(ra_unit=unit)
    assert take(tmp_path, RA=value, DEC="-10:30:00").ra == pytest.approx(degrees)
    assert take(tmp_path, RA=value, DEC="-10:30:00").dec == pytest.approx(-10.5)


def test_trim_and_overscan(describe, tmp_path):
    pixels = np.full((20, 30), 300, np.uint16)
    pixels[:, 5:25] = 1000
    describe(data_section="TRIMSEC", overscan_section="[1:4,1:20]")
    raw = take(tmp_path, pixels, TRIMSEC="[6:25,1:20]").load_raw_frame(0)
    (amplifier,) = raw.amplifiers
    assert np.all(raw.data[amplifier.raw.slices] == 1000)
    assert np.all(raw.data[amplifier.overscan.slices] == 300)
    assert raw.image_shape == (20, 20)
    with pytest.raises(HeaderError, match="no card TRIMSEC"):
        take(tmp_path, pixels).load_raw_frame(0)


def test_a_gain_that_nobody_knows(describe, tmp_path):
    describe()
    with pytest.raises(HeaderError, match="the gain of the section is None"):
        take(tmp_path, EGAIN=None).load_raw_frame(0)


def test_an_image_in_an_extension_has_the_primary_header_too(describe, tmp_path):
    describe()
    path = tmp_path / "data" / "by_2.fits.fz"
    path.parent.mkdir(exist_ok=True)
    image = fits.CompImageHDU(np.full((20, 30), 7, np.uint16), header=fits.Header({"EGAIN": 2.0}))
    header = fits.Header({k: v for k, v in HEADER.items() if k != "EGAIN"})
    fits.HDUList([fits.PrimaryHDU(header=header), image]).writeto(path)
    exposure = Exposure("by_2.fits.fz")
    assert exposure.name == "by_2"
    assert exposure.load_raw_frame(0).amplifiers[0].gain == 2.0
    assert exposure.data[0].dtype == np.uint16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"latitude_deg": None}, r"instruments\.backyard\.latitude_deg: Field required"),
        ({"time_scale": None}, r"instruments\.backyard\.time_scale"),
        ({"time_refers_to": "dawn"}, r"instruments\.backyard\.time_refers_to"),
        ({"time_scale": "local"}, "one of utc_offset_hours and timezone goes with"),
        ({"utc_offset_hours": 3}, "one of utc_offset_hours and timezone goes with"),
        ({"constants": {"ra": 3.0}}, "need both ra and dec"),
        ({"constants": {"gain": 3.0}}, r"instruments\.backyard\.constants: .*'gain' is none of"),
        ({"date_is_of": "evening", "time_format": "jd"}, "date_is_of goes with time_format iso"),
        ({"prepared_steps": ["gain"]}, r"instruments\.backyard\.prepared_steps"),
        ({"cards": {"colour": "X"}}, r"instruments\.backyard\.cards"),
        ({"image_types": {"X": "light"}}, r"instruments\.backyard\.image_types"),
        ({"filename_regex": "("}, r"instruments\.backyard\.filename_regex: .*not a regular expression"),
        ({"telescop": "X"}, r"instruments\.backyard\.telescop: "),
        ({"pixel_scale_arcsec": -1}, r"instruments\.backyard\.pixel_scale_arcsec"),
    ],
)
def test_wrong_options_name_the_key(describe, options, words):
    with pytest.raises(SettingsError, match=words):
        describe(**options)


# --- Real telescopes --------------------------------------------------------------------------------


@pytest.fixture
def worked_example(tmp_path):
    """The settings of the README's worked example, with the data root moved."""
    moved = {"SEECHANGE_PATH__DATA_ROOT": str(tmp_path / "data")}
    with use_settings(load_settings(ROOT / "docs" / "tres1.yaml", environ=moved)) as settings:
        yield settings


def test_the_worked_example_is_valid(worked_example):
    camera = get_instrument_instance("tres1")
    assert camera.pixel_scale_arcsec == 2.374
    assert camera.site.longitude_deg < 0


@real_data
def test_every_frame_of_a_transit_is_registered(worked_example):
    from seechange_core.storage.engine import dispose_engines, get_engine
    from seechange_core.storage.orm import Base

    Base.metadata.create_all(get_engine(worked_example))
    files = sorted((REAL_DATA / "tres1").glob("*.fit.gz"))
    exposures = [ingest(f, worked_example) for f in (*files[:2], *files[10:12])]
    dispose_engines()
    assert [e.type for e in exposures] == ["dark", "dark", "science", "science"]
    assert [e.name for e in exposures[2:]] == ["tres1-021", "tres1-029"]
    for exposure in exposures:
        assert (exposure.instrument, exposure.night, exposure.exp_time) == ("tres1", "2012-06-16", 60.0)
        # DATE-OBS against the header's own JD, which MaxIm writes for the start of the exposure.
        assert exposure.mjd + 2400000.5 == pytest.approx(exposure.raw_header["JD"], abs=1e-6)
    light = exposures[2]
    assert (light.filter, light.ra, light.dec, light.target) == ("F2", 286.0409, 36.6325, "TrES-1")
    assert light.instrument_object.band_of("F2") == "VT"
    raw = light.load_raw_frame(0)
    assert (raw.data.shape, raw.data.dtype) == ((736, 1092), np.uint16)
    assert raw.amplifiers[0].gain == 1.3  # as stated: the header says 0.78, which the noise contradicts
    assert np.median(raw.data) > np.median(exposures[0].load_raw_frame(0).data)  # a sky over a dark


@real_data
def test_a_raw_frame_with_overscan_of_another_camera(describe, tmp_path):
    describe(
        latitude_deg=-32.38, longitude_deg=20.81, elevation_m=1760, filename_regex=None,
        match_cards={"INSTRUME": "STE3 CCD"}, time_cards=["DATE-OBS", "UT"], pixel_scale_arcsec=0.31,
        read_noise=None, cards={"filter": "FILTERS"}, filters={"48": "I"},
        data_section="TRIMSEC", overscan_section="BIASSEC",
    )  # fmt: skip
    (tmp_path / "data").mkdir()
    name = "a8280271.fits"
    (tmp_path / "data" / name).write_bytes((REAL_DATA / "saao_raw" / name).read_bytes())
    exposure = Exposure(name)
    assert (exposure.type, exposure.filter, exposure.night) == ("science", "I", "2013-07-12")
    assert exposure.ra == pytest.approx(exposure.raw_header["RA_OBS"], abs=1e-3)
    assert exposure.dec == pytest.approx(exposure.raw_header["DEC_OBS"], abs=1e-3)
    assert exposure.airmass == 1.176
    raw = exposure.load_raw_frame(0)
    (amplifier,) = raw.amplifiers
    assert (amplifier.gain, amplifier.read_noise_e, raw.image_shape) == (1.9, 5.0, (520, 512))
    overscan, data = raw.data[amplifier.overscan.slices], raw.data[amplifier.raw.slices]
    assert overscan.shape == (520, 10)
    assert np.median(overscan) < np.median(data)
    # The scatter along the rows of the overscan is the read noise that the header states: 5.8 e- are seen.
    noise_e = float(np.sqrt(np.mean(np.var(overscan.astype(float), axis=1, ddof=1)))) * amplifier.gain
    assert noise_e == pytest.approx(5.0, rel=0.2)


@real_data
def test_every_frame_of_a_microlensing_event_is_registered(database):
    """Of many nights: the date is that of the UT, the time in another card, BIASSEC and TRIMSEC are stale."""
    example = load_settings(ROOT / "docs" / "kb13475.yaml", environ={})
    settings = database.model_copy(update={"instruments": example.instruments})
    files = sorted((REAL_DATA / "kb13475").glob("*.fits.gz"))
    with use_settings(settings):
        exposures = [ingest(f, settings) for f in files]
        raw = exposures[0].load_raw_frame(0)
    image = preprocess(raw, Masters(), settings.params(PreprocessParams, "preprocess", "kb13475"))
    assert len({e.name for e in exposures}) == len(files) == 62
    # A night is what lies between gaps of hours.
    starts = sorted(e.raw_header["MJD-OBS"] for e in exposures)
    assert len({e.night for e in exposures}) == 1 + np.sum(np.diff(starts) > 0.4) == 17
    site = EarthLocation.from_geodetic(20.81, -32.38, 1760)
    for exposure in exposures:
        assert (exposure.instrument, exposure.type, exposure.filter) == ("kb13475", "science", "I")
        assert (exposure.target, exposure.telescope) == ("KB13475", "SAAO 1.0m")
        # The observers' own start, in the header to 0.9 s, and their heliocentric middle.
        header = exposure.raw_header
        assert exposure.mjd == pytest.approx(header["MJD-OBS"], abs=1.1e-5)
        assert exposure.ra == pytest.approx(header["RA_OBS"], abs=1e-4)
        assert exposure.dec == pytest.approx(header["DEC_OBS"], abs=1e-4)
        middle = Time(exposure.mjd_mid, format="mjd", scale="utc", location=site)
        field = SkyCoord(exposure.ra, exposure.dec, unit="deg")
        heliocentric = middle.utc.jd + middle.light_travel_time(field, "heliocentric", ephemeris="builtin").jd
        assert heliocentric == pytest.approx(header["PHJDMID"], abs=2.0 / 86400)
    (amplifier,) = raw.amplifiers
    assert (raw.image_shape, amplifier.overscan) == ((512, 512), None)
    assert (amplifier.gain, amplifier.read_noise_e, amplifier.saturation_adu) == (1.9, 5.0, 65000.0)
    done = CalibrationStep.OVERSCAN | CalibrationStep.BIAS | CalibrationStep.FLAT
    assert raw.prepared.steps == done
    assert (
        image.calibration_steps & (done | CalibrationStep.DARK | CalibrationStep.GAIN)
        == done | CalibrationStep.GAIN
    )


# --- Clocks of a place, and other equinoxes ----------------------------------------------------------


BERLIN = {"time_scale": "local", "timezone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("clock", "utc"),
    [
        ("2012-01-17T01:00:00", "2012-01-17T00:00:00"),
        ("2012-06-17T01:00:00", "2012-06-16T23:00:00"),
        ("2012-03-25T01:59:59", "2012-03-25T00:59:59"),  # the last second of winter
        ("2012-03-25T03:00:00", "2012-03-25T01:00:00"),
        ("2012-10-28T01:59:59", "2012-10-27T23:59:59"),
        ("2012-10-28T03:00:00", "2012-10-28T02:00:00"),
    ],
)
@pytest.mark.parametrize("form", ["iso", "mjd", "jd"])
def test_a_clock_with_summer_time(describe, tmp_path, clock, utc, form):
    number = Time(clock).mjd + (2400000.5 if form == "jd" else 0.0)
    describe(**BERLIN, time_format=form)
    exposure = take(tmp_path, **{"DATE-OBS": clock if form == "iso" else number})
    assert (Time(exposure.mjd, format="mjd") - Time(utc)).sec == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("clock", "times"), [("2012-10-28T02:30:00", "twice"), ("2012-03-25T02:30:00", "never")]
)
def test_times_that_a_clock_showed_twice_or_never(describe, tmp_path, clock, times):
    describe(**BERLIN)
    with pytest.raises(HeaderError, match=rf"Europe/Berlin showed .* {times}.*utc_offset_hours"):
        take(tmp_path, **{"DATE-OBS": clock})


def test_the_evening_s_date_on_the_night_of_the_change(describe, tmp_path):
    describe(**BERLIN, date_is_of="evening", longitude_deg=13.0, time_cards=["DATE-OBS", "LT"])
    exposure = take(tmp_path, **{"DATE-OBS": "2012-10-27", "LT": "04:00:00"})
    assert (Time(exposure.mjd, format="mjd") - Time("2012-10-28T03:00:00")).sec == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time_scale": "local", "timezone": "Europe/Berlim"}, "no IANA time zone"),
        ({**BERLIN, "utc_offset_hours": 1}, "one of utc_offset_hours and timezone"),
        ({"timezone": "Europe/Berlin"}, "one of utc_offset_hours and timezone"),
        ({"equinox": 20}, "an equinox is a year"),
    ],
)
def test_wrong_clocks_and_equinoxes(describe, options, words):
    with pytest.raises(SettingsError, match=words):
        describe(**options)


def test_the_header_s_time_scale_counts_if_the_settings_say_so(describe, tmp_path):
    describe(time_scale="header")
    assert take(tmp_path, TIMESYS="TAI").mjd == pytest.approx(Time("2012-06-17T01:56:06").mjd, abs=1e-8)
    describe()
    assert take(tmp_path, TIMESYS="TAI").mjd == pytest.approx(Time("2012-06-17T01:56:40").mjd, abs=1e-8)


@pytest.mark.parametrize("equinox", ["date", 2012.46])
def test_the_equinox_that_the_settings_state(describe, tmp_path, equinox):
    of_date = SkyCoord(286.0, 36.6, unit="deg").transform_to(FK5(equinox=Time(2012.46, format="jyear")))
    describe(equinox=equinox)
    exposure = take(tmp_path, RA=of_date.ra.deg, DEC=of_date.dec.deg, EQUINOX=2000.0)
    assert (exposure.ra, exposure.dec) == pytest.approx((286.0, 36.6), abs=2e-5)
    describe(equinox=equinox, constants={"ra": 286.0, "dec": 36.6})
    exposure = take(tmp_path)
    assert (exposure.ra, exposure.dec) == (286.0, 36.6)
