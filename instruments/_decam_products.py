"""What DECam's Community Pipeline leaves in calibrated exposures: steps, mask, weight, amplifiers."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from instruments import _decam_layout as layout
from seechange_core.errors import HeaderError
from seechange_core.flags import UNUSABLE, CalibrationStep, PixelFlag
from seechange_core.frames import Amplifier, Box, Cards, Flags, Float32
from seechange_core.instrument import SectionContext, SectionId
from seechange_core.instrument.header import as_number, as_text, find_card
from seechange_core.numerics.coarse_sky import coarse_sky

#: Cards that a step leaves in the header of the section it was done to, or in the global one.
_TRACES: dict[CalibrationStep, tuple[str, ...]] = {
    CalibrationStep.OVERSCAN: ("DESOSCN", "OVRSCAN"),
    CalibrationStep.CROSSTALK: ("DESDCXTK", "XTALKFIL"),
    CalibrationStep.BIAS: ("DESBIAS", "BIASFIL"),
    CalibrationStep.LINEARITY: ("DESLINC", "LINCFIL"),
    CalibrationStep.BAD_PIXELS: ("DESBPM", "BPMFIL"),
    CalibrationStep.FLAT: ("DESFLAT", "FLATFIL"),
    CalibrationStep.FRINGE: ("DESFRING", "FRINGE"),
    CalibrationStep.ILLUMINATION: ("DESSTAR", "STARFIL", "DESILLUM", "ILLUMFIL"),
    CalibrationStep.COSMIC_RAYS: ("DESCRMSK",),
}

#: From version 3.5 on, a mask's pixel holds one number: one reason, the weightiest. Any other number is bad.
_FIRST_WITH_CODES = (3, 5)
_CODES = {
    0: PixelFlag(0),
    1: PixelFlag.BAD_PIXEL,
    2: PixelFlag.NO_DATA,
    3: PixelFlag.SATURATED,
    4: PixelFlag.BLEED,
    5: PixelFlag.COSMIC_RAY,
    6: PixelFlag.BAD_PIXEL,  # low weight
    7: PixelFlag(0),  # unlike other exposures of the field: maybe a transient
    8: PixelFlag(0),  # satellite: its masker takes other things for trails, wide halos too
}
#: From this version on, code 5 is cosmic rays; before, some runs mixed it up with code 8.
_FIRST_WITH_COSMIC_RAYS = (4, 8)

#: Before this version, S19 is saturated from a lower level on than its cards and masks tell, ADU.
_FIRST_WITH_S19 = (4, 9)
_SATURATION_S19_ADU = 46000.0

#: Until before this exposure (EXPNUM), so many rows at the CCDs' outer edges glow in r.
_FIRST_WITHOUT_GLOW = 298251
_GLOWING_ROWS = 100

#: Before, it held bits. 32 (halo of a bright star) and 128 (unlike other exposures) are no defects.
_BITS = {
    1: PixelFlag.BAD_PIXEL,
    2: PixelFlag.SATURATED,
    4: PixelFlag.INTERPOLATED,
    8: PixelFlag.BAD_PIXEL,  # too little signal
    16: PixelFlag.COSMIC_RAY,
    64: PixelFlag.BLEED,
    256: PixelFlag.BAD_PIXEL,  # edge
    512: PixelFlag.BAD_PIXEL,  # glowing edge
    1024: PixelFlag.STREAK,
}


def is_calibrated(cards: Cards, section_id: SectionId) -> bool:
    """Tell a calibrated section from a raw one.

    Raises
    ------
    HeaderError
        If it is a product of another kind: resampled, stacked, a master calibration.
    """
    card = find_card(cards, ["PROCTYPE"])
    kind = "raw" if card is None else as_text(card[1]).lower()
    if kind not in {"raw", "instcal"}:
        raise HeaderError(
            f"PROCTYPE is {as_text(card[1]) if card else None}: pixels of no one CCD and no one exposure",
            cure="give raw exposures, or the ooi, ood and oow of InstCal",
            section=section_id,
        )
    return kind == "instcal"


def steps_done(cards: Cards) -> int:
    """Return the `CalibrationStep` bits of what the header says was done."""
    return int(sum(step for step, traces in _TRACES.items() if find_card(cards, traces) is not None))


def read_mask(mask: npt.NDArray[Any], cards: Cards) -> Flags:
    """Translate a mask into `PixelFlag` bits.

    Parameters
    ----------
    mask
        (H, W) integers.
    cards
        Header with PLVER, the pipeline's version, on which their meaning depends.

    Raises
    ------
    HeaderError
        If the version is not told.
    """
    version = _version(cards)
    if version >= _FIRST_WITH_CODES:
        table = np.full(max(_CODES) + 2, PixelFlag.BAD_PIXEL, np.uint16)
        table[list(_CODES)] = list(_CODES.values())
        if version < _FIRST_WITH_COSMIC_RAYS:
            table[5] = 0
        beyond = max(_CODES) + 1
        values = np.clip(mask, -1, beyond)
        values[values < 0] = beyond
        translated: Flags = table[values.astype(np.uint8)]
        return translated
    flags = np.zeros(mask.shape, np.uint16)
    for bit, meaning in _BITS.items():
        flags[(mask & bit) != 0] |= np.uint16(meaning)
    return flags


def glowing_rows(context: SectionContext) -> slice | None:
    """Return the rows of a calibrated section that glow, or None: early exposures in r do at one edge.

    The edge is that of the low rows in the N CCDs and of the high rows in the S CCDs.
    """
    cards = {k: find_card(context.cards, [k]) for k in ("FILTER", "EXPNUM")}
    if cards["FILTER"] is None or cards["EXPNUM"] is None:
        return None
    words = as_text(cards["FILTER"][1]).split()
    if words[0] != "r" or as_number(cards["EXPNUM"][1], "EXPNUM") >= _FIRST_WITHOUT_GLOW:
        return None
    height, first = context.shape[0], _first_pixel(context, "y")
    if str(context.section_id).startswith("N"):
        rows = slice(0, max(min(_GLOWING_ROWS - first, height), 0))
    else:
        rows = slice(max(min(layout.SIZE_Y - _GLOWING_ROWS - first, height), 0), height)
    return rows if rows.start < rows.stop else None


def background_weight(weight: Float32, flags: Flags | None, amplifiers: Iterable[Box]) -> Float32:
    """Turn the inverse variance of pixels into that of the sky behind their sources.

    The pipeline takes a pixel's variance from its own value. That counts a source's photons, and it makes
    pixels that fluctuated down weigh more: a weighted mean of them comes out low. Taken instead is the
    clipped mean of the variance in cells of 64 pixels, each amplifier by itself.

    Parameters
    ----------
    weight
        (H, W), ADU^-2; 0 where a pixel is no use, which stays.
    flags
        (H, W) `PixelFlag` bits, or None.
    amplifiers
        Their boxes in the image.

    Returns
    -------
    array
        (H, W) float32, ADU^-2.
    """
    usable = np.isfinite(weight) & (weight > 0)
    clean = usable if flags is None else usable & ((flags & np.uint16(UNUSABLE)) == 0)
    variance = np.ones(weight.shape, np.float32)
    np.divide(np.float32(1), weight, out=variance, where=usable)
    result = np.zeros(weight.shape, np.float32)
    for box in amplifiers:
        place = box.slices
        level = coarse_sky(variance[place], clean[place]).level_rows()
        good = usable[place] & (level > 0)
        np.divide(np.float32(1), level, out=result[place], where=good)
    return result


def amplifiers(context: SectionContext, by_cards: Sequence[Amplifier]) -> tuple[Amplifier, ...]:
    """Give the amplifiers A and B of a calibrated section their places, and one gain for both.

    The flat has brought both to one scale: with a gain each, the sky would have a step between them. What the
    pipeline has linearised is linear up to saturation. S19 saturates lower than early versions believed.

    Parameters
    ----------
    context
        The section.
    by_cards
        A and B as their cards tell.
    """
    gain = sum(a.gain for a in by_cards) / len(by_cards)
    height, width = context.shape
    border = min(max(layout.SIZE_X // 2 - _first_pixel(context, "x"), 0), width)
    spans = [(0, border), (border, width)]
    if str(context.section_id).startswith("S"):
        spans.reverse()  # north of the axis the CCDs stand the other way round: A reads the high columns
    placed = []
    limit = np.inf
    if context.section_id == "S19" and _version(context.cards) < _FIRST_WITH_S19:
        limit = _SATURATION_S19_ADU
    for amplifier, (x0, x1) in zip(by_cards, spans, strict=True):
        box = Box(0, height, x0, x1)
        if x0 < x1:
            saturation = min(amplifier.saturation_adu, limit)
            placed.append(
                replace(
                    amplifier,
                    raw=box,
                    image=box,
                    gain=gain,
                    saturation_adu=saturation,
                    non_linear_adu=np.inf,
                )
            )
    return tuple(placed)


def _first_pixel(context: SectionContext, axis: Literal["x", "y"]) -> int:
    """Return which column or row of the CCD (0-based) comes first in the image.

    A CCD is trimmed by LTV1, LTV2, and a piece cut out of it has moved its reference pixel, which for a
    whole CCD is that of the focal plane's axis.
    """
    n = "xy".index(axis)
    size, length = (layout.SIZE_X, layout.SIZE_Y)[n], context.shape[1 - n]
    keywords = f"CRPIX{n + 1}", f"LTV{n + 1}"
    reference, trimmed = (find_card(context.cards, [k]) for k in keywords)
    if reference is not None:
        at_whole = size / 2 - layout.place_pix(str(context.section_id))[n]
        moved = at_whole - as_number(reference[1], keywords[0])
        first = round(moved)
        if abs(moved - first) < 0.05 and 0 <= first <= size - length:
            return first
    return 0 if trimmed is None else round(-as_number(trimmed[1], keywords[1]))


def _version(cards: Cards) -> tuple[int, int]:
    card = find_card(cards, ["PLVER"])
    match = re.search(r"(\d+)\.(\d+)", as_text(card[1])) if card is not None else None
    if match is None:
        raise HeaderError(
            f"PLVER = {None if card is None else card[1]!r} tells no version of the pipeline",
            cure="write the card: the mask's numbers meant something else before V3.5",
        )
    return int(match[1]), int(match[2])
