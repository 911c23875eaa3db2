"""The page that shows a night at a glance: HTML that needs nothing else, neither a server nor a network.

Script and style are in the page, pictures too, and the data are one block of JSON. Names, reasons and
messages may be any text: the script only ever sets them as text, the block cannot be left by what is in it,
and the page's security policy runs no other script and asks no other host, whatever should get into it.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from seechange_core.qa.night import FATES, Curve, Night, NightCandidate, by_filter, headline
from seechange_core.qa.style import BLACK, band_style

#: Scripts in the order in which they stand in the page.
SCRIPTS = ("base.js", "summary.js", "trends.js", "plane.js", "lists.js", "curves.js", "table.js", "large.js")
#: Of the places and messages of one problem, this many are shown.
PLACES_SHOWN = 200
FILES_SHOWN = 200
#: The latest points of a light curve, shown.
POINTS_SHOWN = 400


def draw_page(night: Night) -> str:
    """Draw a night as one page of HTML."""
    style = _part("page.css")
    script = "\n".join(['"use strict";', "{", *map(_part, SCRIPTS), "}"])
    return Template(_part("page.html")).substitute(
        title=_as_text(f"{night.instrument} {night.night}"),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        data=as_json_block(page_data(night)),
    )


def as_json_block(value: Any) -> str:
    """Write JSON that can stand in a ``<script>`` element, whatever text is in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page_data(night: Night) -> dict[str, Any]:
    """Return what the page's script is given, as compact as it can be."""
    bands = dict.fromkeys(
        [section.filter for section in night.sections]
        + [band for candidate in night.candidates for band in candidate.curve.filter]
    )
    order = list(bands)
    return {
        "instrument": night.instrument,
        "night": night.night,
        "made": night.made_at.strftime("%Y-%m-%d %H:%M"),
        "figures": {name: _short(value) for name, value in headline(night).items()},
        "filters": {band: _rounded(values) for band, values in by_filter(night).items()},
        "bands": [{"name": band, "color": _color(band)} for band in order],
        "plane": [[tile.section, tile.x, tile.y, tile.width, tile.height] for tile in night.plane],
        "exposures": _exposures(night),
        "points": _points(night, order),
        "problems": _problems(night),
        "files": [[f.state, f.address, f.reason, f.message] for f in night.files[-FILES_SHOWN:]],
        "delayFrom": night.delay_from,
        "counts": [night.n_candidates, night.n_unconfirmed, night.n_bogus],
        "candidates": [_candidate(candidate, order) for candidate in night.candidates],
    }


def _exposures(night: Night) -> list[dict[str, Any]]:
    return [
        {
            "name": e.name,
            "target": e.target,
            "filter": e.filter,
            "mjd": round(e.mjd_mid, 6),
            "time": _short(e.exp_time_s),
            "airmass": _short(e.airmass),
            "bad": e.bad,
        }
        for e in night.exposures
    ]


def _points(night: Night, bands: Sequence[str]) -> dict[str, list[Any]]:
    """Return the sections as columns."""
    rows = night.sections
    return {
        "exposure": [row.exposure for row in rows],
        "section": [row.section for row in rows],
        "band": [bands.index(row.filter) for row in rows],
        "fate": [FATES.index(row.fate) for row in rows],
        "seeing": [_short(row.seeing_arcsec) for row in rows],
        "sky": [_short(row.sky_mag) for row in rows],
        "zero": [_short(row.zero_point_mag) for row in rows],
        "depth": [_short(row.depth_mag) for row in rows],
        "detections": [_short(row.n_detections) for row in rows],
        "seconds": [_short(row.seconds) for row in rows],
        "delay": [_short(row.delay_min) for row in rows],
    }


def _problems(night: Night) -> list[dict[str, Any]]:
    return [
        {
            "outcome": problem.outcome,
            "step": problem.step,
            "reason": problem.reason,
            "count": len(problem.places),
            "places": [list(place) for place in problem.places[:PLACES_SHOWN]],
        }
        for problem in night.problems
    ]


def _candidate(row: NightCandidate, bands: Sequence[str]) -> dict[str, Any]:
    return {
        "object": row.object,
        "kind": row.kind,
        "verdict": row.verdict,
        "confirmed": row.confirmed,
        "score": _short(row.score),
        "mag": _short(row.mag),
        "err": _short(row.mag_err, 3),
        "seen": row.n_epochs,
        "possible": row.n_possible,
        "hours": _short(row.hours),
        "ra": round(row.ra, 6),
        "dec": round(row.dec, 6),
        "place": row.place,
        "filter": row.filter,
        "exposure": row.exposure,
        "section": row.section,
        "mjd": round(row.mjd, 5),
        "note": row.note,
        "picture": None if row.picture is None else base64.b64encode(row.picture).decode(),
        "north": [_short(v, 3) for v in row.north],
        "east": [_short(v, 3) for v in row.east],
        "side": _short(row.side_arcsec, 4),
        "curve": _curve(row.curve, bands),
    }


def _curve(curve: Curve, bands: Sequence[str]) -> list[list[Any]]:
    """Return the latest points as rows: MJD, flux, error, filter."""
    columns = zip(curve.mjd, curve.flux, curve.flux_err, curve.filter, strict=True)
    rows = [[round(t, 5), _short(f, 4), _short(e, 3), bands.index(b)] for t, f, e, b in columns]
    return rows[-POINTS_SHOWN:]


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: _short(value) for name, value in values.items()}


def _short(value: float | None, digits: int = 5) -> float | None:
    """Round to so many digits; None for what JSON does not know."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded


def _color(band: str) -> str | None:
    """Return the colour of a filter; None where the text's own does better, on dark pages too."""
    color = band_style(band)["color"]
    return None if color == BLACK else color


def _part(name: str) -> str:
    return files("seechange_core.qa").joinpath("night_page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return how a security policy names a script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _as_text(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
