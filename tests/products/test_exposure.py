"""Exposures: the user's own snippets, where files are, headers, and sections by date."""

import pickle
import re

import numpy as np
import pytest
from astropy.io import fits
from sqlalchemy import event, select

from seechange_core import Exposure, SensorSection
from seechange_core.errors import FileDamagedError, HeaderError, NotFoundError, PixelsError, UserError
from seechange_core.instrument import INSTRUMENT_INSTANCE_CACHE, get_instrument_instance
from seechange_core.products.exposure import EXPOSURE_HEADER_KEYS, SectionData, SectionHeaders, name_of
from seechange_core.settings import use_settings
from seechange_core.storage.engine import get_engine

PRIMARY = {
    "TELESCOP": "DemoScope",
    "INSTRUME": "DemoCam",
    "OBSTYPE": "science",
    "DATE-OBS": "2021-01-01T02:00:00.000",
    "EXPTIME": 60.0,
    "FILTER": "r",
    "OBJECT": "field 1",
    "PROPID": "2021A-1",
    "RA": 0.05,
    "DEC": -30.0,
    "AIRMASS": 1.1,
    "SITELAT": -30.17,
    "SITELONG": -70.81,
    "SITEELEV": 2200.0,
}
SECTION = {
    **{"DATASECA": "[1:4,1:6]", "BIASSECA": "[5:6,1:6]", "CCDSECA": "[1:4,1:6]"},
    **{"DATASECB": "[9:12,1:6]", "BIASSECB": "[7:8,1:6]", "CCDSECB": "[5:8,1:6]"},
    **{"GAINA": 2.1, "RDNOISEA": 5.5, "GAINB": 1.9, "RDNOISEB": 5.1, "SATURATA": 60000, "SATURATB": 59000},
}
USERS_FILE = "Camera_Project_2021-01-01T00:00:00.000.fits"


def write_demo(path, sections=4, **cards):
    primary = fits.PrimaryHDU()
    primary.header.update({k: v for k, v in {**PRIMARY, **cards}.items() if v is not None})
    units = [primary]
    for i in range(sections):
        units.append(fits.ImageHDU(np.full((6, 12), 100 + i, np.uint16), name=f"SEC{i:02d}"))
        units[-1].header.update(SECTION | {"SECID": i})
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(units).writeto(path, overwrite=True)
    return path


@pytest.fixture
def root(settings):
    settings.data_root.mkdir(parents=True, exist_ok=True)
    return settings.data_root


def test_the_user_s_first_snippet(root):
    write_demo(root / USERS_FILE)
    import matplotlib.pyplot as plt

    exp = Exposure(filename="Camera_Project_2021-01-01T00:00:00.000.fits")
    figure, axes = plt.subplots()
    axes.imshow(exp.data[0])
    plt.close(figure)
    assert exp.data[0].shape == (6, 12)


def test_the_user_s_second_snippet(root):
    write_demo(root / "path/to/file.fits")
    exp = Exposure("path/to/file.fits")
    assert isinstance(exp.data, SectionData)
    assert isinstance(exp.data[0], np.ndarray)
    shapes = [exp.data[section_id].shape for section_id in exp.instrument_object.get_section_ids()]
    assert shapes == [(6, 12)] * 4


def test_the_user_s_file_naming(root):
    exp = Exposure(
        filename=USERS_FILE,
        filename_extensions=[".image", ".mask", ".weight"],
        instrument="demo",
        mjd=59215.0,
    )
    for extension in exp.filename_extensions:
        (root / (USERS_FILE + extension)).touch()
    assert exp.get_fullpath() == [str(root / (USERS_FILE + e)) for e in (".image", ".mask", ".weight")]
    exp = Exposure(
        filename="path/to/files/Camera_Project_", filename_extensions=["image.fits"], instrument="demo"
    )
    (root / "path/to/files").mkdir(parents=True)
    (root / "path/to/files/Camera_Project_image.fits").touch()
    assert exp.get_fullpath() == [
        str(root / "path/to/files/Camera_Project_image.fits")
    ]  # even if there is one


def test_filename_may_be_a_folder_and_the_extensions_whole_names(root):
    for i in range(4):
        header = fits.Header({**PRIMARY, "CHIP": i})
        (root / "a/b").mkdir(parents=True, exist_ok=True)
        fits.PrimaryHDU(np.full((6, 12), i, np.uint16), header=header).writeto(root / f"a/b/ccd{i}.fits")
    names = [f"ccd{i}.fits" for i in range(4)]
    for filename in ("a/b/", str(root / "a/b") + "/"):
        exp = Exposure(filename, filename_extensions=names)
        assert (exp.filename, exp.name, exp.exp_time) == ("a/b/", "ccd0", 60.0)
        assert exp.get_fullpath() == [str(root / "a/b" / name) for name in names]
        assert exp.raw_header["CHIP"] == 0
        assert int(exp.data[3][0, 0]) == 3
    (root / "a/b/ccd2.fits").unlink()
    with pytest.raises(FileNotFoundError, match=r"a/b/ccd2\.fits"):
        exp.get_fullpath()


