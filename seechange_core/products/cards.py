"""How a frame travels in its file: the names of its arrays and tables, and its numbers in the header."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seechange_core.frames import (
    Background,
    CommonStars,
    Crosstalk,
    Float,
    Float32,
    ImageFrame,
    LinearityLaw,
    MasterFrame,
    PsfModel,
    SubtractionFrame,
    Table,
)

Arrays = dict[str, npt.NDArray[Any]]

#: Our cards, which are not the camera's: left out of a frame's header when it is read back.
OWN = frozenset(
    (
        *("BUNIT", "SCEXPT", "SCGAIN", "SCSATUR", "SCCALIB", "SCRESAMP", "SCREFCOV", "SCFRINGE", "SCFRGERR"),
        *("PSFDEG", "PSFX0", "PSFY0", "PSFXSCAL", "PSFYSCAL", "PSFFWHM", "PSFNSTAR", "PSFFLOOR"),
        *("BKGSTEP", "BKGNX", "BKGNY"),
        *(f"SCREG{end}" for end in ("N", "DX", "DY", "SX", "SY", "FR", "FE", "FS")),
        *(f"SCZPCH{k}" for k in range(6)),
        "SCZPERR",
    )
)
#: The cards of `CommonStars`, in the order of its attributes.
_COMMON_STARS = ("SCREGN", "SCREGDX", "SCREGDY", "SCREGSX", "SCREGSY", "SCREGFR", "SCREGFE", "SCREGFS")


def image_arrays(frame: ImageFrame) -> Arrays:
    """Return the arrays of an image by the names its file gives them."""
    return {"data": frame.data, "weight": frame.weight, "flags": frame.flags}


def image_cards(frame: ImageFrame) -> dict[str, Any]:
    """Return the camera's cards and the image's numbers."""
    return {
        **frame.header,
        "BUNIT": "electron",
        "SCEXPT": frame.exposure_time_s,
        "SCGAIN": frame.gain,
        "SCSATUR": frame.saturation_e if np.isfinite(frame.saturation_e) else None,
        "SCCALIB": frame.calibration_steps,
        "SCRESAMP": frame.resamplings,
        "SCFRINGE": frame.fringe_scale if np.isfinite(frame.fringe_scale) else None,
        "SCFRGERR": frame.fringe_scale_error if np.isfinite(frame.fringe_scale_error) else None,
    }


def to_image(arrays: Mapping[str, npt.NDArray[Any]], cards: Mapping[str, Any]) -> ImageFrame:
    """Undo `image_arrays` and `image_cards`."""
    saturation = cards["SCSATUR"]
    # Files written before fringes were measured have no such cards.
    fringe, fringe_error = cards.get("SCFRINGE"), cards.get("SCFRGERR")
    return ImageFrame(
        data=arrays["data"],
        weight=arrays["weight"],
        flags=arrays["flags"],
        exposure_time_s=float(cards["SCEXPT"]),
        gain=float(cards["SCGAIN"]),
        saturation_e=np.inf if saturation is None else float(saturation),
        calibration_steps=int(cards["SCCALIB"]),
        resamplings=int(cards["SCRESAMP"]),
        fringe_scale=np.nan if fringe is None else float(fringe),
        fringe_scale_error=np.nan if fringe_error is None else float(fringe_error),
        header={key: value for key, value in cards.items() if key not in OWN},
    )


def subtraction_cards(frame: SubtractionFrame) -> dict[str, Any]:
    """Return what a difference knows of its registration and flux scale."""
    cards: dict[str, Any] = {"SCREFCOV": frame.reference_coverage}
    if frame.common_stars is not None:
        values = astuple(frame.common_stars)
        cards |= {k: v for k, v in zip(_COMMON_STARS, values, strict=True) if np.isfinite(v)}
    cards |= {f"SCZPCH{k}": value for k, value in enumerate(frame.zp_change_mag)}
    return cards | ({"SCZPERR": frame.zp_err} if np.isfinite(frame.zp_err) else {})


def to_common_stars(cards: Mapping[str, Any]) -> CommonStars | None:
    """Undo `subtraction_cards` as far as the registration goes; None if it was not kept."""
    if "SCREGN" not in cards:
        return None
    numbers = [float(cards.get(key, np.nan)) for key in _COMMON_STARS[1:]]
    return CommonStars(int(cards["SCREGN"]), *numbers)


def to_zp_change(cards: Mapping[str, Any]) -> tuple[float, ...]:
    """Undo `subtraction_cards` as far as the change of the zero point goes."""
    return tuple(float(cards[key]) for k in range(6) if (key := f"SCZPCH{k}") in cards)


def master_arrays(frame: MasterFrame) -> Arrays:
    """Return the arrays of a master frame by the names its file gives them."""
    return {"data": frame.data, "variance": frame.variance, "flags": frame.flags}


def master_cards(frame: MasterFrame) -> dict[str, Any]:
    """Return the numbers of a master frame."""
    return {
        "SCKIND": frame.kind,
        "SCNFRAME": frame.n_frames,
        "SCEXPT": frame.exposure_time_s,
        "SCPEDEST": frame.holds_pedestal,
        "SCCALIB": frame.calibration_steps,
    }


def to_master(arrays: Mapping[str, npt.NDArray[Any]], cards: Mapping[str, Any]) -> MasterFrame:
    """Undo `master_arrays` and `master_cards`."""
    exposure_time = cards["SCEXPT"]
    # Masters written before this was recorded have no such card.
    steps = cards.get("SCCALIB")
    return MasterFrame(
        kind=str(cards["SCKIND"]),
        data=arrays["data"],
        variance=arrays["variance"],
        flags=arrays["flags"],
        n_frames=int(cards["SCNFRAME"]),
        exposure_time_s=np.nan if exposure_time is None else float(exposure_time),
        holds_pedestal=bool(cards["SCPEDEST"]),
        calibration_steps=None if steps is None else int(steps),
    )


# --- Tables of calibrators ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LinearityPoints(Table):
    """The points of a linearity law, one amplifier after the other.

    Attributes
    ----------
    amplifier
        Names.
    measured_adu, true_adu
        ADU above the zero level.
    """

    amplifier: npt.NDArray[np.str_]
    measured_adu: Float
    true_adu: Float


@dataclass(frozen=True, eq=False)
class CrosstalkPairs(Table):
    """How much of a source's signal appears in a victim, for all pairs of amplifiers, a victim at a time.

    Attributes
    ----------
    victim, source
        Names of amplifiers.
    coefficient
        ADU in the victim per ADU of signal in the source.
    """

    victim: npt.NDArray[np.str_]
    source: npt.NDArray[np.str_]
    coefficient: Float


def linearity_points(law: LinearityLaw) -> LinearityPoints:
    """Return the table of a linearity law."""
    n = law.measured_adu.shape[1]
    return LinearityPoints(
        np.repeat(np.array(law.amplifiers), n), law.measured_adu.ravel(), law.true_adu.ravel()
    )


def to_linearity(points: LinearityPoints) -> LinearityLaw:
    """Undo `linearity_points`."""
    names = tuple(dict.fromkeys(map(str, points.amplifier)))
    shape = (len(names), -1)
    return LinearityLaw(names, points.measured_adu.reshape(shape), points.true_adu.reshape(shape))


def crosstalk_pairs(crosstalk: Crosstalk) -> CrosstalkPairs:
    """Return the table of crosstalk coefficients."""
    names = np.array(crosstalk.amplifiers)
    n = len(names)
    return CrosstalkPairs(np.repeat(names, n), np.tile(names, n), crosstalk.coefficients.ravel())


def to_crosstalk(pairs: CrosstalkPairs) -> Crosstalk:
    """Undo `crosstalk_pairs`."""
    names = tuple(dict.fromkeys(map(str, pairs.victim)))
    return Crosstalk(names, pairs.coefficient.reshape(len(names), len(names)))


# --- Models ---------------------------------------------------------------------------------------


def psf_cards(psf: PsfModel) -> dict[str, Any]:
    """Return the numbers of a PSF model that go with its coefficients."""
    return {
        "PSFDEG": psf.degree,
        "PSFX0": psf.centre[0],
        "PSFY0": psf.centre[1],
        "PSFXSCAL": psf.scale[0],
        "PSFYSCAL": psf.scale[1],
        "PSFFWHM": psf.fwhm_pix,
        "PSFNSTAR": psf.n_stars,
        "PSFFLOOR": psf.floor,
        **{key: value for key, value in _brighter_fatter(psf).items() if np.isfinite(value)},
    }


def _brighter_fatter(psf: PsfModel) -> dict[str, float]:
    return {"PSFBF": psf.brighter_fatter, "PSFBFERR": psf.brighter_fatter_err}


def to_psf(coefficients: Float32, cards: Mapping[str, Any]) -> PsfModel:
    """Make a PSF model of its coefficients and `psf_cards`."""
    return PsfModel(
        coefficients=coefficients,
        degree=int(cards["PSFDEG"]),
        centre=(float(cards["PSFX0"]), float(cards["PSFY0"])),
        scale=(float(cards["PSFXSCAL"]), float(cards["PSFYSCAL"])),
        fwhm_pix=float(cards["PSFFWHM"]),
        n_stars=int(cards["PSFNSTAR"]),
        floor=float(cards["PSFFLOOR"]),
        brighter_fatter=float(cards.get("PSFBF", np.nan)),
        brighter_fatter_err=float(cards.get("PSFBFERR", np.nan)),
    )


def background_cards(background: Background) -> dict[str, Any]:
    """Return the numbers of a background that go with its meshes."""
    height, width = background.shape
    return {"BUNIT": "electron", "BKGSTEP": background.step_pix, "BKGNX": width, "BKGNY": height}


def to_background(
    level: Float32, rms: Float32, cards: Mapping[str, Any], wings: Float32 | None = None
) -> Background:
    """Make a background of its meshes and `background_cards`."""
    return Background(
        level=level,
        rms=rms,
        step_pix=int(cards["BKGSTEP"]),
        shape=(int(cards["BKGNY"]), int(cards["BKGNX"])),
        wings=wings,
    )
