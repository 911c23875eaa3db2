"""Calibrators made elsewhere: taken as they are meant, checked at the door, whole or not at all."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from sqlalchemy import func, select

from seechange_core.errors import BadDataError, FileDamagedError, NotFoundError, PixelsError, UserError
from seechange_core.flags import PixelFlag
from seechange_core.products import Calibrator
from seechange_core.products.calibrator import mark_calibrators
from seechange_core.products.provenance import Provenance
from seechange_core.products.shelf import Shelf
from seechange_core.products.supply import _Supply, supply
from seechange_core.products.supply_files import CODE_VERSION
from seechange_core.settings import use_settings
from seechange_core.storage.archive import Archive, sha256_of
from seechange_core.storage.engine import open_session

SIDE = 64
RNG = np.random.default_rng(3)


@pytest.fixture
def demo(database):
    """A camera with two sections of 64 pixels, on both databases."""
    small = {"demo": {"sections": 2, "section_size_pix": SIDE}}
    settings = database.model_copy(update={"instruments": small})
    with use_settings(settings):
        yield settings


def field(level=1.0, scatter=0.02, shape=(SIDE, SIDE)):
    return (level + scatter * RNG.normal(size=shape)).astype(np.float32)


def write(path, **images):
    """Write images as extensions named by their keys; one called ``primary`` as the file's only image."""
    units = [fits.PrimaryHDU(images.pop("primary", None))]
    units += [fits.ImageHDU(data, name=name.removeprefix("s")) for name, data in images.items()]
    fits.HDUList(units).writeto(path, overwrite=True)
    return path


def rows_of(settings):
    with open_session(settings, read_only=True) as session:
        return list(session.scalars(select(Calibrator).order_by(Calibrator.section_id)))


def read(settings, row):
    return row.read(Archive(settings))


# --- What is taken --------------------------------------------------------------------------------


def test_a_flat_of_all_sections_is_brought_to_a_median_of_one(demo, tmp_path):
    data = {name: field(3.0) for name in ("s0", "s1")}
    variance = np.full((SIDE, SIDE), 9e-4, np.float32)
    path = write(tmp_path / "flat.fits", **data, s1_VARIANCE=variance)
    rows = supply(path, "flat", "demo", band="r", valid_from="2026-01-01", valid_to="2026-07-01")
    assert [(r.section_id, r.filter, r.origin, r.n_frames) for r in rows] == [
        ("0", "r", "supplied", 0),
        ("1", "r", "supplied", 0),
    ]
    for row in rows:
        frame, given = read(demo, row), data[f"s{row.section_id}"]
        np.testing.assert_allclose(frame.data, given / np.median(given), rtol=1e-6)
        assert (row.validity_start, row.validity_end, row.mjd) == (61041.0, 61222.0, 61041.0)
        assert row.night == "2026-01-01"
        assert not frame.flags.any() and not frame.holds_pedestal
    expected = variance / np.median(data["s1"]) ** 2
    np.testing.assert_allclose(read(demo, rows[1]).variance, expected, rtol=1e-6)
    with open_session(demo, read_only=True) as session:
        known = session.get_one(Provenance, rows[0].provenance_id)
    assert (known.process, known.code_version) == ("flat", CODE_VERSION)
    assert known.parameters == {"sha256": sha256_of(path), "origin": "supplied"}


def test_a_fringe_keeps_its_scale_and_is_centred(demo, tmp_path):
    y, x = np.mgrid[:SIDE, :SIDE]
    pattern = 0.02 * np.sin(x / 5 + y / 9) + 0.3
    (row,) = supply(write(tmp_path / "f.fits", primary=pattern), "fringe", "demo", section="1", band="z")
    frame = read(demo, row)
    assert abs(np.median(frame.data)) < 1e-6
    np.testing.assert_allclose(frame.data, pattern - np.median(pattern), atol=1e-7)
    assert (row.validity_start, row.validity_end) == (0.0, None)


