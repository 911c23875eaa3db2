"""The application: its commands, and what errors look like.

Modules that import Dagster or the numerics are imported by the commands that need them, so that
`seechange --help` answers at once.
"""

import re
import sys
import traceback
from collections.abc import Sequence

import typer

from seechange_assets.cli import (
    calibrators,
    candidates,
    catalogs,
    data,
    incoming,
    look,
    report,
    setup,
    window,
    work,
)
from seechange_core.errors import SeeChangeError

DEBUG = "--debug"
#: Base of all errors in the use of the command line; typer does not export it.
USAGE_ERROR = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="seechange",
    help="From a survey camera's raw exposures to difference images and light curves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (setup, data, incoming, catalogs, calibrators, work, look, candidates, report, window):
    module.add_to(app)


@app.callback()
def _options(
    debug: bool = typer.Option(False, DEBUG, help="Show the traceback of an error; goes with any command."),
) -> None:
    """From a survey camera's raw exposures to difference images and light curves."""


def main() -> None:
    """Run the command line of this process and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Parameters
    ----------
    arguments
        What stands after ``seechange``.

    Returns
    -------
    int
        0 only if all it was asked for was done; 1 if something failed, 2 for a wrong request.
    """
    debug = DEBUG in arguments
    rest = [argument for argument in arguments if argument != DEBUG]
    try:
        status = app(rest, prog_name="seechange", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("seechange: interrupted; what is done stays done, run it again to go on", err=True)
        return 130
    except Exception as error:  # noqa: BLE001 - every error becomes one line
        return _say(error, debug)
    return status if isinstance(status, int) else 0


def _say(error: Exception, debug: bool) -> int:
    if isinstance(error, USAGE_ERROR):
        error.show()
        return int(error.exit_code)
    if debug:
        typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if isinstance(error, SeeChangeError):
        words = str(error)
    elif type(error).__module__.startswith("sqlalchemy."):
        words = _about_database(error)
    elif isinstance(error, OSError):
        words = f"{error.filename or 'input or output'}: {error.strerror or error}"
    else:
        words = f"bug: {type(error).__name__}: {error} (run again with {DEBUG} and report it)"
    typer.echo(f"seechange: {' '.join(words.split())}", err=True)
    return 1


def _about_database(error: Exception) -> str:
    """Say in one line what the database said, and the cure where it is known."""
    said = str(getattr(error, "orig", None) or error)
    if "no such table" in said or re.search(r'relation ".*" does not exist', said):
        return "the database has no tables yet (run: seechange init)"
    if "no such column" in said or re.search(r"column .* does not exist", said):
        return "the database is of another version of SeeChange (run: seechange init)"
    return f"the database: {said} (see the setting database_url; {DEBUG} shows more)"
