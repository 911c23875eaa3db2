"""A full-size DECam exposure, from raw files to images: time, memory, and what each correction leaves.

``python -m benchmarks.decam_images`` simulates a night of some of DECam's CCDs with every detector effect
switched on, takes it to calibrated images, each section in a process of its own, and compares images and
masters with the truth. ``--sections 2 --window 512`` is a quick look.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.residuals import residuals
from seechange_core import chain
from seechange_core.chain import Outcome, StepReport
from seechange_core.errors import NotFoundError
from seechange_core.instrument import get_instrument_instance
from seechange_core.products.ingest import ingest
from seechange_core.products.supply import supply
from seechange_core.settings import Settings, load_settings, use_settings
from seechange_core.simulate import SurveyOptions, load_truth, simulate_survey
from seechange_core.storage.engine import open_session
from seechange_core.storage.migrate import upgrade

#: CCDs from all over the focal plane, the middle first.
CCDS = ("N4", "S4", "N29", "S29", "N12", "S22", "N31", "S1", "N16", "S16", "N22", "S10", "N1", "S31")
BAND = "z"
SUPPLIED = ("crosstalk", "linearity", "fringe")
STEPS = ("exposure", "image")


def main(arguments: list[str] | None = None) -> int:
    """Simulate, process, compare, print; 0 if all sections came out."""
    asked = _parse(arguments)
    work = Path(asked.out)
    options = _options(asked)
    if not _is_simulated(work / "sky", options):
        simulate_survey(work / "sky", options, _progress, jobs=asked.jobs)
    settings = _settings(work)
    with use_settings(settings):
        if asked.window:
            _commit_sizes(settings, asked.window)
        exposure = _register(work, settings)
        rows = _masters(settings, options, asked.jobs) + _images(settings, exposure, options)
        _print_costs(rows)
        left = residuals(settings, load_truth(work / "sky"), exposure)
    _print_residuals(left)
    (work / "decam_images.json").write_text(json.dumps({"costs": rows, "residuals": left}, indent=1))
    bad = [row for row in rows if row["outcome"] not in {"done", "loaded"}]
    for row in bad:
        print(f"{row['step']} of {row['section']}: {row['message']}", file=sys.stderr)
    return 1 if bad else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decam_images", description=__doc__)
    parser.add_argument("--out", default="benchmarks/out/decam", help="folder to work in")
    parser.add_argument("--sections", type=int, default=8, help="how many CCDs (default %(default)s)")
    parser.add_argument("--window", type=int, default=0, help="read out only so many pixels square of each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes that simulate and combine at once")
    return parser.parse_args(arguments)


def _options(asked: argparse.Namespace) -> SurveyOptions:
    return SurveyOptions(
        camera="decam",
        section_names=CCDS[: asked.sections],
        window_pix=(asked.window, asked.window) if asked.window else None,
        seed=asked.seed,
        band=BAND,
        exposures=1,
        nights=1,
        exposure_time_s=120.0,
        n_bias=9,
        n_dark=3,
        n_flat=7,
        n_twilight=7,
        flat_gradient=0.02,
        flat_radial=0.02,
        nonlinearity=True,
        crosstalk=0.001,
        fringing=0.01,
        calibrators=True,
        satellites=0.0,
        transients=0,
    )


def _is_simulated(sky: Path, options: SurveyOptions) -> bool:
    """Tell whether the same night lies there already, whole."""
    try:
        return load_truth(sky).options == options
    except NotFoundError:
        return False


def _settings(work: Path) -> Settings:
    """Write the settings of a run from nothing, and make its database."""
    shutil.rmtree(work / "data", ignore_errors=True)
    read_out = {"do_crosstalk": True, "do_linearity": True}
    stages = {"preprocess": {**read_out, "do_fringe": True, "do_illumination": True}, "combine": read_out}
    values = {"path": {"data_root": ["data", "sky"]}, "instruments": {"decam": {"parameters": stages}}}
    (work / "seechange.yaml").write_text(yaml.safe_dump(values))
    settings = load_settings(work / "seechange.yaml")
    upgrade(settings)
    return settings


def _commit_sizes(settings: Settings, window_pix: int) -> None:
    """Let the database know that less of each CCD is read out than it has."""
    with open_session(settings) as session:
        camera = get_instrument_instance("decam")
        for section in camera.fetch_sections(session).values():
            section.size_x = section.size_y = window_pix
        camera.commit_sections(session)


def _register(work: Path, settings: Settings) -> str:
    """Ingest the raw files, supply the calibrators, and return the name of the science exposure."""
    raw = sorted((work / "sky" / "raw").iterdir())
    names = [row.name for row in (ingest(path, settings) for path in raw) if row.type == "science"]
    for kind in SUPPLIED:
        path = next((work / "sky" / "truth" / "calibrators").glob(f"{kind}.*"))
        supply(path, kind, "decam", band=BAND if kind == "fringe" else "", settings=settings)
    return names[0]


def _masters(settings: Settings, options: SurveyOptions, jobs: int) -> list[dict[str, Any]]:
    rows = []
    for key in chain.masters_wanted(settings, "decam"):
        tasks = [(settings, "decam", key.kind, key.night, s, key.filter) for s in options.section_names]
        rows += _measured(chain.build_master, tasks, f"{key.kind} masters")
    return rows


def _images(settings: Settings, exposure: str, options: SurveyOptions) -> list[dict[str, Any]]:
    tasks = [(settings, exposure, section, STEPS) for section in options.section_names]
    return _measured(chain.walk, tasks, "images")


def _measured(task: Any, arguments: Iterable[tuple[Any, ...]], what: str) -> list[dict[str, Any]]:
    """Do each task in a fresh process, one after another: so that memory is each one's own."""
    context = multiprocessing.get_context("spawn")
    rows = []
    tasks = list(arguments)
    for done, args in enumerate(tasks, start=1):
        with context.Pool(1) as pool:
            reports, cpu_s, wall_s, megabytes = pool.apply(_timed, (task, args))
        _progress(done, len(tasks), what)
        rows += [
            {
                "step": report.step,
                "section": report.section,
                "outcome": str(report.outcome),
                "message": report.message,
                "cpu_s": round(cpu_s, 2),
                "wall_s": round(wall_s, 2),
                "peak_mb": round(megabytes),
            }
            for report in reports
            if report.step != STEPS[0] or report.outcome is not Outcome.DONE
        ]
    return rows


