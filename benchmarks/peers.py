"""Time and memory of our code and of others', each alone in a process of its own."""

import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seechange_core.pool import keep_freed_memory

#: One core each: who uses more would be compared by the wrong figure.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
_FEWEST = 5
_TAIL_SIGMA = 4.0
#: Standard error of a width from the median absolute deviation: of n normal values 1.17 / sqrt(n) of it.
_MAD_ERROR = 1.17


class Cost(NamedTuple):
    """What something took: CPU seconds (user and system) and the process's largest memory, MB."""

    cpu_s: float
    mb: float


def timed(function: Callable[..., Any], *arguments: Any, warm: bool = True) -> tuple[Any, Cost]:
    """Call a function of a module in a fresh process, and return its result and cost.

    Parameters
    ----------
    function, arguments
        What can be pickled.
    warm
        Call it twice and time the second: the first compiles, or loads what was compiled.

    Returns
    -------
    The result of the (second) call, and its cost; the memory is that of the whole process.
    """
    return timed_each(function, [arguments], warm=warm)[0]


def timed_each(
    function: Callable[..., Any], each: Sequence[Sequence[Any]], *, warm: bool = True
) -> list[tuple[Any, Cost]]:
    """Call a function with one set of arguments after another in a fresh process; see `timed`.

    Parameters
    ----------
    function, each
        What can be pickled.
    warm
        Call it with the last arguments first, untimed.
    """
    context = multiprocessing.get_context("spawn")
    kept = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        with ProcessPoolExecutor(1, context) as pool:
            return pool.submit(_call, function, each, warm).result()
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _call(function: Callable[..., Any], each: Sequence[Sequence[Any]], warm: bool) -> list[Any]:
    keep_freed_memory()  # as the pipeline's own workers do
    if warm:
        function(*each[-1])
    results = []
    for number, arguments in enumerate(each):
        if number:
            _forget_megabytes()
        start = time.process_time()
        result = function(*arguments)
        results.append((result, Cost(time.process_time() - start, _megabytes())))
    return results


def _forget_megabytes() -> None:
    """Let the largest memory be counted from now on, where the system can."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def _megabytes() -> float:
    """Return the largest memory this process has used, MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not `ru_maxrss`: a process that was started by a larger one inherits that one's.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform != "darwin" else 1024**2
    )


def program(*names: str) -> str | None:
    """Return the path of the first of some programs that is installed."""
    return next((path for name in names if (path := shutil.which(name))), None)


def run_program(command: Sequence[str], folder: Path) -> Cost:
    """Run a program in a folder and return its cost.

    Raises
    ------
    RuntimeError
        If it fails: with the end of what it said.
    """
    log = folder / "log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            list(command), cwd=folder, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **ONE_THREAD}
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{command[0]} failed: {log.read_text(errors='replace')[-2000:]}")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def row(
    step: str,
    kind: str,
    seed: int,
    ours: Cost | None,
    quality: dict[str, float],
    peer: str | None = None,
    theirs: Cost | None = None,
    peer_quality: dict[str, float] | None = None,
    pulls: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Make one row of a benchmark's table: ours, and at most one peer, on the same pixels.

    `pulls` are single ones of ours by name, put together with those of the other CCDs (see `summary`).
    """
    return {
        "step": step, "kind": kind, "seed": seed,
        **_cost("ours", ours), "peer": peer, **_cost("peer", theirs),
        "quality": _rounded(quality), "peer_quality": _rounded(peer_quality or {}),
        "pulls": {name: [round(float(v), 4) for v in values] for name, values in (pulls or {}).items()},
    }  # fmt: skip


def summary(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return what a sample of pulls says: nothing of fewer than five.

    ``mean_sigma`` is the mean of the middle 95 %, ``width`` the scatter from the median absolute deviation,
    each with its standard error; ``tails_percent`` what is beyond 4 sigma.
    """
    pulls = np.sort(np.asarray(values, float))
    pulls = pulls[np.isfinite(pulls)]
    if len(pulls) < _FEWEST:
        return {}
    cut_off = len(pulls) // 40
    middle = pulls[cut_off : len(pulls) - cut_off]
    width = 1.4826 * float(np.median(np.abs(pulls - np.median(pulls))))
    return {
        f"{name}_n": float(len(pulls)),
        f"{name}_mean_sigma": float(middle.mean()),
        f"{name}_mean_sigma_err": width / float(np.sqrt(len(pulls))),
        f"{name}_width": width,
        f"{name}_width_err": _MAD_ERROR * width / float(np.sqrt(len(pulls))),
        f"{name}_tails_percent": 100 * float(np.mean(np.abs(pulls) > _TAIL_SIGMA)),
    }


def _cost(who: str, cost: Cost | None) -> dict[str, float | None]:
    cpu_s, mb = (None, None) if cost is None else (round(cost.cpu_s, 3), round(cost.mb))
    return {f"{who}_cpu_s": cpu_s, f"{who}_mb": mb}


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in figures.items()}
