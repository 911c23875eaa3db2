"""One of each product, made as the chain makes them, on small frames."""

import uuid
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy.orm import Session

from seechange_core import frames
from seechange_core.products import (
    Calibrator,
    CatalogRelease,
    Exposure,
    Image,
    SourceList,
    WorldCoordinates,
    ZeroPoint,
)
from seechange_core.products.base import save
from seechange_core.products.place import Place
from seechange_core.products.provenance import record_provenance
from seechange_core.provenance import ProvenanceKey, digest
from seechange_core.storage.orm import new_id

SHAPE = (40, 60)
PLACE = Place("demo", "2026-11-22", "demo_20261122_030000_sci", "0")


def image_frame(seed: int = 1, **changes: Any) -> frames.ImageFrame:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "data": rng.normal(100, 10, SHAPE).astype(np.float32),
        "weight": rng.uniform(0, 1, SHAPE).astype(np.float32),
        "flags": rng.integers(0, 512, SHAPE, dtype=np.uint16),
        "exposure_time_s": 30.5,
        "gain": 1.25,
        "saturation_e": 60000.5,
        "calibration_steps": 5,
        "header": {"OBJECT": "field", "AIRMASS": 1.2},
        "resamplings": 1,
    }
    return frames.ImageFrame(**{**values, **changes})


def psf_model() -> frames.PsfModel:
    coefficients = np.random.default_rng(3).normal(size=(3, 9, 9)).astype(np.float32)
    return frames.PsfModel(coefficients, 1, (29.5, 19.5), (30.0, 20.0), 3.1, n_stars=44, floor=0.003)


def solution(ra: float = 150.0, dec: float = 2.0) -> frames.WcsSolution:
    cards = {
        **{
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRVAL1": ra,
            "CRVAL2": dec,
            "CRPIX1": 30.5,
            "CRPIX2": 20.5,
        },
        **{"CD1_1": -7.5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 7.5e-5, "CUNIT1": "deg", "CUNIT2": "deg"},
    }
    return frames.WcsSolution(cards, SHAPE, rms_mas=9.0, n_matched=20, n_catalog=30, error_mas=2.0)


def zero_point() -> frames.ZeroPointSolution:
    return frames.ZeroPointSolution(
        27.0, 0.01, "r", color_term=0.02, n_stars=20, scatter_mag=0.02, aperture_corrections=(0.1, np.nan)
    )


def detections(n: int = 3) -> frames.Detections:
    rng = np.random.default_rng(4)
    return frames.Detections(*(rng.uniform(1, 30, n) for _ in range(7)), np.arange(n))


def stamps(n: int = 3, size: int = 11) -> frames.Stamps:
    rng = np.random.default_rng(5)
    cubes = [rng.normal(size=(n, size, size)).astype(np.float32) for _ in range(6)]
    flags = [rng.integers(0, 9, (n, size, size), dtype=np.uint16) for _ in range(3)]
    return frames.Stamps(*cubes, *flags, np.arange(n) - 1, np.arange(n))


def same(one: Any, other: Any) -> None:
    """Check that two frames are equal in every field, in type and value."""
    assert type(one) is type(other)
    for name in one.__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        if hasattr(a, "__dataclass_fields__"):
            same(a, b)
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            assert a == b or repr(a) == repr(b), name


_numbers = count()


@dataclass
class Maker:
    """Makes rows that others refer to."""

    session: Session
    provenance_id: str

    def version(self) -> str:
        return digest(self.provenance_id, next(_numbers))

    def exposure(self, name: str = "demo_1") -> uuid.UUID:
        key = new_id()
        self.session.execute(
            Exposure.__table__.insert().values(
                id=key,
                filename=f"raw/{name}.fits",
                name=name,
                instrument="demo",
                mjd=61000.0,
                mjd_mid=61000.1,
                night="2026-11-22",
                exp_time=30.0,
                filter="r",
                ra=150.0,
                dec=2.0,
                type="science",
                header={},
            )
        )
        return key

    def new_image(self, **changes: Any) -> Image:
        values = {
            **{
                "type": "science",
                "section_id": "0",
                "instrument": "demo",
                "filter": "r",
                "mjd_start": 61000.0,
            },
            **{
                "mjd_mid": 61000.1,
                "exposure_time_s": 30.0,
                "ra": 150.0,
                "dec": 2.0,
                "header": {"airmass": 1.2},
            },
            **{"provenance_id": self.provenance_id, "data_version": self.version()},
        }
        return Image(**{**values, **changes})

    def image(self, **changes: Any) -> Image:
        changes = {"exposure_id": self.exposure(f"demo_{next(_numbers)}"), **changes}
        return save(self.session, self.new_image(**changes))

    def made(self) -> dict[str, str]:
        return {"provenance_id": self.provenance_id, "data_version": self.version()}

    def source_list(self, image: Image, **changes: Any) -> SourceList:
        return save(self.session, SourceList(image_id=image.id, **{**self.made(), **changes}))

    def catalog(self) -> CatalogRelease:
        row = CatalogRelease(name="c", content_hash="0" * 64, n_stars=1, path="c", epoch=2016.0, bands=["r"])
        return save(self.session, row)

    def world_coordinates(self, sources: SourceList, ra: float = 150.0, dec: float = 2.0) -> WorldCoordinates:
        row = WorldCoordinates(
            image_id=sources.image_id, source_list_id=sources.id, catalog_id=self.catalog().id, **self.made()
        )
        return save(self.session, row.take(solution(ra, dec)))

    def zero_point(self, wcs: WorldCoordinates) -> ZeroPoint:
        row = ZeroPoint(
            image_id=wcs.image_id,
            source_list_id=wcs.source_list_id,
            world_coordinates_id=wcs.id,
            catalog_id=wcs.catalog_id,
            filter="r",
            **self.made(),
        )
        return save(self.session, row.take(zero_point()))


@pytest.fixture
def make(session: Session) -> Maker:
    return Maker(session, record_provenance(session, ProvenanceKey("image", "1")).id)


@pytest.fixture
def sample() -> SimpleNamespace:
    """The functions above: test modules cannot import this file."""
    return SimpleNamespace(
        image=image_frame,
        psf=psf_model,
        wcs=solution,
        zero_point=zero_point,
        detections=detections,
        stamps=stamps,
        same=same,
        place=PLACE,
    )


@pytest.fixture
def calibrator(session, make):
    def build(**changes) -> Calibrator:
        values = {
            **{
                "kind": "bias",
                "instrument": "demo",
                "section_id": "0",
                "night": "2026-11-22",
                "mjd": 61000.0,
            },
            **{"validity_start": 60990.0, "validity_end": 61010.0, "n_frames": 5, **make.made()},
        }
        return save(session, Calibrator(**{**values, **changes}))

    return build
