"""Commands about calibrators: calibrator add, list and mark."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seechange_assets.cli.output import as_dict, print_json, print_table
from seechange_core.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from seechange_core.chain.calibrators import CalibratorRow
    from seechange_core.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

calibrators = typer.Typer(
    help="Calibrators of all kinds: those built here, and those made elsewhere.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Kind(StrEnum):
    """What a calibrator is for."""

    CROSSTALK = "crosstalk"
    LINEARITY = "linearity"
    BIAS = "bias"
    DARK = "dark"
    FLAT = "flat"
    TWILIGHT_FLAT = "twilight_flat"
    FRINGE = "fringe"
    ILLUMINATION = "illumination"
    BAD_PIXELS = "bad_pixels"


def add_to(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(calibrators, name="calibrator")


@calibrators.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="FITS images, or for linearity and crosstalk a table.")],
    kind: Annotated[Kind, typer.Option("--kind", help="What it is.")],
    instrument: Annotated[
        str | None,
        typer.Option("--instrument", help="Name of the instrument; needed if several are configured."),
    ] = None,
    section: Annotated[
        str | None, typer.Option("--section", help="Which section, if the file does not say it.")
    ] = None,
    band: Annotated[
        str, typer.Option("--filter", help="Filter of a flat, fringe or illumination; e.g. r.")
    ] = "",
    valid_from: Annotated[
        str | None, typer.Option("--valid-from", help="It serves exposures from this date (UTC) on.")
    ] = None,
    valid_to: Annotated[
        str | None, typer.Option("--valid-to", help="... and until before this date.")
    ] = None,
    date: Annotated[
        str | None,
        typer.Option("--date", help="The date that counts as its own; default: --valid-from, or now."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Supply a calibrator made elsewhere; of several that are valid, the nearest in time is used.

    Images: FITS, an extension for each section (EXTNAME = its id), or one image and --section; flats and
    illuminations relative, fringes per electron of sky, bias in electrons, dark in electrons per second,
    bad_pixels not 0 where bad; <section>_VARIANCE and <section>_FLAGS may go with them. Tables: linearity
    with columns section, amplifier, measured_adu, true_adu; crosstalk with section, victim, source,
    coefficient. The same file added again changes the dates of the calibrator it is already.

    Example: seechange calibrator add crosstalk.ecsv --kind crosstalk --valid-from 2026-01-01
    """
    from seechange_core.products.supply import supply
    from seechange_core.settings import get_settings

    rows = supply(
        file,
        kind.value,
        instrument or _only_instrument(get_settings()),
        section=section,
        band=band,
        valid_from=valid_from,
        valid_to=valid_to,
        date=date,
    )
    if as_json:
        print_json(
            [{"kind": r.kind, "section": r.section_id, "filter": r.filter, "file": r.file} for r in rows]
        )
    else:
        what = f"{kind.value}{f' in {band}' if band else ''} of {rows[0].instrument}"
        typer.echo(f"{what}: {len(rows)} section{'' if len(rows) == 1 else 's'}")
    return 0


@calibrators.command("list")
def list_them(
    kind: Annotated[list[Kind] | None, typer.Option("--kind", help="Only this kind; repeatable.")] = None,
    section: Annotated[
        list[str] | None, typer.Option("--section", help="Only of this section; repeatable.")
    ] = None,
    band: Annotated[str | None, typer.Option("--filter", help="Only of this filter.")] = None,
    instrument: Annotated[str | None, typer.Option("--instrument", help="Only of this instrument.")] = None,
    frames: Annotated[
        bool, typer.Option("--frames", help="Show the frames each was made from, and why some were left out.")
    ] = False,
    as_json: Json = False,
) -> int:
    """List the calibrators there are: validity, origin, frames used and rejected.

    A version is the start of the provenance id; those of other settings than the present ones are marked.

    Example: seechange calibrator list --kind flat --section N4 --frames
    """
    from seechange_core.chain.calibrators import count_calibrators, list_calibrators
    from seechange_core.settings import get_settings

    settings = get_settings()
    rows = list_calibrators(
        settings,
        instrument=instrument,
        kinds=[one.value for one in kind or ()],
        sections=section or (),
        band=band,
        with_frames=frames,
    )
    _check_names(settings, rows, instrument, section or ())
    if as_json:
        print_json([_plain(row, frames) for row in rows])
    elif not rows and (number := count_calibrators(settings)):
        typer.echo(f"none of {number} calibrators match")
    elif not rows:
        typer.echo("no calibrators yet (seechange ingest calibration frames, or seechange calibrator add)")
    elif frames:
        columns = ["kind", "section", "filter", "night", "frame", "verdict"]
        print_table([line for row in rows for line in _frame_lines(row)], columns)
    else:
        print_table([{**as_dict(row), "version": _version(row)} for row in rows], _columns(rows))
    return 0