def test_bias_and_dark_keep_their_levels(demo, tmp_path):
    data = field(-1.5, 3.0)
    (row,) = supply(write(tmp_path / "b.fits", primary=data), "bias", "demo", section="0")
    np.testing.assert_array_equal(read(demo, row).data, data)
    path = write(tmp_path / "d.fits", s0=data, s1=data)
    with fits.open(path, mode="update") as units:
        units["0"].header["EXPTIME"] = 300.0
    first, second = supply(path, "dark", "demo")
    assert read(demo, first).exposure_time_s == 300.0
    assert np.isnan(read(demo, second).exposure_time_s)


def test_bad_pixels_are_what_is_not_zero_and_flags_keep_their_bits(demo, tmp_path):
    bad = np.zeros((SIDE, SIDE), np.uint8)
    bad[3, 4], bad[5, 6] = 1, 77
    flags = np.zeros((SIDE, SIDE), np.uint16)
    flags[3, 4] = flags[7, 8] = PixelFlag.NON_LINEAR
    path = write(tmp_path / "mask.fits", DATA=bad, FLAGS=flags)
    (row,) = supply(path, "bad_pixels", "demo", section="0")
    frame = read(demo, row)
    expected = flags.copy()
    expected[3, 4] |= PixelFlag.BAD_PIXEL
    expected[5, 6] |= PixelFlag.BAD_PIXEL
    np.testing.assert_array_equal(frame.flags, expected)


def test_our_own_master_can_be_supplied_elsewhere(demo, tmp_path):
    """What is not a number in flagged pixels is no obstacle; what we know of a master stays."""
    data, flags = field(), np.zeros((SIDE, SIDE), np.uint16)
    data[0, 0], flags[0, 0] = np.nan, PixelFlag.NO_DATA
    path = write(tmp_path / "flat.fits", DATA=data, VARIANCE=field(1e-4, 0), FLAGS=flags)
    with fits.open(path, mode="update") as units:
        units[0].header["SCNFRAME"] = 12
    (row,) = supply(path, "flat", "demo", section="0", band="g")
    frame = read(demo, row)
    assert row.n_frames == frame.n_frames == 12
    assert np.isfinite(frame.data).all() and frame.flags[0, 0] == PixelFlag.NO_DATA


def law(measured):
    """What a sensor with some curvature truly saw."""
    return measured * (1 + 2e-6 * measured)


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "csv"])
def test_a_linearity_table_is_the_law_it_was_made_of(demo, tmp_path, suffix):
    """Whatever its order and number of points; at any level, not only at those listed."""
    points = {"A": np.array([500.0, 20000, 3000, 45000, 60000]), "B": np.array([0.0, 1000, 60000])}
    rows = [(0, name, m, law(m)) for name, values in points.items() for m in values]
    rows += [(1, "A", 1000.0, 1001.0), (1, "A", 2000.0, 2004.0)]
    path = tmp_path / f"law.{suffix}"
    Table(rows=rows, names=["section", "amplifier", "measured_adu", "true_adu"]).write(path)
    first, second = (read(demo, row) for row in supply(path, "linearity", "demo"))
    assert first.amplifiers == ("A", "B") and first.measured_adu.shape == (2, 6)
    levels = np.linspace(0, 60000, 200)
    for i, name in enumerate(first.amplifiers):
        known = np.sort(np.append(points[name], 0.0))
        here = np.interp(levels, first.measured_adu[i], first.true_adu[i])
        np.testing.assert_allclose(here, np.interp(levels, known, law(known)), rtol=1e-12)
        assert first.measured_adu[i, 0] == first.true_adu[i, 0] == 0
        assert (np.diff(first.measured_adu[i]) > 0).all()
    np.testing.assert_array_equal(second.true_adu, [[0, 1001, 2004]])


