"""Everything that is measured, ours beside the peers on the same pixels: ``python -m benchmarks``.

    python -m benchmarks                                          # all topics
    python -m benchmarks subtraction --seeds 200-204 --new-references --resume --markdown
    python -m benchmarks --show                                   # what was measured, as Markdown

One table on the screen; the same rows in ``benchmarks/results.json``, where those of topics that are not
measured again stay: CPU seconds are medians over the CCDs, memory is the largest, quality figures are means,
``worst`` the least or the most of those that have a wrong direction. Errors, biases and pulls, which may have
either sign, are root mean squares (``..._rms``), so that they do not cancel. Where single pulls are known
(``subtraction``) those of all CCDs are put together: mean and width with standard errors.
Peers that are not installed are left out and named: ``pip install '.[bench]'`` and
``apt install source-extractor psfex scamp swarp`` bring them.
"""

import argparse
import importlib.util
import json
import math
import multiprocessing
import resource
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks import ccds, pairs
from benchmarks.markdown import markdown
from benchmarks.peers import program, summary

#: No code was tuned on these CCDs and pairs, nor changed for what came out on them.
_CCDS, _PAIRS, _ALL_PAIRS = (110, 111, 112), (200, 201), (200, 201, 202, 203, 204)
TOPICS = {
    "detrend": _CCDS, "streaks": _CCDS, "sources": _CCDS, "psf": _CCDS, "psf_photometry": _CCDS,
    "astrometry": _CCDS, "zero_point": _CCDS, "whole": _CCDS,
    "coadd": _PAIRS, "alignment": _PAIRS, "subtraction": _ALL_PAIRS, "detection": _PAIRS,
    "sfft": _PAIRS[:1], "whole_change": _PAIRS,
}  # fmt: skip
#: Topics that are measured on `pairs`, with the reference each keeps.
_OF_PAIRS = ("coadd", "alignment", "subtraction", "detection", "sfft", "whole_change")
RESULTS = Path(__file__).parent / "results.json"
MEASURED = Path(__file__).parent / "out" / "rows"
PROGRAMS = (("source-extractor", "sex"), ("psfex",), ("scamp",), ("SWarp", "swarp"))
MODULES = ("sep", "astroscrappy", "photutils", "sfft")

#: Figures with these words in their names may have either sign.
_SIGNED = (
    "bias", "pull", "zp_error", "color_term_error", "limiting_mag_error", "flux_error", "level_off_sigma",
)  # fmt: skip
#: What is worse: less of the first, more of the second.
_WORSE_IF_LESS, _WORSE_IF_MORE = ("complete_percent",), ("false_", "masked_", "below_", "lost_percent")

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; 0 if every topic could be measured on every CCD."""
    asked = _parse(arguments)
    if asked.show:
        print(markdown(json.loads(RESULTS.read_text())))
        return 0
    _name_missing_peers()
    each, failures = _measure(asked)
    table = _together(each)
    print(_text(table))
    for problem in failures:
        print(f"failed: {problem}", file=sys.stderr)
    if asked.out:
        path = Path(asked.out)
        before = json.loads(path.read_text()) if path.exists() else []
        old = [row for row in before if row["topic"] not in asked.topics or row["kind"] not in asked.kinds]
        table = old + table
        order = list(TOPICS)
        table.sort(key=lambda row: (row["kind"] != ccds.KINDS[0], order.index(row["topic"])))
        path.write_text(json.dumps(table, indent=1) + "\n")
    if asked.markdown:
        print(markdown(table))
    return 1 if failures else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topics", nargs="*", choices=[[], *TOPICS], help="what to measure (default: all)")
    parser.add_argument(
        "--seeds", type=_seeds, nargs="+", help="5 or 200-204 (default: each topic's own, all unseen)"
    )
    parser.add_argument("--kinds", nargs="+", choices=ccds.KINDS, default=list(ccds.KINDS))
    parser.add_argument("--out", default=str(RESULTS), help="'' writes nothing")
    parser.add_argument(
        "--new-references", action="store_true", help="coadd the pairs' references with the present code"
    )
    parser.add_argument(
        "--resume", action="store_true", help="do not measure again what the present code has measured"
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown as well")
    parser.add_argument("--show", action="store_true", help="print what was measured before as Markdown")
    asked = parser.parse_args(arguments)
    asked.topics = asked.topics or list(TOPICS)
    asked.seeds = None if asked.seeds is None else [seed for some in asked.seeds for seed in some]
    return asked


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def _name_missing_peers() -> None:
    missing = [names[0] for names in PROGRAMS if program(*names) is None]
    missing += [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not installed, so not compared with: {', '.join(missing)}", file=sys.stderr)


def _measure(asked: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """Measure everything that is asked for and keep the rows of each topic and CCD as they come."""
    tasks = [
        (topic, kind, seed)
        for kind in asked.kinds
        for seed in sorted({s for t in asked.topics for s in asked.seeds or TOPICS[t]})
        for topic in asked.topics
        if seed in (asked.seeds or TOPICS[topic])
    ]
    each: list[Row] = []
    failures = []
    for done, (topic, kind, seed) in enumerate(tasks, start=1):
        kept = MEASURED / f"{topic}_{kind}_{seed}.json"
        anew = asked.new_references and topic in _OF_PAIRS
        code = _code() + (" and reference" if anew else "")
        rows, problem = (_kept(kept, code), "") if asked.resume else ([], "")
        if not rows:
            before = _cpu_s()
            rows, problem = _fresh(topic, kind, seed, anew)
            rows = [{"topic": topic, **row} for row in rows]
            took = f": {_cpu_s() - before:.0f} CPU s"
        else:
            took = ": measured before"
        if problem:
            failures.append(f"{topic} {kind} {seed}: {problem}")
        else:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps({"code": code, "rows": rows}))
        each += rows
        print(f"[{done}/{len(tasks)}] {topic}, {kind} {seed}{took}", file=sys.stderr, flush=True)
    return each, failures


def _cpu_s() -> float:
    """Return the CPU time of this process's children that have ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _kept(path: Path, code: str) -> list[Row]:
    """Return what this code has measured before."""
    kept = json.loads(path.read_text()) if path.exists() else {"code": None}
    return list(kept["rows"]) if kept["code"] == code else []