@pytest.mark.parametrize("extensions", [".fits", [1, 2]])
def test_extensions_are_a_list_of_texts(root, extensions):
    with pytest.raises(UserError, match="give a list of texts"):
        Exposure("x", filename_extensions=extensions, instrument="demo")


def test_extensions_cannot_leave_the_root(root):
    with pytest.raises(UserError, match="not a path inside the data root"):
        Exposure("x/", filename_extensions=["../../y.fits"], instrument="demo")


def test_columns_come_from_the_header(root):
    write_demo(root / USERS_FILE)
    exp = Exposure(USERS_FILE)
    assert exp.instrument == "demo"
    assert exp.name == "Camera_Project_2021-01-01T00:00:00.000"
    assert (exp.type, exp.filter, exp.exp_time, exp.target) == ("science", "r", 60.0, "field 1")
    assert (exp.project, exp.telescope, exp.airmass) == ("2021A-1", "DemoScope", 1.1)
    assert exp.mjd == pytest.approx(59215 + 2 / 24)
    assert exp.mjd_mid == pytest.approx(exp.mjd + 30 / 86400)
    assert exp.night == "2020-12-31"
    assert (exp.ra, exp.dec, exp.filter_array, exp.bitflag) == (0.05, -30.0, None, 0)
    assert isinstance(exp.healpix, int)
    assert exp.healpix > 0
    ra = np.array(exp.footprint)[:, 0]
    assert ra.max() > 359  # the mosaic lies across RA 0
    assert ra.min() < 1
    assert exp.site == (-30.17, -70.81, 2200.0)
    assert Exposure(USERS_FILE, filter="g").filter == "g"  # what is given wins


def test_the_header_column_is_small_lower_case_and_repeats_no_column(root):
    write_demo(root / USERS_FILE, GAIN=2.0, COLOR="blue")
    exp = Exposure(USERS_FILE)
    assert exp.header == {"latitude_deg": -30.17, "longitude_deg": -70.81, "elevation_m": 2200.0, "gain": 2.0}
    assert set(exp.header) <= set(EXPOSURE_HEADER_KEYS)
    assert not set(exp.header) & {c.key for c in Exposure.__table__.columns}
    assert exp.raw_header["COLOR"] == "blue"


def test_an_instrument_adds_its_own_header_keys(root, monkeypatch):
    write_demo(root / USERS_FILE, DOME_AZ=12.0)
    demo = get_instrument_instance("demo")
    monkeypatch.setattr(demo, "get_auxiliary_exposure_header_keys", lambda: ["DOME_AZ", "exp_time", "mjd"])
    header = Exposure(USERS_FILE).header
    assert header["dome_az"] == 12.0
    assert not {"exp_time", "mjd"} & set(header)  # what has a column is not kept again


def test_headers_of_file_and_sections(root):
    write_demo(root / USERS_FILE)
    exp = Exposure(USERS_FILE)
    assert isinstance(exp.section_headers, SectionHeaders)
    assert [exp.section_headers[s]["SECID"] for s in exp.section_headers] == [0, 1, 2, 3]
    assert "SECID" not in exp.raw_header
    assert all(key == key.upper() for key in (*exp.raw_header, *exp.section_headers[0]))


def test_sections_are_read_once_and_when_asked_for(root, monkeypatch):
    write_demo(root / USERS_FILE)
    exp = Exposure(USERS_FILE)
    assert exp.data.loaded == {}
    first = exp.data[2]
    assert exp.data[2] is first
    assert list(exp.data) == [0, 1, 2, 3]
    assert list(exp.data.loaded) == [2]
    del exp.data[2]
    assert exp.data[2] is not first
    exp.data.clear()
    assert exp.data.loaded == {}
    for wrong in (4, "0", "SEC00"):
        with pytest.raises(NotFoundError):
            exp.data[wrong]


