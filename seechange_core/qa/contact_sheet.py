"""Contact sheets: triplets of candidates side by side, as one looks through a night's harvest."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from seechange_core.flags import PixelFlag
from seechange_core.frames import Flags, Float, Stamps
from seechange_core.numerics.stats import clipped_stats
from seechange_core.qa.preview import FLAG_COLORS
from seechange_core.qa.style import BLACK, BLUE, GREEN, GREY, ORANGE, PALE, PURPLE, VERMILION, font

#: Cards beside each other and below each other on a page.
COLUMNS, ROWS = 3, 6
#: Side of a stamp as drawn; margins; height of a line of text.
_STAMP, _GAP, _MARGIN, _LINE = 180, 6, 26, 21
_WIDTH = 3 * _STAMP + 2 * _GAP
_HEIGHT = 2 * _LINE + _STAMP + 2 * _LINE + 4
_HEAD = 64
#: A card begins with a rule so far above its words.
_RULE = 9
#: Lengths of scale bars, arcsec.
_BARS = (1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 300)
#: Colours tried in turn until a triplet is small enough, and the pixels between its stamps.
_TRIPLET_COLORS, _TRIPLET_GAP = (128, 64, 32, 16, 8), 2
#: Colours of words about what a candidate is.
COLORS = {
    **{"new": BLUE, "brightened": GREEN, "mover": ORANGE, "faded": PURPLE, "variable": PURPLE},
    **{"real": GREEN, "bogus": VERMILION, "good": GREEN, "bad": VERMILION},
}
_EMPTY = (44, 52, 70)
#: Beyond so many sigma brightness is compressed, as asinh does; a stretch shows this much at least.
_SOFT_SIGMA, _LEAST_SIGMA = 3.0, 8.0


@dataclass(frozen=True, eq=False)
class Card:
    """One candidate.

    Attributes
    ----------
    name, kind
        Its name, and what it is.
    facts
        What is said beside the kind: score, epochs, ...
    brightness
        Magnitude and error, ready to read.
    place
        Position, and exposure.
    note
        What else is known: identity, motion, verdict; empty if nothing.
    stamps
        Of length 1; None where there are none (any more).
    north, east
        Steps in (x, y) pixels of one arcsec to the north and to the east.
    verdict
        real, bogus, or empty.
    """

    name: str
    kind: str
    facts: str
    brightness: str
    place: str
    note: str
    stamps: Stamps | None
    north: tuple[float, float]
    east: tuple[float, float]
    verdict: str = ""


class Triplet(NamedTuple):
    """The three stamps of a candidate beside each other, for a page.

    Attributes
    ----------
    png
        New image, reference, difference, a pixel for each of theirs; None if there are no stamps.
    north, east
        Where these are in it: to the right and up, of length 1.
    side_arcsec
        Of a stamp.
    """

    png: bytes | None
    north: tuple[float, float]
    east: tuple[float, float]
    side_arcsec: float


def triplet(card: Card, *, max_bytes: int = 6000) -> Triplet:
    """Draw the stamps of a candidate, stretched and turned as on a sheet, in few colours and bytes."""
    turns, mirrored = _upright(card.north, card.east)
    scale = float(np.hypot(*card.north))
    north, east = (_turned((x / scale, y / scale), turns, mirrored) for x, y in (card.north, card.east))
    if card.stamps is None:
        return Triplet(None, north, east, 0.0)
    stamps = [
        np.rot90(c[::-1, ::-1] if mirrored else c[::-1], turns)
        for c in triplet_pictures(card.stamps).values()
    ]
    side = stamps[0].shape[0]
    gap = np.full((side, _TRIPLET_GAP, 3), _EMPTY, np.uint8)
    picture = Image.fromarray(np.hstack([stamps[0], gap, stamps[1], gap, stamps[2]]))
    png = b""
    for colors in _TRIPLET_COLORS:
        out = io.BytesIO()
        picture.quantize(colors, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        png = out.getvalue()
        if len(png) <= max_bytes:
            break
    return Triplet(png, north, east, side / scale)


def draw_sheet(cards: Sequence[Card], title: str, subtitle: str = "") -> list[Image.Image]:
    """Draw candidates in rows of triplets: new image, reference, difference.

    New image and reference share one scale, whose faint end is linear and whose bright end is compressed;
    grey is zero in the difference. Stamps are turned by quarters and mirrored, never resampled, so that
    north is up and east is left as nearly as that goes: the arrows say exactly where. Colour marks pixels
    that are flagged, and slate what no pixel covers.

    Parameters
    ----------
    cards
        At least one, in the order to be drawn.
    title, subtitle
        At the head of each page, the number of the page beside it.

    Returns
    -------
    list of pictures
        One for each page of 18.
    """
    per_page = COLUMNS * ROWS
    starts = range(0, max(len(cards), 1), per_page)
    pages = []
    for n, start in enumerate(starts, start=1):
        words = f"{subtitle}   page {n} of {len(starts)}".strip()
        pages.append(_page(cards[start : start + per_page], start, title, words))
    return pages


def save_sheet(pages: Sequence[Image.Image], path: Path) -> list[Path]:
    """Write pages: one PDF, or a PNG each, numbered from the second page on.

    Returns
    -------
    list of Path
        Of the files.
    """
    if path.suffix.lower() == ".pdf":
        pages[0].save(path, "PDF", save_all=True, append_images=list(pages[1:]), resolution=150.0)
        return [path]
    files = [path if n == 1 else path.with_stem(f"{path.stem}_{n}") for n in range(1, len(pages) + 1)]
    for page, file in zip(pages, files, strict=True):
        out = io.BytesIO()
        page.save(out, "PNG")
        file.write_bytes(out.getvalue())
    return files


def _page(cards: Sequence[Card], first: int, title: str, subtitle: str) -> Image.Image:
    body = draw_cards(cards, first)
    page = Image.new("RGB", (body.width + 2 * _MARGIN, _HEAD + body.height + _MARGIN // 2), "white")
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, 18), title, BLACK, font(22, "-Bold"))
    draw.text((page.width - _MARGIN, 24), subtitle, GREY, font(15), anchor="ra")
    page.paste(body, (_MARGIN, _HEAD - _RULE))
    return page


def draw_cards(cards: Sequence[Card], first: int = 0) -> Image.Image:
    """Draw candidates in rows of triplets, as `draw_sheet` does, without a head; numbered after `first`."""
    rows = -(-max(len(cards), 1) // COLUMNS)
    width = COLUMNS * _WIDTH + (COLUMNS - 1) * _MARGIN
    page = Image.new("RGB", (width, _RULE + rows * (_HEIGHT + _MARGIN)), "white")
    draw = ImageDraw.Draw(page)
    for i, card in enumerate(cards):
        row, column = divmod(i, COLUMNS)
        corner = (column * (_WIDTH + _MARGIN), _RULE + row * (_HEIGHT + _MARGIN))
        _card(page, draw, corner, card, first + i + 1)
    return page


def _card(
    page: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], card: Card, number: int
) -> None:
    left, top = corner
    right = left + _WIDTH
    draw.line([(left, top - 8), (right, top - 8)], PALE)
    head, text = font(16, "-Bold"), font(13)
    draw.text((left, top - 3), f"{number}  {card.name}", BLACK, head)
    draw.text((right, top - 3), card.brightness, BLACK, head, anchor="ra")
    draw.text((left, top + _LINE), card.kind, COLORS.get(card.kind, BLACK), font(13, "-Bold"))
    shift = draw.textlength(f"{card.kind}   ", font(13, "-Bold")) if card.kind else 0
    draw.text((left + shift, top + _LINE), card.facts, GREY, text)
    if card.verdict:
        words = f"called {card.verdict}"
        draw.text((right, top + _LINE), words, COLORS.get(card.verdict, BLACK), text, anchor="ra")
    _triplet(page, draw, (left, top + 2 * _LINE), card)
    below = top + 2 * _LINE + _STAMP + 5
    draw.text((left, below), _cut(draw, card.place, text), GREY, text)
    draw.text((left, below + _LINE - 2), _cut(draw, card.note, text), COLORS.get(card.kind, BLACK), text)


def _cut(draw: ImageDraw.ImageDraw, words: str, font: ImageFont.FreeTypeFont) -> str:
    """Shorten words to the width of a card."""
    if draw.textlength(words, font) <= _WIDTH:
        return words
    while words and draw.textlength(f"{words}…", font) > _WIDTH:
        words = words[:-1]
    return f"{words}…"


def _triplet(page: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], card: Card) -> None:
    left, top = corner
    if card.stamps is None:
        draw.rectangle((left, top, left + _WIDTH, top + _STAMP), fill="#eef0f4")
        middle = (left + _WIDTH / 2, top + _STAMP / 2)
        draw.text(middle, "its stamps are gone: process it again", GREY, font(14), anchor="mm")
        return
    turns, mirrored = _upright(card.north, card.east)
    pictures = triplet_pictures(card.stamps)
    for k, (name, colors) in enumerate(pictures.items()):
        turned = np.rot90(colors[::-1, ::-1] if mirrored else colors[::-1], turns)
        picture = Image.fromarray(np.ascontiguousarray(turned))
        x = left + k * (_STAMP + _GAP)
        page.paste(picture.resize((_STAMP, _STAMP), Image.Resampling.NEAREST), (x, top))
        _label(draw, (x + 5, top + 2), name)
    _pointer(draw, (left + _STAMP / 2, top + _STAMP / 2))
    _compass(draw, (left + _STAMP - 22, top + _STAMP - 22), card, turns, mirrored)
    scale = 1 / float(np.hypot(*card.north))
    _bar(draw, (left + 2 * (_STAMP + _GAP), top), card.stamps.new.shape[-1] * scale)


def _label(draw: ImageDraw.ImageDraw, place: tuple[float, float], words: str) -> None:
    draw.text(place, words, "white", font(12), stroke_width=2, stroke_fill="black")


def _upright(north: tuple[float, float], east: tuple[float, float]) -> tuple[int, bool]:
    """Choose the quarter turns and the mirroring after which north is most nearly up, and east left."""
    tries = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)]
    return max(tries, key=lambda t: _turned(north, *t)[1] - _turned(east, *t)[0])


def _turned(step: tuple[float, float], turns: int, mirrored: bool) -> tuple[float, float]:
    """Return where a step in pixels points on the page: to the right, and up."""
    x, y = (-step[0] if mirrored else step[0]), step[1]
    for _ in range(turns):
        x, y = -y, x
    return x, y


def triplet_pictures(stamps: Stamps) -> dict[str, Flags]:
    """Stretch the first new, reference and difference of some stamps: (H, W, 3) uint8 each, row 0 first."""
    flags = [getattr(stamps, f"{name}_flags")[0] for name in ("new", "ref", "sub")]
    new, ref, sub = (
        _known(getattr(stamps, n)[0], f) for n, f in zip(("new", "ref", "sub"), flags, strict=True)
    )
    # Beside the reference's rim the difference has neither weight nor flag.
    sub = np.where((stamps.sub_weight[0] == 0) & (flags[2] == 0), np.nan, sub)
    noise = _noise(new, flags[0])
    top = max(_LEAST_SIGMA * noise, _bright(new, flags[0]), _bright(ref, flags[1]))
    greys = [_asinh(image, -_SOFT_SIGMA * noise, top, noise) for image in (new, ref)]
    noise = _noise(sub, flags[2])
    top = max(_LEAST_SIGMA * noise, _bright(np.abs(sub), flags[2]))
    greys.append(_asinh(sub, -top, top, noise))
    names = ("new", "reference", "difference")
    return {n: _colored(g, f, i) for n, g, f, i in zip(names, greys, flags, (new, ref, sub), strict=True)}


def _known(image: Float, flags: Flags) -> Float:
    """Return a stamp, NaN where no pixel of its image is."""
    return np.where(flags & np.uint16(PixelFlag.OUT_OF_BOUNDS | PixelFlag.NO_DATA), np.nan, image)


def _usable(image: Float, flags: Flags) -> Float:
    """Return what is measured and not flagged; all that is measured if that is too little."""
    good = image[np.isfinite(image) & (flags == 0)]
    return good if good.size > 20 else image[np.isfinite(image)]


def _noise(image: Float, flags: Flags) -> float:
    """Return the noise of a stamp; the smallest positive number where there is none."""
    values = _usable(image, flags)
    rms = float(clipped_stats(values).sigma) if values.size else 0.0
    return rms if np.isfinite(rms) and rms > 0 else 1e-30


def _bright(image: Float, flags: Flags) -> float:
    values = _usable(image, flags)
    return float(np.quantile(values, 0.998)) if values.size else 0.0


def _asinh(image: Float, low: float, high: float, noise: float) -> Float:
    """Map values to 0..1: linear about zero, logarithmic far from it."""
    soft = _SOFT_SIGMA * noise
    ends = np.arcsinh(np.array([low, high]) / soft)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.clip((np.arcsinh(image / soft) - ends[0]) / (ends[1] - ends[0]), 0, 1))


def _colored(grey: Float, flags: Flags, image: Float) -> Flags:
    """Make colours of grey levels: flagged pixels tinted, those without a value slate."""
    rgb = np.repeat(255 * np.nan_to_num(grey)[..., None], 3, axis=2)
    for bits, color in FLAG_COLORS[::-1]:
        marked = (flags & int(bits)) != 0
        rgb[marked] = 0.6 * rgb[marked] + 0.4 * np.array(color)
    rgb[~np.isfinite(image)] = _EMPTY
    return rgb.astype(np.uint8)


def _pointer(draw: ImageDraw.ImageDraw, middle: tuple[float, float]) -> None:
    """Draw two strokes that end short of the candidate, and hide nothing of it."""
    x, y = middle
    near, far = 0.09 * _STAMP, 0.2 * _STAMP
    for width, color in ((4, "black"), (2, "#ffd24d")):
        draw.line([(x + near, y), (x + far, y)], color, width)
        draw.line([(x, y - near), (x, y - far)], color, width)


def _compass(
    draw: ImageDraw.ImageDraw, origin: tuple[float, float], card: Card, turns: int, mirrored: bool
) -> None:
    """Draw where north and east are, from a corner that both point away from."""
    ways = {name: _turned(step, turns, mirrored) for name, step in (("N", card.north), ("E", card.east))}
    arm = 24.0
    for width, color in ((4, "black"), (2, "white")):
        for x, y in ways.values():
            length = float(np.hypot(x, y))
            tip = (origin[0] + arm * x / length, origin[1] - arm * y / length)
            draw.line([origin, tip], color, width)
    for name, (x, y) in ways.items():
        length = float(np.hypot(x, y))
        place = (origin[0] + (arm + 9) * x / length, origin[1] - (arm + 9) * y / length)
        draw.text(place, name, "white", font(12, "-Bold"), anchor="mm", stroke_width=2, stroke_fill="black")


def _bar(draw: ImageDraw.ImageDraw, corner: tuple[int, int], side_arcsec: float) -> None:
    """Draw a scale bar at the foot of a stamp of this side."""
    length = max((bar for bar in _BARS if bar <= 0.35 * side_arcsec), default=_BARS[0])
    pixels = _STAMP * length / side_arcsec
    x, y = corner[0] + _STAMP - 10, corner[1] + _STAMP - 12
    for width, color in ((5, "black"), (3, "white")):
        draw.line([(x - pixels, y), (x, y)], color, width)
    _label(draw, (x - pixels, y - 19), f"{length}″")
