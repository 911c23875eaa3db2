"""Which masters are wanted, of many sections and nights: by the rows alone, with few questions."""

import socket
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, select

from seechange_core.chain.lineage import provenances
from seechange_core.chain.wanted import (
    MasterKey,
    Planner,
    calibration_frames,
    look_for_masters,
    masters_wanted,
)
from seechange_core.instrument import get_instrument_instance
from seechange_core.products import Calibrator, Exposure
from seechange_core.products.provenance import record_provenance
from seechange_core.products.shelf import _Group
from seechange_core.provenance import digest
from seechange_core.settings import use_settings
from seechange_core.storage.engine import get_engine, open_session
from seechange_core.storage.server import Server

SECTIONS = 8
NIGHTS = ("2026-01-01", "2026-01-02")
START = 61041.8
KINDS = {"bias": 0.0, "dark": 0.02, "flat": 0.04, "twilight_flat": 0.2}
CAME = datetime(2026, 1, 3, tzinfo=UTC)


def record(settings):
    with open_session(settings) as session:
        for key in provenances(settings, "demo").values():
            record_provenance(session, key)


@pytest.fixture
def camera(database):
    settings = database.model_copy(
        update={"instruments": {"demo": {"sections": SECTIONS, "section_size_pix": 64}}}
    )
    with use_settings(settings):
        record(settings)
        yield settings


def frame(kind, night, number, **columns) -> Exposure:
    n = NIGHTS.index(night)
    mjd = START + n + KINDS[kind] + number / 1440
    band = "r" if "flat" in kind else None
    values = {"filter": band, "checksum": digest(kind, night, number), "created_at": CAME, **columns}
    name = f"{kind}_{night}_{number}"
    return Exposure(
        nofile=True, filename=f"{name}.fits", name=name, type=kind, instrument="demo", night=night,
        mjd=mjd, mjd_mid=mjd, exp_time=1.0, **values,
    )  # fmt: skip


def register(settings, *exposures):
    with open_session(settings) as session:
        session.add_all(exposures)


def register_all(settings, nights=NIGHTS, kinds=tuple(KINDS)):
    register(settings, *(frame(kind, night, i) for kind in kinds for night in nights for i in range(3)))


def build(settings, key, sections=range(SECTIONS), **planned):
    """Make the rows and files that building a master makes, without the pixels."""
    ids = {kind: of.id for kind, of in provenances(settings, "demo").items()}
    with open_session(settings) as session:
        frames = calibration_frames(session, "demo", [key.night])[key]
        planner = Planner(session, settings, "demo", frames)
        for section in map(str, sections):
            plan = planner.plan(key.kind, section, frames)
            made = {key.kind: plan.version}
            if key.kind != "bias":
                made["bad_pixels"] = planner.mask_version(section, plan.version)
            flat = planner.flat_for(section, plan.mjd, "r") if key.kind == "twilight_flat" else None
            if flat is not None:
                made["illumination"] = planner.illumination_version(section, plan.version, flat.data_version)
            for kind, version in made.items():
                path = settings.data_root / f"{version}.fits"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                session.add(
                    Calibrator(
                        kind=kind, instrument="demo", section_id=section, night=key.night, mjd=plan.mjd,
                        filter="r" if kind in ("flat", "twilight_flat", "illumination") else "",
                        validity_start=plan.mjd - 60, validity_end=plan.mjd + 60, origin="built", n_frames=3,
                        provenance_id=ids[kind], data_version=version, filepath=path.name, checksum="",
                    )
                )  # fmt: skip


def build_all(settings):
    while wanted := masters_wanted(settings, "demo"):
        build(settings, wanted[0])


def test_they_are_wanted_in_building_order_until_all_are_there(camera):
    register_all(camera)
    expected = [MasterKey(k, night, "r" if "flat" in k else None) for k in KINDS for night in NIGHTS]
    assert masters_wanted(camera, "demo") == expected
    assert masters_wanted(camera, "demo", ["2026-01-02"]) == expected[1::2]
    build_all(camera)
    assert masters_wanted(camera, "demo") == []


def test_one_section_without_its_master_is_enough(camera):
    register_all(camera, kinds=("bias",))
    key = MasterKey("bias", NIGHTS[0], None)
    build(camera, key, sections=range(SECTIONS - 1))
    assert masters_wanted(camera, "demo", [NIGHTS[0]]) == [key]
    build(camera, key, sections=[SECTIONS - 1])
    assert masters_wanted(camera, "demo", [NIGHTS[0]]) == []


