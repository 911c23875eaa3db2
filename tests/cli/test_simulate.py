"""`seechange simulate` for cameras other than the demo's, and what it says about processing."""

import yaml
from typer.testing import CliRunner

from seechange_assets.cli.app import app
from seechange_core.settings import load_settings
from seechange_core.simulate import load_truth

SMALL = [
    "--section-names", "N4,S4", "--window-pix", "64,64", "--exposures", "1", "--nights", "1",
    "--reference-exposures", "0", "--n-bias", "0", "--n-dark", "0", "--n-flat", "1", "--n-twilight", "1",
    "--transients", "0", "--jobs", "1",
]  # fmt: skip


def test_it_names_sections_and_windows_by_comma_and_says_the_settings(tmp_path):
    arguments = ["simulate", str(tmp_path / "night"), "--camera", "decam", "--crosstalk", "1e-3", *SMALL]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    truth = load_truth(tmp_path / "night")
    assert truth.options.section_names == ("N4", "S4")
    assert truth.options.window_pix == (64, 64)
    assert sorted({path.name[18:21] for path in truth.raw_files}) == ["fri", "ori", "sri"]
    (line,) = [text for text in result.output.splitlines() if "say in the settings" in text]
    assert "seechange process --section N4 --section S4" in result.output
    words = line.split("settings: ", 1)[1]
    assert yaml.safe_load(words) == {
        "instruments": {
            "decam": {
                "size_x": 64,
                "size_y": 64,
                "parameters": {
                    "combine": {"do_crosstalk": True},
                    "preprocess": {"do_crosstalk": True, "do_illumination": True},
                },
            }
        }
    }
    (tmp_path / "seechange.yaml").write_text(words, encoding="utf-8")
    assert "decam" in load_settings(tmp_path / "seechange.yaml", environ={}).instruments
