"""How calibration frames are brought to the units of their master: settings, masters needed, read-out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from seechange_core.errors import CalibratorMissingError, PixelsError, UserError
from seechange_core.frames import Amplifier, Crosstalk, Float32, LinearityLaw, MasterFrame, Masters, RawFrame
from seechange_core.numerics import detector
from seechange_core.numerics.detector import Pedestal
from seechange_core.numerics.linearity import linear_limit_adu
from seechange_core.params import Params, param

#: Kinds of masters that are made of raw frames, and the master frames that each of them needs.
NEEDS: dict[str, tuple[str, ...]] = {
    "bias": (),
    "dark": ("bias",),
    "flat": ("bias", "dark"),
    "twilight_flat": ("bias", "dark"),
}
_NAMES = {
    "crosstalk": "crosstalk coefficients",
    "linearity": "linearity law",
    "bias": "master bias",
    "dark": "master dark",
}


class CombineParams(Params):
    """How calibration frames are made into a master."""

    do_overscan: bool = param(True, "Take off each amplifier's zero level, where it has an overscan.")
    overscan_trim_pix: int = param(
        2, "Leave out so many of an overscan's columns next to the image, at most half: deferred charge.",
        unit="pix", ge=0,
    )  # fmt: skip
    do_crosstalk: bool = param(False, "Take off the crosstalk between amplifiers.")
    do_linearity: bool = param(False, "Correct the amplifiers' non-linearity.")
    do_bias: bool = param(True, "Subtract the master bias from darks and flats.")
    do_dark: bool = param(True, "Subtract the master dark from flats.")
    missing_calibrator: Literal["fail", "skip"] = param(
        "fail",
        "What to do when a step is asked for and its calibrator does not exist: fail, or go on without.",
    )
    n_sigma: float = param(4.0, "Clip values further than this from the stack's median.", unit="sigma", gt=1)
    source_patch_pix: int = param(
        5, "Drop patches of twilight flats of this width that are too bright: stars and their wings.",
        unit="pix", ge=3,
    )  # fmt: skip
    min_frames: int = param(3, "Fewest good frames a master can be made from.", ge=2)
    level_n_sigma: float = param(
        6.0, "Reject frames whose level or pattern differs from the others' by more.", unit="sigma", gt=0
    )
    scatter_ratio_max: float = param(
        1.3, "Reject frames noisier, or quieter, than the others by more than this factor.", gt=1
    )
    flat_level_min_e: float = param(5000.0, "Reject flats fainter than this.", unit="e-", gt=0)
    flat_level_max: float = param(0.85, "Reject flats brighter than this fraction of saturation.", gt=0, le=1)
    flat_pattern_min: float = param(
        0.004, "Differences of pattern below this fraction are never a reason to reject a flat.", gt=0
    )
    twilight_gradient_max: float = param(
        0.05, "Reject twilight flats lit more obliquely than the others by this, from edge to edge.", gt=0
    )
    validity_days: float = param(
        60.0, "A master serves exposures taken up to so many days before or after it.", unit="d", gt=0
    )
    strip_mb: int = param(32, "Memory for one strip of the stack.", unit="MB", ge=1, results=False)


@dataclass(frozen=True, eq=False)
class Recipe:
    """What is done to each frame of a kind before they are averaged.

    Attributes
    ----------
    kind
        Of the master.
    bias, dark, crosstalk, linearity
        Calibrators to apply; None to leave the step out.
    overscan
        Take off the zero level.
    overscan_trim_pix
        Columns of the overscans that are left out.
    holds_pedestal
        The master will hold the electronic zero level.
    time_s
        The only exposure time that fits, where a zero level stays in; else None.
    """

    kind: str
    bias: MasterFrame | None
    dark: MasterFrame | None
    crosstalk: Crosstalk | None
    linearity: LinearityLaw | None
    overscan: bool
    overscan_trim_pix: int
    holds_pedestal: bool
    time_s: float | None

    @property
    def is_flat(self) -> bool:
        """Dome or twilight."""
        return self.kind in ("flat", "twilight_flat")

    def pedestals(self, frame: RawFrame) -> dict[str, Pedestal]:
        """Return the zero levels to take off, by amplifier."""
        return detector.overscan_pedestals(frame, self.overscan_trim_pix) if self.overscan else {}

    def electrons(
        self, frame: RawFrame, amplifier: Amplifier, pedestals: Mapping[str, Pedestal], rows: slice
    ) -> Float32:
        """Return some rows of an amplifier in electrons, masters subtracted."""
        values = detector.signal_electrons(
            frame,
            amplifier,
            pedestals=pedestals,
            crosstalk=self.crosstalk,
            linearity=self.linearity,
            rows=rows,
        )
        # The masters' own noise is common to all frames: it is added after averaging, not here.
        if self.bias is not None:
            values -= self.bias.data[amplifier.image.slices][rows]
        if self.dark is not None:
            values -= self.dark.data[amplifier.image.slices][rows] * np.float32(frame.exposure_time_s)
        return values

    def linear_limit_adu(self, amplifier: Amplifier, pedestals: Mapping[str, Pedestal]) -> float:
        """Return the raw level up to which an amplifier is linear, the law applied if there is one."""
        zero = pedestals.get(amplifier.name)
        zero_adu = 0.0 if zero is None else float(np.mean(zero.level_adu))
        return linear_limit_adu(amplifier, self.linearity, zero_adu)

    def floor_e2(self, amplifier: Amplifier, pedestals: Mapping[str, Pedestal]) -> float:
        """Return the predicted variance without light."""
        floor = amplifier.read_noise_e**2
        if amplifier.name in pedestals:
            floor += pedestals[amplifier.name].variance_adu * amplifier.gain**2
        return max(floor, 1e-6)

    def check_shape(self, shape: tuple[int, int]) -> None:
        """Refuse masters that are not the frames' shape."""
        for master in (self.bias, self.dark):
            if master is not None and master.data.shape != shape:
                raise PixelsError(
                    f"the master {master.kind} is {master.data.shape} pixels, the frame {shape}",
                    cure=f"rebuild the {master.kind} from frames of this camera and readout mode",
                )


