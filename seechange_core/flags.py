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
    STREAKS = 1 << 11


class ExposureFlag(IntFlag):
    """Bits of an exposure's `bitflag`: why it is not wholly good."""

    MARKED_BAD = 1 << 0
    SECTIONS_LOST = 1 << 1


class QualityFlag(IntFlag):
    """Bits of the `bitflag` of images, PSFs, source lists, world coordinates and zero points: what is bad.

    A product has its own bits and those of what it was made from; a difference has those of the zero points
    of its image and of its references, and a coadd those of its inputs.
    """

    MARKED_BAD = 1 << 0
    BRIGHT_SKY = 1 << 1
    TRAILED = 1 << 2
    MANY_PIXELS_LOST = 1 << 3
    TOO_FEW_SOURCES = 1 << 4
    TOO_MANY_SOURCES = 1 << 5
    PSF_FAILED = 1 << 6
    NO_CATALOG = 1 << 7
    MATCH_FAILED = 1 << 8
    BIG_RESIDUALS = 1 << 9
    CLOUDS = 1 << 10
    RELATIVE = 1 << 11
    NOISE_WRONG = 1 << 12
    TOO_DENSE = 1 << 13
    MISREGISTERED = 1 << 14


QUALITY_MEANINGS: dict[QualityFlag, str] = {
    QualityFlag.MARKED_BAD: "a person called it bad",
    QualityFlag.BRIGHT_SKY: "sky brighter than the settings allow",
    QualityFlag.TRAILED: "stars are elongated all alike: guiding, wind or focus",
    QualityFlag.MANY_PIXELS_LOST: "more pixels are masked than the settings allow",
    QualityFlag.TOO_FEW_SOURCES: "fewer sources than the settings expect",
    QualityFlag.TOO_MANY_SOURCES: "more sources than the settings expect: noise, or a crowd",
    QualityFlag.PSF_FAILED: "the PSF does not fit the stars, or there were too few to make one",
    QualityFlag.NO_CATALOG: "no reference catalog covers the field",
    QualityFlag.MATCH_FAILED: "sources and catalog could not be matched beyond chance",
    QualityFlag.BIG_RESIDUALS: "the solution leaves larger residuals than the settings allow",
    QualityFlag.CLOUDS: "transparency below the night's trend, or below what is expected",
    QualityFlag.RELATIVE: "calibrated on a bootstrapped catalog: good relative to its own field only",
    QualityFlag.NOISE_WRONG: "the sky scatters by more or less than the image's weights say",
    QualityFlag.TOO_DENSE: "more changes than the settings expect: most are false, none makes objects",
    QualityFlag.MISREGISTERED: "shift or flux ratio between image and reference are not well known",
}

#: What makes an image unfit for references: it would do harm to what is made of it. The other bits tell what
#: weights and limits count already (lost pixels), what may well be true of the sky (a crowd), or what is as
#: often the catalog's fault as the image's (big residuals).
UNFIT = (
    QualityFlag.MARKED_BAD
    | QualityFlag.BRIGHT_SKY
    | QualityFlag.TRAILED
    | QualityFlag.TOO_FEW_SOURCES
    | QualityFlag.PSF_FAILED
    | QualityFlag.CLOUDS
)

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
