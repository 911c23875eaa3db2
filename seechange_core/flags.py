"""Bits that mark pixels and processing steps, with the words that explain them.

One list each: the constants, the decoder and the documentation are made from it.
"""

from enum import IntFlag


class PixelFlag(IntFlag):
    """Bits of an image's `flags` array (uint16)."""

    BAD_PIXEL = 1 << 0
    NO_DATA = 1 << 1
    SATURATED = 1 << 2
    OUT_OF_BOUNDS = 1 << 3
    COSMIC_RAY = 1 << 4
    STREAK = 1 << 5
    BLEED = 1 << 6
    NON_LINEAR = 1 << 7
    INTERPOLATED = 1 << 8


class CalibrationStep(IntFlag):
    """Bits of an image's `calibration_steps`: what was really done to it."""

    OVERSCAN = 1 << 0
    BIAS = 1 << 1
    DARK = 1 << 2
    LINEARITY = 1 << 3
    FLAT = 1 << 4
    FRINGE = 1 << 5
    ILLUMINATION = 1 << 6
    COSMIC_RAYS = 1 << 7
    GAIN = 1 << 8
    CROSSTALK = 1 << 9
    BAD_PIXELS = 1 << 10


class ExposureFlag(IntFlag):
    """Bits of an exposure's `bitflag`: why it is not wholly good."""

    MARKED_BAD = 1 << 0
    SECTIONS_LOST = 1 << 1


PIXEL_FLAG_MEANINGS: dict[PixelFlag, str] = {
    PixelFlag.BAD_PIXEL: "dead, hot or unstable; of a defective amplifier; or of a row without zero level",
    PixelFlag.NO_DATA: "not a finite number, or no detector there",
    PixelFlag.SATURATED: "at or above the saturation level",
    PixelFlag.OUT_OF_BOUNDS: "outside the input image after alignment",
    PixelFlag.COSMIC_RAY: "hit by a cosmic ray",
    PixelFlag.STREAK: "crossed by a satellite or a fast asteroid",
    PixelFlag.BLEED: "in the bleed trail of a saturated star",
    PixelFlag.NON_LINEAR: "beyond the range where the detector is linear",
    PixelFlag.INTERPOLATED: "value filled in from its neighbours",
}

#: Pixels with any of these bits have weight 0 and never enter a measurement.
UNUSABLE = (
    PixelFlag.BAD_PIXEL
    | PixelFlag.NO_DATA
    | PixelFlag.SATURATED
    | PixelFlag.OUT_OF_BOUNDS
    | PixelFlag.COSMIC_RAY
    | PixelFlag.STREAK
    | PixelFlag.BLEED
)


def names(value: int, kind: type[IntFlag] = PixelFlag) -> list[str]:
    """Spell a bit mask as the lower-case names of the bits that are set."""
    return [bit.name.lower() for bit in kind if value & bit and bit.name is not None]