def check_kind(kind: str) -> None:
    """Refuse kinds that are not combined from raw frames."""
    if kind not in NEEDS:
        raise UserError(f"cannot combine frames of kind {kind!r}", cure=f"kinds are {', '.join(NEEDS)}")


def make_recipe(
    kind: str,
    amplifiers: Sequence[Amplifier],
    times_s: Sequence[float],
    masters: Masters,
    params: CombineParams,
) -> Recipe:
    """Choose what to do to frames of a kind.

    Parameters
    ----------
    kind
        Of the master.
    amplifiers
        Of the frames.
    times_s
        Their exposure times.
    masters, params
        As for `combine`.

    Raises
    ------
    CalibratorMissingError
        Naming everything that is asked for and does not exist; or if zero levels would have to be scaled.
    """
    wanted = (*(k for k in ("crosstalk", "linearity") if getattr(params, f"do_{k}")),
              *(k for k in NEEDS[kind] if getattr(params, f"do_{k}")))  # fmt: skip
    missing = [k for k in wanted if getattr(masters, k) is None]
    if missing and params.missing_calibrator == "fail":
        raise CalibratorMissingError(
            f"no {', no '.join(_NAMES[k] for k in missing)} for combining {kind} frames",
            cure=f"build or supply it first, set do_{missing[0]} to false, or set missing_calibrator to skip",
        )
    bias = masters.bias if "bias" in wanted else None
    dark = masters.dark if "dark" in wanted else None
    if dark is not None and dark.holds_pedestal:
        bias = None  # it is in the dark already
    has_overscan = params.do_overscan and any(a.overscan is not None for a in amplifiers)
    holds = kind == "dark" and bias is None and not has_overscan
    return Recipe(
        kind=kind,
        bias=bias,
        dark=dark,
        crosstalk=masters.crosstalk if "crosstalk" in wanted else None,
        linearity=masters.linearity if "linearity" in wanted else None,
        overscan=params.do_overscan,
        overscan_trim_pix=params.overscan_trim_pix,
        holds_pedestal=holds,
        time_s=_only_time(kind, dark, holds, times_s, params.min_frames),
    )


def fits_time(time_s: float, only_time_s: float | None) -> bool:
    """Tell whether a frame's exposure time is the one that fits, where only one does."""
    return only_time_s is None or abs(time_s - only_time_s) <= 0.01 * only_time_s


def _only_time(
    kind: str, dark: MasterFrame | None, holds: bool, times_s: Sequence[float], least: int
) -> float | None:
    """Return the exposure time that all frames must have because a zero level cannot be scaled with it."""
    if not times_s:
        return None
    if holds:
        only = float(np.median(times_s))
    elif dark is not None and dark.holds_pedestal:
        only = dark.exposure_time_s
    else:
        return None
    fitting = sum(fits_time(t, only) for t in times_s)
    if fitting < min(least, len(times_s)):
        whose = "the darks" if holds else "the master dark"
        raise CalibratorMissingError(
            f"{kind} frames of {min(times_s):g} to {max(times_s):g} s cannot be combined while {whose} "
            f"hold{'' if holds else 's'} the bias level ({fitting} of them fit {only:g} s)",
            cure="build a master bias first, or combine frames of one exposure time",
        )
    return only
