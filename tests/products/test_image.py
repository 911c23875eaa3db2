from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from sqlalchemy.exc import IntegrityError

from seechange_core.errors import FileDamagedError
from seechange_core.frames import CommonStars, SubtractionFrame, ZeroPointSolution
from seechange_core.products.base import save
from seechange_core.products.image import Image, parent_ids, set_parents
from seechange_core.settings import use_settings
from seechange_core.storage.archive import Archive


def with_files(settings, single: bool):
    images = settings.storage.images.model_copy(update={"single_file": single})
    return settings.model_copy(update={"storage": settings.storage.model_copy(update={"images": images})})


@pytest.fixture(params=[True, False], ids=["one_file", "several_files"])
def archive(request, settings):
    values = with_files(settings, request.param)
    with use_settings(values):
        yield Archive(values)


def fresh(**changes) -> Image:
    return Image(**{"type": "science", "section_id": "0", "data_version": "0123456789abcdef0123", **changes})


def test_an_image_comes_back_the_same(archive, sample):
    row, frame = fresh(), sample.image()
    row.write(archive, frame, sample.place)
    sample.same(row.read(archive), frame)
    assert (row.height_pix, row.width_pix) == frame.shape
    assert (row.exposure_time_s, row.gain, row.saturation_e) == (30.5, 1.25, 60000.5)
    assert row.calibration_steps == 5
    assert row.components == ["data", "weight", "flags"]


def test_an_image_without_saturation(archive, sample):
    row, frame = fresh(), sample.image(saturation_e=np.inf, header={})
    row.write(archive, frame, sample.place)
    sample.same(row.read(archive), frame)
    assert row.saturation_e is None


def test_a_difference_comes_back_the_same(archive, sample):
    image = sample.image()
    frame = SubtractionFrame(image, image.data / 10, sample.psf(), image.data * 2, 0.875)
    row = fresh(type="difference")
    row.write_subtraction(archive, frame, sample.place)
    sample.same(row.read_subtraction(archive), frame)
    sample.same(row.read(archive), image)
    opened, psf = row.open_subtraction(archive)
    np.testing.assert_array_equal(opened.data[2:5, :], image.data[2:5])
    sample.same(psf, frame.psf)
    assert row.reference_coverage == 0.875
    np.testing.assert_array_equal(row.score, frame.score)
    np.testing.assert_array_equal(row.psf, frame.psf.coefficients)


def test_a_difference_keeps_its_dipoles_if_it_has_any(archive, sample):
    image = sample.image()
    dipoles = np.stack([image.data / 7, image.data / 9])
    frame = SubtractionFrame(image, image.data, sample.psf(), image.data, 1.0, translient=dipoles)
    row = fresh(type="difference")
    row.write_subtraction(archive, frame, sample.place)
    assert "translient" in row.components
    np.testing.assert_array_equal(row.read_subtraction(archive).translient, dipoles)


def test_a_difference_keeps_its_registration_and_its_zero_point(archive, sample):
    image, change = sample.image(), (0.05, -0.01, 0.002)
    stars = CommonStars(40, 0.1, -1.2, 0.01, 0.02, 1.05, 0.002, 0.003)
    frame = SubtractionFrame(
        image, image.data, sample.psf(), image.data, 1.0,
        common_stars=stars, zp_change_mag=change, zp_err=0.01,
    )  # fmt: skip
    row = fresh(type="difference")
    row.write_subtraction(archive, frame, sample.place)
    again = row.read_subtraction(archive)
    assert (again.common_stars, again.zp_change_mag, again.zp_err) == (stars, change, 0.01)
    assert again.image.header == image.header
    new = ZeroPointSolution(25.0, 0.05, "r", spatial_mag=(0.02, 0.0, 0.1, 0.0, 0.0), shape=(11, 21))
    x, y = np.array([0.0, 10.0, 20.0]), np.array([0.0, 5.0, 0.0])
    solution = row.zero_point(new)
    expected = 0.05 - 0.01 * np.array([-1, 0, 1]) + 0.002 * np.array([-1, 0, -1])
    assert solution.zp_at(x, y) - new.zp_at(x, y) == pytest.approx(expected)
    assert solution.zp_err == 0.01
    unmatched = replace(frame, common_stars=CommonStars(), zp_change_mag=(), zp_err=np.nan)
    row.write_subtraction(archive, unmatched, sample.place)
    assert row.read_subtraction(archive).common_stars.n_stars == 0
    assert (row.zp_change_mag, row.zp_err) == (None, None) and row.zero_point(new) is new