@cache
def _code() -> str:
    """Return what tells the code that is measured, and that measures, from other code."""
    own = [p for p in Path(__file__).parent.glob("*.py") if p.stem not in ("everything", "markdown")]
    return pairs.code_of(own)


def _fresh(topic: str, kind: str, seed: int, new_reference: bool) -> tuple[list[Row], str]:
    """Measure one topic on one CCD in a process of its own; return its rows, or what went wrong."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_rows, topic, kind, seed, new_reference).result(), ""
        except Exception as error:  # noqa: BLE001 - the other topics are measured all the same
            return [], f"{type(error).__name__}: {error}"


def _rows(topic: str, kind: str, seed: int, new_reference: bool) -> list[Row]:
    if new_reference:
        pairs.load(kind, seed).renew_reference()
    found: list[Row] = importlib.import_module(f"benchmarks.{topic}").rows(kind, seed)
    return found


def _together(each: list[Row]) -> list[Row]:
    """Put the rows of several CCDs into one, per step, kind and peer."""
    groups: dict[tuple[str, str, str | None], list[Row]] = defaultdict(list)
    for row in each:
        groups[row["step"], row["kind"], row["peer"]].append(row)
    return [
        {
            "topic": rows[0]["topic"], "step": step, "kind": kind, "seeds": [row["seed"] for row in rows],
            "ours_cpu_s": _of(median, rows, "ours_cpu_s"), "ours_mb": _of(max, rows, "ours_mb"),
            "peer": peer,
            "peer_cpu_s": _of(median, rows, "peer_cpu_s"), "peer_mb": _of(max, rows, "peer_mb"),
            "quality": _mean(rows, "quality") | _pulls(rows), "worst": _worst(rows, "quality"),
            "peer_quality": _mean(rows, "peer_quality"), "peer_worst": _worst(rows, "peer_quality"),
        }
        for (step, kind, peer), rows in groups.items()
    ]  # fmt: skip


def _of(what: Any, rows: list[Row], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return round(float(what(values)), 3) if values else None


def _mean(rows: list[Row], key: str) -> dict[str, float]:
    found = {}
    for name, values in _columns(rows, key).items():
        signed = any(word in name for word in _SIGNED)
        value = math.sqrt(fmean(v * v for v in values)) if signed else fmean(values)
        found[f"{name}_rms" if signed else name] = float(f"{value:.4g}")
    return found


def _worst(rows: list[Row], key: str) -> dict[str, float]:
    """Return the worst value of each figure that several CCDs have and that can be bad in one way."""
    found = {}
    for name, values in _columns(rows, key).items():
        if len(values) > 1 and name.endswith("_std"):
            found[name] = max(values, key=lambda v: abs(v - 1))
        elif len(values) > 1 and any(word in name for word in _WORSE_IF_MORE):
            found[name] = max(values)
        elif len(values) > 1 and any(word in name for word in _WORSE_IF_LESS):
            found[name] = min(values)
    return found


def _columns(rows: list[Row], key: str) -> dict[str, list[float]]:
    names = dict.fromkeys(name for row in rows for name in row[key])
    columns = {
        name: [row[key][name] for row in rows if name in row[key] and math.isfinite(row[key][name])]
        for name in names
    }
    return {name: values for name, values in columns.items() if values}


def _pulls(rows: list[Row]) -> dict[str, float]:
    """Return what the pulls of all CCDs say together."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for row in rows for name in row.get("pulls", {})):
        values = [v for row in rows for v in row["pulls"].get(name, ())]
        found |= {key: float(f"{value:.4g}") for key, value in summary(name, values).items()}
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
