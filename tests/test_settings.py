import pickle
from pathlib import Path

import pytest

from seechange_core.errors import SettingsError
from seechange_core.params import Params, param
from seechange_core.settings import NOT_SETTINGS, STAGES, Settings, get_settings, load_settings, use_settings


class ThresholdParams(Params):
    threshold: float = param(5.0, "Detection threshold.", unit="sigma", gt=0)
    cores: int = param(1, "Threads.", results=False)


def write(folder: Path, text: str) -> Path:
    file = folder / "seechange.yaml"
    file.write_text(text)
    return file


def test_everything_has_a_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = load_settings(environ={})
    assert values.data_root == tmp_path / "seechange_data"
    assert values.database_url == f"sqlite:///{tmp_path / 'seechange_data' / 'seechange.db'}"
    assert values.storage.images.single_file is True
    assert values.path.server_data is None
    assert values.tag == "current"


def test_the_environment_names_the_file(tmp_path, monkeypatch):
    file = write(
        tmp_path, "tag: paper1\npath:\n  data_root: [data, /elsewhere]\n  server_data: s3://survey\n"
    )
    monkeypatch.setenv("SEECHANGE_CONFIG", str(file))
    values = load_settings()
    assert values.tag == "paper1"
    assert values.path.data_root == (tmp_path / "data", Path("/elsewhere"))
    assert values.path.server_data == "s3://survey"


def test_relative_paths_are_seen_from_the_file(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file = write(tmp_path, "path: {data_root: ../data, server_data: server}\ndatabase_url: sqlite:///x.db\n")
    values = load_settings(file, environ={})
    assert values.data_root == tmp_path.parent / "data"
    assert values.path.server_data == str(tmp_path / "server")
    assert values.database_url == f"sqlite:///{tmp_path / 'x.db'}"


def test_the_environment_wins_over_the_file(tmp_path):
    file = write(tmp_path, "extract: {threshold: 3, cores: 2}\ndatabase_url: postgresql://a@b/c\n")
    environ = {
        "SEECHANGE_EXTRACT__THRESHOLD": "4.5",
        "SEECHANGE_STORAGE__IMAGES__SINGLE_FILE": "false",
        "SEECHANGE_PATH__DATA_ROOT": f"[{tmp_path}/a, {tmp_path}/b]",
        "SEECHANGE_TAG": "2026",
    }
    values = load_settings(file, environ)
    assert values.extract == {"threshold": 4.5, "cores": 2}
    assert values.storage.images.single_file is False
    assert values.path.data_root == (tmp_path / "a", tmp_path / "b")
    assert values.tag == "2026"
    assert values.database_url == "postgresql://a@b/c"


@pytest.mark.parametrize("name", sorted(NOT_SETTINGS - {"SEECHANGE_CONFIG"}))
def test_variables_that_are_no_settings_are_left_alone(name):
    assert load_settings(environ={name: "1"}) == load_settings(environ={})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("nonsense: 1", "nonsense"),
        ("path: {data_rot: x}", "path.data_rot"),
        ("storage: {images: {format: png}}", "storage.images.format"),
        ("storage: {images: {name_convention: '{exposure}'}}", "storage.images.name_convention"),
        ("storage: {images: {single_file: perhaps}}", "storage.images.single_file"),
        ("database_url: mysql://a:secret@b/c", "database_url"),
        ("extract: 5", "extract"),
        ("path: {data_root: []}", "path.data_root"),
        ("instruments: {demo: {parameters: {extrat: {}}}}", "extrat"),
        ("tag: ''", "tag"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, key):
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text), environ={})
    assert key in str(caught.value)
    assert "seechange.yaml" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_variable_is_named():
    with pytest.raises(SettingsError, match="SEECHANGE_DATABSE_URL"):
        load_settings(environ={"SEECHANGE_DATABSE_URL": "sqlite:///x"})
    with pytest.raises(SettingsError, match=r"path\.rot.*SEECHANGE_PATH__ROT"):
        load_settings(environ={"SEECHANGE_PATH__ROT": "x"})


@pytest.mark.parametrize("text", ["a: [", "- 1", "just words", "\ttag: x"])
def test_a_file_that_is_no_settings(tmp_path, text):
    with pytest.raises(SettingsError, match=r"seechange\.yaml"):
        load_settings(write(tmp_path, text), environ={})


def test_a_missing_file(tmp_path):
    with pytest.raises(SettingsError, match="cannot read"):
        load_settings(environ={"SEECHANGE_CONFIG": str(tmp_path / "none.yaml")})


def test_empty_blocks_are_defaults(tmp_path):
    assert load_settings(write(tmp_path, "extract:\ninstruments: {demo: }\n"), environ={}).extract == {}


def test_an_instrument_has_parameters_of_its_own(tmp_path):
    text = """
extract: {threshold: 3}
instruments:
  demo: {gain: 2.0, parameters: {extract: {threshold: 7}}}
  bad: {parameters: {extract: {threshold: -1}}}
"""
    values = load_settings(write(tmp_path, text), environ={})
    assert values.params(ThresholdParams, "extract").threshold == 3
    assert values.params(ThresholdParams, "extract", "decam").threshold == 3
    assert values.params(ThresholdParams, "extract", "demo").threshold == 7
    assert values.options("demo") == {"gain": 2.0}
    with pytest.raises(SettingsError, match=r"instruments\.bad\.parameters\.extract\.threshold"):
        values.params(ThresholdParams, "extract", "bad")


def test_every_stage_has_a_block():
    for stage in STAGES:
        assert getattr(load_settings(environ={}), stage) == {}


def test_settings_travel_to_other_processes(settings):
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_the_process_has_its_settings(settings):
    assert get_settings() is settings
    other = settings.model_copy(update={"tag": "other"})
    with use_settings(other):
        assert get_settings().tag == "other"
    assert get_settings() is settings


def test_they_cannot_be_changed(settings: Settings):
    with pytest.raises(ValueError, match="frozen"):
        settings.tag = "x"
