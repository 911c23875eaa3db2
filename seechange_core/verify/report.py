"""The verdict on a summary: thresholds with their reasons, and one screen for a person."""

from dataclasses import dataclass

import numpy as np

from seechange_core.verify.summary import Summary


@dataclass(frozen=True)
class Check:
    """One figure against its threshold.

    Attributes
    ----------
    name, value, limit
        What, how much, and what is allowed, in words.
    passed
        Whether it is good enough.
    reason
        Why the threshold is where it is.
    """

    name: str
    value: str
    limit: str
    passed: bool
    reason: str


def checks(summary: Summary) -> list[Check]:
    """Judge every figure of a summary."""
    s = summary
    width_room = 0.08 + 3 * s.flux_pull_width_err
    median_room = 0.1 + 3 * s.flux_pull_median_err
    found = s.transients_found / max(1, s.transients_injected)
    bright = [s.completeness[k] for k in s.completeness if k not in {"3-5", "5-7"}]
    total = sum(f.total for f in bright)
    complete = sum(f.found for f in bright) / max(1, total)
    complete_limit = 0.85 - 2 * np.sqrt(0.85 * 0.15 / max(1, total))
    return [
        _at_most(
            "astrometric rms",
            s.astrometric_rms_mas,
            20.0,
            "mas",
            "80 catalog stars of 20 mas leave 4-8 mas; at 20 mas, a fourteenth of a pixel, dipoles appear",
        ),
        _at_most(
            "zero-point error",
            s.zero_point_error_mmag,
            20.0,
            "mmag",
            "70 stars of 20 mmag leave 3 mmag; thin cloud and the flat's gradient add some; 20 is 2 %",
        ),
        Check(
            "completeness at S/N > 7",
            f"{complete:.3f} of {total}",
            f">= {complete_limit:.2f}",
            total == 0 or complete >= complete_limit,
            "0.85 less two statistical errors; all count, those on bad pixels, bright stars and edges too",
        ),
        _at_most(
            "false detections per section",
            s.false_per_section,
            2.0,
            "",
            "after the cuts; noise alone makes 0.01 beyond 5 sigma, bright stars and trails make the rest",
        ),
        Check(
            "median flux pull",
            f"{s.flux_pull_median:+.3f}",
            f"within {median_room:.2f} of 0",
            abs(s.flux_pull_median) <= median_room,
            "0.1 sigma of bias, and three statistical errors of the median",
        ),
        Check(
            "width of flux pulls",
            f"{s.flux_pull_width:.3f}",
            f"within {width_room:.2f} of 1",
            abs(s.flux_pull_width - 1) <= width_room,
            "error bars right to 8 %, and three statistical errors of the width",
        ),
        Check(
            "flux pulls beyond 4",
            f"{s.flux_pull_outliers:.1%}",
            "<= 3 %",
            s.flux_pull_outliers <= 0.03,
            "one in 16,000 by chance; the rest lies beside bleeding stars and on defects, which flags tell",
        ),
        Check(
            "width of light-curve pulls",
            f"{s.light_curve_pull_width:.3f} of {s.light_curve_pull_n}",
            "<= 1.3",
            s.light_curve_pull_n == 0 or s.light_curve_pull_width <= 1.3,
            "the stored fluxes of what was found: our positions and the zero points' errors are in them too",
        ),
        Check(
            "transients found",
            f"{s.transients_found} of {s.transients_injected}",
            ">= 75 %",
            found >= 0.75,
            "of those ever above S/N 7; the ones on masked pixels or saturated stars cannot all be had",
        ),
    ]


def _at_most(name: str, value: float, limit: float, unit: str, reason: str) -> Check:
    passed = bool(np.isfinite(value) and value <= limit)
    return Check(name, f"{value:.3g} {unit}".strip(), f"<= {limit:g} {unit}".strip(), passed, reason)


def screen(summary: Summary, verdicts: list[Check], seconds: float) -> str:
    """Write everything on one screen."""
    s = summary
    lines = [
        f"{s.exposures} exposures, {s.sections} sections calibrated, {s.subtracted_sections} subtracted, "
        f"in {seconds:.0f} s",
        "",
    ]
    for check in verdicts:
        mark = "ok " if check.passed else "BAD"
        lines.append(f"  {mark} {check.name:<30} {check.value:<18} {check.limit}")
    lines += ["", "  completeness by true S/N        found / injected"]
    lines += [
        f"      {name:<8} {'#' * round(30 * f.value) if f.total else '':<30} {f.found:>4} / {f.total}"
        for name, f in s.completeness.items()
    ]
    lines.append(
        f"  false detections: {s.false_positive} positive, {s.false_negative} negative; "
        f"flux pulls from {s.flux_pull_n} forced fluxes"
    )
    bad = [c for c in verdicts if not c.passed]
    lines += [f"  {c.name} is worse than {c.limit}: {c.reason}" for c in bad]
    return "\n".join(lines)
