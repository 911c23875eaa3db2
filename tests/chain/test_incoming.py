"""Files as they arrive: complete ones become exposures, once; bad ones are set aside, by name, alone."""

import os
import shutil
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from astropy.io import fits
from sqlalchemy import func, select

from seechange_core import Exposure, chain
from seechange_core.chain import incoming as module
from seechange_core.errors import DatabaseBusyError, NotFoundError, SettingsError
from seechange_core.products import IncomingFile
from seechange_core.settings import load_settings
from seechange_core.storage.engine import open_session

CARDS = {
    "INSTRUME": "DemoCam",
    "OBSTYPE": "science",
    "EXPTIME": 60.0,
    "FILTER": "r",
    "RA": 10.0,
    "DEC": -30.0,
}
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def write(folder, hour, minutes_old=30.0, **cards):
    """Write a raw file that was complete some time ago."""
    primary = fits.PrimaryHDU()
    primary.header.update({**CARDS, "DATE-OBS": f"2021-01-01T{hour:02d}:00:00.000", **cards})
    units = [fits.ImageHDU(np.full((80, 100), 100 + hour, np.uint16), name=f"SEC{i:02d}") for i in range(4)]
    path = folder / f"demo_20210101_{hour:02d}0000_sci.fits"
    fits.HDUList([primary, *units]).writeto(path, overwrite=True)
    age(path, minutes_old)
    return path


def age(path, minutes):
    then = path.stat().st_mtime - 60 * minutes
    os.utime(path, (then, then))


def names(arrivals):
    return [result.exposure.name[14:16] for result in arrivals.registered]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "incoming"
    path.mkdir()
    return path


@pytest.fixture
def watched(database, folder):
    """Settings whose demo camera's files arrive in a folder."""
    values = {**database.model_dump(), "incoming": {"demo": {"places": [str(folder)]}}}
    return type(database).model_validate(values)


def take(settings, **changes):
    own = settings.incoming["demo"].model_copy(update=changes)
    return chain.take_in(settings.model_copy(update={"incoming": {"demo": own}}), "demo")


def count(settings, kind=Exposure):
    with open_session(settings, read_only=True) as session:
        return session.scalar(select(func.count()).select_from(kind))


def test_complete_files_are_registered_once(watched, folder):
    write(folder, 1)
    assert names(take(watched)) == ["01"]
    write(folder, 2)
    assert names(take(watched)) == ["02"]
    assert take(watched) == chain.Arrivals()
    assert count(watched) == count(watched, IncomingFile) == 2


def test_a_file_that_was_just_written_is_left_alone_until_it_rests(watched, folder):
    path = write(folder, 1, minutes_old=0)
    first = take(watched)
    assert (names(first), first.waiting) == ([], 1)
    age(path, 30)  # it is written again, whatever time it bears
    again = take(watched)
    assert (names(again), again.waiting, count(watched)) == ([], 1, 0)
    assert names(take(watched, settle_seconds=0)) == ["01"]


def test_a_file_that_is_cut_short_is_waited_for_and_then_set_aside(watched, folder):
    path = write(folder, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 8])
    age(path, 1)
    coming = take(watched)
    assert (coming.waiting, coming.refused, count(watched)) == (1, {}, 0)
    (row,) = chain.list_incoming(watched)
    assert (row.state, row.reason) == ("waiting", "file_damaged")
    given_up = take(watched, patience_seconds=30)
    assert list(given_up.refused) == [str(path)]
    assert str(path) in str(given_up.refused[str(path)])
    assert take(watched, patience_seconds=30) == chain.Arrivals()  # it isn't tried again
    path.write_bytes(whole)  # until it is written again
    take(watched)
    assert names(take(watched, settle_seconds=0)) == ["01"]
    assert chain.list_incoming(watched) == []


