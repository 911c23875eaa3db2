"""When an exposure began, by cards in other time scales, coarse ones, and ones at odds."""

import pytest
from astropy.time import Time

from seechange_core.errors import HeaderError
from seechange_core.instrument import get_instrument_instance

CARDS = {"OBSTYPE": "bias", "EXPTIME": 0.0, "INSTRUME": "DemoCam", "DATE-OBS": "2021-01-01T02:00:00.000"}
TRUE = Time("2021-01-01T02:00:00", scale="utc")


def start(**cards):
    found = {**CARDS, **{k.replace("_", "-"): v for k, v in cards.items()}}
    given = {k: v for k, v in found.items() if v is not None}
    facts = get_instrument_instance("demo").read_facts(given)
    return Time(facts.mjd, format="mjd", scale="utc")


@pytest.mark.parametrize(
    ("system", "scale"),
    [
        (None, "utc"), ("UTC     ", "utc"), ("utc", "utc"), ("UT", "utc"), ("UTC(NIST)", "utc"),
        ("UTC approximate", "utc"), ("TAI", "tai"), ("TT", "tt"), ("TDT", "tt"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["date", "mjd", "both"])
def test_the_time_scale_is_honoured(settings, system, scale, form):
    clock = getattr(TRUE, scale)
    cards = {"TIMESYS": system, "DATE_OBS": clock.isot if form != "mjd" else None}
    cards["MJD_OBS"] = clock.mjd if form != "date" else None
    assert abs((start(**cards) - TRUE).sec) < 2e-3  # isot has milliseconds


@pytest.mark.parametrize("system", ["LOCAL", "GPS", "UTC+1", "TDB"])
def test_other_time_scales_are_refused(settings, system):
    with pytest.raises(HeaderError, match=r"TIMESYS = .* is none of the time scales"):
        start(TIMESYS=system)


@pytest.mark.parametrize(
    ("apart_s", "exp_time", "fine"),
    [(4, 0, True), (6, 0, False), (59, 60, True), (-59, 60, True), (61, 60, False), (3600, 300, False)],
)
def test_two_cards_must_agree(settings, apart_s, exp_time, fine):
    cards = {"MJD_OBS": round(TRUE.mjd + apart_s / 86400.0, 8), "EXPTIME": exp_time}
    if fine:
        assert (start(**cards) - TRUE).sec == pytest.approx(apart_s, abs=1e-3)
        return
    with pytest.raises(
        HeaderError, match=r"the MJD 59215\.\d+ and the date 2021-01-01T02:00:00.000 are .* s apart"
    ):
        start(**cards)


def test_a_coarse_mjd_gives_way_to_the_date(settings):
    assert (start(MJD_OBS=59215.083) - TRUE).sec == pytest.approx(0.0, abs=1e-4)  # 29 s early
    assert (start(MJD_OBS=59215.0) - TRUE).sec == pytest.approx(0.0, abs=1e-4)
    with pytest.raises(HeaderError, match="apart"):
        start(MJD_OBS=59214.0)


@pytest.mark.parametrize("card", ["UT", "TIME_OBS", "UTC_OBS"])
def test_the_time_of_day_in_a_card_of_its_own(settings, card):
    """As SAAO wrote it: a whole day as MJD, the date alone, and UT."""
    cards = {"MJD_OBS": 56486.0, "DATE_OBS": "2013-07-13", card: "00:57:33"}
    assert (start(**cards) - Time("2013-07-13T00:57:33")).sec == pytest.approx(0.0, abs=1e-4)
    without_mjd = start(**{**cards, "MJD_OBS": None})
    assert (without_mjd - Time("2013-07-13T00:57:33")).sec == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("date", [None, "2013-07-13", "13/07/13"])
def test_a_day_alone_is_no_time(settings, date):
    with pytest.raises(HeaderError, match=r"MJD 56486\.0 is a whole day, and no card has the time of day"):
        start(MJD_OBS=56486.0, DATE_OBS=date)


def test_a_date_of_the_old_kind_does_not_matter_beside_an_mjd(settings):
    assert start(MJD_OBS=56486.25, DATE_OBS="13/07/13").mjd == 56486.25
