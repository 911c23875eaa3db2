"""A pool of worker processes that survives the death of a worker.

Workers are forked from a small server process that has imported the numerics and nothing else, so
one starts in milliseconds and carries none of its parent's threads, locks or database connections.
Results come as they are ready. The standard library's pools give up every unfinished task when one
worker is killed; here only the task it held is lost, and a new worker takes its place.
"""

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType, TracebackType
from typing import Any, Self

from seechange_core.errors import PipelineError, SeeChangeError

#: One thread per worker: the workers themselves are the parallelism.
THREAD_VARIABLES = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
PRELOAD = ("seechange_core.chain",)
#: Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ALWAYS_KEPT = 2**31 - 1


@dataclass(frozen=True)
class TaskResult:
    """What became of one task.

    Attributes
    ----------
    index
        Place of the task in the sequence given.
    value
        What the function returned; None if it failed.
    error
        Why it failed: the function's own `SeeChangeError`, or a `PipelineError` for anything else
        (a bug, or a worker that died); None if it did not.
    trace
        The traceback in the worker, if there is one.
    more
        Whether more will come of the same task: its function is a generator, and this is what it yielded.
    """

    index: int
    value: Any = None
    error: SeeChangeError | None = None
    trace: str = ""
    more: bool = False


@dataclass
class _Worker:
    process: ForkServerProcess
    pipe: Connection
    task: int | None = None


class WorkerPool:
    """Worker processes, started when first needed and kept until the pool is closed.

    Parameters
    ----------
    workers
        How many tasks run at once; 0 takes one worker per core this process may use.
    preload
        Modules to import once, before any worker starts.

    Raises
    ------
    ValueError
        If `workers` is negative.
    """

    def __init__(self, workers: int = 0, preload: Sequence[str] = PRELOAD) -> None:
        if workers < 0:
            raise ValueError(f"workers is {workers}: it cannot be negative")
        self.size = workers or available_cores()
        self._preload = [*preload]
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[TaskResult]:
        """Call ``function(*task)`` for every task, yielding results as they come.

        Parameters
        ----------
        function
            A module-level function or generator function; arguments and results must pickle.
        tasks
            The arguments of each call.

        Yields
        ------
        TaskResult
            One per task, in the order they finish, and before it one with `more` for everything that a
            generator yields. Leaving the loop early ends the workers.
        """
        waiting = list(range(len(tasks)))[::-1]
        finished = False
        try:
            while waiting or self._busy():
                self._hand_out(function, tasks, waiting)
                for worker in self._ready():
                    yield self._collect(worker)
            finished = True
        finally:
            if not finished:
                self.close()

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.task is not None:
                worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.process.close()
        self._workers = []

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.task is not None]

    def _hand_out(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], waiting: list[int]
    ) -> None:
        """Give a task to every idle worker, starting workers up to the pool's size."""
        while waiting:
            idle = next((worker for worker in self._workers if worker.task is None), None)
            if idle is None and len(self._workers) < self.size:
                idle = self._start()
            if idle is None:
                return
            idle.task = waiting.pop()
            try:
                idle.pipe.send((function, tasks[idle.task]))
            except (BrokenPipeError, ConnectionResetError):  # it died while idle: nothing is lost
                waiting.append(idle.task)
                self._bury(idle)

    def _ready(self) -> list[_Worker]:
        """Wait until a worker has an answer or is dead."""
        busy = self._busy()
        ready = wait([worker.pipe for worker in busy])
        return [worker for worker in busy if worker.pipe in ready]

    def _collect(self, worker: _Worker) -> TaskResult:
        index = worker.task
        assert index is not None
        try:
            value, error, trace, more = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            return TaskResult(index, error=self._bury(worker))
        if not more:
            worker.task = None
        return TaskResult(index, value, error, trace, more)

    def _bury(self, worker: _Worker) -> PipelineError:
        """Remove a dead worker and say what it died of."""
        worker.process.join()
        code = worker.process.exitcode or 0
        words = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        worker.pipe.close()
        worker.process.close()
        self._workers.remove(worker)
        return PipelineError(
            f"its worker process died ({words})",
            cure="run it again; when memory is short, with fewer workers at once (--jobs)",
        )

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        self._context.set_forkserver_preload(self._preload)
        with _single_threaded(), _without_main():
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker


def available_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees for what it needs next, where the C library is glibc.

    Arrays as large as an image are returned to the system otherwise, and every new one is made of pages that
    it clears first: a fifth of the time of a subtraction.
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _ALWAYS_KEPT)
        mallopt(_TRIM_THRESHOLD, _ALWAYS_KEPT)


def _serve(pipe: Connection) -> None:
    """Carry out tasks until the parent closes the pipe; the body of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    os.environ.update(THREAD_VARIABLES)
    keep_freed_memory()
    with suppress(EOFError, ConnectionResetError, BrokenPipeError):  # the parent is gone, or done with us
        while True:
            for answer in _answers(pipe.recv_bytes()):
                pipe.send_bytes(answer)


def _answers(task: bytes) -> Iterator[bytes]:
    """Carry out one pickled task; whatever goes wrong becomes the last answer."""
    try:
        function, arguments = pickle.loads(task)
        value = function(*arguments)
        if isinstance(value, Generator):
            yield from (pickle.dumps((part, None, "", True)) for part in value)
            value = None
        answer = pickle.dumps((value, None, "", False))
    except SeeChangeError as error:
        answer = pickle.dumps((None, error, traceback.format_exc(), False))
    except Exception as error:  # noqa: BLE001 - a worker reports every failure and lives on
        words = " ".join(str(error).split())
        bug = PipelineError(f"{type(error).__name__}: {words}")
        answer = pickle.dumps((None, bug, traceback.format_exc(), False))
    yield answer


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Have the libraries of processes started here use one thread each."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(THREAD_VARIABLES)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep workers from importing the parent's main program: it may be Dagster, which costs seconds."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