def test_arrays_and_header_are_loaded_when_looked_at(archive, sample):
    row, frame = fresh(), sample.image()
    row.write(archive, frame, sample.place)
    again = fresh(
        filepath=row.filepath,
        checksum=row.checksum,
        components=row.components,
        component_checksums=row.component_checksums,
    )
    np.testing.assert_array_equal(again.data, frame.data)
    np.testing.assert_array_equal(again.weight, frame.weight)
    np.testing.assert_array_equal(again.flags, frame.flags)
    assert again.data is again.data
    assert again.score is None
    assert again.psf is None
    again.psf = sample.psf().coefficients
    assert again.psf.shape == (3, 9, 9)
    assert again.raw_header["OBJECT"] == "field"
    assert again.raw_header["BUNIT"] == "electron"


def test_every_array_has_the_same_raw_header(archive, sample):
    row = fresh()
    row.write(archive, sample.image(), sample.place)
    layout = {"XTENSION", "SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "EXTNAME"}
    layout |= {"BSCALE", "BZERO", "EXTEND", ""}
    for path in set(row.fullpaths(archive).values()):
        with fits.open(path) as units:
            for unit in units:
                cards = {k: v for k, v in unit.header.items() if k not in layout}
                assert cards == row.raw_header


def test_files_are_as_many_as_the_settings_say(settings, sample):
    for single, names in (
        (True, ["image_0123456789.fits"]),
        (False, [f"image_0123456789.{n}.fits" for n in ("data", "flags", "weight")]),
    ):
        archive = Archive(with_files(settings, single))
        row = fresh()
        row.write(archive, sample.image(), sample.place)
        paths = set(row.fullpaths(archive).values())
        assert sorted(path.name for path in paths) == names
        for path in paths:
            path.unlink()


def test_missing_and_damaged_files(archive, sample):
    row = fresh()
    with pytest.raises(FileNotFoundError, match="write it first"):
        row.read(archive)
    row.write(archive, sample.image(), sample.place)
    for path in set(row.fullpaths(archive).values()):
        path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(FileDamagedError, match=r"\.fits"):
        row.read(archive)
    with pytest.raises(FileDamagedError, match="no score"):
        row.read_subtraction(archive)
    for path in set(row.fullpaths(archive).values()):
        path.unlink()
    with pytest.raises(FileNotFoundError):
        row.read(archive)


def test_the_row_survives_the_database(session, make, sample, archive):
    row = make.new_image(exposure_id=make.exposure())
    row.write(archive, sample.image(), sample.place)
    row.cover(sample.wcs())
    saved = save(session, row)
    session.expire(saved)
    assert saved.header == {"airmass": 1.2}
    assert len(saved.corners) == 4
    assert saved.component_checksums == row.component_checksums
    sample.same(saved.read(archive), sample.image())


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "science"},
        {"type": "picture"},
        {"type": "difference"},
        {"type": "coadd", "exposure_id": True},
        {"type": "difference", "exposure_id": True},
    ],
)
def test_impossible_images_are_refused(session, make, changes):
    if "exposure_id" in changes:
        changes = {**changes, "exposure_id": make.exposure()}
    with pytest.raises(IntegrityError), session.begin_nested():
        session.add(make.new_image(**changes))
        session.flush()


def test_a_coadd_knows_its_images(session, make):
    parents = [make.image() for _ in range(3)]
    coadd = make.image(type="coadd", exposure_id=None)
    set_parents(session, coadd, [row.id for row in parents])
    assert parent_ids(session, coadd.id) == [row.id for row in parents]
    set_parents(session, coadd, [parents[1].id])
    assert parent_ids(session, coadd.id) == [parents[1].id]
