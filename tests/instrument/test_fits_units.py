"""Finding units in a file without parsing it, against astropy; and files that stay open."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from seechange_core.errors import FileDamagedError, SectionMissingError
from seechange_core.instrument.fits_reader import kept_open, list_units, read_cards, read_pixels
from seechange_core.instrument.fits_units import FitsFile

RNG = np.random.default_rng(3)
PIXELS = RNG.poisson(900, (50, 70)).astype(np.uint16)


def mixed(path):
    """Write units of all kinds, with long headers and awkward cards."""
    wordy = fits.Header({f"KEY{i}": i for i in range(300)})
    wordy["NOTE"] = "END of 'NAXIS = 3' / BITPIX"
    wordy["HISTORY"] = "END     of history"
    table = fits.BinTableHDU.from_columns([fits.Column("A", "PJ()", array=np.array([[1, 2], [3]], object))])
    units = [
        fits.PrimaryHDU(np.zeros((3, 5), "f8"), header=fits.Header({"EXTNAME": "first"})),
        fits.ImageHDU(PIXELS, header=wordy, name="one"),
        table,
        fits.ImageHDU(name="EMPTY"),
        fits.CompImageHDU(PIXELS, header=wordy, name="O'NEIL"),
        fits.ImageHDU(np.zeros((2, 0), "i2"), name="NOTHING"),
        fits.CompImageHDU(PIXELS.astype("f4"), name="FLOATS", quantize_level=0),
        fits.ImageHDU(PIXELS.astype("f4"), name="LAST"),
    ]
    fits.HDUList(units).writeto(path)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_units_are_where_astropy_finds_them(tmp_path, packed):
    path = mixed(tmp_path / "a.fits")
    with fits.open(path) as units:
        want = [(u.fileinfo()["hdrLoc"], u.fileinfo()["datLoc"], u.fileinfo()["datSpan"]) for u in units]
        names = [u.name for u in units]
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    file = FitsFile(path)
    found = list(file.extents())
    file.close()
    assert [(e.start, e.data_start) for e in found] == [w[:2] for w in want]
    assert [-(-(e.end - e.data_start) // 2880) * 2880 for e in found] == [w[2] for w in want]
    assert [e.name for e in found] == [n.upper() for n in names]
    assert [r.has_image for r in list_units(path)] == [True, True, False, False, True, False, True, True]


def test_cards_and_pixels_are_those_of_astropy(tmp_path):
    path = mixed(tmp_path / "a.fits")
    for index in (1, 4, 6, 7):
        with fits.open(path) as units:
            want, header = units[index].data, units[index].header
            for key in ("BITPIX", "NAXIS1", "NAXIS2", "EXTNAME", "KEY299", "NOTE"):
                assert read_cards(path, index).get(key) == header.get(key)
            found = read_pixels(path, index)
            np.testing.assert_array_equal(found, want)
            assert found.dtype == want.dtype.newbyteorder("=")
            assert found.flags.writeable


@pytest.mark.parametrize("cards", [{"BSCALE": 2.0, "BZERO": 5.0}, {"BLANK": -1}, {"BZERO": 7}])
def test_scaled_pixels(tmp_path, cards):
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.array([[-1, 3], [4, 5]], "i2")).writeto(path)
    raw = path.read_bytes()
    for key, value in cards.items():
        card = f"{key:<8}= {value:>20}".ljust(80).encode()
        raw = raw.replace(b"END".ljust(80), card + b"END".ljust(80), 1)
    path.write_bytes(raw[:2880] + raw[2880 + 80 * len(cards) :])
    with fits.open(path) as units:
        np.testing.assert_array_equal(read_pixels(path), units[0].data)


def test_names_are_compared_without_case(tmp_path):
    path = mixed(tmp_path / "a.fits")
    assert read_cards(path, "last")["EXTNAME"] == "LAST"
    with pytest.raises(SectionMissingError):
        read_cards(path, "las")


def test_what_follows_the_last_unit_does_no_harm(tmp_path):
    path = mixed(tmp_path / "a.fits")
    whole = path.read_bytes()
    for rest in (b"\0" * 5000, b"junk", b"XTENSION= 'IMAGE   '".ljust(80)):
        path.write_bytes(whole + rest)
        assert len(list_units(path)) == 8


def test_a_broken_header_is_named(tmp_path):
    path = mixed(tmp_path / "a.fits")
    path.write_bytes(
        path.read_bytes().replace(b"NAXIS1  =                   70", b"NAXIS1  =                   7x", 1)
    )
    with pytest.raises(FileDamagedError, match="the header of unit 1 is broken"):
        list_units(path)
    assert read_pixels(path, 0).shape == (3, 5)


def test_a_file_is_opened_once_while_it_is_kept(tmp_path, monkeypatch):
    path, other = mixed(tmp_path / "a.fits"), mixed(tmp_path / "b.fits")
    opened = []
    really_open = Path.open

    def watch(self, *args, **kwargs):
        opened.append((self, really_open(self, *args, **kwargs)))
        return opened[-1][1]

    monkeypatch.setattr(Path, "open", watch)
    with kept_open():
        read_cards(path)
        with kept_open():
            np.testing.assert_array_equal(read_pixels(path, "ONE"), PIXELS)
        np.testing.assert_array_equal(read_pixels(path, "LAST"), PIXELS)
        read_cards(other)
        with pytest.raises(SectionMissingError):
            read_cards(path, "NO")
    assert [p for p, _ in opened] == [path, other]
    assert all(stream.closed for _, stream in opened)
    read_cards(path)
    read_cards(path)
    assert len(opened) == 4
