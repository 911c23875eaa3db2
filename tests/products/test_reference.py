import threading

import pytest
from sqlalchemy import inspect, select, update

from seechange_core import products
from seechange_core.products import Background, Psf, Reference
from seechange_core.products.base import existing, save
from seechange_core.products.image import save_image
from seechange_core.products.reference import (
    find_references,
    reference_ids,
    references_used,
    save_reference,
    set_references,
    use_reference,
)
from seechange_core.storage.engine import open_session


@pytest.fixture
def reference(session, make, sample):
    def build(ra: float = 150.0, dec: float = 2.0, **changes) -> Reference:
        coadd = make.image(type="coadd", exposure_id=None, section_id="r1")
        wcs = make.world_coordinates(make.source_list(coadd), ra, dec)
        psf = save(
            session, Psf(image_id=coadd.id, fwhm_pix=3.0, n_stars=9, degree=0, floor=0.0, **make.made())
        )
        sky = save(session, Background(image_id=coadd.id, level_e=100.0, rms_e=10.0, **make.made()))
        row = Reference(
            **{
                **{"ref_set": "main", "instrument": "demo", "region": "r1", "filter": "r", "n_images": 7},
                **{"image_id": coadd.id, "source_list_id": wcs.source_list_id, "psf_id": psf.id},
                **{"background_id": sky.id, "world_coordinates_id": wcs.id},
                **{"zero_point_id": make.zero_point(wcs).id, **make.made()},
                **changes,
            }
        )
        return save(session, row.cover(sample.wcs(ra, dec)))

    return build


def test_references_are_found_by_place_filter_and_set(session, make, reference):
    first = reference()
    second = reference()
    reference(ra=152.0)
    reference(filter="g")
    reference(instrument="decam")
    reference(bitflag=1)
    other = reference(ref_set="other")
    at = [[150.0, 2.0]]
    what = {"instrument": "demo", "band": "r"}
    assert [r.id for r in find_references(session, at, **what)] == [other.id, second.id, first.id]
    assert find_references(session, at, **what, provenance_id="none") == []
    assert len(find_references(session, at, **what, provenance_id=make.provenance_id)) == 3
    assert find_references(session, [[10.0, 2.0]], **what) == []


def test_one_that_leaves_an_exposure_out(make, reference):
    exposure = make.exposure()
    assert reference(left_out_exposure_id=exposure).left_out_exposure_id == exposure


def test_what_is_used_stays_until_another_is_put_to_use(session, make, reference):
    first, second, third = reference(), reference(), reference()
    elsewhere = reference(region="r2")

    def used() -> list[Reference]:
        ids = references_used(session, make.provenance_id, ["r1"], "r")
        return [session.get_one(Reference, i) for i in ids]

    assert used() == []
    assert use_reference(session, first, first_only=True)
    assert use_reference(session, elsewhere, first_only=True)
    assert not use_reference(session, second, first_only=True)
    assert used() == [first]
    assert use_reference(session, second, "deeper")
    assert not use_reference(session, second, "deeper")
    assert used() == [second, first]
    assert use_reference(session, first, "it was better")
    assert used() == [first, second]
    second.bitflag = 1
    assert not use_reference(session, third, first_only=True)
    first.bitflag = 1
    session.flush()
    assert use_reference(session, third, first_only=True)  # nothing good was left
    assert used() == [third, first, second]


def test_a_difference_knows_its_new_image_and_its_references(session, make, reference):
    rows = [reference(), reference()]
    new = make.image()
    difference = make.image(type="difference", exposure_id=new.exposure_id, new_image_id=new.id)
    set_references(session, difference, [row.id for row in rows])
    set_references(session, difference, [row.id for row in rows])
    assert reference_ids(session, difference.id) == [row.id for row in rows]
    assert reference_ids(session, new.id) == []


@pytest.mark.parametrize(("kind", "save_again"), [("image", save_image), ("reference", save_reference)])
def test_what_a_person_says_while_it_is_made_again_holds(
    kind, save_again, database, session, make, reference, monkeypatch
):
    """The mark comes between the look at what was said before and the new row."""
    old = make.image() if kind == "image" else reference()
    table, keys = type(old), set(inspect(type(old)).column_attrs.keys()) - {"id", "created_at"}
    values = {key: getattr(old, key) for key in keys}
    session.commit()

    def mark() -> None:
        with open_session(database) as other:
            other.execute(
                update(table)
                .where(table.data_version == values["data_version"])
                .values(bitflag=1, bad_reason="moon")
            )

    person = threading.Thread(target=mark)

    def look(*args):
        found = existing(*args)
        person.start()
        person.join(timeout=0.3)
        return found

    monkeypatch.setattr(getattr(products, kind), "existing", look)
    with open_session(database) as again:
        save_again(again, table(**values))
    person.join(timeout=30)
    with open_session(database, read_only=True) as after:
        query = select(table.bitflag, table.bad_reason).where(table.data_version == values["data_version"])
        assert after.execute(query).one() == (1, "moon")
