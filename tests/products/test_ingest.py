"""Registering raw files: good ones once, bad ones by name, and nothing half done."""

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from sqlalchemy import select

from seechange_core import Exposure
from seechange_core.errors import (
    ConflictError,
    FileDamagedError,
    HeaderError,
    NotFoundError,
    SectionMissingError,
    UserError,
)
from seechange_core.flags import ExposureFlag
from seechange_core.products import ingest as ingest_module
from seechange_core.products.ingest import ingest
from seechange_core.storage.archive import sha256_of
from seechange_core.storage.engine import open_session

NAME = "demo_20210101_020000_sci.fits"
PRIMARY = {
    "INSTRUME": "DemoCam",
    "OBSTYPE": "science",
    "DATE-OBS": "2021-01-01T02:00:00.000",
    "EXPTIME": 60.0,
    "FILTER": "r",
    "RA": 10.0,
    "DEC": -30.0,
}


def write(path, sections=(0, 1, 2, 3), level=100, **cards):
    primary = fits.PrimaryHDU()
    primary.header.update({k: v for k, v in {**PRIMARY, **cards}.items() if v is not None})
    units = [fits.ImageHDU(np.full((80, 100), level + i, np.uint16), name=f"SEC{i:02d}") for i in sections]
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([primary, *units]).writeto(path, overwrite=True)
    return path


def rows(settings):
    with open_session(settings, read_only=True) as session:
        found = session.scalars(select(Exposure).order_by(Exposure.mjd)).all()
        session.expunge_all()
    return found


@pytest.fixture
def incoming(tmp_path):
    return tmp_path / "incoming"


def test_a_file_from_elsewhere_is_copied_under_the_root(database, incoming):
    path = write(incoming / NAME)
    exposure = ingest(path, database)
    assert exposure.filename == f"raw/demo/2020-12-31/{NAME}"
    assert exposure.name == "demo_20210101_020000_sci"
    assert (exposure.instrument, exposure.type, exposure.filter) == ("demo", "science", "r")
    assert exposure.checksum == sha256_of(path) == sha256_of(database.data_root / exposure.filename)
    assert exposure.size_bytes == path.stat().st_size
    assert exposure.unreadable_sections is None
    assert exposure.data[2][0, 0] == 102
    assert [row.id for row in rows(database)] == [exposure.id]


def test_a_file_under_a_root_is_used_in_place(database):
    path = write(database.data_root / "nights/one" / NAME)
    assert ingest(str(path), database).filename == f"nights/one/{NAME}"
    assert len(list(database.data_root.rglob("*.fits"))) == 1


def test_the_same_file_twice_is_one_exposure(database, incoming):
    path = write(incoming / NAME)
    first = ingest(path, database)
    assert ingest(path, database).id == first.id
    assert ingest(database.data_root / first.filename, database).id == first.id
    copy = incoming / "another_name.fits"
    shutil.copyfile(path, copy)
    assert ingest(copy, database).id == first.id  # the same photons are not counted twice
    assert len(rows(database)) == 1
    assert len(list(database.data_root.rglob("*.fits"))) == 1


def test_the_same_name_with_other_content_is_a_conflict(database, incoming):
    first = ingest(write(incoming / NAME), database)
    other = write(incoming / "other" / NAME, level=200)
    with pytest.raises(ConflictError, match=r"demo_20210101_020000_sci with other content") as caught:
        ingest(other, database)
    assert str(other) in str(caught.value)
    packed = incoming / f"{NAME}.gz"
    packed.write_bytes(gzip.compress(other.read_bytes()))
    with pytest.raises(ConflictError):
        ingest(packed, database)
    assert [row.checksum for row in rows(database)] == [first.checksum]
    assert sha256_of(database.data_root / first.filename) == first.checksum


def test_an_unregistered_file_in_the_way_is_not_written_over(database, incoming):
    path = write(incoming / NAME)
    stray = write(database.data_root / f"raw/demo/2020-12-31/{NAME}", level=300)
    before = sha256_of(stray)
    with pytest.raises(ConflictError, match="in the data root already with other content"):
        ingest(path, database)
    assert sha256_of(stray) == before
    assert rows(database) == []


