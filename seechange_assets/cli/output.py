"""What commands print: tables for people, JSON for programs, and progress on standard error."""

import dataclasses
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer
from tqdm import tqdm

from seechange_core.errors import UserError

if TYPE_CHECKING:  # the chain imports all numerics, which `--help` can do without
    from seechange_core.chain import StepReport


def as_dict(row: Any) -> dict[str, Any]:
    """Turn a row (dataclass, named tuple, mapping) into plain values."""
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return dict(row._asdict() if hasattr(row, "_asdict") else row)


def print_json(value: Any) -> None:
    """Print a value as JSON; what is not a number becomes null."""
    typer.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print some columns of rows, aligned."""
    if not rows:
        return
    cells = [list(columns), *([_cell(name, row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [all(_is_number(row.get(name)) for row in rows) for name in columns]
    for line in cells:
        padded = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True))
        typer.echo("  ".join(padded).rstrip())


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return format(value, FORMATS.get(name, ".4g")) if math.isfinite(value) else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def plain(value: Any) -> Any:
    """Reduce to what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(as_dict(value))
    item = getattr(value, "item", None)  # a numpy scalar
    return plain(item()) if callable(item) else str(value)


#: How numbers are printed for people where four digits are not enough.
FORMATS = {"ra": ".6f", "dec": ".6f", "mjd_mid": ".5f", "mag": ".3f", "mag_err": ".3f"}
#: Steps that make master frames, not products of a section.
MASTERS = ("bias", "dark", "flat", "twilight_flat")
#: Verdict on a frame that went into a master.
USED = "used"
COUNTED = ("done", "loaded", "stopped", "failed")
#: Of the places where the same thing happened.
PLACES_SHOWN = 4


