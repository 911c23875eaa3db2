"""Detections and light curves side by side: small ones for an event log, large ones to look at."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from PIL import Image

from seechange_core.frames import Bool, Float, Stamps
from seechange_core.qa.charts import Canvas, small_png
from seechange_core.qa.contact_sheet import triplet_pictures
from seechange_core.qa.style import BLACK, GREEN, GREY, PALE, VERMILION, band_style

#: Of a strip: stamps beside each other, pixels of a stamp that are shown, and how much they are enlarged.
_BEST, _CORE_PIX, _ZOOM = 6, 27, 2
_LINE, _GAP = 14, 3
#: Of large panels: room for numbers at the flux axis.
_GUTTER = 44


@dataclass(frozen=True, eq=False)
class FluxCurve:
    """The flux of one object over time.

    Attributes
    ----------
    label
        Its name.
    mjd
        (n,) days, ascending.
    flux, flux_err
        (n,) of one unit; NaN where nothing was measured.
    band
        (n,) short names of the filters.
    """

    label: str
    mjd: Float
    flux: Float
    flux_err: Float
    band: np.ndarray


def triplet_strip(stamps: Stamps, score: Float, is_good: Bool | None = None) -> bytes:
    """Draw new image, reference and difference of the best detections, below each other: at most 10 kB.

    Parameters
    ----------
    stamps, score
        One entry per detection; at least one.
    is_good
        Which of them passed the cuts, the best of these come first; None if none was made.
    """
    order = np.argsort(-np.abs(score), kind="stable")
    if is_good is not None:
        order = order[np.argsort(~is_good[order], kind="stable")]
    for n_best in range(min(_BEST, len(order)), 0, -1):
        png = small_png(_strip(stamps, score, is_good, order[:n_best]))
        if len(png) <= 10_000 or n_best == 1:
            break
    return png


def _strip(stamps: Stamps, score: Float, is_good: Bool | None, chosen: np.ndarray) -> Image.Image:
    size = stamps.new.shape[-1]
    cut = max(0, (size - _CORE_PIX) // 2)
    side = _ZOOM * (size - 2 * cut)
    strip = Canvas(len(chosen) * (side + _GAP) - _GAP, _LINE + 3 * (side + _GAP) - _GAP)
    for column, k in enumerate(chosen.tolist()):
        left = column * (side + _GAP)
        color = BLACK if is_good is None else GREEN if is_good[k] else VERMILION
        strip.text((left + side / 2, 0), f"{score[k]:+.1f}σ", color, anchor="ma", bold=True, size=10)
        for row, colors in enumerate(triplet_pictures(one_of(stamps, k)).values()):
            core = colors[cut : size - cut, cut : size - cut][::-1]
            picture = Image.fromarray(np.ascontiguousarray(core))
            strip.paste(
                picture.resize((side, side), Image.Resampling.NEAREST), (left, _LINE + row * (side + _GAP))
            )
    return strip.picture()


def one_of(stamps: Stamps, k: int) -> Stamps:
    """Return the stamps of one detection: arrays of length 1."""
    return replace(stamps, **{f.name: getattr(stamps, f.name)[k : k + 1] for f in fields(stamps)})


def curve_panels(
    curves: Sequence[FluxCurve], mjd: float, *, columns: int = 4, panel: tuple[int, int] = (118, 84)
) -> Image.Image:
    """Draw fluxes over time, each object in a panel of its own; all share the time axis.

    Parameters
    ----------
    curves
        At least one, each with a measured flux.
    mjd
        The time that is marked: of the exposure that they are shown for.
    columns
        Panels beside each other.
    panel
        Width and height of one, pixels.
    """
    width, height = panel
    rows = -(-len(curves) // columns)
    canvas = Canvas(min(columns, len(curves)) * width, rows * height + _LINE + 2)
    times = np.concatenate([curve.mjd for curve in curves])
    first, last = float(times.min()), float(times.max())
    span = max(last - first, 0.01)
    for number, curve in enumerate(curves):
        row, column = divmod(number, columns)
        _panel(canvas, curve, (column * width, row * height), panel, (first - 0.05 * span, 1.1 * span, mjd))
    bands = ", ".join(dict.fromkeys(str(band) for curve in curves for band in curve.band.tolist()))
    words = f"difference flux in {bands}, µJy if the catalog is AB; {_days(last - first)}; now: the grey line"
    canvas.text((2, rows * height + 1), words, size=11 if width > 200 else 9)
    return canvas.picture()


def _panel(
    canvas: Canvas,
    curve: FluxCurve,
    corner: tuple[int, int],
    panel: tuple[int, int],
    time: tuple[float, float, float],
) -> None:
    gutter = _GUTTER if panel[0] > 200 else 0
    left, top = corner[0] + 2 + gutter, corner[1] + _LINE
    width, height = panel[0] - 6 - gutter, panel[1] - _LINE - 4
    start, span, now = time
    known = np.isfinite(curve.flux) & np.isfinite(curve.flux_err)
    low = min(0.0, float((curve.flux - curve.flux_err)[known].min(initial=0.0)))
    high = max(0.0, float((curve.flux + curve.flux_err)[known].max(initial=0.0)))
    room = 0.08 * (high - low or 1.0)
    low, high = low - room, high + room
    x = left + (curve.mjd - start) / span * width
    y, up, down = (top + (high - v) / (high - low) * height for v in (
        curve.flux, curve.flux + curve.flux_err, curve.flux - curve.flux_err,
    ))  # fmt: skip
    here, zero = left + (now - start) / span * width, top + high / (high - low) * height
    canvas.line([(here, top), (here, top + height)], PALE, 3)
    canvas.line([(left, zero), (left + width, zero)], GREY, 0.5)
    canvas.box((left, top, left + width, top + height))
    for band in dict.fromkeys(curve.band.tolist()):
        mine = np.flatnonzero(known & (curve.band == band))
        color = band_style(str(band))["color"]
        for i in mine.tolist():
            canvas.line([(x[i], up[i]), (x[i], down[i])], color)
        canvas.dots(x[mine], y[mine], color, 3.0 if gutter else 2.0)
    if gutter:
        ends = ((high - room, "ra"), (low + room, "rs"))
        for value, anchor in (*(end for end in ends if end[0]), (0.0, "rm")):
            place = (left - 4, top + (high - value) / (high - low) * height)
            canvas.text(place, f"{value:.3g}", size=9, anchor=anchor)
    best = float(np.max(np.abs(curve.flux / curve.flux_err)[known], initial=0.0))
    label = curve.label if gutter or len(curve.label) < 12 else f"…{curve.label[-9:]}"
    size = 11 if gutter else 9
    canvas.text((left, top - 2), label, BLACK, size=size, anchor="ld")
    canvas.text((left + width, top - 2), f"{best:.0f}σ", size=size, anchor="rd")


def _days(span: float) -> str:
    return f"{span:.0f} days" if span >= 2 else f"{24 * span:.1f} hours"
