"""Choosing calibrators: the nearest valid date, whatever is looked at first."""

import math
from itertools import pairwise

import numpy as np
import pytest
from sqlalchemy import update

from seechange_core.instrument import SensorSection, get_instrument_instance
from seechange_core.products import Exposure
from seechange_core.products.calibrator import Calibrator, set_frames
from seechange_core.products.devices import Devices
from seechange_core.products.shelf import NEAR_DAYS, Shelf, is_here
from seechange_core.storage.archive import Archive
from seechange_core.storage.orm import now


@pytest.fixture
def find(session, make):
    def nearest(mjd, kind="bias", section="0", band="", provenance=None, around=(), **_):
        ids = [provenance or make.provenance_id]
        found = Shelf(session, "demo", ids, [mjd, *around]).nearest(kind, section, mjd, band)
        return found and found.id

    return nearest


def test_the_nearest_valid_one_is_chosen(find, calibrator):
    early = calibrator(mjd=60995.0, night="2026-11-17").id
    late = calibrator(mjd=61005.0, night="2026-11-27").id
    open_end = calibrator(mjd=60950.0, night="2026-10-03", validity_start=60900.0, validity_end=None).id
    calibrator(mjd=61000.0, bitflag=1)
    calibrator(mjd=61000.0, instrument="decam")
    assert find(60998.0) == early
    assert find(61002.0) == late
    assert find(62000.0) == open_end
    assert find(61010.0) == open_end
    assert find(60000.0) is None
    assert find(61000.0, section="1") is None
    assert find(61000.0, band="r") is None


@pytest.mark.parametrize("mjd", [61000.0, 60999.99])
def test_the_newest_of_one_night(find, calibrator, mjd):
    """One with more of the night's frames replaces the older one, though their mean time moved away."""
    calibrator()
    newest = calibrator(mjd=mjd)
    assert find(61000.0) == newest.id


def test_supplied_ones_qualify_whatever_the_provenance(find, calibrator):
    built = calibrator(mjd=61000.0)
    supplied = calibrator(mjd=61009.0, origin="supplied")
    assert find(61000.0, provenance="x") == supplied.id
    assert find(61000.0) == built.id


def test_of_those_supplied_for_one_date_the_last_one_counts(find, calibrator):
    for kind in ("linearity", "linearity"):
        last = calibrator(kind=kind, origin="supplied", validity_start=0.0, validity_end=None)
    assert find(61700.0, kind="linearity") == last.id


def test_the_choice_is_that_of_all_rows(find, session, calibrator, make):
    """Against the rule itself, on random rows: what is looked at first makes no difference."""
    rng = np.random.default_rng(7)
    rows = []
    for mjd in np.round(rng.uniform(60980, 61020, 60), 2):
        days = rng.choice([2.0, 8.0, 20.0])
        section, kind, band = (
            rng.choice(["0", "1"]),
            *rng.choice([("bias", ""), ("flat", "r"), ("flat", "g")]),
        )
        made = {"mjd": mjd, "night": str(int(mjd)), "validity_start": mjd - days, "validity_end": mjd + days}
        origin = rng.choice(["built", "built", "supplied"])
        rows.append(calibrator(kind=kind, section_id=section, filter=band, origin=origin, **made))

    def rule(kind, section, mjd, band):
        valid = [
            r
            for r in rows
            if (r.kind, r.section_id, r.filter) == (kind, section, band)
            and r.validity_start <= mjd < r.validity_end
        ]
        best = min(valid, key=lambda r: (abs(r.mjd - mjd), -r.id.int), default=None)
        if best is not None and best.origin == "built":
            best = max(
                (r for r in valid if r.night == best.night and r.origin == "built"), key=lambda r: r.id
            )
        return best and best.id

    times = rng.uniform(60950, 61050, 60)
    many = Shelf(session, "demo", [make.provenance_id], times)
    chosen = []
    for mjd in times:
        for kind, band in (("bias", ""), ("flat", "r"), ("flat", "g")):
            expected = rule(kind, "1", mjd, band)
            found = many.nearest(kind, "1", mjd, band)
            assert (found and found.id) == expected == find(mjd, kind, "1", band)
            chosen.append(expected)
    assert len(set(chosen)) > 10 and None in chosen


def test_what_is_far_is_looked_for_once(session, calibrator, make):
    far = calibrator(kind="fringe", mjd=61000.0 + 3 * NEAR_DAYS, filter="z").id
    shelf = Shelf(session, "demo", [make.provenance_id], [61000.0])
    assert shelf.nearest("fringe", "0", 61000.0, "z").id == far
    calibrator(kind="fringe", mjd=61000.0, filter="z")
    assert shelf.nearest("fringe", "0", 61000.0, "z").id == far
    assert [row.id for row in shelf.by_nearness("fringe", "0", 61000.0, "z")] == [far]


