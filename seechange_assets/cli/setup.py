"""Commands that prepare the ground: init, ui."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seechange_core.errors import PipelineError, UserError

if TYPE_CHECKING:
    from seechange_core.settings import Settings

#: Dagster ends a sensor after a minute: too short for a large file from a slow server.
SENSOR_TIME, SENSOR_S = "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS", "1800"
#: So many ports are tried for the pages beside the web UI.
PORTS_TRIED = 100
ENDING_S = 10.0
WORKSPACE = Path(__file__).resolve().parents[2] / "workspace.yaml"


def add_to(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("init")(init)
    app.command("ui")(ui)


def init() -> int:
    """Make the folders, the database and Dagster's instance; what is there already is kept.

    Example: seechange init
    """
    from seechange_assets.home import make_home
    from seechange_core.chain import check_settings
    from seechange_core.settings import get_settings
    from seechange_core.storage.migrate import upgrade

    settings = get_settings()
    check_settings(settings)
    upgrade(settings)
    home = make_home(settings)
    typer.echo(f"data root   {settings.data_root}")
    typer.echo(f"database    {_without_password(settings.database_url)}")
    typer.echo(f"dagster     {home}")
    return 0


def ui(
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="Port on 127.0.0.1.")] = 3000,
) -> int:
    """Open the web UI on this machine, with the daemon that runs what it is asked to; Ctrl-C ends both.

    Nights and full-size pictures are served beside it, on the next free port; the UI links to them.

    Example: seechange ui --port 3001
    """
    from seechange_assets.home import environment, existing_home, open_instance
    from seechange_core.chain import check_settings
    from seechange_core.settings import get_settings

    settings = get_settings()
    check_settings(settings)
    home = existing_home(settings)
    _check_port(port)
    with open_instance(settings):  # runs that a power cut left unfinished fail, and are tried once more
        pass
    quiet = "ignore:Function `dev_command`"  # its successor is for projects it scaffolded itself
    program = [sys.executable, "-W", quiet, "-m", "dagster", "dev", "-w", str(WORKSPACE)]
    # A shell may have us ignore Ctrl-C, which our child would inherit; to be asked to end, or to lose the
    # terminal, means the same.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    own = {**os.environ, **_absolute_settings(settings), **environment(settings)}
    with _pages(settings, port + 1, own) as (address, variables):
        typer.echo(f"http://127.0.0.1:{port}  (Ctrl-C to end)\n{address}  nights and full-size pictures")
        process = subprocess.Popen(
            [*program, "-h", "127.0.0.1", "-p", str(port)],
            env={SENSOR_TIME: SENSOR_S, **variables},
            cwd=home,
            start_new_session=True,  # or a terminal's Ctrl-C would reach it twice, and cut its ending short
        )
        status = _wait(process)
    if status != 0:
        raise PipelineError(f"the web UI ended with status {status}", cure="what it said is above")
    return 0


@contextmanager
def _pages(
    settings: "Settings", first_port: int, environment: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve the pages in a process of their own; give their address, and an environment that tells it."""
    with _listen(first_port) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        # Who has named an address in the settings has put something in front of this one.
        told = {} if "pages_url" in settings.model_fields_set else {"SEECHANGE_PAGES_URL": address}
        process = subprocess.Popen(
            [sys.executable, "-m", "seechange_assets.pages", str(listening.fileno())],
            env={**environment, **told},
            cwd=environment["DAGSTER_HOME"],
            stdin=subprocess.PIPE,  # its end tells the process that we are no more, however we ended
            pass_fds=[listening.fileno()],
            start_new_session=True,
        )
    try:
        yield address, {**environment, **told}
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _listen(first_port: int) -> socket.socket:
    """Listen on the first free port on this machine from one on."""
    for port in range(first_port, min(first_port + PORTS_TRIED, 65536)):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError:
            listening.close()
        else:
            listening.listen()
            return listening
    raise UserError(f"no port from {first_port} on is free", cure="seechange ui --port N with another one")


def _absolute_settings(settings: "Settings") -> dict[str, str]:
    """Return the environment in which a process in another folder has these settings."""
    roots = [str(root) for root in settings.path.data_root]
    found = {
        "SEECHANGE_PATH__DATA_ROOT": json.dumps(roots),
        "SEECHANGE_DATABASE_URL": settings.database_url,
    }
    if config := os.environ.get("SEECHANGE_CONFIG"):
        found["SEECHANGE_CONFIG"] = str(Path(config).expanduser().absolute())
    return found


def _check_port(port: int) -> None:
    """Raise if the port is taken: Dagster would go on without its web server."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"port {port} is not free ({error.strerror})", cure=f"seechange ui --port {port + 1}"
            ) from error


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process to end; when interrupted, tell it once and wait until it has ended its own.

    Returns
    -------
    int
        Its exit status, 0 if it was told to end.
    """
    told = False
    while True:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            if not told:
                process.send_signal(signal.SIGINT)
            told = True
        else:
            return 0 if told else status


def _without_password(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True)