def test_two_at_once_end_as_one_row(database, incoming, monkeypatch):
    path = write(incoming / NAME)
    first = ingest(path, database)
    monkeypatch.setattr(ingest_module, "_look", lambda *_: None)  # neither saw the other's row
    assert ingest(path, database).id == first.id
    write(path, level=400)
    shutil.rmtree(database.data_root / "raw")
    with pytest.raises(ConflictError):
        ingest(path, database)
    assert len(rows(database)) == 1


def test_two_names_for_the_same_photons_at_once(database, incoming, monkeypatch):
    path = write(incoming / NAME)
    first = ingest(path, database)
    copy = incoming / "another_name.fits"
    shutil.copyfile(path, copy)
    look, calls = ingest_module._look, []

    def blind_at_first(*given):
        calls.append(given)
        return look(*given) if len(calls) > 1 else None

    monkeypatch.setattr(ingest_module, "_look", blind_at_first)
    assert ingest(copy, database).id == first.id
    assert len(rows(database)) == 1


def test_sessions_may_come_from_elsewhere(database, incoming):
    opened = []

    def factory():
        opened.append(1)
        return open_session(database)

    ingest(write(incoming / NAME), database, factory)
    assert opened
    assert len(rows(database)) == 1


# --- Bad input --------------------------------------------------------------------------------------


def refused(settings, path, error, words, **options):
    """One line that names the file and a cure; no row, no file."""
    with pytest.raises(error, match=words) as caught:
        ingest(path, settings, **options)
    text = str(caught.value)
    assert os.path.basename(path) in text  # noqa: PTH119 (of a path that must stay as it was written)
    assert caught.value.cure
    assert "\n" not in text
    assert rows(settings) == []
    assert not (settings.data_root / "raw").exists()


@pytest.fixture
def sqlite(settings):
    """One engine is enough for what never reaches the database."""
    from seechange_core.storage.engine import get_engine
    from seechange_core.storage.orm import Base

    Base.metadata.create_all(get_engine(settings))
    return settings


def test_no_fits(sqlite, incoming):
    incoming.mkdir()
    for content in (b"", b"not FITS at all\n" * 500):
        (incoming / NAME).write_bytes(content)
        refused(sqlite, incoming / NAME, FileDamagedError, "not a readable FITS file")


def test_cut_short_in_its_first_section(sqlite, incoming):
    path = write(incoming / NAME)
    path.write_bytes(path.read_bytes()[:10_000])
    refused(sqlite, path, FileDamagedError, "the file ends before the image of extension 'SEC00' does")


def test_cut_short_in_its_primary_header(sqlite, incoming):
    path = write(incoming / NAME)
    path.write_bytes(path.read_bytes()[:1500])
    refused(sqlite, path, FileDamagedError, "not a readable FITS file")


def test_cut_short_later_loses_only_those_sections(database, incoming):
    path = write(incoming / NAME)
    path.write_bytes(path.read_bytes()[:50_000])
    exposure = ingest(path, database)
    assert list(exposure.unreadable_sections) == ["2", "3"]
    assert "ends before the image" in exposure.unreadable_sections["2"]
    assert exposure.bitflag == ExposureFlag.SECTIONS_LOST
    assert exposure.load_raw_frame(1).data[0, 0] == 101
    with pytest.raises(FileDamagedError, match="SEC02"):
        exposure.load_raw_frame(2)
    with pytest.raises(SectionMissingError, match="SEC03"):
        exposure.load_raw_frame(3)


def with_sums(path, packed=False):
    """Write a file that carries the sums of its units."""
    kind = fits.CompImageHDU if packed else fits.ImageHDU
    rng = np.random.default_rng(3)
    units = [kind(rng.poisson(100 + i, (80, 100)).astype(np.int16), name=f"SEC{i:02d}") for i in range(4)]
    path.parent.mkdir(parents=True, exist_ok=True)
    primary = fits.PrimaryHDU(header=fits.Header(PRIMARY))
    fits.HDUList([primary, *units]).writeto(path, overwrite=True, checksum=True)
    return path


def flip_a_bit(path, section):
    with fits.open(path, disable_image_compression=True) as units:
        place = units[f"SEC{section:02d}"].fileinfo()["datLoc"]
    content = bytearray(path.read_bytes())
    content[place + 4000] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("packed", [False, True])
