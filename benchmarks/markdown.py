"""What was measured, as Markdown: the page ``docs/measured.md``, with the README's table.

python -m benchmarks --show
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_KINDS = {"fine": '0.26"/pixel', "coarse": '1"/pixel'}
_ORDERS = ("worse", "better")
_SUBTRACTION = "subtraction, new {order}"
_LIMIT, _BOTH = "perfect subtraction", "these two images"
_SKY = "perfect static sky"
#: Figures of a score image: name, heading, digits.
_SCORE = (
    ("complete_percent", "complete above 5 sigma, %", 1),
    ("false_positive", "false +", 1),
    ("false_negative", "false -", 1),
    ("score_std", "std of the score", 3),
    ("difference_std", "std of the difference", 3),
    ("masked_good_percent", "good pixels masked, %", 2),
)
_FOUND = (
    ("detected_complete_percent", "complete, as detected, %", 1),
    ("detected_false_positive", "false +, as detected", 1),
    ("detected_false_negative", "false -, as detected", 1),
    ("vetted_complete_percent", "complete after the cuts, %", 1),
    ("vetted_false_positive", "false + after the cuts", 1),
    ("vetted_false_negative", "false - after the cuts", 1),
    ("vetted_lost_percent", "true ones cut, %", 1),
    ("forced_given_percent", "places given a flux, %", 1),
)
#: Samples of pulls and what they are called.
_PULLS = {
    "forced": "all forced fluxes", "forced_snr0_3": "S/N below 3", "forced_snr3_10": "3-10",
    "forced_snr10_30": "10-30", "forced_snr30_100": "30-100", "forced_snr100_inf": "above 100",
    "position": "fitted positions",
}  # fmt: skip
_STAR_BINS = {
    "star_snr50_150": "star of S/N 50-150", "star_snr150_500": "150-500", "star_snr500": "above 500",
}  # fmt: skip
#: What the page says before its tables.
_HEAD = Path(__file__).with_name("measured.md")
#: Steps with one figure to show: name of it, what to call it.
_STEPS = {
    "detrending": ("noise_over_predicted", "noise {:.3f} of the predicted"),
    "cosmic rays": ("complete_percent", "{:.0f} % of pixels found"),
    "streaks": ("satellite_snr2_found", "{:.0%} of trails of S/N 2"),
    "background, detection, shapes": ("complete_snr7_10", "{:.0%} complete at S/N 7-10"),
    "psf": ("residual_pct", "residual {:.2f} %"),
    "PSF photometry of all sources": ("snr10_30_width", "pulls {:.2f} wide"),
    "PSF photometry, forced, 5000": ("snr10_30_width", "pulls {:.2f} wide"),
    "astrometry": ("grid_error_mas", "{:.1f} mas off"),
    "astrometry, 30 mas catalog": ("grid_error_mas", "{:.1f} mas off"),
    "zero point": ("zp_error_vs_truth_mmag", "{:.1f} mmag off"),
    "raw section to zero point": ("", ""),
    "coadd of 8": ("snr_of_limit", "S/N {:.3f} of all inputs'"),
    "alignment": ("centroid_mas", "centres off by {:.2g} mas"),
    "detection": ("n", "{:.0f} found"),
    "cutouts, measurement": ("n", "{:.0f} measured"),
    "forced fluxes of 1000": ("stars_width", "pulls {:.2f} wide"),
    "raw section to measurements": ("", ""),
}


def markdown(table: Sequence[Row]) -> str:
    """Return all tables there are rows for.

    Parameters
    ----------
    table
        As in ``benchmarks/results.json``.
    """
    rows = {(row["step"], row["kind"], row["peer"]): row for row in table}
    sections = {
        "Differences in short, both seeing orders together": _short(rows),
        "What each step costs": _steps(table),
        "Subtraction": "\n\n".join(part for kind in _KINDS if (part := _long(rows, kind))),
        "Measured on other pairs": _elsewhere(table),
        "Errors": _pulls(rows),
        "Changes on the cores of stars": _on_stars(rows),
        "Cuts": _cuts(rows),
    }
    return "\n\n".join(
        [_HEAD.read_text().strip(), *(f"## {title}\n\n{part}" for title, part in sections.items() if part)]
    )


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    marks = ["|" + "---|" * len(heads)]
    return "\n".join([f"| {' | '.join(heads)} |", *marks, *(f"| {' | '.join(line)} |" for line in lines)])


def _steps(table: Sequence[Row]) -> str:
    """Cost of each step, and how many times more its peers take."""
    lines = []
    for row in table:
        if row["step"] not in _STEPS and not row["step"].startswith("subtraction"):
            continue
        if row["ours_cpu_s"] is None or row["peer"] == _BOTH:
            continue
        # Without a peer only where no other row tells what ours takes.
        if row["peer"] == _LIMIT and "kernel" not in row["step"]:
            continue
        is_alone = row["peer"] in (None, _LIMIT)
        ratio = "" if is_alone else f"{row['peer_cpu_s'] / row['ours_cpu_s']:.1f} x"
        name, text = _STEPS.get(row["step"], ("complete_percent", "complete {:.1f} %"))
        lines.append([
            row["step"], _KINDS[row["kind"]], _seeds(row),
            f"{row['ours_cpu_s']:.2f}", f"{row['ours_mb']:.0f}",
            _figure(row["quality"], name, text), "" if is_alone else row["peer"], ratio,
            "" if is_alone else f"{row['peer_mb']:.0f}",
            "" if is_alone else _figure(row["peer_quality"], name, text),
        ])  # fmt: skip
    heads = ("Step", "Pixels", "Seeds", "CPU s", "MB", "", "Peer", "takes", "MB", "")
    return _table(heads, lines) if lines else ""


def _seeds(row: Row) -> str:
    """Return the seeds of a row, 110-112 if they follow each other."""
    seeds = sorted(row["seeds"])
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))


def _figure(quality: dict[str, float], name: str, text: str) -> str:
    value = quality.get(name, quality.get(f"{name}_rms"))
    return "" if value is None else text.format(value)


def _columns(rows: dict[Any, Row], kind: str, order: str) -> dict[str, tuple[Row, str]]:
    """Return who there is: the row and where in it the figures are."""
    step = _SUBTRACTION.format(order=order)
    found = {}
    seeds = rows[step, kind, _LIMIT]["seeds"] if (step, kind, _LIMIT) in rows else None
    for (name, of, peer), row in rows.items():
        if of != kind:
            continue
        if name == f"{step}, kernel":
            found["ours, kernel"] = row, "quality"
        elif name == step and peer == _LIMIT:
            found["ours"], found[_SKY] = (row, "quality"), (row, "peer_quality")
        elif name == step and row["seeds"] == seeds:
            title = peer if not peer.startswith("...") else f"SWarp, ZOGY{peer[3:]}"
            found[title] = row, "peer_quality"
    first = [name for name in (_SKY, _BOTH, "ours", "ours, kernel") if name in found]
    return {name: found[name] for name in (*first, *(n for n in found if n not in first))}


def _short(rows: dict[Any, Row]) -> str:
    """Both seeing orders together, one line for each who and kind: the README's table."""
    lines = []
    for kind, pixels in _KINDS.items():
        orders = [_columns(rows, kind, order) for order in _ORDERS]
        for who in orders[0]:
            both = [of[who] for of in orders if who in of]
            mean = {
                name: sum(row[key].get(name, float("nan")) for row, key in both) / len(both)
                for name in ("complete_percent", "false_positive", "false_negative", "score_std")
            }
            cost = "peer" if who not in ("ours", "ours, kernel") else "ours"
            seconds = [row[f"{cost}_cpu_s"] for row, _ in both]
            lines.append([
                pixels, who, f"{mean['complete_percent']:.1f} %", f"{mean['false_positive']:.1f}",
                f"{mean['false_negative']:.1f}", f"{mean['score_std']:.3f}",
                "" if None in seconds else f"{sum(seconds) / len(seconds):.1f}",
                "" if None in seconds else f"{max(row[f'{cost}_mb'] for row, _ in both):.0f}",
            ])  # fmt: skip
    heads = ("Pixels", "", "Complete", "False +", "False -", "Score std", "CPU s", "MB")
    return _table(heads, lines) if lines else ""


