"""How our figures look: one style, colours that colour-blind eyes can tell apart."""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import ImageFont

#: Palette of Okabe & Ito.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, BLACK = "#56B4E9", "#CC79A7", "#222222"
#: Words and lines that stand back.
GREY, PALE = "#6b7280", "#d1d5db"

#: Matplotlib settings, for `matplotlib.rc_context`.
STYLE: Any = {
    "font.size": 10,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "legend.fontsize": 9,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "image.origin": "lower",
    "image.interpolation": "nearest",
}

#: Colour and marker of each band: told apart by shape alone as well.
_BANDS = {
    "u": (PURPLE, "p"),
    "g": (GREEN, "s"),
    "r": (VERMILION, "o"),
    "i": (BLUE, "D"),
    "z": (ORANGE, "^"),
    "y": (SKY, "h"),
    "B": (BLUE, "s"),
    "V": (GREEN, "o"),
    "R": (VERMILION, "D"),
    "I": (ORANGE, "^"),
}


def band_style(band: str) -> dict[str, str]:
    """Return the colour and marker of a band; black dots for one we do not know."""
    color, marker = _BANDS.get(band, (BLACK, "o"))
    return {"color": color, "marker": marker}


@lru_cache(maxsize=16)
def font(size: int, weight: str = "") -> ImageFont.FreeTypeFont:
    """Return the font of figures for pictures drawn without matplotlib; the weight is empty or ``-Bold``."""
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", f"DejaVuSans{weight}.ttf")), size)


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """Draw a figure with Agg, without pyplot and its global state."""
    out = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(out, format="png", dpi=dpi)
    return out.getvalue()