def test_crosstalk_pairs_become_a_matrix(demo, tmp_path):
    path = tmp_path / "x.ecsv"
    rows = [("0", "B", "A", 3e-4), ("0", "A", "B", -1e-5), ("1", "A", "B", 2e-4), ("0", "A", "A", 0.0)]
    Table(rows=rows, names=["section", "victim", "source", "coefficient"]).write(path)
    first, second = (read(demo, row) for row in supply(path, "crosstalk", "demo"))
    assert first.amplifiers == second.amplifiers == ("A", "B")
    np.testing.assert_array_equal(first.coefficients, [[0, -1e-5], [3e-4, 0]])
    np.testing.assert_array_equal(second.coefficients, [[0, 2e-4], [0, 0]])
    (only,) = supply(path, "crosstalk", "demo", section="1")
    assert only.section_id == "1"


def test_the_same_file_again_is_the_same_calibrator_with_the_new_dates(demo, tmp_path):
    path = write(tmp_path / "flat.fits", s0=field(), s1=field())
    old = supply(path, "flat", "demo", band="r")
    new = supply(path, "flat", "demo", band="r", valid_from="2026-01-01", date="2026-02-01")
    assert [row.id for row in new] == [row.id for row in old]
    rows = rows_of(demo)
    assert [(row.validity_start, row.mjd) for row in rows] == [(61041.0, 61072.0)] * 2
    files = {str(p.relative_to(demo.data_root)) for p in demo.data_root.rglob("flat*.fits")}
    assert files == {row.file for row in rows}
    supply(path, "flat", "demo", band="g")
    assert len(rows_of(demo)) == 4


def scaling(path, factor):
    """Write a law that makes every signal larger by a factor."""
    rows = {
        "section": ["0"] * 2,
        "amplifier": ["A"] * 2,
        "measured_adu": [0.0, 1e4],
        "true_adu": [0.0, 1e4 * factor],
    }
    Table(rows).write(path, format="ascii.ecsv", overwrite=True)
    return path


def used_at(settings, mjd):
    """Return the factor of the law that an exposure of an MJD gets."""
    with open_session(settings, read_only=True) as session:
        chosen = Shelf(session, "demo", [], [mjd]).nearest("linearity", "0", mjd)
        read_back = session.get_one(Calibrator, chosen.id).read(Archive(settings))
    return read_back.true_adu[0, -1] / read_back.measured_adu[0, -1]


def test_of_laws_without_dates_the_one_added_last_holds_for_all_times(demo, tmp_path):
    old, new = scaling(tmp_path / "old.ecsv", 1.01), scaling(tmp_path / "new.ecsv", 1.02)
    for added, factor in ((old, 1.01), (new, 1.02), (old, 1.01)):
        supply(added, "linearity", "demo")
        assert [used_at(demo, mjd) for mjd in (50000.0, 61000.0, 70000.0)] == pytest.approx([factor] * 3)
    supply(new, "linearity", "demo", valid_from="2026-01-01")  # MJD 61041
    assert [used_at(demo, mjd) for mjd in (61040.0, 61042.0)] == pytest.approx([1.01, 1.02])
    assert len(rows_of(demo)) == 2


def test_the_same_content_under_another_name_is_the_same_calibrator(demo, tmp_path):
    first = supply(scaling(tmp_path / "a.ecsv", 1.01), "linearity", "demo")
    assert [r.id for r in supply(scaling(tmp_path / "b.ecsv", 1.01), "linearity", "demo")] == [
        r.id for r in first
    ]


def test_what_was_called_bad_stays_bad_until_its_content_changes(demo, tmp_path):
    path = scaling(tmp_path / "a.ecsv", 1.01)
    supply(path, "linearity", "demo")
    with open_session(demo) as session:
        mark_calibrators(session, session.scalars(select(Calibrator)).all(), "made of saturated flats")
    (again,) = supply(path, "linearity", "demo", valid_from="2026-01-01")
    assert (again.bitflag, again.bad_reason) == (1, "made of saturated flats")
    with open_session(demo) as session:
        assert Shelf(session, "demo", [], [61050.0]).nearest("linearity", "0", 61050.0) is None
        mark_calibrators(session, session.scalars(select(Calibrator)).all(), None)
    assert used_at(demo, 61050.0) == pytest.approx(1.01)


