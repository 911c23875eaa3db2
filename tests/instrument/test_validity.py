"""Rows of sections over time: no two hold at once, whoever writes them, and a CCD can be replaced."""

import multiprocessing
import pickle
import threading
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from astropy.time import Time
from sqlalchemy import func, insert, select

from seechange_core import Exposure
from seechange_core.errors import ConflictError, UserError
from seechange_core.instrument import SECTION_PROPERTIES, SensorSection
from seechange_core.storage.engine import open_session
from tests.instrument.conftest import TwoChips

SWAP = 59000.0


def stored(database):
    """Rows of section A: (start, end, gain), by start."""
    with open_session(database) as session:
        query = select(SensorSection.validity_start, SensorSection.validity_end, SensorSection.gain)
        rows = session.execute(query.where(SensorSection.section_id == "A", SensorSection.gain.is_not(None)))
        return sorted(rows.all(), key=lambda r: (r[0] is not None, r[0] or 0.0))


# --- Properties -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prop", SECTION_PROPERTIES)
def test_every_property_of_a_section_overrides_the_instrument_s(two_chips, session, prop):
    general = {"offset_x": -100.0, "offset_y": 0.0, "filter_array_index": 0, "defective": False}.get(prop, 7)
    if prop not in {"offset_x", "offset_y", "filter_array_index"}:
        setattr(two_chips, prop, general)
    own = prop == "defective" or 5
    two_chips.fetch_sections(session)
    setattr(two_chips.sections["A"], prop, None)
    assert two_chips.get_property("A", prop) == general
    setattr(two_chips.sections["A"], prop, own)
    two_chips.commit_sections(session)
    two_chips.sections = {}
    two_chips.fetch_sections(session)
    assert two_chips.get_property("A", prop) == own
    assert two_chips.get_property("B", prop) != own


@pytest.mark.parametrize("own", [0, 0.0, False])
def test_what_counts_is_none_not_what_is_false(two_chips, own):
    two_chips.fetch_sections()
    two_chips.dark_current = 3.0
    two_chips.sections["A"].dark_current = own
    assert two_chips.get_property("A", "dark_current") == own


# --- Dates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2020, 5, 31, 12),  # without a time zone: UTC
        datetime(2020, 5, 31, 12, tzinfo=UTC),
        datetime(2020, 5, 31, 8, tzinfo=timezone(timedelta(hours=-4))),
        Time("2020-05-31T12:00:00"),
        Time("2020-05-31T12:00:37", scale="tai"),
        Time(59000.5, format="mjd"),
        59000.5,
        np.float64(59000.5),
        "2020-05-31T12:00:00.000",
        "2020-05-31 12:00:00Z",
    ],
)
def test_the_same_moment_in_all_its_forms(two_chips, session, moment):
    second = 1.0 / 86400.0
    session.add(SensorSection("A", "two_chips", gain=9.0, validity_start=59000.5, validity_end=59000.6))
    session.flush()
    assert two_chips.fetch_sections(session, moment)["A"].gain == 9.0
    session.add(SensorSection("B", "two_chips", gain=9.0, validity_start=moment, validity_end=59000.7))
    session.flush()
    assert two_chips.fetch_sections(session, 59000.5 + second / 10)["B"].gain == 9.0
    assert two_chips.fetch_sections(session, 59000.5 - second / 10)["B"].gain is None


def test_a_date_is_its_first_moment_and_none_is_now(two_chips, session):
    session.add(SensorSection("A", "two_chips", gain=9.0, validity_start=date(2020, 5, 31)))
    session.flush()
    assert two_chips.fetch_sections(session, 59000)["A"].gain == 9.0
    assert two_chips.fetch_sections(session)["A"].gain == 9.0
    later = datetime.now(UTC) + timedelta(days=1)
    session.add(SensorSection("B", "two_chips", gain=8.0, validity_start=later))
    session.flush()
    assert two_chips.fetch_sections(session)["B"].gain is None


