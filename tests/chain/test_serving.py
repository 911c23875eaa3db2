"""Which nights serve an exposure: the nearest by kind, filter and side, and what they build on."""

import pytest

from seechange_core.chain.serving import master_keys, nights_serving
from seechange_core.chain.wanted import MasterKey
from seechange_core.products import Exposure
from seechange_core.provenance import digest
from seechange_core.storage.engine import open_session

TIMES = {"bias": 0.0, "dark": 0.02, "flat": 0.04, "twilight_flat": 0.06, "science": 0.3}
START = 61000.0


def frames(night, kind, n=3, band="r", **columns):
    """Frames of the night of some number."""
    mjd = START + night + TIMES[kind]
    band = None if kind in ("bias", "dark") else band
    for i in range(n):
        name = f"{kind}_{night}_{band}_{i}"
        when = {"mjd": mjd + i / 1440, "mjd_mid": mjd + i / 1440}
        yield Exposure(
            nofile=True, filename=f"{name}.fits", name=name, type=kind, instrument="demo", exp_time=1.0,
            night=f"2026-01-{night:02d}", checksum=digest(name), **{"filter": band, **when, **columns},
        )  # fmt: skip


@pytest.fixture
def register(database):
    def put(*groups):
        with open_session(database) as session:
            session.add_all(row for group in groups for row in group)
        return database

    return put


def serving(settings, *names):
    return [night[-2:] for night in nights_serving(settings, "demo", names)]


def test_the_nearest_before_and_after_of_each_kind_and_filter(register):
    science = [frames(night, "science", 1, band) for night in (10, 20) for band in "rg"]
    settings = register(
        *science,
        *(frames(night, "bias") for night in range(1, 31)),
        *(frames(night, "dark") for night in (8, 12, 25)),
        frames(5, "flat"), frames(3, "flat"), frames(7, "flat", band="g"), frames(28, "flat"),
    )  # fmt: skip
    # r: biases of 10 and 11, darks of 8 and 12, flats of 5 and 28; their own biases, and darks of 8 and 25.
    assert serving(settings, "science_10_r_0") == ["05", "08", "10", "11", "12", "25", "28"]
    assert serving(settings, "science_10_g_0") == ["07", "08", "10", "11", "12"]
    assert serving(settings, "science_10_r_0", "science_10_g_0")[:3] == ["05", "07", "08"]


def test_what_is_too_far_away_or_too_few_does_not_count(register):
    settings = register(
        frames(30, "science", 1), frames(29, "bias", 2), frames(27, "bias"), frames(28, "dark", bitflag=1)
    )
    assert serving(settings, "science_30_r_0") == ["27"]
    narrow = settings.model_copy(update={"combine": {"validity_days": 2.0}})
    assert serving(narrow, "science_30_r_0") == []


def test_flats_through_an_array_serve_all_its_filters(register):
    array = {"filter": None, "filter_array": ["g", "r"]}
    settings = register(frames(2, "science", 1, **array), frames(1, "flat", **array), frames(3, "flat"))
    assert serving(settings, "science_2_r_0") == ["01", "03"]
    keys = [MasterKey("flat", "2026-01-01", "array"), MasterKey("flat", "2026-01-03", "r")]
    assert master_keys(settings, "demo") == keys
