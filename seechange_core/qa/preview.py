"""Pictures of images, small ones for an event log and large ones to look at: no matplotlib."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from seechange_core.flags import PixelFlag
from seechange_core.frames import Flags, Float, Float32
from seechange_core.numerics.stats import clipped_stats

#: Colours of flagged pixels, first match wins (from the palette of Okabe & Ito, safe for colour-blind eyes).
FLAG_COLORS: tuple[tuple[PixelFlag, tuple[int, int, int]], ...] = (
    (PixelFlag.SATURATED | PixelFlag.BLEED, (230, 159, 0)),
    (PixelFlag.COSMIC_RAY | PixelFlag.STREAK, (204, 121, 167)),
    (
        PixelFlag.BAD_PIXEL | PixelFlag.NO_DATA | PixelFlag.OUT_OF_BOUNDS | PixelFlag.NON_LINEAR,
        (0, 114, 178),
    ),
)
MARK_COLOR = (213, 94, 0)
#: Sides and grey levels tried in turn until a thumbnail is small enough.
_THUMB_TRIES = ((256, 7), (224, 7), (192, 6), (160, 6), (128, 5), (96, 5), (64, 4), (32, 4))
#: Small sections are shown so many times larger at most; a picture so large is one to look at closely.
_ZOOM, _LARGE = 4, 512
#: ... up to this side.
_ZOOMED_PIX = 1200


class Marks(NamedTuple):
    """Circles to draw: 0-based positions, radii in image pixels (one, or one for each), and a colour."""

    x: Float
    y: Float
    radius_pix: Float | float = 12.0
    color: tuple[int, int, int] = MARK_COLOR


def thumb(
    data: npt.NDArray[np.floating],
    flags: Flags | None = None,
    marks: Marks | None = None,
    *,
    signed: bool = False,
    max_bytes: int = 10_000,
) -> bytes:
    """Draw a thumbnail small enough to go into an event log.

    Parameters
    ----------
    data
        (H, W), any unit; what is not finite shows as flagged.
    flags
        (H, W) uint16; flagged pixels are left out of the averages and shown in colour where they
        dominate.
    marks
        Positions to circle.
    signed
        Of an image that scatters about zero: grey is zero, white is more, black is less.
    max_bytes
        Upper limit of the size; sky noise does not compress, so grey levels go first, then pixels.

    Returns
    -------
    bytes
        A PNG, north as in the array: row 0 at the bottom.
    """
    factor = max(1, -(-max(data.shape) // _THUMB_TRIES[0][0]))
    grey, colors = _bin(data, flags, factor)
    scaled, kinds = _about_zero(grey) if signed else stretch(grey), () if marks is None else (marks,)
    png = b""
    for side, levels in _THUMB_TRIES:
        # Averages of the first averages: to go through all pixels again would take ten times as long.
        part = min(1.0, side / max(scaled.shape))
        shape = max(1, round(scaled.shape[0] * part)), max(1, round(scaled.shape[1] * part))
        small = _coarser(scaled, shape, np.add) / _coarser(np.ones_like(scaled), shape, np.add)
        bits = _coarser(colors, shape, np.maximum)
        png = _png(_palette_picture(small, bits, kinds, shape[1] / scaled.shape[1] / factor, levels), levels)
        if len(png) <= max_bytes:
            break
    return png


def _coarser(array: npt.NDArray[Any], shape: tuple[int, int], ufunc: np.ufunc) -> npt.NDArray[Any]:
    """Put the pixels of an array together so that so many rows and columns are left."""
    if array.shape == shape:
        return array
    for axis, n in enumerate(shape):
        array = ufunc.reduceat(array, np.arange(n) * array.shape[axis] // n, axis=axis)
    return array


def preview(
    data: npt.NDArray[np.floating],
    flags: Flags | None = None,
    marks: Sequence[Marks] = (),
    *,
    max_side_pix: int = 1600,
    signed: bool = False,
) -> Image.Image:
    """Draw a large picture; small images are enlarged by a whole number.

    Parameters
    ----------
    data, flags
        As of `thumb`.
    marks
        Positions to circle, each kind in its own colour.
    max_side_pix
        The longer side of the picture is at most so long.
    signed
        As of `thumb`.

    Returns
    -------
    picture
        RGB, row 0 at the bottom.
    """
    factor = max(1, -(-max(data.shape) // max_side_pix))
    zoom = max(1, min(_ZOOM, min(_ZOOMED_PIX, max_side_pix) // max(data.shape)))
    grey, colors = _bin(data, flags, factor)
    scaled = _about_zero(grey) if signed else stretch(grey)
    if zoom > 1:
        scaled = scaled.repeat(zoom, axis=0).repeat(zoom, axis=1)
        colors = colors.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return _palette_picture(scaled, colors, marks, zoom / factor, 200).convert("RGB")


def _palette_picture(
    scaled: Float32, colors: npt.NDArray[np.uint8], marks: Sequence[Marks], scale: float, levels: int
) -> Image.Image:
    """Make a picture whose palette is the grey levels, then the flags' colours, then the marks'."""
    grey = np.rint(scaled * (levels - 1)).astype(np.uint8)
    index = np.where(colors > 0, levels - 1 + colors, grey).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(index[::-1]), mode=None)
    palette = [round(255 * k / (levels - 1)) for k in range(levels) for _ in range(3)]
    for color in (*(color for _, color in FLAG_COLORS), *(kind.color for kind in marks)):
        palette.extend(color)
    picture.putpalette(palette)
    for number, kind in enumerate(marks, start=levels + len(FLAG_COLORS)):
        _draw_marks(picture, kind, scale, number)
    return picture


def _png(picture: Image.Image, levels: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True, bits=4 if levels + len(FLAG_COLORS) < 16 else 8)
    return out.getvalue()


def _draw_marks(picture: Image.Image, marks: Marks, scale: float, color: int) -> None:
    draw = ImageDraw.Draw(picture)
    large = max(picture.size) >= _LARGE
    radii = np.maximum(5.0 if large else 3.0, np.broadcast_to(marks.radius_pix, np.shape(marks.x)) * scale)
    columns = (np.asarray(marks.x) + 0.5) * scale - 0.5
    rows = picture.height - 0.5 - (np.asarray(marks.y) + 0.5) * scale
    for x, y, r in zip(columns.tolist(), rows.tolist(), radii.tolist(), strict=True):
        draw.ellipse((x - r, y - r, x + r, y + r), outline=color, width=2 if large else 1)


def _about_zero(
    data: npt.NDArray[np.floating], *, soft_sigma: float = 3.0, most_sigma: float = 30.0
) -> Float32:
    """Map values to 0..1, zero to the middle: linear up to `soft_sigma`, compressed beyond."""
    finite = data[np.isfinite(data) & (data != 0)]
    if finite.size == 0:
        return np.full(data.shape, 0.5, np.float32)
    soft = soft_sigma * (clipped_stats(finite[:: max(1, finite.size // 20000)]).sigma or 1.0)
    top = np.arcsinh(most_sigma / soft_sigma)
    scaled = 0.5 + np.arcsinh(np.nan_to_num(data) / soft) / (2 * top)
    return np.asarray(np.clip(scaled, 0, 1), np.float32)


def _bin(
    data: npt.NDArray[np.floating], flags: Flags | None, factor: int
) -> tuple[Float32, npt.NDArray[np.uint8]]:
    """Average blocks of pixels; also say which flag colour (from 1) a block deserves, 0 for none."""
    height, width = (max(1, n // factor) for n in data.shape)
    used = data[: height * factor, : width * factor].astype(np.float32)
    good = np.isfinite(used)
    bits = np.zeros(used.shape, np.uint16) if flags is None else flags[: height * factor, : width * factor]
    good &= bits == 0
    count = _blocks(good, height, width).astype(np.float32)
    total = _blocks(np.where(good, used, np.float32(0)), height, width)
    binned = np.where(count > 0, total / np.maximum(count, 1), np.float32(np.nan))
    colors = np.zeros((height, width), np.uint8)
    for number, (mask, _) in reversed(list(enumerate(FLAG_COLORS, start=1))):
        hit = (bits & np.uint16(mask)) != 0
        if mask & PixelFlag.NO_DATA:
            hit |= ~np.isfinite(used)
        # A block shows a flag when a fifth of it has it: thin columns stay visible.
        colors[_blocks(hit, height, width) >= max(1, 0.2 * factor * factor)] = number
    return binned.astype(np.float32), colors


def _blocks(array: npt.NDArray[np.generic], height: int, width: int) -> npt.NDArray[np.float32]:
    fy, fx = array.shape[0] // height, array.shape[1] // width
    # Two sums along one axis each are ten times faster than one over both.
    rows = np.add.reduce(array.reshape(height, fy, -1), axis=1, dtype=np.float32)
    return np.asarray(np.add.reduce(rows.reshape(height, width, fx), axis=2, dtype=np.float32))


def stretch(data: npt.NDArray[np.floating], *, low_sigma: float = 3.0, high_sigma: float = 25.0) -> Float32:
    """Map pixel values to 0..1: the sky's noise dark and visible, stars' cores not burnt out.

    Asinh scale (Lupton et al. 2004, PASP 116, 133) from `low_sigma` below the sky to the 99.8th
    percentile, or `high_sigma` above the sky if that is higher.

    Parameters
    ----------
    data
        Any shape; what is not finite becomes 0.
    low_sigma, high_sigma
        In units of the sky's own scatter.

    Returns
    -------
    ndarray
        float32.
    """
    finite = data[np.isfinite(data)]
    if finite.size == 0:
        return np.zeros(data.shape, np.float32)
    sky = clipped_stats(finite[:: max(1, finite.size // 20000)], n_sigma=3.0)
    soft = sky.sigma or 1.0
    high = max(float(np.percentile(finite, 99.8)), sky.median + high_sigma * soft)
    low = sky.median - low_sigma * soft
    scaled = np.arcsinh((np.nan_to_num(data, nan=low, posinf=high, neginf=low) - low) / (3 * soft))
    return np.asarray(np.clip(scaled / np.arcsinh((high - low) / (3 * soft)), 0, 1), np.float32)