class Progress:
    """A bar on a terminal, plain lines elsewhere; always on standard error.

    Parameters
    ----------
    unit
        What a task is: ``section``, ``master``, ``reference``, ``file``.
    """

    def __init__(self, unit: str) -> None:
        self._total = 0
        self._done = 0
        self._counts: dict[str, int] = {}
        self._bar = tqdm(
            total=0, unit=unit, file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def expect(self, tasks: int, in_all: bool = False) -> None:
        """Add to the number of tasks to come, or state how many there are in all."""
        self._total = tasks if in_all else self._total + tasks
        self._bar.total = self._total
        self._bar.refresh()

    def hear(self, reports: "Sequence[StepReport]") -> None:
        """Count one finished task; a watcher of `Runner`."""
        if not reports:
            return
        last = deciding(reports)
        self._counts[last.outcome] = self._counts.get(last.outcome, 0) + 1
        seconds = sum(report.seconds for report in reports)
        master = f"{last.step} of " if last.step in MASTERS else ""
        place = f"{master}{last.exposure} {last.section}"
        words = f"{place}: {last.outcome} in {seconds:.1f} s"
        self.step(
            words if last.outcome.has_product else f"{place}: {last.outcome} at {last.step}: {_message(last)}"
        )

    def step(self, words: str) -> None:
        """Count one task, with a line about it where there is no bar."""
        self._done += 1
        if self._bar.disable:
            typer.echo(f"[{self._done}/{self._total}] {words}", err=True)
        else:
            self._bar.set_postfix(self._counts, refresh=False)
            self._bar.update()

    def say(self, words: str) -> None:
        """Print a line that is about no single task."""
        self._bar.write(words, file=sys.stderr)


def deciding(reports: "Sequence[StepReport]") -> "StepReport":
    """Choose the report that tells a section's fate: where it stopped or failed, or the last one."""
    ended = (r for r in reports if r.outcome in ("stopped", "failed"))
    return next(ended, reports[-1])


def summarize(reports: Iterable["StepReport"], unit: str, as_json: bool) -> int:
    """Print what came of a command's tasks.

    Parameters
    ----------
    reports
        Of every step and section, and of masters.
    unit
        What a task is (but for masters), in the singular.
    as_json
        Print all reports as JSON instead.

    Returns
    -------
    int
        The exit status: 1 if anything failed.
    """
    reports = list(reports)
    tasks: dict[tuple[str, str, str], list[StepReport]] = {}
    for report in reports:
        master = report.step if report.step in MASTERS else ""
        tasks.setdefault((master, report.exposure, report.section), []).append(report)
    if as_json:
        print_json([_without_preview(report) for report in reports])
    else:
        _print_counts("master", [deciding(group) for (master, *_), group in tasks.items() if master])
        _print_counts(unit, [deciding(group) for (master, *_), group in tasks.items() if not master])
        if not tasks:
            typer.echo("nothing to do (seechange show says what there is)")
    fates = [deciding(group) for group in tasks.values()]
    if not as_json:
        _print_left_out([fate for fate in fates if fate.outcome == "done"])
    failed = [fate for fate in fates if fate.outcome == "failed"]
    if not as_json:
        _print_reasons([fate for fate in fates if fate.outcome == "stopped"], err=False)
    _print_reasons(failed, err=True)
    return 1 if failed else 0


def _print_counts(unit: str, fates: Sequence["StepReport"]) -> None:
    counts = Counter(fate.outcome.value for fate in fates)
    if counts:
        words = ", ".join(f"{counts[name]} {name}" for name in COUNTED if counts[name])
        typer.echo(f"{len(fates)} {unit}{'' if len(fates) == 1 else 's'}: {words}")


def _print_reasons(fates: Sequence["StepReport"], err: bool) -> None:
    """Print why tasks ended, once for all that ended alike."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for fate in fates:
        alike.setdefault((fate.outcome, fate.step, _message(fate)), []).append(
            f"{fate.exposure} {fate.section}"
        )
    for (outcome, step, message), places in alike.items():
        more = f" and {len(places) - PLACES_SHOWN} more" if len(places) > PLACES_SHOWN else ""
        where = ", ".join(places[:PLACES_SHOWN])
        typer.echo(f"{outcome}: {where}{more}: {step}: {message}", err=err)


def _print_left_out(made: Sequence["StepReport"]) -> None:
    """Print which frames did not go into masters and references just made, and why.

    Each once for all sections; many that were left out for like reasons, all in one line.
    """
    verdicts: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for product in made:
        for row in product.table:
            if (verdict := row.get("verdict", USED)) != USED:
                # Reasons are alike if but their figures differ.
                alike = product.step, product.exposure, re.split(r"\d", verdict)[0]
                verdicts.setdefault(alike, {}).setdefault(row["frame"], []).append(verdict)
    for (step, exposure, _), frames in verdicts.items():
        if len(frames) > PLACES_SHOWN:
            where, more = ", ".join(list(frames)[:PLACES_SHOWN]), len(frames) - PLACES_SHOWN
            why = next(iter(frames.values()))[0]
            typer.echo(f"left out: {where} and {more} more of {step} {exposure}: {why} (the first of them)")
            continue
        for frame, own in frames.items():
            where = f"{len(own)} section{'' if len(own) == 1 else 's'}"
            typer.echo(f"left out: {frame} of {step} {exposure}, {where}: {own[0]}")


def _message(report: "StepReport") -> str:
    """Return a report's message without the place, which stands before it."""
    place = f"exposure {report.exposure}, section {report.section}: "
    return report.message.removeprefix(place)


def _without_preview(report: "StepReport") -> dict[str, Any]:
    return {name: value for name, value in as_dict(report).items() if name != "preview"}


def check_date(night: str, option: str = "--night") -> None:
    """Refuse what is no date."""
    try:
        date.fromisoformat(night)
    except ValueError:
        raise UserError(f"{option} {night} is no date", cure="write YYYY-MM-DD") from None


def check_night(night: str, known: set[str]) -> None:
    """Refuse what is no date; of a night without exposures, say on standard error which nights there are."""
    check_date(night)
    if night not in known:
        last = ", ".join(sorted(known)[-3:])
        there = f"the last nights are {last}" if last else "there are none yet (seechange ingest)"
        typer.echo(f"no exposures are of the night of {night}; {there}", err=True)
