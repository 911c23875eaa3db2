"""What is still to be measured, against the definition, on both engines."""

import numpy as np
from sqlalchemy import insert, select

from seechange_core.chain.load import zero_points_of
from seechange_core.chain.unmeasured import TOO_LOW_SIGMA, unmeasured
from seechange_core.numerics.sky import healpix_of
from seechange_core.products import ForcedFlux, Image, Object, StepOutcome, ZeroPoint
from seechange_core.products.provenance import record_provenance
from seechange_core.provenance import ProvenanceKey
from seechange_core.storage.engine import open_session
from seechange_core.storage.orm import new_id, now

WIDTH_ARCSEC = 1.2


def put(session, sky, kind, rows):
    made = {"created_at": now(), "provenance_id": sky.provenance_id}
    session.execute(insert(kind.__table__), [{**made, **row} for row in rows])


def put_field(session, sky, n_images, n_objects, seed):
    """Put images in a row, each overlapping the next by half, and objects all over them."""
    rng = np.random.default_rng(seed)
    ra = 150 + rng.uniform(0, 0.1 * (n_images + 1) / n_images, n_objects)
    dec = rng.uniform(1.95, 2.05, n_objects)
    places = {"ra_err_arcsec": 0.1, "dec_err_arcsec": 0.1, "is_bad": False, "n_sightings": 1}
    put(session, sky, Object, [
        {"id": new_id(), "name": f"o{k}", "ra": a, "dec": d, "healpix": int(healpix_of(a, d)), **places}
        for k, (a, d) in enumerate(zip(ra.tolist(), dec.tolist(), strict=True))
    ])  # fmt: skip
    first = sky._image("difference", sky.image_id)
    same = {n: getattr(first, n) for n in ("instrument", "filter", "mjd_start", "mjd_mid", "exposure_time_s")}
    same |= {"type": "difference", "section_id": "0", "ra": 150.0, "dec": 2.0, "healpix": 1, "header": {}}
    exposure_id, step = sky._exposure(session, 5), 0.1 / n_images
    put(session, sky, Image, [
        {
            **same, "id": new_id(), "exposure_id": exposure_id, "new_image_id": sky.image_id, "bitflag": 0,
            "data_version": f"d{i}",
            "corners": [[150 + (i + x) * step, y] for x, y in ((0, 1.9), (2, 1.9), (2, 2.1), (0, 2.1))],
        }
        for i in range(n_images)
    ])  # fmt: skip
    images = session.scalars(select(Image).where(Image.type == "difference").order_by(Image.data_version))
    return list(images), list(session.scalars(select(Object).order_by(Object.id)))


def put_fluxes(session, sky, pairs, **changes):
    rows = [
        {
            "id": new_id(), "object_id": o.id, "image_id": i.id, "zero_point_id": sky.zero_point_id, "x": 0.0,
            "kind": "difference", "filter": "r", "mjd_mid": 61000.0, "ra": o.ra, "dec": o.dec, "y": 0.0,
            "usable_fraction": 1.0, "zp": 25.0, "zp_err": 0.01, "flux": 10.0, "flux_err": 1.0, "flags": 0,
            **changes,
        }
        for i, o in pairs
    ]  # fmt: skip
    put(session, sky, ForcedFlux, rows)


def test_what_is_missing_is_what_the_definition_says(sky):
    rng = np.random.default_rng(4)
    with open_session(sky.settings) as session:
        other = record_provenance(session, ProvenanceKey("forced_photometry", "other")).id
        images, objects = put_field(session, sky, 8, 30, 4)
        inside = np.array([
            [i.corners[0][0] <= o.ra <= i.corners[1][0] for o in objects] for i in images
        ])  # fmt: skip
        # A new image, new objects, one image with gaps, and everything else measured.
        measured = inside.copy()
        measured[7], measured[:, :3] = False, False
        measured[4] &= rng.random(30) < 0.7
        for which, made in ((measured, {}), (inside, {"provenance_id": other})):
            put_fluxes(session, sky, [(images[i], objects[k]) for i, k in np.argwhere(which)], **made)
        # Of S/N 10: one has moved by a little less than what counts, the other by a little more.
        limit_arcsec = 2 * WIDTH_ARCSEC / 2.3548 * np.sqrt(TOO_LOW_SIGMA / 10)
        objects[20].dec += 0.95 * limit_arcsec / 3600
        objects[21].dec += 1.05 * limit_arcsec / 3600
        session.flush()
        measured[:, 21] = False
        found = unmeasured(
            session, sky.provenance_id, objects, images, dict.fromkeys((i.id for i in images), WIDTH_ARCSEC)
        )
        assert np.array_equal(found, inside & ~measured)
        assert found[7].any() and found[:, :3].any() and found[:, 21].any() and not found.all(axis=0).any()
        none = unmeasured(session, sky.provenance_id, [], [], {})
        assert none.shape == (0, 0)


def test_a_difference_has_the_zero_point_that_its_new_image_has_now(sky):
    """After going back to an earlier catalog that is not the one made last."""
    with open_session(sky.settings) as session:
        first = session.get_one(ZeroPoint, sky.zero_point_id)
        values = {c.key: getattr(first, c.key) for c in ZeroPoint.__table__.columns}
        last = new_id()
        values |= {"id": last, "data_version": "last"}
        session.execute(insert(ZeroPoint.__table__), [values])
        difference = sky._image("difference", sky.image_id)
        difference.id = new_id()
        outcome = StepOutcome(
            exposure_id=sky._exposure(session, 999), section_id="0", step="zero_point", status="done",
            provenance_id=sky.provenance_id, data_version=first.data_version,
        )  # fmt: skip
        session.add(outcome)
        session.flush()
        assert zero_points_of(session, [difference], [sky.provenance_id]) == {difference.id: first.id}
        outcome.data_version = "last"
        session.flush()
        assert zero_points_of(session, [difference], [sky.provenance_id]) == {difference.id: last}
        assert zero_points_of(session, [difference], ["other"]) == {}
