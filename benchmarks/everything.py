"""Everything that is measured, ours beside the peers on the same pixels: ``python -m benchmarks``.

One table on the screen; the same rows in ``benchmarks/results.json``: CPU seconds are medians over the CCDs,
memory is the largest, quality figures are means. Errors, biases and pulls, which may have either sign, are
root mean squares (``..._rms``), so that they do not cancel; ``..._mean_sigma`` of transients are means, some
200 a CCD being too few to tell a tenth of a sigma. Peers that are not installed are left out and
named: ``pip install '.[bench]'`` and ``apt install source-extractor psfex scamp swarp`` bring them.
"""

import argparse
import importlib.util
import json
import math
import multiprocessing
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks import ccds
from benchmarks.peers import program

TOPICS = (
    "detrend", "streaks", "sources", "psf", "psf_photometry", "astrometry", "zero_point", "whole",
    "alignment", "subtraction", "detection", "whole_change",
)  # fmt: skip
#: No code was tuned on these, nor changed for what came out on them.
SEEDS = (110, 111, 112)
PROGRAMS = (("source-extractor", "sex"), ("psfex",), ("scamp",), ("SWarp", "swarp"))
MODULES = ("sep", "astroscrappy", "photutils")

#: Figures with these words in their names may have either sign.
_SIGNED = (
    "bias", "pull", "zp_error", "color_term_error", "limiting_mag_error", "flux_error", "level_off_sigma",
)  # fmt: skip

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; 0 if every topic could be measured on every CCD."""
    asked = _parse(arguments)
    _name_missing_peers()
    each: list[Row] = []
    failures: list[str] = []
    tasks = [(t, k, s) for k in asked.kinds for s in asked.seeds for t in asked.topics]
    for done, task in enumerate(tasks, start=1):
        rows, problem = _fresh(*task)
        each += rows
        failures += [f"{' '.join(map(str, task))}: {problem}"] if problem else []
        print(f"[{done}/{len(tasks)}] {task[0]}, {task[1]} {task[2]}", file=sys.stderr, flush=True)
    table = _together(each)
    print(_text(table))
    for problem in failures:
        print(f"failed: {problem}", file=sys.stderr)
    if asked.out:
        Path(asked.out).write_text(json.dumps(table, indent=1) + "\n")
    return 1 if failures else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topics", nargs="*", choices=[[], *TOPICS], help="what to measure (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--kinds", nargs="+", choices=ccds.KINDS, default=list(ccds.KINDS))
    parser.add_argument("--out", default="benchmarks/results.json", help="'' writes nothing")
    asked = parser.parse_args(arguments)
    asked.topics = asked.topics or list(TOPICS)
    return asked


def _name_missing_peers() -> None:
    missing = [names[0] for names in PROGRAMS if program(*names) is None]
    missing += [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not installed, so not compared with: {', '.join(missing)}", file=sys.stderr)


def _fresh(topic: str, kind: str, seed: int) -> tuple[list[Row], str]:
    """Measure one topic on one CCD in a process of its own; return its rows, or what went wrong."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_rows, topic, kind, seed).result(), ""
        except Exception as error:  # noqa: BLE001 - the other topics are measured all the same
            return [], f"{type(error).__name__}: {error}"


def _rows(topic: str, kind: str, seed: int) -> list[Row]:
    found: list[Row] = importlib.import_module(f"benchmarks.{topic}").rows(kind, seed)
    return found


def _together(each: list[Row]) -> list[Row]:
    """Put the rows of several CCDs into one, per step, kind and peer."""
    groups: dict[tuple[str, str, str | None], list[Row]] = defaultdict(list)
    for row in each:
        groups[row["step"], row["kind"], row["peer"]].append(row)
    return [
        {
            "step": step, "kind": kind, "seeds": [row["seed"] for row in rows],
            "ours_cpu_s": _of(median, rows, "ours_cpu_s"), "ours_mb": _of(max, rows, "ours_mb"),
            "peer": peer,
            "peer_cpu_s": _of(median, rows, "peer_cpu_s"), "peer_mb": _of(max, rows, "peer_mb"),
            "quality": _mean(rows, "quality"), "peer_quality": _mean(rows, "peer_quality"),
        }
        for (step, kind, peer), rows in groups.items()
    ]  # fmt: skip


def _of(what: Any, rows: list[Row], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return round(float(what(values)), 3) if values else None


def _mean(rows: list[Row], key: str) -> dict[str, float]:
    found = {}
    for name in dict.fromkeys(name for row in rows for name in row[key]):
        values = [row[key][name] for row in rows if name in row[key] and math.isfinite(row[key][name])]
        if not values:
            continue
        signed = any(word in name for word in _SIGNED)
        value = math.sqrt(fmean(v * v for v in values)) if signed else fmean(values)
        found[f"{name}_rms" if signed else name] = float(f"{value:.4g}")
    return found


def _text(table: list[Row]) -> str:
    lines = [
        f"{'step':<28}{'kind':<8}{'CPU s':>8}{'MB':>7}  {'peer':<18}{'CPU s':>8}{'MB':>7}  quality (peer's)"
    ]
    for row in table:
        theirs = row["peer_quality"]
        figures = ", ".join(
            f"{name} {value:g}" + (f" ({theirs[name]:g})" if name in theirs else "")
            for name, value in row["quality"].items()
        )
        ours = f"{_number(row['ours_cpu_s'], 2):>8}{_number(row['ours_mb'], 0):>7}"
        peer = f"{row['peer'] or '-':<18}{_number(row['peer_cpu_s'], 2):>8}{_number(row['peer_mb'], 0):>7}"
        lines.append(f"{row['step']:<28}{row['kind']:<8}{ours}  {peer}  {figures}")
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
