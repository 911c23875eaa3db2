"""The same bytes read in another way: the row follows, says so, and what was made from it is outdated."""

import json

import numpy as np
import pytest
import yaml
from astropy.io import fits
from sqlalchemy import select

from seechange_core import Exposure, Image, SensorSection
from seechange_core.chain.section import Section
from seechange_core.chain.steps import STEPS
from seechange_core.chain.walk import data_version
from seechange_core.errors import ConflictError
from seechange_core.flags import ExposureFlag
from seechange_core.products.base import save
from seechange_core.products.ingest import find, ingest, register
from seechange_core.products.provenance import record_provenance
from seechange_core.provenance import ProvenanceKey
from seechange_core.settings import load_settings, use_settings
from seechange_core.storage.engine import open_session

OPTIONS = {
    "kind": "generic",
    "latitude_deg": 39.0,
    "longitude_deg": -77.0,
    "time_scale": "utc",
    "time_refers_to": "start",
    "pixel_scale_arcsec": 2.0,
    "gain": 1.5,
    "read_noise": 9.0,
    "filename_regex": "^by_",
    "rotation_deg": 0.0,
    "parity": 1,
}
CARDS = {
    "DATE-OBS": "2012-06-17T01:56:40",
    "EXPTIME": 86.4,
    "IMAGETYP": "Light Frame",
    "FILTER": "Filter 2",
    "OBJCTRA": "22 00 00",
    "OBJCTDEC": "+10 00 00",
}


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = np.zeros((10, 12), np.uint16)
    fits.PrimaryHDU(pixels, header=fits.Header(CARDS)).writeto(folder / "by_1.fits")
    return folder / "by_1.fits"


@pytest.fixture
def describe(database, tmp_path):
    """Make the settings with changed options of the telescope."""

    def make(**options):
        file = tmp_path / "settings.yaml"
        values = {"path": {"data_root": str(tmp_path / "data")}, "database_url": database.database_url}
        values["instruments"] = {"backyard": {**OPTIONS, **options}}
        file.write_text(yaml.safe_dump(values))
        return load_settings(file, environ={})

    return make


def again(path, settings, instrument=None):
    with use_settings(settings):
        return register(find(path, instrument), settings)


def stored(settings):
    with open_session(settings, read_only=True) as session:
        return session.scalars(select(Exposure)).one()


def version(settings, step="exposure"):
    """Return a step's data version, as the walk would name it."""
    with use_settings(settings):
        section = Section.open(settings, "by_1", "0")
        step = next(s for s in STEPS if s.name == step)
        return data_version(section, step)


def test_nothing_changes_where_nothing_changed(describe, path):
    settings = describe()
    first = again(path, settings)
    second = again(path, settings)
    assert (first.outcome, second.outcome, second.changes) == ("new", "known", {})
    assert second.exposure.id == first.exposure.id


def test_times_follow_the_settings(describe, path, caplog):
    before = describe()
    first = again(path, before).exposure
    old = version(before)
    after = describe(time_refers_to="end")
    ingest(path, after)
    row = stored(after)
    assert row.id == first.id
    assert row.mjd == pytest.approx(first.mjd - 1e-3, abs=1e-10)
    assert row.mjd_mid == pytest.approx(first.mjd - 0.5e-3, abs=1e-10)
    assert f"by_1: mjd {first.mjd} -> {row.mjd}, mjd_mid {first.mjd_mid} -> {row.mjd_mid}" in caplog.text
    assert version(after) != old


def test_facts_alone_make_another_version(describe, path):
    """Also where the provenance is the same: an instrument's code was corrected."""
    settings = describe()
    again(path, settings)
    seen = {version(settings)}
    changes = [{"mjd": 56095.5}, {"exp_time": 5.0}, {"filter": "V"}, {"ra": 1.0, "dec": 2.0}]
    changes += [{"header": {"latitude_deg": 10.0, "longitude_deg": 20.0}}]
    for change in changes:
        with open_session(settings) as session:
            row = session.scalars(select(Exposure)).one()
            for name, value in change.items():
                setattr(row, name, value)
        seen.add(version(settings))
    assert len(seen) == 1 + len(changes)
    result = again(path, settings)
    assert set(result.changes) == {"mjd", "exp_time", "filter", "ra", "dec", "header"}
    assert result.exposure.healpix == stored(settings).healpix
    assert stored(settings).ra == pytest.approx(330.0)


def test_type_filter_night_and_place_follow_too(describe, path):
    first = again(path, describe())
    settings = describe(
        filters={"Filter 2": "V"}, image_types={"light frame": "flat"}, longitude_deg=170.0, rotation_deg=90.0
    )
    result = again(path, settings)
    row = stored(settings)
    assert (row.type, row.filter, row.night) == ("flat", "V", "2012-06-17")
    assert first.exposure.night == "2012-06-16"
    assert set(result.changes) == {"type", "filter", "night"}
    assert row.filename == first.exposure.filename  # a path is a place, not a fact
    assert (row.name, row.checksum) == (first.exposure.name, first.exposure.checksum)


def test_a_person_s_word_stays(describe, path):
    settings = describe()
    again(path, settings)
    with open_session(settings) as session:
        row = session.scalars(select(Exposure)).one()
        row.bitflag, row.bad_reason = ExposureFlag.MARKED_BAD, "dome closed"
    assert again(path, describe(time_refers_to="end")).outcome == "changed"
    row = stored(settings)
    assert (row.bitflag, row.bad_reason) == (ExposureFlag.MARKED_BAD, "dome closed")


def test_the_footprint_is_that_of_the_sections_of_its_date(describe, path):
    settings = describe()
    with use_settings(settings), open_session(settings) as session:
        session.add(SensorSection(0, "backyard", size_x=100, size_y=200, validity_end=57000))
    exposure = again(path, settings).exposure
    corners = np.array(exposure.footprint)
    assert np.ptp(corners[:, 1]) == pytest.approx(200 * 2.0 / 3600, rel=1e-5)
    with open_session(settings) as session:
        session.execute(SensorSection.__table__.update().values(size_y=400))
    result = again(path, settings)
    assert list(result.changes) == ["footprint"]
    assert json.dumps(stored(settings).footprint) == json.dumps(result.changes["footprint"][1])


def test_another_instrument_as_long_as_nothing_was_made(describe, path):
    settings = describe()
    other = settings.model_copy(
        update={"instruments": {**settings.instruments, "roof": {**OPTIONS, "filename_regex": "^roof"}}}
    )
    first = again(path, settings).exposure
    result = again(path, other, "roof")
    assert (result.outcome, result.changes["instrument"]) == ("changed", ("backyard", "roof"))
    assert result.exposure.id == first.id
    with open_session(settings) as session:
        made = record_provenance(session, ProvenanceKey("image", "1")).id
        facts = {"type": "science", "section_id": "0", "instrument": "roof", "filter": "V"}
        image = Image(
            exposure_id=first.id, mjd_start=1.0, mjd_mid=1.0, exposure_time_s=1.0, header={}, **facts,
            ra=1.0, dec=1.0, provenance_id=made, data_version="x",
        )  # fmt: skip
        save(session, image)
    with pytest.raises(ConflictError, match="registered as an exposure of roof, and products were made"):
        again(path, other)
    assert stored(settings).instrument == "roof"
