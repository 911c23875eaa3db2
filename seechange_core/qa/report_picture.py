"""A small picture of a night, for a web page or an event log: seeing and depth over the night."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from seechange_core.frames import Float
from seechange_core.qa.night import Night, NightSection, Number
from seechange_core.qa.style import BLACK, band_style

#: Drawn twice as large as shown, so that dots are round.
_WIDTH, _STRIP, _MARGIN, _DOT = 880, 170, 16, 4.5
_GREY, _LINE = "#6b7280", "#d1d5db"
#: What is drawn below each other.
_STRIPS: tuple[tuple[str, Callable[[NightSection], Number], str], ...] = (
    ("seeing, arcsec", lambda section: section.seeing_arcsec, ".2f"),
    ("depth, mag", lambda section: section.depth_mag, ".2f"),
)


def draw_picture(night: Night) -> bytes | None:
    """Draw seeing and depth of a night's sections over time, as a PNG of at most 10 kB; None of nothing."""
    sections = night.counted
    if not sections:
        return None
    picture = Image.new("RGB", (_WIDTH, len(_STRIPS) * _STRIP), "white")
    draw = ImageDraw.Draw(picture)
    times = np.array([night.exposures[section.exposure].mjd_mid for section in sections])
    for k, (name, value, form) in enumerate(_STRIPS):
        known = np.array([np.nan if (v := value(s)) is None else v for s in sections], float)
        _strip(draw, k * _STRIP, (times, known), [s.filter for s in sections], (name, form))
    out = io.BytesIO()
    small = picture.resize((_WIDTH // 2, len(_STRIPS) * _STRIP // 2), Image.Resampling.LANCZOS)
    small.quantize(32).save(out, "PNG", optimize=True)
    return out.getvalue()


def _strip(
    draw: ImageDraw.ImageDraw, top: int, points: tuple[Float, Float], bands: list[str], words: tuple[str, str]
) -> None:
    times, values = points
    name, form = words
    known = np.isfinite(values)
    draw.line([(0, top + _STRIP - 1), (_WIDTH, top + _STRIP - 1)], _LINE)
    font = ImageFont.load_default(22)
    if not known.any():
        draw.text((_MARGIN, top + 8), f"{name}: not measured", _GREY, font)
        return
    low, high = float(values[known].min()), float(values[known].max())
    draw.text((_MARGIN, top + 8), f"{name}: {low:{form}} to {high:{form}}", BLACK, font)
    x = _scaled(times, times.min(), times.max(), _MARGIN, _WIDTH - _MARGIN)
    y = _scaled(values, low, high, top + _STRIP - _MARGIN, top + 56)
    for k in np.flatnonzero(known):
        place = (x[k] - _DOT, y[k] - _DOT, x[k] + _DOT, y[k] + _DOT)
        draw.ellipse(place, fill=band_style(bands[k])["color"])


def _scaled(values: Float, low: float, high: float, start: float, end: float) -> Float:
    """Map values to pixels; those that are all alike to the middle."""
    share = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    return start + share * (end - start)
