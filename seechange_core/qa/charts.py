"""Small charts for an event log: PNG of a few kilobytes, drawn in milliseconds, so without matplotlib."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from seechange_core.frames import Float, WcsSolution, ZeroPointSolution
from seechange_core.numerics.stats import mad_sigma
from seechange_core.qa.samples import END_SIGMA, PlaceResiduals, ScoreCounts, ZeroPointResiduals
from seechange_core.qa.style import BLACK, BLUE, GREY, PALE, VERMILION, font

#: Drawn so many times larger and then reduced, for smooth lines.
FINE = 2
#: An arrow as long as the typical residual takes this part of the field's longer side.
_ARROW = 0.06
#: More of them hide each other: then only every second star is drawn, or third.
_ARROWS = 250
#: Arrows are drawn up to so many typical residuals.
_FAR = 3.5
_SIZE, _HEAD, _FOOT = (400, 220), 20, 18
#: Numbers of colours tried in turn until a chart is small enough.
_COLORS = (64, 32, 16, 8, 4)

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class Canvas:
    """A white picture to draw on in final pixels.

    Parameters
    ----------
    width, height
        Of the picture.
    """

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (FINE * width, FINE * height), "white")
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self,
        place: tuple[float, float],
        words: str,
        color: str = GREY,
        *,
        anchor: str = "la",
        size: int = 11,
        bold: bool = False,
    ) -> None:
        """Write a line; anchors are PIL's."""
        at = (FINE * place[0], FINE * place[1])
        self._draw.text(at, words, color, font(FINE * size, "-Bold" if bold else ""), anchor=anchor)

    def line(self, points: list[tuple[float, float]], color: str, width: float = 1.0) -> None:
        """Draw a line through points."""
        fine = [(FINE * x, FINE * y) for x, y in points]
        self._draw.line(fine, color, max(1, round(FINE * width)))

    def dots(self, x: Float, y: Float, color: str, radius: float = 1.5) -> None:
        """Draw filled circles; those at NaN are left out."""
        r = FINE * radius
        for px, py in zip((FINE * x).tolist(), (FINE * y).tolist(), strict=True):
            if np.isfinite(px) and np.isfinite(py):
                self._draw.ellipse((px - r, py - r, px + r, py + r), fill=color)

    def box(self, box: Box) -> None:
        """Draw a frame."""
        self._draw.rectangle(tuple(FINE * edge for edge in box), outline=PALE, width=FINE)

    def paste(self, picture: Image.Image, place: tuple[int, int]) -> None:
        """Put a picture there, each of its pixels as it is."""
        large = picture.resize((FINE * picture.width, FINE * picture.height), Image.Resampling.NEAREST)
        self._image.paste(large, (FINE * place[0], FINE * place[1]))

    def picture(self) -> Image.Image:
        """Return what was drawn."""
        return self._image.reduce(FINE)


def small_png(picture: Image.Image, max_bytes: int = 10_000) -> bytes:
    """Write a picture with as many colours as fit into so many bytes."""
    png = b""
    for colors in _COLORS:
        out = io.BytesIO()
        picture.quantize(colors, Image.Quantize.MEDIANCUT).save(out, "PNG", optimize=True)
        png = out.getvalue()
        if len(png) <= max_bytes:
            break
    return png


