"""Raw files of all packings and dtypes, whole and damaged."""

import bz2
import gzip

import numpy as np
import pytest
from astropy.io import fits

from seechange_core.errors import FileDamagedError, PixelsError, SectionAbsent, SectionMissingError
from seechange_core.instrument.fits_reader import check_unit, list_units, read_cards, read_pixels

PIXELS = np.arange(40 * 60).reshape(40, 60)


def write(path, units):
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(path)
    return path


def three_sections(path, kind=fits.ImageHDU):
    rng = np.random.default_rng(1)
    noise = rng.poisson(1000, (3, 100, 120)).astype(np.uint16)
    return write(path, [kind(noise[i], name=f"S{i}") for i in range(3)]), noise


@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "u4", "f4", "f8", "u1"])
def test_pixels_keep_the_camera_s_type(tmp_path, dtype):
    path = tmp_path / "a.fits"
    fits.PrimaryHDU((PIXELS % 256).astype(dtype)).writeto(path)
    data = read_pixels(path)
    assert data.dtype == np.dtype(dtype)
    assert data.dtype.isnative
    np.testing.assert_array_equal(data, PIXELS % 256)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), ("", bytes)])
def test_packed_files(tmp_path, suffix, pack):
    path, noise = three_sections(tmp_path / "a.fits")
    packed = tmp_path / f"b.fits{suffix}"
    packed.write_bytes(pack(path.read_bytes()))
    np.testing.assert_array_equal(read_pixels(packed, "S1"), noise[1])
    assert [u.is_complete for u in list_units(packed)] == [True] * 4


def test_tile_compressed_files(tmp_path):
    path, noise = three_sections(tmp_path / "a.fits.fz", fits.CompImageHDU)
    data = read_pixels(path, "S2")
    assert data.dtype == np.uint16
    np.testing.assert_array_equal(data, noise[2])
    np.testing.assert_array_equal(read_pixels(path), noise[0])  # the first image
    assert [u.has_image for u in list_units(path)] == [False, True, True, True]


@pytest.mark.parametrize("kind", [fits.ImageHDU, fits.CompImageHDU])
def test_a_file_cut_short_loses_only_what_is_lost(tmp_path, kind):
    path, noise = three_sections(tmp_path / "a.fits", kind)
    whole = path.read_bytes()
    with fits.open(path) as units:
        starts = [u.fileinfo()["datLoc"] for u in units]
    path.write_bytes(whole[: starts[2] + 5000])
    np.testing.assert_array_equal(read_pixels(path, "S0"), noise[0])
    with pytest.raises(FileDamagedError, match="ends before the image of extension 'S1' does"):
        read_pixels(path, "S1")
    with pytest.raises(SectionMissingError, match="no extension 'S2'"):
        read_pixels(path, "S2")
    assert [u.is_complete for u in list_units(path)] == [True, True, False]


def test_missing_padding_is_no_damage(tmp_path):
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(PIXELS.astype("i2")).writeto(path)
    path.write_bytes(path.read_bytes()[: 2880 + PIXELS.size * 2])
    np.testing.assert_array_equal(read_pixels(path), PIXELS)


def test_a_gzip_cut_short(tmp_path):
    path, noise = three_sections(tmp_path / "a.fits")
    packed = tmp_path / "a.fits.gz"
    packed.write_bytes(gzip.compress(path.read_bytes())[:-15_000])
    np.testing.assert_array_equal(read_pixels(packed, "S0"), noise[0])
    for lost in ("S1", "S2"):
        with pytest.raises((FileDamagedError, SectionMissingError)):
            read_pixels(packed, lost)


def test_a_gzip_with_a_flipped_bit(tmp_path):
    path, _ = three_sections(tmp_path / "a.fits")
    packed = bytearray(gzip.compress(path.read_bytes(), compresslevel=0))
    packed[-200] ^= 1
    (tmp_path / "a.fits.gz").write_bytes(packed)
    with pytest.raises(FileDamagedError, match="damaged compression"):
        read_pixels(tmp_path / "a.fits.gz", "S0")


@pytest.mark.parametrize("content", [b"", b"hello\n" * 1000, b"SIMPLE  =                    T" + b" " * 100])
def test_what_is_no_fits_is_refused(tmp_path, content):
    path = tmp_path / "a.fits"
    path.write_bytes(content)
    for read in (read_pixels, read_cards, list_units):
        with pytest.raises(FileDamagedError, match=r"a\.fits: not a readable FITS file"):
            read(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_pixels(tmp_path / "a.fits")


@pytest.mark.parametrize("shape", [(5,), (2, 4, 5)])
def test_only_images_are_images(tmp_path, shape):
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.zeros(shape, "f4")).writeto(path)
    with pytest.raises((PixelsError, SectionMissingError)):
        read_pixels(path)


def test_axes_of_length_one_are_dropped(tmp_path):
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(PIXELS.astype("f4")[None]).writeto(path)
    assert read_pixels(path).shape == PIXELS.shape


def test_cards_keep_what_cannot_be_parsed(tmp_path):
    header = fits.Header()
    header["EXPTIME"] = 60.0
    header["OBJECT"] = "M31"
    header["EMPTY"] = None
    header["HISTORY"] = "one"
    header["HISTORY"] = "two"
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(PIXELS.astype("i2"), header=header).writeto(path)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"EXPTIME =                 60.0", b"EXPTIME =               6..0.0"))
    cards = read_cards(path)
    assert cards["EXPTIME"] == "6..0.0"
    assert cards["OBJECT"] == "M31"
    assert cards["EMPTY"] is None
    assert cards["HISTORY"] == ["one", "two"]


@pytest.mark.parametrize(
    ("promised", "error", "words"),
    [
        (1, SectionAbsent, "wrote the file without"),
        (2, SectionMissingError, "'N5'"),
        (None, SectionMissingError, "'N5'"),
    ],
)
def test_a_section_that_was_never_written_is_told_from_one_that_was_lost(tmp_path, promised, error, words):
    path = tmp_path / "one.fits"
    units = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((4, 4), np.int16), name="N4")])
    if promised is not None:
        units[0].header["NEXTEND"] = promised
    units.writeto(path)
    with pytest.raises(error, match=words):
        read_pixels(path, "N5")
    with pytest.raises(error, match=words):
        check_unit(list_units(path), "N5", path)
    assert read_pixels(path, "N4").sum() == 16
