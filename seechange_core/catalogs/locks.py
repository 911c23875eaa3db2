"""Locks of the operating system, which end with the worker that holds them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file of this name, which keeps out other processes and other threads, and goes afterwards."""
    with _held(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: no other one of this name can go instead


def _held(path: Path) -> IO[str]:
    """Open and lock a file. Who waited for one that is gone by then holds nothing, and starts again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("w")
        with suppress(OSError):  # no locks on this file system: the same work twice does no harm
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
