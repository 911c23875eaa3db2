"""A sky that is measured section by section, with rows as the chain makes them but no pixels."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import select

from seechange_core.chain.objects import assign_objects
from seechange_core.frames import WcsSolution, ZeroPointSolution
from seechange_core.numerics.sky import offset
from seechange_core.products import (
    CatalogRelease,
    Cutouts,
    Exposure,
    Image,
    Measurement,
    Object,
    Sighting,
    SourceList,
    StepOutcome,
    WorldCoordinates,
    ZeroPoint,
)
from seechange_core.products.provenance import record_provenance
from seechange_core.provenance import ProvenanceKey, digest
from seechange_core.settings import use_settings
from seechange_core.stages.associate import AssociateParams
from seechange_core.storage.engine import open_session
from seechange_core.storage.orm import new_id

CARDS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 5.0, "CRPIX2": 5.0,
    "CD1_1": -7.5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 7.5e-5, "CUNIT1": "deg", "CUNIT2": "deg",
}  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """What one section of one exposure saw."""

    exposure: int
    section: int
    ra: np.ndarray
    dec: np.ndarray
    err: np.ndarray
    bitflag: int = 0

    @property
    def mjd(self) -> float:
        return 61000.0 + 3.7 * self.exposure


class Sky:
    """A database in which sections are measured: its rows are as the chain makes them."""

    def __init__(self, settings):
        self.settings = settings
        with open_session(settings) as session:
            self.provenance_id = record_provenance(session, ProvenanceKey("measurement", "1")).id
            image = self._image("science", None)
            image.exposure_id = self._exposure(session, 999)
            session.add(image)
            session.flush()
            listed = SourceList(image_id=image.id, **self._made())
            catalog = CatalogRelease(
                name="c", content_hash="0" * 64, n_stars=1, path="c", epoch=2016.0, bands=["r"]
            )
            session.add_all([listed, catalog])
            session.flush()
            of = {"image_id": image.id, "source_list_id": listed.id, "catalog_id": catalog.id}
            solution = WcsSolution(CARDS, (9, 9), rms_mas=9.0, n_matched=9, n_catalog=9, error_mas=2.0)
            solved = WorldCoordinates(**of, **self._made()).take(solution)
            session.add(solved)
            session.flush()
            zero_point = ZeroPoint(**of, world_coordinates_id=solved.id, filter="r", **self._made())
            zero_point.take(ZeroPointSolution(27.0, 0.01, "r"))
            session.add(zero_point)
            session.flush()
            self.zero_point_id, self.image_id = zero_point.id, image.id

    def _made(self):
        return {"provenance_id": self.provenance_id, "data_version": digest(str(new_id()))}

    def _image(self, kind, new_image_id):
        return Image(
            type=kind, section_id="0", instrument="demo", filter="r", mjd_start=61000.0, mjd_mid=61000.0,
            exposure_time_s=30.0, ra=0.0, dec=0.0, header={}, new_image_id=new_image_id, **self._made(),
        )  # fmt: skip

    def _exposure(self, session, number):
        found = session.scalar(select(Exposure.id).where(Exposure.name == f"e{number}"))
        if found is None:
            found = new_id()
            session.execute(
                Exposure.__table__.insert().values(
                    id=found, filename=f"e{number}.fits", name=f"e{number}", instrument="demo", mjd=61000.0,
                    mjd_mid=61000.0, night="2026-11-22", exp_time=30.0, filter="r", ra=0.0, dec=0.0,
                    type="science", header={},
                )
            )  # fmt: skip
        return found

    def measure(self, batch: Batch) -> int:
        """Save what a section saw, as its steps do, and give it objects."""
        with open_session(self.settings) as session:
            exposure_id = self._exposure(session, batch.exposure)
            difference = self._image("difference", self.image_id)
            difference.exposure_id, difference.section_id = exposure_id, str(batch.section)
            session.add(difference)
            session.flush()
            listed = SourceList(image_id=difference.id, bitflag=batch.bitflag, **self._made())
            place = {"exposure_id": exposure_id, "section_id": str(batch.section), "step": "detections"}
            place["provenance_id"] = self.provenance_id
            old = session.scalar(select(StepOutcome).filter_by(**place))
            outcome = old or StepOutcome(**place, status="done")
            outcome.data_version = listed.data_version
            session.add_all([listed, outcome])
            session.flush()
            rows = [self._measured(session, listed, batch, i) for i in range(len(batch.ra))]
        section = SimpleNamespace(
            settings=self.settings,
            exposure=SimpleNamespace(id=exposure_id),
            section=str(batch.section),
            provenance_id=lambda _: self.provenance_id,
            params=lambda *_: AssociateParams(),
        )
        return assign_objects(section, rows)

    def _measured(self, session, listed, batch, i):
        at = {
            "mjd_mid": batch.mjd, "ra": batch.ra[i], "dec": batch.dec[i], "x": 0.0, "y": 0.0,
            "position_err_arcsec": batch.err[i], "provenance_id": self.provenance_id,
        }  # fmt: skip
        sighting = Sighting(source_list_id=listed.id, number=i, score=9.0, **at)
        session.add(sighting)
        session.flush()
        cutouts = Cutouts(sighting_id=sighting.id, number=i, provenance_id=self.provenance_id)
        session.add(cutouts)
        session.flush()
        return Measurement(
            cutouts_id=cutouts.id, sighting_id=sighting.id, zero_point_id=self.zero_point_id, n_bad=0,
            is_bad=False, **at,
        )  # fmt: skip

    def objects(self):
        """Return all objects with their members: names, figures, and what was measured of each."""
        with open_session(self.settings, read_only=True) as session:
            rows = list(session.scalars(select(Object).where(Object.n_sightings > 0)))
            seen = session.execute(select(Measurement.object_id, Measurement.mjd_mid, Measurement.ra)).all()
            other = dict(session.execute(select(Measurement.sighting_id, Measurement.object_id)).all())
            assert other == dict(session.execute(select(Sighting.id, Sighting.object_id)).all())
        members = {row.id: sorted((mjd, ra) for o, mjd, ra in seen if o == row.id) for row in rows}
        figures = ("ra", "dec", "ra_err_arcsec", "dec_err_arcsec", "n_sightings", "first_mjd", "last_mjd")
        assert all(row.n_sightings == len(members[row.id]) for row in rows)
        return sorted((r.name, *(getattr(r, f) for f in figures), members[r.id], r.is_bad) for r in rows)


def one(number, east, north=0.0, err=0.1, section=0):
    ra, dec = offset(150.0, 2.0, np.array([east]) / 3600, np.array([north]) / 3600)
    return Batch(number, section, np.atleast_1d(ra), np.atleast_1d(dec), np.array([err]))


@pytest.fixture
def sky(database):
    with use_settings(database):
        yield Sky(database)
