"""The demo: a simulated survey taken from raw exposures to light curves, and judged by its truth.

`make demo` runs it. The survey, the settings, all products and the verdict end up in one folder, on
which every command and the web UI work afterwards: ``SEECHANGE_CONFIG=demo/seechange.yaml``.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import typer

from seechange_assets.cli.output import Progress
from seechange_assets.home import make_home
from seechange_assets.run import Runner
from seechange_core import chain
from seechange_core.catalogs.importer import import_table
from seechange_core.chain import Outcome, StepReport
from seechange_core.errors import SeeChangeError, UserError
from seechange_core.products.ingest import ingest
from seechange_core.qa.lightcurve import LightCurve, plot
from seechange_core.qa.style import to_png
from seechange_core.settings import Settings, load_settings, use_settings
from seechange_core.simulate import SurveyOptions, simulate_survey
from seechange_core.storage.migrate import upgrade
from seechange_core.verify import Summary, checks, screen, summarise

SETTINGS = """\
# Settings of the demo. Paths are relative to this file.
path:
  data_root: [data, survey]
instruments:
  demo: {}
photometry:
  catalog_color: g-r
"""
#: What the demo makes, and may therefore remove before it makes it again.
OWN = ("survey", "data", "seechange.yaml", "summary.json", "light_curves.png")
PANELS = 9


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if every figure is as good as it should be."""
    options = _parse(arguments)
    start = time.perf_counter()
    try:
        settings = _prepare(options.out)
        _simulate(options, settings)
        reports = _process(options, settings)
        failed = [r for r in reports if r.outcome is Outcome.FAILED]
        typer.echo("comparing with the truth")
        summary = summarise(settings, options.out / "survey")
    except SeeChangeError as error:
        typer.echo(f"demo: {error}", err=True)
        return 1
    return _conclude(options.out, summary, failed, time.perf_counter() - start)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the simulated sky (default 1)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to make (default demo)")
    parser.add_argument(
        "--jobs", type=int, default=0, help="sections worked on at once (default: one per core)"
    )
    return parser.parse_args(arguments)


def _prepare(out: Path) -> Settings:
    """Make an empty folder with settings, database and Dagster instance."""
    strange = {p.name for p in out.iterdir()} - set(OWN) if out.exists() else set()
    if strange:
        raise UserError(
            f"the folder holds more than a demo: {', '.join(sorted(strange))}",
            cure="name another one with --out",
            file=str(out),
        )
    for name in OWN:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "seechange.yaml").write_text(SETTINGS, encoding="utf-8")
    # Whatever survey the environment names, the demo keeps to its own folder.
    for name in [name for name in os.environ if name.startswith("SEECHANGE_")]:
        del os.environ[name]
    settings = load_settings(out / "seechange.yaml")
    os.environ["DAGSTER_HOME"] = str(settings.data_root / "dagster")
    upgrade(settings)
    make_home(settings)
    return settings


def _simulate(options: argparse.Namespace, settings: Settings) -> None:
    survey = options.out / "survey"
    with Progress("file") as progress:

        def tell(_done: int, total: int, name: str) -> None:
            progress.expect(total, in_all=True)
            progress.step(f"{name}: simulated")

        jobs = options.jobs or os.cpu_count() or 1
        plan = SurveyOptions(seed=options.seed)
        simulate_survey(survey, plan, tell, jobs=jobs)
    root = settings.data_root / "catalogs"
    import_table(survey / "catalog.ecsv", "simulated", root, epoch=2016.0, source="the simulator")
    with use_settings(settings):
        for path in sorted((survey / "raw").glob("*.fits")):
            ingest(path.absolute(), settings)


def _process(options: argparse.Namespace, settings: Settings) -> list[StepReport]:
    """Take everything through the chain: masters, the first night's images, references, all the rest."""
    exposures = chain.exposures(settings)
    names = [e.name for e in exposures]
    first = [e.name for e in exposures if e.night == exposures[0].night]
    reports: list[StepReport] = []
    with (
        use_settings(settings),
        Progress("section") as progress,
        Runner(settings, options.jobs, progress) as runner,
    ):
        reports += runner.build_masters("demo")
        reports += runner.process("demo", first, through="zero_point")
        wanted = chain.references_wanted(settings, "demo")
        reports += runner.build_references("demo", wanted, nights=[exposures[0].night])
        progress.say(
            "the first night is in the reference now: its exposures are not subtracted from themselves and "
            "stop at subtraction, as they should; light curves begin with the second night"
        )
        reports += runner.process("demo", names)
    return reports


def _conclude(out: Path, summary: Summary, failed: list[StepReport], seconds: float) -> int:
    """Write the picture and the figures, print one screen, and return the exit status."""
    figure = plot(
        [_panel(summary, i) for i in range(min(PANELS, len(summary.curves)))],
        title="Transients of the demo: forced photometry on differences, and the truth (grey)",
    )
    (out / "light_curves.png").write_bytes(to_png(figure))
    verdicts = checks(summary)
    figures = {"seconds": round(seconds, 1), **summary.to_json(), "failed_steps": len(failed)}
    (out / "summary.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(screen(summary, verdicts, seconds))
    for report in failed:
        typer.echo(f"  failed: {report.step}: {report.message}")
    typer.echo(f"\n  {out}/light_curves.png   {out}/summary.json   web UI: make ui")
    return 0 if all(v.passed for v in verdicts) and not failed else 1


def _panel(summary: Summary, index: int) -> LightCurve:
    curve = summary.curves[index]
    table = curve.measured
    return LightCurve(
        label=curve.name,
        time=table.mjd_mid,
        flux=table.flux,
        flux_err=table.flux_err,
        zp=table.zp,
        band=table.filter,
        truth_time=curve.true_mjd,
        truth_mag=curve.true_mag,
    )


if __name__ == "__main__":
    sys.exit(main())