@pytest.mark.parametrize("far", ["2100-01-01T00:00:00", datetime(2100, 1, 1), Time(88069, format="mjd")])
def test_an_end_in_the_far_future_is_no_cause_for_warnings(two_chips, session, far):
    two_chips.fetch_sections()
    two_chips.commit_sections(session, "2020-01-01T00:00:00", far)
    assert two_chips.sections["A"].validity_end == 88069.0


@pytest.mark.parametrize(
    "wrong", ["yesterday", "2020-13-01", True, 2459000.5, Time([59000, 59001], format="mjd")]
)
def test_what_is_no_moment_is_refused(two_chips, session, wrong):
    with pytest.raises(UserError):
        two_chips.fetch_sections(session, wrong)


# --- Overlaps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ((None, None), (None, None), True),
        ((None, None), (59000, None), True),
        ((None, 59000), (58999, 59001), True),
        ((None, 59000), (None, 58000), True),
        ((58000, None), (59000, 59100), True),
        ((58000, 59000), (58100, 58200), True),
        ((58100, 58200), (58000, 59000), True),
        ((58000, 59000), (58000, 59000), True),
        ((58000, 59000), (59000, 60000), False),  # the end is excluded
        ((59000, None), (None, 59000), False),
        ((None, 58000), (59000, None), False),
    ],
)
def test_no_two_rows_of_a_section_hold_at_once(two_chips, database, first, second, clash):
    for gain, validity in ((1.0, first), (2.0, second)):
        two_chips.fetch_sections()
        two_chips.sections["A"].gain = gain
        with open_session(database) as session:
            if gain == 2.0 and clash:
                with pytest.raises(ConflictError, match=r"section A of two_chips.*close the older one"):
                    two_chips.commit_sections(session, *validity)
                return
            two_chips.commit_sections(session, *validity)
    assert len(stored(database)) == 2


def test_both_ranges_are_named(two_chips, session):
    session.add(SensorSection("A", "two_chips", validity_start=58849, validity_end=59000))
    session.flush()
    session.add(SensorSection("A", "two_chips", validity_start=58900.5))
    with pytest.raises(
        ConflictError,
        match=r"a row valid from 2020-02-21T12:00:00\.000 \(MJD 58900\.5\) on would overlap one valid "
        r"from 2020-01-01T00:00:00\.000 \(MJD 58849\.0\) until 2020-05-31T00:00:00\.000 \(MJD 59000\.0\)",
    ):
        session.flush()
    session.rollback()


def test_other_sections_and_instruments_are_no_hindrance(session):
    for section, instrument in (("A", "one"), ("B", "one"), ("A", "two")):
        session.add(SensorSection(section, instrument))
    session.flush()


def test_a_refused_commit_changes_nothing(two_chips, database):
    two_chips.fetch_sections()
    with open_session(database) as session:
        two_chips.commit_sections(session, validity_start=59000, validity_end=60000)
    two_chips.fetch_sections()
    two_chips.sections["B"].validity_start = 60000.0  # B alone would do
    with open_session(database) as session, pytest.raises(ConflictError):
        two_chips.commit_sections(session, validity_start=59500)
    assert two_chips.sections["A"].validity_start is None
    with open_session(database) as session:
        assert session.scalar(select(func.count()).select_from(SensorSection)) == 2
        two_chips.commit_sections(session, validity_start=60000)  # the right date, and it goes
    assert [row[:2] for row in stored(database)] == [(59000.0, 60000.0), (60000.0, None)]


def test_committing_again_updates_the_rows(two_chips, database):
    two_chips.fetch_sections()
    for gain in (2.5, 2.6):
        two_chips.sections["A"].gain = gain
        with open_session(database) as session:
            two_chips.commit_sections(session, validity_start=59000)
    with open_session(database) as session:
        two_chips.fetch_sections(session, 59000)["A"].validity_end = 59500.0
        two_chips.commit_sections(session)
    assert stored(database) == [(59000.0, 59500.0, 2.6)]


