import numpy as np
import pytest

from seechange_core.frames import Crosstalk, LinearityLaw, MasterFrame
from seechange_core.products import Calibrator
from seechange_core.products.calibrator import frames_of, set_frames
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


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exposure_time_s": 30.5, "holds_pedestal": True, "kind": "dark"},
        {"calibration_steps": 520},
        {"calibration_steps": 0},
    ],
)
def test_a_master_comes_back_the_same(settings, sample, changes):
    row = Calibrator(kind="flat", filter="r", data_version="f" * 20)
    row.write(Archive(settings), master(**changes), Place.of_master("demo", "2026-11-22", 0))
    assert row.filepath == "demo/2026-11-22/masters/0/flat_r_ffffffffff.fits"
    assert row.n_frames == 7
    sample.same(row.read(Archive(settings)), master(**changes))


LAWS = {
    "linearity": LinearityLaw(
        ("B", "A"),
        np.array([[0, 1e3, 6e4 / 7], [0, 2e3, 3e4]]),
        np.array([[0, 1001.5, 7e4 / 9], [0, 2100, 3.3e4]]),
    ),
    "crosstalk": Crosstalk(("A", "B"), np.array([[0.0, 1e-4 / 3], [-2e-5, 0.0]])),
}


@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("unnamed", [False, True])
def test_a_law_comes_back_the_same(settings, sample, kind, unnamed):
    law = LAWS[kind]
    if unnamed:  # a camera with one amplifier need not name it
        table = {"linearity": lambda a: a[:1], "crosstalk": lambda a: a[:1, :1]}[kind]
        values = {n: table(v) for n, v in vars(law).items() if n != "amplifiers"}
        law = type(law)(("",), **values)
    row = Calibrator(kind=kind, data_version="f" * 20)
    row.write(Archive(settings), law, Place.of_master("demo", "2026-11-22", 0))
    assert row.filepath == f"demo/2026-11-22/masters/0/{kind}_ffffffffff.fits"
    assert row.n_frames == 0
    sample.same(row.read(Archive(settings)), law)


def test_it_knows_its_frames_and_those_left_out(session, calibrator, make):
    row = calibrator()
    exposures = sorted(make.exposure(f"b{i}") for i in range(3))
    for _ in range(2):
        set_frames(session, row, {exposures[0]: "", exposures[1]: "too faint: 3 e-", exposures[2]: ""})
    assert frames_of(session, row.id) == {
        exposures[0]: "",
        exposures[1]: "too faint: 3 e-",
        exposures[2]: "",
    }
    set_frames(session, row, {})
    assert frames_of(session, row.id) == {}
