"""What to do to a raw section: the settings of `stages.preprocess`."""

from typing import Literal

from seechange_core.flags import CalibrationStep
from seechange_core.params import Params, param

#: The bit that each kind of calibrator sets.
STEPS = {
    "crosstalk": CalibrationStep.CROSSTALK,
    "linearity": CalibrationStep.LINEARITY,
    "bias": CalibrationStep.BIAS,
    "dark": CalibrationStep.DARK,
    "flat": CalibrationStep.FLAT,
    "fringe": CalibrationStep.FRINGE,
    "illumination": CalibrationStep.ILLUMINATION,
    "bad_pixels": CalibrationStep.BAD_PIXELS,
}


class PreprocessParams(Params):
    """What to do to a raw section, and how."""

    do_overscan: bool = param(True, "Take off each amplifier's zero level, where it has an overscan.")
    overscan_trim_pix: int = param(
        2, "Leave out so many of an overscan's columns next to the image, at most half: deferred charge.",
        unit="pix", ge=0,
    )  # fmt: skip
    do_crosstalk: bool = param(False, "Take off what the amplifiers leave in each other.")
    do_linearity: bool = param(False, "Bring each amplifier's signal to what a linear one would have given.")
    do_bias: bool = param(True, "Subtract the master bias.")
    do_dark: bool = param(True, "Subtract the master dark, scaled to the exposure time.")
    do_flat: bool = param(True, "Divide by the master flat.")
    do_fringe: bool = param(False, "Subtract the fringe pattern, as strong as it is in the image.")
    do_illumination: bool = param(False, "Divide by the smooth response that is left after the flat.")
    do_bad_pixels: bool = param(True, "Flag the pixels of the bad-pixel mask.")
    do_cosmic_rays: bool = param(True, "Find and flag cosmic rays.")
    do_streaks: bool = param(True, "Find and flag the trails of satellites and fast asteroids.")
    fringe_filters: tuple[str, ...] = param(
        (), "Filters in which fringes are subtracted if do_fringe is on; none named: in all of them."
    )
    illumination_filters: tuple[str, ...] = param(
        (), "Filters in which do_illumination holds; none named: in all of them."
    )
    missing_calibrator: Literal["fail", "skip"] = param(
        "fail", "What to do when a step is asked for and its master does not exist: fail, or skip the step."
    )
    flat_kinds: tuple[Literal["flat", "twilight_flat"], ...] = param(
        ("flat", "twilight_flat"), "Kinds of flats to divide by, the preferred one first.", min_length=1
    )
    noise_model: Literal["predicted", "measured"] = param(
        "predicted",
        "Background variance from gain, read noise and sky level, or (for images whose sky or pedestal "
        "was changed before they came here) from the scatter of the sky.",
    )
    read_noise: Literal["overscan", "header"] = param(
        "overscan", "Read noise as it is in the exposure's own overscan, where there is one, or as described."
    )
    flat_min: float = param(0.2, "Pixels with less response than this are bad.", gt=0, lt=1)
    fringe_min_sigma: float = param(
        3.0, "Fringes are subtracted if they are found with this significance.", unit="sigma", gt=0
    )
    fringe_scale_max: float = param(
        5.0, "Fringes found to be stronger than this many times their pattern are no fringes.", gt=1
    )
    fringe_cell_pix: int = param(
        128, "Mesh of the background that fringes are measured against.", unit="pix", ge=32
    )
    bleed_fraction: float = param(
        0.6,
        "Pixels on a saturated one along the column are a bleed trail above this fraction of saturation.",
        gt=0,
        le=1,
    )
    saturated_grow_pix: int = param(
        1, "Grow saturated pixels and bleed trails by this much.", unit="pix", ge=0
    )
    sky_cell_pix: int = param(64, "Mesh of the sky level in the noise model.", unit="pix", ge=16)
    cosmic_ray_sigma: float = param(4.5, "Significance of a cosmic-ray pixel.", unit="sigma", gt=0)
    cosmic_ray_neighbour_sigma: float = param(
        3.0, "Significance of pixels touching a cosmic-ray pixel.", unit="sigma", gt=0
    )
    cosmic_ray_star_fwhm_pix: float = param(
        1.5,
        "Sharpest star this camera can see: the image's own stars can raise the limit, never lower it.",
        unit="pix",
        ge=1.5,
    )
    cosmic_ray_iterations: int = param(4, "Rounds of the cosmic-ray search.", ge=1)
    streak_min_snr: float = param(
        0.3, "Faintest trail that is flagged: height of its ridge over the noise of one pixel.", gt=0
    )
    streak_min_length_fwhm: float = param(
        5.0, "Shortest trail that is flagged, in widths of a star: galaxies are hardly longer.", ge=4
    )
    min_usable_fraction: float = param(
        0.05, "A section with less usable pixels than this is dead.", gt=0, lt=1
    )

    def asks_for(self, kind: str, band: str | None) -> bool:
        """Tell whether the step of a kind of calibrator is wanted behind a filter; None: of unknown name."""
        only = {"fringe": self.fringe_filters, "illumination": self.illumination_filters}.get(kind, ())
        return bool(getattr(self, f"do_{kind}")) and (band is None or not only or band in only)