def test_a_failure_removes_nothing_that_another_process_has_recorded(demo, tmp_path, monkeypatch):
    path = scaling(tmp_path / "a.ecsv", 1.01)
    record = _Supply._record

    def overtaken(self, rows):
        monkeypatch.setattr(_Supply, "_record", record)
        supply(path, "linearity", "demo")
        raise KeyboardInterrupt

    monkeypatch.setattr(_Supply, "_record", overtaken)
    with pytest.raises(KeyboardInterrupt):
        supply(path, "linearity", "demo")
    assert used_at(demo, 61050.0) == pytest.approx(1.01)


# --- What is refused ------------------------------------------------------------------------------


def nan_in_the_last(path):
    data = field()
    data[10, 10:13] = np.nan
    return write(path, s0=field(), s1=data)


def truncated(path):
    write(path, s0=field(), s1=field())
    path.write_bytes(path.read_bytes()[:-8000])
    return path


def twice_the_same_name(path):
    units = [fits.PrimaryHDU(), *(fits.ImageHDU(field(), name="0") for _ in range(2))]
    fits.HDUList(units).writeto(path, overwrite=True)
    return path


FLAT = {"kind": "flat", "band": "r"}
ONE = {"section": "0"}
REFUSED = {
    "NaN": (nan_in_the_last, FLAT, PixelsError, r"section 1, file .*3 of 4096 pixels are not finite"),
    "cut short": (truncated, FLAT, FileDamagedError, "ends before"),
    "shape": (
        lambda p: write(p, s0=field(), s1=field(shape=(64, 65))),
        FLAT,
        PixelsError,
        r"section 1.* 64 x 65 pixels .* the section 64 x 64",
    ),
    "section": (
        lambda p: write(p, s0=field(), N4=field()),
        FLAT,
        BadDataError,
        r"no section is called N4 .*0, 1",
    ),
    "which": (lambda p: write(p, primary=field()), FLAT, BadDataError, "no section is called"),
    "negative": (lambda p: write(p, s0=field(-1)), FLAT, PixelsError, "the median of this flat is -"),
    "electrons": (
        lambda p: write(p, primary=field(0, 40)),
        {"kind": "fringe", "band": "z", **ONE},
        PixelsError,
        "from valley to ridge.*divide it by the sky",
    ),
    "no pattern": (
        lambda p: write(p, primary=field(1, 0)),
        {"kind": "fringe", "band": "z", **ONE},
        PixelsError,
        "no pattern",
    ),
    "variance": (
        lambda p: write(p, s0=field(), s0_VARIANCE=-field()),
        FLAT,
        PixelsError,
        "VARIANCE is negative",
    ),
    "companion": (
        lambda p: write(p, s0=field(), s0_FLAGS=np.zeros((3, 3), np.int16)),
        FLAT,
        PixelsError,
        "FLAGS is 3 x 3 pixels, the image 64 x 64",
    ),
    "bits": (
        lambda p: write(p, s0=field(), s0_FLAGS=np.full((SIDE, SIDE), 2**14, np.int16)),
        FLAT,
        PixelsError,
        "not made of our bits",
    ),
    "a stray companion": (
        lambda p: write(p, s0=field(), s1=field(), VARIANCE=field()),
        FLAT,
        BadDataError,
        "no image belongs to VARIANCE",
    ),
    "all flagged": (
        lambda p: write(p, s0=field(), s0_FLAGS=np.ones((SIDE, SIDE), np.uint8)),
        FLAT,
        PixelsError,
        "all its pixels are flagged",
    ),
    "called alike": (twice_the_same_name, FLAT, BadDataError, "several images are called 0"),
    "bias level": (
        lambda p: write(p, s0=field(1e9)),
        {"kind": "bias"},
        PixelsError,
        "median of this bias is 1e\\+09",
    ),
    "not FITS": (lambda p: p.write_bytes(b"hello") and p, FLAT, FileDamagedError, "FITS"),
}