def test_sections_that_never_came_are_not_waited_for(camera):
    lost = {"3": "cut short"}
    register(camera, *(frame("bias", NIGHTS[0], i, unreadable_sections=lost) for i in range(3)))
    build(camera, MasterKey("bias", NIGHTS[0], None), sections=[s for s in range(SECTIONS) if s != 3])
    assert masters_wanted(camera, "demo") == []


def test_one_more_frame_makes_its_master_wanted_and_then_what_builds_on_it(camera):
    register_all(camera)
    build_all(camera)
    register(camera, frame("bias", NIGHTS[1], 9))
    (bias,) = masters_wanted(camera, "demo")
    assert bias == MasterKey("bias", NIGHTS[1], None)
    build(camera, bias)
    # The other night's masters were nearer to its own bias.
    assert {key.night for key in masters_wanted(camera, "demo")} == {NIGHTS[1]}
    assert [key.kind for key in masters_wanted(camera, "demo")] == ["dark", "flat", "twilight_flat"]


def test_a_flat_that_comes_after_the_twilight_makes_the_illumination_wanted(camera):
    register_all(camera, nights=NIGHTS[:1], kinds=("bias", "dark", "twilight_flat"))
    for kind in ("bias", "dark"):
        build(camera, MasterKey(kind, NIGHTS[0], None))
    (wanted,) = look_for_masters(camera, "demo")
    before = wanted.version
    build_all(camera)
    register_all(camera, nights=NIGHTS[:1], kinds=("flat",))
    flat, twilight = (MasterKey(kind, NIGHTS[0], "r") for kind in ("flat", "twilight_flat"))
    assert masters_wanted(camera, "demo") == [flat]
    build(camera, flat)
    (wanted,) = look_for_masters(camera, "demo")
    assert wanted.key == twilight
    # It is another wish than the one that was carried out before the flat came.
    assert wanted.version != before


def test_flats_through_a_filter_array_are_one_key(camera):
    array = ["g", "r", "i", "z"]
    register(camera, *(frame("flat", NIGHTS[0], i, filter=None, filter_array=array) for i in range(3)))
    assert masters_wanted(camera, "demo") == [MasterKey("flat", NIGHTS[0], "array")]


def test_crosstalk_and_linearity_count_where_the_settings_ask_for_them(camera):
    register_all(camera, nights=NIGHTS[:1], kinds=("bias",))
    asking = camera.model_copy(update={"combine": {"do_linearity": True}})
    record(asking)
    key = MasterKey("bias", NIGHTS[0], None)
    for settings in (camera, asking):
        build(settings, key)
        assert masters_wanted(settings, "demo") == []
    supplied = Calibrator(
        kind="linearity", instrument="demo", section_id="2", night="2020-01-01", mjd=58849.0, n_frames=0,
        validity_start=0.0, origin="supplied", data_version="law", filepath="law.fits",
        provenance_id=provenances(camera, "demo")["bias"].id,
    )  # fmt: skip
    with open_session(camera) as session:
        session.add(supplied)
    assert masters_wanted(camera, "demo") == []
    assert masters_wanted(asking, "demo") == [key]


def test_what_is_known_of_a_wanted_master(camera):
    register_all(camera)
    later = CAME + timedelta(hours=1)
    register(camera, frame("dark", NIGHTS[1], 9, created_at=later))
    wanted = {w.key: w for w in look_for_masters(camera, "demo")}
    for (kind, night, _), master in wanted.items():
        assert master.frames_since == (later if night == NIGHTS[1] else CAME)
        needed = {"bias": set(), "dark": {"bias"}}.get(kind, {"bias", "dark"})
        assert master.lacking == needed
    assert len({w.version for w in wanted.values()}) == len(wanted)
    recent = look_for_masters(camera, "demo", registered_since=CAME + timedelta(minutes=1))
    assert {w.key.night for w in recent} == {NIGHTS[1]}
    dark = MasterKey("dark", NIGHTS[0], None)
    build(camera, MasterKey("bias", NIGHTS[0], None))
    again = {w.key: w for w in look_for_masters(camera, "demo")}
    assert again[dark].lacking == frozenset()
    assert again[dark].version != wanted[dark].version


def exchange(settings, section, mjd, **properties):
    with use_settings(settings), open_session(settings) as session:
        get_instrument_instance("demo").replace_section(session, section, mjd, **properties)


