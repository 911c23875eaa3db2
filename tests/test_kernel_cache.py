"""Kernels compiled from other sources are not used."""

import os
import subprocess
import sys
import time
from pathlib import Path

import seechange_core
from seechange_core.kernel_cache import FOLDERS, choose_cache, is_cold, mark_warm

ROOT = Path(seechange_core.__file__).parent
CALLEE = "from numba import njit\n\n@njit(cache=True)\ndef callee(x):\n    return x + {}\n"
CALLER = (
    "from numba import njit\nfrom numerics.callee import callee\n\n"
    "@njit(cache=True)\ndef caller(x):\n    return 10 * callee(x)\n"
)


def write(root, value):
    for folder in FOLDERS:
        (root / folder).mkdir(exist_ok=True)
    (root / "numerics" / "callee.py").write_text(CALLEE.format(value))
    (root / "numerics" / "caller.py").write_text(CALLER)


def called(root):
    """Call the kernel in a process of its own, as a package in `root` would."""
    code = (
        "from pathlib import Path; from seechange_core.kernel_cache import choose_cache; "
        "choose_cache(Path('.')); from numerics.caller import caller; print(caller(1))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment["PYTHONPATH"] = os.pathsep.join([str(root), str(ROOT.parent)])
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    return int(found.stdout)


def test_a_change_of_what_a_kernel_calls_is_seen(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    write(tmp_path, 1)
    choose_cache(tmp_path)
    assert called(tmp_path) == 20
    write(tmp_path, 2)
    choose_cache(tmp_path)
    assert called(tmp_path) == 30
    write(tmp_path, 1)
    assert called(tmp_path) == 20
    assert len(list((tmp_path / "__pycache__").glob("kernels-*/**/*.nbi"))) == 4


def test_it_is_a_first_run_until_a_section_is_complete(tmp_path, monkeypatch):
    """Neither kernels of a run that was ended early nor those of other sources in a user's folder count."""
    own = tmp_path / "own"
    kernels = own / "numerics_abc"
    kernels.mkdir(parents=True)
    (kernels / "stack._add-1.py311.nbi").touch()
    (own / "complete-0123456789abcdef").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(own))
    assert is_cold()
    mark_warm()
    assert not is_cold()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "not there yet"))
    assert is_cold()
    mark_warm()
    assert not is_cold()


def test_the_users_own_folder_is_left_alone(tmp_path, monkeypatch):
    write(tmp_path, 1)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere")
    assert choose_cache(tmp_path) is None
    assert os.environ["NUMBA_CACHE_DIR"] == "/somewhere"


def test_a_folder_of_a_month_ago_goes_and_a_newer_one_stays(tmp_path, monkeypatch):
    write(tmp_path, 1)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    old, newer = (tmp_path / "__pycache__" / f"kernels-{name}" for name in ("old", "newer"))
    for folder in (old, newer):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 40 * 86400,) * 2)
    assert choose_cache(tmp_path).is_dir()
    assert not old.exists()
    assert newer.exists()


def test_every_kernel_stands_where_it_is_looked_for():
    holding = [p for p in ROOT.rglob("*.py") if "njit(" in p.read_text() and p.name != "kernel_cache.py"]
    assert holding
    assert {p.relative_to(ROOT).parts[0] for p in holding} <= set(FOLDERS)
