"""Every product knows the very rows it was made from, and every file is what its row says."""

from small_survey import OPTIONS, SECTIONS, assert_whole
from sqlalchemy import func, select

from seechange_core.catalogs.store import LocalCatalog
from seechange_core.products import CatalogRelease, Image, WorldCoordinates, ZeroPoint
from seechange_core.products.calibrator import Calibrator, frames_of
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import parent_ids
from seechange_core.products.provenance import upstream_ids
from seechange_core.products.reference import Reference, reference_ids
from seechange_core.storage.engine import open_session


def test_every_file_is_there_and_whole(processed):
    assert_whole(processed)


def test_an_image_knows_its_exposure_and_the_masters_of_its_section(processed):
    masters = {row.id: row for row in processed.rows(select(Calibrator))}
    images = processed.rows(select(Image).where(Image.type == "science"))
    assert len(images) == OPTIONS.exposures * len(SECTIONS)
    for image in images:
        assert image.exposure_id is not None
        for kind in ("bias", "dark", "flat", "bad_pixels"):
            used = masters[getattr(image, f"{kind}_id")]
            assert (used.kind, used.section_id) == (kind, image.section_id)


def test_a_master_knows_its_frames(processed):
    kinds = {e.id: e.type for e in processed.rows(select(Exposure))}
    n_frames = {"bias": OPTIONS.n_bias, "dark": OPTIONS.n_dark, "flat": OPTIONS.n_flat}
    with open_session(processed.settings, read_only=True) as session:
        for master in session.scalars(select(Calibrator).where(Calibrator.kind != "bad_pixels")):
            frames = [i for i, reason in frames_of(session, master.id).items() if not reason]
            assert {kinds[i] for i in frames} == {master.kind}
            assert len(frames) == master.n_frames == n_frames[master.kind]


def test_an_astrometric_solution_knows_its_catalog_release(processed):
    info = LocalCatalog(processed.settings.data_root / "catalogs", "simulated").info
    (release,) = processed.rows(select(CatalogRelease))
    assert (release.name, release.content_hash, release.n_stars) == (info.name, info.checksum, info.n_stars)
    for kind in (WorldCoordinates, ZeroPoint):
        assert {row.catalog_id for row in processed.rows(select(kind))} == {release.id}


def test_a_coadd_knows_its_parents_and_a_difference_its_new_and_reference(processed):
    (reference,) = processed.rows(select(Reference))
    images = {i.id: i for i in processed.rows(select(Image))}
    names = {e.id: e.name for e in processed.rows(select(Exposure))}
    with open_session(processed.settings, read_only=True) as session:
        parents = [images[i] for i in parent_ids(session, reference.image_id)]
        assert sorted((names[p.exposure_id], p.section_id) for p in parents) == [
            (name, section) for name in processed.science[:2] for section in SECTIONS
        ]
        assert reference.n_images == len({parent.exposure_id for parent in parents})
        differences = [i for i in images.values() if i.type == "difference"]
        assert len(differences) == 3 * len(SECTIONS)
        for difference in differences:
            new = images[difference.new_image_id]
            assert (new.exposure_id, new.section_id) == (difference.exposure_id, difference.section_id)
            assert reference_ids(session, difference.id) == [reference.id]
            assert new.id not in parent_ids(session, reference.image_id)


def test_a_provenance_knows_those_it_builds_on(processed):
    image = processed.rows(select(Image).where(Image.type == "difference"))[0]
    new = processed.rows(select(Image).where(Image.id == image.new_image_id))[0]
    with open_session(processed.settings, read_only=True) as session:
        reached, wanted = set(), [image.provenance_id]
        while wanted:
            reached.add(one := wanted.pop())
            wanted += upstream_ids(session, one)
        masters = set(session.scalars(select(Calibrator.provenance_id).distinct()))
    assert {new.provenance_id, *masters} < reached


def test_no_data_version_is_made_twice(processed):
    with open_session(processed.settings, read_only=True) as session:
        for kind in (Image, WorldCoordinates, ZeroPoint, Calibrator, Reference):
            n, distinct = session.execute(
                select(func.count(kind.data_version), func.count(kind.data_version.distinct()))
            ).one()
            assert n == distinct
