"""A CCD that is exchanged in the middle of a night: pixels, dates and what is told."""

import numpy as np
import pytest
from astropy.io import fits
from small_survey import Survey
from sqlalchemy import select

from seechange_core import chain
from seechange_core.instrument import get_instrument_instance
from seechange_core.products import Calibrator, Exposure
from seechange_core.settings import use_settings
from seechange_core.simulate import SurveyOptions, simulate_survey
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session
from seechange_core.storage.migrate import upgrade

OPTIONS = SurveyOptions(
    seed=12, sections=2, section_size_pix=128, exposures=1, nights=1, reference_exposures=1, n_bias=7,
    n_dark=0, n_flat=0, star_density=3, transients=0, variables=0, asteroids=0, satellites=0,
    galaxy_density=0, clouds=False,
)  # fmt: skip
SETTINGS = """\
path: {data_root: [data, survey]}
instruments:
  demo: {sections: 2, section_size_pix: 128}
"""
N_OLD = 3
STEP_ADU = 40  # a column of the new device is that much higher


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    survey = Survey(tmp_path_factory.mktemp("swap"))
    simulate_survey(survey.root / "survey", OPTIONS)
    (survey.root / "seechange.yaml").write_text(SETTINGS)
    upgrade(survey.settings)
    for path in sorted(survey.raw.glob("*_bias.fits"))[N_OLD:]:
        with fits.open(path, mode="update", do_not_scale_image_data=True) as units:
            units[1].data[:, 40] += STEP_ADU
    with use_settings(survey.settings):
        survey.ingest(*sorted(survey.raw.glob("*_bias.fits")))
        yield survey


def build(survey, section="0"):
    (key,) = chain.masters_wanted(survey.settings, "demo")
    return chain.build_master(survey.settings, "demo", key.kind, key.night, section, key.filter)


def row_of(survey, report):
    with open_session(survey.settings, read_only=True) as session:
        return session.scalars(select(Calibrator).where(Calibrator.data_version == report.data_version)).one()


def test_a_master_is_of_one_device_and_says_so(survey):
    mixed = build(survey)
    other = build(survey, "1")
    assert chain.masters_wanted(survey.settings, "demo") == []
    with open_session(survey.settings) as session:
        bias = select(Exposure).where(Exposure.type == "bias").order_by(Exposure.mjd)
        old, new = np.split(np.array(session.scalars(bias).all()), [N_OLD])
        camera = get_instrument_instance("demo")
        swap = (old[-1].mjd_mid + new[0].mjd_mid) / 2
        camera.replace_section(session, 0, swap, identifier="new")
    made = build(survey)
    assert made.outcome == "done" and made.data_version != mixed.data_version
    assert (made.metrics["n_frames"], made.metrics["n_rejected"]) == (len(new), N_OLD)
    assert [row["verdict"] == "used" for row in made.table] == [False] * N_OLD + [True] * len(new)
    assert ["level_e" in row for row in made.table] == [False] * N_OLD + [True] * len(new)
    assert made.message.startswith(f"{N_OLD} of 7 frames left out") and "another device" in made.message
    row = row_of(survey, made)
    assert row.validity_start == pytest.approx(swap, abs=1e-6) and row.validity_end > swap + 59
    archive = Archive(survey.settings)
    data = row.read(archive).data
    step_e = np.median(data[:, 36:45], axis=0)
    excess_e = step_e[np.argmax(step_e)] - np.median(step_e)
    assert excess_e == pytest.approx(STEP_ADU * camera.gain, rel=0.1)
    again = chain.build_master(survey.settings, "demo", "bias", row.night, "1")
    assert (again.outcome, again.data_version) == ("loaded", other.data_version)


def test_dates_follow_the_rows_without_making_it_again(survey):
    """The row's end is corrected afterwards: the master is listed, and gets its dates; its file stays."""
    with open_session(survey.settings, read_only=True) as session:
        night = session.scalars(select(Exposure.night).where(Exposure.type == "bias")).first()
    for section in ("0", "1"):
        made = chain.build_master(survey.settings, "demo", "bias", night, section)
    before = row_of(survey, made)
    with open_session(survey.settings) as session:
        end = before.mjd + 10
        get_instrument_instance("demo").replace_section(session, 1, end, identifier="newer")
    report = build(survey, "1")
    after = row_of(survey, report)
    assert report.outcome == "loaded" and (after.id, after.checksum) == (before.id, before.checksum)
    assert before.validity_end == pytest.approx(before.mjd + 60) and after.validity_end == end
    assert chain.masters_wanted(survey.settings, "demo") == []
