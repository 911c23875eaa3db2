import warnings

import numpy as np
import pytest
from astropy.io import fits

from seechange_core.errors import FileDamagedError
from seechange_core.frames import Detections, Sources
from seechange_core.storage.fits_io import is_structural, read_cards, read_fits, to_table, write_fits

CARDS = {
    "OBJECT": "M 31",
    "EXPTIME": 30.123456789012345,
    "NCOMBINE": 3,
    "SHUTTER": True,
    "ESO TEL ALT": 45.5,
    "LONGKEYWORD": "x" * 200,
    "EMPTY": None,
    "HISTORY": ["first", "second"],
}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(1)
    return {
        "data": rng.normal(size=(50, 70)).astype(np.float32),
        "flags": rng.integers(0, 65536, (50, 70), dtype=np.uint16),
        "cube": rng.normal(size=(3, 5, 5)).astype(np.float32),
        "corner": rng.integers(-9, 9, (4, 2)),
    }


def detections(n: int) -> Detections:
    rng = np.random.default_rng(2)
    return Detections(*(rng.normal(size=n) for _ in range(7)), np.arange(n))


def test_arrays_and_cards_come_back_the_same(tmp_path, arrays):
    write_fits(tmp_path / "x.fits", arrays, CARDS)
    found, cards = read_fits(tmp_path / "x.fits")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].flags.c_contiguous
        np.testing.assert_array_equal(found[name], array)
    assert cards == CARDS
    assert read_cards(tmp_path / "x.fits") == CARDS


def test_every_image_has_the_same_header(tmp_path, arrays):
    write_fits(tmp_path / "x.fits", arrays, CARDS)
    with fits.open(tmp_path / "x.fits") as units:
        assert [unit.name for unit in units[1:]] == ["DATA", "FLAGS", "CUBE", "CORNER"]
        for unit in units:
            assert unit.header["OBJECT"] == "M 31"
            assert unit.header["ESO TEL ALT"] == 45.5


def test_the_same_content_is_the_same_file(tmp_path, arrays):
    for name in "ab":
        write_fits(tmp_path / name, arrays, CARDS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_some_of_the_arrays(tmp_path, arrays):
    write_fits(tmp_path / "x.fits", arrays)
    assert list(read_fits(tmp_path / "x.fits", ["flags"])[0]) == ["flags"]


def test_inputs_are_not_edited(tmp_path, arrays):
    before = {name: array.copy() for name, array in arrays.items()}
    write_fits(tmp_path / "x.fits", arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_cards_of_a_layout_do_not_travel(tmp_path):
    cards = {
        "NAXIS1": 5000,
        "BZERO": 32768,
        "BSCALE": 1,
        "TFORM12": "E",
        "CHECKSUM": "x",
        "XTENSION": "IMAGE",
    }
    write_fits(tmp_path / "x.fits", {"data": np.ones((2, 3), np.float32)}, cards)
    arrays, found = read_fits(tmp_path / "x.fits")
    assert found == {}
    assert arrays["data"].shape == (2, 3)
    assert not is_structural("NAXISA")
    assert not is_structural("CRVAL1")


def test_values_that_fits_cannot_hold(tmp_path):
    cards = {"A": float("nan"), "B": float("inf"), "C": "naïve\n", "D": np.float32(1.5), "lower": 1}
    write_fits(tmp_path / "x.fits", {}, cards)
    assert read_cards(tmp_path / "x.fits") == {"A": None, "B": None, "C": "na?ve?", "D": 1.5, "LOWER": 1}


@pytest.mark.parametrize("n", [0, 1, 100])
def test_tables_come_back_the_same(tmp_path, n):
    table = detections(n)
    write_fits(tmp_path / "t.fits", {"detections": table})
    found = to_table(Detections, read_fits(tmp_path / "t.fits")[0]["detections"])
    for name, column in table.columns().items():
        assert getattr(found, name).dtype == column.dtype
        np.testing.assert_array_equal(getattr(found, name), column)


@pytest.mark.parametrize("n", [0, 7])
def test_columns_of_several_numbers_and_of_truths(tmp_path, n):
    rng = np.random.default_rng(3)
    columns = {name: rng.normal(size=n) for name in Sources.__dataclass_fields__}
    columns |= {"flux_aper": rng.normal(size=(n, 4)), "flux_aper_err": rng.normal(size=(n, 4))}
    columns |= {"flags": np.arange(n), "blended": np.arange(n) % 2 == 0, "is_star": np.arange(n) % 2 == 1}
    write_fits(tmp_path / "t.fits", {"sources": Sources(**columns)})
    found = to_table(Sources, read_fits(tmp_path / "t.fits")[0]["sources"])
    for name, column in columns.items():
        assert getattr(found, name).dtype == column.dtype
        assert getattr(found, name).shape == column.shape
        np.testing.assert_array_equal(getattr(found, name), column)


def test_a_table_that_lacks_a_column(tmp_path):
    write_fits(tmp_path / "t.fits", {"detections": detections(3)})
    records = read_fits(tmp_path / "t.fits")[0]["detections"]
    with pytest.raises(FileDamagedError, match=r"blended.*is_star"):
        to_table(Sources, records)


def test_truncation_is_noticed_wherever_it_is(tmp_path, arrays):
    """Also when only an array before the cut is asked for, and without a warning or an open file left."""
    write_fits(tmp_path / "x.fits", arrays, CARDS)
    whole = (tmp_path / "x.fits").read_bytes()
    for size in [0, 80, 2879, *range(2880, len(whole), 2880), len(whole) - 1]:
        (tmp_path / "cut.fits").write_bytes(whole[:size])
        with warnings.catch_warnings(), pytest.raises(FileDamagedError, match=r"cut\.fits"):
            warnings.simplefilter("error")
            read_fits(tmp_path / "cut.fits", list(arrays))


def test_what_is_no_fits_file(tmp_path):
    (tmp_path / "x.fits").write_text("no such thing" * 1000)
    with pytest.raises(FileDamagedError, match=r"x\.fits.*not a whole FITS file"):
        read_fits(tmp_path / "x.fits")


def test_a_missing_array_is_named(tmp_path, arrays):
    write_fits(tmp_path / "x.fits", arrays)
    with pytest.raises(FileDamagedError, match="WEIGHT, only DATA, FLAGS"):
        read_fits(tmp_path / "x.fits", ["weight"])


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_fits(tmp_path / "none.fits")
