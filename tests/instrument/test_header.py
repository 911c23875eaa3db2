"""Cards under their many names, and values that can or cannot be read."""

import pytest

from seechange_core.errors import HeaderError
from seechange_core.frames import Box
from seechange_core.instrument import normalize_keyword
from seechange_core.instrument.header import as_angle_deg, as_number, find_card, parse_box, translate


def test_keywords_are_compared_without_case_blanks_and_underscores():
    assert normalize_keyword("exp time") == normalize_keyword("EXP_TIME") == "EXPTIME"
    assert find_card({"Exp_Time": 3.0}, ["EXPTIME"]) == ("Exp_Time", 3.0)


def test_a_blank_card_is_no_card():
    assert find_card({"OBJECT": "   ", "TARGET": None, "FIELD": "M31"}, ["OBJECT", "TARGET", "FIELD"]) == (
        "FIELD",
        "M31",
    )
    assert find_card({"OBJECT": ""}, ["OBJECT"]) is None


def test_translation_converts_units():
    cards = {"EXPOSURE": 1500, "CCD_TEMP": -100}
    found = translate(
        cards,
        ["exp_time", "ccdtemp", "filter"],
        {"exp_time": ["EXPTIME", "EXPOSURE"], "filter": ["FILTER"]},
        {"exp_time": lambda ms: ms / 1000},
    )
    assert found == {"exp_time": 1.5, "ccdtemp": -100}


def test_a_converter_that_fails_names_its_card():
    with pytest.raises(HeaderError, match=r"EXPOSURE = 'long' cannot be read as exp_time"):
        translate(
            {"EXPOSURE": "long"}, ["exp_time"], {"exp_time": ["EXPOSURE"]}, {"exp_time": lambda x: x / 1000}
        )


@pytest.mark.parametrize("value", ["12..5", float("nan"), float("inf"), True, None, "ten"])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(HeaderError, match=r"EXPTIME = .* is not a number"):
        as_number(value, "EXPTIME")


@pytest.mark.parametrize(
    ("value", "hours", "degrees"),
    [
        (" 22:04:08", True, 331.033333333),
        ("-00:55:31", False, -0.925277778),
        ("22 04 08.5", True, 331.035416667),
        ("+36:37:57", False, 36.6325),
        ("331.0334", True, 331.0334),  # a plain number is degrees unless stated
        (331.0334, True, 331.0334),
        ("10:30", False, 10.5),
    ],
)
def test_angles(value, hours, degrees):
    assert as_angle_deg(value, "RA", text_is_hours=hours) == pytest.approx(degrees, abs=1e-8)


def test_numbers_may_be_hours():
    assert as_angle_deg(1.5, "RA", number_is_hours=True) == 22.5


@pytest.mark.parametrize("value", ["12:61:00", "1:2:3:4", "12:-3:00", "h:m:s", "12:"])
def test_what_is_no_angle_is_refused(value):
    with pytest.raises(HeaderError, match="RA"):
        as_angle_deg(value, "RA")


def test_fits_sections_are_one_based_and_include_their_ends():
    assert parse_box("[17:528,1:520]", "TRIMSEC") == Box(0, 520, 16, 528)
    assert parse_box("[  17: 528,   1: 520]", "TRIMSEC").shape == (520, 512)


@pytest.mark.parametrize("text", ["[0:5,1:5]", "[5:1,1:5]", "1:5", "[a:b,c:d]", "", None])
def test_what_is_no_section_is_refused(text):
    with pytest.raises(HeaderError, match="TRIMSEC"):
        parse_box(text, "TRIMSEC")