def test_an_exposure_that_lacks_its_last_sections_is_not_there_yet(watched, folder):
    path = write(folder, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: 3 * len(whole) // 4])
    age(path, 1)
    assert (names(take(watched)), chain.arrived(watched, "demo", LONG_AGO)) == ([], [])
    path.write_bytes(whole)
    age(path, 1)
    take(watched)
    (result,) = take(watched, settle_seconds=0).registered
    assert result.exposure.unreadable_sections is None
    assert [row.name for row in chain.arrived(watched, "demo", LONG_AGO)] == [result.exposure.name]


def test_one_given_up_without_its_last_sections_is_completed_when_they_come(watched, folder):
    path = write(folder, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: 3 * len(whole) // 4])
    age(path, 20)
    (result,) = take(watched).registered
    assert result.exposure.unreadable_sections
    (before,) = chain.arrived(watched, "demo", LONG_AGO)
    assert take(watched) == chain.Arrivals()
    path.write_bytes(whole)
    take(watched)
    (result,) = take(watched, settle_seconds=0).registered
    assert (result.outcome, result.exposure.unreadable_sections) == ("completed", None)
    (after,) = chain.arrived(watched, "demo", LONG_AGO)
    assert (after.name, after.version != before.version) == (before.name, True)
    assert (take(watched), count(watched)) == (chain.Arrivals(), 1)


def test_a_bad_file_is_set_aside_by_name_and_its_neighbours_go_on(watched, folder):
    write(folder, 1)
    bad = write(folder, 2, EXPTIME=-5.0)
    write(folder, 3)
    write(folder, 4, OBSTYPE="focus")
    arrivals = take(watched)
    assert names(arrivals) == ["01", "03"]
    assert list(arrivals.refused) == [str(bad)]
    (row,) = chain.list_incoming(watched)
    assert (row.state, row.reason) == ("refused", "header")
    assert str(bad) in row.message
    assert "-5" in row.message
    (passed,) = chain.list_incoming(watched, states=["ignored"])
    assert passed.address.endswith("_040000_sci.fits")


def test_what_was_set_aside_is_tried_again_when_asked(watched, folder, monkeypatch):
    bad = write(folder, 2)

    def broken(*_):
        raise RuntimeError("no such thing")

    with monkeypatch.context() as patch:
        patch.setattr(module, "register", broken)
        assert "bug: RuntimeError" in str(take(watched).refused[str(bad)])
    assert names(take(watched)) == []
    with pytest.raises(NotFoundError, match=r"other\.fits"):
        chain.retry_incoming(watched, files=["other.fits"])
    assert chain.retry_incoming(watched, "demo", [bad.name]) == [str(bad)]
    assert names(take(watched)) == ["02"]


def test_what_may_pass_is_tried_at_the_next_look(watched, folder, monkeypatch):
    write(folder, 1)
    write(folder, 2)
    real, failed = module.register, []

    def busy(raw, settings):
        if not failed:
            failed.append(raw)
            raise DatabaseBusyError("others wrote all the time")
        return real(raw, settings)

    monkeypatch.setattr(module, "register", busy)
    first = take(watched)
    assert (names(first), first.waiting, first.refused) == (["02"], 1, {})
    assert names(take(watched)) == ["01"]


def test_one_look_takes_a_bounded_number_and_the_next_goes_on(watched, folder):
    for hour in range(1, 6):
        write(folder, hour)
    found = []
    for _ in range(4):
        arrivals = take(watched, max_files=2)
        found.append((names(arrivals), arrivals.waiting))
    assert found == [(["01", "02"], 3), (["03", "04"], 1), (["05"], 0), ([], 0)]
    assert chain.take_in(watched, "demo", seconds=-1) == chain.Arrivals()


def test_ended_at_any_moment_it_is_exact_at_the_next_look(watched, folder, monkeypatch):
    """The exposure is there, but what became of its file was never noted."""
    write(folder, 1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_settle", lambda *_: os._exit(9))
        pid = os.fork()
        if pid == 0:
            take(watched)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert count(watched) == 1
    assert [result.outcome for result in take(watched).registered] == ["known"]
    assert (count(watched), take(watched)) == (1, chain.Arrivals())


def test_hidden_and_other_files_and_those_taken_away_are_nothing(watched, folder):
    shutil.copy(write(folder, 1), folder / ".demo_20210101_020000_sci.fits")
    (folder / "log.txt").write_text("seeing was fine")
    late = write(folder, 3, minutes_old=0)
    assert take(watched).waiting == 1
    late.unlink()
    assert take(watched) == chain.Arrivals()
    assert count(watched, IncomingFile) == 1


def test_science_exposures_are_told_in_the_order_of_arrival(watched, folder):
    write(folder, 3)
    take(watched)
    write(folder, 1)
    write(folder, 2, OBSTYPE="bias", FILTER=None)
    take(watched)
    rows = chain.arrived(watched, "demo", LONG_AGO)
    assert [(row.name[14:16], row.night) for row in rows] == [("03", "2020-12-31"), ("01", "2020-12-31")]
    assert chain.arrived(watched, "demo", rows[-1].at + timedelta(microseconds=1)) == []


def test_a_place_that_is_not_there_is_told_and_the_others_looked_at(watched, folder, tmp_path):
    write(folder, 1)
    arrivals = take(watched, places=(str(tmp_path / "away"), str(folder)))
    assert names(arrivals) == ["01"]
    assert "there is no such folder" in arrivals.silent[str(tmp_path / "away")]
    with pytest.raises(SettingsError, match="incoming"):
        chain.take_in(watched, "decam")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def serving(folder):
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def test_files_behind_an_address_are_brought_here(watched, folder):
    night = folder / "2021-01-01"
    night.mkdir()
    write(night, 1)
    write(night, 2, EXPTIME=-5.0)
    with serving(folder) as address:
        first = take(watched, places=(address,))
        assert (names(first), first.waiting) == ([], 2)  # when they last changed, a server does not say
        second = take(watched, places=(address,), settle_seconds=0)
        assert names(second) == ["01"]
        assert list(second.refused) == [f"{address}/2021-01-01/demo_20210101_020000_sci.fits"]
        assert take(watched, places=(address,)) == chain.Arrivals()
    row = second.registered[0].exposure
    assert row.filename == "raw/demo/fetched/2021-01-01/demo_20210101_010000_sci.fits"
    silent = take(watched, places=(address,))
    assert address in silent.silent[address]
    assert count(watched, IncomingFile) == 2  # nothing is forgotten because nobody answered


def test_the_settings_know_places(tmp_path):
    file = tmp_path / "seechange.yaml"
    file.write_text("incoming: {demo: raw, decam: {places: [a, 'https://b.example/c'], settle_seconds: 2}}\n")
    found = load_settings(file, {}).incoming
    assert found["demo"].places == (str(tmp_path / "raw"),)
    assert found["decam"].places == (str(tmp_path / "a"), "https://b.example/c")
    assert found["decam"].settle_seconds == 2
    file.write_text("incoming: {demo: {place: raw}}\n")
    with pytest.raises(SettingsError, match=r"incoming.demo.place.*places"):
        load_settings(file, {})
