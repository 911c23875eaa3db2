"""Commands about what changed: candidates, mark."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seechange_assets.cli.output import as_dict, check_night, print_json, print_table
from seechange_assets.cli.tables import TableFormat, write_columns
from seechange_core.errors import UserError

if TYPE_CHECKING:
    from seechange_core.chain import CandidateRow, Selection, VerdictRow

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
#: What a terminal shows of each; no line is longer than this, where the terminal is no wider.
COLUMNS = ("object", "kind", "ra", "dec", "mag", "score", "n", "note")
WIDTH = 100


class Kind(StrEnum):
    """What a candidate is, as far as is known."""

    NEW = "new"
    BRIGHTENED = "brightened"
    MOVER = "mover"
    FADED = "faded"
    VARIABLE = "variable"


class Word(StrEnum):
    """What can be said of an exposure or an object."""

    BAD = "bad"
    GOOD = "good"
    REAL = "real"
    BOGUS = "bogus"
    UNDO = "undo"


def add_to(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("candidates")(candidates)
    app.command("mark")(mark)


def candidates(
    night: Annotated[str | None, typer.Option("--night", help="Only of this night, YYYY-MM-DD.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    min_epochs: Annotated[
        int, typer.Option("--min-epochs", min=1, help="Seen in so many exposures at least, of any night.")
    ] = 2,
    unconfirmed: Annotated[
        bool,
        typer.Option("--unconfirmed", help="Also seen in fewer, if no other exposure could have shown it."),
    ] = False,
    min_hours: Annotated[
        float, typer.Option("--min-hours", min=0, help="So long from the first of them to the last.")
    ] = 0.0,
    min_score: Annotated[
        float, typer.Option("--min-score", min=0, help="Significance of the best, sigma.")
    ] = 0.0,
    bright: Annotated[float | None, typer.Option("--bright", help="Not brighter than this, mag.")] = None,
    faint: Annotated[float | None, typer.Option("--faint", help="Not fainter than this, mag.")] = None,
    kind: Annotated[list[Kind] | None, typer.Option("--kind", help="Only this kind; repeatable.")] = None,
    real: Annotated[bool, typer.Option("--real", help="Only what a person marked real.")] = False,
    with_bogus: Annotated[
        bool, typer.Option("--with-bogus", help="Also what a person marked bogus.")
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", help="Also draw their triplets, 18 a page: *.png, or one *.pdf."),
    ] = None,
    form: Annotated[TableFormat, typer.Option("--format", "-f", help="How to write it.")] = TableFormat.TABLE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
    as_json: Json = False,
) -> int:
    """List what changed, best first: new, brightened, moving, faded, variable, and last what tables know.

    One line for each thing, with its best detection; magnitudes are of the light that came or (minus) went. n
    is in how many exposures it was seen, and out of how many of these nights that could have shown it.

    Example: seechange candidates --night 2026-03-14 -n 36 --sheet tonight.png
    """
    from seechange_core import chain
    from seechange_core.settings import get_settings

    settings = get_settings()
    selection = chain.Selection(
        min_epochs=min_epochs, min_hours=min_hours, min_score=min_score, bright=bright, faint=faint,
        kinds=tuple(k.value for k in kind or Kind), real=real, with_bogus=with_bogus, unconfirmed=unconfirmed,
    )  # fmt: skip
    every = chain.all_candidates(settings, night)
    if night is not None and not every:
        check_night(night, {row.night for row in chain.exposures(settings)})
    chosen = [row for row in every if selection.takes(row)]
    rows = chosen[:limit]
    form = TableFormat.JSON if as_json else form
    if rows or form is not TableFormat.TABLE or output is not None:
        _write(rows, form, output)
    else:
        typer.echo(f"no candidates{f' in the night of {night}' if night else ''}")
    _tell_left_out(every, chosen, rows, selection, len(chain.too_dense_sections(settings, night)))
    if sheet is not None:
        from seechange_core.chain.sheets import write_sheet

        title = f"Candidates of {night}" if night else "Candidates of all nights"
        for path in write_sheet(settings, rows, sheet, title):
            typer.echo(f"drawn: {path}", err=True)
    return 0


def _tell_left_out(
    every: "list[CandidateRow]",
    chosen: "list[CandidateRow]",
    rows: "list[CandidateRow]",
    wanted: "Selection",
    n_too_dense: int,
) -> None:
    """Say on standard error how many more there are, so that nothing is missing unsaid."""
    seldom = [row for row in every if not wanted.is_confirmed(row)]
    hidden = sum(row.n_epochs >= row.n_possible for row in seldom)
    words = [f"{len(chosen) - len(rows)} more (--limit)"] if len(chosen) > len(rows) else []
    if seldom:
        words += [f"{len(seldom)} seen in fewer than {wanted.min_epochs} exposures (--min-epochs)"]
    if hidden:
        words += [f"{hidden} of these in all that could have shown them (--unconfirmed)"]
    if n_too_dense:
        sections = "section that shows" if n_too_dense == 1 else "sections that show"
        words += [f"all of {n_too_dense} {sections} too much (too_dense in `show`; quality.max_density_mpix)"]
    if words:
        typer.echo(f"left out: {', '.join(words)}", err=True)


def _write(rows: "list[CandidateRow]", form: TableFormat, output: Path | None) -> None:
    if form is TableFormat.JSON:
        if output is None:
            print_json(rows)
        else:
            import json

            from seechange_assets.cli.output import plain

            output.write_text(json.dumps(plain(rows), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    elif form is TableFormat.TABLE and output is None:
        print_table(_for_people(rows), COLUMNS)
    else:
        write_columns(_columns(rows), form, output)


def _columns(rows: "list[CandidateRow]") -> dict[str, list[Any]]:
    """Return the rows' fields as columns of plain values; the names of several objects in one text."""
    from dataclasses import fields

    from seechange_core.chain import CandidateRow

    names = [field.name for field in fields(CandidateRow)]
    found: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in names}
    found["members"] = [" ".join(value) for value in found["members"]]
    return {
        name: [str(v) for v in values] if name.endswith("_id") else values for name, values in found.items()
    }