def test_a_flipped_bit_loses_its_section_and_no_other(database, incoming, packed):
    path = with_sums(incoming / (f"{NAME}.fz" if packed else NAME), packed)
    good = path.read_bytes()
    flip_a_bit(path, 2)
    exposure = ingest(path, database)
    assert list(exposure.unreadable_sections) == ["2"]
    assert "data of extension 'SEC02' are not what was written" in exposure.unreadable_sections["2"]
    assert exposure.bitflag == ExposureFlag.SECTIONS_LOST
    for section in (0, 1, 3):
        assert exposure.load_raw_frame(section).data.shape == (80, 100)
    for read in (exposure.load_raw_frame, exposure.data.__getitem__):
        with pytest.raises(FileDamagedError, match=r"section 2.*SEC02.*are not what was written") as caught:
            read(2)
        assert caught.value.cure
    path.write_bytes(good)  # a better copy
    assert ingest(path, database).id == exposure.id
    assert rows(database)[0].unreadable_sections is None
    assert rows(database)[0].load_raw_frame(2).data.shape == (80, 100)


def test_a_header_edited_by_others_loses_nothing(sqlite, incoming):
    """Many archives add cards and leave the sums alone."""
    path = with_sums(incoming / NAME)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"EXTNAME = 'SEC01   '", b"EXTNAME = 'sec01   '", 1))
    assert ingest(path, sqlite).unreadable_sections is None


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_damage_inside_a_gz_file_is_never_believed(sqlite, incoming, place):
    content = bytearray(gzip.compress(with_sums(incoming / NAME).read_bytes()))
    content[int(place * len(content))] ^= 16
    path = incoming / f"{NAME}.gz"
    path.write_bytes(content)
    refused(sqlite, path, FileDamagedError, "damaged compression")


def test_a_gz_file_cut_short_loses_only_what_is_cut(sqlite, incoming):
    content = gzip.compress(with_sums(incoming / NAME).read_bytes())
    path = incoming / f"{NAME}.gz"
    path.write_bytes(content[: int(0.6 * len(content))])
    exposure = ingest(path, sqlite)
    assert list(exposure.unreadable_sections) == ["2", "3"]
    assert exposure.load_raw_frame(1).data.shape == (80, 100)


def test_a_missing_extension_is_named(sqlite, incoming):
    exposure = ingest(write(incoming / NAME, sections=(0, 2, 3)), sqlite)
    assert list(exposure.unreadable_sections) == ["1"]
    assert "no extension 'SEC01'" in exposure.unreadable_sections["1"]


def test_none_of_the_sections(sqlite, incoming):
    refused(sqlite, write(incoming / NAME, sections=(7,)), SectionMissingError, "no extension 'SEC00'")


def test_missing_and_unreadable_cards(sqlite, incoming):
    refused(sqlite, write(incoming / NAME, EXPTIME=None), HeaderError, "EXPTIME")
    refused(sqlite, write(incoming / NAME, FILTER=None), HeaderError, "FILTER")
    refused(sqlite, write(incoming / NAME, **{"DATE-OBS": "today"}), HeaderError, "'today' is not a time")
    path = write(incoming / NAME)
    path.write_bytes(
        path.read_bytes().replace(b"EXPTIME =                 60.0", b"EXPTIME =               6..0.0")
    )
    refused(sqlite, path, HeaderError, r"exposure time = '6\.\.0\.0' is not a number")


def test_a_path_that_climbs(sqlite, incoming):
    write(incoming / NAME)
    refused(sqlite, f"{incoming}/../incoming/{NAME}", UserError, r"climbs with '\.\.'")


def test_no_file_or_a_folder(sqlite, incoming):
    refused(sqlite, incoming / "none.fits", UserError, "there is no such file")
    incoming.mkdir()
    refused(sqlite, incoming, UserError, "it is a folder")


def test_an_unknown_camera(sqlite, incoming):
    path = write(incoming / "image.fits", INSTRUME="unheard of")
    refused(sqlite, path, NotFoundError, "cannot tell which instrument")
    refused(sqlite, path, NotFoundError, "no instrument 'hubble'", instrument="hubble")
    assert ingest(path, sqlite, instrument="demo").instrument == "demo"


def test_a_copy_that_fails_leaves_nothing(sqlite, incoming, monkeypatch):
    path = write(incoming / NAME)

    def full(_source, target):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        ingest(path, sqlite)
    assert rows(sqlite) == []
    assert [p for p in (sqlite.data_root / "raw").rglob("*") if p.is_file()] == []