def test_raw_frame_and_pointing_of_a_section(root):
    write_demo(root / USERS_FILE)
    exp = Exposure(USERS_FILE)
    raw = exp.load_raw_frame(1)
    assert [(a.name, a.gain, a.read_noise_e, a.saturation_adu) for a in raw.amplifiers] == [
        ("A", 2.1, 5.5, 60000.0),
        ("B", 1.9, 5.1, 59000.0),
    ]
    assert raw.amplifiers[1].raw == (0, 6, 8, 12)
    assert raw.amplifiers[1].overscan == (0, 6, 6, 8)
    assert raw.amplifiers[1].image == (0, 6, 4, 8)
    assert (raw.image_shape, raw.exposure_time_s) == ((6, 8), 60.0)
    hint = exp.get_pointing_hint(1)  # lower right: south and west of the pointing
    assert hint.ra == pytest.approx(0.05 - 532 * 0.27 / 3600 / np.cos(np.radians(30.04)), abs=1e-4)
    assert hint.dec == pytest.approx(-30.0 - 532 * 0.27 / 3600, abs=1e-4)


# --- Paths ------------------------------------------------------------------------------------------


def test_fullpath_of_one_file(root):
    write_demo(root / USERS_FILE)
    exp = Exposure(USERS_FILE)
    assert exp.get_fullpath() == str(root / USERS_FILE)
    assert exp.get_fullpath(as_list=True) == [str(root / USERS_FILE)]
    assert Exposure(str(root / USERS_FILE)).filename == USERS_FILE


def test_local_roots_first_then_the_server(root, settings, tmp_path):
    second, server = tmp_path / "second", tmp_path / "server"
    paths = settings.path.model_copy(update={"data_root": (root, second), "server_data": str(server)})
    write_demo(server / "far.fits")
    write_demo(second / "near.fits")
    with use_settings(settings.model_copy(update={"path": paths})):
        near = Exposure("near.fits", instrument="demo")
        assert near.get_fullpath() == str(second / "near.fits")
        far = Exposure("far.fits", instrument="demo")
        with pytest.raises(FileNotFoundError, match=r"far\.fits"):
            far.get_fullpath(download=False)
        assert not (root / "far.fits").exists()
        assert far.data[3][0, 0] == 103  # lazily fetched, then lazily loaded
        assert far.get_fullpath(download=False) == str(root / "far.fits")
        far.fill_from_header()
        assert far.exp_time == 60.0
        with pytest.raises(FileNotFoundError, match=r"none\.fits"):
            Exposure("none.fits", instrument="demo").get_fullpath()


@pytest.mark.parametrize("filename", ["../x.fits", "a/../../x.fits", "", "/etc/passwd"])
def test_a_path_cannot_leave_the_root(root, filename):
    with pytest.raises(UserError):
        Exposure(filename, instrument="demo")


def test_an_exposure_needs_a_file_or_to_say_that_it_has_none(root):
    with pytest.raises(UserError, match="nofile=True"):
        Exposure()
    with pytest.raises(UserError, match="call save"):
        Exposure(nofile=True, instrument="demo").get_fullpath()


def test_one_file_per_section(root):
    extensions = [f"_{i}.fits" for i in range(4)]
    for i, extension in enumerate(extensions):
        header = fits.Header({**PRIMARY, "CHIP": i})
        fits.PrimaryHDU(np.full((6, 12), i, np.uint16), header=header).writeto(root / f"many{extension}")
    exp = Exposure("many", filename_extensions=extensions, instrument="demo")
    assert exp.name == "many"
    assert [int(exp.data[s][0, 0]) for s in exp.data] == [0, 1, 2, 3]
    assert exp.raw_header["CHIP"] == 0
    assert [exp.section_headers[s]["CHIP"] for s in exp.section_headers] == [0, 1, 2, 3]
    assert len(exp.get_fullpath()) == 4


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("raw/demo/2021/a_1.fits", "a_1"),
        ("tres1-021.fit.gz", "tres1-021"),
        ("c4d_160101_010203_ori.fits.fz", "c4d_160101_010203_ori"),
        ("M 31 (2)|x.FITS", "M_31__2__x"),
        ("a...b.fits", "a.b"),
        ("image.v2.fts.bz2", "image.v2"),
    ],
)
def test_names_can_be_partitions(filename, name):
    assert name_of(filename) == name


