"""What the pages beside the web UI say, as HTML."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 1.6rem 2rem; max-width: 100rem; }
h1 { font-size: 1.35rem; margin: 0 0 .8rem; } a { color: #0072B2; text-decoration: none; }
a:hover { text-decoration: underline; } table { border-collapse: collapse; }
td, th { text-align: left; padding: .25rem 1.6rem .25rem 0; border-bottom: 1px solid #e5e7eb; }
.number { text-align: right; font-variant-numeric: tabular-nums; } .quiet { color: #6b7280; }
nav { margin: 0 0 1rem; } nav a, nav b { margin-right: 1.1rem; white-space: nowrap; }
.sections { display: flex; flex-wrap: wrap; gap: .8rem; }
figure { margin: 0; border: 1px solid #e5e7eb; border-radius: 4px; padding: .4rem .5rem; max-width: 26rem; }
figcaption { font-size: .85rem; } img { display: block; max-width: 100%; min-height: 3rem; }
.bad { color: #b34700; }
"""


def index(nights: Iterable[Any]) -> str:
    """List the nights, `chain.NightRow`, with links to their exposures."""
    rows = [
        f"<tr><td>{_link(('night', row.instrument, row.night), row.night)}<td>{escape(row.instrument)}"
        f'<td class="number">{row.n_exposures}<td>{_link(("report", row.instrument, row.night), "report")}'
        for row in nights
    ]
    none = '<p class="quiet">No science exposure is registered yet (seechange ingest).'
    table = "<table><tr><th>night<th>instrument<th>exposures<th>" + "".join(rows) + "</table>"
    return _page("Nights", table if rows else none)


def night(instrument: str, name: str, exposures: Sequence[Any]) -> str:
    """List the exposures of a night."""
    rows = [
        f"<tr><td>{_link(('exposure', instrument, row.name), row.name)}<td>{escape(row.filter or '')}"
        f'<td class="number">{row.exp_time:.0f} s<td>{escape(row.target or "")}'
        f'<td class="bad">{escape(f"marked bad: {row.bad_reason}" if row.bad_reason else "")}'
        for row in exposures
    ]
    table = "<table><tr><th>exposure<th>filter<th>time<th>target<th>" + "".join(rows) + "</table>"
    links = f"{_link((), 'all nights')} {_link(('report', instrument, name), 'report of this night')}"
    return _page(f"{instrument}, night of {name}", f"<nav>{links}</nav>{table}")


def exposure(row: Any, steps: Sequence[str], product: str, status: Iterable[Any]) -> str:
    """Show the small pictures of one product of all sections, each a link to the large one."""
    here = ("exposure", row.instrument, row.name)
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for part in status:
        found[part.section][part.step] = part
    choices = [
        f"<b>{escape(_words(step))}</b>"
        if step == product
        else f'<a href="{_address(here)}?product={step}">{escape(_words(step))}</a>'
        for step in steps
    ]
    up = _link(("night", row.instrument, row.night), f"night of {row.night}")
    cards = [
        _section(("picture", row.instrument, row.name, section, product), section, parts, steps)
        for section, parts in sorted(found.items(), key=lambda item: (len(item[0]), item[0]))
    ]
    body = "".join(cards) or '<p class="quiet">Nothing was made of it yet (seechange process).'
    return _page(
        f"{row.name}: {_words(product)}",
        f'<nav>{up}</nav><nav>{" ".join(choices)}</nav><div class="sections">{body}</div>',
    )


def _section(
    place: tuple[str, str, str, str, str], section: str, parts: Mapping[str, Any], steps: Sequence[str]
) -> str:
    """Show a section's product, or say at which step it ended and why."""
    product = parts.get(place[-1])
    name = f"<b>{escape(section)}</b>"
    if product is not None and product.status == "done":
        address = _address(place)
        thumb = _address(("thumb", *place[1:]))
        flags = f' <span class="bad">{escape(", ".join(map(_words, product.quality)))}</span>'
        picture = f'<img loading="lazy" src="{thumb}.png" alt="its picture">'
        return f'<figure><a href="{address}.png">{picture}</a><figcaption>{name}{flags}</figcaption></figure>'
    ended = next((parts[step] for step in steps if step in parts and parts[step].status != "done"), None)
    why = "not made yet"
    if ended is not None:
        message = ended.message.removeprefix(f"exposure {ended.exposure}, section {section}: ")
        why = f"{_words(ended.step)} {ended.status}: {message}"
    return f'<figure><figcaption>{name} <span class="bad">{escape(why)}</span></figcaption></figure>'


def _words(name: str) -> str:
    return name.replace("_", " ")


def _address(parts: Iterable[str]) -> str:
    """Return the path of a page, fit for an attribute."""
    return escape("/" + "/".join(quote(part, safe="") for part in parts))


def _link(parts: Iterable[str], words: str) -> str:
    return f'<a href="{_address(parts)}">{escape(words)}</a>'


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>{body}"
    )
