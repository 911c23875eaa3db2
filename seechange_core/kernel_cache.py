"""Where compiled kernels are kept: by the contents of all the files that hold any.

Numba compiles a kernel again when the file it stands in has changed, but not when a kernel that it calls has,
in another file. So what is kept belongs to one state of all of them.
"""

import hashlib
import os
import shutil
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_VARIABLE, _PREFIX = "NUMBA_CACHE_DIR", "kernels-"
#: What is said where none is compiled yet; each process waits for its own.
FIRST_RUN = "first run of this version: kernels are compiled once, which takes one to four minutes more"
#: Where kernels stand.
FOLDERS = ("numerics", "simulate")
#: Processes that started with older sources may still write to their folder.
_KEPT_S = 30 * 86400.0


def choose_cache(root: Path = _HERE) -> Path | None:
    """Tell numba, before it is imported, to keep kernels in a folder of these sources' own.

    Folders that sources of a month ago made go. Nothing is done if the environment names a folder already,
    or where the package cannot be written to: there its files are replaced all together, and numba sees that.

    Returns
    -------
    Path or None
        The folder, if it was chosen.
    """
    home = root / "__pycache__"
    given = os.environ.get(_VARIABLE)
    if given and not Path(given).name.startswith(_PREFIX):
        return None
    chosen = home / f"{_PREFIX}{_fingerprint(root)}"
    if not chosen.is_dir():
        try:
            chosen.mkdir(parents=True, exist_ok=True)
        except OSError:
            os.environ.pop(_VARIABLE, None)
            return None
        with suppress(FileNotFoundError):  # another process tidies up as well
            for old in home.glob(f"{_PREFIX}*"):
                if time.time() - old.stat().st_mtime > _KEPT_S:
                    shutil.rmtree(old, ignore_errors=True)
    os.environ[_VARIABLE] = str(chosen)
    return chosen


def is_cold() -> bool:
    """Tell whether kernels are still to be compiled: until a section is complete with these sources."""
    marker = _marker()
    if marker is None:
        return next((_HERE / "numerics").glob("__pycache__/*.nbi"), None) is None
    return not marker.exists()


def mark_warm() -> None:
    """Note that a section has been worked on with these sources, through the last step."""
    marker = _marker()
    if marker is not None and not marker.exists():
        with suppress(OSError):  # the next one tries again
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()


def _marker() -> Path | None:
    """Return the file that says so: its name is that of these sources, as a user's folder serves all."""
    given = os.environ.get(_VARIABLE)
    return Path(given) / f"complete-{_own_fingerprint()}" if given else None


@cache
def _own_fingerprint() -> str:
    return _fingerprint(_HERE)


def _fingerprint(root: Path) -> str:
    """Return a hash of all files that hold kernels."""
    found = hashlib.sha256()
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        content = path.read_bytes()
        if b"njit" in content:
            found.update(str(path.relative_to(root)).encode() + content)
    return found.hexdigest()[:16]
