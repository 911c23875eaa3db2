"""What the workers of the pool's tests do; apart, because workers import it."""

import os
import signal
import sys
import time

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
