"""The same camera on two telescopes: the documented example, found in a folder of the user's own."""

import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from seechange_core import Exposure, SensorSection
from seechange_core.instrument import get_instrument_instance, guess_instrument, list_instruments
from seechange_core.settings import load_settings, use_settings

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CARDS = {
    "INSTRUME": "DemoCam", "TELESCOP": "DemoScope", "DATE-OBS": "2026-03-01T03:04:05", "EXPTIME": 30.0,
    "OBSTYPE": "science", "FILTER": "r", "RA": 150.0, "DEC": 10.0,
}  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch):
    import instruments

    monkeypatch.setattr(instruments, "__path__", list(instruments.__path__))
    path = tmp_path / "settings.yaml"
    path.write_text(
        f"path: {{data_root: data, instruments: {EXAMPLES}}}\ninstruments: {{demo_north: {{sections: 1}}}}"
    )
    with use_settings(load_settings(path, environ={})):
        (tmp_path / "data").mkdir()
        yield tmp_path / "data"
    sys.modules.pop("instruments.demo_north", None)


def write(path, **cards):
    image = fits.ImageHDU(np.full((16, 16), 100, np.uint16), name="SEC00")
    fits.HDUList([fits.PrimaryHDU(header=fits.Header({**CARDS, **cards})), image]).writeto(path)
    return path.name


def test_both_recognise_their_own_files(root):
    assert {"demo", "demo_north"} <= set(list_instruments())
    assert Exposure(write(root / "a.fits")).instrument == "demo"
    assert Exposure(write(root / "b.fits", TELESCOP="DemoScope North")).instrument == "demo_north"
    # The camera that takes any telescope has the files of a third one.
    assert guess_instrument("c.fits", {**CARDS, "TELESCOP": "Third"}) == "demo"


def test_what_the_telescope_changes_and_what_it_does_not(root):
    south, north = get_instrument_instance("demo"), get_instrument_instance("demo_north")
    assert (south.pixel_scale_arcsec, north.pixel_scale_arcsec) == (0.27, 0.2)
    assert (south.telescope, north.telescope) == ("DemoScope", "DemoScope North")
    assert south.gain == north.gain
    assert north.get_section_ids() == [0]  # its own options
    exposure = Exposure(write(root / "b.fits", TELESCOP="DemoScope North"))
    assert exposure.telescope == "DemoScope North"
    assert exposure.site == north.site != south.site
    assert Exposure(write(root / "a.fits")).site == south.site
    hint = exposure.get_pointing_hint(0)
    assert (hint.pixel_scale_arcsec, hint.rotation_deg) == (0.2, 90.0)


def test_each_has_its_own_sections_in_the_database(root, database):
    from seechange_core.settings import get_settings
    from seechange_core.storage.engine import open_session

    settings = get_settings().model_copy(
        update={"path": get_settings().path.model_copy(update={"instruments": EXAMPLES})}
    )
    with use_settings(settings), open_session(settings) as session:
        session.add(SensorSection(0, "demo_north", gain=1.1))
        session.flush()
        assert get_instrument_instance("demo_north").fetch_sections(session)[0].gain == 1.1
        assert get_instrument_instance("demo").fetch_sections(session)[0].gain is None
