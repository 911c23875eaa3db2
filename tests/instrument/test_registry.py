"""Instruments found by name at run time, and guessed from files."""

import sys

import pytest

from seechange_core.errors import NotFoundError, PipelineError, SettingsError
from seechange_core.instrument import get_instrument_instance, guess_instrument, list_instruments
from seechange_core.settings import load_settings, use_settings

DROPPED_IN = """
from seechange_core.instrument import Instrument, SensorSection

class {name}(Instrument):
    def __init__(self):
        self.name = "{name}".lower()
        self.header_instrument = "{name} 3000"
        super().__init__()
    def get_section_ids(self):
        return [0]
    def _make_new_section(self, section_id):
        return SensorSection(section_id, self.name)
    def get_filename_regex(self):
        return [r"^{name}_"]
"""

GENERIC = """
instruments:
  backyard:
    kind: generic
    latitude_deg: 39
    longitude_deg: -77
    time_scale: utc
    time_refers_to: start
    pixel_scale_arcsec: 2
    filename_regex: ^by_
    match_cards: {INSTRUME: Webcam}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A second folder of instruments, as if files were dropped into the first."""
    import instruments

    monkeypatch.setattr(instruments, "__path__", [*instruments.__path__, str(tmp_path)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("instruments."):
            del sys.modules[name]


def with_settings(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return use_settings(load_settings(path, environ={}))


def test_demo_is_found_by_its_file(settings):
    demo = get_instrument_instance("demo")
    assert (demo.name, type(demo).__name__, demo.gain) == ("demo", "DemoInstrument", 2.0)
    assert get_instrument_instance("demo") is demo
    assert get_instrument_instance("DemoInstrument") is demo
    assert "demo" in list_instruments()
    assert "generic" not in list_instruments()


def test_dropping_a_file_in_is_all_it_takes(settings, folder):
    (folder / "newcam.py").write_text(DROPPED_IN.format(name="NewCam"))
    assert get_instrument_instance("newcam").get_section_ids() == [0]
    assert guess_instrument("path/to/x.fits", {"INSTRUME": "newcam 3000"}) == "newcam"
    assert guess_instrument("NewCam_001.fits") == "newcam"


def test_a_broken_file_is_named(settings, folder):
    (folder / "broken.py").write_text("import nothing_like_this\n")
    with pytest.raises(PipelineError, match=r"instruments/broken\.py cannot be imported.*nothing_like_this"):
        get_instrument_instance("broken")


def test_one_file_is_one_instrument(settings, folder):
    (folder / "pair.py").write_text(DROPPED_IN.format(name="One") + DROPPED_IN.format(name="Two"))
    with pytest.raises(PipelineError, match="defines 2 instruments"):
        get_instrument_instance("pair")


def test_settings_name_and_configure_instruments(tmp_path):
    with with_settings(tmp_path, GENERIC):
        camera = get_instrument_instance("backyard")
        assert (camera.name, camera.pixel_scale_arcsec) == ("backyard", 2.0)
        assert get_instrument_instance("backyard") is camera
        assert guess_instrument("by_001.fits") == "backyard"
        assert guess_instrument("001.fits", {"INSTRUME": "webcam "}) == "backyard"
    with with_settings(tmp_path, GENERIC.replace("arcsec: 2", "arcsec: 3")):
        assert (
            get_instrument_instance("backyard").pixel_scale_arcsec == 3.0
        )  # other settings, another instance


def test_other_settings_other_instruments(tmp_path):
    with with_settings(tmp_path, GENERIC):
        get_instrument_instance("backyard")
    with with_settings(tmp_path, "instruments: {}"):
        assert "backyard" not in list_instruments()


def test_the_same_camera_twice(tmp_path):
    two = "instruments: {demo: {sections: 9}, demo2: {kind: demo, sections: 1}}"
    with with_settings(tmp_path, two):
        assert len(get_instrument_instance("demo").get_section_ids()) == 9
        assert len(get_instrument_instance("demo2").get_section_ids()) == 1
        assert guess_instrument("demo_20260101_010203_sci.fits") == "demo"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("instruments: {demo: {section: 9}}", r"instruments\.demo\.section"),
        ("instruments: {demo: {sections: many}}", r"instruments\.demo\.sections"),
        (
            "instruments: {x: {kind: nothing}}",
            r"instruments\.x\.kind: there is no file instruments/nothing\.py",
        ),
        ("instruments: {x: {kind: generic}}", r"instruments\.x\.latitude_deg"),
        ("instruments: {'my cam': {kind: demo}}", r"'my cam'"),
    ],
)
def test_wrong_settings_name_the_key(tmp_path, text, path):
    with with_settings(tmp_path, text), pytest.raises(SettingsError, match=path):
        for name in list_instruments():
            get_instrument_instance(name)


def test_several_that_fit_are_named(tmp_path):
    other = GENERIC.replace("instruments:\n", "").replace("backyard", "other")
    with with_settings(tmp_path, GENERIC + other):
        for cards in (None, {"INSTRUME": "Webcam"}):
            with pytest.raises(
                NotFoundError,
                match=r"by_1\.fits: .*backyard and other fit equally well \(say --instrument NAME \(ba",
            ):
                guess_instrument("by_1.fits", cards)


def test_what_fits_nothing_is_told_why_for_each(tmp_path):
    with with_settings(tmp_path, GENERIC + "  bare: {kind: demo}"):
        with pytest.raises(NotFoundError) as caught:
            guess_instrument("xyz.fits", {"INSTRUME": "Nothing"})
        for words in (
            "cannot tell which instrument made it: INSTRUME is 'Nothing'; ",
            "; backyard wants INSTRUME 'Webcam' or a name like ^by_; ",
            "; bare wants INSTRUME 'DemoCam'; ",
            r"; demo wants INSTRUME 'DemoCam' or a name like demo_\d{8}",
            r"; ls4 wants INSTRUME 'LS4Cam' or a name like \d{14}[sbdfem]_",
            "(say --instrument NAME (backyard, bare, ",
            "or describe yours under instruments in the settings",
        ):
            assert words in str(caught.value)
        with pytest.raises(NotFoundError, match=r"its header is not at hand; backyard"):
            guess_instrument("xyz.fits")
        with pytest.raises(NotFoundError, match=r"it has no INSTRUME; backyard"):
            guess_instrument("xyz.fits", {})


def test_a_name_does_not_win_over_a_header_that_says_otherwise(tmp_path):
    with with_settings(tmp_path, GENERIC):
        assert guess_instrument("by_1.fits", {"INSTRUME": "DemoCam"}) == "demo"
        assert guess_instrument("demo_20260101_010203_sci.fits", {"INSTRUME": "Webcam"}) == "backyard"
        with pytest.raises(NotFoundError, match=r"INSTRUME is 'Other'; .*demo has such names, but with"):
            guess_instrument("demo_20260101_010203_sci.fits", {"INSTRUME": "Other"})
        assert guess_instrument("demo_20260101_010203_sci.fits", {}) == "demo"  # it says nothing


def test_a_name_against_another_s_header_is_not_decided(tmp_path):
    by_name_alone = GENERIC.replace("    match_cards: {INSTRUME: Webcam}\n", "")
    words = "backyard and demo fit equally well"
    with with_settings(tmp_path, by_name_alone), pytest.raises(NotFoundError, match=words):
        guess_instrument("by_1.fits", {"INSTRUME": "DemoCam"})


def test_instruments_in_a_folder_of_one_s_own(tmp_path, folder, monkeypatch):
    own = tmp_path / "mine"
    with with_settings(tmp_path, "path: {instruments: mine}"):
        with pytest.raises(SettingsError, match=r"path\.instruments: there is no folder .*mine"):
            list_instruments()
        own.mkdir()
        (own / "owncam.py").write_text(DROPPED_IN.format(name="OwnCam"))
        assert "owncam" in list_instruments()
        assert get_instrument_instance("owncam").get_section_ids() == [0]
        assert guess_instrument("OwnCam_1.fits") == "owncam"
        (own / "demo.py").write_text(DROPPED_IN.format(name="Demo"))
        with pytest.raises(SettingsError, match=r"mine has a demo\.py, and so has instruments"):
            list_instruments()


@pytest.mark.parametrize("name", ["decam", "ls4", "ptf", "demo", "own"])
def test_options_that_every_instrument_has(tmp_path, folder, name):
    """Also one of the user's own, whose class knows of no options at all."""
    (folder / "own.py").write_text(DROPPED_IN.format(name="Own"))
    options = f"{name}: {{image_types: {{Pic: science}}, trust_sections: [gain]}}"
    with with_settings(tmp_path, f"instruments: {{{options}}}"):
        camera = get_instrument_instance(name)
    assert (camera.image_types, camera.trust_sections) == ({"Pic": "science"}, ("gain",))
    for wrong, words in (
        ("image_types: {pic: light}", rf"instruments\.{name}\.image_types: 'light' is none of science"),
        ("trust_sections: [colour]", rf"instruments\.{name}\.trust_sections: 'colour' is none of gain"),
    ):
        with (
            with_settings(tmp_path, f"instruments: {{{name}: {{{wrong}}}}}"),
            pytest.raises(SettingsError, match=words),
        ):
            get_instrument_instance(name)
