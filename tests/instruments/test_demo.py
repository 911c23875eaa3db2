"""DemoCam reads what the simulator writes."""

import numpy as np
import pytest

from seechange_core import Exposure
from seechange_core.errors import NotFoundError, SettingsError
from seechange_core.instrument import get_instrument_instance
from seechange_core.settings import load_settings, use_settings
from seechange_core.simulate import SurveyOptions, load_truth, make_world, simulate_survey

SECTIONS, SIZE = 3, 128


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    out = tmp_path_factory.mktemp("survey")
    options = SurveyOptions(
        exposures=1, nights=1, reference_exposures=0, sections=SECTIONS, section_size_pix=SIZE,
        n_bias=1, n_dark=1, n_flat=1, transients=0, variables=0, asteroids=0, satellites=0.0,
        rotation=False, pointing_error=False, distortion=False,
    )  # fmt: skip
    simulate_survey(out, options)
    return out, options


@pytest.fixture
def exposures(survey, tmp_path):
    out, _ = survey
    path = tmp_path / "settings.yaml"
    path.write_text(
        f"path: {{data_root: {out}}}\n"
        f"instruments: {{demo: {{sections: {SECTIONS}, section_size_pix: {SIZE}}}}}\n"
        f"database_url: sqlite:///{tmp_path}/x.db\n"
    )
    with use_settings(load_settings(path, environ={})):
        files = sorted((out / "raw").glob("*.fits"))
        yield {e.type: e for e in (Exposure(str(f)) for f in files)}


def test_every_kind_of_frame_is_recognised(exposures):
    assert set(exposures) == {"science", "bias", "dark", "flat"}
    for kind, exposure in exposures.items():
        assert exposure.instrument == "demo"
        assert (exposure.filter is None) == (kind in {"bias", "dark"})
        assert exposure.instrument_object.find_unreadable_sections(exposure.get_fullpath()) == {}
    assert exposures["bias"].exp_time == 0.0
    assert exposures["science"].night == exposures["flat"].night


def test_amplifiers_tile_the_section(exposures):
    exposure = exposures["science"]
    for section_id in exposure.data:
        raw = exposure.load_raw_frame(section_id)
        assert raw.data.dtype == np.uint16
        assert raw.image_shape == (SIZE, SIZE)
        cover = np.zeros(raw.image_shape, int)
        for amplifier in raw.amplifiers:
            cover[amplifier.image.slices] += 1
            assert amplifier.raw.shape == amplifier.image.shape
            assert amplifier.overscan.shape == (SIZE, 24)
            assert 1.8 < amplifier.gain < 2.2
            assert raw.header[f"GAIN{amplifier.name}"] == amplifier.gain
            # The overscan shows the electronic zero level, below the sky.
            assert np.median(raw.data[amplifier.overscan.slices]) < np.median(raw.data[amplifier.raw.slices])
        assert np.all(cover == 1)


def test_sections_look_where_the_simulator_put_them(exposures, survey):
    out, options = survey
    truth = load_truth(out).epochs
    exposure = exposures["science"]
    camera = make_world(options).camera
    for section_id in exposure.data:
        offset = camera.section_offset(section_id)
        assert exposure.instrument_object.get_section_offsets(section_id) == pytest.approx(offset)
        # Stars of the truth lie where the nominal geometry puts them, without rotation, error and distortion.
        hint = exposure.get_pointing_hint(section_id)
        stars = truth[(truth["section"] == section_id) & (truth["file"] == exposure.filename.split("/")[-1])]
        east = (np.asarray(stars["ra"]) - hint.ra) * np.cos(np.radians(hint.dec)) * 3600
        north = (np.asarray(stars["dec"]) - hint.dec) * 3600
        centre = (SIZE - 1) / 2
        assert np.abs(east + (np.asarray(stars["x"]) - centre) * 0.27).max() < 0.5
        assert np.abs(north - (np.asarray(stars["y"]) - centre) * 0.27).max() < 0.5


def test_the_mosaic_is_filled_from_the_lower_left(tmp_path, settings):
    demo = get_instrument_instance("demo")
    assert [demo.get_section_offsets(s) for s in demo.get_section_ids()] == [
        (-532.0, -532.0),
        (532.0, -532.0),
        (-532.0, 532.0),
        (532.0, 532.0),
    ]
    with pytest.raises(NotFoundError, match="no section 4"):
        demo.get_section_offsets(4)


@pytest.mark.parametrize("said", [SECTIONS - 1, SECTIONS + 2])
def test_another_number_of_sections_in_the_settings_is_noticed(survey, tmp_path, said):
    """Where each section lies depends on their number, so that none could be used."""
    out, _ = survey
    path = tmp_path / "settings.yaml"
    path.write_text(
        f"path: {{data_root: {out}}}\ninstruments: {{demo: {{sections: {said}, section_size_pix: {SIZE}}}}}\n"
    )
    file = next(iter(sorted((out / "raw").glob("*_sci.fits"))))
    with use_settings(load_settings(path, environ={})):
        demo = get_instrument_instance("demo")
        if said < SECTIONS:
            with pytest.raises(SettingsError, match=r"has 3 .* say 2 \(set instruments.demo.sections to 3"):
                demo.find_unreadable_sections(file)
        else:
            lost = demo.find_unreadable_sections(file)
            assert list(lost) == [3, 4]
            assert "if it never has it, set instruments.demo.sections to 3" in lost[3].message


def test_another_size_of_sections_in_the_settings_is_noticed(survey, tmp_path):
    """Where their neighbours lie depends on it, and a field of view of another size is searched for stars."""
    out, _ = survey
    path = tmp_path / "settings.yaml"
    path.write_text(
        f"path: {{data_root: {out}}}\n"
        f"instruments: {{demo: {{sections: {SECTIONS}, section_size_pix: {2 * SIZE}}}}}\n"
    )
    file = next(iter(sorted((out / "raw").glob("*_sci.fits"))))
    with use_settings(load_settings(path, environ={})):
        expected = rf"{SIZE} pixels .* {2 * SIZE} \(set instruments.demo.section_size_pix to {SIZE}"
        with pytest.raises(SettingsError, match=expected):
            get_instrument_instance("demo").find_unreadable_sections(file)


def test_options_are_checked(settings):
    with pytest.raises(SettingsError, match=r"instruments\.demo\.sections"):
        type(get_instrument_instance("demo"))(sections=0)