@pytest.mark.parametrize(("make", "how", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_right_is_refused_and_nothing_is_left(demo, tmp_path, make, how, error, words):
    path = make(tmp_path / "x.fits")
    with pytest.raises(error, match=words) as caught:
        supply(path, instrument="demo", **how)
    assert str(path) in str(caught.value) and str(caught.value).endswith(")"), "no cure"
    with open_session(demo, read_only=True) as session:
        assert session.scalar(select(func.count()).select_from(Calibrator)) == 0
        assert session.scalar(select(func.count()).select_from(Provenance)) == 0
    assert not [p for p in demo.data_root.rglob("*.fits*") if p.is_file()]


LINEARITY = "section,amplifier,measured_adu,true_adu\n"
CROSSTALK = "section,victim,source,coefficient\n"
TABLES = {
    "columns": ("linearity", "section,amplifier,measured\n0,A,1\n", "no column measured_adu, true_adu, only"),
    "section": ("linearity", LINEARITY + "7,A,1,1\n", "no section is called 7"),
    "none": ("linearity", "amplifier,measured_adu,true_adu\nA,1,1\n", "which section"),
    "offset": ("linearity", LINEARITY + "0,A,0,10\n0,A,5,20\n", "begins at 0, 10 ADU"),
    "falling": ("linearity", LINEARITY + "0,A,10,10\n0,A,50,9\n", "amplifier A: both columns must grow"),
    "twice": ("linearity", LINEARITY + "0,A,10,10\n0,A,10,11\n", "both columns must grow"),
    "empty cell": ("linearity", LINEARITY + "0,A,10,\n0,A,20,11\n", "column true_adu has empty cells"),
    "text": ("linearity", LINEARITY + "0,A,10,x\n", "column true_adu is not numeric"),
    "no rows": ("linearity", LINEARITY, "rows"),
    "self": ("crosstalk", CROSSTALK + "0,A,A,0.01\n", "no crosstalk with itself"),
    "large": ("crosstalk", CROSSTALK + "0,A,B,1.5\n", "victim A, source B: 1.5 is no crosstalk"),
    "pair twice": ("crosstalk", CROSSTALK + "0,A,B,0.1\n0,A,B,0.1\n", "listed twice"),
}


@pytest.mark.parametrize(("kind", "text", "words"), TABLES.values(), ids=TABLES)
def test_a_table_that_cannot_be_right_is_refused(demo, tmp_path, kind, text, words):
    path = tmp_path / "law.csv"
    path.write_text(text)
    with pytest.raises(BadDataError, match=words):
        supply(path, kind, "demo")


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"kind": "flat"}, UserError, "a flat belongs to a filter"),
        ({"kind": "bias", "band": "r"}, UserError, "belongs to no filter"),
        ({"kind": "sky"}, UserError, "'sky' is no kind"),
        ({"kind": "bias", "instrument": "nonsense"}, NotFoundError, "nonsense"),
        ({"kind": "bias", "section": "9"}, NotFoundError, "no section '9'"),
        ({"kind": "bias", "valid_from": "2026-02-01", "valid_to": "2026-01-01"}, UserError, "never"),
        ({"kind": "bias", "valid_from": "2026-02-01", "date": "2026-01-01"}, UserError, "outside"),
    ],
)
def test_a_wrong_request_is_refused(demo, tmp_path, how, error, words):
    path = write(tmp_path / "x.fits", s0=field())
    with pytest.raises(error, match=words):
        supply(path, **{"instrument": "demo", **how})


def test_no_file_is_refused(settings):
    with pytest.raises(NotFoundError, match="nowhere"):
        supply("nowhere.fits", "bias", "demo", settings=settings)
