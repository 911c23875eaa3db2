"""The command that registers raw files, one by one or by folders."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seechange_assets.cli.output import Progress, print_json
from seechange_core.errors import BadDataError, IgnoredFile, NotFoundError, SeeChangeError, UserError

if TYPE_CHECKING:
    from seechange_core.products.ingest import Ingested
    from seechange_core.settings import Settings


@dataclass
class _Results:
    """What became of the files.

    Attributes
    ----------
    done
        By exposure, in the order of the files.
    refused
        File and reason.
    ignored
        Files that need no processing, with their kind, such as focus.
    skipped
        How many files of folders are no FITS.
    """

    done: "list[Ingested]" = field(default_factory=list)
    refused: list[tuple[Path, SeeChangeError]] = field(default_factory=list)
    ignored: list[tuple[Path, str]] = field(default_factory=list)
    skipped: int = 0


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Raw files, or folders to search for them.")],
    instrument: Annotated[
        str | None, typer.Option("--instrument", help="Name of the instrument; default: told from the files.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Register raw exposures: science, bias, dark and flats. What cannot be used is refused by name.

    Of a folder, all FITS files are taken, also those in its folders. Files that belong together (image, mask
    and weight; one file per CCD) are one exposure, whichever of them are given. What is known already is
    read again: a correction of the instrument's settings reaches the exposures in this way. Focus, pointing
    and test files are passed over: image_types in the instrument's settings can say otherwise.

    Example: seechange ingest demo/survey/raw
    """
    from seechange_core.chain import check_settings
    from seechange_core.settings import get_settings

    settings = get_settings()
    check_settings(settings)
    results = _Results()
    # What a shell makes of a path with '..' is meant; ingest itself refuses names that climb.
    files = _files([Path(os.path.abspath(path)) for path in paths], results)  # noqa: PTH100 - not resolve()
    try:
        _register(files, instrument, settings, results)
    except BaseException:  # also if a disk is full or somebody ends it: what is registered shall be seen
        try:
            _show(results, settings)
        except Exception as error:  # noqa: BLE001 - what ended it must be told, not this
            typer.echo(f"the web UI was not told of what is registered: {error}", err=True)
        raise
    _show(results, settings)
    if as_json:
        _print_json(results)
    else:
        typer.echo(_summary(results))
    for file, error in results.refused:
        typer.echo(f"refused: {_place(file, error)}", err=True)
    return 1 if results.refused else 0


def _register(files: Sequence[Path], instrument: str | None, settings: "Settings", results: _Results) -> None:
    from seechange_core.products import ingest as core
    from seechange_core.settings import use_settings

    covered: set[Path] = set()
    with Progress("file") as progress, use_settings(settings):
        progress.expect(len(files))
        for file in files:
            if file in covered:
                progress.step(f"{file.name}: with the file it belongs to")
                continue
            try:
                raw = core.find(file, instrument)
                covered.update(raw.paths)
                result = core.register(raw, settings)
            except IgnoredFile as error:
                results.ignored.append((file, error.kind))
                progress.step(f"passed over: {file.name}: {error.kind}")
            except (BadDataError, UserError) as error:
                results.refused.append((file, error))
                progress.step(f"refused: {file.name}")
            else:
                results.done.append(result)
                progress.step(_line(result))


def _show(results: _Results, settings: "Settings") -> None:
    """Tell the web UI of what was registered."""
    from seechange_assets.survey import register_exposures

    rows = [result.exposure for result in results.done]
    science = [row.name for row in rows if row.type == "science"]
    register_exposures(science, list(dict.fromkeys(row.instrument for row in rows)), settings)


def _line(result: "Ingested") -> str:
    """Say what became of an exposure."""
    from seechange_core.products.ingest import describe_changes

    words = f"{result.exposure.name}: {result.exposure.type}, {result.outcome}"
    if result.changes:
        words += f": {describe_changes(result.changes)}"
    if lost := result.exposure.unreadable_sections:
        first, *others = lost
        more = f" and {len(others)} more" if others else ""
        words += f"; without section {first}{more}: {lost[first]}"
    return words


def _files(paths: Sequence[Path], results: _Results) -> list[Path]:
    """List raw files, those in folders in the order of their names."""
    from seechange_core.storage.listing import looks_like_fits, visible_files

    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = [file for file in visible_files(path) if file.is_file()]
        fits = [file for file in inside if looks_like_fits(file)]
        if not fits:
            what = f"none of its {len(inside)} files is FITS" if inside else "the folder has no files"
            raise NotFoundError(what, cure="name the folder of the raw files", file=str(path))
        results.skipped += len(inside) - len(fits)
        files += fits
    return list(dict.fromkeys(files))


def _summary(results: _Results) -> str:
    """Say in one line what there is now, by type, and how much of it is new."""
    types = Counter(result.exposure.type for result in results.done)
    outcomes = Counter(str(result.outcome) for result in results.done)
    number = len(results.done)
    words = [f"{number} exposure{'' if number == 1 else 's'}" if number else "no exposures"]
    if types:
        words[0] += ": " + ", ".join(f"{count} {kind}" for kind, count in types.items())
    labels = {"known": "known already", "changed": "known and read anew", "completed": "completed"}
    if old := ", ".join(f"{outcomes[key]} {label}" for key, label in labels.items() if outcomes[key]):
        words.append(old)
    if lacking := sum(bool(result.exposure.unreadable_sections) for result in results.done):
        words.append(f"{lacking} without some sections")
    if results.refused:
        words.append(f"{len(results.refused)} refused")
    if results.ignored:
        kinds = dict.fromkeys(kind for _, kind in results.ignored)
        words.append(f"{len(results.ignored)} passed over ({', '.join(kinds)})")
    if results.skipped:
        words.append(f"{results.skipped} other file{'' if results.skipped == 1 else 's'} passed over")
    return "; ".join(words)


def _print_json(results: _Results) -> None:
    refused = [{"file": str(f), "refused": str(e), "reason": e.reason} for f, e in results.refused]
    done = [
        {
            **{name: getattr(result.exposure, name) for name in ("name", "type", "instrument", "night")},
            "outcome": result.outcome,
            "changes": {name: list(values) for name, values in result.changes.items()},
            "unreadable_sections": result.exposure.unreadable_sections,
        }
        for result in results.done
    ]
    ignored = [{"file": str(file), "ignored": kind} for file, kind in results.ignored]
    print_json(refused + ignored + done)


def _place(file: Path, error: SeeChangeError) -> str:
    return str(error) if error.file else f"{file}: {error}"