# --- Bad files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "value", "words"),
    [
        ("EXPTIME", None, "no exp_time: the header has none of the cards EXPTIME"),
        ("EXPTIME", "long", "exposure time = 'long' is not a number"),
        ("EXPTIME", -1.0, "negative"),
        ("OBSTYPE", None, "no type: .* OBSTYPE"),
        ("OBSTYPE", "snapshot", "image type 'snapshot' is unknown"),
        ("FILTER", None, "no filter: .* FILTER"),
        ("DATE-OBS", None, "no date_obs: .* DATE-OBS"),
        ("DATE-OBS", "2021-01-01", "a date without a time"),
        ("DATE-OBS", "last night at 20:00", "is not a time"),
        ("MJD-OBS", 2459215.5, "is not an MJD"),
        ("DEC", None, "the header has ra and no dec"),
        ("DEC", 95.0, "not on the sky"),
        ("RA", "h:m:s", "ra = 'h:m:s' is not an angle"),
        ("SITELONG", "west", "longitude = 'west' is not a number"),
    ],
)
def test_a_bad_card_is_named_with_its_file(root, card, value, words):
    write_demo(root / USERS_FILE, **{card: value})
    with pytest.raises(HeaderError, match=words) as caught:
        Exposure(USERS_FILE)
    assert USERS_FILE in str(caught.value)
    assert caught.value.cure
    assert "\n" not in str(caught.value)


def test_calibration_frames_need_neither_filter_nor_pointing(root):
    write_demo(root / USERS_FILE, OBSTYPE="bias", FILTER=None, RA="none", DEC=None, EXPTIME=0.0, AIRMASS="?")
    exp = Exposure(USERS_FILE)
    assert (exp.type, exp.filter, exp.ra, exp.healpix, exp.footprint, exp.airmass) == ("bias", *[None] * 5)
    with pytest.raises(HeaderError, match="nothing says where the telescope pointed"):
        exp.get_pointing_hint(0)


def test_what_is_no_fits_is_refused(root):
    (root / USERS_FILE).write_text("not FITS")
    with pytest.raises(FileDamagedError, match=re.escape(USERS_FILE)):
        Exposure(USERS_FILE)


def test_an_unknown_camera_is_not_guessed(root):
    write_demo(root / USERS_FILE, INSTRUME="another")
    with pytest.raises(NotFoundError, match="cannot tell which instrument made it"):
        Exposure(USERS_FILE)


# --- Saving -----------------------------------------------------------------------------------------


def in_memory(**columns):
    defaults = {"instrument": "demo", "type": "science", "mjd": 59215.25, "exp_time": 30.0, "filter": "g"}
    exp = Exposure(nofile=True, **{**defaults, "ra": 10.0, "dec": 20.0, "target": "M31", **columns})
    for i, section_id in enumerate(exp.instrument_object.get_section_ids()):
        exp.data[section_id] = np.full((5, 7), i, np.uint16)
    return exp


def test_an_exposure_of_pixels_in_memory_is_saved_and_read_back(root):
    exp = in_memory()
    exp.section_headers[2] = {"GAIN": 3.5}
    assert exp.save() == f"raw/demo/2020-12-31/{exp.name}.fits"
    assert len(exp.checksum) == 64
    assert exp.size_bytes > 2880
    again = Exposure(exp.filename)
    for column in (
        "type",
        "instrument",
        "mjd",
        "mjd_mid",
        "night",
        "exp_time",
        "filter",
        "ra",
        "dec",
        "target",
    ):
        assert getattr(again, column) == getattr(exp, column)
    assert [int(again.data[s][0, 0]) for s in again.data] == [0, 1, 2, 3]
    assert again.data[1].dtype == np.uint16
    assert again.load_raw_frame(2).amplifiers[0].gain == 3.5
    assert again.load_raw_frame(1).amplifiers[0].gain == 2.0
    with pytest.raises(UserError, match="never written over"):
        exp.save()


def test_saving_needs_columns_and_pixels(root):
    with pytest.raises(UserError, match="no type, mjd, exp_time"):
        Exposure(nofile=True, instrument="demo").save()
    exp = in_memory()
    del exp.data[1]
    with pytest.raises(PixelsError, match=r"\[1\]"):
        exp.save()
    exp = in_memory()
    exp.raw_header["FILTER"] = "i"
    with pytest.raises(HeaderError, match="filter = 'g' reads back as 'i'"):
        exp.save("half.fits")
    assert list(root.rglob("*half*")) == []


def test_a_camera_with_a_layout_of_its_own_cannot_be_saved(root):
    exp = in_memory(instrument="ls4", filter=None)
    with pytest.raises(
        UserError, match=r"files of ls4 are not laid out .* save\(\) cannot write them"
    ) as caught:
        exp.save("ls4.fits")
    assert caught.value.cure
    assert list(root.rglob("*ls4*")) == []


def test_pixels_that_do_not_read_back_are_not_saved(root, monkeypatch):
    exp = in_memory()
    demo = get_instrument_instance("demo")
    monkeypatch.setattr(demo, "load_section_image", lambda _path, s: exp.data.loaded[s][:, ::-1] + 1)
    with pytest.raises(UserError, match=r"section 0.*not laid out"):
        exp.save("half.fits")
    assert list(root.rglob("*half*")) == []