def _elsewhere(table: Sequence[Row]) -> str:
    """Who was measured on other pairs only: nothing to be put beside the means of ours."""
    limits = [row for row in table if row["peer"] == _LIMIT]
    seeds = {(row["step"], row["kind"]): row["seeds"] for row in limits}
    names = ("complete_percent", "false_positive", "false_negative", "score_std")
    lines = [
        [
            row["step"], _KINDS[row["kind"]], row["peer"], _seeds(row),
            *(_value(row, "peer_quality", name, 3 if name == "score_std" else 1) for name in names),
            f"{row['peer_cpu_s']:.1f}", f"{row['peer_mb']:.0f}",
        ]
        for row in table
        if row["seeds"] != seeds.get((row["step"], row["kind"]), row["seeds"])
    ]  # fmt: skip
    heads = ("Step", "Pixels", "", "Seeds", "Complete", "False +", "False -", "Score std", "CPU s", "MB")
    return _table(heads, lines) if lines else ""


def _long(rows: dict[Any, Row], kind: str) -> str:
    """Every figure of each order, mean and worst."""
    parts = []
    for order in _ORDERS:
        who = _columns(rows, kind, order)
        if not who:
            continue
        seeds = _seeds(next(iter(who.values()))[0])
        lines = [
            [text, *(_value(row, key, name, digits) for row, key in who.values())]
            for name, text, digits in (*_SCORE, *_FOUND)
        ]
        for what, digits in (("cpu_s", 1), ("mb", 0)):
            costs = [
                row[f"{'ours' if name.startswith('ours') else 'peer'}_{what}"]
                for name, (row, _) in who.items()
            ]
            texts = ["" if cost is None else f"{cost:.{digits}f}" for cost in costs]
            lines.append([what.replace("_", " ").replace("cpu", "CPU").replace("mb", "MB"), *texts])
        n = next(iter(who.values()))[0]["quality"]["n"]
        title = (
            f"{_KINDS[kind]}, new image of {order} seeing; seeds {seeds}, {n:.0f} transients above 5 sigma"
        )
        parts.append(f"{title} each: mean (worst)\n\n{_table(('', *who), lines)}")
    return "\n\n".join(parts)