def test_a_lost_file_is_noticed(database, session, calibrator, make):
    calibrator(filepath="demo/bias.fits")
    known = Shelf(session, "demo", [make.provenance_id], [61000.0]).nearest("bias", "0", 61000.0)
    archive = Archive(database)
    assert not is_here(known, archive)
    archive.write("demo/bias.fits", lambda path: path.write_bytes(b"."))
    assert is_here(known, archive)
    assert not is_here(known._replace(filepath=None), archive)


SWAP = 61000.0


def test_masters_serve_the_device_they_were_made_with(find, session, calibrator):
    """The CCD is exchanged, and the database told so, when its masters are there already."""
    old = calibrator(mjd=SWAP - 0.2, night="2026-11-21").id
    late = {"validity_start": 60995.0, "validity_end": 61015.0}
    new = calibrator(mjd=SWAP + 4, night="2026-11-26", **late).id
    assert find(SWAP + 1) == old
    for start, end in ((None, SWAP), (SWAP, None)):
        session.add(SensorSection("0", "demo", validity_start=start, validity_end=end))
    session.flush()
    assert find(SWAP - 1e-6) == find(SWAP - 5) == old
    assert find(SWAP) == find(SWAP + 1) == new
    # Another section, and what a person supplied for its own dates, do not care.
    other = calibrator(mjd=SWAP - 1, section_id="1").id
    assert find(SWAP + 1, section="1") == other
    supplied = calibrator(mjd=SWAP - 0.1, night="2026-11-21", origin="supplied").id
    assert find(SWAP + 1) == supplied


def test_rows_that_leave_gaps_and_those_in_the_cameras_own_code_end_devices(session, monkeypatch):
    """One stored row in the middle; the code knows a repair besides: four devices."""
    camera = get_instrument_instance("demo")

    def at(section, mjd):
        dates = {"validity_end": 60900.0} if mjd < 60900.0 else {"validity_start": 60900.0}
        return SensorSection(section, "demo", **dates)

    monkeypatch.setattr(camera, "_make_section_at", at)
    session.add(SensorSection("0", "demo", validity_start=61000.0, validity_end=61010.0))
    session.flush()
    devices = Devices(session, "demo")
    edges = [-math.inf, 60900.0, 61000.0, 61010.0, math.inf]
    for start, end in pairwise(edges):
        inside = [max(start, 60800.0), min(end, 61100.0) - 1e-6]
        assert [devices.span("0", mjd) for mjd in inside] == [(start, end)] * 2
    assert devices.span("1", 61005.0) == (60900.0, math.inf)
    assert devices.fullest("0", [60999.0, 61001.0, 61002.0]) == (61000.0, 61010.0)
    assert devices.fullest("0", [60998.0, 60999.0, 61001.0]) == (60900.0, 61000.0)
    assert devices.fullest("0", [60999.0, 61001.0]) == (61000.0, 61010.0)


def test_a_master_of_frames_of_two_devices_serves_neither(find, session, calibrator, make):
    mixed = calibrator(mjd=SWAP + 0.01)
    times = {make.exposure(f"bias_{i}"): SWAP + 0.05 * (i - 1) for i in range(3)}
    for key, mjd in times.items():
        session.execute(update(Exposure).where(Exposure.id == key).values(mjd_mid=mjd))
    set_frames(session, mixed, dict.fromkeys(times, ""))
    session.add(SensorSection("0", "demo", validity_start=SWAP))
    session.flush()
    assert find(SWAP + 0.1) is None and find(SWAP - 0.1) is None
    # That it was left out for another reason is enough.
    (first, *others) = times
    set_frames(session, mixed, {first: "too noisy", **dict.fromkeys(others, "")})
    assert find(SWAP + 0.1) == mixed.id and find(SWAP - 0.1) is None


def test_a_master_that_is_right_again_is_put_before_the_later_one(session, make, calibrator, find):
    """Frames marked bad and good again: the first master is the right one, though another came after it."""
    first, second = calibrator(), calibrator()
    session.flush()
    shelf = Shelf(session, "demo", [make.provenance_id], [61000.0])
    assert shelf.outranks(first.data_version)
    assert not shelf.outranks(second.data_version)
    session.execute(update(Calibrator).where(Calibrator.id == first.id).values(created_at=now()))
    shelf = Shelf(session, "demo", [make.provenance_id], [61000.0])
    assert not shelf.outranks(first.data_version)
    assert find(61000.0) == first.id
