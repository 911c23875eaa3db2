"""Dagster's home: where its instance lives, and how a process of ours opens it."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from seechange_core.errors import NotFoundError, UserError
from seechange_core.settings import Settings
from seechange_core.storage.engine import own_schema

CONFIG = Path(__file__).resolve().parents[1] / "dagster.yaml"
#: Added to the copy in a home: `dagster dev` without a home cannot know the folder.
STORAGE = """
run_storage:
  module: dagster._core.storage.runs
  class: SqliteRunStorage
  config:
    base_dir: {env: DAGSTER_HOME}

# The same tables as Dagster's own SQLite log, with the connections kept: 3 ms an event, not 20.
event_log_storage:
  module: seechange_assets.event_log
  class: KeptSqliteEventLog
  config:
    base_dir: {env: DAGSTER_HOME}

schedule_storage:
  module: dagster._core.storage.schedules
  class: SqliteScheduleStorage
  config:
    base_dir: {env: DAGSTER_HOME}
"""
#: The same where the survey's database is PostgreSQL: Dagster's tables are beside it, in a schema of its own.
POSTGRESQL = """
storage:
  postgres:
    postgres_url: {env: SEECHANGE_DAGSTER_URL}
"""
URL_VARIABLE, SCHEMA = "SEECHANGE_DAGSTER_URL", "dagster"
#: Says which process carries out a run, to tell later whether it still does; the UI hides such tags.
PROCESS_TAG = ".dagster/seechange_process"


def dagster_home(settings: Settings) -> Path:
    """Return the folder of the instance: ``DAGSTER_HOME`` if set, else in the data root."""
    named = os.environ.get("DAGSTER_HOME")
    return Path(named).expanduser().absolute() if named else settings.data_root / "dagster"


def make_home(settings: Settings) -> Path:
    """Create the instance's folder with its configuration; what is there already is kept.

    Raises
    ------
    NotFoundError
        If the project's ``dagster.yaml`` is missing: the package is used without its checkout.
    """
    home = dagster_home(settings)
    config = home / "dagster.yaml"
    if not config.exists():
        if not CONFIG.exists():
            raise NotFoundError(
                "no such file", cure="install from the checkout: pip install -e .", file=str(CONFIG)
            )
        home.mkdir(parents=True, exist_ok=True)
        storage = POSTGRESQL if _is_postgresql(settings) else STORAGE
        config.write_text(CONFIG.read_text(encoding="utf-8") + storage, encoding="utf-8")
    nux = home / ".nux" / "nux.yaml"
    if not nux.exists():  # the web UI then asks nobody for an address
        nux.parent.mkdir(exist_ok=True)
        nux.write_text("seen: 1\n")
    return home


def existing_home(settings: Settings) -> Path:
    """Return the instance's folder.

    Raises
    ------
    UserError
        If there is no instance yet.
    """
    home = dagster_home(settings)
    if not (home / "dagster.yaml").exists():
        raise UserError(f"no Dagster instance in {home}", cure="run: seechange init")
    return home


def environment(settings: Settings) -> dict[str, str]:
    """Return the variables that `dagster.yaml` refers to, for Dagster's own processes too."""
    found = {"DAGSTER_HOME": str(existing_home(settings))}
    if _is_postgresql(settings):
        found[URL_VARIABLE] = own_schema(settings.database_url, SCHEMA)
    return found


def _is_postgresql(settings: Settings) -> bool:
    return settings.database_url.startswith("postgresql")


@contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Open the instance that the web UI uses too.

    Raises
    ------
    UserError
        If there is none yet.
    """
    own = environment(settings)
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        with dg.DagsterInstance.from_config(own["DAGSTER_HOME"]) as instance:
            fail_abandoned_runs(instance)
            yield instance
    finally:  # the next settings of this process have a home of their own
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def process_tag() -> dict[str, str]:
    """Return the tag that names this process."""
    return {PROCESS_TAG: f"{socket.gethostname()}:{os.getpid()}"}


def fail_abandoned_runs(instance: dg.DagsterInstance) -> None:
    """Mark as failed the runs of processes of this machine that are no more: nobody else would."""
    unfinished = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]
    for run in instance.get_runs(dg.RunsFilter(statuses=unfinished)):
        host, _, pid = run.tags.get(PROCESS_TAG, "").rpartition(":")
        if host == socket.gethostname() and not _alive(int(pid)):
            instance.report_run_failed(run, message=f"process {pid} ended without finishing this run")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
