import numpy as np
import pytest

from seechange_core.frames import MasterFrame
from seechange_core.products import Calibrator
from seechange_core.products.base import save
from seechange_core.products.calibrator import find_calibrator, frame_ids, set_frames
from seechange_core.products.place import Place
from seechange_core.storage.archive import Archive


def master(**changes) -> MasterFrame:
    rng = np.random.default_rng(1)
    return MasterFrame(
        **{
            **{"kind": "flat", "data": rng.normal(1, 0.1, (20, 30)).astype(np.float32), "n_frames": 7},
            **{"variance": np.full((20, 30), 1e-4, np.float32), "flags": np.zeros((20, 30), np.uint16)},
            **changes,
        }
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


@pytest.mark.parametrize("changes", [{}, {"exposure_time_s": 30.5, "holds_pedestal": True, "kind": "dark"}])
def test_a_master_comes_back_the_same(settings, sample, changes):
    row = Calibrator(kind="flat", filter="r", data_version="f" * 20)
    row.write(Archive(settings), master(**changes), Place.of_master("demo", "2026-11-22", 0))
    assert row.filepath == "demo/2026-11-22/masters/0/flat_r_ffffffffff.fits"
    assert row.n_frames == 7
    sample.same(row.read(Archive(settings)), master(**changes))


def test_the_nearest_valid_one_is_chosen(session, calibrator):
    def find(mjd, **what):
        return find_calibrator(
            session, "bias", **{"instrument": "demo", "section_id": "0", "mjd": mjd, **what}
        )

    early = calibrator(mjd=60995.0, night="2026-11-17")
    late = calibrator(mjd=61005.0, night="2026-11-27")
    open_end = calibrator(mjd=60950.0, night="2026-10-03", validity_start=60900.0, validity_end=None)
    calibrator(mjd=61000.0, bitflag=1)
    assert find(60998.0).id == early.id
    assert find(61002.0).id == late.id
    assert find(62000.0).id == open_end.id
    assert find(61010.0).id == open_end.id
    assert find(60000.0) is None
    assert find(61000.0, section_id="1") is None
    assert find(61000.0, instrument="decam") is None
    assert find(61000.0, band="r") is None


@pytest.mark.parametrize("mjd", [61000.0, 60999.99])
def test_the_newest_of_one_night(session, calibrator, mjd):
    """One with more of the night's frames replaces the older one, though their mean time moved away."""
    calibrator()
    newest = calibrator(mjd=mjd)
    assert find_calibrator(session, "bias", instrument="demo", section_id="0", mjd=61000.0).id == newest.id


def test_supplied_ones_qualify_whatever_the_provenance(session, calibrator, make):
    calibrator(mjd=61000.0)
    supplied = calibrator(mjd=61009.0, origin="supplied")
    what = {"instrument": "demo", "section_id": "0", "mjd": 61000.0}
    assert find_calibrator(session, "bias", **what, provenance_id="x").id == supplied.id
    assert find_calibrator(session, "bias", **what, provenance_id=make.provenance_id).id != supplied.id


def test_it_knows_its_frames(session, calibrator, make):
    row = calibrator()
    exposures = sorted(make.exposure(f"b{i}") for i in range(3))
    set_frames(session, row, exposures)
    set_frames(session, row, exposures)
    assert frame_ids(session, row.id) == exposures
    set_frames(session, row, [])
    assert frame_ids(session, row.id) == []
