"""Command-line options made from a parameter model."""

from typing import Literal

import typer

from seechange_assets.cli.options import with_options
from seechange_core.params import Params, param


class Options(Params):
    count: int = param(3, "How many", ge=1)
    clouds: bool = param(True, "Clouds")
    band: Literal["g", "r"] = param("r", "Filter")
    start: str | None = param(None, "First night")
    dead: tuple[int, ...] = param((), "Dead sections", unit="id")


def run(*arguments):
    heard = {}

    def command(name: str, **values: object) -> int:
        """Do it."""
        heard.update(values, name=name)
        return 0

    app = typer.Typer(rich_markup_mode=None)
    app.command()(with_options(command, Options))
    app(arguments, standalone_mode=False)
    return heard


def test_defaults_are_the_models():
    heard = run("x")
    assert Options.checked({k: v for k, v in heard.items() if k != "name"}, "test") == Options()
    assert heard["name"] == "x"


def test_every_kind_of_field_can_be_given():
    heard = run(
        "x",
        "--count",
        "5",
        "--no-clouds",
        "--band",
        "g",
        "--start",
        "2026-01-01",
        "--dead",
        "1",
        "--dead",
        "2,3",
    )
    assert heard == {
        "name": "x",
        "count": 5,
        "clouds": False,
        "band": "g",
        "start": "2026-01-01",
        "dead": ("1", "2", "3"),
    }


def test_help_has_description_and_unit(capsys):
    run("--help")
    text = capsys.readouterr().out
    assert "Dead sections [id]." in text
    assert "--clouds / --no-clouds" in text