def test_a_swap_within_a_night_leaves_the_frames_of_one_device(camera):
    register_all(camera, kinds=("bias",))
    keys = [MasterKey("bias", night, None) for night in NIGHTS]
    for key in keys:
        build(camera, key)
    swap = START + 1 + 0.5 / 1440  # after the first of the three frames of the second night
    exchange(camera, 3, swap, identifier="new")
    with open_session(camera, read_only=True) as session:
        frames = calibration_frames(session, "demo", [NIGHTS[1]])[keys[1]]
        planner = Planner(session, camera, "demo", frames)
        untouched, plan = (planner.plan("bias", section, frames) for section in ("2", "3"))
    assert untouched.frames == frames and untouched.left_out == {}
    assert plan.frames == frames[1:] and plan.mjd == pytest.approx(START + 1 + 1.5 / 1440, abs=1e-9)
    assert plan.validity == (swap, plan.mjd + 60) and plan.version != untouched.version
    assert list(plan.left_out) == [frames[0].id] and "another device" in plan.left_out[frames[0].id]
    # The other night's master is of the old one only: its dates are wrong, its pixels are not.
    wanted = {w.key: w for w in look_for_masters(camera, "demo")}
    assert list(wanted) == keys
    assert [w.key for w in look_for_masters(camera, "demo", sections=["2"])] == []


def test_of_as_many_frames_the_later_device_counts(camera):
    register(camera, *(frame("bias", NIGHTS[0], i) for i in range(4)))
    exchange(camera, 3, START + 1.5 / 1440)
    with open_session(camera, read_only=True) as session:
        frames = calibration_frames(session, "demo")[MasterKey("bias", NIGHTS[0], None)]
        plan = Planner(session, camera, "demo", frames).plan("bias", "3", frames)
    assert plan.frames == frames[2:]


def test_another_gain_is_another_master(camera):
    """Masters are in electrons: one made with the gain of before a late correction is made again."""
    register_all(camera, kinds=("bias",))
    for night in NIGHTS:
        build(camera, MasterKey("bias", night, None))
    exchange(camera, 3, START + 0.5, gain=2.0)
    with open_session(camera, read_only=True) as session:
        for night in NIGHTS:
            frames = calibration_frames(session, "demo", [night])[MasterKey("bias", night, None)]
            planner = Planner(session, camera, "demo", frames)
            assert planner.is_there(planner.plan("bias", "3", frames).version) == (night == NIGHTS[0])
            assert planner.is_there(planner.plan("bias", "2", frames).version)


def test_the_questions_do_not_grow_with_sections_or_nights(camera):
    register_all(camera)
    build_all(camera)
    asked = []
    engine = get_engine(camera)

    def count(_connection, _cursor, statement, *_):
        if statement.lstrip().startswith("SELECT"):
            asked.append(statement)

    event.listen(engine, "before_cursor_execute", count)
    try:
        assert masters_wanted(camera, "demo") == []
    finally:
        event.remove(engine, "before_cursor_execute", count)
    assert len(asked) == 3  # frames, calibrators, rows of the sections


def test_a_lost_file_is_another_wish_than_the_master_was(camera):
    register_all(camera, kinds=("bias",))
    first, _ = look_for_masters(camera, "demo")
    build_all(camera)
    with open_session(camera) as session:
        path = session.scalars(select(Calibrator.filepath).where(Calibrator.night == NIGHTS[0])).first()
    (camera.data_root / path).unlink()
    (lost,) = look_for_masters(camera, "demo")
    assert lost.key == first.key
    assert lost.version != first.version


def test_planning_needs_no_network(camera, monkeypatch, caplog):
    """A master's file is lost, and the server cannot be reached: it is wanted again, and said once."""
    register_all(camera, kinds=("bias",))
    build_all(camera)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    path = camera.path.model_copy(update={"server_data": address})
    away = camera.model_copy(update={"path": path})
    assert masters_wanted(away, "demo") == []
    for file in camera.data_root.glob("*.fits"):
        file.unlink()
    asked = []
    has = Server.has
    monkeypatch.setattr(Server, "has", lambda self, *a, **k: asked.append(a) or has(self, *a, **k))
    assert [key.kind for key in masters_wanted(away, "demo")] == ["bias", "bias"]
    assert len(asked) == 1
    (warning,) = caplog.records
    assert "could not fetch" in warning.getMessage()


def test_only_the_sections_asked_for_are_looked_at(camera, monkeypatch):
    register_all(camera, kinds=("bias",))
    build_all(camera)
    taken = []
    add = _Group.add
    monkeypatch.setattr(_Group, "add", lambda self, row: taken.append(row.section_id) or add(self, row))
    assert look_for_masters(camera, "demo", sections=["3"]) == []
    assert set(taken) == {"3"}