def _value(row: Row, key: str, name: str, digits: int) -> str:
    if name not in row[key]:
        return ""
    worst = row["worst" if key == "quality" else "peer_worst"].get(name)
    return f"{row[key][name]:.{digits}f}" + ("" if worst is None else f" ({worst:.{digits}f})")


def _pulls(rows: dict[Any, Row]) -> str:
    """Bias and width of forced fluxes by S/N, and of positions, all CCDs of a kind and order together."""
    ours = [
        (_KINDS[kind], order, rows[key])
        for kind in _KINDS
        for order in _ORDERS
        if (key := (_SUBTRACTION.format(order=order), kind, _LIMIT)) in rows
    ]
    lines = []
    for name, text in _PULLS.items():
        for pixels, order, row in ours:
            q = row["quality"]
            if f"{name}_width" not in q:
                continue
            lines.append([
                text, f"{pixels}, {order}", f"{q[f'{name}_n']:.0f}",
                f"{q[f'{name}_mean_sigma']:+.3f} ± {q[f'{name}_mean_sigma_err']:.3f}",
                f"{q[f'{name}_width']:.3f} ± {q[f'{name}_width_err']:.3f}",
                f"{q[f'{name}_tails_percent']:.2f}",
            ])  # fmt: skip
    heads = ("Pulls", "New image", "n", "Mean", "Width", "Beyond 4 sigma, %")
    return _table(heads, lines) if lines else ""


def _on_stars(rows: dict[Any, Row]) -> str:
    """Completeness by the S/N of the star that changed."""
    lines = []
    for kind, pixels in _KINDS.items():
        for order in _ORDERS:
            row = rows.get((f"changes on stars, new {order}", kind, None))
            if row is not None:
                q = row["quality"]
                lines.append([
                    f"{pixels}, {order}", f"{q['n']:.0f}",
                    *(
                        f"{q[f'{name}_percent']:.1f} ({q[f'{name}_limit_percent']:.1f})"
                        if f"{name}_percent" in q else ""
                        for name in ("complete", *_STAR_BINS)
                    ),
                    f"{q['forced_mean_sigma']:+.3f} ± {q['forced_mean_sigma_err']:.3f}",
                    f"{q['forced_width']:.3f} ± {q['forced_width_err']:.3f}",
                ])  # fmt: skip
    heads = ("New image", "n", "complete, % (limit)", *_STAR_BINS.values(), "forced: mean", "width")
    return _table(heads, lines) if lines else ""


def _cuts(rows: dict[Any, Row]) -> str:
    """How many true and false detections fail each cut, all CCDs together."""
    chosen = [row for (step, _, _), row in rows.items() if step.startswith("cuts, ")]
    if not chosen:
        return ""
    total: dict[str, float] = {}
    for row in chosen:
        for name, value in row["quality"].items():
            total[name] = total.get(name, 0.0) + value * len(row["seeds"])
    lines = [
        [
            name.removesuffix("_only_false").upper(),
            f"{100 * total[name.replace('_only_false', '_true')] / max(total['true'], 1):.2f}",
            f"{100 * total[name.replace('_only_false', '_false')] / max(total['false'], 1):.1f}",
            f"{100 * total[name] / max(total['false'], 1):.1f}",
        ]
        for name in total
        if name.endswith("_only_false")
    ]
    title = f"Of {total['true']:.0f} detections of true changes and {total['false']:.0f} false ones"
    return (
        f"{title} fail each cut, %:\n\n{_table(('Cut', 'true', 'false', 'false, and no other cut'), lines)}"
    )
