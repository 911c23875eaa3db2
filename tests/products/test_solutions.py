"""Source lists, PSFs, backgrounds, world coordinates and zero points."""

import numpy as np
import pytest

from seechange_core import frames
from seechange_core.errors import FileDamagedError
from seechange_core.products import Background, Psf, SourceList, WorldCoordinates, ZeroPoint
from seechange_core.products.base import save
from seechange_core.storage.archive import Archive, sha256_of
from seechange_core.storage.fits_io import read_fits, write_fits

VERSION = "0123456789abcdef0123"


def sources(n: int) -> frames.Sources:
    rng = np.random.default_rng(1)
    columns = {name: rng.normal(size=n) for name in frames.Sources.__dataclass_fields__}
    columns |= {"flux_aper": rng.normal(size=(n, 4)), "flux_aper_err": rng.normal(size=(n, 4))}
    columns |= {"flags": np.arange(n), "blended": np.arange(n) % 2 == 0, "is_star": np.arange(n) % 2 == 1}
    return frames.Sources(**columns)


@pytest.mark.parametrize("n", [0, 5])
def test_sources_come_back_the_same(settings, sample, n):
    row = SourceList(data_version=VERSION)
    row.write(Archive(settings), sources(n), sample.place)
    sample.same(row.read(Archive(settings)), sources(n))
    assert (row.content, row.n_sources) == ("sources", n)
    with pytest.raises(FileDamagedError, match="DETECTIONS"):
        row.read_detections(Archive(settings))


@pytest.mark.parametrize("n", [0, 3])
def test_detections_come_back_the_same(settings, sample, n):
    row = SourceList(data_version=VERSION)
    row.write(Archive(settings), sample.detections(n), sample.place)
    sample.same(row.read_detections(Archive(settings)), sample.detections(n))
    assert (row.content, row.n_sources) == ("detections", n)


def test_a_psf_comes_back_the_same(settings, sample):
    row = Psf(data_version=VERSION)
    row.write(Archive(settings), sample.psf(), sample.place)
    sample.same(row.read(Archive(settings)), sample.psf())
    assert (row.fwhm_pix, row.n_stars, row.degree, row.floor) == (3.1, 44, 1, 0.003)


def test_a_background_comes_back_the_same(settings, sample):
    rng = np.random.default_rng(1)
    level, noise = rng.normal(100, 1, (3, 4)).astype(np.float32), rng.normal(10, 1, (3, 4)).astype(np.float32)
    frame = frames.Background(level, noise, 64, (180, 250))
    row = Background(data_version=VERSION)
    row.write(Archive(settings), frame, sample.place)
    sample.same(row.read(Archive(settings)), frame)
    assert row.level_e == pytest.approx(100, abs=2)


def test_a_background_without_its_level_is_damaged(settings, sample):
    mesh = np.ones((3, 4), np.float32)
    row = Background(data_version=VERSION)
    row.write(Archive(settings), frames.Background(mesh, mesh, 64, (180, 250)), sample.place)
    path = Archive(settings).find(row.file)
    arrays, cards = read_fits(path)
    write_fits(path, {"rms": arrays["rms"]}, cards)
    row.checksum = sha256_of(path)
    with pytest.raises(FileDamagedError, match="no extension LEVEL"):
        row.read(Archive(settings))


def test_world_coordinates_come_back_the_same(session, make, sample):
    row = make.world_coordinates(make.source_list(make.image()))
    session.expire(row)
    assert row.solution().__dict__ == {**sample.wcs().__dict__, "cards": dict(sample.wcs().cards)}
    np.testing.assert_array_equal(row.solution().to_sky(3, 4), sample.wcs().to_sky(3, 4))
    assert row.pixel_scale_arcsec == pytest.approx(0.27)


def test_a_source_list_may_have_several_solutions(session, make):
    listed = make.source_list(make.image())
    assert make.world_coordinates(listed).id != make.world_coordinates(listed).id
    assert session.query(WorldCoordinates).count() == 2


def test_zero_points_come_back_the_same(session, make, sample):
    row = make.zero_point(make.world_coordinates(make.source_list(make.image())))
    session.expire(row)
    sample.same(row.solution(), sample.zero_point())
    assert row.limiting_mag is None
    other = ZeroPoint(**{c: getattr(row, c) for c in ("image_id", "source_list_id", "catalog_id", "filter")})
    assert other.take(row.solution()).zp == 27.0


def test_rows_need_the_rows_they_were_made_from(session, make):
    from sqlalchemy.exc import IntegrityError

    from seechange_core.storage.orm import new_id

    with pytest.raises(IntegrityError), session.begin_nested():
        save(session, SourceList(image_id=new_id(), **make.made()))