def _for_people(rows: "list[CandidateRow]") -> list[dict[str, Any]]:
    """Write what people read; on a terminal, shortened to what its lines hold."""
    from seechange_core.chain.sheets import brightness, note, seen_in

    shown = [
        {
            "object": row.object,
            "kind": row.kind,
            "ra": format(row.ra, ".5f").rjust(9),
            "dec": format(row.dec, "+.5f").rjust(9),
            "mag": brightness(row),
            "score": format(row.score, ".1f").rjust(6),
            "n": seen_in(row),
            "note": note(row),
        }
        for row in rows
    ]
    if not sys.stdout.isatty():  # what reads a pipe has no width
        return shown
    used = [max(len(name), *(len(str(row[name])) for row in shown)) for name in COLUMNS[:-1]]
    left = max(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) - sum(used) - 2 * len(used)
    for row in shown:
        if len(row["note"]) > left:
            row["note"] = f"{row['note'][: max(left - 1, 0)]}…"
    return shown


def mark(
    target: Annotated[str, typer.Argument(help="Name of an exposure or of an object.")],
    word: Annotated[
        Word | None,
        typer.Option("--as", help="bad, good: an exposure; real, bogus: an object; undo the last."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, in words.")] = "",
    section: Annotated[
        str | None, typer.Option("--section", help="Only this section of the exposure.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who says so; default: your user name.")] = None,
    as_json: Json = False,
) -> int:
    """Say what you think of an exposure or an object; without --as, show what was said.

    What is bad is left out of references, objects, forced photometry, light curves, candidates and the
    night's transparency; what is bogus leaves the candidates. It holds whatever is processed again, and can
    be undone.

    Example: seechange mark demo_20260314_051017_sci --section 2 --as bad --reason "ghost of a bright star"

    Example: seechange mark obj2026kqbzmapfe --as bogus --reason "spike of a bright star"
    """
    from seechange_core import chain
    from seechange_core.settings import get_settings

    settings = get_settings()
    if word is None:
        if reason or section or by:
            raise UserError("what do you say of it?", cure="give --as bad, good, real, bogus or undo")
        return _show(chain.verdict_history(settings, target), target, as_json)
    marked = chain.mark(settings, target, word.value, reason, section=section, by=by)
    if as_json:
        print_json(marked)
        return 0
    place = f"{target}{f' section {section}' if section else ''}"
    holds = marked.holds
    typer.echo(f"{place}: {f'{holds.word} ({holds.said_by}: {holds.reason})' if holds else 'nothing holds'}")
    if marked.references:
        names = ", ".join(f"{region} {band}" for region, band in marked.references)
        typer.echo(f"made with it: reference {names}; `seechange reference build` makes it without")
    return 0


def _show(rows: "list[VerdictRow]", target: str, as_json: bool) -> int:
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo(f"nobody said anything of {target}")
    else:
        columns = ("section", "word", "counts", "said_by", "when", "reason")
        shown = [{**as_dict(row), "when": format(row.said_at, "%Y-%m-%d %H:%M")} for row in rows]
        any_section = any(row.section for row in rows)
        print_table(shown, [name for name in columns if any_section or name != "section"])
    return 0