def test_overlaps_from_elsewhere_are_settled_the_same_way_each_time(two_chips, session):
    rows = [(1.0, None), (2.0, 59000), (3.0, 59100)]
    for gain, start in rows:  # not through the mapped class: nothing refuses them
        values = {"section_id": "A", "instrument": "two_chips", "gain": gain, "validity_start": start}
        session.execute(insert(SensorSection.__table__).values(**values))
    gains = [two_chips.fetch_sections(session, mjd)["A"].gain for mjd in (58000, 59050, 59100)]
    assert gains == [1.0, 2.0, 3.0]


# --- Several processes at once ----------------------------------------------------------------------


def commit_one(database, gain, validity_start):
    camera = TwoChips()
    camera.fetch_sections()
    camera.sections["A"].gain = gain
    try:
        with open_session(database) as session:
            camera.commit_sections(session, validity_start)
    except ConflictError as error:
        return error.message
    return "committed"


_together = []


def in_a_process(database, gain):
    _together[0].wait(30)
    return commit_one(database, gain, SWAP + gain)


def test_of_several_processes_that_commit_overlapping_rows_one_wins(database):
    context = multiprocessing.get_context("fork")
    with context.Pool(4, _together.append, (context.Barrier(4),)) as pool:
        results = pool.starmap(in_a_process, [(database, float(i)) for i in range(1, 5)], chunksize=1)
    assert results.count("committed") == 1
    assert sum("would overlap" in r for r in results) == 3
    assert len(stored(database)) == 1


def test_who_comes_second_waits_for_the_first_to_be_done(database):
    """The first has written and not committed: the second must neither overtake nor overlook it."""
    results = []
    second = threading.Thread(target=lambda: results.append(commit_one(database, 2.0, 59500.0)))
    with open_session(database) as session:
        session.add(SensorSection("A", "two_chips", gain=1.0, validity_start=SWAP))
        session.flush()
        second.start()
        second.join(0.5)
        assert second.is_alive()
    second.join(30)
    assert "would overlap" in results[0]
    assert stored(database) == [(SWAP, None, 1.0)]


def test_who_comes_second_goes_on_if_the_first_gave_up(database):
    results = []
    second = threading.Thread(target=lambda: results.append(commit_one(database, 2.0, 59500.0)))
    with pytest.raises(RuntimeError), open_session(database) as session:
        session.add(SensorSection("A", "two_chips", gain=1.0, validity_start=SWAP))
        session.flush()
        second.start()
        second.join(0.2)
        raise RuntimeError
    second.join(30)
    assert results == ["committed"]


# --- Replacing --------------------------------------------------------------------------------------


def test_a_replaced_ccd_has_its_own_gain_from_its_date_on(two_chips, database):
    with open_session(database) as session:
        two_chips.fetch_sections()
        two_chips.sections["A"].gain, two_chips.sections["A"].read_noise = 1.5, 4.5
        two_chips.commit_sections(session)
        two_chips.replace_section(session, "A", "2020-05-31T00:00:00", gain=3.0, identifier="e2v 44-82 #7")
    with open_session(database) as session:
        old = two_chips.get_sections(session, SWAP - 1e-6)["A"]
        new = two_chips.get_sections(session, SWAP)["A"]
    assert (old.gain, old.read_noise, old.identifier) == (1.5, 4.5, None)
    assert (new.gain, new.read_noise, new.identifier) == (3.0, 4.5, "e2v 44-82 #7")
    assert stored(database) == [(None, SWAP, 1.5), (SWAP, None, 3.0)]


def test_replacing_where_nothing_is_stored_begins_with_the_hard_coded_values(two_chips, database):
    with open_session(database) as session:
        two_chips.replace_section(session, "A", SWAP, read_noise=9.0)
        two_chips.replace_section(session, "A", 59200, gain=None)
    with open_session(database) as session:
        for mjd, want in ((58000, (2.1, None)), (SWAP, (2.1, 9.0)), (59200, (None, 9.0))):
            section = two_chips.get_sections(session, mjd)["A"]
            assert (section.gain, section.read_noise) == want