def arrows(stars: PlaceResiduals, wcs: WcsSolution) -> bytes:
    """Draw astrometric residuals: as arrows over the section, and as a cloud of points."""
    canvas = Canvas(*_SIZE)
    width, height = _SIZE
    side = height - _HEAD - _FOOT
    spread = float(np.hypot(mad_sigma(stars.east), mad_sigma(stars.north))) if len(stars) else 0.0
    spread = max(spread, 0.1)
    scale = min(side / wcs.shape[0], (width - side - 60) / wcs.shape[1])
    field = (4.0, float(_HEAD), 4 + scale * wcs.shape[1], _HEAD + scale * wcs.shape[0])
    canvas.box(field)
    canvas.text((4, 3), f"{len(stars)} stars, {wcs.rms_mas:.1f} mas rms per axis", BLACK, bold=True)
    stars = stars.select(np.arange(0, len(stars), 1 + len(stars) // _ARROWS))
    x, y = field[0] + scale * (stars.x + 0.5), field[3] - scale * (stars.y + 0.5)
    per_mas = _ARROW * scale * max(wcs.shape) / spread
    # What is far off is no arrow of this solution: a short one in another colour says so.
    far = np.hypot(stars.along_x, stars.along_y) / (_FAR * spread)
    shown = per_mas / np.maximum(far, 1)
    ends = x + shown * stars.along_x, y - shown * stars.along_y
    for x0, y0, x1, y1, out in zip(x, y, *ends, far > 1, strict=True):
        canvas.line([(x0, y0), (x1, y1)], VERMILION if out else BLUE)
    canvas.dots(x, y, BLUE, 1.2)
    key = float(f"{2 * spread:.1g}")
    foot = field[3] + 9
    canvas.line([(field[0], foot), (field[0] + key * per_mas, foot)], BLUE, 1.5)
    canvas.text((field[0] + key * per_mas + 4, foot), f"{key:g} mas", anchor="lm")
    limit = float(f"{_FAR * spread:.2g}")
    cloud = (width - side - 6.0, float(_HEAD), width - 6.0, float(_HEAD + side))
    to_x, to_y = _axes(canvas, cloud, (limit, -limit), (-limit, limit), "mas east, north")
    inside = np.hypot(stars.east, stars.north) < 1.4 * limit
    canvas.dots(_clip(to_x(stars.east), cloud, 0)[inside], _clip(to_y(stars.north), cloud, 1)[inside], BLUE)
    return small_png(canvas.picture())


def zero_points(
    stars: ZeroPointResiduals, solution: ZeroPointSolution, reference_color: float = 0.0
) -> bytes:
    """Draw each star's zero point against its magnitude and its colour, with the solution.

    Parameters
    ----------
    stars, solution
        What is drawn.
    reference_color
        Of the star that the solution refers to, mag.
    """
    canvas = Canvas(*_SIZE)
    width, height = _SIZE
    spread = max(3 * mad_sigma(stars.residual), 0.02) if len(stars) else 0.1
    canvas.text(
        (4, 3), f"zp {solution.zp:.3f} ± {solution.zp_err:.3f}, {solution.n_stars} stars", BLACK, bold=True
    )
    without = stars.residual - stars.expected
    halves = ((4.0, width / 2 - 4.0), (width / 2 + 4.0, width - 6.0))
    columns = (
        (stars.mag, without, f"{solution.band} mag"),
        (stars.color, stars.residual, f"colour, term {solution.color_term:+.3f}"),
    )
    for (left, right), (value, residual, name) in zip(halves, columns, strict=True):
        box = (left, float(_HEAD), right, float(height - _FOOT))
        known = np.isfinite(value)
        ends = (float(value[known].min()), float(value[known].max())) if known.any() else (0.0, 1.0)
        margin = 0.05 * max(ends[1] - ends[0], 0.1)
        to_x, to_y = _axes(canvas, box, (ends[0] - margin, ends[1] + margin), (-2 * spread, 2 * spread), name)
        canvas.dots(to_x(value), _clip(to_y(residual), box, 1), BLUE)
        slope = 0.0 if residual is without else solution.color_term
        line = [(to_x(v), to_y(slope * (v - reference_color))) for v in ends]
        canvas.line(line, VERMILION, 1.2)
    canvas.text((6, _HEAD + 2), f"±{2 * spread:.2g} mag")
    return small_png(canvas.picture())


def histogram(found: ScoreCounts, threshold: float = 5.0) -> Image.Image:
    """Draw a score image's distribution against the unit normal that a blank difference has."""
    width, height = 190, 192
    canvas = Canvas(width, height)
    top = float(np.log10(max(found.counts.max(initial=1), 1.0))) + 0.3
    box = (6.0, float(_HEAD), width - 6.0, float(height - _FOOT))
    to_x, to_y = _axes(canvas, box, (-END_SIGMA, END_SIGMA), (-0.3, top), "score, σ")
    for sign in (-1, 1):
        edge = to_x(sign * threshold)
        canvas.line([(edge, box[1]), (edge, box[3])], VERMILION)
    for counts, color in ((found.normal, GREY), (found.counts, BLUE)):
        values = np.log10(np.maximum(counts, 10**-0.3))
        steps = zip(to_x(found.middles).tolist(), to_y(values).tolist(), strict=True)
        canvas.line(list(steps), color, 1.3)
    canvas.text((6, 3), f"score {found.mean:+.2f} ± {found.sigma:.3f}", BLACK, bold=True)
    return canvas.picture()


def beside(left: bytes, right: Image.Image, max_bytes: int = 10_000) -> bytes:
    """Put a thumbnail and a chart side by side into one PNG."""
    first = Image.open(io.BytesIO(left)).convert("RGB")
    both = Image.new("RGB", (first.width + 8 + right.width, max(first.height, right.height)), "white")
    both.paste(first, (0, 0))
    both.paste(right, (first.width + 8, 0))
    return small_png(both, max_bytes)


def _axes(
    canvas: Canvas, box: Box, x_range: tuple[float, float], y_range: tuple[float, float], name: str
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Draw a frame with its zero lines and the ends of its x axis; return how values become places."""
    left, top, right, bottom = box

    def to_x(value: Any) -> Any:
        return left + (value - x_range[0]) / (x_range[1] - x_range[0]) * (right - left)

    def to_y(value: Any) -> Any:
        return bottom - (value - y_range[0]) / (y_range[1] - y_range[0]) * (bottom - top)

    canvas.box(box)
    if min(x_range) < 0 < max(x_range):
        zero = to_x(0.0)
        canvas.line([(zero, top), (zero, bottom)], PALE)
    if min(y_range) < 0 < max(y_range):
        zero = to_y(0.0)
        canvas.line([(left, zero), (right, zero)], PALE)
    canvas.text((left, bottom + 3), f"{x_range[0]:.3g}")
    canvas.text(((left + right) / 2, bottom + 3), name, anchor="ma")
    canvas.text((right, bottom + 3), f"{x_range[1]:.3g}", anchor="ra")
    return to_x, to_y


def _clip(places: Float, box: Box, axis: int) -> Float:
    """Move what lies beyond a frame onto its edge."""
    return np.clip(places, box[axis], box[axis + 2])
