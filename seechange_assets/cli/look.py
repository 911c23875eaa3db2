"""Commands that show what there is: show, lightcurve."""

# ruff: noqa: PLC0415 - commands import what they need themselves, so that --help answers at once
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seechange_assets.cli.output import as_dict, print_json, print_table
from seechange_assets.cli.tables import TableFormat, write_table
from seechange_core.errors import UserError

if TYPE_CHECKING:
    from seechange_core.chain import LeftOut, LightCurveTable
    from seechange_core.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
#: Quality figures in the order people look for them; the first five a step has are shown.
FIGURES = (
    *("fwhm_pix", "background_e", "n_sources", "n_stars", "rms_mas", "n_matched", "zp", "zp_err"),
    *("limiting_mag", "cloud_mag", "score_rms", "n_detections", "n_good", "n_objects"),
)
FIGURES_SHOWN = 5
DRAWINGS = (".png", ".pdf", ".svg")


class Photometry(StrEnum):
    """What fluxes were forced on."""

    IMAGE = "image"
    DIFFERENCE = "difference"


def add_to(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("show")(show)
    app.command("lightcurve")(lightcurve)


def show(
    exposure: Annotated[
        list[str] | None,
        typer.Argument(help="Names of exposures, for every step; default: an overview."),
    ] = None,
    outdated: Annotated[
        bool, typer.Option("--outdated", help="Only what the present settings would make differently.")
    ] = False,
    versions: Annotated[
        bool, typer.Option("--versions", help="What made each step, and what changed in the settings since.")
    ] = False,
    calibrators: Annotated[
        bool, typer.Option("--calibrators", help="Which calibrators the present images were made with.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show what exists: outcomes, quality flags and figures, versions, and what is outdated.

    A version is the start of the provenance id; those of other settings than the present ones are marked.
    `seechange process --outdated` makes again what is outdated.

    Example: seechange show demo_20250101_033000_sci --versions
    """
    from seechange_core import chain
    from seechange_core.settings import get_settings

    if calibrators + outdated + versions > 1:
        raise UserError(
            "--outdated, --versions and --calibrators are answers to different questions",
            cure="ask for --calibrators or --outdated or --versions",
        )
    settings = get_settings()
    known = chain.exposures(settings, exposure or None, with_bad=True)
    if calibrators:
        return _show_calibrators(settings, exposure or None, as_json)
    if versions:
        return _show_versions(settings, [(row.name, row.instrument) for row in known], as_json)
    if outdated and not exposure:
        return _show_outdated(settings, as_json)
    rows = [as_dict(row) for row in chain.status(settings, exposure or None)]
    if outdated:
        rows = [row for row in rows if row["outdated"]]
    if as_json:
        print_json(rows)
    elif not known:
        typer.echo("no exposures yet (seechange ingest)")
    elif outdated and not rows:
        typer.echo("nothing is outdated")
    elif exposure or outdated:
        columns = ("exposure", "section", "step", "status", "version", "quality", "figures")
        shown = [
            {**row, "version": _version(row), "figures": _figures(row), "quality": " ".join(row["quality"])}
            for row in rows
        ]
        any_flags = any(row["quality"] for row in rows)
        print_table(shown, [name for name in columns if any_flags or name != "quality"])
        _tell_verdicts(settings, exposure)
    else:
        last = chain.STEPS[-1].name
        by_name: dict[str, list[dict[str, Any]]] = {row.name: [] for row in known}
        for row in rows:
            by_name.setdefault(row["exposure"], []).append(row)
        print_table(
            [_overview(name, group, last) for name, group in by_name.items()], ["exposure", "sections"]
        )
        _tell_verdicts(settings, None)
    return 0


def _show_outdated(settings: "Settings", as_json: bool) -> int:
    """List the exposures that are outdated, and the first step that would be made differently."""
    from seechange_assets.definitions import instruments_of
    from seechange_core import chain

    rows = [
        as_dict(row) for name in instruments_of(settings) for row in chain.outdated_exposures(settings, name)
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table([{**row, "exposure": row["name"]} for row in rows], ["exposure", "night", "step"])
        counts = Counter(row["step"] for row in rows)
        typer.echo("; ".join(f"{n} from {step} on" for step, n in counts.items()), err=True)
    else:
        typer.echo("nothing is outdated")
    return 0


def _show_versions(settings: "Settings", exposures: Sequence[tuple[str, str]], as_json: bool) -> int:
    """Say of each step of exposures which versions there are, and what the settings have changed since."""
    from seechange_core import chain

    rows = [
        {"exposure": name, **as_dict(row)}
        for name, instrument in exposures
        for row in chain.versions(settings, name, instrument)
    ]
    if as_json:
        print_json(rows)
        return 0
    for row in rows:
        row["version"] = row["provenance"][:8]
        row["since"] = "present" if row["is_present"] else "; ".join(row["changes"])
    print_table(rows, ["exposure", "step", "version", "code_version", "sections", "since"])
    return 0


def _tell_verdicts(settings: "Settings", exposures: Sequence[str] | None) -> None:
    """Print what people said of exposures and sections, where it holds."""
    from seechange_core import chain

    for row in chain.standing_verdicts(settings):
        if exposures is None or row.target in exposures:
            place = f"{row.target}{f' section {row.section}' if row.section else ''}"
            typer.echo(f"marked {row.word}: {place}: {row.reason} ({row.said_by}, {row.said_at:%Y-%m-%d})")


def _show_calibrators(settings: "Settings", exposures: list[str] | None, as_json: bool) -> int:
    from seechange_core.chain.calibrators import calibrators_used

    shown = ("kind", "filter", "origin", "night", "n_frames", "n_rejected", "file")
    rows = [
        {
            **{name: getattr(used, name) for name in ("exposure", "section", "step", "days_away")},
            **{name: getattr(used.calibrator, name) for name in shown},
        }
        for used in calibrators_used(settings, exposures)
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, [name for name in rows[0] if name != "file"])
    else:
        typer.echo("no image was made with calibrators yet (seechange process)")
    return 0


def lightcurve(
    name: Annotated[str | None, typer.Option("--object", help="Name of an object.")] = None,
    ra: Annotated[
        float | None, typer.Option("--ra", min=0, max=360, help="Right ascension, ICRS deg.")
    ] = None,
    dec: Annotated[
        float | None, typer.Option("--dec", min=-90, max=90, help="Declination, ICRS deg.")
    ] = None,
    radius_arcsec: Annotated[
        float, typer.Option("--radius-arcsec", min=0, help="An object this near to ra and dec is meant.")
    ] = 1.0,
    on: Annotated[
        Photometry, typer.Option("--on", help="Fluxes forced on the images or on the differences.")
    ] = Photometry.DIFFERENCE,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Tie the epochs together by the stars around.")
    ] = False,
    quiet_before: Annotated[
        float | None,
        typer.Option(
            "--quiet-before", help="MJD before which it did not shine; default: first seen to be brighter."
        ),
    ] = None,
    kind: Annotated[TableFormat, typer.Option("--format", "-f", help="How to write it.")] = TableFormat.TABLE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Also draw it into this file: PNG, PDF, SVG.")
    ] = None,
) -> int:
    """Print the light curve of an object, or of any place on the sky: every epoch, upper limits too.

    On differences, a place within --radius-arcsec of a known object has that object's light curve; on
    images, fluxes are forced at the place itself. --ensemble compares with the steady stars around, on
    the images, in place of each image's own catalog zero point.

    Total magnitudes are of all light at the place: the difference and the reference it is from. Where the
    reference holds exposures in which the object shone already, what it had there is added to its flux.

    Example: seechange lightcurve --ra 150.1134 --dec 2.2057 --format csv --plot sn.png
    """
    from seechange_core import chain
    from seechange_core.settings import get_settings

    if (name is None) == (ra is None) or (ra is None) != (dec is None):
        raise UserError("lightcurve needs one target", cure="give --object NAME, or --ra and --dec")
    if plot is not None and plot.suffix.lower() not in DRAWINGS:
        raise UserError(f"cannot draw into {plot.name}", cure=f"name it *{', *'.join(DRAWINGS)}")
    settings = get_settings()
    target = _Target(name, ra, dec)
    if name is None and on is Photometry.DIFFERENCE:
        target = _nearest(settings, target, radius_arcsec)
    curve = _curve(settings, target, on, quiet_before)
    if not len(curve):
        typer.echo(
            f"{target.label}: no flux was forced there (process does, but for what is marked bogus)",
            err=True,
        )
    missing = chain.left_out(settings, *target.place(settings), curve, on.value)
    notes = [
        *_note_on_bogus(settings, target, on),
        *chain.notes_on_references(curve),
        *_notes_on_epochs(curve, missing),
    ]
    if ensemble:
        curve = _on_ensemble(settings, target, curve, on)
    if kind is not TableFormat.TABLE:  # there all notes stand below the table
        for line in notes:
            typer.echo(line, err=True)
    meta = {
        "target": target.label,
        "fluxes_forced_on": on.value,
        "left_out": {part.reason: list(part.epochs) for part in missing},
        "notes": [*notes, *_note_on_limits(curve)],
    }
    write_table(curve, kind, output, meta)
    if plot is not None:
        _draw(curve, target.label, plot, "".join(_notes_on_epochs(curve, missing)))
    return 0


def _notes_on_epochs(curve: "LightCurveTable", missing: Sequence["LeftOut"]) -> list[str]:
    """Say how many epochs have no flux and why."""
    from numpy import isfinite

    n_missing = sum(len(part.epochs) for part in missing)
    why = ", ".join(f"{len(part.epochs)} {part.reason}" for part in missing)
    n = n_missing + int(isfinite(curve.flux).sum())
    return [f"{n_missing} of {n} epochs have no flux: {why}"] if missing else []


def _note_on_bogus(settings: "Settings", target: "_Target", on: Photometry) -> list[str]:
    """Say that an object is taken for bogus, and what that does to its light curve."""
    from seechange_core import chain

    if target.name is None or on is Photometry.IMAGE:
        return []
    found = chain.object_named(settings, target.name)
    if not found.is_bad:
        return []
    return [
        f"{found.name} is marked bogus ({found.bad_reason}): no new fluxes are forced until that is taken "
        f"back (seechange mark {found.name} --as undo --reason WHY) and a section that covers it is "
        "processed again"
    ]


def _note_on_limits(curve: "LightCurveTable") -> list[str]:
    """Say which limits are told."""
    from numpy import isfinite

    limits = "limiting_mag is that of 5 errors of the flux: the limit at this place, known beforehand"
    searched = "; depth_mag is what the search, which knew of no place, finds there in half of all cases"
    return [limits + searched * bool(isfinite(curve.depth_flux).any())] if len(curve) else []


@dataclass(frozen=True)
class _Target:
    """An object's name, or a place, or both."""

    name: str | None
    ra: float | None
    dec: float | None

    @property
    def label(self) -> str:
        return self.name or f"ra {self.ra:.5f} dec {self.dec:.5f}"

    def place(self, settings: "Settings") -> tuple[float, float]:
        from seechange_core import chain

        if self.ra is not None and self.dec is not None:
            return self.ra, self.dec
        found = chain.object_named(settings, self.name or "")
        return found.ra, found.dec


def _nearest(settings: "Settings", target: _Target, radius_arcsec: float) -> _Target:
    """Take the object at a place, if there is one, and say so."""
    from seechange_core import chain

    near = chain.object_near(settings, *target.place(settings), radius_arcsec)
    if near is None:
        return target
    found, distance = near
    typer.echo(f"{found.name} is {distance:.2f} arcsec from there: its light curve", err=True)
    return _Target(found.name, found.ra, found.dec)


def _curve(
    settings: "Settings", target: _Target, on: Photometry, quiet_before: float | None
) -> "LightCurveTable":
    from seechange_core import chain

    if target.name is not None and on is Photometry.DIFFERENCE:
        return chain.object_light_curve(settings, target.name, quiet_before)
    return chain.position_light_curve(settings, *target.place(settings), on.value, quiet_before)


def _on_ensemble(
    settings: "Settings", target: _Target, curve: "LightCurveTable", on: Photometry
) -> "LightCurveTable":
    from seechange_core import chain

    zero_points = chain.ensemble_at(settings, *target.place(settings))
    for line in zero_points.describe():
        typer.echo(line, err=True)
    return zero_points.apply(curve, on.value)


def _draw(curve: "LightCurveTable", label: str, file: Path, note: str) -> None:
    from numpy import isfinite

    from seechange_core.qa.lightcurve import LightCurve, plot_object

    barycentric = bool(isfinite(curve.bjd_tdb).all())
    drawn = LightCurve(
        label,
        curve.bjd_tdb if barycentric else curve.mjd_mid,
        curve.own_flux,
        curve.own_flux_err,
        curve.zp,
        curve.filter,
        total_flux=curve.total_flux,
        total_flux_err=curve.total_flux_err,
        system=" and ".join(sorted(set(curve.system.tolist()))),
        ab_offset_mag=curve.ab_offset_mag,
        note=note,
    )
    figure = plot_object(drawn, time_name="BJD (TDB)" if barycentric else "MJD (UTC)")
    figure.savefig(file, dpi=150)
    typer.echo(f"\ndrawn: {file}", err=True)


def _overview(name: str, rows: Sequence[dict[str, Any]], last: str) -> dict[str, str]:
    """Say in a line how far the sections of an exposure came under the present settings."""
    reached: dict[str, str] = {}
    for row in rows:
        if row["current"]:
            done = "done" if row["step"] == last else f"done through {row['step']}"
            reason = f"{row['status']} at {row['step']} ({row['reason']})"
            reached[row["section"]] = done if row["status"] == "done" else reason
    counts = Counter(reached.values())
    words = [f"{count} {fate}" for fate, count in counts.items()]
    outdated = len({row["section"] for row in rows if row["outdated"]})
    words += [f"{outdated} outdated"] if outdated else []
    flagged = {(row["section"], flag): None for row in rows if row["current"] for flag in row["quality"]}
    flags = Counter(flag for _, flag in flagged)
    words += ["flagged: " + ", ".join(f"{flag} ({count})" for flag, count in flags.items())] if flags else []
    return {"exposure": name, "sections": ", ".join(words) or "not processed"}


def _version(row: dict[str, Any]) -> str:
    note = " outdated" if row["outdated"] else "" if row["current"] else " other settings"
    return f"{row['provenance'][:8]}{note}"


def _figures(row: dict[str, Any]) -> str:
    said = str(row["message"])
    if row["status"] != "done":
        return said
    metrics = row["metrics"]
    names = [name for name in FIGURES if name in metrics] or list(metrics)
    figures = [f"{name} {metrics[name]:.4g}" for name in names[:FIGURES_SHOWN]]
    return "  ".join([*figures, said] if said else figures)
