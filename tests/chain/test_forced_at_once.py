"""Forced fluxes that two sections write at the same moment, and of objects that are merged meanwhile."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from measured_sky import Batch, one
from sqlalchemy import func, select

from seechange_core.chain.walk import _patient
from seechange_core.errors import DatabaseBusyError
from seechange_core.products import ForcedFlux, Image, Object
from seechange_core.products.forced_flux import save_forced_fluxes
from seechange_core.storage.engine import open_session


def fluxes(sky, objects, image_id):
    return [
        ForcedFlux(
            object_id=o.id, image_id=image_id, zero_point_id=sky.zero_point_id, kind="difference", filter="r",
            mjd_mid=61000.0, ra=o.ra, dec=o.dec, x=0.0, y=0.0, flux=1.0, usable_fraction=1.0, zp=25.0,
            zp_err=0.01, provenance_id=sky.provenance_id,
        )
        for o in objects
    ]  # fmt: skip


def there(sky):
    """Return the objects, the first seen first, and the key of a difference."""
    with open_session(sky.settings, read_only=True) as session:
        image_id = session.scalars(select(Image.id).where(Image.type == "difference")).first()
        return sorted(session.scalars(select(Object)), key=lambda o: (o.first_mjd, o.ra)), image_id


def save(sky, rows):
    with open_session(sky.settings) as session:
        return save_forced_fluxes(session, rows)


def test_two_sections_write_the_same_fluxes_in_any_order(sky):
    n, at_once = 60, Barrier(2)
    ra, dec = 150 + np.arange(n) / 600, np.full(n, 2.0)
    sky.measure(Batch(1, 0, ra, dec, np.full(n, 0.05)))
    objects, image_id = there(sky)

    def write(some):
        rows = fluxes(sky, some, image_id)
        at_once.wait()
        return save(sky, rows)

    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(write, (objects, objects[::-1]))) == [n, n]
    with open_session(sky.settings, read_only=True) as session:
        assert session.scalar(select(func.count()).select_from(ForcedFlux)) == n


def test_an_object_that_was_merged_as_it_was_measured_is_left_out(sky):
    sky.measure(one(1, -0.28, err=0.05))
    sky.measure(one(2, 0.28, err=0.05))
    both, image_id = there(sky)
    sky.measure(one(3, 0.0, err=0.01))  # by another section, meanwhile
    assert len(both) == 2 and len(sky.objects()) == 1
    assert save(sky, fluxes(sky, both, image_id)) == 1
    with open_session(sky.settings, read_only=True) as session:
        assert session.scalars(select(ForcedFlux.object_id)).all() == session.scalars(select(Object.id)).all()


def test_what_others_were_in_the_way_of_is_done_again():
    tries = []

    def work(n_busy):
        tries.append(n_busy)
        if len(tries) <= n_busy:
            raise DatabaseBusyError("others wrote")
        return "done"

    assert _patient(lambda: work(2)) == "done" and len(tries) == 3
    tries.clear()
    with pytest.raises(DatabaseBusyError):
        _patient(lambda: work(9))
    assert len(tries) == 3
