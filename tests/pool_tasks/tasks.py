"""What the workers of the pool's tests do; apart, because workers import it."""

import os
import resource
import signal
import sys
import time

import numpy as np

from seechange_core.errors import NoStars


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def describe():
    time.sleep(0.02)
    return {
        "pid": os.getpid(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "dagster": "dagster" in sys.modules,
        "pytest": "pytest" in sys.modules,
    }


def page_faults_of_arrays():
    """Return how many pages ten arrays as large as an image cost, one after the other, after a first one."""
    before = 0
    for n in range(11):
        plane = np.ones(10_000_000, np.float32)
        if n == 0:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        del plane
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def count_to(number):
    yield from range(number)
    if number == 3:
        raise NoStars("no stars", cure="look elsewhere")


def die_if(number, dies):
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(how):
    if how == "stop":
        raise NoStars("3 stars", cure="look elsewhere", section=1)
    return 1 / 0


def unpicklable():
    return lambda: None
