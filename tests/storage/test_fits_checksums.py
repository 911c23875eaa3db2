"""DATASUM and CHECKSUM: of whole files nothing is said, of a flipped bit the unit that has it."""

import io
import time

import numpy as np
import pytest
from astropy.io import fits

from seechange_core.instrument.fits_reader import list_units
from seechange_core.instrument.fits_units import FitsFile
from seechange_core.storage.fits_checksums import Verdict, judge

RNG = np.random.default_rng(5)


def image(name, shape=(37, 61), kind=np.int16):
    return fits.ImageHDU(RNG.integers(0, 2000, shape).astype(kind), name=name)


def packed(name, **options):
    return fits.CompImageHDU(RNG.normal(500, 9, (40, 70)).astype(np.int16), name=name, **options)


def table(name):
    column = fits.Column("X", "PE()", array=np.array([np.arange(3.0), np.arange(5.0)], dtype=object))
    return fits.BinTableHDU.from_columns([column], name=name)


def stored(*units, checksum=True):
    """Return the bytes of a file with sums, and where each unit's header and data begin."""
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(stream, checksum=checksum)
    content = bytearray(stream.getvalue())
    with fits.open(io.BytesIO(content), disable_image_compression=True) as opened:
        places = [(u.fileinfo()["hdrLoc"], u.fileinfo()["datLoc"], u.size) for u in opened]
    return content, places


@pytest.fixture
def judged(tmp_path):
    """Return the verdict on each unit of a file with this content."""

    def judge_all(content):
        path = tmp_path / "x.fits"
        path.write_bytes(content)
        file = FitsFile(path)
        try:
            verdicts = [judge(extent.header, file.pieces(extent)) for extent in file.extents()]
        finally:
            file.close()
        whole = [unit.is_complete for unit in list_units(path)]
        assert [u.is_damaged for u in list_units(path)] == [
            v is Verdict.DAMAGED and w for v, w in zip(verdicts, whole, strict=True)
        ]
        return verdicts

    return judge_all


RIGHT, DAMAGED, HEADER_DIFFERS = Verdict.RIGHT, Verdict.DAMAGED, Verdict.HEADER_DIFFERS


def units():
    return [
        image("A"),
        packed("B"),
        image("C", kind=np.float32),
        table("D"),
        image("E", (3, 50, 60), np.uint8),
    ]


def test_whole_files_are_right(judged):
    content, _ = stored(*units())
    assert judged(content) == [RIGHT] * 6


def test_every_flipped_bit_of_the_data_is_found_where_it_is(judged):
    content, places = stored(*units())
    for index, (_, start, size) in enumerate(places):
        for offset in RNG.integers(0, size, 10) if size else ():
            changed = content.copy()
            changed[start + offset] ^= 1 << int(RNG.integers(8))
            assert judged(changed) == [DAMAGED if i == index else RIGHT for i in range(6)]


def test_a_header_edited_later_is_told_from_damaged_data(judged):
    content, places = stored(image("A"), image("B"))
    start, end, _ = places[2]
    content[content.index(b"EXTNAME ", start, end) + 11] = ord("X")
    assert judged(content) == [RIGHT, RIGHT, HEADER_DIFFERS]


def test_a_checksum_alone_speaks_for_all(judged):
    content, places = stored(image("A"), image("B"))
    at = content.index(b"DATASUM ", places[1][0])
    # Another card in its place, and the difference of the sums in the padding of the header.
    before = np.frombuffer(bytes(content[at : at + 80]), ">u4").sum(dtype=np.int64)
    content[at : at + 80] = b"COMMENT ".ljust(80)
    after = np.frombuffer(bytes(content[at : at + 80]), ">u4").sum(dtype=np.int64)
    spare = slice(places[1][1] - 80, places[1][1])
    words = np.frombuffer(bytes(content[spare]), ">u4").astype(np.int64)
    words[:] += (before - after) // 20
    words[0] += (before - after) % 20
    content[spare] = words.astype(">u4").tobytes()
    assert judged(content) == [RIGHT] * 3
    content[places[1][1] + 7] ^= 4
    assert judged(content) == [RIGHT, DAMAGED, RIGHT]


def test_without_sums_nothing_is_said_and_no_data_are_read(judged):
    content, places = stored(image("A"), packed("B"), checksum=False)
    content[places[1][1]] ^= 255
    assert judged(content) == [RIGHT] * 3
    blank = fits.Header({"SIMPLE": True, "DATASUM": "", "CHECKSUM": " "}).tostring().encode()
    assert judge(blank, (1 / 0 for _ in range(1))) is RIGHT


def test_of_a_packed_image_the_stored_bytes_count(judged):
    """What fpack leaves: sums of the table that holds the tiles, and those of the image it once was."""
    unit = packed("B")
    unit.header["DATASUM"] = "1234"
    unit.header["CHECKSUM"] = "abcdabcdabcdabcd"
    content, _ = stored(unit)
    assert b"ZDATASUM= '1234" in content
    assert judged(content) == [RIGHT, RIGHT]


def test_what_is_cut_short_is_not_judged(judged):
    content, places = stored(image("A"), image("B"))
    for cut in (places[2][1] + 100, places[2][0] + 500, places[1][1] + 1):
        judged(content[:cut])
    lacks_padding = places[2][1] + places[2][2]
    assert judged(content[:lacks_padding]) == [RIGHT] * 3


def test_it_costs_little(tmp_path):
    image("A", (4096, 2048)).writeto(tmp_path / "ccd.fits", checksum=True)
    start = time.perf_counter()
    assert not any(unit.is_damaged for unit in list_units(tmp_path / "ccd.fits"))
    assert time.perf_counter() - start < 0.3  # of a whole CCD; 10 ms when nothing else runs