def test_several_files_cannot_be_saved(root):
    exp = in_memory(filename_extensions=["_0.fits", "_1.fits"])
    with pytest.raises(UserError, match="writes one file"):
        exp.save("many")


# --- Sections by date -------------------------------------------------------------------------------


def swap_ccd(session):
    """Section 0 had gain 1.5 until MJD 59000, and 3.0 from then on."""
    session.add(SensorSection(0, "demo", gain=1.5, validity_end=59000))
    session.add(SensorSection(0, "demo", gain=3.0, validity_start=59000))


def test_exposures_astride_a_ccd_swap_keep_their_own_sections(root, session):
    swap_ccd(session)
    for name, mjd in (("before", 58990.25), ("after", 59010.25)):
        exp = in_memory(mjd=mjd, name=name)
        exp.save(f"{name}.fits")
        assert exp.get_property(0, "gain") == 2.0  # nothing asked of the database yet
        exp.update_instrument(session)
        session.add(exp)
    session.flush()
    session.expunge_all()
    before, after = session.scalars(select(Exposure).order_by(Exposure.mjd)).all()
    assert before.instrument_object is after.instrument_object is INSTRUMENT_INSTANCE_CACHE["demo"]
    assert (before.get_property(0, "gain"), after.get_property(0, "gain")) == (1.5, 3.0)
    assert before.instrument_object.get_property(0, "gain") == 1.5
    assert after.instrument_object.get_property(0, "gain") == 3.0
    assert before.instrument_object.get_property(0, "gain") == 1.5
    assert before.load_raw_frame(0).amplifiers[0].gain == 1.5
    assert after.load_raw_frame(0).amplifiers[0].gain == 3.0
    assert after.get_property(1, "gain") == 2.0
    session.expunge_all()
    assert before.get_property(0, "gain") == 1.5  # without a session too


def test_a_row_comes_back_as_it_was(root, session):
    exp = in_memory()
    exp.save("one.fits")
    session.add(exp)
    session.flush()
    columns = {c.key: getattr(exp, c.key) for c in Exposure.__table__.columns}
    session.expunge_all()
    again = session.scalar(select(Exposure).where(Exposure.name == "one"))
    assert {k: getattr(again, k) for k in columns if k != "created_at"} == {
        k: v for k, v in columns.items() if k != "created_at"
    }
    assert again.filter_array is None
    assert session.scalar(select(Exposure.name).where(Exposure.filter_array.is_(None))) == "one"
    assert again.data[2][0, 0] == 2


def test_rows_survive_pickling_and_merging(root, session):
    swap_ccd(session)
    exp = in_memory()
    exp.save("one.fits")
    exp.update_instrument(session)
    merged = session.merge(exp)
    assert merged.data[3][0, 0] == 3
    session.flush()
    there = pickle.loads(pickle.dumps(exp))
    assert there.data.loaded == {}
    assert there.data[3][0, 0] == 3
    assert there.get_property(0, "gain") == 3.0


def test_fetching_sections_costs_one_query_per_transaction(root, session):
    swap_ccd(session)
    for i in range(5):
        exp = in_memory(
            mjd=58998.0 + i, name=f"e{i}", filename=f"e{i}.fits", mjd_mid=58998.0, night="2020-01-01"
        )
        session.add(exp)
    session.flush()
    session.expunge_all()
    seen = []

    def note(_connection, _cursor, statement, *_):
        seen.append(statement)

    event.listen(get_engine(), "before_cursor_execute", note)
    rows = session.scalars(select(Exposure).order_by(Exposure.mjd)).all()
    event.remove(get_engine(), "before_cursor_execute", note)
    assert [r.get_property(0, "gain") for r in rows] == [1.5, 1.5, 3.0, 3.0, 3.0]
    assert sum("sensor_sections" in s for s in seen) == 1
    assert len(seen) == 2


def test_filter_array_gives_each_section_its_own_filter(root, monkeypatch):
    demo = get_instrument_instance("demo")
    monkeypatch.setattr(demo, "filter_array", ["g", "i", "i", "z"])
    monkeypatch.setattr(demo, "get_section_filter_array_index", lambda s: s)
    write_demo(root / USERS_FILE, FILTER=None)
    exp = Exposure(USERS_FILE)
    assert (exp.filter, exp.filter_array) == (None, ["g", "i", "i", "z"])
    assert [exp.get_section_filter(s) for s in exp.data] == ["g", "i", "i", "z"]
    exp.sections[0].filter_array_index = 3
    assert exp.get_section_filter(0) == "z"