class Verdict(StrEnum):
    """What a person says of a calibrator."""

    BAD = "bad"
    GOOD = "good"


@calibrators.command("mark")
def mark(
    verdict: Annotated[Verdict, typer.Argument(help="bad: not to be used any more; good: as before.")],
    kind: Annotated[Kind, typer.Option("--kind", help="What it is.")],
    night: Annotated[
        str | None, typer.Option("--night", help="Of which night, as the list shows it.")
    ] = None,
    file: Annotated[str | None, typer.Option("--file", help="Name of the file it was added from.")] = None,
    section: Annotated[
        list[str] | None, typer.Option("--section", help="Only of this section; repeatable.")
    ] = None,
    band: Annotated[str | None, typer.Option("--filter", help="Only of this filter.")] = None,
    instrument: Annotated[str | None, typer.Option("--instrument", help="Only of this instrument.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, in a few words.")] = "",
) -> int:
    """Call calibrators bad, so that they are no longer used, or good again.

    What was made with them is made again, without them, when it is processed next.

    Example: seechange calibrator mark bad --kind linearity --file old.ecsv --reason "wrong units"
    """
    from seechange_core.chain import calibrators as core
    from seechange_core.settings import get_settings

    if verdict is Verdict.BAD and not reason:
        raise UserError("a bad calibrator needs a reason", cure="give --reason")
    number = core.mark(
        get_settings(),
        kind.value,
        reason if verdict is Verdict.BAD else None,
        night=night,
        source=file,
        instrument=instrument,
        sections=section or (),
        band=band,
    )
    typer.echo(f"{number} {kind.value} marked {verdict.value}")
    return 0


def _only_instrument(settings: "Settings") -> str:
    """Return the instrument in use, if there is no doubt which one is meant."""
    from seechange_assets.definitions import instruments_of

    first, *others = instruments_of(settings)
    if others:
        raise UserError(
            "it is not said which instrument it is for",
            cure=f"give --instrument: {', '.join((first, *others))}",
        )
    return first


def _check_names(
    settings: "Settings", found: Sequence["CalibratorRow"], instrument: str | None, sections: Sequence[str]
) -> None:
    """Refuse names of an instrument or sections that exist neither in the settings nor in what was found."""
    from seechange_assets.definitions import instruments_of, sections_of

    known = instruments_of(settings)
    if instrument is not None and instrument not in (*known, *(row.instrument for row in found)):
        raise NotFoundError(
            f"instrument {instrument!r} is not among those in use", cure=f"these are: {', '.join(known)}"
        )
    asked = known if instrument is None else [name for name in known if name == instrument]
    there = {name: sections_of(name) for name in asked}
    all_sections = {row.section for row in found}.union(*there.values())
    for section in sections:
        if section not in all_sections:
            told = "; ".join(f"those of {name}: {', '.join(own)}" for name, own in there.items())
            raise NotFoundError(f"there is no section {section!r}", cure=told or "see calibrator list")


def _columns(rows: Sequence["CalibratorRow"]) -> list[str]:
    """Name the columns to show: the instrument only where there are several."""
    several = len({row.instrument for row in rows}) > 1
    return [
        *(["instrument"] if several else []),
        *("kind", "section", "filter", "night", "valid_from", "valid_to"),
        *("origin", "n_frames", "n_rejected", "version"),
    ]


def _version(row: "CalibratorRow") -> str:
    note = " bad" if row.is_bad else "" if row.current else " other settings"
    return f"{row.source or row.provenance[:8]}{note}"


def _frame_lines(row: "CalibratorRow") -> list[dict[str, Any]]:
    frames = row.frames or ((row.source or "-", "supplied" if row.origin == "supplied" else "-"),)
    return [{**as_dict(row), "frame": name, "verdict": verdict} for name, verdict in frames]


def _plain(row: "CalibratorRow", with_frames: bool) -> dict[str, Any]:
    told = as_dict(row)
    frames = told.pop("frames")
    if with_frames:
        told["frames"] = [{"frame": name, "verdict": verdict} for name, verdict in frames]
    return told
