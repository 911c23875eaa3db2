"""What the web UI shows of an asset and of what was made: words, figures, pictures, links."""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg

from seechange_core.chain import Outcome, StepReport
from seechange_core.chain.quality import meanings
from seechange_core.provenance import ProvenanceKey
from seechange_core.settings import Settings

#: Assets whose product is a row of the database and nothing else; the others have a file as well.
ROWS_ONLY = ("world_coordinates", "zero_point", "measurement", "forced_photometry")
#: Figures are for reading: more digits than any of them deserves, and fewer than the computer has.
DIGITS = 6
#: Figures about the work, not about the product: shown last.
ABOUT_WORK = ("seconds", "peak_mb")
#: Entries that a product keeps when a later run finds it up to date.
KEPT = ("file", "product", "made_by", "frames")


def kinds(name: str, settings: Settings) -> set[str]:
    """Say in the graph how an asset's product is stored."""
    if name in ROWS_ONLY:
        return {"table", settings.database_url.partition(":")[0].partition("+")[0]}
    return {"fits", "source"} if name == "exposure" else {"fits"}


def about(provenance: ProvenanceKey) -> dict[str, dg.MetadataValue[Any]]:
    """Show on an asset's page what it is made with under the present settings."""
    return {
        "provenance": dg.MetadataValue.text(provenance.id),
        "parameters": dg.MetadataValue.json(provenance.parameters),
    }


def metadata(
    key: dg.AssetKey,
    partition: str,
    report: StepReport,
    root: Path,
    run_id: str,
    earlier: Mapping[str, dg.MetadataValue[Any]] | None = None,
    page: str | None = None,
) -> dict[str, dg.MetadataValue[Any]]:
    """Show a report's numbers (so that Dagster plots them over partitions), its file and its run.

    Parameters
    ----------
    key, partition
        Of what was made.
    report
        Of a step that has its product.
    root
        Data root, to show full paths.
    run_id
        The present run.
    earlier
        What was shown of the same product before, if it was up to date and only loaded.
    page
        Address of its full-size picture, if there is one.
    """
    shown: dict[str, dg.MetadataValue[Any]] = {"outcome": dg.MetadataValue.text(report.outcome.value)}
    if page or report.preview:
        shown["picture"] = dg.MetadataValue.md(_linked_picture(key, partition, report, page))
    if report.bitflag:
        shown["quality"] = dg.MetadataValue.text(meanings(report.bitflag))
    figures = {"seconds": report.seconds, **report.metrics}
    for name in sorted(figures, key=lambda name: name in ABOUT_WORK):
        if math.isfinite(figures[name]):
            shown[name] = dg.MetadataValue.float(float(f"{figures[name]:.{DIGITS}g}"))
    # Of what was only loaded, the table shown when it was made tells more.
    if report.table and not (earlier and "frames" in earlier):
        shown["frames"] = table(report.table)
    if report.path:
        shown["file"] = dg.MetadataValue.path(str(root / report.path))
    if report.product_id:
        shown["product"] = dg.MetadataValue.text(report.product_id)
    if report.outcome is Outcome.DONE:
        shown["made_by"] = dg.MetadataValue.dagster_run(run_id)
    return shown | {n: v for n, v in (earlier or {}).items() if n in KEPT and n not in shown}


def _linked_picture(key: dg.AssetKey, partition: str, report: StepReport, page: str | None) -> str:
    """Link the full-size picture; show the small one on all pages, from the same server (see `picture`).

    The address itself, as a URL, would be wider than the page of a partition.
    """
    if page is None:
        return f"[seen under Events]({events_page(key, partition)})"
    link = f"[full size]({page})"
    small = page.replace("/picture/", "/thumb/", 1)
    return f"[![shown while seechange ui runs]({small})]({page})\n\n{link}" if report.preview else link


def table(rows: Sequence[Mapping[str, Any]]) -> dg.MetadataValue[Any]:
    """Show rows as a table; of several numbers in one cell, all; "-" where a row has no such cell."""
    columns = dict.fromkeys(name for row in rows for name in row)
    cells = [{name: _cell(row.get(name, math.nan)) for name in columns} for row in rows]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in cells])


def _cell(value: Any) -> str | float:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else "-"
    return ", ".join(f"{item:.3g}" for item in value) if isinstance(value, list) else str(value)


def picture(report: StepReport, page: str | None = None) -> str | None:
    """Draw a report's preview in Markdown, the one place where the web UI shows images unasked.

    A click on it opens the page of the full-size picture, if there is one.
    """
    if report.preview is None:
        return None
    drawn = embedded(report.preview, report.step)
    return f"[{drawn}]({page})" if page else drawn


def embedded(png: bytes, words: str) -> str:
    """Return a picture as Markdown that needs no file."""
    return f"![{words}](data:image/png;base64,{base64.b64encode(png).decode()})"


def picture_page(pages: str, key: dg.AssetKey, partition: str) -> str:
    """Return the address of the full-size picture of a product of an exposure's section."""
    instrument, product = key.path
    exposure, _, section = partition.rpartition("|")
    place = "/".join(quote(part, safe="") for part in (instrument, exposure, section, product))
    return f"{pages}/picture/{place}.png"


def events_page(key: dg.AssetKey, partition: str) -> str:
    """Return the address, on the web UI's server, of all that happened to a partition of an asset."""
    return f"/assets/{'/'.join(map(quote, key.path))}?view=events&partition={quote(partition)}"
