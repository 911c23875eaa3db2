"""Full-size pictures: panels side by side under a line that says what they are of, and how good it is."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from seechange_core.qa.style import BLACK, GREY, VERMILION, font, to_png

_MARGIN, _GAP, _LINE = 18, 14, 22
#: A picture without content is so large; facts beyond this width go into another line.
_EMPTY, _LEAST_WIDTH = (900, 240), 760


def framed(
    picture: Image.Image,
    title: str,
    facts: Sequence[str] = (),
    *,
    warning: str = "",
    legend: Mapping[str, str | tuple[int, int, int]] | None = None,
) -> bytes:
    """Write a picture as PNG, with words above it and a legend below.

    Parameters
    ----------
    picture
        RGB.
    title, facts
        What it is, and figures about it.
    warning
        What is bad about it.
    legend
        Colours by what they stand for.
    """
    width = max(picture.width, _LEAST_WIDTH) + 2 * _MARGIN
    small, lines = font(15), [""]
    for fact in facts:
        longer = f"{lines[-1]}    {fact}".strip()
        if small.getlength(longer) <= width - 2 * _MARGIN:
            lines[-1] = longer
        else:
            lines.append(fact)
    top = _MARGIN + _LINE * (2 + len(lines) + bool(warning)) - 8
    page = Image.new("RGB", (width, top + picture.height + _MARGIN + (_LINE if legend else 0)), "white")
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN - 6), title, BLACK, font(20, "-Bold"))
    for n, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + _LINE * (n + 1)), line, GREY, small)
    if warning:
        draw.text((_MARGIN, _MARGIN + _LINE * (1 + len(lines))), warning, VERMILION, font(15, "-Bold"))
    page.paste(picture, (_MARGIN, top))
    _draw_legend(draw, (_MARGIN, top + picture.height + 6), legend or {})
    return png(page)


def _draw_legend(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], legend: Mapping[str, str | tuple[int, int, int]]
) -> None:
    x, y = place
    for words, color in legend.items():
        draw.ellipse((x, y + 4, x + 11, y + 15), outline=color, width=3)
        draw.text((x + 17, y), words, GREY, font(15))
        x += 17 + round(font(15).getlength(words)) + 24


def png(picture: Image.Image) -> bytes:
    """Write a picture as PNG: fast rather than small, for it only goes to this machine's browser."""
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=2)
    return out.getvalue()


def side_by_side(panels: Sequence[Image.Image], names: Sequence[str] = ()) -> Image.Image:
    """Put panels beside each other, tops aligned, each under its name if there are names."""
    head = _LINE if names else 0
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) - 1)
    page = Image.new("RGB", (width, head + max(panel.height for panel in panels)), "white")
    draw, x = ImageDraw.Draw(page), 0
    for panel, name in zip(panels, [*names, *[""] * (len(panels) - len(names))], strict=True):
        draw.text((x, 0), name, BLACK, font(15, "-Bold"))
        page.paste(panel, (x, head))
        x += panel.width + _GAP
    return page


def picture_of(figure: Figure, dpi: int = 130) -> Image.Image:
    """Draw a figure."""
    return Image.open(io.BytesIO(to_png(figure, dpi))).convert("RGB")


def label(
    picture: Image.Image, scale: float, x: np.ndarray, y: np.ndarray, words: Sequence[str], apart: float
) -> None:
    """Write words beside 0-based image positions.

    Parameters
    ----------
    picture
        To write on.
    scale
        Its pixels per pixel of the image.
    x, y, words
        Where, and what.
    apart
        Pixels of the picture from the place to the words.
    """
    draw = ImageDraw.Draw(picture)
    for px, py, text in zip(x.tolist(), y.tolist(), words, strict=True):
        place = ((px + 0.5) * scale + apart, picture.height - (py + 0.5) * scale)
        anchor = "lm"
        if place[0] + font(14).getlength(text) > picture.width:
            place, anchor = (place[0] - 2 * apart, place[1]), "rm"
        draw.text(place, text, "white", font(14), anchor=anchor, stroke_width=2, stroke_fill="black")


def nothing(words: str) -> Image.Image:
    """Say that there is nothing to see."""
    page = Image.new("RGB", _EMPTY, "#eef0f4")
    middle = (_EMPTY[0] / 2, _EMPTY[1] / 2)
    ImageDraw.Draw(page).text(middle, words, GREY, font(18), anchor="mm")
    return page
