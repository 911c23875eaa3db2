"""The worker pool: results as they come, and a death that costs one task only."""

import os
import platform
import signal
import sys
import time
from pathlib import Path

import pytest

from seechange_core.errors import NoStars, PipelineError
from seechange_core.pool import WorkerPool

sys.path.append(str(Path(__file__).parent / "pool_tasks"))
import tasks


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(2, preload=["tasks"]) as pool:
        yield pool


def test_results_come_as_they_are_ready(pool):
    found = [result.value for result in pool.run(tasks.sleep, [(0.8,), (0.05,), (0.1,)])]
    assert found == [0.05, 0.1, 0.8]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_workers_keep_the_memory_that_they_free(pool):
    (result,) = pool.run(tasks.page_faults_of_arrays, [()])
    assert result.value < 100


def test_what_a_generator_yields_comes_as_it_comes(pool):
    results = list(pool.run(tasks.count_to, [(2,), (3,)]))
    of = {n: [(r.value, r.more) for r in results if r.index == n and r.error is None] for n in (0, 1)}
    assert of == {0: [(0, True), (1, True), (None, False)], 1: [(0, True), (1, True), (2, True)]}
    assert [type(r.error) for r in results if r.error] == [NoStars]


def test_workers_are_kept_and_know_nothing_of_the_parent(pool):
    first = {result.value["pid"] for result in pool.run(tasks.describe, [()] * 6)}
    again = {result.value["pid"] for result in pool.run(tasks.describe, [()] * 6)}
    assert first | again <= {worker.process.pid for worker in pool._workers}
    (state,) = (result.value for result in pool.run(tasks.describe, [()]))
    assert state["threads"] == "1"
    assert not state["dagster"]
    assert not state["pytest"]


def test_a_killed_worker_fails_its_task_and_no_other(pool):
    results = {r.index: r for r in pool.run(tasks.die_if, [(n, n == 2) for n in range(6)])}
    assert sorted(results) == list(range(6))
    assert [results[n].value for n in (0, 1, 3, 4, 5)] == [0, 1, 3, 4, 5]
    assert isinstance(results[2].error, PipelineError)
    assert "SIGKILL" in str(results[2].error)
    assert "--jobs" in results[2].error.cure


def test_a_worker_killed_while_idle_is_replaced(pool):
    list(pool.run(tasks.sleep, [(0.01,), (0.01,)]))
    os.kill(pool._workers[0].process.pid, signal.SIGKILL)
    time.sleep(0.2)
    assert [r.value for r in pool.run(tasks.sleep, [(0.01,)] * 3)] == [0.01] * 3


def test_errors_come_back_whole(pool):
    stop, bug = sorted(pool.run(tasks.fail, [("stop",), ("bug",)]), key=lambda r: r.index)
    assert isinstance(stop.error, NoStars)
    assert stop.error.cure == "look elsewhere"
    assert str(bug.error) == "ZeroDivisionError: division by zero"
    assert "1 / 0" in bug.trace


def test_a_result_that_does_not_pickle_is_a_failure_with_words(pool):
    (result,) = pool.run(tasks.unpicklable, [()])
    assert isinstance(result.error, PipelineError)
    assert "pickle" in str(result.error)


def test_leaving_early_ends_the_workers():
    pool = WorkerPool(2, preload=["tasks"])
    start = time.monotonic()
    for _ in pool.run(tasks.sleep, [(0.05,), (30.0,)]):
        break
    assert time.monotonic() - start < 10
    assert pool._workers == []


def test_negative_size_is_refused():
    with pytest.raises(ValueError, match="-1"):
        WorkerPool(-1)


def test_no_task_is_no_worker():
    with WorkerPool(2) as pool:
        assert list(pool.run(tasks.sleep, [])) == []
        assert pool._workers == []
