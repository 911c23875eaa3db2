"""Rows go down and up again with the schema, on both engines: objects, their names, verdicts, references."""

from collections.abc import Iterator

import pytest
from measured_sky import Sky, one
from sqlalchemy import select, text

from seechange_core.chain import mark
from seechange_core.products import Background, Object, ObjectAlias, Psf, Reference, ZeroPoint
from seechange_core.products.image import image_parents
from seechange_core.products.reference import ReferenceUse
from seechange_core.settings import use_settings
from seechange_core.storage import migrate
from seechange_core.storage.engine import get_engine, open_session


@pytest.fixture
def filled(bare_database) -> Iterator[Sky]:
    """A database at head with what 0004 brought: aliases, verdicts, references without an image."""
    migrate.upgrade(bare_database)
    with use_settings(bare_database):
        sky = Sky(bare_database)
        for number, east in ((200, 0.25), (1, -0.25)):  # the earlier one renames the object
            sky.measure(one(number, east))
        ((name, *_),) = sky.objects()
        mark(bare_database, name, "bogus", "a ghost", by="Ada")
        with open_session(bare_database) as session:
            session.add(
                ObjectAlias(
                    object_id=session.scalars(select(Object.id)).one(), name="obj2019zz", how="renamed"
                )
            )
            session.add(
                ObjectAlias(
                    object_id=session.scalars(select(Object.id)).one(), name="obj2019aabc", how="renamed"
                )
            )
            put_references(session, sky)
        yield sky
    migrate.downgrade(bare_database, "base")


def put_references(session, sky) -> None:
    """Put two wholes, of three images and of two, and the first one without its first image."""
    made = {"provenance_id": sky.provenance_id, "image_id": sky.image_id}
    zero_point = session.get_one(ZeroPoint, sky.zero_point_id)
    psf = Psf(fwhm_pix=4.0, n_stars=9, degree=1, floor=0.0, data_version="psf", **made)
    background = Background(level_e=100.0, rms_e=10.0, data_version="background", **made)
    images = [sky._image("coadd", None) for _ in range(6)]
    session.add_all([psf, background, *images])
    session.flush()
    parents, coadds = images[:3], images[3:]
    for coadd, its in zip(coadds, (parents, parents[:2], parents[1:]), strict=True):
        session.execute(image_parents.insert(), [{"coadd_id": coadd.id, "parent_id": i.id} for i in its])
    left_out = [None, None, sky._exposure(session, 1)]
    for n, (coadd, exposure_id) in enumerate(zip(coadds, left_out, strict=True)):
        row = Reference(
            ref_set="main", instrument="demo", region="r1", filter="r", image_id=coadd.id, n_images=2,
            source_list_id=zero_point.source_list_id, psf_id=psf.id, background_id=background.id,
            world_coordinates_id=zero_point.world_coordinates_id, zero_point_id=zero_point.id, ra=150.0,
            dec=2.0, left_out_exposure_id=exposure_id, provenance_id=sky.provenance_id, data_version=f"r{n}",
        )  # fmt: skip
        session.add(row)
        session.flush()


def test_down_and_up_again_with_objects_verdicts_and_references(filled):
    settings, before = filled.settings, filled.objects()
    migrate.downgrade(settings, "0003")
    with get_engine(settings).connect() as connection:
        # Names of four letters were given: the next one by count has five.
        assert connection.execute(text("SELECT year, n_given FROM object_name_counters")).all() == [
            (2019, 474552)
        ]
        assert connection.execute(text("SELECT name FROM objects")).scalars().all() == [before[0][0]]
    migrate.upgrade(settings)
    assert filled.objects() == before
    with open_session(settings, read_only=True) as session:
        rows = {row.data_version: row for row in session.scalars(select(Reference))}
        assert rows["r2"].whole_id == rows["r0"].id
        assert rows["r0"].whole_id is rows["r1"].whole_id is None
        assert session.query(ReferenceUse).count() == 2