def test_replacing_in_the_middle_keeps_what_comes_later(two_chips, database):
    with open_session(database) as session:
        two_chips.replace_section(session, "A", 59500, gain=5.0)
        two_chips.replace_section(session, "A", SWAP, gain=3.0)
        two_chips.replace_section(session, "A", 59200, gain=4.0)
    assert stored(database) == [(59000.0, 59200.0, 3.0), (59200.0, 59500.0, 4.0), (59500.0, None, 5.0)]


def replace_in_a_process(database, date):
    _together[0].wait(30)
    with open_session(database) as session:
        TwoChips().replace_section(session, "A", date, gain=date)


def test_processes_that_replace_a_section_at_once_take_turns(database):
    dates = [59300.0, 59100.0, 59400.0, 59200.0]
    context = multiprocessing.get_context("fork")
    with context.Pool(4, _together.append, (context.Barrier(4),)) as pool:
        pool.starmap(replace_in_a_process, [(database, date) for date in dates], chunksize=1)
    assert stored(database) == [
        (59100.0, 59200.0, 59100.0),
        (59200.0, 59300.0, 59200.0),
        (59300.0, 59400.0, 59300.0),
        (59400.0, None, 59400.0),
    ]


def test_replacing_is_refused_where_it_means_nothing(two_chips, database):
    with open_session(database) as session:
        two_chips.replace_section(session, "A", SWAP, gain=3.0)
    with open_session(database) as session, pytest.raises(ConflictError, match="begins on that date already"):
        two_chips.replace_section(session, "A", SWAP, gain=4.0)
    with open_session(database) as session, pytest.raises(UserError, match="no property 'gaim'"):
        two_chips.replace_section(session, "A", 59100, gaim=4.0)
    assert len(stored(database)) == 1


def gain_of(exposure):
    return exposure.get_property(0, "gain"), exposure.instrument_object.get_property(0, "gain")


def test_two_exposures_astride_the_swap_keep_theirs_here_and_in_workers(database):
    from seechange_core.instrument import get_instrument_instance

    exposures = []
    for mjd in (SWAP - 0.5, SWAP + 0.5):
        columns = {"type": "science", "exp_time": 1.0, "filter": "g", "mjd_mid": mjd, "night": "2020-05-30"}
        columns |= {"name": f"at_{mjd}", "filename": f"at_{mjd}.fits"}
        exposures.append(Exposure(nofile=True, instrument="demo", mjd=mjd, **columns))
    with open_session(database) as session:
        get_instrument_instance("demo").replace_section(session, 0, SWAP, gain=3.0)
        session.add_all(exposures)
    with open_session(database, read_only=True) as session:
        before, after = session.scalars(select(Exposure).order_by(Exposure.mjd)).all()
        session.expunge_all()
    for _ in range(2):  # alive at once, in turns
        assert gain_of(before) == (2.0, 2.0)
        assert gain_of(after) == (3.0, 3.0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(gain_of, [before, after, before]) == [(2.0, 2.0), (3.0, 3.0), (2.0, 2.0)]
    sections = [pickle.loads(pickle.dumps(e)).sections[0].gain for e in (before, after)]
    assert sections == [None, 3.0]


def test_an_instrument_may_know_by_itself_what_changed_when(two_chips, session):
    two_chips._make_section_at = lambda s, mjd: SensorSection(s, "two_chips", defective=mjd >= SWAP or None)
    assert two_chips.fetch_sections(session, SWAP - 1)["A"].defective is None
    assert two_chips.fetch_sections(session, SWAP)["A"].defective is True
    two_chips.replace_section(session, "A", SWAP + 100, gain=3.0, defective=None)
    assert two_chips.fetch_sections(session, SWAP + 99)["A"].defective is True
    assert two_chips.fetch_sections(session, SWAP + 100)["A"].defective is None
