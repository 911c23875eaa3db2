"""Which of thousands of exposures of one field cover a place: by their solution, or the nearest one."""

import numpy as np
from sqlalchemy import insert

from seechange_core.chain.left_out import _covering
from seechange_core.numerics.sky import healpix_of, offset
from seechange_core.products import CatalogRelease, Exposure, Image, SourceList, StepOutcome, WorldCoordinates
from seechange_core.storage.engine import open_session
from seechange_core.storage.orm import new_id

#: Half of a section's side, where it lies from the pointing, and the dithers: deg.
HALF, EAST, NORTH, DITHER = 0.08, 0.25, -0.17, 0.15
RA, DEC = 40.0, 60.0


def many(sky, n, solved):
    """Add n dithered exposures of one section, some solved; return which of them cover the place."""
    rng = np.random.default_rng(3)
    ra, dec = offset(RA, DEC, rng.uniform(-DITHER, DITHER, n) - EAST, rng.uniform(-DITHER, DITHER, n) - NORTH)
    middle = offset(ra, dec, EAST, NORTH)
    sides = [offset(*middle, HALF * a, HALF * b) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    corners = np.moveaxis(np.array(sides), (0, 1), (1, 2))
    east = (RA - middle[0]) * np.cos(np.deg2rad(DEC))
    covers = (np.abs(east) < HALF) & (np.abs(DEC - middle[1]) < HALF)
    near = np.abs(np.maximum(np.abs(east), np.abs(DEC - middle[1])) - HALF) < 0.05 * HALF
    exposures, images, solutions, outcomes = [], [], [], []
    with open_session(sky.settings) as session:
        listed, catalog = session.query(SourceList.id).first()[0], session.query(CatalogRelease.id).first()[0]
        for k in range(n):
            exposure = {
                "id": new_id(), "filename": f"m{k}.fits", "name": f"m{k}", "instrument": "demo",
                "mjd": 61000.0, "mjd_mid": 61000.0, "night": "2026-11-22", "exp_time": 30.0, "filter": "r",
                "ra": float(ra[k]), "dec": float(dec[k]), "healpix": int(healpix_of(ra[k], dec[k])),
                "type": "science", "header": {},
            }  # fmt: skip
            exposures.append(exposure)
            if not solved[k]:
                continue
            image = {
                "id": new_id(), "type": "science", "section_id": "0", "instrument": "demo", "filter": "r",
                "mjd_start": 61000.0, "mjd_mid": 61000.0, "exposure_time_s": 30.0, "ra": float(middle[0][k]),
                "dec": float(middle[1][k]), "header": {}, "exposure_id": exposure["id"],
                "healpix": exposure["healpix"], **sky._made(),
            }  # fmt: skip
            made = sky._made()
            images.append(image)
            solutions.append(
                {
                    "id": new_id(), "image_id": image["id"], "source_list_id": listed, "catalog_id": catalog,
                    "cards": {}, "width_pix": 9, "height_pix": 9, "rms_mas": 1.0, "error_mas": 1.0,
                    "n_matched": 9, "n_catalog": 9, "pixel_scale_arcsec": 1.0, "ra": float(middle[0][k]),
                    "dec": float(middle[1][k]), "healpix": int(healpix_of(middle[0][k], middle[1][k])),
                    "corners": corners[k].tolist(), "radius_deg": 1.5 * HALF, **made,
                }
            )  # fmt: skip
            outcomes.append(
                {
                    "id": new_id(), "exposure_id": exposure["id"], "section_id": "0", "status": "done",
                    "step": "world_coordinates", **made,
                }
            )  # fmt: skip
        # Of one the solution was replaced since: what it covered does not count.
        outcomes[0] |= {"data_version": "f" * 64}
        for table, rows in (
            (Exposure, exposures), (Image, images), (WorldCoordinates, solutions), (StepOutcome, outcomes),
        ):  # fmt: skip
            session.execute(insert(table), rows)
    return covers, near


def test_unsolved_sections_lie_where_the_nearest_solved_ones_do(sky):
    n = 600
    solved = np.arange(n) % 3 == 0
    covers, near = many(sky, n, solved)
    with open_session(sky.settings, read_only=True) as session:
        keys, names = _covering(session, RA, DEC)
    found = np.zeros(n, bool)
    found[[int(names[exposure_id][1:]) for exposure_id, _ in keys]] = True
    assert 0.2 < covers.mean() < 0.5
    assert (found == covers)[~near].all()
    assert near.mean() < 0.2
