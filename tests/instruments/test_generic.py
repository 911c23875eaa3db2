"""Small telescopes described in a few lines, and two real ones where their files are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.time import Time

from seechange_core import Exposure
from seechange_core.errors import HeaderError, SettingsError
from seechange_core.instrument import get_instrument_instance
from seechange_core.products.ingest import ingest
from seechange_core.settings import load_settings, use_settings

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
    with pytest.raises(HeaderError, match="state ra and dec in the instrument's settings"):
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
        ({"time_scale": "local"}, "utc_offset_hours goes with time_scale local"),
        ({"utc_offset_hours": 3}, "utc_offset_hours goes with time_scale local"),
        ({"constants": {"ra": 3.0}}, "need both ra and dec"),
        ({"constants": {"gain": 3.0}}, r"instruments\.backyard\.constants: .*'gain' is none of"),
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
