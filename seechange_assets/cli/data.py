"""Commands that bring data in: simulate, ingest."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once

from pathlib import Path
from typing import Annotated, Any

import typer

from seechange_assets.cli.ingest import ingest
from seechange_assets.cli.options import with_options
from seechange_assets.cli.output import Progress
from seechange_core.simulate.options import SurveyOptions


def add_to(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("simulate")(with_options(simulate, SurveyOptions))
    app.command("ingest")(ingest)


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write to: raw/, truth/, catalog.ecsv.")],
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, help="Files made at once; 0: one per core.")
    ] = 0,
    **options: Any,
) -> int:
    """Simulate a survey: raw exposures, calibration frames, a reference catalog, and the truth about them.

    Example: seechange simulate demo/survey --exposures 12 --sections 4 --seed 7

    Example: seechange simulate night --camera decam --section-names N4,S4 --window-pix 512,512 --n-twilight 5
    """
    from seechange_core.pool import available_cores
    from seechange_core.simulate import simulate_survey

    survey = SurveyOptions.checked(options, "simulate")
    with Progress("file") as progress:

        def tell(_done: int, total: int, name: str) -> None:
            progress.expect(total, in_all=True)
            progress.step(name)

        simulate_survey(out, survey, tell, jobs=jobs or available_cores())
    files = len(list((out / "raw").iterdir()))
    typer.echo(
        f"{files} raw files in {out / 'raw'}, truth in {out / 'truth'}, catalog {out / 'catalog.ecsv'}"
    )
    if words := _settings_words(survey):
        typer.echo(f"to process it, say in the settings: {words}")
    if survey.section_names:
        words = " ".join(f"--section {name}" for name in survey.section_names)
        typer.echo(f"it holds some sections only: seechange process {words}")
    for path in sorted((out / "truth").glob("calibrators/*")):
        band = f" --filter {survey.band}" if path.stem == "fringe" and survey.camera != "ls4" else ""
        if path.stem != "illumination":  # twilight flats make one
            typer.echo(f"and give it: seechange calibrator add {path} --kind {path.stem}{band}")
    return 0


def _settings_words(survey: SurveyOptions) -> str:
    """Return the settings it takes to process a survey; empty if the defaults do."""
    own: dict[str, Any] = {}
    if survey.camera == "demo":
        names = ("sections", "section_size_pix", "gap_pix", "pixel_scale_arcsec", "parity")
        usual = SurveyOptions()
        own = {name: getattr(survey, name) for name in names if getattr(survey, name) != getattr(usual, name)}
    if survey.camera == "decam" and survey.window_pix:
        own["size_x"], own["size_y"] = survey.window_pix
    steps = {
        "do_crosstalk": survey.crosstalk > 0,
        "do_linearity": survey.nonlinearity,
        "do_fringe": survey.fringing > 0,
        "do_illumination": survey.n_twilight > 0 and survey.n_flat > 0,
    }
    if wanted := {name: True for name, is_on in steps.items() if is_on}:
        # Masters are made of frames read out as those they serve.
        laws = {name: True for name in ("do_crosstalk", "do_linearity") if name in wanted}
        own["parameters"] = {**({"combine": laws} if laws else {}), "preprocess": wanted}
    if not own and survey.camera == "demo":
        return ""
    return f"instruments: {_one_line({survey.camera: own})}"


def _one_line(value: Any) -> str:
    """Write nested settings as one line of YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, dict):
        return str(value)
    inside = ", ".join(f"{key}: {_one_line(part)}" for key, part in value.items())
    return f"{{{inside}}}"