def _timed(task: Any, args: tuple[Any, ...]) -> tuple[list[StepReport], float, float, float]:
    """Do a task twice over and time the second: the first compiles, or loads what was compiled."""
    first = task(*args)
    cpu, wall = time.process_time(), time.perf_counter()
    again = task(*args, redo=True)
    cost = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    reports = [first] if isinstance(first, StepReport) else list(first)
    repeated = [again] if isinstance(again, StepReport) else list(again)
    return (reports if any(r.message for r in reports) else repeated), *cost, peak


def _progress(done: int, total: int, name: str) -> None:
    end = "\n" if done == total else ""
    print(f"\r[{done}/{total}] {name}".ljust(60), end=end, file=sys.stderr, flush=True)


def _print_costs(rows: list[dict[str, Any]]) -> None:
    print(f"{'step':<14}{'section':<9}{'outcome':<9}{'CPU s':>7}{'wall s':>8}{'peak MB':>9}")
    for row in rows:
        print(
            f"{row['step']:<14}{row['section']:<9}{row['outcome']:<9}"
            f"{row['cpu_s']:>7.2f}{row['wall_s']:>8.2f}{row['peak_mb']:>9}"
        )


def _print_residuals(left: list[dict[str, Any]]) -> None:
    print(f"\n{'correction':<15}{'section':<9}{'before':>11}{'after':>11}{'error':>11}  what")
    for row in left:
        figures = "".join(
            f"{row[k]:>11.4g}" if row[k] is not None else " " * 11 for k in ("before", "after", "error")
        )
        print(f"{row['correction']:<15}{row['section']:<9}{figures}  {row['what']}")


if __name__ == "__main__":
    sys.exit(main())
