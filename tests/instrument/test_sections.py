"""Sections: their ids, their properties, and their validity in the database."""

from datetime import datetime

import pytest
from astropy.time import Time
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seechange_core.errors import NotFoundError, UserError
from seechange_core.instrument import SensorSection
from seechange_core.storage.engine import get_engine


def test_a_section_overrides_the_instrument(two_chips):
    two_chips.fetch_sections()
    assert two_chips.get_property("A", "gain") == 2.1
    assert two_chips.get_property("B", "gain") == 2.0
    assert two_chips.get_property("A", "read_noise") == 4.0
    assert two_chips.get_property("B", "offset_x") == 100.0
    assert two_chips.get_property("B", "filter_array_index") == 0
    two_chips.sections["B"].offset_x = 99.5
    assert two_chips.get_property("B", "offset_x") == 99.5
    assert two_chips.get_property("A", "telescope") == "Test Telescope"


def test_properties_need_sections_and_names_that_exist(two_chips):
    with pytest.raises(UserError, match="call fetch_sections"):
        two_chips.get_property("A", "gain")
    two_chips.fetch_sections()
    with pytest.raises(UserError, match="colour"):
        two_chips.get_property("A", "colour")


@pytest.mark.parametrize("wrong", ["C", 0, "a", None])
def test_ids_are_checked_in_type_and_value(two_chips, wrong):
    two_chips.fetch_sections()
    with pytest.raises(NotFoundError, match="A, B"):
        two_chips.get_property(wrong, "gain")


def test_keys_are_the_strings_of_ids(two_chips):
    assert two_chips.section_id_of("B") == "B"
    with pytest.raises(NotFoundError, match="two_chips has no section 'C'"):
        two_chips.section_id_of("C")


def test_sections_hold_between_their_dates(two_chips, session):
    two_chips.fetch_sections()
    two_chips.sections["A"].gain = 3.0
    two_chips.sections["B"].validity_start = "2019-01-01T00:00:00.000"
    two_chips.commit_sections(session, validity_start="2020-01-01T00:00:00", validity_end=Time("2021-01-01"))
    with Session(get_engine()) as other:
        for date in (datetime(2020, 6, 1), Time("2020-06-01"), 59001.0, "2020-06-01T00:00:00.000"):
            assert two_chips.fetch_sections(other, date)["A"].gain == 3.0
        assert (
            two_chips.fetch_sections(other, "2020-01-01T00:00:00")["A"].gain == 3.0
        )  # the start is included
        assert two_chips.fetch_sections(other, "2021-01-01T00:00:00")["A"].gain == 2.1  # the end is not
        assert two_chips.fetch_sections(other, "2019-12-31T23:59:59")["A"].gain == 2.1
        assert two_chips.fetch_sections(other)["A"].gain == 2.1  # no date means now
        # B had a validity of its own, which was left alone; what the database lacks is made new.
        assert two_chips.fetch_sections(other, "2019-06-01T00:00:00")["B"].validity_start == 58484.0
        assert two_chips.fetch_sections(other, 80000)["B"].validity_end is None
        assert two_chips.sections["A"].id is None


def test_nothing_in_the_database_means_hard_coded_values(two_chips, session):
    assert two_chips.fetch_sections(session, 59000)["A"].gain == 2.1
    assert two_chips.fetch_sections(None, 59000)["A"].gain == 2.1


def test_committing_again_edits_the_same_rows(two_chips, session):
    two_chips.fetch_sections()
    two_chips.commit_sections(session, validity_start=59000)
    with Session(get_engine()) as other:
        two_chips.fetch_sections(other, 59500)["A"].gain = 2.5
        two_chips.commit_sections(other)
    with Session(get_engine()) as other:
        assert two_chips.fetch_sections(other, 59500)["A"].gain == 2.5
        assert other.scalar(select(func.count()).select_from(SensorSection)) == 2


def test_editing_fetched_sections_writes_nothing(two_chips, session):
    session.add(SensorSection("A", "two_chips", gain=1.0))
    session.flush()
    two_chips.fetch_sections(session, 59000)["A"].gain = 9.0
    session.flush()
    assert session.scalar(select(SensorSection.gain)) == 1.0
    assert two_chips.fetch_sections(session, 59000)["A"].gain == 1.0


def test_a_validity_ends_after_it_starts(two_chips, session):
    two_chips.fetch_sections()
    with pytest.raises(UserError, match="ends at MJD 59000"):
        two_chips.commit_sections(session, validity_start=60000, validity_end=59000)
    assert session.scalar(select(func.count()).select_from(SensorSection)) == 0
